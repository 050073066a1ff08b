import Replay

/// The report for a person: 80 columns, sections that are there only when they have something to say, and a last line
/// that says in one sentence whether all is well.
struct TextReport: CustomStringConvertible {
  static let width = 80
  /// Seconds below which caches and branch predictors are still learning.
  static let shortest = 0.05
  let report: ReplayReport
  let status: ExitStatus
  private let style: Style

  init(_ report: ReplayReport, status: ExitStatus, colours: Bool) {
    (self.report, self.status) = (report, status)
    style = Style(isOn: colours)
  }

  var description: String {
    var sections = [title, frames, guests, rules]
    sections.append(reasons("Bounced, because", report.bounced_by, ReasonText.bounced))
    sections.append(reasons("Dropped, because", report.dropped_by, ReasonText.dropped))
    sections += [oddities, sums, checks, speed, closing]
    return joined(sections)
  }

  // MARK: What was replayed

  private var title: [String] {
    let files = report.files.map { printable($0 == "-" ? "standard input" : $0) }.joined(separator: ", ")
    var text = "Replayed \(files)"
    if report.loops != 1 { text += report.loops == 0 ? ", not to its end" : ", \(grouped(report.loops)) times" }
    text += report.pacing.asked == "top" ? ", at top speed" : ", at \(report.pacing.asked)"
    if report.deterministic { text += ", deterministic, seed \(report.seed)" }
    if report.mode != "auto" { text += ", --mode \(report.mode)" }
    return wrapped(text + ".", width: Self.width).map(style.bold)
  }

  private var frames: [String] {
    let frames = report.frames
    let countWidth = max(13, grouped(frames.read).count, grouped(frames.delivered).count)
    func row(_ label: String, _ count: UInt64, _ rest: String = "", paint: (String) -> String = { $0 }) -> String {
      let line = "  " + rightPadded(label, to: 26) + paint(leftPadded(grouped(count), to: countWidth))
      return rest.isEmpty ? line : line + "   " + rest
    }
    var lines = [style.bold("Frames"), row("read from the trace", frames.read)]
    if frames.skipped > 0 {
      lines.append(row("left out", frames.skipped, "end not captured; --allow-truncated", paint: style.odd))
    }
    lines.append(row("received by the card", frames.received, bytes(report.bytes.received)))
    if frames.replicated > 0 {
      lines.append(row("copied by the card", frames.replicated, "multicast, for several VMs"))
    }
    lines.append(row("delivered to guests", frames.delivered, bytes(report.bytes.delivered)))
    lines.append(row("  lent: never copied", frames.lent, share(frames.lent)))
    lines.append(
      row("  bounced: copied once", frames.bounced, frames.bounced > 0 ? "\(share(frames.bounced))   \(bytes(report.bytes.copied)) copied" : "", paint: frames.bounced > 0 ? style.odd : { $0 }))
    if let host = report.host { lines.append(row("given to the host", host.frames, bytes(host.bytes))) }
    lines.append(row("dropped", frames.dropped, paint: frames.dropped > 0 ? style.odd : { $0 }))
    return lines
  }

  /// Of what was delivered; never "100 %" for less than all.
  private func share(_ count: UInt64) -> String {
    guard report.frames.delivered > 0, count > 0 else { return "" }
    if count == report.frames.delivered { return "100 %" }
    let percent = Double(count) / Double(report.frames.delivered) * 100
    return percent < 0.01 ? "< 0.01 %" : percent > 99.99 ? "> 99.99 %" : fixed(percent, 2) + " %"
  }

  // MARK: Guests

  private var names: [String] {
    let known = Set(report.vm_order)
    return report.vm_order + report.vms.keys.filter { !known.contains($0) }.sorted()
  }

