internal import Bus
internal import Intel
internal import Linux
internal import NIC

/// Frames of our own on a real card's wire, one at a time: by a transmit queue that is nobody's, which runs only for it.
/// VMs' queues are theirs alone, and their workers'.
///
/// Control thread only.
struct OwnSender {
  /// How long a card may take for it: it waits for nobody, and nor does the control thread.
  private static let patience: UInt64 = 10_000_000
  private static let ringSize = 64

  let card: any IntelCard
  /// The card's number of the queue.
  let queue: Int
  let space: any IOAddressSpace
  let allocator: IOVAAllocator

  /// Sends it. Answers why not, or nil.
  func send(_ frame: [UInt8]) -> String? {
    do throws(DMABufferError) {
      let buffer = try DMABuffer(byteCount: (frame.count + 7) & ~7, access: .read, in: space, allocator: allocator)
      for place in stride(from: 0, to: frame.count, by: 8) {
        let bytes = frame[place..<min(place + 8, frame.count)]
        buffer.store64(bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }, place)
      }
      return send(buffer, frame.count)
    } catch { return "\(error)" }
  }

  /// The queue is gone before what it reads.
  private func send(_ buffer: borrowing DMABuffer, _ byteCount: Int) -> String? {
    do {
      var transmit = try card.makeTransmitQueue(queue, ringSize: Self.ringSize)
      try transmit.start()
      transmit.post(buffer.address, byteCount: UInt32(byteCount))
      transmit.ring()
      let deadline = MonotonicClock.now() + Self.patience
      var isSent = transmit.reap() == 1
      while !isSent, MonotonicClock.now() < deadline { isSent = transmit.reap() == 1 }
      try transmit.quiesce()
      return isSent ? nil : "the card did not send it"
    } catch { return "\(error)" }
  }
}
