import Benchmark

/// A benchmark's report as one page: plots in plain SVG, a table beside each, nothing to be fetched, and no script.
struct BenchPage: CustomStringConvertible {
  private let report: BenchmarkReport
  init(_ report: BenchmarkReport) { self.report = report }

  /// Grounds and inks of both colour schemes. Series differ in lightness too, in this order, on either ground.
  private static let style = """
    :root { color-scheme: light dark; --ground: #fff; --ink: #1b1f24; --faint: #57606a; --rule: #d0d7de; --grid: #e6eaee; --band: #f4f6f8;
      --s0: #0b3a66; --s1: #c4560a; --s2: #3aa08c; --s3: #7a4fc0; --s4: #8a8f98; --bad: #b42318; }
    @media (prefers-color-scheme: dark) {
      :root { --ground: #14171b; --ink: #e6e9ed; --faint: #a3abb5; --rule: #3d444d; --grid: #2a3038; --band: #1c2026;
        --s0: #a5d0ff; --s1: #f08c3a; --s2: #2f9482; --s3: #c4a8f5; --s4: #858d97; --bad: #ff8b7e; }
    }
    * { box-sizing: border-box; }
    body { margin: 0 auto; max-width: 1400px; padding: 24px; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
    h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 20px; margin: 40px 0 0; } p { margin: 4px 0; max-width: 80ch; }
    .faint { color: var(--faint); } .bad { color: var(--bad); }
    .pair { display: grid; grid-template-columns: minmax(0, 1fr); gap: 8px 28px; align-items: start; margin-top: 12px; }
    @media (min-width: 1150px) { .pair { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); } }
    figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: 6px; max-width: 75ch; }
    .scroll { overflow-x: auto; }
    table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; width: 100%; }
    th, td { padding: 3px 8px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
    th:first-child, td:first-child { text-align: left; } thead th { color: var(--faint); font-weight: 600; border-bottom: 1px solid var(--rule); }
    td.refused { white-space: normal; text-align: left; color: var(--bad); }
    table.facts { width: auto; } table.facts td { text-align: left; white-space: normal; } table.facts th { color: var(--faint); font-weight: 400; }
    details { margin-top: 8px; } summary { cursor: pointer; color: var(--faint); }
    pre { background: var(--band); padding: 8px 10px; overflow-x: auto; font: 12px/1.5 ui-monospace, monospace; margin: 6px 0; }
    svg.plot { width: 100%; height: auto; display: block; font: 12px system-ui, sans-serif; }
    .plot text { fill: var(--faint); } .plot .name, .plot .entry { fill: var(--ink); }
    .plot .grid { stroke: var(--grid); } .plot .axis, .plot .tickmark { stroke: var(--rule); }
    .plot .line { fill: none; stroke: var(--colour); stroke-width: 2; } .plot .spread { fill: none; stroke: var(--colour); stroke-width: 1.4; }
    .plot circle, .plot rect, .plot .point path, .plot .legend g path { fill: var(--colour); stroke: var(--ground); stroke-width: 1; }
    .plot .point path.open, .plot .legend g path.open { fill: none; stroke: var(--colour); stroke-width: 2; }
    .s0 { --colour: var(--s0); } .s1 { --colour: var(--s1); } .s2 { --colour: var(--s2); } .s3 { --colour: var(--s3); } .s4 { --colour: var(--s4); }
    """

  var description: String {
    let files = SVG.escaped(BenchWords.files(report))
    var lines = [
      "<!DOCTYPE html>", #"<html lang="en">"#, "<head>", #"<meta charset="utf-8">"#,
      #"<meta name="viewport" content="width=device-width, initial-scale=1">"#, "<title>Sluice: measured with \(files)</title>",
      "<style>\n\(Self.style)\n</style>", "</head>", "<body>", "<h1>Sluice, measured with \(files)</h1>",
      #"<p class="\#(report.findings.isEmpty ? "faint" : "bad")">\#(Self.text(BenchWords.verdict(report)))</p>"#,
    ]
    lines += machine + report.sections.flatMap(section) + reading
    return (lines + ["</body>", "</html>"]).joined(separator: "\n") + "\n"
  }

  static func text(_ text: String) -> String { SVG.escaped(printable(text)) }

  private var machine: [String] {
    var rows = BenchWords.machine(report)
    let sample = nanoseconds(report.settings.seconds_per_sample * 1e9)
    rows.append(("samples", "\(report.settings.rounds) of \(sample) a point, points in turn; \(clock(report.elapsed_s)) in all"))
    for (index, line) in BenchWords.quiet(report.quiet, report.settings).enumerated() { rows.append((index == 0 ? "quiet" : "", line)) }
    return [#"<table class="facts">"#] + rows.map { "<tr><th>\(Self.text($0.name))</th><td>\(Self.text($0.value))</td></tr>" }
      + ["</table>", "<p>To measure it again:</p>", "<pre>\(Self.text(report.settings.command))</pre>"]
  }

  private func section(_ part: BenchmarkReport.Part) -> [String] {
    let facts = BenchWords.facts(part)
    var lines = [
      #"<h2 id="\#(part.section.rawValue)">\#(Self.text(part.section.title))</h2>"#,
      #"<p class="faint">\#(Self.text(part.section.question.prefix(1).uppercased() + part.section.question.dropFirst())). Sent: \#(Self.text(facts)).</p>"#,
      #"<div class="pair">"#, "<figure>", "<figcaption>\(Self.text(BenchWords.sentence(part)))</figcaption>",
    ]
    if let plot = BenchPlots.plot(of: part) { lines.append(SVG(plot).description) }
    lines += ["</figure>", #"<div class="scroll">"#] + table(part) + ["</div>", "</div>"]
    let commands = part.points.map { Self.text($0.replay) }.joined(separator: "\n")
    return lines + ["<details><summary>Each point by itself</summary>", "<pre>\(commands)</pre>", "</details>"]
  }

  private func table(_ part: BenchmarkReport.Part) -> [String] {
    let columns = BenchTable.columns(part)
    var lines = ["<table>", "<thead><tr><th>\(Self.text(BenchTable.firstTitle(part)))</th>" + columns.map { "<th>\($0.title)</th>" }.joined() + "</tr></thead>", "<tbody>"]
    for point in part.points {
      let name = Self.text(BenchTable.name(of: point, in: part))
      if let refused = point.refused {
        lines.append(#"<tr><td>\#(name)</td><td class="refused" colspan="\#(columns.count)">\#(Self.text(refused))</td></tr>"#)
      } else {
        lines.append("<tr><td>\(name)</td>" + columns.map { "<td>\(Self.text($0.cell(point)))</td>" }.joined() + "</tr>")
      }
    }
    return lines + ["</tbody>", "</table>"]
  }

  private var reading: [String] {
    [
      "<h2>How to read it</h2>",
      "<p>Each figure is the median of n samples; bars go from the lowest to the highest. <b>path ns</b> is what the datapath's thread spends on a frame: take, resolve, post, reap, header, publish. <b>model ns</b> is what the model of the card spends, its DMA with it: hardware would do that beside the processor. <b>ratio</b> is the cost against the first point of the line, or of a copied frame against the same one lent, from samples of one round.</p>",
      "<p>Latency counts from the moment at which a frame was due, not from when it reached the card: a wire that came late is in it.</p>",
      "<p>Synthetic traces that the commands name are left in a folder by <code>--keep-traces FOLDER</code>.</p>",
    ]
  }
}
