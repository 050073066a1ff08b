/// What the kernel says of a region of a device: `struct vfio_region_info`, <linux/vfio.h>.
public struct RegionInfo: Hashable, Sendable {
  /// Bytes; 0: the device has no such region.
  public var byteCount: UInt64 = 0
  /// Of its first byte, in the device's file.
  public var offset: UInt64 = 0
  public var isReadable = false
  public var isWritable = false
  public var isMappable = false
  /// What may be mapped, offset and bytes, where that is not everything.
  public var sparse: [Area]?
  /// The MSI-X table may be mapped with the rest.
  public var hasMappableTable = false

  public struct Area: Hashable, Sendable {
    public var offset: UInt64
    public var byteCount: UInt64
  }

  private static let headerBytes = 32
  private static let sparseCapability: UInt16 = 1
  private static let tableCapability: UInt16 = 3

  /// Reads what the kernel wrote. Nil for bytes that are none: too few, or capabilities that lead out of them or round in
  /// circles.
  public init?(_ bytes: [UInt8]) {
    guard bytes.count >= Self.headerBytes else { return nil }
    let flags = bytes.number32(4)
    isReadable = flags & 1 != 0
    isWritable = flags & 2 != 0
    isMappable = flags & 4 != 0
    byteCount = bytes.number64(16)
    offset = bytes.number64(24)
    guard flags & 8 != 0 else { return }
    for capability in CapabilityChain(bytes, first: Int(bytes.number32(12)), from: Self.headerBytes) {
      guard let capability else { return nil }
      switch capability.number {
      case Self.sparseCapability:
        // struct vfio_region_info_cap_sparse_mmap: header, nr_areas, reserved, areas.
        guard capability.offset + 16 <= bytes.count else { return nil }
        let count = Int(bytes.number32(capability.offset + 8))
        guard count <= (bytes.count - capability.offset - 16) / 16 else { return nil }
        sparse = (0..<count).map {
          let place = capability.offset + 16 + 16 * $0
          return Area(offset: bytes.number64(place), byteCount: bytes.number64(place + 8))
        }
      case Self.tableCapability: hasMappableTable = true
      default: break
      }
    }
  }
}

/// `struct vfio_info_cap_header` after another: number, version, and where the next one begins.
struct CapabilityChain: Sequence, IteratorProtocol {
  struct Capability {
    let number: UInt16
    let version: UInt16
    /// Of its header.
    let offset: Int
  }
  private let bytes: [UInt8]
  private var link: Int
  private let floor: Int

  /// - Parameter floor: no capability begins before.
  init(_ bytes: [UInt8], first: Int, from floor: Int) { (self.bytes, link, self.floor) = (bytes, first, floor) }

  /// One after the other; `.some(nil)` once for a link that leads nowhere, and then the end. The kernel lays them out in
  /// their order, so that a link back is a circle.
  mutating func next() -> Capability?? {
    guard link != 0 else { return nil }
    let place = link
    guard place >= floor, place + 8 <= bytes.count else {
      link = 0
      return .some(nil)
    }
    let found = Capability(number: bytes.number16(place), version: bytes.number16(place + 2), offset: place)
    // A link back would be a circle; it is told like one out of place.
    let following = Int(bytes.number32(place + 4))
    link = following == 0 ? 0 : following > place ? following : -1
    return .some(found)
  }
}

extension [UInt8] {
  func number16(_ at: Int) -> UInt16 { UInt16(self[at]) | UInt16(self[at + 1]) << 8 }
  func number32(_ at: Int) -> UInt32 { UInt32(number16(at)) | UInt32(number16(at + 2)) << 16 }
  func number64(_ at: Int) -> UInt64 { UInt64(number32(at)) | UInt64(number32(at + 4)) << 32 }
}

/// What the kernel says of a container's IOMMU: `struct vfio_iommu_type1_info`, <linux/vfio.h>.
public struct IOMMUInfo: Hashable, Sendable {
  /// Bit n: pages of 2ⁿ bytes.
  public var pageSizes: UInt64 = 0
  /// Addresses that may be mapped, first and last; nil: the kernel does not say.
  public var ranges: [ClosedRange<UInt64>]?
  /// How many more mappings there can be; nil: the kernel does not say.
  public var availableMappings: Int?

  private static let headerBytes = 24

  /// Nil, as for a region's.
  public init?(_ bytes: [UInt8]) {
    guard bytes.count >= 16 else { return nil }
    let flags = bytes.number32(4)
    if flags & 1 != 0 { pageSizes = bytes.number64(8) }
    guard flags & 2 != 0 else { return }
    guard bytes.count >= Self.headerBytes else { return nil }
    for capability in CapabilityChain(bytes, first: Int(bytes.number32(16)), from: Self.headerBytes) {
      guard let capability else { return nil }
      let place = capability.offset
      switch capability.number {
      case 1:
        // struct vfio_iommu_type1_info_cap_iova_range: header, nr_iovas, reserved, ranges.
        guard place + 16 <= bytes.count else { return nil }
        let count = Int(bytes.number32(place + 8))
        guard count <= (bytes.count - place - 16) / 16 else { return nil }
        var found: [ClosedRange<UInt64>] = []
        for index in 0..<count {
          let (first, last) = (bytes.number64(place + 16 + 16 * index), bytes.number64(place + 24 + 16 * index))
          guard first <= last else { return nil }
          found.append(first...last)
        }
        ranges = found
      case 3:
        // struct vfio_iommu_type1_info_dma_avail: header, avail.
        guard place + 12 <= bytes.count else { return nil }
        availableMappings = Int(bytes.number32(place + 8))
      default: break
      }
    }
  }
}
