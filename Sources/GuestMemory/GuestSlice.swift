public import CLinux

/// Bytes of guest memory that were checked once, as a whole, to lie in one region.
///
/// `@safe`: a slice can only be made by `MemoryView.slice`, which checks the range, and every access here
/// stays inside it. It is valid while the map that it came from is held; who keeps slices keeps the map.
/// Whatever is read may have changed by the next read: read once, then check, then use.
@safe @frozen public struct GuestSlice {
  /// For the few types that mask or check every index themselves: a ring, a ledger. Everybody else has the
  /// checked accesses below.
  public let base: UnsafeMutableRawPointer
  /// Bytes.
  public let count: UInt32

  @inlinable init(unchecked base: UnsafeMutableRawPointer, count: UInt32) {
    unsafe self.base = base
    self.count = count
  }

  @inlinable func check(_ offset: Int, _ width: Int) {
    precondition(offset >= 0 && width >= 0 && offset <= Int(count) - width, "outside the slice")
  }

  @inlinable public func load16(_ offset: Int) -> UInt16 {
    check(offset, 2)
    return unsafe sl_load16(base + offset)
  }
  @inlinable public func load32(_ offset: Int) -> UInt32 {
    check(offset, 4)
    return unsafe sl_load32(base + offset)
  }
  @inlinable public func load64(_ offset: Int) -> UInt64 {
    check(offset, 8)
    return unsafe sl_load64(base + offset)
  }
  @inlinable public func store64(_ value: UInt64, _ offset: Int) {
    check(offset, 8)
    unsafe sl_store64(base + offset, value)
  }
  @inlinable public func store32(_ value: UInt32, _ offset: Int) {
    check(offset, 4)
    unsafe sl_store32(base + offset, value)
  }

  /// The rest of this slice from `offset` on.
  @inlinable public func dropping(_ offset: UInt32) -> GuestSlice {
    precondition(offset <= count, "outside the slice")
    return unsafe GuestSlice(unchecked: base + Int(offset), count: count - offset)
  }

  /// Copies bytes out of the guest, as many as `buffer` holds.
  @inlinable public func copy(_ offset: Int = 0, to buffer: UnsafeMutableRawBufferPointer) {
    check(offset, buffer.count)
    if let start = buffer.baseAddress { unsafe sl_copy(start, base + offset, buffer.count) }
  }

  /// Copies bytes into the guest.
  @inlinable public func copy(_ offset: Int = 0, from buffer: UnsafeRawBufferPointer) {
    check(offset, buffer.count)
    if let start = buffer.baseAddress { unsafe sl_copy(base + offset, start, buffer.count) }
  }
}
