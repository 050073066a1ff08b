public import CLinux
public import Linux

/// Pages of ours that a device may reach: descriptor rings and bounce buffers.
///
/// Its end takes the pages off the bus first, frees them then, and gives their address back last, in that order, because
/// `deinit` says so. Pages that the bus does not let go are kept for good, and so is their address: see `UnmapFailures`.
/// `@safe`: every access names an offset that is checked against the length. It may go to another thread if its address
/// space takes calls from there.
@safe public struct DMABuffer: ~Copyable, @unchecked Sendable {
  @usableFromInline let base: UnsafeMutableRawPointer
  private let pages: Pages
  private let space: any IOAddressSpace
  private let allocator: IOVAAllocator
  /// Where the device sees the first byte.
  public let address: IOVA
  /// Bytes that were asked for; the pages reach a little further.
  public let byteCount: Int
  private let mappedBytes: Int
  /// Pairs of eight bytes: descriptors of sixteen.
  @usableFromInline let pairCount: UInt

  public init(
    byteCount: Int, access: DMAAccess, in space: any IOAddressSpace, allocator: IOVAAllocator
  ) throws(DMABufferError) {
    let length = (byteCount + 4095) & ~4095
    guard let address = allocator.allocate(byteCount: byteCount) else { throw .noAddresses(byteCount: byteCount) }
    let pages = try Self.pages(length, at: address, access, in: space) { allocator.free(address, byteCount: byteCount) }
    unsafe base = pages.mapping.base
    self.pages = pages
    mappedBytes = length
    self.address = address
    self.space = space
    self.allocator = allocator
    self.byteCount = byteCount
    pairCount = UInt(byteCount) / 16
  }

  private static func pages(
    _ length: Int, at address: IOVA, _ access: DMAAccess, in space: any IOAddressSpace, orElse undo: () -> Void
  ) throws(DMABufferError) -> Pages {
    do throws(DMABufferError) {
      let pages = try pages(length)
      do throws(IOAddressSpaceError) {
        try unsafe space.map(HostMemory(base: pages.mapping.base, byteCount: length), at: address, access: access)
      } catch { throw .bus(error) }
      return pages
    } catch {
      undo()
      throw error
    }
  }

  private static func pages(_ byteCount: Int) throws(DMABufferError) -> Pages {
    do { return Pages(try Mapping(anonymousBytes: byteCount)) } catch { throw .system(error) }
  }

  deinit {
    do throws(IOAddressSpaceError) { try space.unmap(address, byteCount: mappedBytes) } catch {
      // A mapping that is gone already (the device's window was torn down) needs nothing more.
      guard case .notMapped = error else {
        space.unmapFailures.record(error, at: address, byteCount: mappedBytes, keeping: pages)
        return
      }
    }
    allocator.free(address, byteCount: byteCount)
  }

  @inlinable func check(_ offset: Int, _ width: Int) {
    precondition(offset >= 0 && width >= 0 && offset <= byteCount - width, "outside the DMA buffer")
  }

  /// Reads what a device wrote, and everything that the device wrote before it.
  @inlinable public func load64Acquire(_ offset: Int) -> UInt64 {
    check(offset, 8)
    return unsafe sl_load64_acquire(base + offset)
  }
  @inlinable public func load64(_ offset: Int) -> UInt64 {
    check(offset, 8)
    return unsafe sl_load64(base + offset)
  }
  @inlinable public func load32Acquire(_ offset: Int) -> UInt32 {
    check(offset, 4)
    return unsafe sl_load32_acquire(base + offset)
  }
  @inlinable public func store64(_ value: UInt64, _ offset: Int) {
    check(offset, 8)
    unsafe sl_store64(base + offset, value)
  }
  @inlinable public func store32(_ value: UInt32, _ offset: Int) {
    check(offset, 4)
    unsafe sl_store32(base + offset, value)
  }
  /// Writes a descriptor of sixteen bytes, by its number: one check for both halves.
  @inlinable public func storePair(_ first: UInt64, _ second: UInt64, at number: Int) {
    precondition(UInt(bitPattern: number) < pairCount, "outside the DMA buffer")
    let pair = unsafe base + number &* 16
    unsafe sl_store64(pair, first)
    unsafe sl_store64(pair + 8, second)
  }
  /// Reads a descriptor's second half, and everything that the device wrote before it.
  @inlinable public func loadSecondAcquire(at number: Int) -> UInt64 {
    precondition(UInt(bitPattern: number) < pairCount, "outside the DMA buffer")
    return unsafe sl_load64_acquire(base + number &* 16 + 8)
  }
  /// So many descriptors from one on: one check for all of them. Valid while this buffer lives.
  @inlinable public func pairs(from number: Int, count: UInt32) -> DMAPairs {
    precondition(number >= 0 && UInt(number) + UInt(count) <= pairCount, "outside the DMA buffer")
    return unsafe DMAPairs(base: base + number &* 16, count: count)
  }
  /// Asks for a descriptor's line, to read or to write it soon. A hint: with a number outside it does nothing that shows.
  @inlinable public func prefetch(at number: Int) { unsafe sl_prefetch(base + number &* 16) }
  @inlinable public func prefetchWrite(at number: Int) { unsafe sl_prefetch_write(base + number &* 16) }
  /// Some of these bytes, to copy from or into. Valid while this buffer lives.
  @inlinable public func bytes(_ offset: Int, _ count: Int) -> UnsafeMutableRawBufferPointer {
    check(offset, count)
    return unsafe UnsafeMutableRawBufferPointer(start: base + offset, count: count)
  }
}

/// Pages of a buffer, unmapped from this process when the last reference goes.
private final class Pages: Sendable {
  let mapping: Mapping
  init(_ mapping: consuming Mapping) { self.mapping = mapping }
}

/// Descriptors of sixteen bytes that follow one another in a DMA buffer.
///
/// `@safe`: they were checked to lie in it, and every number is checked against the count. Who takes them sees to it that the
/// buffer lives as long.
@safe @frozen public struct DMAPairs {
  @usableFromInline let base: UnsafeMutableRawPointer
  public let count: UInt32
  @inlinable init(base: UnsafeMutableRawPointer, count: UInt32) {
    unsafe self.base = base
    self.count = count
  }
  @inlinable @inline(__always) public func store(_ first: UInt64, _ second: UInt64, at n: UInt32) {
    precondition(n < count, "outside the run")
    let pair = unsafe base + Int(n) &* 16
    unsafe sl_store64(pair, first)
    unsafe sl_store64(pair + 8, second)
  }
  /// Reads the second half, and everything that the device wrote before it.
  @inlinable @inline(__always) public func loadSecondAcquire(at n: UInt32) -> UInt64 {
    precondition(n < count, "outside the run")
    return unsafe sl_load64_acquire(base + Int(n) &* 16 + 8)
  }
}

public enum DMABufferError: Error, Hashable, Sendable, CustomStringConvertible {
  case noAddresses(byteCount: Int)
  case bus(IOAddressSpaceError)
  case system(SystemError)

  public var description: String {
    switch self {
    case .noAddresses(let count): "no bus addresses left for a buffer of \(count) bytes"
    case .bus(let error): "\(error)"
    case .system(let error): "memory for DMA: \(error)"
    }
  }
}
