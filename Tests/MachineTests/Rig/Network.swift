// A host's side of the wire: a network namespace that is gone when the test is.

import Foundation

final class Network {
  private let holder: Subprocess

  init(folder: String) throws {
    let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/ns/net")
    holder = try Subprocess("network", ["unshare", "--net", "--", "sleep", "infinity"], folder: folder)
    try eventually("a network namespace") {
      try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(holder.id)/ns/net") != own
    }
    try check("ip link set lo up")
  }

  /// The words of a command that runs inside.
  func words(_ command: [String]) -> [String] { ["nsenter", "--net=/proc/\(holder.id)/ns/net", "--"] + command }

  /// A script's output; another status than 0 is an error.
  @discardableResult func check(_ script: String, within seconds: Int = Deadline.patience) throws -> String {
    try Shell.check(words(["sh", "-c", script]), within: seconds).trimmed
  }
}
