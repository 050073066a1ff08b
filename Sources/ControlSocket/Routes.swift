internal import FlowSteering
internal import NIOHTTP1

/// What can be asked for, and who may.
enum Verb: Hashable, CaseIterable {
  case health, status, stats, metrics, rules, change, inject

  var path: String {
    switch self {
    case .health: "/v1/health"
    case .status: "/v1/status"
    case .stats: "/v1/stats"
    case .metrics: "/metrics"
    case .rules, .change: "/v1/rules"
    case .inject: "/v1/inject"
    }
  }
  var methods: [HTTPMethod] { changes ? [.POST] : [.GET, .HEAD] }
  /// Whether something happens by it.
  var changes: Bool { self == .inject || self == .change }

  /// - Parameter uri: as it stands in the request line.
  static func route(_ method: HTTPMethod, _ uri: String, for access: Peer.Access) throws(Refusal) -> Verb {
    // Strangers are not told what there is.
    if access == .none { throw .strangers }
    if uri.contains("?") { throw Refusal(.badRequest, "bad_request", "a path alone is wanted, without a query") }
    let verbs = allCases.filter { $0.path == uri }
    guard !verbs.isEmpty else {
      let paths = allCases.filter { $0 != .change }.map(\.path)
      throw Refusal(.notFound, "not_found", "no such path; there are \(paths.joined(separator: ", "))")
    }
    guard let verb = verbs.first(where: { $0.methods.contains(method) }) else {
      let methods = verbs.flatMap(\.methods).map(\.rawValue).joined(separator: ", ")
      throw Refusal(.methodNotAllowed, "method_not_allowed", "\(uri) takes \(methods)", allow: methods)
    }
    if verb.changes && access != .changes { throw .readers }
    return verb
  }
}

/// Why there is no answer but an error, as the client is told.
struct Refusal: Error {
  let status: HTTPResponseStatus
  /// For programs.
  let code: String
  /// For people.
  let message: String
  /// With status 405: the methods that there are.
  let allow: String?
  /// The rule that cannot be had.
  let rule: RuleError?

  init(_ status: HTTPResponseStatus, _ code: String, _ message: String, allow: String? = nil, rule: RuleError? = nil) {
    (self.status, self.code, self.message, self.allow, self.rule) = (status, code, message, allow, rule)
  }

  static let strangers = Refusal(
    .forbidden, "forbidden", "only the superuser, the back-end's user and members of the socket's group may ask")
  static let readers = Refusal(.forbidden, "forbidden", "only the superuser and the back-end's user may change what happens")
  static let tooSlow = Refusal(.requestTimeout, "timeout", "the request was not whole in time")
  static let noAnswer = Refusal(.gatewayTimeout, "no_answer", "the back-end did not answer in time")
  static let crowd = Refusal(.serviceUnavailable, "busy", "too many connections; try again")
  static func tooLarge(_ limit: Int) -> Refusal {
    Refusal(.payloadTooLarge, "too_large", "a request has at most \(limit) bytes")
  }
}
