import Foundation
import Testing

/// A VM and a virtio-user front-end live on one back-end for a long time, and something is stopped or killed every minute.
@RigActor @Suite(.needs([.backEnd, .sluice, .testpmd] + Need.bookwormGuest)) struct SoakTests {
  /// What happens in a round, in turn. A back-end lives for a turn: what it holds is compared within one.
  private enum Disturbance: CaseIterable {
    case nothing, resetGuest, killVirtioUser, stopGuest, killMachine, rebindDriver, killVirtioUserAgain, endBackEnd, killBackEnd

    var restartsBackEnd: Bool { self == .endBackEnd || self == .killBackEnd }
    var disturbsMachine: Bool { ![.nothing, .killVirtioUser, .killVirtioUserAgain].contains(self) }
  }

  /// Of an hour, a minute each.
  private static let rounds = Rig.rounds(9, full: 60)
  private static let secondsEach = Rig.isFull ? 60.0 : 1.0

  @Test func `every law holds, and nothing grows, while something restarts every minute`() throws {
    try withStage { stage in
      let machine = stage.port("vm")
      var user = stage.port("user", mac: "52:54:00:12:34:57")
      // virtio-user waits for a back-end that comes again only where it listens.
      user.link = .listens
      let soak = try Soak(stage, machine, user)
      let turns = Disturbance.allCases
      for round in 0..<Self.rounds {
        let start = ContinuousClock.now
        try soak.round(round, seconds: Self.secondsEach) { try soak.disturb(turns[round % turns.count]) }
        print("soak, round \(round + 1) of \(Self.rounds), \(turns[round % turns.count]): \(soak.said), \(ContinuousClock.now - start)")
      }
      try soak.end()
    }
  }

  /// Both front-ends, their back-end, and what was seen of them.
  @RigActor private final class Soak {
    private let stage: Stage
    private let ports: [Port]
    private let backEnd: SluiceBackEnd
    private var machine: Machine
    private var user: VirtioUser
    /// Two halves of what `user` counts, for rounds in turn: what comes late is of the other half.
    private let halves: [Trace]
    private let whole: Trace
    /// Given to `user` by back-ends that have ended in order, or were asked; nil: one was killed, and nobody knows.
    private var given: Int? = 0
    private var disturbance = Disturbance.nothing
    private(set) var said = ""
    private var samples: [Sample] = []

    private struct Sample: CustomStringConvertible {
      var descriptors: Int
      var mappings: Int
      var kibibytes: Int
      var description: String { "\(descriptors) descriptors, \(mappings) mappings of files, \(kibibytes) KiB" }
    }

    init(_ stage: Stage, _ port: Port, _ userPort: Port) throws {
      self.stage = stage
      ports = [port, userPort]
      let macs = [port.mac, userPort.mac]
      halves = try (0..<2).map { try Trace.lasting(round: $0, macs: macs, folder: stage.folder) }
      whole = try Trace(first: halves[0].first, frames: halves[0].frames + halves[1].frames, macs: [userPort.mac], folder: stage.folder)
      backEnd = try SluiceBackEnd(ports, folder: stage.place("sluice"))
      try backEnd.start()
      machine = try stage.machine(for: port)
      try machine.isUp()
      try machine.guest.bringUp()
      user = try VirtioUser(userPort, whole, laps: 60_000, folder: stage.place("virtio-user"))
    }

    /// Traffic for both, a change amid, and then what the front-ends and the back-end say of it.
    func round(_ round: Int, seconds: Double, _ change: () throws -> Void) throws {
      let trace = halves[round % 2]
      let sink = try Sink(in: machine.guest, trace, laps: Trace.endless)
      let before = try backEnd.delivered(to: ports[0].name) ?? 0
      var injection = try inject(trace)
      try eventually("traffic") { try sink.soFar().good > 300 }
      usleep(UInt32(seconds / 2 * 1e6))
      try change()
      if disturbance.restartsBackEnd { injection = try inject(trace) }
      try eventually("traffic goes on") { [backEnd, ports] in
        try (backEnd.delivered(to: ports[0].name) ?? 0) > 300 && (backEnd.delivered(to: ports[1].name) ?? 0) > 300
      }
      usleep(UInt32(seconds / 2 * 1e6))
      injection.cancel()
      try backEnd.settle()
      said = "the back-end lives on"
      if !disturbance.disturbsMachine {
        let tally = try sink.settled()
        let delivered = (try backEnd.delivered(to: ports[0].name) ?? 0) - before
        try #require(tally.isSound && tally.good == delivered, "round \(round), delivered \(delivered): \(tally)")
        said = "\(delivered) frames for the guest, each once and whole"
        _ = try sink.end(within: 0)
      } else if disturbance == .stopGuest || disturbance.restartsBackEnd {
        let tally = try sink.settled()
        try #require(tally.isSound, "round \(round): \(tally)")
        said = "\(tally.good) frames for the guest, each once and whole"
        _ = try sink.end(within: 0)
      }
      let complaints = try machine.guest.complaints()
      try #require(complaints.isEmpty, "\(complaints)")
      try look()
    }

    private func inject(_ trace: Trace) throws -> SluiceInjection {
      // At a pace: what a ring has no room for is dropped and counted, and no VM waits for the other.
      try backEnd.inject(trace, laps: Trace.endless, speed: "pps=40k")
    }

    /// What a back-end holds is the same after each round of its life, but the first.
    private func look() throws {
      if disturbance.restartsBackEnd { samples = [] }
      let process = backEnd.process
      let sample = Sample(
        descriptors: process.descriptorCount, mappings: process.mappedFiles.values.reduce(0, +), kibibytes: process.ownKibibytes)
      samples.append(sample)
      said += "; \(sample)"
      guard samples.count > 2 else { return }
      let second = samples[1]
      try #require(sample.descriptors == second.descriptors && sample.mappings == second.mappings, "\(samples)")
      try #require(sample.kibibytes < second.kibibytes + 4096, "\(samples)")
    }

    func disturb(_ what: Disturbance) throws {
      disturbance = what
      switch what {
      case .nothing: break
      case .resetGuest:
        try machine.qmp.run("system_reset")
        try machine.isUp()
        try machine.guest.bringUp()
      case .stopGuest:
        try machine.qmp.run("stop")
        usleep(100_000)
        try machine.qmp.run("cont")
      case .killMachine:
        machine.kill()
        machine = try stage.machine(for: ports[0])
        try machine.isUp()
        try machine.guest.bringUp()
      case .rebindDriver:
        let device = try machine.guest.check("basename $(readlink -f /sys/class/net/eth0/device)")
        try machine.guest.check("killall sink; cd /sys/bus/virtio/drivers/virtio_net && echo \(device) > unbind && echo \(device) > bind")
        try machine.guest.bringUp()
      case .killVirtioUser, .killVirtioUserAgain:
        user.kill()
        user = try VirtioUser(ports[1], whole, laps: 60_000, folder: stage.place("virtio-user"))
      case .endBackEnd:
        try backEnd.stop()
        try backEnd.start()
      case .killBackEnd:
        backEnd.crash()
        try backEnd.start()
      }
    }

    func end() throws {
      let tally = try user.end(frames: 0)
      try #require(tally.isSound && tally.good > 0, "\(tally)")
      machine.kill()
      try backEnd.settle()
      try backEnd.stop()
    }
  }
}
