import Benchmark

// What a section's figures say, in a sentence: the title of its plot.

enum BenchWords {
  static func sentence(_ part: BenchmarkReport.Part) -> String {
    guard part.points.contains(where: { !$0.figures.isEmpty }) else {
      return "No figure: the machine was not quiet, or there was no time"
    }
    switch part.section {
    case .rate: return rate(part)
    case .size: return size(part)
    case .latency: return latency(part)
    case .buffers, .memory: return line(part, FigureName.host, "the host")
    default: return line(part, FigureName.datapath, "the datapath")
    }
  }

  /// Why no point of a section has a figure, in one sentence. Nil: one has.
  static func refusal(_ part: BenchmarkReport.Part) -> String? {
    let reasons = Set(part.points.map(\.refused))
    guard !part.points.isEmpty, !reasons.contains(nil) else { return nil }
    // Where the highest rate was none, no share of it was measured.
    if reasons.contains(BenchmarkReport.Measured.nothingCame) { return "\(plural(part.points.count, "point")): \(BenchmarkReport.Measured.nothingCame)" }
    let first = part.points[0].refused ?? ""
    return part.points.count == 1 || reasons.count == 1 ? "\(plural(part.points.count, "point")): \(first)" : "\(plural(part.points.count, "point")), none with a figure: the machine was not quiet"
  }

  /// What was dropped of points' frames, a sentence a reason.
  static func drops(_ points: [BenchmarkReport.Measured]) -> [String] {
    let counts = points.reduce(into: [:]) { $0.merge($1.dropped_by, uniquingKeysWith: +) }
    // The card's two ways to say the same.
    let late = (counts["no_buffers"] ?? 0) + (counts["missed"] ?? 0)
    let others = counts.filter { $0.key != "no_buffers" && $0.key != "missed" && $0.value > 0 }.sorted { $0.key < $1.key }
    return (late > 0 ? ["\(plural(late, "frame")) dropped: the guest had no buffer for them in time"] : [])
      + others.map { reason, count in "\(plural(count, "frame")) dropped, \(reason): \(ReasonText.dropped(reason) ?? "")" }
  }

  /// Medians of a figure, by series, in the order of the points.
  private static func medians(_ part: BenchmarkReport.Part, _ figure: String, series: String? = nil) -> [(label: String, value: Double)] {
    part.points.filter { series == nil || $0.series == series }.compactMap { point in
      point.figures[figure].map { (point.label, $0.median) }
    }
  }

  private static func range(_ values: [Double], _ text: (Double) -> String) -> String {
    guard let least = values.min(), let most = values.max() else { return "-" }
    return text(least) == text(most) ? text(most) : "\(text(least)) to \(text(most))"
  }

  private static func rate(_ part: BenchmarkReport.Part) -> String {
    let ratios = part.points.compactMap { $0.ratio?.value.median }
    let lent = range(medians(part, FigureName.frames, series: "lent").map { $0.value / 1e6 }, significant)
    var text = "Lent: \(lent) Mframes/s"
    let copied = medians(part, FigureName.frames, series: "copied").map { $0.value / 1e6 }
    if !copied.isEmpty { text += "; copied: \(range(copied, significant)) Mframes/s" }
    if !ratios.isEmpty { text += ", for \(range(ratios, significant)) times the datapath's cost" }
    return text
  }

  private static func size(_ part: BenchmarkReport.Part) -> String {
    ["lent", "copied"].compactMap { series -> String? in
      let points = medians(part, FigureName.datapath, series: series)
      guard let first = points.first, let last = points.last, points.count > 1 else { return nil }
      return "\(series == "lent" ? "Lent" : "copied"): \(significant(first.value)) ns at \(first.label), \(significant(last.value)) ns at \(last.label)"
    }.joined(separator: "; ")
  }

  private static func line(_ part: BenchmarkReport.Part, _ figure: String, _ who: String) -> String {
    let points = medians(part, figure)
    guard let first = points.first, let last = points.last, points.count > 1 else { return "One figure alone shows no course" }
    let quantity = part.section.quantity
    let ratio = last.value / first.value
    return "From \(first.label) to \(last.label) (\(quantity.name)) a frame costs \(who) \(significant(first.value)) to \(significant(last.value)) ns: \(significant(ratio)) times as much"
  }

