import ArgumentParser
import Glibc

/// The program: its sub-commands, and the one place where an error becomes words and an exit status.
@main
struct Sluice: ParsableCommand {
  static let version = "0.1.0"
  static let configuration = CommandConfiguration(
    commandName: "sluice",
    abstract: "A zero-copy receive datapath for virtual machines.",
    discussion: """
      Begin with: sluice replay FILE
      A capture file is replayed through an Intel 82599 (simulated, register by register, behind a simulated IOMMU) \
      and the real driver, straight into a guest's virtio buffers, with the proof that nothing was lost.
      """,
    version: version,
    subcommands: [ReplayCommand.self, CompletionCommand.self])

  /// Sub-commands that the project is to have, and this version has not.
  static let absentCommands = ["run", "rules", "bench", "doctor", "top"]

  static func main() {
    Glibc.exit(run(Array(CommandLine.arguments.dropFirst())).rawValue)
  }

  static func run(_ arguments: [String]) -> ExitStatus {
    // Known before the arguments are: a script that asks for JSON gets JSON for their errors too.
    let wantsJSON = arguments.prefix { $0 != "--" }.contains("--json")
    do {
      try refuseAbsentCommand(arguments)
      var command = try parseAsRoot(arguments)
      if let command = command as? ReplayCommand { return try command.replay() }
      try command.run()
      return .accounted
    } catch {
      return end(error, of: arguments.first == "replay" ? "replay " : "", asJSON: wantsJSON)
    }
  }

  static func refuseAbsentCommand(_ arguments: [String]) throws(Failure) {
    guard let first = arguments.first else { return }
    let names = configuration.subcommands.compactMap { $0.configuration.commandName }
    if absentCommands.contains(first) {
      throw .usage("sluice \(version) does not have '\(first)' yet; it has \(names.joined(separator: ", "))")
    }
    if !first.hasPrefix("-") && !names.contains(first) && first != "help" {
      let mend = unsafe access(first, F_OK) == 0 ? "to replay a file write: sluice replay \(first)" : "there are \(names.joined(separator: ", "))"
      throw .usage("no command '\(first)'; \(mend)")
    }
  }

  /// Help and the like are asked for by what the parser throws; everything else is a failure.
  private static func end(_ error: any Error, of command: String, asJSON: Bool) -> ExitStatus {
    if exitCode(for: error) == .success {
      let text = fullMessage(for: error)
      do { try StandardStream.output.write(text.hasSuffix("\n") ? text : text + "\n") } catch { return .output }
      return .accounted
    }
    let failure = error as? Failure ?? .usage(message(for: error))
    StandardStream.error.note("sluice: \(printable(failure.message))\n")
    if failure.status == .usage { StandardStream.error.note("See 'sluice \(command)--help'.\n") }
    if asJSON && failure.status != .output {
      do { try StandardStream.output.write(JSONReport.text(of: failure) + "\n") } catch { return .output }
    }
    return failure.status
  }
}
