import Capture
import Foundation
import Simulation
import Testing

@testable import Replay

/// The laws of conservation on every trace there is, over ring sizes and shapes of buffers.
@Suite struct LawsTests {
  /// Traces that can be read to their end and hold a frame that was captured whole.
  static let traces: [String] = (Place.files(under: Place.package + "/Traces") + Place.files(under: Place.shared))
    .filter { path in
      do { return try TraceSource.open(ReplayOptions(files: [path])).failure == nil } catch { return false }
    }
  static let shapes = BufferShape.allCases

  static func options(_ files: [String], ringSize: Int, shape: BufferShape) -> ReplayOptions {
    var options = ReplayOptions(files: files)
    options.seed = testSeed
    options.ringSize = ringSize
    options.verify = true
    options.vms = [ReplayOptions.VM(name: "vm0", buffers: shape)]
    return options
  }

  @Test(arguments: [2, 256, 1024], shapes)
  func `every frame of every trace is accounted for`(ringSize: Int, shape: BufferShape) throws {
    #expect(Self.traces.count >= 6)
    // A ring of two has no room for a buffer of three descriptors or more: virtio 1.3, 2.7.5.2.
    if ringSize == 2 && [.big, .awkward, .indirect].contains(shape) { return }
    for trace in Self.traces {
      let report = try Stage(Self.options([trace], ringSize: ringSize, shape: shape)).run()
      expectSound(report, "\(trace) ring \(ringSize) \(shape)")
    }
  }

  @Test(arguments: shapes)
  func `and with the largest ring there is, all traces one after the other`(shape: BufferShape) throws {
    let report = try Stage(Self.options(Self.traces, ringSize: 32768, shape: shape)).run()
    expectSound(report, "all traces, \(shape)")
  }

  @Test(arguments: shapes)
  func `the same seed gives the same log, byte by byte`(shape: BufferShape) throws {
    let folder = try TemporaryFolder()
    var options = Self.options(Array(Self.traces.prefix(40)), ringSize: 256, shape: shape)
    options.isDeterministic = true
    var logs: [Data] = []
    var reports: [ReplayReport] = []
    for run in 0..<2 {
      options.eventLog = folder.file("log\(run)")
      reports.append(try Replay(options).run())
      logs.append(try Data(contentsOf: URL(fileURLWithPath: options.eventLog!)))
    }
    #expect(logs[0] == logs[1], "SEED=\(options.seed)")
    #expect(logs[0].count > 1000)
    #expect(reports[0] == reports[1])
    // Another seed makes another run: the log is of what happened, not of what was asked for.
    options.seed &+= 1
    options.eventLog = folder.file("other")
    _ = try Replay(options).run()
    let other = try Data(contentsOf: URL(fileURLWithPath: options.eventLog!))
    #expect(other != logs[0])
  }
}
