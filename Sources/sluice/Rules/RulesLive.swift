import ArgumentParser
import Control
import ControlSocket
import FlowDialects
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

  /// What a back-end's VMs are called in other dialects.
  static func context(_ control: ControlOptions) throws(Failure) -> DialectContext {
    DialectContext(vms: try ask(control).report.vms)
  }

  /// What lines ask for, in any dialect, as one change.
  static func change(_ texts: [String], _ control: ControlOptions) throws(Failure) -> RuleChange {
    var change = RuleChange()
    var context: DialectContext?
    for text in texts {
      if Dialect(of: text) != .native && context == nil { context = try Self.context(control) }
      do throws(RuleError) {
        switch try RuleCommand(parsing: text, in: context ?? DialectContext()) {
        case .add(let rule)?: change.add = (change.add ?? []) + [rule.text]
        case .delete(let id)?: change.delete = (change.delete ?? []) + [id]
        case .flush(let vm)?: if let vm { change.flush_vm = vm } else { change.flush = true }
        case .validate(let rule)?:
          change.add = (change.add ?? []) + [rule.text]
          change.dry_run = true
        case nil: throw RuleError(.syntax, "there is no rule in it", column: 1)
        }
      } catch { throw Failure(error, in: "'\(printable(text))'") }
    }
    return change
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
        sluice rules add 'ethtool -N eth0 flow-type udp4 dst-port 53 vf 1'
        sluice rules add 'flow create 0 ingress pattern eth / ipv4 / udp dst is 53 / end actions vf id 1 / end'

      Exit statuses:
      \(ExitStatus.table(LiveRules.statuses))
      """)
  @OptionGroup var control: ControlOptions
  @Argument(help: .init("Rules, each as one argument.", valueName: "rule")) var rules: [String]
  @Flag(help: "Only say what would change.") var dryRun = false
  @Flag(help: "Print the back-end's answer as JSON, as it came.") var json = false

  func finish() throws(Failure) -> ExitStatus {
    var change = try LiveRules.change(rules, control)
    if dryRun { change.dry_run = true }
    try LiveRules.show(try LiveRules.change(control, change), json: json)
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
    let rules = try RuleSetOptions.read(file, in: try LiveRules.context(control))
    try LiveRules.show(try LiveRules.change(control, RuleChange(flush: true, add: rules.map(\.text), dryRun: dryRun)), json: json)
    return .accounted
  }
  mutating func run() throws { _ = try finish() }
}

/// `sluice rules export`
struct RulesExport: ParsableCommand, CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "export", abstract: "Write the rules of a running back-end, or of files, in a dialect.",
    discussion: """
      Examples:
        sluice rules export > site.rules
        sluice rules export --format tc --device eth0
        sluice rules export --format ethtool --rules site.rules --vm web --vm dns

      What a dialect cannot say is refused, and nothing is written.

      Exit statuses:
      \(ExitStatus.table(LiveRules.statuses))
      """)
  @OptionGroup var control: ControlOptions
  @OptionGroup var set: RuleSetOptions
  @Option(help: .init("The network device that stands for the port, in ethtool and tc.", valueName: "name")) var device = "eth0"
  @Option(help: .init("The port's number in testpmd.", valueName: "n")) var port = "0"

  func finish() throws(Failure) -> ExitStatus {
    guard let count = Quantity.count(port), let number = Int(exactly: count), number <= 65_535 else { throw .usage("--port", port, "must be a port's number, from 0") }
    var rules: [Rule] = []
    var context = DialectContext(device: device, port: number)
    if set.files.isEmpty {
      let report = try LiveRules.ask(control).report
      context.vms = report.vms
      for rule in report.rules where rule.id != 0 { do throws(RuleError) { rules.append(try Rule(parsing: rule.text)) } catch { throw Failure(error) } }
    } else {
      // The dialect is that of what is written; files are read as they are.
      var files = set
      files.format = nil
      rules = Steering.numbered(try files.rules())
      context.vms = try files.receivers(rules).map(\.name)
    }
    let dialect = try set.format.map { name throws(Failure) in try RuleSetOptions.dialect(name) } ?? .native
    var lines: [String] = []
    for rule in rules { do throws(RuleError) { lines.append(try rule.text(in: dialect, context: context)) } catch { throw Failure(error) } }
    try StandardStream.output.write(lines.map { $0 + "\n" }.joined())
    return .accounted
  }
  mutating func run() throws { _ = try finish() }
}

/// `sluice rules import`
struct RulesImport: ParsableCommand, CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "import", abstract: "Read rules of ethtool, testpmd or tc, and print them as ours.",
    discussion: """
      Examples:
        sluice rules import old.sh --vm web --vm dns > site.rules
        ethtool-rules | sluice rules import - --format ethtool --vm web --vm dns | sluice rules apply -

      The n-th --vm is ethtool's "vf n" and testpmd's "vf id n", from 0; for tc a VM's name is that of its device.

      Exit statuses:
      \(ExitStatus.table(RulesValidate.statuses))
      """)
  @OptionGroup var set: RuleSetOptions
  @Argument(help: .init("A file, one command a line; - is standard input.", valueName: "file"), completion: .file()) var file: String

  func finish() throws(Failure) -> ExitStatus {
    var all = set
    all.files.append(file)
    let rules = try all.rules()
    try StandardStream.output.write(rules.map { $0.text + "\n" }.joined())
    return .accounted
  }
  mutating func run() throws { _ = try finish() }
}
