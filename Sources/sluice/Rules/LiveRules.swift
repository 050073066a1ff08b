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
