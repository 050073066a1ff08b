public import Bus
internal import CLinux

/// An IOMMU in software: a device model reaches memory through it or not at all.
///
/// It has what matters of a real one: a page table with large pages, permissions, a translation cache that goes
/// stale unless it is told, and a record of every access that it refused. Mappings are kept and taken away as VFIO's
/// type 1 (version 2) does: an unmapping covers whole earlier mappings.
///
/// Not there, against hardware: a cache for the upper levels of the table, and time: a walk costs what it costs here.
///
/// One thread at a time. `@safe`: `translate` answers an address whose whole run is mapped; who uses it keeps to
/// `count`, and forgets it when `generation` changes.
@safe public final class SimulatedIOMMU: IOAddressSpace {
  private let table = IOPageTable()
  private let cache = TranslationCache()
  private var mappings = MappingList()
  private let mappingLimit: Int
  private let clock: (any Timekeeper)?

  /// Goes up with every map, unmap and invalidation: who keeps translations drops them then.
  public var generation: UInt64 { unsafe counts.generation }
  /// Look-ups that the translation cache answered, and that it did not.
  public var hits: UInt64 { unsafe counts.hits }
  public var misses: UInt64 { unsafe counts.misses }
  private struct Counts {
    var generation, hits, misses: UInt64
  }
  /// Not checked for exclusive access, once a frame: no access to it runs code of anybody else.
  @exclusivity(unchecked) private var counts = Counts(generation: 0, hits: 0, misses: 0)

  /// Successful calls so far.
  public private(set) var mapCount = 0
  public private(set) var unmapCount = 0

  /// Which calls fail, asked at each: for tests. A mapping then meets the limit; an unmapping is refused, and what was mapped stays so.
  public var failsMapping: (_ address: IOVA, _ byteCount: Int) -> Bool = { _, _ in false }
  public var failsUnmapping: (_ address: IOVA, _ byteCount: Int) -> Bool = { _, _ in false }
  public let unmapFailures = UnmapFailures()

  /// An access that was refused.
  public struct Fault: Hashable, Sendable, CustomStringConvertible {
    public enum Reason: String, Hashable, Sendable {
      case notMapped = "not mapped"
      case noReadPermission = "no read permission"
      case noWritePermission = "no write permission"
      /// Past 48 bits.
      case outOfRange = "out of range"
    }
    /// Where the access began, and its length in bytes.
    public let address: IOVA
    public let byteCount: Int
    public let access: DMAAccess
    public let reason: Reason
    /// The first byte of it that was refused.
    public let refused: IOVA
    /// Nanoseconds by the clock that the IOMMU was given, or nil.
    public let time: UInt64?

    public var description: String {
      "DMA \(access == .write ? "write" : "read") at \(address) of \(byteCount) bytes: \(reason.rawValue) at \(refused)"
    }
  }
  /// How many refused accesses are remembered.
  public static let faultCapacity = 256
  private var faultRing: [Fault] = []
  /// Refused accesses so far, also those no longer remembered.
  public private(set) var faultCount = 0
  /// The last refused accesses, oldest first.
  public var faults: [Fault] {
    let oldest = faultRing.count < Self.faultCapacity ? 0 : faultCount % Self.faultCapacity
    return Array(faultRing[oldest...] + faultRing[..<oldest])
  }

  /// - Parameters:
  ///   - clock: dates the faults.
  ///   - mappingLimit: the most mappings at a time; VFIO's default for `dma_entry_limit`.
  public init(clock: (any Timekeeper)? = nil, mappingLimit: Int = 65_535) {
    self.clock = clock
    self.mappingLimit = mappingLimit
  }

  /// Mappings there are now, and tables of 4 KiB that it takes to hold them.
  public var mappingCount: Int { mappings.count }
  public var tableCount: Int { table.tableCount }

  /// Bytes in the page that an address lies in, 4096, 2 MiB or 1 GiB; nil where nothing is mapped.
  public func pageByteCount(at address: IOVA) -> Int? {
    guard address.rawValue >> IOPageTable.addressBits == 0 else { return nil }
    let (entry, shift) = table.lookup(address.rawValue)
    return entry == 0 ? nil : 1 << Int(shift)
  }
}

