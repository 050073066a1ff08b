import Foundation
import Testing

/// A VM moves from one QEMU and one back-end to another, and receives while it does.
@RigActor @Suite(.needs([.backEnd])) struct MigrationTests {
  @Test(.needs(Need.bookwormGuest)) func `a guest of Linux 6.1 moves, its memory and its frames with it`() throws { try migrate(.bookworm, .machine) }
  @Test(.needs(Need.backportsGuest)) func `a guest of Linux 6.12 moves, its memory and its frames with it`() throws { try migrate(.backports, .backports) }

  private func migrate(_ kernel: Kernel, _ emulator: Emulator) throws {
    for _ in 0..<Rig.rounds(1, full: 10) { try migrateOnce(kernel, emulator) }
  }

  private func migrateOnce(_ kernel: Kernel, _ emulator: Emulator) throws {
    try withStage { stage in
      let here = stage.port("here")
      let there = stage.port("there")
      let backEnds = try [here, there].map { try stage.backEnd([$0]) }
      let source = try stage.machine(for: here) {
        $0.kernel = kernel
        $0.emulator = emulator
      }
      try source.isUp()
      try source.guest.bringUp()
      let uri = "unix:\(stage.folder)/migration"
      let destination = try stage.machine(for: there) {
        $0.kernel = kernel
        $0.emulator = emulator
        $0.incoming = uri
        $0.startsPaused = true
      }
      let frames = 1000
      let trace = try Trace(frames: frames, folder: stage.folder)
      let sink = try Sink(in: source.guest, trace, laps: 60_000)
      let injection = try backEnds[0].inject(trace, laps: 10_000)
      try eventually("traffic") { try sink.soFar().good > 300 }

      try source.qmp.run("migrate-set-parameters", ["max-bandwidth": 1 << 30, "downtime-limit": 2000])
      try source.qmp.run("migrate", ["uri": uri])
      try eventually("the migration is over", within: 240) {
        let state = (try source.qmp.run("query-migrate") as? [String: Any])?["status"] as? String
        if state == "failed" { throw RigError("the migration failed: \(source.process.log)") }
        return state == "completed"
      }
      try eventually("the destination has all") { try destination.qmp.status() == "paused" }
      try #require(try source.qmp.status() == "postmigrate")
      // The source's back-end has frames in plenty still, and may put none there any more.
      try Self.requireEqualMemory(source, destination)
      injection.cancel()

      try destination.qmp.run("cont")
      source.kill()
      // The program that counts has moved too.
      let moved = Sink(sink, movedTo: destination.guest)
      let before = try moved.settled()
      try #require(before.isUnbroken, "after the move: \(before)")
      if let delivered = try backEnds[0].delivered(to: here.name) { try #require(before.good == delivered) }
      // From where it was: the rest of a lap, and a lap more.
      let done = before.good % frames
      let rest = try Trace(first: done, frames: frames - done, folder: stage.folder)
      for trace in [rest, trace] {
        let settled = try backEnds[1].inject(trace, laps: 1).end()
        try #require(settled == Settled(delivered: trace.frames))
      }
      let expected = before.good + (frames - done) + frames
      try eventually("all frames") { try moved.soFar().good >= expected }
      let after = try moved.settled()
      print("\(kernel): \(before.good) frames before and during the move, \(after.good - before.good) after it")
      try #require(after.isUnbroken && after.good == expected, "\(after)")
      let complaints = try destination.guest.complaints()
      try #require(complaints.isEmpty, "\(complaints)")
    }
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
