import Foundation
import Testing

/// Rules change while real guests receive.
@RigActor @Suite(.needs([.sluice] + Need.bookwormGuest)) struct SteeringTests {
  private static let frames = 20_000
  private static let laps = Rig.rounds(2, full: 40)
  /// Nobody's, but for what rules say.
  private nonisolated static let moving = "52:54:00:12:34:58"

  /// A third address goes from one guest to the other and back, and hundreds of other rules come and go, while both
  /// receive frames of their own. Nothing is lost, doubled or out of order: not of the guests' own frames, and not of
  /// those that move.
  @Test func `a flow moves between two guests, and no frame is lost`() throws {
    try move(atOnce: false)
  }

  /// The same in one change: then frames of the address that gets another owner may be lost, and no others.
  @Test func `a flow moves while other rules change, and only its own frames may be lost`() throws {
    try move(atOnce: true)
  }

  private func move(atOnce: Bool) throws {
    try withStage { stage in
      let ports = [stage.port("a"), stage.port("b", mac: "52:54:00:12:34:57")]
      let backEnd = try SluiceBackEnd(ports, folder: stage.place("sluice"))
      try backEnd.start()
      func apply(_ owner: String, others: Int) throws {
        let rules = ["match eth.dst=\(Self.moving) then vm \(owner)"]
          + (0..<others).map { "match ip.src=10.0.\($0 / 250).\($0 % 250) ip.dst=10.99.0.2 udp.src=9 udp.dst=9 then \($0 % 3 == 0 ? "drop" : "vm b")" }
        let file = stage.folder + "/rules"
        try (rules.joined(separator: "\n") + "\n").write(toFile: file, atomically: true, encoding: .utf8)
        try backEnd.rules("apply", file)
      }
      try apply("a", others: 1)
      let machines = try ports.map { try stage.machine(for: $0) }
      for machine in machines {
        try machine.isUp()
        try machine.guest.bringUp()
      }
      let trace = try Trace(frames: Self.frames, macs: ports.map(\.mac) + [Self.moving], folder: stage.folder)
      let sinks = try machines.map { try Sink(in: $0.guest, trace, laps: Self.laps) }
      let injection = try backEnd.inject(trace, laps: Self.laps, speed: "top")
      var changes = 0
      while injection.process.isRunning {
        changes += 1
        // The owner with every second change, the others with each that is left, or all at once.
        let owner = atOnce ? changes : changes / 2
        try apply(owner % 2 == 0 ? "a" : "b", others: (atOnce ? changes : (changes + 1) / 2) % 3 * 150 + 1)
      }
      let count = Self.frames * Self.laps
      let settled = try injection.end()
      let tallies = try sinks.map { try $0.end(within: 240) }
      print("\(changes) changes of rules under \(3 * count) frames: \(settled); \(tallies)")
      for tally in tallies { try #require(tally.isWholeBut(astray: tally.astray, count), "\(tallies)") }
      let moved = tallies[0].astray + tallies[1].astray
      try #require(settled.delivered == 2 * count + moved && settled.dropped.keys.allSatisfy { $0 == "no_route" || $0 == "no_pool" }, "\(settled)")
      try #require(tallies[0].astray > 0 && tallies[1].astray > 0 && (atOnce ? moved <= count : moved == count), "\(tallies)")
      try #require(changes > 10)
      for machine in machines { try #require(try machine.guest.complaints().isEmpty) }
      try backEnd.settle()
      try backEnd.stop()
    }
  }
}
