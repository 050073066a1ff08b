import Benchmark

/// What would be measured: `sluice bench --list`.
struct BenchList: CustomStringConvertible {
  private let plan: Plan
  private let options: BenchmarkOptions
  init(_ plan: Plan, _ options: BenchmarkOptions) { (self.plan, self.options) = (plan, options) }

  var description: String {
    var lines: [String] = []
    for part in plan.parts {
      var labels: [String] = []
      for point in part.points where !labels.contains(point.label) { labels.append(point.label) }
      lines += hung(part.section.rawValue, part.section.question)
      lines += hung("", "\(part.frames): \(labels.joined(separator: ", "))")
    }
    let seconds = Double(plan.pointCount) * options.secondsPerPoint
    lines += ["", "\(plural(plan.pointCount, "point")), \(plural(options.rounds, "sample")) each, \(nanoseconds(seconds * 1e9)) of replays; with what is around them about a half more."]
    return lines.joined(separator: "\n") + "\n"
  }

  private func hung(_ name: String, _ text: String) -> [String] {
    wrapped(printable(text), width: TextReport.width - 10).enumerated().map { rightPadded($0.offset == 0 ? name : "", to: 10) + $0.element }
  }
}
