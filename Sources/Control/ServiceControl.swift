public import FlowSteering

/// What the control socket may ask of a running back-end. Called from any thread; each call is carried out by the
/// control thread, between two of its own pieces of work.
public protocol ServiceControl: Sendable {
  func status() async throws(ControlError) -> StatusReport
  func rules() async throws(ControlError) -> RulesReport
  /// All of the change, or none.
  func change(_ change: RuleChange) async throws(ControlError) -> RulesReport
  /// Returns when every frame has been settled. Ends before its time, with what came of it until then, when the task
  /// that called is cancelled.
  func inject(_ request: InjectRequest) async throws(ControlError) -> InjectReport
}

/// A back-end as `sluice run` drives it.
public protocol BackendService: ServiceControl {
  /// Moves frames until `stop` is called; then everything is given back.
  func run()
  /// True if the control thread answers, between two pieces of its work. For a watchdog: nothing is read or waited for.
  func answers() async -> Bool
  /// Asks for the end, and returns at once. From any thread, any number of times.
  func stop()
  /// Takes over what can change while it runs.
  ///
  /// - Returns: what changed, and what will not before a restart: a sentence each, nothing if all is as it was.
  func reload(_ configuration: Configuration) -> [String]
}

extension BackendService {
  public func answers() async -> Bool { (try? await status()) != nil }
}

/// Why a request was not carried out.
public enum ControlError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What was asked for makes no sense.
  case badRequest(String)
  /// Not now: another injection is under way, say.
  case busy(String)
  /// The card cannot do what the rules would say.
  case rule(RuleError)
  /// The back-end is ending.
  case stopping

  public var description: String {
    switch self {
    case .badRequest(let text), .busy(let text): text
    case .rule(let error): error.description
    case .stopping: "the back-end is ending"
    }
  }
}
