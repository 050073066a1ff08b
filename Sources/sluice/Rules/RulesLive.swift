import ArgumentParser
import Control
import ControlSocket
import FlowSteering
import FoundationEssentials

/// What the commands for a running back-end have in common.
enum LiveRules {
  static let statuses: [(ExitStatus, String)] = [
    (.accounted, "it is done"), (.unaccounted, "a rule cannot be had, and nothing was changed; the error says which, why, and what would do"),
  ] + ControlOptions.statuses

  static func ask(_ control: ControlOptions) throws(Failure) -> (body: String, report: RulesReport) {
    let body = try Question(control.path).get("/v1/rules")
    return (body, try Question.read(body, as: RulesReport.self))
  }

  static func change(_ control: ControlOptions, _ change: RuleChange) throws(Failure) -> (body: String, report: RulesReport) {
    let client = ControlClient(path: control.path)
    let body: String
    do { body = try client.start(.post, "/v1/rules", body: JSONReport.encode(change, isPretty: false)).wait() } catch { throw Failure(error) }
    return (body, try Question.read(body, as: RulesReport.self))
  }

  /// What came and what went, a line each.
  static func show(_ answer: (body: String, report: RulesReport), json: Bool) throws(Failure) {
    let stream = StandardStream.output
    if json { return try stream.write(answer.body) }
    let style = Style(isOn: stream.showsColour)
    var lines = answer.report.removed.map { style.odd("- " + printable($0.text)) } + answer.report.added.map { style.good("+ " + printable($0.text)) }
    if lines.isEmpty { lines.append("nothing changes: the rules are as they were") }
    if answer.report.dry_run { lines.append(style.faint("This is what would change; nothing has (--dry-run).")) }
    try stream.write(lines.joined(separator: "\n") + "\n")
  }

  static func number(_ text: String) throws(Failure) -> Int {
    guard let count = Quantity.count(text), let number = Int(exactly: count), Rule.ids.contains(number) else {
      throw .usage("rule", text, "a rule is named by its number, from 1; sluice rules list shows them")
    }
    return number
  }
}

/// `sluice rules add`
struct RulesAdd: ParsableCommand, CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "add", abstract: "Add rules to a running back-end: all, or none.",
    discussion: """
      Examples:
        sluice rules add 'match eth.type=ip udp.dst=53 then vm dns'
        sluice rules add 'id 7 prio 10 match ip.src=192.0.2.1 ip.frag=no then drop' --dry-run

      Exit statuses:
      \(ExitStatus.table(LiveRules.statuses))
      """)
  @OptionGroup var control: ControlOptions
  @Argument(help: .init("Rules, each as one argument.", valueName: "rule")) var rules: [String]
  @Flag(help: "Only say what would change.") var dryRun = false
  @Flag(help: "Print the back-end's answer as JSON, as it came.") var json = false

  func finish() throws(Failure) -> ExitStatus {
    // Mistakes in the text are told without asking anybody.
    for text in rules { do throws(RuleError) { _ = try Rule(parsing: text) } catch { throw Failure(error, in: text) } }
    try LiveRules.show(try LiveRules.change(control, RuleChange(add: rules, dryRun: dryRun)), json: json)
    return .accounted
  }
  mutating func run() throws { _ = try finish() }
}

/// `sluice rules del`
struct RulesDelete: ParsableCommand, CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "del", abstract: "Take rules of a running back-end away, by their numbers.",
    discussion: """
      Examples:
        sluice rules del 7
        sluice rules del 7 8 9 --dry-run

      Exit statuses:
      \(ExitStatus.table(LiveRules.statuses))
      """)
  @OptionGroup var control: ControlOptions
  @Argument(help: .init("Numbers of rules.", valueName: "id")) var ids: [String]
  @Flag(help: "Only say what would change.") var dryRun = false
  @Flag(help: "Print the back-end's answer as JSON, as it came.") var json = false

  func finish() throws(Failure) -> ExitStatus {
    var numbers: [Int] = []
    for text in ids { numbers.append(try LiveRules.number(text)) }
    try LiveRules.show(try LiveRules.change(control, RuleChange(delete: numbers, dryRun: dryRun)), json: json)
    return .accounted
  }
  mutating func run() throws { _ = try finish() }
}

/// `sluice rules flush`
struct RulesFlush: ParsableCommand, CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "flush", abstract: "Take all rules of a running back-end away, or all that name a VM.",
    discussion: """
      What addresses and VLANs of VMs say stays.

      Examples:
        sluice rules flush
        sluice rules flush --vm dns

      Exit statuses:
      \(ExitStatus.table(LiveRules.statuses))
      """)
  @OptionGroup var control: ControlOptions
  @Option(help: .init("Only rules that name this VM.", valueName: "name")) var vm: String?
  @Flag(help: "Only say what would change.") var dryRun = false
  @Flag(help: "Print the back-end's answer as JSON, as it came.") var json = false

  func finish() throws(Failure) -> ExitStatus {
    try LiveRules.show(try LiveRules.change(control, RuleChange(flush: vm == nil, flushVM: vm, dryRun: dryRun)), json: json)
    return .accounted
  }
  mutating func run() throws { _ = try finish() }
}

/// `sluice rules list`
struct RulesList: ParsableCommand, CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Show the rules of a running back-end, in the order in which they are asked, and how full its card is.",
    discussion: """
      Examples:
        sluice rules list
        sluice rules list --json | jq -r '.rules[].text'

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
    var lines = report.rules.map { $0.id == 0 ? style.faint(printable($0.text)) : printable($0.text) }
    if !report.tables.isEmpty { lines.append("") }
    for table in report.tables where table.used > 0 {
      lines.append(style.faint("\(table.name): \(grouped(table.used)) of \(grouped(table.size))"))
    }
    try stream.write(lines.joined(separator: "\n") + "\n")
    return .accounted
  }
  mutating func run() throws { _ = try finish() }
}

/// `sluice rules show`
struct RulesShow: ParsableCommand, CommandWithStatus {
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
    try StandardStream.output.write((json ? JSONReport.encode(rule, isPretty: false) : printable(rule.text)) + "\n")
    return .accounted
  }
  mutating func run() throws { _ = try finish() }
}

/// `sluice rules apply`
struct RulesApply: ParsableCommand, CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "apply", abstract: "Make the rules of a running back-end those of a file: all of them, or nothing changes.",
    discussion: """
      Examples:
        sluice rules apply site.rules --dry-run
        sluice rules apply site.rules

      Rules that are there already stay where they are: no frame of theirs is lost. What is printed is the difference.

      Exit statuses:
      \(ExitStatus.table(LiveRules.statuses))
      """)
  @OptionGroup var control: ControlOptions
  @Argument(help: .init("A file of rules, one a line; - is standard input.", valueName: "file"), completion: .file()) var file: String
  @Flag(help: "Only say what would change.") var dryRun = false
  @Flag(help: "Print the back-end's answer as JSON, as it came.") var json = false

  func finish() throws(Failure) -> ExitStatus {
    let rules = try RuleSetOptions.read(file)
    try LiveRules.show(try LiveRules.change(control, RuleChange(flush: true, add: rules.map(\.text), dryRun: dryRun)), json: json)
    return .accounted
  }
  mutating func run() throws { _ = try finish() }
}
