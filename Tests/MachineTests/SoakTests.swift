import Foundation
import Testing

/// A VM and a virtio-user front-end live on one back-end for a long time, and something is stopped or killed every minute.
@RigActor @Suite(.needs([.backEnd, .sluice, .testpmd] + Need.bookwormGuest)) struct SoakTests {
  /// What happens in a round.
  private enum Disturbance: CaseIterable {
    case nothing, resetGuest, killVirtioUser, stopGuest, killMachine, rebindDriver, killVirtioUserAgain, endBackEnd, killBackEnd

    var restartsBackEnd: Bool { self == .endBackEnd || self == .killBackEnd }
    /// Programs in the guest do not survive it.
    var endsSink: Bool { self == .resetGuest || self == .killMachine || self == .rebindDriver }
  }

  /// Of an hour, a minute each.
  private static let rounds = Rig.rounds(9, full: 60)
  private static let secondsEach = Rig.isFull ? 60.0 : 1.0
  /// Rounds that a back-end lives, and so is to hold what it held.
  private static let life = Rig.isFull ? 20 : 9

  @Test func `every law holds, and nothing grows, while something restarts every minute`() throws {
    try withStage { stage in
      let port = stage.port("vm")
      var userPort = stage.port("user", mac: "52:54:00:12:34:57")
      // virtio-user waits for a back-end that comes again only where it listens.
      userPort.link = .listens
      let soak = try Soak(stage, port, userPort)
      for round in 0..<Self.rounds {
        let (start, place) = (ContinuousClock.now, round % Self.life)
        let others = Disturbance.allCases.filter { !$0.restartsBackEnd }
        let what = place == Self.life - 1 ? .killBackEnd : place == Self.life - 2 ? .endBackEnd : others[place % others.count]
        let said = try soak.round(what, seconds: Self.secondsEach)
        print("soak, round \(round + 1) of \(Self.rounds), \(what): \(said), \(ContinuousClock.now - start)")
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
    private var samples: [Sample] = []

    private struct Sample: CustomStringConvertible {
      var descriptors: Int
      /// Of files, but for the guests' regions.
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

    /// Traffic for both with a change amid it, and traffic after it. Answers what was counted.
    func round(_ what: Disturbance, seconds: Double) throws -> String {
      let sink = try Sink(in: machine.guest, halves[0], laps: Trace.endless)
      let before = try delivered(to: ports[0])
      let injection = try inject(halves[0])
      try eventually("traffic") { try sink.soFar().good > 300 }
      usleep(UInt32(seconds / 2 * 1e6))
      try disturb(what)
      injection.cancel()
      if !what.endsSink {
        try backEnd.settle()
        // A new back-end counts anew.
        let given = what.restartsBackEnd ? nil : try delivered(to: ports[0]) - before
        let tally = try sink.settled(at: given ?? 0)
        _ = try sink.end(within: 0)
        try #require(tally.isSound && tally.good == given ?? tally.good, "\(what): delivered \(given ?? -1), \(tally)")
      }
      let tally = try goesOn(seconds)
      let complaints = try machine.guest.complaints()
      try #require(complaints.isEmpty, "\(what): \(complaints)")
      if what.restartsBackEnd { samples = [] }
      try look()
      return "\(tally.good) frames for the guest after it; \(samples.last!)"
    }

    /// Traffic with nothing amid: the guest counts what the back-end says that it has given to it.
    private func goesOn(_ seconds: Double) throws -> Tally {
      let sink = try Sink(in: machine.guest, halves[1], laps: Trace.endless)
      let before = try ports.map(delivered)
      let injection = try inject(halves[1])
      try eventually("traffic for both") {
        try zip(ports, before).allSatisfy { try delivered(to: $0) > $1 + 300 }
      }
      usleep(UInt32(seconds / 2 * 1e6))
      injection.cancel()
      try backEnd.settle()
      let given = try delivered(to: ports[0]) - before[0]
      let tally = try sink.settled(at: given)
      _ = try sink.end(within: 0)
      try #require(tally.isSound && tally.good == given, "delivered \(given): \(tally)")
      return tally
    }

    private func delivered(to port: Port) throws -> Int { try backEnd.delivered(to: port.name) ?? 0 }

    private func inject(_ trace: Trace) throws -> SluiceInjection {
      // At a pace: what a ring has no room for is dropped and counted, and no VM waits for the other.
      try backEnd.inject(trace, laps: Trace.endless, speed: "pps=40k")
    }

    /// What a back-end holds is the same after each round of its life, but for the first: then not everything has come yet.
    /// Its memory grows while each of its threads allocates for the first time.
    private func look() throws {
      samples.append(try sample())
      guard samples.count > 2 else { return }
      let expected = samples[1]
      try eventually("it holds what it held: \(expected); before: \(samples)") {
        // What asked for the status is gone a moment later.
        let now = try sample()
        // The kernel may keep one mapping in two parts, or two that came to lie side by side as one.
        return now.descriptors == expected.descriptors && now.mappings <= expected.mappings + 1
      }
      guard samples.count > 6 else { return }
      try #require(samples.last!.kibibytes < samples[5].kibibytes + 2048, "\(samples)")
    }

    private func sample() throws -> Sample {
      let vms = try backEnd.ask("status")["vms"] as? [String: [String: Any]] ?? [:]
      let regions = vms.values.reduce(0) { $0 + ($1["memory_regions"] as? Int ?? 0) }
      let process = backEnd.process
      return Sample(
        descriptors: process.descriptorCount, mappings: process.mappedFiles.values.reduce(0, +) - regions,
        kibibytes: process.ownKibibytes)
    }

    private func disturb(_ what: Disturbance) throws {
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
        // DPDK listens on no socket that is there already.
        try FileManager.default.removeItem(atPath: ports[1].socket)
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