// The control side.
extension SimulatedIOMMU {
  /// Precondition: the access is not empty.
  public func map(_ memory: HostMemory, at address: IOVA, access: DMAAccess) throws(IOAddressSpaceError) {
    precondition(!access.isEmpty && access.isSubset(of: [.read, .write]), "a mapping that allows nothing")
    let host = UInt64(UInt(bitPattern: unsafe memory.base))
    let count = unsafe memory.byteCount
    try check(address, byteCount: count)
    guard host & 4095 == 0 else { throw .misaligned(address, byteCount: count) }
    let length = UInt64(count)
    if let other = mappings.overlapping(address.rawValue, length) { throw .overlap(IOVA(other)) }
    guard mappings.count < mappingLimit, !failsMapping(address, count) else { throw .limitReached }
    mappings.insert(address.rawValue, length)
    table.enter(address.rawValue, byteCount: length, host: host, access: access)
    mapCount += 1
    unsafe counts.generation &+= 1
  }

  /// Takes away every mapping in the range. None may reach out of it, and there must be one.
  public func unmap(_ address: IOVA, byteCount: Int) throws(IOAddressSpaceError) {
    try unmapWithoutInvalidation(address, byteCount: byteCount)
    invalidate(address, byteCount: byteCount)
  }

  /// What a driver bug would do: the page table is cleared, but what the translation cache holds stays usable, and
  /// `generation` stays as it was. For tests.
  public func unmapWithoutInvalidation(_ address: IOVA, byteCount: Int) throws(IOAddressSpaceError) {
    try check(address, byteCount: byteCount)
    if failsUnmapping(address, byteCount) { throw .refused(address, byteCount: byteCount, "a call that a test makes fail") }
    guard mappings.remove(address.rawValue, UInt64(byteCount)) else { throw .notMapped(address) }
    table.clear(address.rawValue, byteCount: UInt64(byteCount))
    unmapCount += 1
  }

  /// Empties the translation cache for a range.
  public func invalidate(_ address: IOVA, byteCount: Int) {
    cache.forget(address.rawValue, byteCount: UInt64(byteCount))
    unsafe counts.generation &+= 1
  }

  /// Empties the translation cache.
  public func invalidateAll() {
    cache.forgetAll()
    unsafe counts.generation &+= 1
  }

  private func check(_ address: IOVA, byteCount: Int) throws(IOAddressSpaceError) {
    guard address.rawValue & 4095 == 0, byteCount & 4095 == 0, byteCount > 0 else {
      throw .misaligned(address, byteCount: byteCount)
    }
    let space: UInt64 = 1 << IOPageTable.addressBits
    guard address.rawValue < space, UInt64(byteCount) <= space - address.rawValue else {
      throw .outOfRange(address, byteCount: byteCount)
    }
  }
}

// The device's side.
extension SimulatedIOMMU {
  /// What one leaf says about an address: the host address of that very byte (0: not mapped), how many bytes there are to the
  /// leaf's end, and what is allowed there.
  private struct Place {
    var host: UInt64
    var room: UInt64
    var access: UInt8
    @inline(__always) func allows(_ wanted: DMAAccess) -> Bool { host != 0 && access & wanted.rawValue == wanted.rawValue }
  }

  @inline(__always) private func place(_ address: UInt64) -> Place {
    guard address >> IOPageTable.addressBits == 0 else { return Place(host: 0, room: 0, access: 0) }
    var (leaf, shift) = cache.lookup(address)
    if leaf != 0 {
      unsafe counts.hits &+= 1
    } else {
      (leaf, shift) = walk(address)
      if leaf == 0 { return Place(host: 0, room: 0, access: 0) }
    }
    let inside = address & (1 &<< shift &- 1)
    return Place(
      host: leaf & IOPageTable.addressMask &+ inside, room: 1 &<< shift &- inside,
      access: UInt8(truncatingIfNeeded: leaf) & 3)
  }

  @inline(never) private func walk(_ address: UInt64) -> (leaf: UInt64, shift: UInt64) {
    unsafe counts.misses &+= 1
    let found = table.lookup(address)
    // As in hardware, that nothing is mapped is not remembered.
    if found.entry != 0 { cache.insert(address, leaf: found.entry, shift: found.shift) }
    return (found.entry, found.shift)
  }

  /// Where a run of bytes lies in this process: nil unless all of it is mapped with this access and lies in one piece there.
  /// An empty run lies nowhere. Records no fault.
  @inline(__always) public func translate(_ address: UInt64, count: Int, access: DMAAccess) -> UnsafeMutableRawPointer? {
    let first = place(address)
    guard first.allows(access), count > 0 else { return nil }
    if UInt64(truncatingIfNeeded: count) > first.room && !continues(first, address, UInt64(count), access) { return nil }
    return unsafe UnsafeMutableRawPointer(bitPattern: UInt(first.host))
  }

