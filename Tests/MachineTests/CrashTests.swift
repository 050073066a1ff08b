import Foundation
import Testing

/// Either side is killed under traffic, and comes again.
@RigActor @Suite(.needs([.backEnd] + Need.bookwormGuest)) struct CrashTests {
  @Test(arguments: [MachineOptions.Link.connects, .listens])
  func `a back-end that is killed and started again takes up where it was`(link: MachineOptions.Link) throws {
    try killAndStart { $0.link = link }
  }

  /// QEMU remembers nothing of a packed ring for a back-end that died: it must have done so itself.
  @Test(.needs([.sluice])) func `and so with packed rings`() throws {
    try killAndStart { $0.isPacked = true }
  }

  @Test(.needs([.sluice] + Need.backportsGuest)) func `and so with several queues`() throws {
    try killAndStart(.backports, .backports) { $0.pairs = 2 }
  }

  private func killAndStart(_ kernel: Kernel = .bookworm, _ emulator: Emulator = .machine, _ change: (inout Port) -> Void) throws {
    try withStage { stage in
      var port = stage.port()
      change(&port)
      let backEnd = try stage.backEnd([port])
      let machine = try stage.machine(for: port) {
        $0.kernel = kernel
        $0.emulator = emulator
      }
      try machine.isUp()
      try machine.guest.bringUp()
      var slowest = Duration.zero
      for round in 0..<Rig.rounds(2, full: 50) {
        slowest = max(slowest, try killAndStart(backEnd, machine, round: round, stage))
        let complaints = try machine.guest.complaints()
        try #require(complaints.isEmpty, "\(complaints)")
      }
      print("a back-end killed and started, QEMU \(port.link): a frame delivered within \(slowest) of the start")
      // Where it is QEMU that tries again, it does so once a second. A time, and so asked of a quiet machine only.
      if Rig.isFull { try #require(slowest < .seconds(port.link == .listens ? 1 : 2)) }
      if !port.isPacked && port.pairs == 1 { try everyPostedBufferIsUsed(by: backEnd, machine, stage) }
      try backEnd.settle()
    }
  }

  /// Returns how long after the start what had become of a first frame was known.
  private func killAndStart(_ backEnd: any BackEnd, _ machine: Machine, round: Int, _ stage: Stage) throws -> Duration {
    let traffic = try Trace.lasting(round: round, folder: stage.folder)
    let sink = try Sink(in: machine.guest, traffic, laps: Trace.endless)
    let injection = try backEnd.inject(traffic, laps: Trace.endless)
    try eventually("traffic") { try sink.soFar().good > 300 }
    backEnd.crash()
    injection.cancel()
    let before = try sink.settled()
    // Delivered is what came before some moment, and lost what came after: nothing between. Of several queues, each has a moment
    // of its own: one's turn was over when the other's had not begun.
    try #require(machine.options.pairs == 1 ? before.isUnbroken : before.isSound, "round \(round), before the start: \(before)")

    // Each round has indices of its own: a frame that comes a second time, whenever, is seen.
    let frames = 1000
    let first = try Trace(first: round * frames, frames: 1, folder: stage.folder)
    let one = try Sink(in: machine.guest, first)
    let start = ContinuousClock.now
    try backEnd.start()
    // Until the front-end is there, frames for it are dropped.
    try eventually("a frame is delivered") { try backEnd.inject(first, laps: 1).end().delivered == 1 }
    let took = .now - start
    let tally = try one.end()
    try #require(tally.isWhole(1), "round \(round), the first: \(tally)")
    // More than the ring holds: a descriptor that was lost or doubled is met on the way.
    let rest = try Trace(first: first.first + 1, frames: frames - 1, folder: stage.folder)
    let after = try delivered(rest, by: backEnd, to: machine.guest)
    try #require(after.isWhole(frames - 1), "round \(round), the rest: \(after)")
    let end = try sink.end(within: 0)
    try #require(end.good == before.good && end.duplicate == 0, "what was lost, or delivered, came after the start: \(end); before: \(before)")
    return took
  }

  /// A frozen QEMU posts nothing, and says nothing: frames come for every buffer that it had posted, if none was lost.
  private func everyPostedBufferIsUsed(by backEnd: any BackEnd, _ machine: Machine, _ stage: Stage) throws {
    let place = try machine.splitRingPlace(0)
    let trace = try Trace(first: 1 << 20, frames: 2000, folder: stage.folder)
    let sink = try Sink(in: machine.guest, trace)
    machine.process.signal(SIGSTOP)
    let posted = try machine.splitRing(at: place).posted
    let injection = try backEnd.inject(trace, laps: 1)
    try eventually("all of \(posted) posted buffers are used, but \((try? machine.splitRing(at: place))?.posted ?? -1)") {
      try machine.splitRing(at: place).posted == 0
    }
    machine.process.signal(SIGCONT)
    try #require(posted > 100)
    // Where the back-end waited long for buffers, it dropped.
    let settled = try injection.end()
    try eventually("\(settled.delivered) frames are counted") { try sink.soFar().good >= settled.delivered }
    let tally = try sink.end(within: 0)
    try #require(tally.isSound && tally.good == settled.delivered, "\(settled), \(tally)")
  }

  @Test(.needs([.sluice])) func `a front-end that is killed leaves nothing behind, and the other VM does not notice`() throws {
    try withStage { stage in
      let ports = [stage.port("a"), stage.port("b", mac: "52:54:00:12:34:57")]
      let backEnd = try stage.backEnd(ports)
      let other = try stage.machine(for: ports[0])
      try other.isUp()
      try other.guest.bringUp()
      // One stream of frames for both, from the first start to the last kill.
      let trace = try Trace.lasting(macs: ports.map(\.mac), folder: stage.folder)
      let sink = try Sink(in: other.guest, trace, laps: Trace.endless)
      let injection = try backEnd.inject(trace, laps: Trace.endless)
      func startAndKill() throws {
        let killed = try stage.machine(for: ports[1])
        try killed.isUp()
        try killed.guest.bringUp()
        let doomed = try Sink(in: killed.guest, trace, laps: Trace.endless)
        try eventually("traffic") { try doomed.soFar().good > 300 }
        killed.kill()
        // With nobody behind the other socket.
        let then = try sink.soFar().good
        try eventually("the other VM's traffic goes on") { try sink.soFar().good > then + 2000 }
      }
      // Once for what is allocated at the first time.
      try startAndKill()
      let process = backEnd.process
      let (descriptors, mappings) = (process.descriptorCount, process.mappedFiles)
      var own = [process.ownKibibytes]
      for _ in 0..<Rig.rounds(2, full: 50) {
        try startAndKill()
        try eventually("descriptors as before: \(descriptors), not \(process.descriptorCount)") { process.descriptorCount == descriptors }
        try eventually("mappings as before: \(mappings), not \(process.mappedFiles)") { process.mappedFiles == mappings }
        own.append(process.ownKibibytes)
      }
      print("KiB of the back-end's own memory after each kill of a front-end: \(own)")
      try #require(own.last! < own.first! + 8192, "\(own)")
      injection.cancel()
      try backEnd.settle()
      let delivered = try backEnd.delivered(to: ports[0].name)
      let tally = try sink.settled(at: delivered ?? 0)
      try #require(tally.isUnbroken && tally.good == delivered, "delivered \(delivered ?? -1): \(tally)")
      try backEnd.stop()
    }
  }
}
