internal import Control
internal import FlowSteering
internal import FoundationEssentials
internal import NIOHTTP1

/// What goes back to a client: always a whole body.
struct Answer: Sendable {
  var status = HTTPResponseStatus.ok
  var contentType = "application/json"
  var allow: String?
  let body: String

  init(json value: some Encodable) {
    body = JSONText.of(value) + "\n"
  }
  init(metrics page: MetricsPage) {
    (contentType, body) = (MetricsPage.contentType, page.text)
  }
  init(_ refusal: Refusal) {
    struct Body: Encodable {
      struct Problem: Encodable {
        let code, message: String
        let rule: RuleError?
      }
      let error: Problem
    }
    self.init(json: Body(error: .init(code: refusal.code, message: refusal.message, rule: refusal.rule)))
    (status, allow) = (refusal.status, refusal.allow)
  }
}

extension Refusal {
  init(_ error: ControlError) {
    switch error {
    case .badRequest(let text): self.init(.badRequest, "bad_request", text)
    case .rule(let error): self.init(.unprocessableEntity, "rule", error.description, rule: error)
    case .busy(let text): self.init(.conflict, "busy", text)
    case .stopping: self.init(.serviceUnavailable, "stopping", error.description)
    }
  }
}

extension Verb {
  /// Asks the back-end. For as long as that takes.
  func ask(_ service: any ServiceControl, body: [UInt8]) async -> Answer {
    do throws(ControlError) {
      switch self {
      case .health:
        // Whoever answers this has its control thread at work.
        let status = try await service.status()
        return Answer(json: Health(status: "ok", uptime_s: status.uptime_s))
      case .status: return Answer(json: try await service.status())
      case .stats: return Answer(json: StatsReport(try await service.status()))
      case .metrics: return Answer(metrics: MetricsPage(try await service.status(), try await service.rules()))
      case .rules: return Answer(json: try await service.rules())
      case .change: return Answer(json: try await service.change(try Self.request(body)))
      case .inject: return Answer(json: try await service.inject(try Self.request(body)))
      }
    } catch {
      return Answer(Refusal(error))
    }
  }

  private struct Health: Encodable {
    let status: String
    let uptime_s: Double
  }

  static func request<Request: Decodable>(_ body: [UInt8]) throws(ControlError) -> Request {
    do { return try JSONDecoder().decode(Request.self, from: Data(body)) } catch {
      throw .badRequest("the body is no request: " + JSONText.reason(error))
    }
  }
}

/// JSON with sorted keys, in one line.
enum JSONText {
  static func of(_ value: some Encodable) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    // JSON has no infinity; a report that holds one is our mistake, and no reason to fall silent.
    encoder.nonConformingFloatEncodingStrategy = .convertToString(positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
    do { return String(decoding: try encoder.encode(value), as: UTF8.self) } catch {
      preconditionFailure("a report that JSON cannot hold: \(error)")
    }
  }

  /// Which key, and what of it.
  static func reason(_ error: any Error) -> String {
    guard let error = error as? DecodingError else { return "\(error)" }
    func place(_ context: DecodingError.Context) -> String {
      let path = context.codingPath.map(\.stringValue).joined(separator: ".")
      return path.isEmpty ? context.debugDescription : "\(path): \(context.debugDescription)"
    }
    switch error {
    case .keyNotFound(let key, _): return "\(key.stringValue) is missing"
    case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context): return place(context)
    @unknown default: return "\(error)"
    }
  }
}
