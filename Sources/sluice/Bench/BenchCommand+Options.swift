import Benchmark

/// From what was typed to `BenchmarkOptions`: each refusal names its option, and what would be right.
extension BenchCommand {
  func options() throws(Failure) -> BenchmarkOptions {
    var options = BenchmarkOptions()
    if let pipe = files.first(where: { $0 == "-" }) {
      throw .usage("file", pipe, "standard input can be read only once, and a benchmark replays its traces many times; give a file")
    }
    options.files = files
    if let only { options.sections = try Self.sections(only) }
    if quick { (options.secondsPerPoint, options.rounds) = (0.15, 3) }
    if let duration {
      guard let seconds = Quantity.seconds(duration), (0.001...3600).contains(seconds) else {
        throw .usage("--duration", duration, "must be a time from 1ms to 1h; write it like 500ms or 5s")
      }
      options.secondsPerPoint = seconds
    }
    if let rounds { options.rounds = try Quantity.count("--rounds", rounds, in: 1...1000) }
    options.mtu = try Quantity.count("--mtu", mtu, in: 68...9710)
    if let cpus { options.processors = try ProcessorsOption.parse(cpus) }
    options.keepsNoisy = keepNoisy
    options.traceFolder = keepTraces
    if keepTraces == "" { throw .usage("--keep-traces", "", "give the name of a folder") }
    if html == "-" { throw .usage("--html", "-", "standard output has the report for a terminal, or --json; give the name of a file") }
    if let html { try OutputFiles.check(inputs: files, outputs: [(option: "--html", value: html, path: html)]) }
    return options
  }

  /// In the order in which they are measured, whatever the order in which they were typed.
  private static func sections(_ text: String) throws(Failure) -> [Section] {
    var chosen: Set<Section> = []
    for name in text.split(separator: ",", omittingEmptySubsequences: false) {
      guard let section = Section(rawValue: String(name)) else {
        throw .usage(
          "--only", text, "no section \"\(name)\"; there are \(Section.allCases.map(\.rawValue).joined(separator: ", ")), and --list says what they are")
      }
      chosen.insert(section)
    }
    return Section.allCases.filter(chosen.contains)
  }
}
