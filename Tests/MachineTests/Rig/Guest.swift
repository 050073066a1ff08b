// The test's hand in a guest: shell scripts through the agent of `Tests/Rig/guest/agent`.

import Foundation

final class Guest {
  private let channel: Channel
  private var lastID = 0

  init(_ channel: Channel) { self.channel = channel }

  /// Waits for the agent of a guest that boots.
  func isUp(within seconds: Int = Deadline.patience) throws {
    let deadline = Deadline(seconds: seconds)
    while try channel.line(before: deadline) != "agent ready" {}
  }

  /// Runs a script to its end.
  func run(_ script: String, within seconds: Int = Deadline.patience) throws -> Shell.Outcome {
    lastID += 1
    try channel.write("\(lastID) " + Data(script.utf8).base64EncodedString())
    let deadline = Deadline(seconds: seconds)
    while true {
      let words = try channel.line(before: deadline).split(separator: " ", omittingEmptySubsequences: false)
      guard words.first == "\(lastID)", words.count >= 2, let status = Int32(words[1]) else { continue }
      let output = words.count > 2 ? Data(base64Encoded: String(words[2])) ?? Data() : Data()
      return Shell.Outcome(status: status, output: String(decoding: output, as: UTF8.self).trimmed)
    }
  }

  /// Its output; another status than 0 is an error.
  @discardableResult func check(_ script: String, within seconds: Int = Deadline.patience) throws -> String {
    let outcome = try run(script, within: seconds)
    guard outcome.status == 0 else { throw RigError("in the guest: \(script): status \(outcome.status): \(outcome.output)") }
    return outcome.output
  }
}

extension Guest {
  /// Names of the virtio features that its driver and the device agreed on.
  func features() throws -> Set<String> {
    let bits = try check("cat /sys/bus/virtio/devices/virtio*/features")
    return Set(bits.enumerated().filter { $0.element == "1" }.map { virtioNetFeatures[$0.offset] ?? "\($0.offset)" })
  }

  func bringUp(address: String? = nil) throws {
    try check((address.map { "ip addr add \($0) dev eth0; " } ?? "") + "ip link set eth0 up")
  }

  /// How often each receive queue interrupted, by queue. With MSI-X only: else all share one.
  func receiveInterrupts() throws -> [Int] {
    let lines = try check("grep -E 'virtio[0-9]+-input' /proc/interrupts").split(separator: "\n")
    return lines.map { $0.split(separator: " ").dropFirst().prefix { Int($0) != nil }.reduce(0) { $0 + Int($1)! } }
  }

  /// What the kernel complained of since it booted: a driver that found its ring broken says so here.
  func complaints() throws -> String {
    try run("dmesg -r | grep -E '^<[0-4]>' | grep -iE 'virtio|eth0|BUG:|WARNING:|Oops|not a head'").output
  }
}

/// Virtio 1.2, sections 5.1.3 and 6.
let virtioNetFeatures = [
  0: "CSUM", 1: "GUEST_CSUM", 2: "CTRL_GUEST_OFFLOADS", 3: "MTU", 5: "MAC", 7: "GUEST_TSO4", 8: "GUEST_TSO6", 9: "GUEST_ECN",
  10: "GUEST_UFO", 11: "HOST_TSO4", 12: "HOST_TSO6", 13: "HOST_ECN", 14: "HOST_UFO", 15: "MRG_RXBUF", 16: "STATUS", 17: "CTRL_VQ",
  18: "CTRL_RX", 19: "CTRL_VLAN", 21: "GUEST_ANNOUNCE", 22: "MQ", 23: "CTRL_MAC_ADDR", 26: "LOG_ALL", 28: "INDIRECT_DESC",
  29: "EVENT_IDX", 30: "PROTOCOL_FEATURES", 32: "VERSION_1", 33: "ACCESS_PLATFORM", 34: "RING_PACKED", 35: "IN_ORDER", 40: "RING_RESET",
  54: "GUEST_USO4", 55: "GUEST_USO6", 56: "HOST_USO", 57: "HASH_REPORT", 60: "RSS", 63: "SPEED_DUPLEX",
]
