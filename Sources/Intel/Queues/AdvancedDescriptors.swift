public import NIC

// The descriptors that Intel's server NICs share. 82599 datasheet 7.1.6 and 7.2.3.

/// An advanced receive descriptor as the card writes it back: its second eight bytes.
///
/// Bits 19:0 are the status, 31:20 the errors, 47:32 the length in bytes, 63:48 a VLAN tag that was stripped.
@usableFromInline enum ReceiveDescriptor {
  @usableFromInline static var byteCount: Int { @inlinable get { 16 } }
  /// DD: the card has written it back.
  @usableFromInline static var done: UInt64 { @inlinable get { 1 << 0 } }
  /// EOP: the frame ends in this buffer.
  @usableFromInline static var endOfPacket: UInt64 { @inlinable get { 1 << 1 } }
  /// L4I: the transport checksum was checked. What was wrong stands elsewhere in each card: `QueueKind`.
  static var checksumChecked: UInt64 { 1 << 5 }
}

/// An advanced transmit data descriptor: its second eight bytes.
@usableFromInline enum TransmitDescriptor {
  @usableFromInline static var byteCount: Int { @inlinable get { 16 } }
  /// DD, in the status at bits 35:32.
  @usableFromInline static var done: UInt64 { @inlinable get { 1 << 32 } }

  /// RS: the card writes this descriptor back when it is done. Asked for at a frame's end only: 7.2.3.5.
  @usableFromInline static var reportsStatus: UInt64 { @inlinable get { 1 << 27 } }
  /// EOP: the frame ends in this buffer.
  @usableFromInline static var endOfPacket: UInt64 { @inlinable get { 1 << 24 } }
  /// One piece of a frame: a data descriptor (DTYP 3) with IFCS and DEXT. DTALEN is the piece's, PAYLEN, at bit 46, the
  /// whole frame's.
  @inlinable static func piece(_ byteCount: UInt32, of frameByteCount: UInt32) -> UInt64 {
    1 << 25 | 1 << 29 | 3 << 20 | UInt64(byteCount) | UInt64(frameByteCount) << 46
  }
}

/// An advanced transmit context descriptor: what the data descriptors after it refer to. 82599 datasheet 7.2.3.2.3.
@usableFromInline enum TransmitContext {
  /// IPLEN and MACLEN.
  @inlinable static func lengths(_ checksum: TransmitChecksum) -> UInt64 {
    UInt64(checksum.networkByteCount) | UInt64(checksum.macByteCount) << 9
  }
  /// DTYP 2, DEXT, and TUCMD.L4T. IDX is 0. TUCMD.IPV4 says how an IP checksum is made; none is asked for.
  @inlinable static func command(_ checksum: TransmitChecksum) -> UInt64 {
    2 << 20 | 1 << 29 | (checksum.transport == .tcp ? 1 << 11 : 0)
  }
}