  private var guests: [String] {
    guard !report.vms.isEmpty else { return [] }
    let nameWidth = min(32, max(12, names.map(\.count).max() ?? 0))
    let header = ["delivered", "lent", "bounced", "dropped"]
    let rows = names.compactMap { name in
      report.vms[name].map { vm in (name, vm, [vm.delivered, vm.lent, vm.bounced, vm.dropped].map { grouped($0) }) }
    }
    let widths = header.indices.map { column in
      max(13, header[column].count, rows.map { $0.2[column].count }.max() ?? 0)
    }
    func line(_ first: String, _ cells: [String]) -> String {
      "  " + rightPadded(first, to: nameWidth) + zip(cells, widths).map { "  " + leftPadded($0, to: $1) }.joined()
    }
    var lines = [style.bold("Guests") + String(line("", header).dropFirst(6))]
    for (name, vm, cells) in rows {
      lines.append(line(name, cells))
      lines += about(vm).flatMap { wrapped($0, width: Self.width - 4) }.map { "    " + style.faint($0) }
      if let stopped = vm.stopped {
        lines += wrapped("stopped: \(printable(stopped))", width: Self.width - 4).map { "    " + style.bad($0) }
        // Where zero copy was required, the text ends with the reason why it cannot be.
        if let reason = stopped.split(separator: " ").last.flatMap({ ReasonText.bounced(String($0)) }) {
          lines += wrapped(reason, width: Self.width - 4).map { "    " + style.faint($0) }
        }
      }
      for violation in vm.violations.prefix(3) {
        lines += wrapped("its driver objects: \(printable(violation))", width: Self.width - 4).map { "    " + style.bad($0) }
      }
    }
    return lines
  }

  /// What the card has counted by rule.
  private var rules: [String] {
    guard report.rules.contains(where: { $0.id != 0 }) else { return [] }
    return [style.bold("Rules        frames        bytes")]
      + report.rules.flatMap { rule in
        let counts = leftPadded(rule.frames.map { grouped($0) } ?? "-", to: 19) + leftPadded(rule.bytes.map { bytes($0) } ?? "-", to: 13)
        return wrapped(printable(rule.text), width: Self.width - 34).enumerated().map {
          ($0.offset == 0 ? counts : String(repeating: " ", count: 32)) + "  " + (rule.id == 0 ? style.faint($0.element) : $0.element)
        }
      }
  }

  private func about(_ vm: ReplayReport.VM) -> [String] {
    let steering = vm.steering.isEmpty ? "" : "gets \(vm.steering)"
    let facts = "\(vm.buffers) buffers; \(plural(vm.queues, "queue")); \(bytes(vm.bytes))"
    let fits = steering.count + facts.count + 2 <= Self.width - 4
    var lines = (fits ? ["\(steering); \(facts)"] : [steering, facts]).filter { !$0.isEmpty }
    if report.vms.count > 1 {
      for (verb, reasons) in [("bounced", vm.bounced_by), ("dropped", vm.dropped_by)] where !reasons.isEmpty {
        lines.append("\(verb): " + Self.ordered(reasons).map { "\($0.key) \(grouped($0.value))" }.joined(separator: ", "))
      }
    }
    if let hash = vm.sha256 { lines.append("sha256 \(hash)") }
    return lines
  }

  // MARK: Reasons

  /// The most frequent first.
  private static func ordered(_ counts: [String: UInt64]) -> [(key: String, value: UInt64)] {
    counts.filter { $0.value > 0 }.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
  }

  private func reasons(_ title: String, _ counts: [String: UInt64], _ meaning: (String) -> String?) -> [String] {
    let counts = Self.ordered(counts)
    guard !counts.isEmpty else { return [] }
    var lines = [style.bold(title)]
    for (name, count) in counts {
      lines.append("  " + style.odd(leftPadded(grouped(count), to: 13)) + "  " + name)
      if let text = meaning(name) {
        lines += wrapped(text, width: Self.width - 17).map { String(repeating: " ", count: 17) + style.faint($0) }
      }
    }
    return lines
  }

  private var oddities: [String] {
    var lines = Self.ordered(report.warnings).map { "  " + leftPadded(grouped($0.value), to: 13) + "  " + $0.key }
    if let error = report.trace_error {
      lines += wrapped(printable(error), width: Self.width - 4).enumerated().map {
        ($0.offset == 0 ? "  \(style.mark(false)) " : "    ") + style.bad($0.element)
      }
    }
    return lines.isEmpty ? [] : [style.bold("Odd about the trace")] + lines
  }

