public import Bus
internal import CLinux
internal import Glibc
internal import Linux

/// The addresses that a real device can reach: a container of type 1, or an I/O address space of iommufd.
///
/// What is mapped stays in memory, and counts against the process's RLIMIT_MEMLOCK. Calls may come from any thread.
public final class VFIOAddressSpace: IOAddressSpace {
  /// The container, or iommufd's file.
  private let file: OwnedDescriptor
  /// Iommufd's number of the address space; nil: a container has but one.
  private let ioas: UInt32?
  /// Addresses that may be mapped, first and last; nil: the kernel does not say.
  public let ranges: [ClosedRange<UInt64>]?
  /// The kernel has IOMMU_IOAS_MAP_FILE.
  public let mapsFiles: Bool
  public let unmapFailures = UnmapFailures()
  /// By first address, bytes.
  private let mapped = Mutex<[UInt64: Int]>([:])

  init(_ file: consuming OwnedDescriptor, ioas: UInt32? = nil) throws(VFIOError) {
    if let ioas { ranges = try Self.ranges(file, ioas: ioas) } else { ranges = try Self.ranges(ofContainer: file) }
    mapsFiles = ioas.map { sl_iommufd_map_file(file.number, $0, -1, 0, 0, 4096, 0) != ENOTTY } ?? false
    self.file = file
    self.ioas = ioas
  }

  private static func ranges(ofContainer container: borrowing OwnedDescriptor) throws(VFIOError) -> [ClosedRange<UInt64>]? {
    var bytes = [UInt8](repeating: 0, count: 4096)
    var needed: UInt32 = 0
    let code = unsafe sl_vfio_container_info(container.number, &bytes, UInt32(bytes.count), &needed)
    guard code == 0 else { throw .system("VFIO_IOMMU_GET_INFO", code: code) }
    guard needed <= bytes.count, let info = IOMMUInfo(Array(bytes.prefix(Int(needed)))) else {
      throw .unsupported("VFIO_IOMMU_GET_INFO: \(needed) bytes that make no sense")
    }
    return info.ranges
  }

  private static func ranges(_ file: borrowing OwnedDescriptor, ioas: UInt32) throws(VFIOError) -> [ClosedRange<UInt64>]? {
    var words = [UInt64](repeating: 0, count: 2 * 64)
    var count: UInt32 = 0
    let code = unsafe sl_iommufd_ranges(file.number, ioas, &words, 64, &count)
    guard code == 0 else { throw .system("IOMMU_IOAS_IOVA_RANGES", code: code) }
    var ranges: [ClosedRange<UInt64>] = []
    for index in 0..<min(Int(count), 64) where words[2 * index] <= words[2 * index + 1] { ranges.append(words[2 * index]...words[2 * index + 1]) }
    return ranges
  }

  /// Mappings that there are.
  public var mappingCount: Int { mapped.withLock { $0.count } }

  public func map(_ memory: HostMemory, at address: IOVA, access: DMAAccess) throws(IOAddressSpaceError) {
    let count = unsafe memory.byteCount
    let start = address.rawValue
    guard start & 4095 == 0, count > 0, count & 4095 == 0, unsafe UInt(bitPattern: memory.base) & 4095 == 0 else {
      throw .misaligned(address, byteCount: count)
    }
    let (last, overflows) = start.addingReportingOverflow(UInt64(count) - 1)
    guard !overflows, ranges?.contains(where: { $0.contains(start) && $0.contains(last) }) ?? true else {
      throw .outOfRange(address, byteCount: count)
    }
    try mapped.withLock { known throws(IOAddressSpaceError) in
      let code = unsafe call(map: memory, at: start, access)
      switch code {
      case 0: known[start] = count
      case EEXIST: throw .overlap(address)
      case ENOSPC: throw .limitReached
      case ENOMEM: throw Self.pinningLimit(known.values.reduce(0, +) + count)
      // That it is whole pages was seen above: the IOMMU does not reach so far.
      case EINVAL: throw .outOfRange(address, byteCount: count)
      default: throw .refused(address, byteCount: count, SystemError.text(code))
      }
    }
  }

  private func call(map memory: HostMemory, at start: UInt64, _ access: DMAAccess) -> CInt {
    let bits = CInt(access.rawValue)
    guard let ioas else { return unsafe sl_vfio_map(file.number, memory.base, start, UInt64(memory.byteCount), bits) }
    if mapsFiles, let place = unsafe memory.place {
      let code = unsafe sl_iommufd_map_file(file.number, ioas, place.number, UInt64(place.offset), start, UInt64(memory.byteCount), bits)
      // A file that cannot be mapped so: by its address then, which also says what else may be wrong.
      if code != EINVAL && code != EOPNOTSUPP { return code }
    }
    return unsafe sl_iommufd_map(file.number, ioas, memory.base, start, UInt64(memory.byteCount), bits)
  }

  private static func pinningLimit(_ needed: Int) -> IOAddressSpaceError {
    let limit = sl_memlock_limit()
    return limit == .max ? .noMemory(needed: needed) : .pinningLimit(needed: needed, limit: limit)
  }

  public func unmap(_ address: IOVA, byteCount: Int) throws(IOAddressSpaceError) {
    try mapped.withLock { known throws(IOAddressSpaceError) in
      guard known[address.rawValue] == byteCount else { throw .notMapped(address) }
      var count = UInt64(byteCount)
      let code: CInt
      if let ioas { code = sl_iommufd_unmap(file.number, ioas, address.rawValue, count) } else { code = unsafe sl_vfio_unmap(file.number, address.rawValue, &count) }
      guard code == 0 else { throw .refused(address, byteCount: byteCount, SystemError.text(code)) }
      // Type 1 says how much it has unmapped, and no error if that is less. <linux/vfio.h>, VFIO_IOMMU_UNMAP_DMA.
      guard count == byteCount else { throw .refused(address, byteCount: byteCount, "\(count) bytes of it were unmapped") }
      known[address.rawValue] = nil
    }
  }
}
