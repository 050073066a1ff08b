// Huge pages of 2 MiB for guests' memory, taken from the machine for a while.

import Foundation

enum HugePages {
  private static let path = "/proc/sys/vm/nr_hugepages"
  private static var count: Int {
    get { (try? String(contentsOfFile: path, encoding: .utf8)).flatMap { Int($0.trimmed) } ?? 0 }
    set { try? "\(newValue)".write(toFile: path, atomically: false, encoding: .utf8) }
  }
  private static var free: Int {
    let lines = ((try? String(contentsOfFile: "/proc/meminfo", encoding: .utf8)) ?? "").split(separator: "\n")
    return lines.first { $0.hasPrefix("HugePages_Free:") }.flatMap { Int($0.split(separator: " ").last ?? "") } ?? 0
  }

  /// Calls `body` with `megabytes` of free huge pages, and gives back what had to be added.
  static func with<Result>(megabytes: Int, _ body: () throws -> Result) throws -> Result {
    let before = count
    count += max(0, megabytes / 2 - free)
    let added = count - before
    defer { count -= added }
    guard free >= megabytes / 2 else { throw RigError("the machine gives \(free) huge pages, not \(megabytes / 2)") }
    return try body()
  }

  /// Whether a guest's worth of them can be had.
  static let reasonMissing: String? = {
    do { return try with(megabytes: 256) { nil } } catch { return "huge pages: \(error)" }
  }()
}
