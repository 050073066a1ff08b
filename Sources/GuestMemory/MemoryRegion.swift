public import Linux

/// One contiguous piece of a guest's memory, mapped here for as long as somebody holds it.
///
/// A class, because a memory map, the bus windows over it and a guest may share it; the last to let go unmaps it.
/// It has no property that answers a span or an array over guest pages: the guest and the NIC write them
/// at any moment.
@safe public final class MemoryRegion: Sendable {
  /// Where the guest sees its first byte.
  public let guestStart: GuestAddress
  /// Where the front-end sees it in its own process. vhost-user, "Memory regions description".
  public let frontendStart: FrontendAddress
  private let mapping: Mapping
  /// Of the region's first byte in the mapping: a file is mapped by whole pages of its own.
  private let offset: Int
  /// Its file, kept open for those who name memory by it; nil: nobody wants that.
  private let file: OwnedDescriptor?
  /// Of the region's first byte in its file.
  private let fileOffset: Int

  public let byteCount: Int
  /// Device and inode of its file, in one number; 0 if it has none. As long as a guest lives its memory lies in the same
  /// file, and no other guest's does.
  public let fileIdentity: UInt64
  /// The first byte in this process. Valid while the region lives.
  public var base: UnsafeMutableRawPointer { unsafe mapping.base + offset }

  /// Maps `byteCount` bytes of a shared file, as a front-end hands them over.
  ///
  /// - Parameters:
  ///   - frontendStart: as the front-end names it; the guest's own address where it does not matter.
  ///   - keepsFile: `place(of:)` is wanted. Where there is no further descriptor to be had it knows none all the same.
  public init(
    at guestStart: GuestAddress, frontendStart: FrontendAddress? = nil, of file: borrowing OwnedDescriptor, byteCount: Int,
    offset: Int = 0, keepsFile: Bool = false
  ) throws(MemoryError) {
    guard byteCount > 0, guestStart.rawValue.addingReportingOverflow(UInt64(byteCount)).overflow == false
    else { throw .badRegion(at: guestStart, byteCount: byteCount) }
    self.guestStart = guestStart
    self.frontendStart = frontendStart ?? FrontendAddress(guestStart.rawValue)
    self.byteCount = byteCount
    let (page, identity) = try Self.examine(file, at: guestStart, byteCount: byteCount, offset: offset)
    fileIdentity = identity
    self.offset = offset % page
    fileOffset = offset
    self.file = keepsFile ? try? file.duplicate() : nil
    mapping = try Self.map(file, from: offset, byteCount: byteCount, page: page, at: guestStart)
  }

  /// The file's page in bytes, for a huge page can only be mapped as a whole; and what tells the file from others.
  private static func examine(
    _ file: borrowing OwnedDescriptor, at guestStart: GuestAddress, byteCount: Int, offset: Int
  ) throws(MemoryError) -> (page: Int, identity: UInt64) {
    let status: FileStatus
    do {
      guard let found = try file.memoryStatus() else { throw MemoryError.notMemory(at: guestStart) }
      status = found
    } catch let error as SystemError {
      throw .system(error)
    } catch { throw .notMemory(at: guestStart) }
    // Bytes past the file's end would be there until they are touched.
    guard offset >= 0, offset <= status.byteCount, byteCount <= status.byteCount - offset else {
      throw .pastFile(at: guestStart, byteCount: byteCount, offset: offset, fileBytes: status.byteCount)
    }
    let page = status.pageByteCount
    // A file can be made so long that its pages could not be counted.
    guard byteCount <= Int.max - 2 * page else { throw .badRegion(at: guestStart, byteCount: byteCount) }
    return (page, status.device << 40 ^ status.inode)
  }

  private static func map(
    _ file: borrowing OwnedDescriptor, from start: Int, byteCount: Int, page: Int, at guestStart: GuestAddress
  ) throws(MemoryError) -> Mapping {
    let before = start % page
    let offset = start - before
    let whole = (before + byteCount + page - 1) / page * page
    do {
      // 2 MiB: large pages here, and large entries in an IOMMU, which wants both addresses on one.
      let alignment = max(page, byteCount >= 2 << 20 ? 2 << 20 : 4096)
      let first = guestStart.rawValue &- UInt64(before)
      let phase = Int(first % UInt64(alignment)) / page * page
      return try Mapping(ofForeign: file, byteCount: whole, offset: offset, alignment: alignment, phase: phase, page: page)
    } catch { throw .system(error) }
  }

  /// Whether its file is kept open.
  public var keepsFile: Bool { place() != nil }
  /// Where a byte of the region lies in its file; nil: it keeps none. Valid while the region lives.
  public func place(of offset: Int = 0) -> FilePlace? {
    switch file {
    case .some(let file): FilePlace(number: file.number, offset: fileOffset + offset)
    case .none: nil
    }
  }

  /// Its file was made shorter, and somebody has touched what is gone: the region is no longer the guest's memory.
  public var isTruncated: Bool { mapping.isTruncated }

  /// Asks that pages which nobody has touched yet come from one memory node: the one next to the processor that
  /// moves frames into them.
  public func prefer(node: Int) { NUMA.prefer(node: node, for: mapping) }

  /// Asks for large pages for what is there now: see `Mapping.collapse`.
  public func collapse() { mapping.collapse() }

  /// Takes a mapping that is there already.
  public init(at guestStart: GuestAddress, mapping: consuming Mapping) {
    self.guestStart = guestStart
    frontendStart = FrontendAddress(guestStart.rawValue)
    byteCount = mapping.byteCount
    fileIdentity = 0
    (offset, fileOffset) = (0, 0)
    file = nil
    self.mapping = mapping
  }
}

/// Why guest memory could not be set up.
public enum MemoryError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Empty, or past the end of the address space.
  case badRegion(at: GuestAddress, byteCount: Int)
  /// Two regions claim the same guest addresses.
  case overlap(GuestAddress, GuestAddress)
  case tooManyRegions(Int, limit: Int)
  /// The file that it is to be mapped from is shorter.
  case pastFile(at: GuestAddress, byteCount: Int, offset: Int, fileBytes: Int)
  /// Its file is not one of shared memory or huge pages.
  case notMemory(at: GuestAddress)
  case system(SystemError)

  public var description: String {
    switch self {
    case .badRegion(let start, let count): "memory region at \(start) of \(count) bytes: empty, or past the end of the address space"
    case .overlap(let a, let b): "memory regions at \(a) and \(b) overlap"
    case .tooManyRegions(let count, let limit): "\(count) memory regions; at most \(limit)"
    case .pastFile(let start, let count, let offset, let size):
      "memory region at \(start): \(count) bytes from \(offset) on are not in a file of \(size)"
    case .notMemory(let start): "memory region at \(start): its file is not shared memory or huge pages"
    case .system(let error): "guest memory: \(error)"
    }
  }
}