  /// Where an address lies in this process: for who will want it soon. Counts nothing, remembers nothing, and allows nothing.
  ///
  /// - Parameter walks: looks into the page table too; else only the translation cache answers.
  @inline(__always) func hint(_ address: UInt64, walks: Bool = false) -> UnsafeMutableRawPointer? {
    guard address >> IOPageTable.addressBits == 0 else { return nil }
    var (leaf, shift) = cache.lookup(address)
    if walks && leaf == 0 { (leaf, shift) = table.lookup(address) }
    guard leaf != 0 else { return nil }
    return unsafe UnsafeMutableRawPointer(bitPattern: UInt(leaf & IOPageTable.addressMask &+ address & (1 &<< shift &- 1)))
  }

  @inline(never) private func continues(_ first: Place, _ address: UInt64, _ count: UInt64, _ access: DMAAccess) -> Bool {
    var done = first.room
    while done < count {
      let next = place(address &+ done)
      guard next.allows(access), next.host == first.host &+ done else { return false }
      done += next.room
    }
    return true
  }

  /// A device writes. False, with a fault recorded and not a byte written, unless all of it is mapped writable.
  public func write(_ address: UInt64, from source: UnsafeRawPointer, count: Int) -> Bool {
    if let target = unsafe translate(address, count: count, access: .write) {
      unsafe sl_copy(target, source, count)
      return true
    }
    return unsafe inPieces(address, count, .write) { unsafe sl_copy($0, source + $1, $2) }
  }

  /// A device reads. False, with a fault recorded and not a byte read, unless all of it is mapped readable.
  public func read(_ address: UInt64, into target: UnsafeMutableRawPointer, count: Int) -> Bool {
    if let source = unsafe translate(address, count: count, access: .read) {
      unsafe sl_copy(target, source, count)
      return true
    }
    return unsafe inPieces(address, count, .read) { unsafe sl_copy(target + $1, $0, $2) }
  }

  /// Walks a run that is in several pieces here, or is not to be reached: first looks at all of it, then moves it.
  @inline(never) private func inPieces(
    _ address: UInt64, _ count: Int, _ access: DMAAccess,
    _ move: (_ host: UnsafeMutableRawPointer, _ offset: Int, _ count: Int) -> Void
  ) -> Bool {
    precondition(count >= 0)
    for pass in 0..<2 {
      var done = 0
      while done < count {
        let next = place(address &+ UInt64(done))
        guard next.allows(access), let host = unsafe UnsafeMutableRawPointer(bitPattern: UInt(next.host)) else {
          record(address, count, access, refused: address &+ UInt64(done), next)
          return false
        }
        let piece = min(count - done, Int(next.room))
        if pass == 1 { unsafe move(host, done, piece) }
        done += piece
      }
    }
    return true
  }

  private func record(_ address: UInt64, _ count: Int, _ access: DMAAccess, refused: UInt64, _ place: Place) {
    let reason: Fault.Reason =
      refused >> IOPageTable.addressBits != 0 ? .outOfRange
      : place.host == 0 ? .notMapped : access == .write ? .noWritePermission : .noReadPermission
    let fault = Fault(
      address: IOVA(address), byteCount: count, access: access, reason: reason, refused: IOVA(refused),
      time: clock?.now)
    if faultRing.count < Self.faultCapacity {
      faultRing.append(fault)
    } else {
      faultRing[faultCount % Self.faultCapacity] = fault
    }
    faultCount += 1
  }
}

/// What is mapped, in the order of addresses: the bounds that an unmapping must keep to.
private struct MappingList {
  private var starts: [UInt64] = []
  private var counts: [UInt64] = []

  var count: Int { starts.count }

  /// How many mappings begin below an address.
  private func index(_ address: UInt64) -> Int {
    var (low, high) = (0, starts.count)
    while low < high {
      let middle = (low + high) / 2
      if starts[middle] < address { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// Where the first mapping in the way of a range begins, or nil.
  func overlapping(_ address: UInt64, _ length: UInt64) -> UInt64? {
    let next = index(address)
    if next > 0 && starts[next - 1] + counts[next - 1] > address { return starts[next - 1] }
    if next < starts.count && starts[next] < address + length { return starts[next] }
    return nil
  }

  mutating func insert(_ address: UInt64, _ length: UInt64) {
    let next = index(address)
    starts.insert(address, at: next)
    counts.insert(length, at: next)
  }

  /// Removes the mappings in a range; false, and none, if there are none or one reaches out of it.
  mutating func remove(_ address: UInt64, _ length: UInt64) -> Bool {
    let (first, end) = (index(address), index(address + length))
    if first > 0 && starts[first - 1] + counts[first - 1] > address { return false }
    guard first < end, starts[end - 1] + counts[end - 1] <= address + length else { return false }
    starts.removeSubrange(first..<end)
    counts.removeSubrange(first..<end)
    return true
  }
}
