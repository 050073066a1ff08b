public import FlowSteering

/// Why a back-end could not be started. The text names the thing, the reason and the mend.
public enum ServiceError: Error, Hashable, Sendable, CustomStringConvertible {
  case configuration(ConfigurationError)
  /// The card, or its model, refused to be set up.
  case card(String)
  /// The machine refused something: a thread, a descriptor, a TAP device.
  case machine(String)
  /// A VM's socket cannot be made or reached.
  case socket(vm: String, String)
  /// Rings' places cannot be kept.
  case state(String)
  /// The card cannot do what the rules say.
  case rule(RuleError)

  public var description: String {
    switch self {
    case .configuration(let error): "\(error)"
    case .card(let text): "the card: \(text)"
    case .machine(let text): text
    case .socket(let vm, let text): "VM \(vm): \(text)"
    case .rule(let error): "rules: \(error)"
    case .state(let text): "the state directory: \(text)"
    }
  }
}
