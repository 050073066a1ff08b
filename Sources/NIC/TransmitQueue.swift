public import Bus

/// One hardware transmit queue. Buffers come back in the order they were posted.
public protocol TransmitQueue: ~Copyable {
  var capacity: Int { get }
  /// How many more buffers can be posted now.
  var room: Int { get }
  /// Writes the descriptor of one whole frame in one buffer. Precondition: `room > 0`.
  mutating func post(_ address: IOVA, byteCount: UInt32)
  /// Tells the hardware of everything posted so far.
  mutating func ring()
  /// How many buffers, oldest first, the hardware is done with since the last call.
  mutating func reap() -> Int
  mutating func quiesce() throws(RegisterError)
}
