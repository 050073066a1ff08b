internal import Bus
internal import Datapath
internal import Intel
internal import NIC
internal import Simulation

/// The machine's own queue of the card, for frames that rules send to the host: each is looked at where the card has put
/// it, and its buffer goes back.
final class HostLane {
  /// The card's number of the queue.
  let cardQueue: Int
  private var path: HostReceivePath<IntelReceiveQueue>
  /// What must come, where frames are compared.
  let expectation: Expectation
  private var hash = SHA256Stream()

  init(
    queue: consuming IntelReceiveQueue, in space: any IOAddressSpace, allocator: IOVAAllocator
  ) throws(DMABufferError) {
    cardQueue = queue.number
    expectation = Expectation(capacity: queue.capacity)
    path = try HostReceivePath(queue: queue, in: space, allocator: allocator)
  }

  var frames: UInt64 { path.frames }
  var bytes: UInt64 { path.bytes }
  var damaged: UInt64 { path.damaged }
  var digest: SHA256Digest { hash.digestSoFar() }

  /// Takes everything that has come.
  func drain(verifies: Bool) {
    while unsafe path.turn({ frame in
      guard verifies else { return }
      unsafe hash.update(frame: frame)
      expectation.leave(delivered: true)
    }) > 0 {}
  }
}