  // MARK: Checks

  private var sums: [String] {
    guard !report.conservation.isEmpty else { return [] }
    let width = report.conservation.map { grouped($0.left).count }.max() ?? 0
    return [style.bold("Sums")]
      + report.conservation.map { law in
        let equation = "\(leftPadded(grouped(law.left), to: width)) \(law.holds ? "=" : "≠") \(grouped(law.right))"
        let name = rightPadded(law.name, to: Self.width - 4 - 2 - width * 2 - 3)
        return "  \(style.mark(law.holds)) \(name)  \(law.holds ? equation : style.bad(equation))"
      }
  }

  private var checks: [String] {
    var lines = [style.bold("Checks")]
    switch report.verified {
    case true?: lines.append("  \(style.mark(true)) each guest found in its memory exactly the trace's frames (SHA-256)")
    case false?:
      for text in report.verification_errors.isEmpty ? ["what the guests got is not what the trace has"] : report.verification_errors {
        lines += marked(text)
      }
    case nil: lines.append("  \(style.faint("-")) what arrived was not compared with the trace; --verify does")
    }
    let maps = plural(report.iommu.maps, "map")
    if report.iommu.faults == 0 {
      lines.append("  \(style.mark(true)) IOMMU: \(maps), no fault")
    } else {
      lines.append("  \(style.mark(false)) IOMMU: \(maps), \(style.bad(plural(report.iommu.faults, "fault")))")
      for fault in report.iommu.first { lines += wrapped(printable(fault), width: Self.width - 6).map { "      " + $0 } }
      if report.iommu.faults > UInt64(report.iommu.first.count), !report.iommu.first.isEmpty { lines.append("      ...") }
    }
    return lines
  }

  private func marked(_ text: String) -> [String] {
    wrapped(printable(text), width: Self.width - 4).enumerated().map {
      ($0.offset == 0 ? "  \(style.mark(false)) " : "    ") + style.bad($0.element)
    }
  }

  // MARK: Speed

  private var speed: [String] {
    func row(_ label: String, _ text: String) -> String { "  " + rightPadded(label, to: 12) + text }
    func cost(_ label: String, _ nanoseconds: Double, _ what: String) -> String {
      row(label, leftPadded(fixed(nanoseconds, 1), to: 7) + " ns a frame   " + style.faint(what))
    }
    let time = nanoseconds(report.elapsed_s * 1e9)
    // Its moves take what they are said to take.
    if report.deterministic { return [style.bold("Speed"), row("none", "\(time) of simulated time, which say nothing of speed")] }
    var lines = [
      style.bold("Speed"),
      row("rate", "\(frameRate(report.rate.frames_per_second)), \(bitRate(report.rate.bits_per_second)), for \(time)"),
    ]
    let costs = report.cost
    if costs.datapath_ns_per_frame + costs.model_ns_per_frame + costs.source_ns_per_frame > 0 {
      lines.append(cost("datapath", costs.datapath_ns_per_frame, "take, resolve, post, reap, header, publish"))
      lines.append(cost("NIC model", costs.model_ns_per_frame, "what hardware would do"))
      if costs.source_ns_per_frame > 0 { lines.append(cost("trace", costs.source_ns_per_frame, "reading it, comparing")) }
    }
    let latency = report.latency_ns
    if latency.max > 0 {
      let points = [("p50", latency.p50), ("p99", latency.p99), ("p99.9", latency.p999), ("max", latency.max)]
      lines.append(row("latency", points.map { "\($0) \(nanoseconds(Double($1)))" }.joined(separator: "   ")))
    }
    if let due = report.due_latency_ns, due.max > 0 {
      let points = [("p50", due.p50), ("p99", due.p99), ("p99.9", due.p999), ("max", due.max)]
      lines.append(row("since due", points.map { "\($0) \(nanoseconds(Double($1)))" }.joined(separator: "   ")))
    }
    lines += pacing.map { row($0, $1) }
    if report.elapsed_s < Self.shortest {
      lines.append(row("note", style.faint("too short a run to judge speed by: --duration 5s says more")))
    }
    return lines
  }

