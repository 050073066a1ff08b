import Foundation
import Testing

/// What a VM costs that does nothing.
@RigActor @Suite(.needs([.backEnd, .sluice])) struct IdleTests {
  @Test(.needs(Need.bookwormGuest)) func `a VM without traffic costs less than a hundredth of a processor, and is awake at the first frame`() throws {
    try withStage { stage in
      let port = stage.port()
      let backEnd = try stage.backEnd([port])
      let machine = try stage.machine(for: port)
      // Once with traffic, so that everything that may run has run.
      let first = try delivered(Trace(frames: 100, folder: stage.folder), by: backEnd, to: machine)
      try #require(first.isWhole(100), "\(first)")
      for round in 1...Rig.rounds(1, full: 10) {
        // Of processor time: how long the machine was busy with others makes no difference. What is measured is a time,
        // and so this waits for one.
        let seconds = 5
        usleep(500_000)
        let (start, before) = (ContinuousClock.now, backEnd.process.processorTime)
        usleep(UInt32(seconds) * 1_000_000)
        let (spent, elapsed) = (backEnd.process.processorTime - before, ContinuousClock.now - start)
        let share = Double(spent) / (elapsed / .nanoseconds(1))
        print("idle: \(spent / 1000) µs of processor time in \(elapsed), \(share * 100) %")
        try #require(share < 0.01)
        let tally = try delivered(Trace(first: round * 1000, frames: 1, folder: stage.folder), by: backEnd, to: machine.guest)
        try #require(tally.isWhole(1), "\(tally)")
      }
    }
  }
}
