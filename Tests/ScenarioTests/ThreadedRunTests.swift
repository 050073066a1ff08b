import FlowSteering
import Foundation
import Linux
import Testing

@testable import Replay

/// How a replay on two threads begins.
@Suite struct ThreadedRunTests {
  /// Threads of this process that bear this name. Until a thread has run, it bears that of the one that started it.
  private func threads(named name: String) -> Set<String> {
    let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? []
    return Set(all.filter { (try? String(contentsOfFile: "/proc/self/task/\($0)/comm", encoding: .utf8)) == name + "\n" })
  }

  /// The guests' thread begins on the processor of the one that starts it, as in every replay. That one is a FIFO thread
  /// here, and so the other: it gets its turn when the first sleeps, and no sooner, whatever else the machine does. A run
  /// that does not wait for it looks first whether it is to end. sched(7), "SCHED_FIFO". Who may not have such a thread
  /// has a test that passes as well, and sees less.
  @Test func `the wire begins when the guests have been stepped once`() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("trace.pcap")
    try writeTrace((0..<2).map { TaggedFrame(UInt64($0), to: .local(1), byteCount: 64, run: testSeed).bytes }, to: path)
    var options = ReplayOptions(files: [path])
    // The second frame is due in a second: the wire looks at once whether it is to go on.
    options.pace = .framesPerSecond(1)
    options.preload = true
    let others = threads(named: "guests")
    var found: Set<String>?
    let vms = try Replay(options).vms
    let engine = Engine(
      options: options, source: try TraceSource.open(options), rig: try Rig(options, vms: vms, hashes: false, sinks: [:]), verifies: false,
      nanosecondsPerTick: 1e9 / TickCounter.measureRate())
    var (usual, first) = (sched_param(), sched_param())
    first.sched_priority = 1
    sched_setscheduler(0, SCHED_FIFO, &first)
    defer { sched_setscheduler(0, SCHED_OTHER, &usual) }
    var run = ThreadedRun(engine)
    let report = try run.run(
      until: {
        if found == nil { found = threads(named: "guests").subtracting(others) }
        return true
      }, progress: { _ in })
    #expect(found?.isEmpty == false, "the wire has begun, and no thread of guests has run")
    #expect(report.interrupted && report.frames.delivered == 1)
  }
}
