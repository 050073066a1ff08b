import FlowSteering
import Replay

/// Why there is no report: what the user is told, and the exit status that goes with it.
struct Failure: Error, Equatable {
  let status: ExitStatus
  let message: String
  /// The rule at fault, for programs.
  var rule: RuleError?

  /// As JSON names it.
  var kind: String {
    if rule != nil { return "rule" }
    return switch status {
    case .unreadable: "unreadable"
    case .nothingSent: "nothing_sent"
    case .machine: "machine"
    case .output: "output"
    case .unavailable: "unavailable"
    case .permission: "permission"
    case .configuration: "configuration"
    default: "usage"
    }
  }

  static func usage(_ message: String) -> Failure { Failure(status: .usage, message: message) }

  /// - Parameters:
  ///   - value: as it was typed.
  ///   - reason: what is wrong with it, and what would be right.
  static func usage(_ option: String, _ value: String, _ reason: String) -> Failure {
    .usage("\(option) \(value.isEmpty ? "''" : value): \(reason)")
  }
}

extension Failure {
  /// - Parameter place: the file or the like that the rule is in.
  init(_ error: RuleError, in place: String? = nil) {
    self.init(status: .unaccounted, message: (place.map { "\($0): " } ?? "") + error.description, rule: error)
  }

  init(_ error: ReplayError) {
    switch error {
    case .usage(let text): self = .usage(text)
    case .unreadable(let text): self.init(status: .unreadable, message: text)
    case .nothingSent(let text): self.init(status: .nothingSent, message: text)
    case .machine(let text): self.init(status: .machine, message: text)
    case .rule(let error): self.init(error, in: "--rules")
    }
  }
}
