public import Linux

/// What a device may do with pages that are mapped for it.
public struct DMAAccess: OptionSet, Hashable, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  public static let read = DMAAccess(rawValue: 1)
  public static let write = DMAAccess(rawValue: 2)
}

/// Memory of this process that may be put on the bus. Who makes one keeps the memory until it is unmapped.
@unsafe public struct HostMemory {
  public let base: UnsafeMutableRawPointer
  /// Bytes.
  public let byteCount: Int
  /// The same memory in its file, which is open until the call that it is given to returns; nil: not known, or there is none.
  public let place: FilePlace?
  public init(base: UnsafeMutableRawPointer, byteCount: Int, place: FilePlace? = nil) {
    unsafe self.base = base
    unsafe self.byteCount = byteCount
    unsafe self.place = place
  }
}

/// The addresses that a device can reach: a seam between the machine (VFIO type 1, iommufd) and the simulated IOMMU.
///
/// Regions of guests' memory are mapped as a whole, by the control thread; with strict protection, pages are mapped and
/// unmapped by the workers, as buffers in them are posted. An address space takes calls from several threads.
public protocol IOAddressSpace: AnyObject {
  /// Lets the device reach `memory` from `address` on. Both are multiples of 4096, and so is the length.
  func map(_ memory: HostMemory, at address: IOVA, access: DMAAccess) throws(IOAddressSpaceError)
  /// Takes a mapping away, whole. When it returns, no access of the device can reach those pages any more:
  /// the translation caches have been emptied.
  ///
  /// - Throws: if the mapping may still be there. Who calls tells `unmapFailures` of it.
  func unmap(_ address: IOVA, byteCount: Int) throws(IOAddressSpaceError)
  /// Memory that comes with its file is mapped by that: this process need not have the pages in its own tables.
  var mapsFiles: Bool { get }
  /// Mappings that could not be removed.
  var unmapFailures: UnmapFailures { get }
}

extension IOAddressSpace {
  public var mapsFiles: Bool { false }
}

public enum IOAddressSpaceError: Error, Hashable, Sendable, CustomStringConvertible {
  case misaligned(IOVA, byteCount: Int)
  /// Something is mapped there already.
  case overlap(IOVA)
  /// Nothing is mapped there, or it was mapped with other bounds.
  case notMapped(IOVA)
  /// Past the address width of the bus.
  case outOfRange(IOVA, byteCount: Int)
  /// The limit on mappings (VFIO: dma_entry_limit) or on pinned memory was met.
  case limitReached
  /// What is mapped stays in memory, and the process may not keep so much there. Bytes; RLIMIT_MEMLOCK.
  case pinningLimit(needed: Int, limit: UInt64)
  /// The machine has not so much memory to keep, or no room for page tables.
  case noMemory(needed: Int)
  /// Otherwise; in words.
  case refused(IOVA, byteCount: Int, String)

  public var description: String {
    switch self {
    case .misaligned(let address, let count): "DMA mapping at \(address) of \(count) bytes is not made of whole 4096-byte pages"
    case .overlap(let address): "DMA mapping at \(address): something is mapped there already"
    case .notMapped(let address): "DMA mapping at \(address): nothing is mapped there with these bounds"
    case .outOfRange(let address, let count): "DMA mapping at \(address) of \(count) bytes is past the bus's address width"
    case .limitReached: "DMA mapping: the limit on mappings was reached; raise it: the parameter dma_entry_limit of vfio_iommu_type1"
    case .pinningLimit(let needed, let limit):
      "DMA mapping: \(needed) bytes have to stay in memory, and this process may keep \(limit); raise it: ulimit -l \((needed + 1023) / 1024), or LimitMEMLOCK= of the unit"
    case .noMemory(let needed): "DMA mapping: the machine cannot keep \(needed) bytes in memory"
    case .refused(let address, let count, let reason): "DMA mapping at \(address) of \(count) bytes: \(reason)"
    }
  }
}
