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
  /// RXE: the MAC found the frame damaged.
  @usableFromInline static var macError: UInt64 { @inlinable get { 1 << 29 } }
  /// L4I with L4E and IPE: the transport checksum was checked; it, or the header's, was wrong. IPv6 has no header
  /// checksum, so IPCS is not asked for: an IPv4 header is checked whenever its transport is.
  @usableFromInline static var checksumFields: UInt64 { @inlinable get { 1 << 5 | 1 << 30 | 1 << 31 } }
  @usableFromInline static var checksumRight: UInt64 { @inlinable get { 1 << 5 } }
}

/// An advanced transmit data descriptor: its second eight bytes.
@usableFromInline enum TransmitDescriptor {
  @usableFromInline static var byteCount: Int { @inlinable get { 16 } }
  /// DD, in the status at bits 35:32.
  @usableFromInline static var done: UInt64 { @inlinable get { 1 << 32 } }

  /// One whole frame in one buffer: a data descriptor (DTYP 3) with EOP, IFCS, RS and DEXT; PAYLEN at bit 46.
  @inlinable static func wholeFrame(_ byteCount: UInt32) -> UInt64 {
    let command: UInt64 = 1 << 24 | 1 << 25 | 1 << 27 | 1 << 29 | 3 << 20
    return command | UInt64(byteCount) | UInt64(byteCount) << 46
  }
}
