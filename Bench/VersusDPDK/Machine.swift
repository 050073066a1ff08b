import Foundation
import Linux

/// This machine, and how far apart its two processors are now.
struct Machine {
  let processors: (Int, Int)

  /// A cache line's way to the other processor and back, in nanoseconds: which of two places the hypervisor has these
  /// processors in is worth a factor of two in every figure.
  func roundTrip() -> Double {
    let (ball, answer, count) = (SharedWord(), SharedWord(), UInt64(4000))
    let other = try? Linux.Thread(name: "pong", processor: processors.1) {
      for turn in 1...count {
        while ball.value != turn {}
        answer.set(turn)
      }
    }
    guard let other else { return 0 }
    _ = Linux.Thread.pin(to: processors.0)
    defer { Linux.Thread.unpin() }
    var least = Double.infinity
    for part in 0..<8 {
      let (first, length) = (UInt64(part) * count / 8 + 1, count / 8)
      let start = MonotonicClock.now()
      for turn in first..<first + length {
        ball.set(turn)
        while answer.value != turn {}
      }
      least = min(least, Double(MonotonicClock.now() - start) / Double(length))
    }
    other.join()
    return least
  }

  /// Where the processors are, in classes that can be compared.
  enum Distance: String, Encodable, CaseIterable { case near, far }
  static func distance(_ before: Double, _ after: Double) -> Distance? {
    if max(before, after) < 220 { return .near }
    return min(before, after) > 260 ? .far : nil
  }

  var text: String {
    func line(_ path: String, _ key: String) -> String {
      let lines = ((try? String(contentsOfFile: path, encoding: .utf8)) ?? "").split(separator: "\n")
      return lines.first { $0.hasPrefix(key) }?.split(separator: ":", maxSplits: 1).last?.trimmingCharacters(in: .whitespaces) ?? "unknown"
    }
    let kernel = (try? Tool.output(["uname", "-sr"]).trimmingCharacters(in: .whitespacesAndNewlines)) ?? "unknown"
    return "\(line("/proc/cpuinfo", "model name")), \(ProcessInfo.processInfo.activeProcessorCount) processors, \(line("/proc/meminfo", "MemTotal")); \(kernel)"
  }
}
