import Foundation
import Testing

/// The rig itself, with a back-end and a front-end that no one here wrote: what fails here is no fault of Sluice.
@RigActor @Suite struct RigTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var kernel: Kernel
    var emulator: Emulator
    var isPacked = false
    var pairs = 1
    var memory = MachineOptions.Memory.memfd
    var testDescription: String {
      "\(kernel), QEMU \(emulator), \(isPacked ? "packed" : "split"), \(pairs) queue pairs, \(memory)"
    }
  }

  @Test(arguments: [Case(kernel: .bookworm, emulator: .machine), Case(kernel: .backports, emulator: .backports, isPacked: true)])
  func `frames of testpmd arrive in a guest whole and in order`(_ one: Case) throws {
    try withStage { stage in
      var port = stage.port()
      port.isPacked = one.isPacked
      port.pairs = one.pairs
      let backEnd = try TestpmdBackEnd([port], folder: stage.place("testpmd"))
      try backEnd.start()
      let machine = try stage.machine(for: port) {
        $0.kernel = one.kernel
        $0.emulator = one.emulator
        $0.memory = one.memory
      }
      try machine.isUp()
      try machine.guest.bringUp()
      let features = try machine.guest.features()
      print(features.sorted())
      let trace = try Trace(frames: 2000, folder: stage.folder)
      let sink = try Sink(in: machine.guest, trace)
      let injection = try backEnd.inject(trace, laps: 1)
      try injection.end(within: 60)
      let tally = try sink.end()
      try #require(tally.isWhole(2000), "\(tally)")
    }
  }
}
