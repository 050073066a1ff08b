public import GuestMemory

/// What a driver made available next, as far as its first descriptor says it: the whole of a buffer of one piece, the
/// beginning of any other. Read once; whatever the ring says later does not change it.
@frozen public struct AvailableBuffer: Hashable, Sendable {
  public var range: GuestRange
  /// VIRTQ_DESC_F_NEXT, _WRITE and _INDIRECT, as in `Descriptor`; of a packed descriptor no others.
  public var flags: UInt16
  /// What the driver knows the buffer by, if this descriptor is all of it: of a split virtqueue the head's number, of a
  /// packed one the buffer ID, any 16 bits.
  public var id: UInt16

  @inlinable public init(range: GuestRange, flags: UInt16, id: UInt16) {
    self.range = range
    self.flags = flags
    self.id = id
  }
}

/// What a device may do with every piece of a queue's buffers.
public enum BufferDirection: Sendable {
  /// Receive.
  case writable
  /// Transmit.
  case readable
}
