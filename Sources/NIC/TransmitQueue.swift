public import Bus

/// One hardware transmit queue. A frame lies in one piece or in several; frames come back whole, in the order they were
/// posted.
///
/// As with `ReceiveQueue`, conforming types live in other modules and mark what is called for a frame `@inlinable`.
public protocol TransmitQueue: ~Copyable {
  /// Bytes that a frame may have. Others must not be posted: check a guest's frame before.
  var frameByteCounts: ClosedRange<UInt32> { get }
  /// The most pieces that one frame may lie in.
  var pieceLimit: Int { get }
  /// Whether it can finish transport checksums: `post(_: TransmitChecksum)`.
  var finishesChecksums: Bool { get }
  /// How many descriptors can be out at once.
  var capacity: Int { get }
  /// How many more can be posted now. A piece takes one, and so does a checksum.
  var room: Int { get }

  /// Says that the frame whose pieces come next has a checksum to be finished. Precondition: `room > 0`, no frame is
  /// begun, and `finishesChecksums`.
  mutating func post(_ checksum: TransmitChecksum)
  /// Writes the descriptor of the next piece of a frame.
  ///
  /// Precondition: `room > 0`. The pieces of a frame are not empty, no more than `pieceLimit`, and together have
  /// `frameByteCount` bytes, which is in `frameByteCounts`.
  ///
  /// - Returns: False if the hardware cannot reach the piece now: no piece of the frame was posted, and the frame may be posted
  ///   anew from other memory; a checksum that was posted for it holds for that. Memory that is mapped for as long as it lives, as
  ///   host buffers are, is never refused.
  mutating func post(_ address: IOVA, byteCount: UInt32, of frameByteCount: UInt32, isLast: Bool) -> Bool
  /// Tells the hardware of every whole frame posted so far.
  mutating func ring()
  /// How many frames, oldest first, the hardware is done with since the last call. Their buffers are the owner's again.
  mutating func reap() -> Int
  /// Begins to stop the queue: as `ReceiveQueue.beginQuiesce`. What was posted before may still be sent.
  mutating func beginQuiesce()
  /// Checks whether the queue has stopped: at most one register read, no wait. As `ReceiveQueue.pollQuiesce`.
  ///
  /// - Returns: true when the hardware reads no more of any buffer. What it has sent can still be reaped; the other
  ///   frames may or may not have been sent, and are forgotten with the next start.
  mutating func pollQuiesce() throws(RegisterError) -> Bool
  /// Begins and polls until the queue has stopped. Blocks for up to 110 ms: never on a thread that moves frames.
  mutating func quiesce() throws(RegisterError)
  /// As `quiesce`, without asking the hardware: it is known to read nothing any more, for it is gone or off the bus.
  mutating func abandon()

  /// Where memory could not be unmapped from the IOMMU, so that the hardware may still reach a frame that it is done with; nil: all
  /// is well. From then on `reap` answers 0; after `quiesce` or `abandon` it answers what was sent, for it to be counted: none of
  /// those buffers may be given to a guest.
  var unmapFailure: IOVA? { get }
}

extension TransmitQueue where Self: ~Copyable {
  @inlinable public var unmapFailure: IOVA? { nil }
  /// Writes the descriptor of one whole frame in one buffer.
  @inlinable public mutating func post(_ address: IOVA, byteCount: UInt32) -> Bool {
    post(address, byteCount: byteCount, of: byteCount, isLast: true)
  }
}

/// A transport checksum that the hardware finishes: its field in the frame holds the pseudo-header's sum already, as
/// virtio's VIRTIO_NET_HDR_F_NEEDS_CSUM has it (virtio 1.3, 5.1.6.2 "Packet Transmission").
@frozen public struct TransmitChecksum: Hashable, Sendable {
  @frozen public enum Transport: UInt8, Hashable, Sendable { case udp, tcp }
  /// Bytes before the network header: of the Ethernet header, and of tags.
  public let macByteCount: UInt16
  /// Bytes from there to the transport header.
  public let networkByteCount: UInt16
  public let transport: Transport

  /// Nil: no hardware that we know takes such lengths.
  @inlinable public init?(macByteCount: UInt16 = 14, networkByteCount: UInt16, transport: Transport) {
    guard macByteCount >= 14 && macByteCount <= 127, networkByteCount >= 20 && networkByteCount <= 511 else { return nil }
    self.macByteCount = macByteCount
    self.networkByteCount = networkByteCount
    self.transport = transport
  }

  /// As a virtio header says it, where the sum begins, and where it goes from there. Nil: neither TCP nor UDP, or out of
  /// bounds. That the field lies inside the frame is the caller's to check.
  @inlinable public init?(start: UInt16, offset: UInt16) {
    guard offset == 16 || offset == 6, start >= 14 else { return nil }
    self.init(networkByteCount: start &- 14, transport: offset == 16 ? .tcp : .udp)
  }
}
