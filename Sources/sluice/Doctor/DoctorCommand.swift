import ArgumentParser
import VFIO

/// `sluice doctor`
struct DoctorCommand: CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "doctor",
    abstract: "Say what stands between this machine's cards and guests' memory, and what mends it.",
    discussion: """
      Looks at the IOMMU, VFIO, memory limits, huge pages, and machines that run with a balloon; and at each network card,
      or the one named: driver, IOMMU group, reset, packets on the bus, errors since boot. Changes nothing.

      Examples:
        sluice doctor
        sluice doctor 0000:03:00.0
        sluice doctor --json | jq -r '.findings[] | select(.level == "error") | .mend'

      Exit statuses:
      \(ExitStatus.table([(.accounted, "nothing stands in the way; warnings may be there"), (.unaccounted, "something does, and is named"), (.usage, "bad usage: no PCI address, or no such device")]))
      """)

  @Argument(help: .init("A PCI address, like 0000:03:00.0; without it, every network card.", valueName: "device")) var device: String?
  @Flag(help: "Print the findings as JSON.") var json = false

  private struct Answer: Encodable {
    let schema = 1
    let findings: [Finding]
    let errors, warnings: Int
  }

  func finish() throws(Failure) -> ExitStatus {
    let functions: [PCIFunction]
    if let device {
      guard let address = PCIAddress(device) else { throw .usage("device", device, "not a PCI address; write it like 0000:03:00.0, as lspci -D does") }
      guard let function = PCIFunction(address) else { throw .usage("device", device, "there is no such PCI device; lspci -D lists those that there are") }
      functions = [function]
    } else {
      functions = PCIFunction.all().filter(\.isNetwork)
    }
    var host = HostExamination()
    var findings = host.run()
    if functions.isEmpty {
      findings.append(Finding("host", "cards", .note, "no network card on PCI", why: "only such cards can be lent guests' memory; the simulated one is always there"))
    }
    var titles: [String: String] = [:]
    for function in functions {
      var examination = DeviceExamination(function)
      titles["\(function.address)"] = examination.identity
      findings += examination.run()
    }
    let stream = StandardStream.output
    let (errors, warnings) = (findings.count { $0.level == .error }, findings.count { $0.level == .warning })
    if json {
      try stream.write(JSONReport.encode(Answer(findings: findings, errors: errors, warnings: warnings), isPretty: stream.isTerminal) + "\n")
    } else {
      try stream.write(DoctorText(findings, titles, colours: stream.showsColour).description)
    }
    return errors > 0 ? .unaccounted : .accounted
  }
}

/// Findings for a person: 80 columns, by subject, each with what mends it.
struct DoctorText: CustomStringConvertible {
  static let width = TextReport.width
  private let findings: [Finding]
  private let titles: [String: String]
  private let style: Style

  /// - Parameter titles: what stands behind a subject's name.
  init(_ findings: [Finding], _ titles: [String: String], colours: Bool) {
    (self.findings, self.titles) = (findings, titles)
    style = Style(isOn: colours)
  }

  var description: String {
    var subjects: [String] = []
    for finding in findings where !subjects.contains(finding.subject) { subjects.append(finding.subject) }
    let sections = subjects.map { subject in
      let title = subject == "host" ? "Host" : subject + (titles[subject].map { "  \($0)" } ?? "")
      return [style.bold(title)] + findings.filter { $0.subject == subject }.flatMap(lines)
    }
    return joined(sections + [[closing]])
  }

  private func lines(_ finding: Finding) -> [String] {
    let mark =
      switch finding.level {
      case .good: style.good("✓")
      case .note: style.faint("·")
      case .warning: style.odd("!")
      case .error: style.bad("✗")
      }
    let room = Self.width - 22
    func hung(_ label: String, _ text: String, paint: (String) -> String) -> [String] {
      wrapped(printable(text), width: room).enumerated().map {
        String(repeating: " ", count: 4) + rightPadded($0.offset == 0 ? label : "", to: 18) + paint($0.element)
      }
    }
    var lines = hung(finding.topic, finding.what) { $0 }
    lines[0] = "  " + mark + lines[0].dropFirst(3)
    if !finding.why.isEmpty { lines += hung("", finding.why, paint: style.faint) }
    // Not wrapped: it is there to be typed.
    if !finding.mend.isEmpty { lines.append(String(repeating: " ", count: 22) + style.faint("mend: ") + printable(finding.mend)) }
    return lines
  }

  private var closing: String {
    let (errors, warnings) = (findings.count { $0.level == .error }, findings.count { $0.level == .warning })
    let better = "\(plural(warnings, "thing")) could be better"
    var text = "Nothing stands in the way"
    if errors > 0 { text = "\(plural(errors, "thing")) stand\(errors == 1 ? "s" : "") in the way of lending a real card guests' memory" }
    if warnings > 0 { text += errors > 0 ? ", and \(better)" : "; \(better)" }
    let lines = wrapped(text + ".", width: Self.width)
    return lines.map { errors > 0 ? style.bad($0) : warnings > 0 ? style.odd($0) : style.good($0) }.joined(separator: "\n")
  }
}
