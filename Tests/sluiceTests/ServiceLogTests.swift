import Control
import Foundation
import Glibc
import Logging
import Testing

@testable import sluice

struct LogLineTests {
  private func line(_ message: String, _ metadata: [(String, String)] = []) -> LogLine {
    LogLine(
      time: Date(timeIntervalSince1970: 1_764_000_000.1239), level: "info", message: message,
      metadata: metadata.map { (key: $0.0, value: $0.1) })
  }

  @Test func `as text it is time, level, message and pairs`() {
    #expect(
      line("front-end connected", [("vm", "web"), ("pid", "812"), ("socket", "/run/a b")]).text(.text)
        == "2025-11-24T16:00:00.123Z info    front-end connected vm=web pid=812 socket=\"/run/a b\"\n")
  }

  @Test func `as JSON it is an object`() throws {
    let text = line("a \"b\"", [("vm", "web"), ("level", "mine"), ("x", "1\n2")]).text(.json)
    let json = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: String])
    #expect(json == ["time": "2025-11-24T16:00:00.123Z", "level": "info", "message": "a \"b\"", "vm": "web", "x": "1\n2"])
    #expect(text.hasSuffix("}\n") && text.filter { $0 == "\n" }.count == 1)
  }

  @Test(arguments: ["", " ", "a b", "a=b", "\"", "a\nb", "a\u{1B}[2J", "\\", "a\u{85}b", "\u{2028}", "a\r\nerror forged"])
  func `a value of somebody else's stays a value`(value: String) throws {
    for format in LogOptions.Format.allCases {
      let text = line("said " + value, [("x", value), ("y", "1")]).text(format)
      #expect(text.unicodeScalars.filter { $0.properties.generalCategory == .control || $0.value == 0x2028 }.count == 1, "the end alone")
      #expect(text.hasSuffix(format == .text ? " y=1\n" : ",\"y\":\"1\"}\n"))
    }
  }
}

struct LogRateTests {
  @Test func `a source may say so much at once, and then so much a second`() {
    var rate = LogRate()
    let burst = Int(LogRate.burst)
    for _ in 0..<burst { #expect(rate.enter("vm=a", at: 10) == 0) }
    for _ in 0..<7 { #expect(rate.enter("vm=a", at: 10) == nil) }
    #expect(rate.enter("vm=b", at: 10) == 0, "another has its own")
    #expect(rate.enter("vm=a", at: 10 + 1 / LogRate.perSecond) == 7, "and then says how many were left out")
    #expect(rate.enter("vm=a", at: 10 + 1 / LogRate.perSecond) == nil)
    #expect(rate.drain().map(\.source) == ["vm=a"] && rate.drain().isEmpty)
  }

  @Test func `a clock that goes back gives nothing away`() {
    var rate = LogRate()
    for _ in 0..<Int(LogRate.burst) { _ = rate.enter("a", at: 1e9) }
    #expect(rate.enter("a", at: 0) == nil && rate.enter("a", at: 0.1) == nil)
  }

  @Test func `a day of a hostile guest is a bounded file`() {
    var rate = LogRate()
    var lines = 0
    for tick in 0..<(24 * 3600 * 10) { if rate.enter("vm=evil", at: Double(tick) / 10) != nil { lines += 1 } }
    #expect(lines <= Int(LogRate.burst + 24 * 3600 * LogRate.perSecond) + 1)
  }

  @Test func `many sources share what is left`() {
    var rate = LogRate()
    for number in 0..<100_000 { _ = rate.enter("uid=\(number)", at: 0) }
    #expect(rate.enter("uid=100000", at: 0) == nil)
    #expect(rate.drain().count == 1)
  }
}

struct ServiceLogTests {
  /// What is written to a file while `body` runs.
  private func written(_ options: LogOptions, _ body: (ServiceLog) -> Void) throws -> [String] {
    try withFolder { folder in
      let descriptor = unsafe open(folder + "/log", O_WRONLY | O_CREAT | O_APPEND, 0o600)
      defer { close(descriptor) }
      let log = try ServiceLog(options, to: StandardStream(descriptor: descriptor)) { Date(timeIntervalSince1970: 1_764_000_000) }
      body(log)
      log.close()
      return try String(contentsOfFile: folder + "/log", encoding: .utf8).split(separator: "\n").map(String.init)
    }
  }

  @Test func `what identifies comes first, and less than the level is left out`() throws {
    let lines = try written(LogOptions(level: .notice)) { log in
      log.log(LogEvent(.notice, "ring started", ["size": "256", "ring": "0", "vm": "web"]))
      log.log(LogEvent(.info, "not this"))
      log.set(level: .debug)
      log.log(LogEvent(.debug, "but this"))
      log.logger.warning("and this", metadata: ["vm": "web"])
    }
    #expect(
      lines == [
        "2025-11-24T16:00:00.000Z notice  ring started vm=web ring=0 size=256", "2025-11-24T16:00:00.000Z debug   but this",
        "2025-11-24T16:00:00.000Z warning and this vm=web",
      ])
  }

  @Test func `what was left out is said at the end`() throws {
    let lines = try written(LogOptions()) { log in
      for _ in 0..<1000 { log.log(LogEvent(.warning, "ring broken", ["vm": "evil"])) }
      log.log(LogEvent(.info, "fine", ["vm": "good"]))
    }
    #expect(lines.filter { $0.contains("ring broken") }.count == Int(LogRate.burst))
    #expect(lines.contains { $0.hasSuffix("fine vm=good") })
    #expect(lines.last == "2025-11-24T16:00:00.000Z warning log lines were left out: too many at a time vm=evil count=\(1000 - Int(LogRate.burst))")
  }

  @Test func `a reader that has stopped reading holds up nobody`() throws {
    var ends: [CInt] = [0, 0]
    #expect(unsafe pipe(&ends) == 0)
    defer { for end in ends { close(end) } }
    let lost = LostLines()
    let writer = try LogWriter(to: StandardStream(descriptor: ends[1])) { count in
      lost.add(count)
      return ""
    }
    let line = String(repeating: "x", count: 999) + "\n"
    // The pipe holds 64 KiB, the queue 1024 lines; enqueueing goes on all the same.
    for _ in 0..<5000 { writer.enqueue(line) }
    writer.close(seconds: 0.01)
    // Now somebody reads: it ends, and says how many are missing.
    let reader = ends[0]
    let done = DispatchSemaphore(value: 0)
    let ended = DispatchSemaphore(value: 0)
    Foundation.Thread.detachNewThread {
      var buffer = [UInt8](repeating: 0, count: 1 << 16)
      var request = pollfd(fd: reader, events: Int16(POLLIN), revents: 0)
      while done.wait(timeout: .now()) == .timedOut {
        if unsafe poll(&request, 1, 10) > 0 { _ = unsafe read(reader, &buffer, buffer.count) }
      }
      ended.signal()
    }
    writer.close(seconds: 60)
    done.signal()
    ended.wait()
    #expect(lost.count > 0 && lost.count < 5000)
  }

  private final class LostLines: @unchecked Sendable {
    private let lock = NSLock()
    private var sum: UInt64 = 0
    func add(_ count: UInt64) { lock.withLock { sum += count } }
    var count: UInt64 { lock.withLock { sum } }
  }
}
