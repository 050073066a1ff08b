import Benchmark

/// A benchmark's report for a person: 80 columns, a table a section.
struct BenchText: CustomStringConvertible {
  static let width = TextReport.width
  private let report: BenchmarkReport
  private let style: Style

  init(_ report: BenchmarkReport, colours: Bool) {
    self.report = report
    style = Style(isOn: colours)
  }

  var description: String {
    joined([title, machine, quiet] + report.sections.map(section) + [closing])
  }

  private var title: [String] {
    let sample = nanoseconds(report.settings.seconds_per_sample * 1e9)
    return wrapped("Measured with \(BenchWords.files(report)): \(plural(report.settings.rounds, "sample")) of \(sample) a point, in \(clock(report.elapsed_s)).", width: Self.width)
      .map(style.bold)
  }

  private var machine: [String] {
    [style.bold("Machine")] + BenchWords.machine(report).flatMap { row($0.name, $0.value) }
  }

  private func row(_ name: String, _ text: String) -> [String] {
    wrapped(printable(text), width: Self.width - 14).enumerated().map { "  " + rightPadded($0.offset == 0 ? name : "", to: 12) + $0.element }
  }

  private var quiet: [String] {
    [style.bold("Quiet")] + BenchWords.quiet(report.quiet, report.settings).flatMap { wrapped($0, width: Self.width - 2).map { "  " + $0 } }
  }

  private var closing: [String] {
    let isWell = report.findings.isEmpty && !report.interrupted && report.sections.allSatisfy { $0.points.allSatisfy { $0.refused == nil } }
    return wrapped(printable(BenchWords.verdict(report)), width: Self.width).map {
      isWell ? style.good($0) : report.findings.isEmpty ? style.odd($0) : style.bad($0)
    }
  }

  // MARK: A section

  private func section(_ part: BenchmarkReport.Part) -> [String] {
    let facts = BenchWords.facts(part)
    var lines = [style.bold(part.section.title) + style.faint(": " + printable(facts))]
    if facts.count + part.section.title.count + 2 > Self.width {
      lines = [style.bold(part.section.title)] + wrapped(printable(facts), width: Self.width - 2).map { "  " + style.faint($0) }
    }
    if let refused = BenchWords.refusal(part) { return lines + wrapped(refused, width: Self.width - 2).map { "  " + style.odd($0) } + drops(part.points) }
    lines.append(style.faint(BenchTable.header(part)))
    for point in part.points {
      let name = BenchTable.name(of: point, in: part)
      if let refused = point.refused {
        lines += wrapped("\(name): \(refused)", width: Self.width - 2).map { "  " + style.odd($0) }
      } else {
        lines.append(BenchTable.line(point, in: part))
      }
      lines += drops([point])
    }
    return lines + wrapped(BenchWords.sentence(part) + ".", width: Self.width - 2).map { "  " + $0 }
  }

  private func drops(_ points: [BenchmarkReport.Measured]) -> [String] {
    BenchWords.drops(points).flatMap { wrapped($0, width: Self.width - 4).map { "    " + style.odd($0) } }
  }
}

/// A section's table: columns with their units, for text and for the page.
enum BenchTable {
  struct Column: Sendable {
    let title: String
    let width: Int
    let cell: @Sendable (BenchmarkReport.Measured) -> String
  }

  static func columns(_ part: BenchmarkReport.Part) -> [Column] { part.section == .latency ? latency : cost }

  private static func median(_ name: String, _ text: @escaping @Sendable (Double) -> String) -> @Sendable (BenchmarkReport.Measured) -> String {
    { point in point.figures[name].map { text($0.median) } ?? "-" }
  }

  private static let cost = [
    Column(title: "Mframes/s", width: 10, cell: median(FigureName.frames) { significant($0 / 1e6) }),
    Column(title: "Gbit/s", width: 8, cell: median(FigureName.bits) { significant($0 / 1e9) }),
    Column(title: "path ns", width: 9, cell: median(FigureName.datapath) { fixed($0, 1) }),
    Column(title: "low-high", width: 14) { point in
      point.figures[FigureName.datapath].map { "\(fixed($0.lowest, 1))-\(fixed($0.highest, 1))" } ?? "-"
    },
    Column(title: "model ns", width: 9, cell: median(FigureName.model) { fixed($0, 1) }),
    Column(title: "ratio", width: 7) { point in point.ratio.map { significant($0.value.median) } ?? "" },
    Column(title: "n", width: 3) { point in point.figures[FigureName.frames].map { "\($0.samples)" } ?? "" },
  ]

  private static let latency =
    [Column(title: "Mframes/s", width: 10, cell: median(FigureName.frames) { significant($0 / 1e6) })]
    + zip(FigureName.latencies, ["p50", "p90", "p99", "p99.9", "p99.99", "max"]).map { name, title in
      Column(title: title, width: 9, cell: median(name) { nanoseconds($0) })
    } + [Column(title: "n", width: 3) { point in point.figures[FigureName.frames].map { "\($0.samples)" } ?? "" }]

  /// With its series where labels repeat.
  static func name(of point: BenchmarkReport.Measured, in part: BenchmarkReport.Part) -> String {
    let repeats = part.points.count { $0.label == point.label } > 1
    return printable(repeats ? "\(point.label) \(point.series)" : point.label)
  }

  private static func firstWidth(_ part: BenchmarkReport.Part) -> Int {
    TextReport.width - 2 - columns(part).reduce(0) { $0 + $1.width }
  }
  /// Over the names of points, which are labels.
  static func firstTitle(_ part: BenchmarkReport.Part) -> String {
    part.section == .latency ? "rate" : part.section == .buffers ? "ring x bytes" : part.section.quantity.name
  }
  static func header(_ part: BenchmarkReport.Part) -> String {
    "  " + rightPadded(firstTitle(part), to: firstWidth(part))
      + columns(part).map { leftPadded($0.title, to: $0.width) }.joined()
  }
  static func line(_ point: BenchmarkReport.Measured, in part: BenchmarkReport.Part) -> String {
    let (name, room) = (name(of: point, in: part), firstWidth(part))
    let first = name.count >= room ? name.prefix(room - 2) + "…" : name[...]
    return "  " + rightPadded(String(first), to: room) + columns(part).map { leftPadded($0.cell(point), to: $0.width) }.joined()
  }
}
