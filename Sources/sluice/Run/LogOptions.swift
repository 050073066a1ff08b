import Control

/// What of the log is written, and how.
struct LogOptions: Equatable {
  enum Format: String, CaseIterable {
    /// For people: time, level, message, then key=value.
    case text
    /// For programs: one object a line.
    case json
  }
  /// Less than this is left out.
  var level = LogEvent.Level.info
  var format = Format.text
}
