public import GuestMemory

/// What stands before every frame in a guest's buffer. virtio 1.3, 5.1.6 "Device Operation".
///
/// 12 bytes with VERSION_1: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers.
/// We receive whole frames from a wire: all is zero but two fields.
@frozen public struct NetHeader: Hashable, Sendable {
  public static var byteCount: UInt32 { @inlinable get { 12 } }

  /// VIRTIO_NET_HDR_F_DATA_VALID: the checksums were found right; only with GUEST_CSUM. 5.1.6.4.1.
  public var isChecksumValid: Bool
  /// How many buffers this frame fills; 1 without MRG_RXBUF.
  public var bufferCount: UInt16

  @inlinable public init(isChecksumValid: Bool = false, bufferCount: UInt16 = 1) {
    self.isChecksumValid = isChecksumValid
    self.bufferCount = bufferCount
  }

  /// The first eight bytes, as one little-endian word.
  @inlinable public var lowWord: UInt64 { isChecksumValid ? 2 : 0 }
  /// The last four.
  @inlinable public var highWord: UInt32 { UInt32(bufferCount) << 16 }

  /// Writes all twelve bytes.
  @inlinable public func store(to slice: GuestSlice) {
    slice.store64(lowWord, 0)
    slice.store32(highWord, 8)
  }
}
