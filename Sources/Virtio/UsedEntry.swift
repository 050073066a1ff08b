/// One buffer that goes back, as it waits for its publication: what the used descriptor will say, and where it goes.
///
/// One word: bytes written in 32 bits, the buffer ID in 16, the position in 16.
@frozen @usableFromInline struct UsedEntry {
  @usableFromInline let rawValue: UInt64
  @inlinable init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable init(byteCount: UInt32, id: UInt16, position: RingPosition) {
    rawValue = UInt64(byteCount) | UInt64(id) << 32 | UInt64(position.rawValue) << 48
  }

  @inlinable var position: RingPosition { RingPosition(rawValue: UInt16(truncatingIfNeeded: rawValue >> 48)) }

  /// Length, ID and flags of the used descriptor: AVAIL and USED are both this lap's wrap counter, WRITE says that there
  /// are bytes. virtio 1.3, 2.8.1 and 2.8.4.
  @inlinable var word: UInt64 {
    let flags = position.wrap ? PackedRingMemory.availableFlag | PackedRingMemory.usedFlag : 0
    let written = rawValue & 0xFFFF_FFFF == 0 ? 0 : Descriptor.isWritable
    return rawValue & 0x0000_FFFF_FFFF_FFFF | UInt64(flags | written) << 48
  }
}
