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
    for (index, region) in sorted.enumerated() { unsafe (table + index).initialize(to: Entry(region)) }
  }

  deinit { unsafe table.deallocate() }
}
