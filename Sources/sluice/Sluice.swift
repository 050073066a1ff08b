import ArgumentParser
import Glibc

/// A command that ends with more to say than that it worked.
protocol CommandWithStatus: ParsableCommand {
  func finish() throws(Failure) -> ExitStatus
}

extension CommandWithStatus {
  mutating func run() throws { _ = try finish() }
}

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

      Then: sluice run --vm NAME,socket=PATH
      A vhost-user back-end, which QEMU and others connect to; status, stats and inject ask it while it runs.
      """,
    version: version,
    subcommands: [
      ReplayCommand.self, BenchCommand.self, RunCommand.self, StatusCommand.self, StatsCommand.self, InjectCommand.self, RulesCommand.self,
      DoctorCommand.self,
      CompletionCommand.self,
    ])

  /// Sub-commands that the project is to have, and this version has not.
  static let absentCommands = ["top"]

  static func main() {
    Glibc.exit(run(arguments(of: CommandLine.arguments)).rawValue)
  }

  /// Under the name of a vhost-user back-end program we are `sluice run`: the one who starts such a program knows no
  /// sub-commands. vhost-user, "Backend program conventions".
  static func arguments(of words: [String]) -> [String] {
    let name = words.first?.split(separator: "/").last ?? ""
    return (name.hasSuffix("vhost-user-net") ? ["run"] : []) + words.dropFirst()
  }

  static func run(_ arguments: [String]) -> ExitStatus {
    // Known before the arguments are: a script that asks for JSON gets JSON for their errors too.
    let wantsJSON = arguments.prefix { $0 != "--" }.contains("--json")
    do {
      try refuseAbsentCommand(arguments)
      if let answer = BackendProgram.answer(arguments) {
        try StandardStream.output.write(answer)
        return .accounted
      }
      var command = try parseAsRoot(arguments)
      if let command = command as? any CommandWithStatus { return try command.finish() }
      try command.run()
      return .accounted
    } catch {
      let name = arguments.first.flatMap { first in commandNames.contains(first) ? first + " " : nil } ?? ""
      return end(error, of: name, asJSON: wantsJSON)
    }
  }

  private static var commandNames: [String] { configuration.subcommands.compactMap { $0.configuration.commandName } }

  static func refuseAbsentCommand(_ arguments: [String]) throws(Failure) {
    guard let first = arguments.first else { return }
    let names = commandNames
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
