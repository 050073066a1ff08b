import ArgumentParser
import Control
import FlowSteering

/// What every command that changes rules takes.
struct ChangeOptions: ParsableArguments {
  @OptionGroup var control: ControlOptions
  @Flag(help: "Only say what would change.") var dryRun = false
  @Flag(help: "Print the back-end's answer as JSON, as it came.") var json = false

  /// Has a change made, or only looked at, and prints what came and what went.
  func make(_ change: RuleChange) throws(Failure) -> ExitStatus {
    var change = change
    if dryRun { change.dry_run = true }
    try LiveRules.show(try LiveRules.change(control, change), json: json)
    return .accounted
  }
}

/// `sluice rules add`
struct RulesAdd: CommandWithStatus {
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
  @OptionGroup var options: ChangeOptions
  @Argument(help: .init("Rules, each as one argument.", valueName: "rule")) var rules: [String]

  func finish() throws(Failure) -> ExitStatus {
    try options.make(try LiveRules.change(rules, options.control))
  }
}

/// `sluice rules del`
struct RulesDelete: CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "del", abstract: "Take rules of a running back-end away, by their numbers.",
    discussion: """
      Examples:
        sluice rules del 7
        sluice rules del 7 8 9 --dry-run

      Exit statuses:
      \(ExitStatus.table(LiveRules.statuses))
      """)
  @OptionGroup var options: ChangeOptions
  @Argument(help: .init("Numbers of rules.", valueName: "id")) var ids: [String]

  func finish() throws(Failure) -> ExitStatus {
    var numbers: [Int] = []
    for text in ids { numbers.append(try LiveRules.number(text)) }
    return try options.make(RuleChange(delete: numbers))
  }
}

/// `sluice rules flush`
struct RulesFlush: CommandWithStatus {
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
  @OptionGroup var options: ChangeOptions
  @Option(help: .init("Only rules that name this VM.", valueName: "name")) var vm: String?

  func finish() throws(Failure) -> ExitStatus {
    try options.make(RuleChange(flush: vm == nil, flushVM: vm))
  }
}

/// `sluice rules apply`
struct RulesApply: CommandWithStatus {
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
  @OptionGroup var options: ChangeOptions
  @Argument(help: .init("A file of rules, one a line; - is standard input.", valueName: "file"), completion: .file()) var file: String

  func finish() throws(Failure) -> ExitStatus {
    let rules = try RuleSetOptions.read(file, in: try LiveRules.context(options.control))
    return try options.make(RuleChange(flush: true, add: rules.map(\.text)))
  }
}
