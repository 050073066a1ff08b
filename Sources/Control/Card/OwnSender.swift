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

  private final class Stuck {
    var parts: [Parts] = []
    final class Parts {
      private let queue: IntelTransmitQueue
      private let buffer: DMABuffer
      init(_ queue: consuming IntelTransmitQueue, _ buffer: consuming DMABuffer) {
        self.queue = queue
        self.buffer = buffer
      }
    }
  }
  /// A queue that did not stop, and what it was given: neither's addresses on the bus may be given to anything else while
  /// the NIC is open.
  private let stuck = Stuck()

  let card: any IntelCard
  /// The card's number of the queue.
  let queue: Int
  let space: any IOAddressSpace
  let allocator: IOVAAllocator

  init(card: any IntelCard, queue: Int, space: any IOAddressSpace, allocator: IOVAAllocator) {
    (self.card, self.queue, self.space, self.allocator) = (card, queue, space, allocator)
  }

  /// Sends a frame. Returns why it was not sent, or nil.
  func send(_ frame: [UInt8]) -> String? {
    guard stuck.parts.isEmpty else { return "its queue does not stop" }
    do throws(DMABufferError) {
      let buffer = try DMABuffer(byteCount: (frame.count + 7) & ~7, access: .read, in: space, allocator: allocator)
      for place in stride(from: 0, to: frame.count, by: 8) {
        let bytes = frame[place..<min(place + 8, frame.count)]
        buffer.store64(bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }, place)
      }
      return send(buffer, frame.count)
    } catch { return "\(error)" }
  }

  private func send(_ buffer: consuming DMABuffer, _ byteCount: Int) -> String? {
    do throws(IntelError) {
      var transmit = try card.makeTransmitQueue(queue, ringSize: Self.ringSize)
      try transmit.start()
      transmit.post(buffer.address, byteCount: UInt32(byteCount))
      transmit.ring()
      let deadline = MonotonicClock.now() + Self.patience
      var isSent = transmit.reap() == 1
      while !isSent, MonotonicClock.now() < deadline { isSent = transmit.reap() == 1 }
      do throws(RegisterError) { try transmit.quiesce() } catch {
        stuck.parts.append(Stuck.Parts(transmit, buffer))
        return "\(error)"
      }
      return isSent ? nil : "the card did not send it"
    } catch { return "\(error)" }
  }
}
