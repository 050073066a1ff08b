import ArgumentParser
import ControlSocket
import FoundationEssentials

/// Which back-end is asked.
struct ControlOptions: ParsableArguments {
  static let fallback = "/run/sluice/control.sock"

  @Option(
    help: .init("The back-end's control socket. (default: $SLUICE_CONTROL, or /run/sluice/control.sock)", valueName: "path"),
    completion: .file())
  var control: String?

  var path: String {
    if let control { return control }
    let variable = StandardStream.variable("SLUICE_CONTROL") ?? ""
    return variable.isEmpty ? Self.fallback : variable
  }

  static let statuses: [(ExitStatus, String)] = [
    (.usage, "bad usage: an option, a value"), (.unavailable, ExitStatus.unavailable.meaning),
    (.output, "the answer cannot be written to standard output"), (.permission, ExitStatus.permission.meaning),
  ]
}

extension Failure {
  init(_ error: ControlClientError) {
    if case .rule(let rule) = error {
      self.init(rule)
      return
    }
    let status: ExitStatus =
      switch error {
      case .badPath: .usage
      case .notPermitted: .permission
      case .refused(let code, _): code == 403 ? .permission : code == 400 ? .usage : .unavailable
      case .rule: .unaccounted
      case .noSocket, .nobodyListens, .noAnswer, .broken: .unavailable
      }
    self.init(status: status, message: error.description)
  }
}

/// Asks, and reads what is answered.
struct Question {
  let client: ControlClient

  init(_ path: String) { client = ControlClient(path: path) }

  func get(_ target: String) throws(Failure) -> String {
    do { return try client.get(target) } catch { throw Failure(error) }
  }
  func get<Report: Decodable>(_ target: String, as type: Report.Type) throws(Failure) -> Report {
    try Self.read(try get(target), as: type)
  }

  static func read<Report: Decodable>(_ text: String, as type: Report.Type) throws(Failure) -> Report {
    do { return try JSONDecoder().decode(type, from: Data(text.utf8)) } catch {
      throw Failure(status: .unavailable, message: "the back-end answers as another version does, or is none: \(error)")
    }
  }
}