  private var pacing: [(String, String)] {
    let pacing = report.pacing
    guard let asked = pacing.asked_frames_per_second else { return [] }
    func exact(_ rate: Double) -> String { fixed(rate, rate < 1000 ? 2 : 0) + " frames/s" }
    var lines = [("asked", "\(exact(asked)) (\(pacing.asked))")]
    let error = pacing.error_percent.map { " (\($0 > 0 ? "+" : "")\(fixed($0, 3)) %)" } ?? ""
    lines.append(("achieved", exact(pacing.achieved_frames_per_second) + error))
    if let p99 = pacing.late_p99_ns, let most = pacing.late_max_ns {
      lines.append(("lateness", "p99 \(nanoseconds(Double(p99)))   max \(nanoseconds(Double(most)))"))
    }
    return lines
  }

  // MARK: The last line

  private var closing: [String] {
    let lines = wrapped(Self.verdict(report, status), width: Self.width)
    let isWell = status == .accounted && report.frames.dropped == 0
    let isKnown = [.accounted, .dropped, .interrupted, .terminated].contains(status)
    return lines.map(isWell ? style.good : isKnown ? style.odd : style.bad)
  }

  /// Whether all is well, in one sentence.
  static func verdict(_ report: ReplayReport, _ status: ExitStatus) -> String {
    switch status {
    case .accounted, .dropped: (report.frames.dropped == 0 ? "All is well: " : "") + good(report)
    case .interrupted, .terminated:
      "Interrupted by \(status == .terminated ? "SIGTERM" : "SIGINT"); until then \(lowered(good(report)))"
    case .unaccounted: "Not well: \(failedLaw(report))."
    case .unverified:
      "Not well: \(report.verification_errors.first.map(printable) ?? "a guest's driver objects to what it was given")."
    case .stopped: "Not well: \(stoppedPaths(report))."
    case .machine: "Not well: \(report.output_error.map(printable) ?? status.meaning)."
    case .unreadable: "Not well: a trace could not be read to its end; the \(plural(report.frames.received, "frame")) before that are accounted for."
    default: "Not well: \(status.meaning)."
    }
  }

  private static func good(_ report: ReplayReport) -> String {
    let frames = report.frames
    if frames.received == 0 { return "no frame was sent." }
    var parts: [String] = []
    if frames.dropped > 0 {
      let reasons = ordered(report.dropped_by).map(\.key).joined(separator: ", ")
      parts.append("Every frame is accounted for, but \(grouped(frames.dropped)) \(frames.dropped == 1 ? "was" : "were") dropped (\(reasons))")
    } else {
      let (all, host) = (frames.delivered + (report.host?.frames ?? 0), report.host?.frames ?? 0)
      let share = host == 0 ? "" : host == all ? " to the host" : ", \(grouped(host)) of them to the host"
      parts.append((all == 1 ? "the frame was delivered" : "all \(grouped(all)) frames were delivered") + share)
    }
    switch (frames.lent, frames.bounced) {
    case (_, 0): parts.append("none was copied by the processor")
    case (0, _): parts.append("each was copied once")
    default: parts.append("\(grouped(frames.bounced)) were copied once")
    }
    parts.append(report.verified == true ? "and what was delivered is what the trace holds" : "and nothing was compared")
    return parts.joined(separator: ", ") + "."
  }

  private static func failedLaw(_ report: ReplayReport) -> String {
    if let law = report.conservation.first(where: { !$0.holds }) {
      return "\(law.name) does not hold: \(grouped(law.left)) against \(grouped(law.right))"
    }
    return "the IOMMU refused the card \(plural(report.iommu.faults, "access"))"
  }

  private static func stoppedPaths(_ report: ReplayReport) -> String {
    let stopped = report.vms.filter { $0.value.stopped != nil }.keys.sorted()
    guard let name = stopped.first, let reason = report.vms[name]?.stopped else { return "a path stopped" }
    let others = stopped.count > 1 ? ", and \(grouped(stopped.count - 1)) more stopped" : ""
    return "VM \(name) stopped: \(printable(reason))\(others)"
  }

  private static func lowered(_ text: String) -> String { text.prefix(1).lowercased() + text.dropFirst() }
}
