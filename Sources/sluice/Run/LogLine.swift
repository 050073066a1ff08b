import FoundationEssentials

/// One line of the log, as it is written.
struct LogLine {
  let time: Date
  let level: String
  let message: String
  /// In the order of the line.
  let metadata: [(key: String, value: String)]

  func text(_ format: LogOptions.Format) -> String { format == .text ? text : json }

  private var stamp: String { time.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true)) }

  private var text: String {
    let pairs = metadata.map { " \($0.key)=\(Self.needsQuotes($0.value) ? JSONString.quoted($0.value) : $0.value)" }.joined()
    return "\(stamp) \(rightPadded(level, to: 7)) \(oneLine(message))\(pairs)\n"
  }

  /// Of what somebody else may have written nothing may begin a line, or look like a key.
  private func oneLine(_ text: String) -> String { printable(text).split(whereSeparator: \.isNewline).joined(separator: " ") }

  private static func needsQuotes(_ value: String) -> Bool {
    value.isEmpty || value.unicodeScalars.contains { $0.value <= 0x20 || $0 == "\"" || $0 == "=" || $0 == "\\" || (0x7F...0xA0).contains($0.value) || $0.value == 0x2028 || $0.value == 0x2029 }
  }

  private var json: String {
    let own = ["time": stamp, "level": level, "message": message]
    let head = ["time", "level", "message"].map { "\(JSONString.quoted($0)):\(JSONString.quoted(own[$0] ?? ""))" }
    var seen = Set(own.keys)
    let rest = metadata.compactMap { pair in
      // A reader keeps one of two keys, and not always the same one.
      seen.insert(pair.key).inserted ? "\(JSONString.quoted(pair.key)):\(JSONString.quoted(pair.value))" : nil
    }
    return "{" + (head + rest).joined(separator: ",") + "}\n"
  }
}
