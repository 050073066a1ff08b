import ArgumentParser
import Benchmark
import Foundation

#if canImport(FoundationXML)
  import FoundationXML
#endif
import Replay
import Testing

@testable import sluice

/// The options that a command line comes to.
private func benchOptions(_ arguments: [String]) throws -> BenchmarkOptions {
  try #require(try Sluice.parseAsRoot(["bench"] + arguments) as? BenchCommand).options()
}

/// A report with a value in every place: a lent and a copied point, one without a figure, a latency.
func benchReport() -> BenchmarkReport {
  var report = BenchmarkReport()
  report.files = ["a<b>.pcap"]
  report.machine.processor = "A & B"
  (report.machine.processors, report.machine.kernel, report.machine.memory_bytes) = (2, "6.1.0", 16 << 30)
  (report.machine.caches, report.machine.huge_pages, report.machine.governor) = (["L1 data 48K"], "0 of 2048 KiB", "performance")
  (report.machine.is_virtual, report.machine.sluice, report.machine.swift, report.machine.optimised) = (true, "0.1.0", "6.2", true)
  (report.settings.rounds, report.settings.seconds_per_sample, report.settings.processors) = (3, 0.2, [0, 1])
  (report.settings.fewest_samples, report.settings.command) = (3, "sluice bench 'a<b>.pcap'")
  report.quiet = .init()
  (report.quiet.samples, report.quiet.set_aside, report.quiet.moved, report.quiet.preempted) = (12, 2, 1, 1)
  report.quiet.distances = [.init(name: "near", ping_ns: 95, samples: 8), .init(name: "far", ping_ns: 490, samples: 2)]
  func point(_ series: String, _ label: String, _ figures: [String: [Double]], x: Double? = nil) -> BenchmarkReport.Measured {
    var point = BenchmarkReport.Measured(series: series, label: label, x: x, replay: "sluice replay 'a<b>.pcap'")
    point.figures = figures.compactMapValues(Figure.init)
    return point
  }
  let lent = point("lent", "a<b>.pcap", [FigureName.frames: [4e6, 5e6, 6e6], FigureName.bits: [4e9, 5e9, 6e9], FigureName.datapath: [20, 21, 22], FigureName.model: [60, 61, 62], FigureName.host: [80, 82, 84]])
  var copied = point("copied", "a<b>.pcap", [FigureName.frames: [2e6, 3e6, 4e6], FigureName.bits: [2e9, 3e9, 4e9], FigureName.datapath: [40, 42, 44], FigureName.model: [60, 61, 62], FigureName.host: [100, 102, 104]])
  copied.ratio = .init(figure: FigureName.datapath, against: "a<b>.pcap, lent", value: Figure([2, 2, 2])!)
  var refused = point("lent", "64 B", [:], x: 64)
  (refused.refused, refused.set_aside, refused.other_distance) = ("the machine was not quiet: 1 of 5 samples left, and 3 make a figure", 3, 1)
  var latency = point("50 %", "50 %", [FigureName.frames: [1e6, 1e6, 1e6]].merging(zip(FigureName.latencies, [2e3, 4e3, 9e3, 3e4, 9e4, 5e5]).map { ($0, [$1, $1, $1]) }) { $1 }, x: 50)
  (latency.dropped, latency.dropped_by) = (8, ["no_buffers": 7, "over_mtu": 1])
  report.sections = [
    .init(section: .rate, frames: "a<b>.pcap", distance: "near", ping_ns: 96, points: [lent, copied]),
    .init(section: .size, frames: "frames of one size", distance: "near", ping_ns: 96, points: [refused]),
    .init(section: .latency, frames: "a<b>.pcap", distance: nil, ping_ns: nil, points: [latency]),
  ]
  report.elapsed_s = 61
  return report
}

struct BenchOptionTests {
  @Test func `without an option every section is measured, about a second a point`() throws {
    let options = try benchOptions([])
    #expect(options.sections == Section.allCases && options.secondsPerPoint == 1 && options.rounds == 5 && options.files.isEmpty)
    #expect(!options.keepsNoisy && options.traceFolder == nil && options.processors == nil && options.mtu == 1500)
  }

  @Test func `every option reaches the benchmark`() throws {
    let options = try benchOptions([
      "a.pcap", "b.pcap", "--only", "latency,rate", "--duration", "5s", "--rounds", "7", "--mtu", "9000", "--keep-noisy", "--keep-traces", "t",
    ])
    #expect(options.files == ["a.pcap", "b.pcap"] && options.sections == [.rate, .latency] && options.secondsPerPoint == 5)
    #expect(options.rounds == 7 && options.mtu == 9000 && options.keepsNoisy && options.traceFolder == "t")
    let quick = try benchOptions(["--quick", "--rounds", "4"])
    #expect(quick.secondsPerPoint == 0.15 && quick.rounds == 4)
  }

