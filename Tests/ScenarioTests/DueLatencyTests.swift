import FlowSteering
import Testing

@testable import Replay

/// From when a frame's latency counts.
@Suite struct DueLatencyTests {
  /// A frame each microsecond; one VM.
  private func stage(frames: Int, _ folder: TemporaryFolder, pace: ReplayOptions.Pace) throws -> Stage {
    let path = folder.file("trace.pcap")
    try writeTrace((0..<frames).map { TaggedFrame(UInt64($0), to: .local(1), byteCount: 64, run: testSeed).bytes }, to: path)
    var options = ReplayOptions(files: [path])
    options.pace = pace
    return try Stage(options, verifies: false)
  }

  @Test func `a wire that stalls is in the latency from due on, and not in that from the card on`() throws {
    let folder = try TemporaryFolder()
    var stage = try stage(frames: 64, folder, pace: .framesPerSecond(1e6))
    // 64 frames are due at 0, 1, ... 63 µs. The wire does nothing until 1 ms; then it sends all of them at once.
    let sent = try stage.engine.feed(64, time: 1_000_000, clock: { 1_000_000 })
    guard case .sent(64) = sent else { return #expect(Bool(false), "\(sent)") }
    while stage.engine.inFlight > 0 { stage.engine.turn(0, time: 1_000_000) }
    let report = stage.engine.report(elapsed: 0.001)
    #expect(report.latency_ns.max == 0)
    let due = try #require(report.due_latency_ns)
    #expect(due.max == 1_000_000)
    // The middle one was due at 31 or 32 µs: three significant digits.
    #expect((967_000...970_000).contains(due.p50), "\(due)")
    #expect(due.p90 <= due.p99 && due.p99 <= due.p999 && due.p999 <= due.p9999 && due.p9999 <= due.max)
  }

  @Test func `frames on time count what the path took, from either moment`() throws {
    let folder = try TemporaryFolder()
    var stage = try stage(frames: 10, folder, pace: .framesPerSecond(1e6))
    for frame in 0..<10 {
      let time = UInt64(frame) * 1000
      _ = try stage.engine.feed(1, time: time, clock: { time })
      while stage.engine.inFlight > 0 { stage.engine.turn(0, time: time + 500) }
    }
    let report = stage.engine.report(elapsed: 0.001)
    #expect(report.latency_ns.max == 500 && report.latency_ns.p50 == 500)
    #expect(report.due_latency_ns == report.latency_ns)
  }

  @Test func `at top speed nothing is due`() throws {
    let folder = try TemporaryFolder()
    #expect(try stage(frames: 10, folder, pace: .top).run().due_latency_ns == nil)
  }

  @Test func `in memory of another size the same frames come`() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("trace.pcap")
    try writeTrace((0..<500).map { TaggedFrame(UInt64($0), to: .local(1), byteCount: 200, run: testSeed).bytes }, to: path)
    for memory in [nil, 1 << 20, 8 << 20, 100 << 20] as [Int?] {
      var options = ReplayOptions(files: [path])
      (options.guestMemory, options.verify, options.isDeterministic) = (memory, true, true)
      let report = try Replay(options).run()
      expectSound(report, "memory \(String(describing: memory))")
      #expect(report.frames.delivered == 500)
    }
    var options = ReplayOptions(files: [path])
    options.guestMemory = 1000
    #expect(throws: ReplayError.self) { try Replay(options) }
  }
}
