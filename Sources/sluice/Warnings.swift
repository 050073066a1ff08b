import Logging

/// Warnings as a command line writes them: no time, no level, one line each on standard error.
struct Warnings: LogHandler {
  var metadata: Logger.Metadata = [:]
  var logLevel = Logger.Level.warning

  static func logger(quiet: Bool) -> Logger {
    var logger = Logger(label: "sluice") { _ in Warnings() }
    if quiet { logger.logLevel = .critical }
    return logger
  }

  /// What a measuring command says first in a build that is no good for it.
  static func unoptimised(_ log: Logger, _ figures: String) {
    #if DEBUG
      log.warning("this is a debug build: its \(figures) say nothing; build with -c release")
    #endif
  }

  func log(event: LogEvent) {
    StandardStream.error.note("sluice: warning: \(printable(event.message.description))\n")
  }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }
}
