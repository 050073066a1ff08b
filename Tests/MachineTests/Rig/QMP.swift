// QEMU's machine protocol: JSON, one object a line.

import Foundation

final class QMP {
  private let channel: Channel
  /// What QEMU told by itself, oldest first; of a device with an identifier also with that.
  private(set) var events: [String] = []

  init(_ path: String) throws {
    channel = try Channel("QMP", to: path)
    _ = try channel.line(before: Deadline())
    try run("qmp_capabilities")
  }

  /// A command's `return`. An `error` throws QEMU's words.
  @discardableResult
  func run(_ command: String, _ arguments: [String: any Sendable] = [:], within seconds: Int = Deadline.patience) throws -> Any {
    let message: [String: Any] = ["execute": command, "arguments": arguments]
    try channel.write(String(decoding: JSONSerialization.data(withJSONObject: message), as: UTF8.self))
    let deadline = Deadline(seconds: seconds)
    while true {
      let answer = try next(before: deadline)
      if let result = answer["return"] { return result }
      if let error = answer["error"] as? [String: Any] { throw RigError("QEMU: \(command): \(error["desc"] ?? error)") }
    }
  }

  /// Waits for an event that came after `mark`, which is `events.count` of before.
  func event(_ name: String, after mark: Int, within seconds: Int = Deadline.patience) throws {
    let deadline = Deadline(seconds: seconds)
    while !events[mark...].contains(name) { _ = try next(before: deadline) }
  }

  private func next(before deadline: Deadline) throws -> [String: Any] {
    let line = try channel.line(before: deadline)
    guard let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any] else {
      throw RigError("QMP: not an object: \(line)")
    }
    if let event = object["event"] as? String {
      events.append(event)
      if let device = (object["data"] as? [String: Any])?["device"] as? String { events.append("\(event) \(device)") }
    }
    return object
  }

  /// `running`, `paused`, `postmigrate`, …
  func status() throws -> String { (try run("query-status") as? [String: Any])?["status"] as? String ?? "" }
}
