/// When the next frame is due, and how well that was kept. All times in nanoseconds from the start.
struct Pacer {
  private let pace: ReplayOptions.Pace
  private var sentFrames: UInt64 = 0
  /// Line bits put on the wire: each frame with FCS, preamble and gap.
  private var sentBits: Double = 0
  private var firstTime: UInt64?
  private var lastDue: UInt64 = 0
  private var lastSent: UInt64 = 0

  /// How late each paced frame was: counts by power of two of nanoseconds, and the largest.
  private(set) var lateness = DurationHistogram()

  init(_ pace: ReplayOptions.Pace) { self.pace = pace }

  /// Bytes that a frame takes on the line beyond those captured: FCS 4, preamble and delimiter 8, gap 12.
  static let lineOverhead = 24

  var isPaced: Bool { pace != .top }

  /// When a frame is due.
  mutating func due(_ frame: borrowing TraceFrame) -> UInt64 {
    switch pace {
    case .top: return 0
    case .original(let multiplier):
      let time = unsafe frame.time
      if firstTime == nil { firstTime = time }
      return Self.bounded(Double(time - firstTime!) / multiplier)
    case .framesPerSecond(let rate): return Self.bounded(Double(sentFrames) * 1e9 / rate)
    case .gigabitsPerSecond(let rate): return Self.bounded(sentBits / rate)
    }
  }

  /// A moment that can be added to the clock's: what is due in more than a century is due then.
  private static func bounded(_ nanoseconds: Double) -> UInt64 { UInt64(min(nanoseconds, 0x1p62)) }

  /// A frame was put on the wire.
  mutating func sent(_ byteCount: Int, due: UInt64, at now: UInt64) {
    sentFrames += 1
    sentBits += Double((byteCount + Self.lineOverhead) * 8)
    guard isPaced else { return }
    lastDue = due
    lastSent = max(now, due)
    lateness.record(now > due ? now - due : 0)
  }

  /// What was asked for, in words of the command line.
  var asked: String {
    switch pace {
    case .top: "top"
    case .original(let multiplier): multiplier == 1 ? "original" : "x\(Self.text(multiplier))"
    case .framesPerSecond(let rate): "pps=\(Self.text(rate))"
    case .gigabitsPerSecond(let rate): "gbps=\(Self.text(rate))"
    }
  }
  private static func text(_ value: Double) -> String {
    value == value.rounded() && abs(value) < 1e15 ? String(Int64(value)) : String(value)
  }

  /// Frames a second that were asked for on average, over the frames that were sent.
  var askedRate: Double? {
    guard isPaced, sentFrames > 1, lastDue > 0 else { return nil }
    return Double(sentFrames - 1) * 1e9 / Double(lastDue)
  }

  /// What became of that: the same frames, until the last of them was put on the wire.
  var achievedRate: Double? {
    guard isPaced, sentFrames > 1, lastSent > 0 else { return nil }
    return Double(sentFrames - 1) * 1e9 / Double(lastSent)
  }
}
