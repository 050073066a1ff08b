public import GuestMemory

/// One entry of the descriptor table, as it was at one moment. virtio 1.3, 2.7.5.
@frozen public struct Descriptor: Hashable, Sendable {
  public var range: GuestRange
  public var flags: UInt16
  public var next: UInt16

  /// VIRTQ_DESC_F_NEXT
  @inlinable public static var hasNext: UInt16 { 1 }
  /// VIRTQ_DESC_F_WRITE: the device writes.
  @inlinable public static var isWritable: UInt16 { 2 }
  /// VIRTQ_DESC_F_INDIRECT
  @inlinable public static var isIndirect: UInt16 { 4 }

  @inlinable public init(range: GuestRange, flags: UInt16, next: UInt16) {
    self.range = range
    self.flags = flags
    self.next = next
  }

  /// - Parameter word: length, flags and next, lowest first.
  @inlinable init(word: UInt64, address: GuestAddress) {
    self.init(
      range: GuestRange(address, count: UInt32(truncatingIfNeeded: word)), flags: UInt16(truncatingIfNeeded: word >> 32),
      next: UInt16(truncatingIfNeeded: word >> 48))
  }

  /// An entry of an indirect table. Precondition: it lies in the table.
  init(table: GuestSlice, entry: UInt32) {
    let offset = 16 * Int(entry)
    self.init(word: table.load64(offset + 8), address: GuestAddress(table.load64(offset)))
  }
}
