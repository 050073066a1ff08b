/// What the control socket may ask of a running back-end. Called from any thread; each call is carried out by the
/// control thread, between two of its own pieces of work.
public protocol ServiceControl: Sendable {
  func status() async throws(ControlError) -> StatusReport
  /// Returns when every frame has been settled.
  func inject(_ request: InjectRequest) async throws(ControlError) -> InjectReport
}

/// Why a request was not carried out.
public enum ControlError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What was asked for makes no sense.
  case badRequest(String)
  /// Not now: another injection is under way, say.
  case busy(String)
  /// The back-end is ending.
  case stopping

  public var description: String {
    switch self {
    case .badRequest(let text), .busy(let text): text
    case .stopping: "the back-end is ending"
    }
  }
}
