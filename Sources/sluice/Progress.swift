import Replay

/// What is said while a replay runs, on standard error: one line that is redrawn on a terminal, a line now and then
/// elsewhere.
struct Progress {
  /// Seconds between two lines; on a terminal, between two drawings.
  static let interval = 10.0
  static let terminalInterval = 0.1

  private let stream: StandardStream
  private var drawn: RedrawnLine
  private var lastTime: Double
  private var last = ReplayProgress(
    framesReceived: 0, framesDelivered: 0, bytesDelivered: 0, framesDropped: 0, elapsed: 0, fraction: nil)
  private let now: () -> Double

  /// - Parameter now: seconds of the clock on the wall; a deterministic replay has another.
  init(stream: StandardStream = .error, now: @escaping () -> Double) {
    self.stream = stream
    self.now = now
    drawn = RedrawnLine(stream)
    lastTime = now()
  }

  mutating func update(_ progress: ReplayProgress) {
    let time = now()
    guard time - lastTime >= (drawn.isTerminal ? Self.terminalInterval : Self.interval) else { return }
    let line = Self.line(progress, since: last)
    if drawn.isTerminal { drawn.draw(line) } else { stream.note(line + "\n") }
    (last, lastTime) = (progress, time)
  }

  /// Leaves the terminal as it was.
  mutating func finish() { drawn.clear() }

  /// Rates are those since `earlier`.
  static func line(_ progress: ReplayProgress, since earlier: ReplayProgress) -> String {
    let seconds = progress.elapsed - earlier.elapsed
    let frames = progress.framesDelivered - min(earlier.framesDelivered, progress.framesDelivered)
    let bytes = progress.bytesDelivered - min(earlier.bytesDelivered, progress.bytesDelivered)
    let perSecond = seconds > 0 ? 1 / seconds : 0
    var parts = [
      leftPadded(frameRate(Double(frames) * perSecond), to: 14),
      leftPadded(bitRate(Double(bytes) * 8 * perSecond), to: 11),
      "dropped " + grouped(progress.framesDropped),
      clock(progress.elapsed) + " elapsed",
    ]
    if let fraction = progress.fraction, fraction > 0 {
      parts.append(clock(progress.elapsed * (1 - fraction) / fraction) + " left")
      parts.append(fixed((fraction * 100).rounded(.down), 0) + " %")
    }
    return parts.joined(separator: "  ")
  }
}
