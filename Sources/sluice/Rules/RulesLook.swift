import ArgumentParser
import Control
import FlowSteering

/// `sluice rules list`
struct RulesList: CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Show the rules of a running back-end, in the order in which they are asked, and how full its card is.",
    discussion: """
      Examples:
        sluice rules list
        sluice rules list --json | jq -r '.rules[].text'

      Behind each rule stands what the card has counted of it since it came: an address rule's frames, a flow rule's
      copies, one for each VM.

      Exit statuses:
      \(ExitStatus.table([(.accounted, "the back-end answered")] + ControlOptions.statuses))
      """)
  @OptionGroup var control: ControlOptions
  @Flag(help: "Print the back-end's answer as JSON, as it came.") var json = false

  func finish() throws(Failure) -> ExitStatus {
    let (body, report) = try LiveRules.ask(control)
    let stream = StandardStream.output
    if json {
      try stream.write(body)
      return .accounted
    }
    let style = Style(isOn: stream.showsColour)
    let width = min(72, report.rules.map(\.text.count).max() ?? 0)
    var lines = report.rules.map { rule in
      let text = rightPadded(printable(rule.text), to: width)
      return (rule.id == 0 ? style.faint(text) : text) + style.faint("  # \(Self.count(rule))")
    }
    if !report.tables.isEmpty { lines.append("") }
    for table in report.tables where table.used > 0 {
      lines.append(style.faint("\(table.name): \(grouped(table.used)) of \(grouped(table.size))"))
    }
    try stream.write(lines.joined(separator: "\n") + "\n")
    return .accounted
  }

  /// What was counted of a rule. It stands behind the rule as a comment, so that the list is a file of rules too.
  static func count(_ rule: RulesReport.Rule) -> String {
    guard let frames = rule.frames, let size = rule.bytes else { return "not counted: the card cannot tell its frames from another rule's" }
    return frames == 0 ? "no frame yet" : "\(plural(frames, "frame")), \(bytes(size))"
  }
}

/// `sluice rules show`
struct RulesShow: CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show one rule of a running back-end.",
    discussion: """
      Examples:
        sluice rules show 7

      Exit statuses:
      \(ExitStatus.table([(.accounted, "here it is"), (.unaccounted, "there is no such rule")] + ControlOptions.statuses))
      """)
  @OptionGroup var control: ControlOptions
  @Argument(help: .init("A rule's number.", valueName: "id")) var id: String
  @Flag(help: "Print it as JSON.") var json = false

  func finish() throws(Failure) -> ExitStatus {
    let number = try LiveRules.number(id)
    let (_, report) = try LiveRules.ask(control)
    guard let rule = report.rules.first(where: { $0.id == number }) else {
      throw Failure(RuleError(.noSuchRule, "there is no rule \(number)", fit: "sluice rules list shows those that there are"))
    }
    try StandardStream.output.write((json ? JSONReport.encode(rule, isPretty: false) : "\(printable(rule.text))  # \(RulesList.count(rule))") + "\n")
    return .accounted
  }
}