  @Test(arguments: [
    (["--only", "speed"], "--only speed: no section \"speed\"; there are rate, size, vms, queues, rules, ring, buffers, memory, latency, and --list says what they are"),
    (["--only", "rate,"], "--only rate,: no section \"\"; there are rate, size, vms, queues, rules, ring, buffers, memory, latency, and --list says what they are"),
    (["--duration", "0"], "--duration 0: must be a time from 1ms to 1h; write it like 500ms or 5s"),
    (["--duration", "soon"], "--duration soon: must be a time from 1ms to 1h; write it like 500ms or 5s"),
    (["--rounds", "0"], "--rounds 0: must be a whole number, from 1 to 1000"),
    (["--mtu", "1"], "--mtu 1: must be a whole number, from 68 to 9710"),
    (["--cpus", "x"], "--cpus x: write one or two numbers of processors, like 0,1"),
    (["--html", "/no/such/page.html"], "--html /no/such/page.html: the folder does not exist"),
    (["--html", ""], "--html '': give the name of a file"),
    (["--html", "/tmp"], "--html /tmp: this is a folder; give the name of a file"),
    (["--html", "-"], "--html -: standard output has the report for a terminal, or --json; give the name of a file"),
    (["--keep-traces", ""], "--keep-traces '': give the name of a folder"),
    (["-"], "file -: standard input can be read only once, and a benchmark replays its traces many times; give a file"),
  ]) func `what does not fit is refused by name, with what would`(arguments: [String], message: String) {
    expectRefusal(message) { try benchOptions(arguments) }
  }
}

