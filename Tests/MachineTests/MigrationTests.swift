import Foundation
import Testing

/// A VM moves from one QEMU and one back-end to another, and receives while it does.
///
/// Not with QEMU 7.2: under software emulation it leaves behind pages that the guest's own processor wrote last, of the
/// kernel's data too, whatever the back-end.
@RigActor @Suite(.needs([.backEnd, .emulator(.backports)])) struct MigrationTests {
  @Test(.needs([.kernel(.bookworm)])) func `a guest of Linux 6.1 moves, its memory and its frames with it`() throws { try migrate(.bookworm) }
  @Test(.needs([.kernel(.backports)])) func `a guest of Linux 6.12 moves with a packed ring, its memory and its frames with it`() throws {
    try migrate(.backports, isPacked: true)
  }

  private func migrate(_ kernel: Kernel, isPacked: Bool = false) throws {
    for _ in 0..<Rig.rounds(1, full: 10) { try migrateOnce(kernel, isPacked) }
  }

  private func migrateOnce(_ kernel: Kernel, _ isPacked: Bool) throws {
    try withStage { stage in
      var (here, there) = (stage.port("here"), stage.port("there"))
      here.isPacked = isPacked
      there.isPacked = isPacked
      let backEnds = try [here, there].map { try stage.backEnd([$0]) }
      let source = try stage.machine(for: here) {
        $0.kernel = kernel
        $0.emulator = .backports
      }
      try source.isUp()
      try source.guest.bringUp()
      let uri = "unix:\(stage.folder)/migration"
      let destination = try stage.machine(for: there) {
        $0.kernel = kernel
        $0.emulator = .backports
        $0.incoming = uri
        $0.startsPaused = true
      }
      let frames = 1000
      let trace = try Trace(frames: frames, folder: stage.folder)
      let sink = try Sink(in: source.guest, trace, laps: 60_000)
      let injection = try backEnds[0].inject(trace, laps: 10_000)
      try eventually("traffic") { try sink.soFar().good > 300 }

      try Self.move(source, to: uri)
      try eventually("the destination has all") { try destination.qmp.status() == "paused" }
      try #require(try source.qmp.status() == "postmigrate")
      // The source's back-end has frames in plenty still, and may put none there any more.
      try Self.requireEqualMemory(source, destination)
      injection.cancel()

      try destination.qmp.run("cont")
      source.kill()
      // The program that counts has moved too.
      let moved = Sink(sink, movedTo: destination.guest)
      let delivered = try backEnds[0].delivered(to: here.name)
      let before = try moved.settled(at: delivered ?? 0)
      try #require(before.isUnbroken && before.good == delivered ?? before.good, "delivered \(delivered ?? -1), after the move: \(before)")
      // From where it was: the rest of a lap, and a lap more.
      let done = before.good % frames
      let rest = try Trace(first: done, frames: frames - done, folder: stage.folder)
      for trace in [rest, trace] {
        let settled = try backEnds[1].inject(trace, laps: 1).end()
        try #require(settled == Settled(delivered: trace.frames))
      }
      let expected = before.good + (frames - done) + frames
      let after = try moved.settled(at: expected)
      print("\(kernel): \(before.good) frames before and during the move, \(after.good - before.good) after it")
      try #require(after.isUnbroken && after.good == expected, "\(after)")
      let complaints = try destination.guest.complaints()
      try #require(complaints.isEmpty, "\(complaints)")
    }
  }

  /// Stops the source only when all memory was sent at least twice over while frames came: then what a back-end has
  /// written and not logged is not at the destination.
  private static func move(_ source: Machine, to uri: String) throws {
    func progress() throws -> (status: String, passes: Int) {
      let answer = try source.qmp.run("query-migrate") as? [String: Any]
      if answer?["status"] as? String == "failed" { throw RigError("the migration failed: \(source.process.log)") }
      return (answer?["status"] as? String ?? "", (answer?["ram"] as? [String: Any])?["dirty-sync-count"] as? Int ?? 0)
    }
    try source.qmp.run("migrate-set-parameters", ["max-bandwidth": 128 << 20, "downtime-limit": 1])
    try source.qmp.run("migrate", ["uri": uri])
    try eventually("three passes over memory") { try progress().passes > 3 || progress().status == "completed" }
    try source.qmp.run("migrate-set-parameters", ["downtime-limit": 10_000])
    try eventually("the migration is over") { try progress().status == "completed" }
    let passes = try progress().passes
    try #require(passes > 2, "memory was sent in \(passes) passes")
  }

  /// Page by page, so that a difference has a place.
  private static func requireEqualMemory(_ one: Machine, _ other: Machine) throws {
    let count = one.options.megabytes << 20
    let (left, right) = (try one.memory(at: 0, count: count), try other.memory(at: 0, count: count))
    try #require(left.count == count && right.count == count)
    if left == right { return }
    let pages = stride(from: 0, to: count, by: 4096).filter { left[$0..<($0 + 4096)] != right[$0..<($0 + 4096)] }
    let places = pages.prefix(20).map { String($0, radix: 16) }.joined(separator: " ")
    throw RigError("\(pages.count) pages differ between source and destination, from \(places)")
  }
}
