import Foundation
import Linux
import Replay
import Testing

@testable import Benchmark

@Suite struct RunTests {
  private func options(_ sections: [Section] = Section.allCases) -> BenchmarkOptions {
    var options = BenchmarkOptions()
    (options.sections, options.rounds, options.secondsPerPoint, options.keepsNoisy) = (sections, 1, 0.005, true)
    return options
  }

  /// Of a run nothing is judged but that it was done: timing never decides.
  @Test func `every point is measured, every law holds, and each has figures or says why not`() throws {
    let run = try BenchmarkRun(options())
    var told = 0
    let report = try run.run { _ in told += 1 }
    #expect(report.findings == [])
    #expect(report.sections.map(\.section) == Section.allCases && !report.interrupted)
    #expect(report.quiet.samples >= run.plan.pointCount && told >= report.quiet.samples)
    for part in report.sections {
      for point in part.points {
        #expect(point.figures.isEmpty == (point.refused != nil), "\(part.section) \(point.label) \(point.series)")
        #expect((point.figures[FigureName.frames]?.median ?? 1) > 0)
      }
    }
    let text = try JSONEncoder().encode(report)
    #expect(try JSONDecoder().decode(BenchmarkReport.self, from: text) == report)
    for key in ["\"ratio\":null", "\"refused\":null", "\"sluice\":null"] { #expect(String(decoding: text, as: UTF8.self).contains(key)) }
  }

  @Test func `a run that is ended has what was measured until then`() throws {
    let run = try BenchmarkRun(options([.queues, .ring]))
    var told = 0
    let report = try run.run { _ in
      told += 1
      if told == 3 { run.cancel() }
    }
    #expect(report.interrupted && report.quiet.samples == 2 && report.sections.count == 2)
    #expect(report.sections[1].points.allSatisfy { $0.refused == "not measured" })
  }

  @Test func `synthetic traces are left where they are asked for, with their rules, and nowhere else`() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("sluice-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: folder) }
    var kept = options([.queues])
    kept.traceFolder = folder
    _ = try BenchmarkRun(kept).run()
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["imix.pcap"])
  }

  @Test func `a kept trace that is there already must be the same, and what else has its name is left alone`() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("sluice-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: folder) }
    var kept = options([.queues])
    kept.traceFolder = folder
    _ = try BenchmarkRun(kept).run()
    _ = try BenchmarkRun(kept).run()
    try "mine".write(toFile: folder + "/imix.pcap", atomically: false, encoding: .utf8)
    let error = #expect(throws: ReplayError.self) { try BenchmarkRun(kept).run() }
    guard case .usage("--keep-traces \(folder): \(folder)/imix.pcap is there, and is another; give a folder without it") = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(try String(contentsOfFile: folder + "/imix.pcap", encoding: .utf8) == "mine")
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["imix.pcap"])
  }

  @Test func `what cannot be read is an error of its own`() throws {
    var options = options([.rate])
    options.files = ["/no/such.pcap"]
    #expect(throws: ReplayError.self) { try BenchmarkRun(options).run() }
    options.rounds = 0
    #expect(throws: ReplayError.self) { try BenchmarkRun(options) }
  }

  @Test func `two cores answer each other, and one has nobody to ask`() {
    let processors = Array(Thread.processors.prefix(2))
    let ping = CorePing.measure(between: processors, nanosecondsPerTick: 1)
    #expect((ping == nil) == (processors.count < 2))
    #expect((ping ?? 1) > 0)
    #expect(CorePing.measure(between: [0], nanosecondsPerTick: 1) == nil && CorePing.measure(between: [0, 0], nanosecondsPerTick: 1) == nil)
  }

  @Test func `a machine is described from the kernel's files`() throws {
    let root = FileManager.default.temporaryDirectory.appendingPathComponent("sluice-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: root) }
    func write(_ path: String, _ text: String) throws {
      let url = URL(fileURLWithPath: root + path)
      try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
      try text.write(to: url, atomically: true, encoding: .utf8)
    }
    try write("/proc/cpuinfo", "processor\t: 0\nmodel name\t: A <Fast> One\nflags\t\t: fpu hypervisor\n\nprocessor\t: 1\n")
    try write("/proc/meminfo", "MemTotal:       16 kB\nHugePages_Total:     3\nHugepagesize:       2048 kB\n")
    try write("/proc/sys/kernel/osrelease", "6.1.0\n")
    let cpu = "/sys/devices/system/cpu/cpu1"
    try write(cpu + "/cpufreq/scaling_governor", "performance\n")
    for (file, text) in [("level", "1"), ("type", "Data"), ("size", "48K")] { try write(cpu + "/cache/index0/" + file, text + "\n") }
    for (file, text) in [("level", "3"), ("type", "Unified"), ("size", "32768K")] { try write(cpu + "/cache/index3/" + file, text + "\n") }
    let machine = BenchmarkReport.Machine(root: root, processor: 1)
    #expect(machine.processor == "A <Fast> One" && machine.processors == 2 && machine.is_virtual == true)
    #expect(machine.memory_bytes == 16384 && machine.huge_pages == "3 of 2048 KiB" && machine.kernel == "6.1.0")
    #expect(machine.governor == "performance" && machine.caches == ["L1 data 48K", "L3 32768K"])
    let empty = BenchmarkReport.Machine(root: root + "/none")
    #expect(empty.processor == nil && empty.processors == 0 && empty.governor == nil && empty.caches == [])
  }
}
