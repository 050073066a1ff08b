import ArgumentParser
import FlowSteering
import FlowTables
import Linux
import Replay

/// `sluice rules test`
struct RulesTest: CommandWithStatus {
  static let statuses: [(ExitStatus, String)] = [
    (.accounted, "every frame of the traces was looked at"), (.unaccounted, "a rule cannot be had; the error says which, why, and what would do"),
    (.usage, "bad usage"), (.unreadable, "a trace cannot be read, or not to its end"), (.nothingSent, "no frame in the traces, or none that the filter leaves"),
    (.interrupted, "stopped by SIGINT; what was counted until then is printed"), (.terminated, "stopped by SIGTERM, likewise"),
  ]
  static let configuration = CommandConfiguration(
    commandName: "test", abstract: "Hold rules against whole traces: frames for each rule and each VM, and those that no rule takes.",
    discussion: """
      Examples:
        sluice rules test trace.pcap --rules site.rules --vm dns --vm web,mac=02:00:00:00:00:01
        sluice rules test *.pcapng --rules site.rules --filter 'udp' --json | jq .unmatched

      Exit statuses:
      \(ExitStatus.table(statuses))
      """)

  @OptionGroup var set: RuleSetOptions
  @Argument(help: .init("Captures (pcap, pcapng; Ethernet); - is standard input.", valueName: "file"), completion: .file()) var traces: [String]
  @Option(help: .init("Only frames that match, in BPF's language: 'tcp port 80'.", valueName: "expr")) var filter: String?
  @Flag(help: "Print the report as JSON.") var json = false
  @Flag(name: .shortAndLong, help: "No progress.") var quiet = false

  func finish() throws(Failure) -> ExitStatus {
    let program = try set.program(try set.rules())
    let test = RuleTest(files: traces, filter: filter, steering: program.steering)
    let stopped = SharedWord()
    let signals: Signals
    do { signals = try Signals { stopped.set(1) } } catch { throw Failure(status: .machine, message: error.message) }
    var progress = Progress { Double(MonotonicClock.now()) / 1e9 }
    let report: RuleTestReport
    do throws(ReplayError) {
      defer { progress.finish() }
      report = try test.run(until: { stopped.value != 0 }) { if !quiet { progress.update($0) } }
    } catch { throw Failure(error) }
    let stream = StandardStream.output
    if json {
      try stream.write(JSONReport.encode(report, isPretty: stream.isTerminal) + "\n")
    } else {
      try stream.write(RuleTestText(report, program.profile, Style(isOn: stream.showsColour)).description)
    }
    if let error = report.trace_error {
      StandardStream.error.note("sluice: \(printable(error))\n")
      return .unreadable
    }
    if report.interrupted { return signals.received == .terminate ? .terminated : .interrupted }
    return .accounted
  }
}

/// The report for a person.
struct RuleTestText: CustomStringConvertible {
  let report: RuleTestReport
  let profile: CardProfile
  let style: Style
  init(_ report: RuleTestReport, _ profile: CardProfile, _ style: Style) { (self.report, self.profile, self.style) = (report, profile, style) }

  private func row(_ label: String, _ frames: UInt64, _ size: UInt64, _ rest: String = "") -> String {
    let share = report.frames == 0 ? "" : fixed(Double(frames) / Double(report.frames) * 100, 1) + " %"
    let line = leftPadded(grouped(frames), to: 14) + leftPadded(bytes(size), to: 10) + leftPadded(share, to: 9) + "  " + label
    return rest.isEmpty ? line : line + "  " + style.faint(rest)
  }

  var description: String {
    var lines = [style.bold("\(plural(report.frames, "frame")) of \(report.files.map { printable($0 == "-" ? "standard input" : $0) }.joined(separator: ", "))")]
    lines += ["", style.bold("        frames     bytes    share  rule")]
    lines += report.rules.map { row($0.text, $0.frames, $0.bytes) }
    lines += ["", style.bold("        frames     bytes    share  where")]
    for vm in report.vms {
      let queues = vm.queues.enumerated().filter { $0.element > 0 }.map { "queue \($0.offset): \(grouped($0.element))" }
      lines.append(row("VM \(vm.name)", vm.frames, vm.bytes, queues.joined(separator: ", ")))
    }
    if report.host.frames > 0 { lines.append(row("host", report.host.frames, report.host.bytes)) }
    if report.dropped.frames > 0 { lines.append(row("dropped by rules", report.dropped.frames, report.dropped.bytes)) }
    lines.append(row("unmatched: nobody's, dropped", report.unmatched.frames, report.unmatched.bytes))
    if report.replicated > 0 { lines.append("\n\(plural(report.replicated, "frame")) had more than one copy.") }
    if report.short > 0 { lines.append("\n\(plural(report.short, "frame")) had no whole Ethernet header.") }
    for (name, count) in report.warnings.sorted(by: { $0.key < $1.key }) { lines.append(style.odd("\(name): \(grouped(count))")) }
    lines += ["", "\(frameRate(Double(report.frames) / max(report.elapsed_s, 1e-9))) in \(fixed(report.elapsed_s, 2)) s." + (report.interrupted ? " Stopped before the end." : "")]
    return lines.joined(separator: "\n") + "\n"
  }
}
