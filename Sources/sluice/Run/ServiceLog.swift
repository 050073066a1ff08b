import Control
import FoundationEssentials
import Logging
import Linux

/// The log of a running back-end: swift-log's events as lines on standard error, so many of each source.
final class ServiceLog: Sendable {
  private struct State {
    var options: LogOptions
    var rate = LogRate()
  }
  private let state: Mutex<State>
  private let writer: LogWriter
  private let now: @Sendable () -> Date

  init(_ options: LogOptions, to stream: StandardStream = .error, now: @escaping @Sendable () -> Date = { Date() }) throws(Failure) {
    state = Mutex(State(options: options))
    self.now = now
    writer = try LogWriter(to: stream) { count in
      Self.line("log lines were lost: their reader is too slow", "warning", [("count", String(count))], at: now()).text(options.format)
    }
  }

  /// A logger whose lines come here.
  var logger: Logger {
    var logger = Logger(label: "sluice") { _ in Handler(log: self) }
    // What is left out is decided by the options, which a running back-end reads again.
    logger.logLevel = .trace
    return logger
  }

  /// A line of the back-end's, through swift-log as any other.
  func log(_ event: Control.LogEvent) {
    let metadata = event.metadata.reduce(into: Logger.Metadata()) { $0[$1.key] = .string($1.value) }
    logger.log(level: Logger.Level(event.level), Logger.Message(stringLiteral: event.message), metadata: metadata)
  }

  func set(level: Control.LogEvent.Level) { state.withLock { $0.options.level = level } }

  /// Says what was left out, and waits until all is written.
  func close() {
    let left = state.withLock { ($0.rate.drain(), $0.options.format) }
    for (source, count) in left.0 { writer.enqueue(Self.suppressed(source, count, at: now()).text(left.1)) }
    writer.close()
  }

  fileprivate func write(_ level: Logger.Level, _ message: String, _ metadata: [(key: String, value: String)]) {
    let time = now()
    // A source is a VM, or else who asked for something.
    let source = metadata.first { $0.key == "vm" || $0.key == "uid" }.map { "\($0.key)=\($0.value)" } ?? ""
    let lines: [String] = state.withLock { state in
      guard level >= Logger.Level(state.options.level) else { return [] }
      guard let before = state.rate.enter(source, at: time.timeIntervalSinceReferenceDate) else { return [] }
      let format = state.options.format
      let line = LogLine(time: time, level: level.rawValue, message: message, metadata: metadata).text(format)
      return before == 0 ? [line] : [Self.suppressed(source, before, at: time).text(format), line]
    }
    for line in lines { writer.enqueue(line) }
  }

  private static func suppressed(_ source: String, _ count: UInt64, at time: Date) -> LogLine {
    let parts = source.split(separator: "=", maxSplits: 1).map(String.init)
    let who = parts.count == 2 ? [(parts[0], parts[1])] : []
    return line("log lines were left out: too many at a time", "warning", who + [("count", String(count))], at: time)
  }
  private static func line(_ message: String, _ level: String, _ metadata: [(String, String)], at time: Date) -> LogLine {
    LogLine(time: time, level: level, message: message, metadata: metadata.map { (key: $0.0, value: $0.1) })
  }

  private struct Handler: LogHandler {
    let log: ServiceLog
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace

    func log(event: Logging.LogEvent) {
      let all = metadata.merging(event.metadata ?? [:]) { $1 }
      // What identifies comes first.
      let first = ["vm", "ring", "verb", "uid", "pid"]
      let keys = first.filter { all[$0] != nil } + all.keys.filter { !first.contains($0) }.sorted()
      log.write(event.level, event.message.description, keys.map { (key: $0, value: all[$0].map { "\($0)" } ?? "") })
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
      get { metadata[key] }
      set { metadata[key] = newValue }
    }
  }
}

extension Logger.Level {
  init(_ level: Control.LogEvent.Level) {
    self =
      switch level {
      case .debug: .debug
      case .info: .info
      case .notice: .notice
      case .warning: .warning
      case .error: .error
      }
  }
}
