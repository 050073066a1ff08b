import ArgumentParser
import Control
import FlowDialects
import FlowSteering

/// `sluice rules export`
struct RulesExport: CommandWithStatus {
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
}

/// `sluice rules import`
struct RulesImport: CommandWithStatus {
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
}
