internal import CLinux
internal import Linux
internal import Simulation

/// The guests of a replay on a thread of their own: each is stepped in turn, and when none has work the thread sleeps
/// until a device signals.
final class GuestCrew: @unchecked Sendable {
  private let guests: [SimulatedGuest]
  private let wake: EventDescriptor
  private let stopping = SharedWord()
  private let roundCount = SharedWord()
  private let waitCount = SharedWord(.max)
  /// Nanoseconds that the thread waited for its processor, once it has ended. Nil: the kernel does not say.
  var waited: UInt64? { waitCount.value == .max ? nil : waitCount.value }
  /// How often every guest was stepped.
  var rounds: UInt64 { roundCount.value }

  init(_ guests: [SimulatedGuest]) throws(ReplayError) {
    self.guests = guests
    do { wake = try EventDescriptor() } catch { throw .machine("the guests' event: \(error)") }
  }

  /// Runs until `stop`. To be called on the crew's own thread.
  func run() {
    /// Empty rounds before the thread asks to be woken: about a hundred microseconds.
    let patience = 2000
    var idle = 0
    var round: UInt64 = 0
    let waitedBefore = ThreadWait.nanoseconds()
    defer { if let waitedBefore, let after = ThreadWait.nanoseconds() { waitCount.set(after - waitedBefore) } }
    while stopping.value == 0 {
      round += 1
      roundCount.set(round)
      var frames = 0
      for guest in guests {
        for queue in 0..<guest.configuration.queueCount { frames += guest.step(queue: queue) }
      }
      if frames > 0 {
        idle = 0
        continue
      }
      idle += 1
      for _ in 0..<20 { sl_pause() }
      if idle > patience {
        sleep()
        idle = 0
      }
    }
    // What was published before the stop is taken, by those that had stalled too: it was delivered.
    for guest in guests { for queue in 0..<guest.configuration.queueCount { guest.resume(queue: queue) } }
    var frames = 1
    while frames > 0 {
      frames = 0
      for guest in guests {
        for queue in 0..<guest.configuration.queueCount { frames += guest.step(queue: queue) }
      }
    }
  }

  private func sleep() {
    for guest in guests {
      for queue in 0..<guest.configuration.queueCount where !guest.prepareToSleep(queue: queue) { return }
    }
    wake.wait(milliseconds: 20)
    wake.clear()
  }

  /// A device's interrupt.
  func signal() { wake.signal() }

  func stop() {
    stopping.set(1)
    wake.signal()
  }
}
