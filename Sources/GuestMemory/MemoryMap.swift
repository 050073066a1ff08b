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
  /// The same entries in the order of this process's addresses.
  let hostTable: UnsafeMutablePointer<Entry>

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
    unsafe (table, hostTable) = (Self.entries(sorted), Self.entries(sorted.sorted { unsafe $0.base < $1.base }))
  }

  deinit {
    unsafe table.deallocate()
    unsafe hostTable.deallocate()
  }

  /// There is always one to look at: of no regions one in which nothing lies.
  @unsafe private static func entries(_ regions: [MemoryRegion]) -> UnsafeMutablePointer<Entry> {
    let entries = UnsafeMutablePointer<Entry>.allocate(capacity: max(regions.count, 1))
    if regions.isEmpty { unsafe entries.initialize(to: Entry(nothingAt: UnsafeMutableRawPointer(entries))) }
    for (index, region) in regions.enumerated() { unsafe (entries + index).initialize(to: Entry(region)) }
    return unsafe entries
  }

  /// Returns the region that a guest address lies in; nil if none is there.
  public func region(containing address: GuestAddress) -> MemoryRegion? {
    let entry = unsafe RegionOrder.last(table, regions.count, atOrBefore: address.rawValue)
    guard unsafe address.rawValue &- entry.pointee.start < entry.pointee.byteCount else { return nil }
    return regions[unsafe entry - table]
  }

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
    unsafe RegionOrder.guestAddress(ofHost: address, in: hostTable, count: regions.count)
  }
}

/// How a region is found in a table that is in order: by halving, for a table has up to `MemoryMap.largestRegionCount` entries,
/// and a guest chooses which one each of its descriptors lies in. Without closures, which would count references.
enum RegionOrder {
  /// Returns the last of `count` entries that begins at or before a guest address; the first if none does.
  @unsafe @inline(__always) static func last(
    _ table: UnsafeMutablePointer<MemoryMap.Entry>, _ count: Int, atOrBefore address: UInt64
  ) -> UnsafeMutablePointer<MemoryMap.Entry> {
    var first = unsafe table
    var left = count
    while left > 1 {
      let half = left / 2
      if unsafe first[half].start <= address { unsafe first += half }
      left = left &- half
    }
    return unsafe first
  }

  /// Returns where the guest sees a byte of this process; nil if it is in none of `count` regions in the order of this
  /// process's addresses.
  @unsafe @inline(__always) static func guestAddress(
    ofHost address: UnsafeRawPointer, in table: UnsafeMutablePointer<MemoryMap.Entry>, count: Int
  ) -> GuestAddress? {
    let place = UInt(bitPattern: address)
    var first = unsafe table
    var left = count
    while left > 1 {
      let half = left / 2
      if unsafe UInt(bitPattern: first[half].host) <= place { unsafe first += half }
      left = left &- half
    }
    let offset = UInt64(place &- UInt(bitPattern: unsafe first.pointee.host))
    return unsafe offset < first.pointee.byteCount ? GuestAddress(first.pointee.start &+ offset) : nil
  }
}
