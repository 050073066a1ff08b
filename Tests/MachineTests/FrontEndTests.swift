import Foundation
import Testing

/// Front-ends that no one here wrote, and what they say of the back-end.
@RigActor @Suite(.needs([.backEnd, .sluice])) struct FrontEndTests {
  private static let frames = Rig.rounds(2000, full: 20_000)

  /// rust-vmm's library sends what Cloud Hypervisor sends, checks each answer, and refuses itself what the back-end does not
  /// say that it has.
  @Test(.needs([.rustFrontEnd]), arguments: [1, 2, 4])
  func `rust-vmm's front-end starts, receives, plugs memory, logs, pauses and resets`(pairs: Int) throws {
    try withStage { stage in
      var port = stage.port()
      port.pairs = pairs
      let backEnd = try stage.backEnd([port])
      let halves = try [0, 1].map { try Trace(first: $0 * Self.frames / 2, frames: Self.frames / 2, folder: stage.folder) }
      let place = try stage.place("front-end")
      let script = #"exec "$0" "$1" "$2" "$3" 120 > capture"#
      let frontEnd = try Subprocess(
        "front-end", ["sh", "-c", script, Rig.program("rust-frontend"), port.socket, "\(pairs)", "\(Self.frames)"], folder: place)
      try frontEnd.line(with: "READY")
      #expect(try frontEnd.line(with: "QUEUES") == "QUEUES \(2 * pairs)")
      // While its rings are paused there are no frames for it.
      try #require(try backEnd.inject(halves[0], laps: 1).end() == Settled(delivered: Self.frames / 2))
      try frontEnd.line(with: "HALF")
      try #require(try backEnd.inject(halves[1], laps: 1).end() == Settled(delivered: Self.frames / 2))
      try #require(try frontEnd.end(within: 150) == 0, "\(frontEnd.log)")
      let check = #"exec "$0" "$1" "$2" 1 "$3" < capture"#
      let checking = try Subprocess(
        "check", ["sh", "-c", check, Rig.program("check"), "0", "\(Self.frames)", port.mac], folder: place)
      try checking.end()
      let tally = try Tally(checking.log)
      print("rust-vmm's front-end, \(pairs) queue pairs: \(frontEnd.log.trimmed.split(separator: "\n").last ?? ""); \(tally)")
      try #require(tally.isWhole(Self.frames), "\(tally)")
      // Of a front-end with many messages the log leaves lines out: what was refused last is in the status.
      let vms = try (backEnd as? SluiceBackEnd)?.ask("status")["vms"] as? [String: Any]
      let violation = (vms?["vm"] as? [String: Any])?["last_violation"] as? String ?? "none"
      try #require(violation.contains("ring \(2 * pairs) of \(2 * pairs): the front-end has more than \(pairs) queue pair"), "\(violation)")
      try backEnd.settle()
      try backEnd.stop()
    }
  }

  /// A front-end that counts queue pairs, or does not ask, learns it at the ring.
  @Test(.needs([.testpmd])) func `virtio-user with more queue pairs than the VM has is refused with the option that allows them`() throws {
    try withStage { stage in
      let port = stage.port()
      let backEnd = try stage.backEnd([port])
      let trace = try Trace(frames: 1000, folder: stage.folder)
      var wide = port
      wide.pairs = 4
      // It ends when the connection does, maybe before it has a prompt.
      let refused = try? VirtioUser(wide, trace, folder: stage.place("wide"))
      try backEnd.process.line(with: "ring 2 of 2: the front-end has more than 1 queue pair; queues=2 or queues=4 on the VM allows it")
      refused?.kill()
      // The next one with as many as there are is served.
      let frontEnd = try VirtioUser(port, trace, folder: stage.place("narrow"))
      let injection = try backEnd.inject(trace, laps: 1)
      let tally = try frontEnd.end(frames: 1000)
      try #require(try injection.end() == Settled(delivered: 1000))
      try #require(tally.isWhole(1000), "\(tally)")
    }
  }

  @Test(.needs(Need.backportsGuest)) func `QEMU with more queue pairs than the VM has is refused with the option that allows them`() throws {
    try withStage { stage in
      let port = stage.port()
      let backEnd = try stage.backEnd([port])
      var options = MachineOptions(socket: port.socket)
      (options.kernel, options.emulator, options.pairs) = (.backports, .backports, 2)
      // It tries for ever before it serves its monitor.
      let place = try stage.place("machine")
      let machine = try Subprocess("qemu", [options.emulator.program] + options.arguments(folder: place), folder: place)
      try backEnd.process.line(with: "ring 2 of 2: the front-end has more than 1 queue pair; queues=2 or queues=4 on the VM allows it")
      machine.kill()
    }
  }

  /// What QEMU says at a start, a stop and a reset of the driver: nothing.
  @Test(.needs(Need.bookwormGuest + Need.backportsGuest), arguments: [Kernel.bookworm, .backports])
  func `QEMU has nothing to complain of`(kernel: Kernel) throws {
    try withStage { stage in
      let port = stage.port()
      let backEnd = try stage.backEnd([port])
      let machine = try stage.machine(for: port) {
        $0.kernel = kernel
        $0.emulator = kernel == .bookworm ? .machine : .backports
      }
      let trace = try Trace(frames: 1000, folder: stage.folder)
      let tally = try delivered(trace, by: backEnd, to: machine)
      try #require(tally.isWhole(1000), "\(tally)")
      try machine.guest.check("rmmod virtio_net && modprobe virtio_net")
      try machine.guest.bringUp()
      try machine.qmp.run("stop")
      try machine.qmp.run("cont")
      let again = try delivered(Trace(first: 1000, frames: 1000, folder: stage.folder), by: backEnd, to: machine.guest)
      try #require(again.isWhole(1000), "\(again)")
      try #require(machine.process.log.trimmed.isEmpty, "\(machine.process.log)")
    }
  }
}
