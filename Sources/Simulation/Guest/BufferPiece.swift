internal import CLinux

/// One descriptor's part of a guest's buffer: where the guest says it is, and where the guest itself finds it.
///
/// `@safe`: it is made only from addresses that were checked, its queue lives no longer than its memory, and
/// every access stays within `byteCount`.
@safe struct BufferPiece: BitwiseCopyable {
  private let start: UnsafeMutableRawPointer
  /// The guest address.
  let address: UInt64
  let byteCount: UInt32

  init(start: UnsafeMutableRawPointer, address: UInt64, byteCount: UInt32) {
    unsafe self.start = start
    self.address = address
    self.byteCount = byteCount
  }

  /// Stands where there is no piece.
  static var none: BufferPiece {
    unsafe BufferPiece(start: UnsafeMutableRawPointer(bitPattern: 8)!, address: 0, byteCount: 0)
  }

  // After used.idx said so these bytes are the driver's own: plain loads do.

  /// The header that lies whole in this piece.
  @inline(__always) var header: NetHeader {
    precondition(byteCount >= 12, "no room for a header")
    return unsafe NetHeader(
      low: start.loadUnaligned(as: UInt64.self), high: start.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
  }

  /// Its bytes from `offset` on.
  @inline(__always) func bytes(from offset: Int, count: Int) -> UnsafeRawBufferPointer {
    precondition(offset >= 0 && count >= 0 && offset <= Int(byteCount) - count, "outside the buffer")
    return unsafe UnsafeRawBufferPointer(start: start + offset, count: count)
  }

  @inline(__always) func prefetch() { unsafe sl_prefetch(start) }

  func fill(_ value: UInt8) { unsafe sl_fill(start, value, Int(byteCount)) }

  /// Whether all bytes from `offset` on have one value.
  func holds(_ value: UInt8, from offset: Int) -> Bool {
    let words = UInt64(value) &* 0x0101_0101_0101_0101
    var (next, end) = (offset, Int(byteCount))
    precondition(offset >= 0)
    while next + 8 <= end {
      guard unsafe start.loadUnaligned(fromByteOffset: next, as: UInt64.self) == words else { return false }
      next += 8
    }
    while next < end {
      guard unsafe start.load(fromByteOffset: next, as: UInt8.self) == value else { return false }
      next += 1
    }
    return true
  }
}
