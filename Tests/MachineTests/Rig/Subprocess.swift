// Programs that the tests start, and what Linux says about them while they run.

import Foundation
import Support

/// A program in the background. Its output goes to a file, which is what a failure shows; it dies with the tests.
final class Subprocess {
  let name: String
  let logPath: String
  private let process = Process()
  private let input = Pipe()

  /// `words[0]` is a path, or a name to be looked up on the PATH.
  init(_ name: String, _ words: [String], folder: String, environment: [String: String] = [:]) throws {
    self.name = name
    logPath = folder + "/" + name + ".log"
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    // A test run that is killed leaves nothing behind. Linux binds to the thread that starts: only the rig's never ends.
    let bound = Thread.current.name == RigActor.threadName && Rig.isExecutable("/usr/bin/setpriv")
    process.arguments = (bound ? ["setpriv", "--pdeathsig", "KILL", "--"] : []) + words
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    process.currentDirectoryURL = URL(fileURLWithPath: folder)
    if !Rig.exists(logPath) { _ = FileManager.default.createFile(atPath: logPath, contents: nil) }
    let log = try FileHandle(forWritingTo: URL(fileURLWithPath: logPath))
    try log.seekToEnd()
    process.standardOutput = log
    process.standardError = log
    process.standardInput = input
    try withNoSignalBlocked { try process.run() }
    try log.close()
  }

  deinit { kill() }

  var id: pid_t { process.processIdentifier }
  var isRunning: Bool { process.isRunning }
  /// Its exit status, or 128 and the signal; nil while it runs.
  var status: Int32? {
    process.isRunning ? nil : process.terminationStatus + (process.terminationReason == .uncaughtSignal ? 128 : 0)
  }
  var log: String { (try? String(decoding: Data(contentsOf: URL(fileURLWithPath: logPath)), as: UTF8.self)) ?? "" }

  func type(_ line: String) throws { try input.fileHandleForWriting.write(contentsOf: Data((line + "\n").utf8)) }

  func signal(_ number: Int32) { if process.isRunning { _ = Foundation.kill(id, number) } }

  /// kill -9, and gone when this returns: it, and what it started. Foundation makes a process group for each.
  func kill() {
    if process.isRunning { _ = Foundation.kill(-id, SIGKILL) }
    let deadline = Deadline()
    while process.isRunning, !deadline.isOver { usleep(1000) }
  }

  /// Waits for its own end.
  @discardableResult func end(within seconds: Int = Deadline.patience) throws -> Int32 {
    try eventually("\(name) ends\n\(log.suffix(2000))", within: seconds) { status }
  }

  /// The first line of the log, from `start` on, that has `text` in it. An ended program is an error at once.
  @discardableResult func line(with text: String, from start: Int = 0, within seconds: Int = Deadline.patience) throws -> String {
    try eventually("\(name) says '\(text)'", within: seconds) {
      let ended = !isRunning
      if let line = String(log.dropFirst(start)).split(separator: "\n").first(where: { $0.contains(text) }) { return String(line) }
      if ended { throw RigError("\(name) ended with status \(status ?? -1) before it said '\(text)'") }
      return nil
    }
  }
}

extension Subprocess {
  /// How many descriptors it has open.
  var descriptorCount: Int { ((try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(id)/fd")) ?? []).count }

  /// What it has mapped that is a file or a memfd, by name, and how often: guests' memory among them.
  var mappedFiles: [String: Int] {
    let maps = (try? String(contentsOfFile: "/proc/\(id)/maps", encoding: .utf8)) ?? ""
    let names = maps.split(separator: "\n").compactMap { line in line.firstIndex(of: "/").map { String(line[$0...]) } }
    return Dictionary(names.map { ($0, 1) }, uniquingKeysWith: +)
  }

  /// KiB of memory that is its own: neither a file's nor a guest's.
  var ownKibibytes: Int {
    let lines = ((try? String(contentsOfFile: "/proc/\(id)/status", encoding: .utf8)) ?? "").split(separator: "\n")
    return lines.first { $0.hasPrefix("RssAnon:") }?.split { !$0.isNumber }.first.flatMap { Int($0) } ?? 0
  }

  /// Nanoseconds of processor time, those of threads that have ended too.
  var processorTime: UInt64 {
    var (clock, time) = (clockid_t(), timespec())
    precondition(clock_getcpuclockid(id, &clock) == 0 && clock_gettime(clock, &time) == 0, "\(name) is gone")
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}

/// Programs that are waited for.
enum Shell {
  struct Outcome {
    var status: Int32
    var output: String
  }

  static func run(_ words: [String], within seconds: Int = Deadline.patience) throws -> Outcome {
    let folder = FileManager.default.temporaryDirectory.path + "/sluice-rig-" + UUID().uuidString.prefix(8)
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let process = try Subprocess("command", words, folder: folder)
    try process.end(within: seconds)
    return Outcome(status: process.status ?? -1, output: process.log)
  }

  /// Its output; another status than 0 is an error.
  @discardableResult static func check(_ words: [String], within seconds: Int = Deadline.patience) throws -> String {
    let outcome = try run(words, within: seconds)
    guard outcome.status == 0 else { throw RigError("\(words.joined(separator: " ")): status \(outcome.status): \(outcome.output)") }
    return outcome.output
  }
}
