import ArgumentParser
import Control

/// `sluice status`
struct StatusCommand: CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "Show what a running back-end is and does: its card, its VMs, their rings.",
    discussion: """
      Examples:
        sluice status
        sluice status --control /run/sluice/control.sock --json | jq '.vms.web.rings'

      Exit statuses:
      \(ExitStatus.table([(.accounted, "the back-end answered"), (.unaccounted, "it answered, and a sum of its does not balance")] + ControlOptions.statuses))
      """)

  @OptionGroup var control: ControlOptions

  @Flag(help: "Print the back-end's answer as JSON, as it came.") var json = false

  func finish() throws(Failure) -> ExitStatus {
    let body = try Question(control.path).get("/v1/status")
    let report = try Question.read(body, as: StatusReport.self)
    let stream = StandardStream.output
    try stream.write(json ? body : StatusText(report, colours: stream.showsColour).description)
    return report.laws.allSatisfy(\.holds) ? .accounted : .unaccounted
  }
}
