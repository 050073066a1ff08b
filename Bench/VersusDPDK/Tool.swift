import BenchSupport
import Foundation
import Linux

/// A program that is talked to by its prompt.
final class Tool {
  let name: String
  private let process = Process()
  private let input = Pipe()
  private let logFile: String
  private var reader: FileHandle

  init(_ name: String, _ words: [String], folder: String) throws {
    self.name = name
    logFile = folder + "/\(name).log"
    _ = FileManager.default.createFile(atPath: logFile, contents: nil)
    reader = try FileHandle(forReadingFrom: URL(fileURLWithPath: logFile))
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    // Line by line, so that an answer is there when it was given.
    process.arguments = ["stdbuf", "-oL"] + words
    process.standardInput = input
    let output = try FileHandle(forWritingTo: URL(fileURLWithPath: logFile))
    (process.standardOutput, process.standardError) = (output, output)
    try process.run()
  }

  var identifier: pid_t { process.processIdentifier }
  var log: String { (try? String(contentsOfFile: logFile, encoding: .utf8)) ?? "" }

  /// Waits until what it has written since the last call holds `text`; answers that.
  @discardableResult func wait(for text: String, within seconds: Double = 20) throws -> String {
    let deadline = Date(timeIntervalSinceNow: seconds)
    var seen = ""
    while true {
      seen += String(decoding: reader.availableData, as: UTF8.self)
      if seen.contains(text) { return seen }
      guard process.isRunning else { throw Failure("\(name) has ended: \(log.suffix(600))") }
      guard Date() < deadline else { throw Failure("\(name) has not said '\(text)' in \(Int(seconds)) s: \(log.suffix(600))") }
      usleep(300)
    }
  }
  func type(_ line: String) throws { try input.fileHandleForWriting.write(contentsOf: Data((line + "\n").utf8)) }

  func pause() { kill(identifier, SIGSTOP) }
  func go() { kill(identifier, SIGCONT) }
  func end() {
    kill(identifier, SIGKILL)
    process.waitUntilExit()
  }

  /// By thread: nanoseconds on a processor, and nanoseconds ready to run and without one. proc(5), `schedstat`.
  typealias Shares = [String: (ran: UInt64, waited: UInt64)]
  var shares: Shares {
    let tasks = "/proc/\(identifier)/task"
    return ((try? FileManager.default.contentsOfDirectory(atPath: tasks)) ?? []).reduce(into: [:]) { shares, task in
      let words = ((try? String(contentsOfFile: "\(tasks)/\(task)/schedstat", encoding: .utf8)) ?? "").split(separator: " ").compactMap { UInt64($0) }
      if words.count > 1 { shares[task] = (words[0], words[1]) }
    }
  }
  /// For how long the thread waited that has done the work since then. What others wait for it is no matter.
  func waited(since before: Shares) -> UInt64 {
    let grown = shares.map { task, now in (ran: now.ran - (before[task]?.ran ?? 0), waited: now.waited - (before[task]?.waited ?? 0)) }
    return grown.max { $0.ran < $1.ran }?.waited ?? 0
  }

  static func version(_ program: String, _ option: String) throws -> String {
    guard FileManager.default.isExecutableFile(atPath: program) else { throw Failure("\(program) is not there: swift build -c release") }
    return "Sluice \(try Program.run([program, option]).output.trimmingCharacters(in: .whitespacesAndNewlines))"
  }
}

/// Huge pages for guests and back-ends, taken from the machine for a while; without them ordinary ones serve.
struct HugePages {
  private static let path = "/proc/sys/vm/nr_hugepages"
  private static var count: Int { number(in: path) }
  private static func number(in path: String) -> Int {
    ((try? String(contentsOfFile: path, encoding: .utf8)) ?? "").split(separator: "\n").first.flatMap { Int($0) } ?? 0
  }
  private let before = count
  let areThere: Bool

  init(megabytes: Int) {
    let free = Self.number(in: "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
    if free * 2 < megabytes { try? "\(before + megabytes / 2 - free)".write(toFile: Self.path, atomically: false, encoding: .utf8) }
    areThere = Self.number(in: "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages") * 2 >= megabytes
    if !areThere { giveBack() }
  }
  func giveBack() { if Self.count != before { try? "\(before)".write(toFile: Self.path, atomically: false, encoding: .utf8) } }
  var text: String { areThere ? "huge pages of 2 MiB on both sides" : "ordinary pages on both sides, for there are no huge ones (root can reserve some)" }
}