struct BenchReportTests {
  @Test func `the text has every figure with its unit, and says what has none`() {
    let text = BenchText(benchReport(), colours: false).description
    #expect(text.split(separator: "\n").allSatisfy { $0.count <= 80 }, "\(text)")
    for part in [
      "Mframes/s", "Gbit/s", "path ns", "5.00", "21.0", "20.0-22.0", "42.0", "2.00", "the machine was not quiet: 1 of 5 samples left", "p99.99", "30.0 µs",
      "7 frames dropped: the guest had no buffer", "1 frame dropped, over_mtu: The frame is longer than", "cores near: a cache line there and back in 95 ns, 8 samples", "cores far", "12 samples, 2 set aside", "governor performance",
      "but 1 point has no figure",
    ] { #expect(text.replacing("\n", with: " ").contains(part), "\(part) in\n\(text)") }
  }

  @Test func `a finding is the verdict and the status, the gravest first`() {
    var report = benchReport()
    #expect(sluice.ExitStatus(report) == .accounted)
    report.interrupted = true
    #expect(sluice.ExitStatus(report, signal: .interrupt) == .interrupted && sluice.ExitStatus(report, signal: .terminate) == .terminated)
    for (kind, status) in [(.unreadable, .unreadable), (.stopped, .stopped), (.unverified, .unverified), (.unaccounted, .unaccounted)] as [(BenchmarkReport.Finding.Kind, sluice.ExitStatus)] {
      report.findings.append(.init(kind: kind, text: "what \(kind) says"))
      #expect(sluice.ExitStatus(report) == status)
    }
    #expect(BenchText(report, colours: false).description.contains("Not well: what unreadable says."))
  }

  @Test func `the page is one file, well-formed, with a plot and a table for what there is`() throws {
    let page = BenchPage(benchReport()).description
    for word in ["<script", "http://", "https://", "url(", "@import", "<link", "<img"] {
      #expect(!page.replacing("http://www.w3.org/2000/svg", with: "").contains(word), "\(word)")
    }
    #expect(page.contains("prefers-color-scheme: dark") && page.contains("a&lt;b&gt;.pcap") && !page.contains("a<b>"))
    #expect(page.contains("A &amp; B") && page.contains("sluice bench &#39;a&lt;b&gt;.pcap&#39;"))
    #expect(page.components(separatedBy: "<svg").count - 1 == 2, "rate and latency have figures, size has none")
    // What HTML writes without an end, and the names of its marks, are all that keeps it from being XML.
    let document = page.replacing("<!DOCTYPE html>\n", with: "").replacing("<meta charset=\"utf-8\">", with: "")
      .replacing("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">", with: "")
    let parser = XMLParser(data: Data(document.utf8))
    #expect(parser.parse(), "\(parser.parserError.map { "\($0)" } ?? "") line \(parser.lineNumber)")
  }

  @Test func `as JSON it reads back, and the README explains every key`() throws {
    var report = benchReport()
    report.findings = [.init(kind: .stopped, text: "why")]
    let text = BenchJSON.text(of: report, status: .accounted, isPretty: false)
    #expect(try JSONDecoder().decode(BenchmarkReport.self, from: Data(text.utf8)) == report)
    let json = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    #expect(json["status"] as? Int == 0)
    var keys: Set<String> = []
    func collect(_ value: Any, _ path: String) {
      if let object = value as? [String: Any] {
        for (key, inner) in object { collect(inner, path.isEmpty ? key : path.hasSuffix("figures") ? "\(path).{name}" : path.hasSuffix("dropped_by") ? "\(path).{reason}" : "\(path).\(key)") }
      } else if let list = value as? [Any], let first = list.first, first is [String: Any] {
        for item in list { collect(item, path + "[]") }
      } else if !path.isEmpty { keys.insert(path) }
    }
    collect(json, "")
    let readme = try String(contentsOf: packageRoot.appendingPathComponent("README.md"), encoding: .utf8)
    let section = try #require(readme.range(of: "\n## Benchmarks\n").map { readme[$0.upperBound...] })
    #expect(keys.count > 40)
    let missing = keys.filter { key in
      // A ratio's value has the keys of a figure.
      let name = key.replacing(".ratio.value.", with: ".figures.{name}.")
      return !section.contains("| `\(name)` |")
    }
    #expect(missing.sorted() == [])
  }
}

struct BenchProgramTests {
  private func sluice(_ arguments: String...) throws -> ProgramTests.Outcome { try ProgramTests().shell(#"exec "$0" "$@""#, arguments) }

  @Test func `the help has examples and statuses`() throws {
    let help = try sluice("bench", "--help")
    #expect(help.status == 0 && help.error.isEmpty)
    for word in ["sluice bench trace.pcap --html report.html", "130  stopped by SIGINT", "--keep-traces", "--only"] { #expect(help.output.contains(word), "\(word)") }
  }

  @Test func `the list names every section and measures nothing`() throws {
    let list = try sluice("bench", "--list")
    #expect(list.status == 0)
    for section in Section.allCases { #expect(list.output.contains("\n\(section.rawValue) ") || list.output.hasPrefix("\(section.rawValue) ")) }
    #expect(try sluice("bench", "--list", "--only", "ring").output.hasPrefix("ring      the cost of a frame"))
  }

  @Test func `a trace of the repository is measured, as text, as JSON and as a page`() throws {
    try withFolder { folder in
      let page = folder + "/page.html"
      let arguments = ["bench", trace("imix.pcap"), "--only", "rate,queues", "--duration", "10ms", "--rounds", "2", "--keep-noisy"]
      let outcome = try ProgramTests().shell(#"exec "$0" "$@""#, arguments + ["--html", page])
      #expect(outcome.status == 0 && outcome.output.contains("imix.pcap") && outcome.output.contains("is accounted for"))
      #expect(try String(contentsOfFile: page, encoding: .utf8).hasSuffix("</html>\n"))
      let json = try ProgramTests().shell(#"exec "$0" "$@""#, arguments + ["--json"]).object()
      #expect(json["schema"] as? Int == 1 && (json["sections"] as? [[String: Any]])?.count == 2)
      #expect(((json["settings"] as? [String: Any])?["command"] as? String)?.contains("bench") == true)
    }
  }

  @Test func `errors are those of a replay`() throws {
    for (arguments, status, kind) in [
      (["bench", "--only", "x"], 64, "usage"), (["bench", "/no/such.pcap", "--only", "rate"], 65, "unreadable"),
      (["bench", "/dev/null", "--only", "rate"], 65, "unreadable"),
    ] {
      let outcome = try ProgramTests().shell(#"exec "$0" "$@""#, arguments + ["--json"])
      #expect(Int(outcome.status) == status && outcome.error.contains("sluice: "))
      #expect((try outcome.object()["error"] as? [String: Any])?["kind"] as? String == kind)
    }
  }

  @Test func `what was measured is told where its page cannot be written`() throws {
    let outcome = try sluice("bench", "--only", "queues", "--duration", "3ms", "--rounds", "1", "--keep-noisy", "--json", "--html", "/dev/full")
    #expect(outcome.status == 71 && outcome.error.contains("sluice: --html /dev/full: No space left on device\n"))
    let json = try outcome.object()
    #expect(json["status"] as? Int == 71 && (json["sections"] as? [Any])?.count == 1)
  }

  @Test func `what does not go together is refused before anything is measured`() throws {
    let list = try sluice("bench", "--list", "--json")
    let error = try list.object()["error"] as? [String: Any]
    #expect(list.status == 64 && error?["kind"] as? String == "usage")
    let alone = try sluice("bench", "--cpus", "0")
    #expect(alone.status == 64 && alone.error.contains("--cpus 0: datapath and guests would wait for each other on it"))
  }

  /// As timeout(1) sends it: to the process, and at once to its group.
  @Test func `a signal that comes twice at once is one, and no trace is left behind`() throws {
    try withFolder { folder in
      let script = #"export TMPDIR="\#(folder)"; "$0" bench --only ring --duration 60s --json & pid=$!; sleep 3; kill -TERM $pid; kill -TERM $pid; wait $pid"#
      let outcome = try ProgramTests().shell(script)
      #expect(outcome.status == 143)
      #expect(try outcome.object()["interrupted"] as? Bool == true)
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == [])
    }
  }

  @Test func `SIGINT ends it with what was measured`() throws {
    let script = #""$0" bench --only ring --duration 60s --json & pid=$!; sleep 3; kill -INT $pid; wait $pid"#
    let outcome = try ProgramTests().shell("trap '' USR1; " + script)
    // A shell starts what runs beside it with SIGINT ignored; it is taken all the same, for the program waits for it.
    #expect(outcome.status == 130)
    #expect(try outcome.object()["interrupted"] as? Bool == true)
  }
}
