/// A line of a terminal that says where something stands, written over and over; elsewhere nothing.
struct RedrawnLine {
  /// Clears the line that the cursor is in.
  static let clearing = "\r\u{1B}[K"

  private let stream: StandardStream
  let isTerminal: Bool
  private var hasDrawn = false

  init(_ stream: StandardStream = .error) {
    self.stream = stream
    isTerminal = stream.isTerminal
  }

  mutating func draw(_ line: String) {
    guard isTerminal else { return }
    stream.note(Self.clearing + String(line.prefix((stream.columns ?? 80) - 1)))
    hasDrawn = true
  }

  /// Leaves the terminal as it was.
  mutating func clear() {
    if hasDrawn { stream.note(Self.clearing) }
    hasDrawn = false
  }
}
