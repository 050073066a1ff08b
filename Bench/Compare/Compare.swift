// This tree and an earlier commit of it, in turns on one machine: see `Bench/compare`.
import ArgumentParser
import BenchSupport
import Benchmark
import Foundation

@main
struct Compare: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "compare", abstract: "Measure this tree beside another commit of it, in turns.",
    discussion: """
      Examples:
        Bench/compare
        Bench/compare HEAD~3 --rounds 21

      For each trace both programs replay it for a moment, one after the other, round after round: a ratio is of two
      runs next to each other, and the median of all rounds is printed with the quartiles. Instructions are counted by
      callgrind, where there is one, and do not depend on the machine's mood.
      """)

  @Option(help: "The tree to compare with, built.") var before: String
  @Option(help: "What it is called.") var name = "before"
  @Option(help: "Rounds.") var rounds = 11
  @Option(help: "Milliseconds of one run.") var window = 400
  @Option(help: "Traces to replay; may be repeated. (default: flood64, imix)") var trace: [String] = []
  @Flag(help: "Print JSON.") var json = false

  private static let program = ".build/release/sluice"

  func validate() throws {
    guard rounds > 0, window >= 50 else { throw ValidationError("--rounds is 1 or more, --window 50 or more") }
  }

  func run() throws {
    var figures: [Figure] = []
    for path in trace.isEmpty ? ["Traces/flood64.pcap", "Traces/imix.pcap"] : trace {
      for mode in ["auto", "copy"] { figures += try replay(path, mode: mode) }
    }
    figures += try instructions()
    if json {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
      print(String(decoding: try encoder.encode(figures), as: UTF8.self))
    } else {
      print("\(rightPadded("", to: 46))\(leftPadded(name, to: 12))\(leftPadded("here", to: 12))   here : \(name), quartiles")
      for figure in figures { print(figure.text) }
    }
  }

  /// Times of both, a ratio a round.
  private func replay(_ path: String, mode: String) throws -> [Figure] {
    guard FileManager.default.fileExists(atPath: path) else { throw ValidationError("--trace \(path): there is no such file") }
    var pairs: [(before: Cost, here: Cost)] = []
    for round in 0..<rounds {
      // Who is first changes: what a run leaves behind is then nobody's advantage.
      if round % 2 == 0 {
        let first = try cost(before, path, mode)
        pairs.append((first, try cost(".", path, mode)))
      } else {
        let first = try cost(".", path, mode)
        pairs.append((try cost(before, path, mode), first))
      }
    }
    let what = "\((path as NSString).lastPathComponent), \(mode == "auto" ? "lent" : "copied")"
    return [
      Figure("\(what): datapath", "ns a frame", pairs.map { ($0.before.datapath_ns_per_frame, $0.here.datapath_ns_per_frame) }),
      Figure("\(what): card's model", "ns a frame", pairs.map { ($0.before.model_ns_per_frame, $0.here.model_ns_per_frame) }),
    ]
  }

  private struct Cost: Decodable {
    let datapath_ns_per_frame: Double
    let model_ns_per_frame: Double
  }
  private func cost(_ tree: String, _ path: String, _ mode: String) throws -> Cost {
    struct Report: Decodable { let cost: Cost }
    let words = ["\(tree)/\(Self.program)", "replay", path, "--mode", mode, "--duration", "\(window)ms", "--no-verify", "--preload", "--json"]
    let (status, output) = try Program.run(words)
    guard status == 0 else { throw ValidationError("\(words.joined(separator: " ")) ended with status \(status): \(output)") }
    return try JSONDecoder().decode(Report.self, from: Data(output.utf8)).cost
  }

  /// Inside `turnPath`, as the gate counts them.
  private func instructions() throws -> [Figure] {
    let cases = [("lent, split", ["60", "64000"]), ("lent, packed", ["60", "64000", "--packed"]), ("copied, split", ["60", "64000", "--copy"])]
    guard (try? Program.run(["valgrind", "--version"]).status) == 0 else {
      FileHandle.standardError.write(Data("instructions are not counted: there is no valgrind\n".utf8))
      return []
    }
    return try cases.map { what, arguments in
      Figure("instructions: \(what)", "a frame", [(try count(before, arguments), try count(".", arguments))])
    }
  }
  private func count(_ tree: String, _ arguments: [String]) throws -> Double {
    let copy = FileManager.default.temporaryDirectory.path + "/compare-\(getpid())"
    defer { try? FileManager.default.removeItem(atPath: copy) }
    // Valgrind cannot read this compiler's debug information.
    _ = try Program.run(["strip", "-g", "-o", copy, "\(tree)/.build/release/ReceiveCost"])
    let (status, output) = try Program.run(
      ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no", "--toggle-collect=*turnPath*", copy] + arguments)
    let line = output.split(separator: "\n").first { $0.contains("Collected") }
    guard status == 0, let text = line?.split(separator: " ").last, let total = Double(text) else {
      throw ValidationError("callgrind of \(tree) \(arguments.joined(separator: " ")) ended with status \(status): \(output.suffix(300))")
    }
    return total / 64_000
  }
}

/// One thing that was measured of both.
struct Figure: Encodable {
  let what: String
  let unit: String
  let before: Double
  let here: Double
  /// Of here and before, round by round: lower quartile, median, upper quartile.
  let ratios: [Double]

  init(_ what: String, _ unit: String, _ pairs: [(Double, Double)]) {
    (self.what, self.unit) = (what, unit)
    func quantile(_ share: Double, _ values: [Double]) -> Double { Statistics.quantile(share, ofSorted: values.sorted()) }
    before = quantile(0.5, pairs.map(\.0))
    here = quantile(0.5, pairs.map(\.1))
    let all = pairs.map { $0.1 / $0.0 }
    ratios = [0.25, 0.5, 0.75].map { quantile($0, all) }
  }

  var text: String {
    func fixed(_ value: Double) -> String { String(format: value < 100 ? "%.2f" : "%.1f", value) }
    let (low, median, high) = (ratios[0], ratios[1], ratios[2])
    let verdict = low > 1.02 ? "   slower" : high < 0.98 ? "   faster" : ""
    return rightPadded("\(what), \(unit)", to: 46) + leftPadded(fixed(before), to: 12) + leftPadded(fixed(here), to: 12)
      + "   " + String(format: "%.3f  (%.3f … %.3f)", median, low, high) + verdict
  }
}
