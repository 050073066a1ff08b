import Foundation
import Testing

/// DPDK's virtio-user as front-end: no VM, no QEMU, another hand's reading of the specification.
@RigActor @Suite(.needs([.backEnd, .testpmd])) struct VirtioUserTests {
  /// Ten million frames at full count: so many of a trace, so many times.
  private static let frames = 10_000
  private static let laps = Rig.rounds(10, full: 1000)

  @Test(arguments: [false, true], [MachineOptions.Link.connects, .listens])
  func `every frame arrives, whole and in order`(isPacked: Bool, link: MachineOptions.Link) throws {
    try receive { port in
      port.isPacked = isPacked
      port.link = link
    }
  }

  @Test(arguments: ["mrg_rxbuf=0", "in_order=1", "packed_vq=1,mrg_rxbuf=0", "packed_vq=1,in_order=1"])
  func `and so with other features`(properties: String) throws {
    try receive(more: "," + properties) { $0.isPacked = properties.contains("packed") }
  }

  /// One VM's worker steps the card, the other's does not. Whoever looks meanwhile sees sums that balance.
  @Test(.needs([.sluice])) func `two VMs with a worker each receive everything, and every law holds at any time`() throws {
    try withStage { stage in
      let ports = [stage.port("a"), stage.port("b", mac: "52:54:00:12:34:57")]
      let trace = try Trace(frames: Self.frames, macs: ports.map(\.mac), folder: stage.folder)
      let backEnd = try SluiceBackEnd(ports, more: ["--workers", "2"], folder: stage.place("sluice"))
      try backEnd.start()
      let frontEnds = try ports.map { try VirtioUser($0, trace, laps: Self.laps, folder: stage.place("virtio-user")) }
      let injection = try backEnd.inject(trace, laps: Self.laps, speed: "top")
      var looks = 0
      while injection.process.isRunning || looks == 0 {
        let status = try backEnd.ask("status")
        let laws = try #require(status["laws"] as? [[String: Any]])
        try #require(!laws.isEmpty && laws.allSatisfy { $0["holds"] as? Bool == true }, "look \(looks): \(laws)")
        looks += 1
      }
      let settled = try injection.end()
      try #require(settled == Settled(delivered: 2 * Self.frames * Self.laps))
      for frontEnd in frontEnds {
        let tally = try frontEnd.end(frames: Self.frames * Self.laps)
        print("virtio-user, one of two: \(tally); \(looks) looks")
        try #require(tally.isWhole(Self.frames * Self.laps), "\(tally)")
      }
      try backEnd.settle()
      let workers = try #require(try backEnd.ask("status")["workers"] as? [[String: Any]])
      try #require(workers.count == 2 && workers.allSatisfy { $0["turns"] as? Int ?? 0 > 0 }, "\(workers)")
      try backEnd.stop()
    }
  }

  private func receive(more: String = "", _ change: (inout Port) -> Void) throws {
    try withStage { stage in
      var port = stage.port()
      change(&port)
      let trace = try Trace(frames: Self.frames, folder: stage.folder)
      let backEnd = try stage.backEnd([port])
      let frontEnd = try VirtioUser(port, trace, laps: Self.laps, more: more, folder: stage.place("virtio-user"))
      let injection = try backEnd.inject(trace, laps: Self.laps)
      let tally = try frontEnd.end(frames: Self.frames * Self.laps)
      let settled = try injection.end()
      print("virtio-user, \(port.isPacked ? "packed" : "split")\(more): \(tally)")
      try #require(tally.isWhole(Self.frames * Self.laps), "\(tally)")
      try #require(settled == Settled(delivered: Self.frames * Self.laps))
      try backEnd.settle()
    }
  }
}
