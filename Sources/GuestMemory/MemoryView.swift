/// One path's way into a memory map: looks a whole range up, the last region hit first.
///
/// `@safe`: it holds the map that its table belongs to, and what it answers was checked against it.
@safe public struct MemoryView: ~Copyable {
  public let map: MemoryMap
  @usableFromInline let table: UnsafeMutablePointer<MemoryMap.Entry>
  @usableFromInline let count: Int
  private let hosts: UnsafeMutablePointer<MemoryMap.Entry>
  /// The entry of the region hit last; of a map without regions one in which nothing lies.
  @usableFromInline var last: UnsafeMutablePointer<MemoryMap.Entry>

  public init(_ map: MemoryMap) {
    self.map = map
    unsafe (table, hosts) = (map.table, map.hostTable)
    unsafe last = map.table
    count = map.regions.count
  }

  /// The bytes of a range that lies wholly in one region; nil if any of it does not: a hole, a region's end,
  /// or an address that wraps.
  @inlinable public mutating func slice(_ range: GuestRange) -> GuestSlice? {
    // The shortest way: the region of the previous range.
    let entry = unsafe last
    let offset = range.start.rawValue &- (unsafe entry.pointee.start)
    if _fastPath(unsafe offset < entry.pointee.byteCount), _fastPath(unsafe UInt64(range.count) <= entry.pointee.byteCount &- offset) {
      return unsafe GuestSlice(unchecked: entry.pointee.host + Int(truncatingIfNeeded: offset), count: range.count)
    }
    return search(range)
  }

  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func search(_ range: GuestRange) -> GuestSlice? {
    guard let entry = unsafe entry(at: range.start) else { return nil }
    let offset = range.start.rawValue &- (unsafe entry.pointee.start)
    guard unsafe UInt64(range.count) <= entry.pointee.byteCount &- offset else { return nil }
    unsafe last = entry
    return unsafe GuestSlice(unchecked: entry.pointee.host + Int(truncatingIfNeeded: offset), count: range.count)
  }

  /// The entry of the region that an address lies in. O(log n): see `RegionOrder`.
  @unsafe @inline(__always) private func entry(at address: GuestAddress) -> UnsafeMutablePointer<MemoryMap.Entry>? {
    let entry = unsafe RegionOrder.last(table, count, atOrBefore: address.rawValue)
    return unsafe address.rawValue &- entry.pointee.start < entry.pointee.byteCount ? entry : nil
  }
}

extension MemoryView {
  /// As much of the range, from its start, as lies in one region; nil if not even its first byte is memory.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  public mutating func leadingSlice(_ range: GuestRange) -> GuestSlice? {
    let offset = range.start.rawValue &- (unsafe last.pointee.start)
    if unsafe offset < last.pointee.byteCount {
      return unsafe leadingSlice(last, offset, range.count)
    }
    guard let found = unsafe entry(at: range.start) else { return nil }
    unsafe last = found
    return unsafe leadingSlice(found, range.start.rawValue &- found.pointee.start, range.count)
  }

  @unsafe @inline(__always) private func leadingSlice(
    _ entry: UnsafeMutablePointer<MemoryMap.Entry>, _ offset: UInt64, _ count: UInt32
  ) -> GuestSlice {
    let left = unsafe entry.pointee.byteCount &- offset
    return unsafe GuestSlice(unchecked: entry.pointee.host + Int(truncatingIfNeeded: offset), count: UInt32(min(left, UInt64(count))))
  }

  /// Where the guest sees a byte of this process that lies in one of the regions; nil for any other.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  public func guestAddress(ofHost address: UnsafeRawPointer) -> GuestAddress? {
    unsafe RegionOrder.guestAddress(ofHost: address, in: hosts, count: count)
  }
}
