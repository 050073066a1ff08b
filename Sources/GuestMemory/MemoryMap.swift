internal import Linux

/// All of a guest's memory at one time. Never changes: a new table from the front-end is a new map.
///
/// A class, because the paths of a guest share it; while one of them holds it, its regions stay mapped.
@safe public final class MemoryMap: @unchecked Sendable {
  /// The most regions one guest may have: QEMU's limit for memory slots.
  public static let largestRegionCount = 512

  /// In the order of guest addresses; no two overlap.
  public let regions: [MemoryRegion]
  @usableFromInline let table: UnsafeMutablePointer<Entry>

  /// A region as the path looks it up. 24 bytes.
  @usableFromInline @unsafe struct Entry {
    @usableFromInline let start: UInt64
    @usableFromInline let byteCount: UInt64
    @usableFromInline let host: UnsafeMutableRawPointer
    /// An entry in which nothing lies.
    init(nothingAt host: UnsafeMutableRawPointer) {
      unsafe (start, byteCount) = (0, 0)
      unsafe self.host = host
    }
    init(_ region: MemoryRegion) {
      unsafe start = region.guestStart.rawValue
      unsafe byteCount = UInt64(region.byteCount)
      unsafe host = region.base
    }
  }

  public init(_ regions: [MemoryRegion]) throws(MemoryError) {
    guard regions.count <= Self.largestRegionCount else {
      throw .tooManyRegions(regions.count, limit: Self.largestRegionCount)
    }
    for region in regions
    where region.guestStart.rawValue.addingReportingOverflow(UInt64(region.byteCount)).overflow {
      throw .badRegion(at: region.guestStart, byteCount: region.byteCount)
    }
    let sorted = regions.sorted { $0.guestStart < $1.guestStart }
    for (a, b) in zip(sorted, sorted.dropFirst())
    where b.guestStart.rawValue - a.guestStart.rawValue < UInt64(a.byteCount) {
      throw .overlap(a.guestStart, b.guestStart)
    }
    self.regions = sorted
    unsafe table = .allocate(capacity: max(sorted.count, 1))
    // There is always one to look at.
    if sorted.isEmpty { unsafe table.initialize(to: Entry(nothingAt: UnsafeMutableRawPointer(table))) }
    for (index, region) in sorted.enumerated() { unsafe (table + index).initialize(to: Entry(region)) }
  }

  deinit { unsafe table.deallocate() }

  /// Where the guest sees what the front-end names, if all of the range is one region's; nil if not.
  public func guestAddress(of start: FrontendAddress, byteCount: UInt64) -> GuestAddress? {
    for region in regions {
      let offset = start.rawValue &- region.frontendStart.rawValue
      if start >= region.frontendStart, offset < UInt64(region.byteCount), byteCount <= UInt64(region.byteCount) - offset {
        return GuestAddress(region.guestStart.rawValue + offset)
      }
    }
    return nil
  }

  /// Where the guest sees a byte of this process that lies in one of the regions; nil for any other.
  public func guestAddress(ofHost address: UnsafeRawPointer) -> GuestAddress? {
    for region in regions {
      let offset = unsafe address - UnsafeRawPointer(region.base)
      if offset >= 0 && offset < region.byteCount { return GuestAddress(region.guestStart.rawValue + UInt64(offset)) }
    }
    return nil
  }
}
