/// One path's way into a memory map: looks a whole range up, the last region hit first.
///
/// `@safe`: it holds the map that its table belongs to, and what it answers was checked against it.
@safe public struct MemoryView: ~Copyable {
  public let map: MemoryMap
  @usableFromInline let table: UnsafeMutablePointer<MemoryMap.Entry>
  @usableFromInline let count: Int
  /// The entry of the region hit last; of a map without regions one in which nothing lies.
  @usableFromInline var last: UnsafeMutablePointer<MemoryMap.Entry>

  public init(_ map: MemoryMap) {
    self.map = map
    unsafe table = map.table
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
    var index = 0
    while index < count {
      let entry = unsafe table + index
      let offset = range.start.rawValue &- (unsafe entry.pointee.start)
      if unsafe offset < entry.pointee.byteCount && UInt64(range.count) <= entry.pointee.byteCount &- offset {
        unsafe last = entry
        return unsafe GuestSlice(
          unchecked: entry.pointee.host + Int(truncatingIfNeeded: offset), count: range.count)
      }
      index &+= 1
    }
    return nil
  }
}

extension MemoryView {
  /// As much of the range, from its start, as lies in one region; nil if not even its first byte is memory.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  public mutating func leadingSlice(_ range: GuestRange) -> GuestSlice? {
    if let whole = slice(range) { return whole }
    guard let first = slice(GuestRange(range.start, count: 1)) else { return nil }
    let entry = unsafe last.pointee
    let left = unsafe entry.byteCount - (range.start.rawValue - entry.start)
    return unsafe GuestSlice(unchecked: first.base, count: UInt32(min(left, UInt64(range.count))))
  }

  /// Where the guest sees a byte of this process that lies in one of the regions; nil for any other.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  public func guestAddress(ofHost address: UnsafeRawPointer) -> GuestAddress? {
    var index = 0
    while index < count {
      let entry = unsafe table[index]
      let offset = UInt(bitPattern: address) &- UInt(bitPattern: unsafe entry.host)
      if UInt64(offset) < (unsafe entry.byteCount) { return GuestAddress(unsafe entry.start &+ UInt64(offset)) }
      index += 1
    }
    return nil
  }
}