  private static func latency(_ part: BenchmarkReport.Part) -> String {
    let points = part.points.filter { $0.figures["p50_ns"] != nil }
    let text = points.map { point -> String in
      let figures = point.figures
      let tail = figures["p999_ns"].map { ", 99.9 % within \(nanoseconds($0.median))" } ?? ""
      return "at \(point.label) of the highest rate half within \(nanoseconds(figures["p50_ns"]?.median ?? 0))\(tail)"
    }.joined(separator: "; ")
    return text.isEmpty ? "No latency: the machine was not quiet" : text.prefix(1).uppercased() + text.dropFirst()
  }

  /// What was replayed.
  static func files(_ report: BenchmarkReport) -> String {
    report.files.isEmpty ? "synthetic frames" : report.files.map(printable).joined(separator: ", ")
  }

  // MARK: The machine

  static func machine(_ report: BenchmarkReport) -> [(name: String, value: String)] {
    let (machine, used) = (report.machine, report.settings.processors)
    var rows: [(String, String)] = []
    let kind = machine.is_virtual == true ? ", in a virtual machine" : ""
    rows.append(("processor", "\(machine.processor ?? "not known"), \(plural(machine.processors, "processor"))\(kind)"))
    if !machine.caches.isEmpty { rows.append(("caches", machine.caches.joined(separator: ", "))) }
    if let memory = machine.memory_bytes { rows.append(("memory", bytes(memory))) }
    if let pages = machine.huge_pages { rows.append(("huge pages", pages)) }
    rows.append(("clock", machine.governor.map { "governor \($0)" } ?? "governor not known"))
    if let kernel = machine.kernel { rows.append(("kernel", kernel)) }
    rows.append(("sluice", "\(machine.sluice ?? "not known"), Swift \(machine.swift ?? "not known"), \(machine.optimised ? "release" : "debug: its figures say nothing")"))
    if used.count == 2 { rows.append(("used", "processor \(used[0]) for the datapath, \(used[1]) for the guests")) }
    return rows
  }

  static func quiet(_ quiet: BenchmarkReport.Quiet, _ settings: BenchmarkReport.Settings) -> [String] {
    var first = "\(plural(quiet.samples, "sample")), \(grouped(quiet.set_aside)) set aside"
    if quiet.moved + quiet.preempted > 0 {
      first += settings.keeps_noisy ? " (--keep-noisy)" : ""
      first += ": in \(grouped(quiet.moved)) the cores' distance changed, in \(grouped(quiet.preempted)) a thread waited for its processor"
    }
    var lines = [first]
    for distance in quiet.distances {
      let name = distance.name == "one" ? "cores" : "cores \(distance.name)"
      lines.append("\(name): a cache line there and back in \(fixed(distance.ping_ns, 0)) ns, \(plural(distance.samples, "sample"))")
    }
    if quiet.distances.isEmpty { lines.append("how far the cores are from each other is not known") }
    return lines
  }

  /// What a section sent, and how far apart the cores were.
  static func facts(_ part: BenchmarkReport.Part) -> String {
    [part.frames, distance(part)].filter { !$0.isEmpty }.joined(separator: "; ")
  }
  private static func distance(_ part: BenchmarkReport.Part) -> String {
    guard let distance = part.distance else { return "" }
    let ping = part.ping_ns.map { ", ping \(fixed($0, 0)) ns" } ?? ""
    return (distance == "one" ? "cores at one distance" : "cores \(distance)") + ping
  }

  static func verdict(_ report: BenchmarkReport) -> String {
    if let first = report.findings.first { return "Not well: \(first.text)." }
    let refused = report.sections.reduce(0) { $0 + $1.points.count { $0.refused != nil } }
    let nothingCame = report.sections.contains { $0.points.contains { $0.refused == BenchmarkReport.Measured.nothingCame } }
    let reason = (nothingCame ? "\(BenchmarkReport.Measured.nothingCame), or " : "") + "the machine was not quiet"
    var text = report.interrupted ? "Interrupted; until then every frame" : "All is well: every frame"
    text += " of \(plural(report.quiet.samples, "replay")) is accounted for"
    if refused > 0 { text += report.interrupted ? ", and \(plural(refused, "point")) have no figure" : ", but \(plural(refused, "point")) \(refused == 1 ? "has" : "have") no figure: \(reason)" }
    return text + "."
  }
}
