internal import Linux
internal import Simulation

/// One VM on its worker: the lanes of its rings, the account of its time, and how its drivers are notified.
///
/// Lanes are its worker's; the account may be read by others.
final class VMShare: @unchecked Sendable {
  let account = ShareAccount()
  let lanes = Roster<Lane>()
  let notifications: Notifications
  /// The lane to begin with: a VM whose lanes take more than a quantum has them polled in turn.
  private let cursor = SharedWord()
  /// The card's queues that its frames are sent by; and what the card's model had taken for them when that was charged last.
  private let queues: Range<Int>
  private let modelTicks = SharedWord()

  init(vm: Int, queues: Range<Int>, notifierProcessor: Int?, ticksPerSecond: Double) {
    self.queues = queues
    notifications = Notifications(vm: vm, processor: notifierProcessor, ticksPerSecond: ticksPerSecond)
  }

  /// Returns the ticks that the card's model has taken to send this VM's frames since this was asked last: copies for other
  /// VMs and what the wire takes are the sender's to pay for.
  @inline(__always) func takeModelTicks(_ counters: TrafficCounters) -> UInt64 {
    var ticks: UInt64 = 0
    for queue in queues { ticks &+= counters.sendTicks(queue: queue) }
    let before = modelTicks.value
    modelTicks.set(ticks)
    // Another card begins at 0.
    return ticks > before ? ticks &- before : 0
  }

  /// Polls lanes, each at most once, until that has taken a quantum.
  ///
  /// - Parameters:
  ///   - start: the tick counter.
  ///   - poll: polls a lane. Returns true if that moved something.
  /// - Returns: the tick counter at the end, whether anything moved, and whether a lane was not polled.
  @inline(__always) func poll(
    from start: UInt64, quantum: UInt64, _ poll: (Lane) -> Bool
  ) -> (end: UInt64, moved: Bool, isCut: Bool) {
    var (end, moved) = (start, false)
    let (next, isCut) = lanes.forEach(from: Int(truncatingIfNeeded: cursor.value)) { lane in
      if poll(lane) { moved = true }
      end = TickCounter.now()
      return end &- start < quantum
    }
    cursor.set(UInt64(next))
    return (end, moved, isCut)
  }
}
