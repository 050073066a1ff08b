import Benchmark

/// A benchmark's report as JSON: `BenchmarkReport` with its keys, and the exit status.
struct BenchJSON: Encodable {
  let report: BenchmarkReport
  let status: ExitStatus
  private enum Key: String, CodingKey { case status }

  static func text(of report: BenchmarkReport, status: ExitStatus, isPretty: Bool) -> String {
    JSONReport.encode(BenchJSON(report: report, status: status), isPretty: isPretty)
  }

  func encode(to encoder: any Encoder) throws {
    try report.encode(to: encoder)
    var keys = encoder.container(keyedBy: Key.self)
    try keys.encode(status.rawValue, forKey: .status)
  }
}
