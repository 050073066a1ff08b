internal import Linux
public import Simulation

/// A trace at the end of a running card's wire: its frames, at top speed or at their times, as often as asked for.
///
/// Read into memory when it is opened if it is small enough, else while it plays: then a step of the card waits for the
/// file. The card asks it on the pump's thread; what is said below may be read from any thread.
public final class TraceWire: WireSource, @unchecked Sendable {
  public let pace: ReplayOptions.Pace
  private var trace: TraceSource
  private var pacer: Pacer
  private var start: UInt64?
  /// When the current frame may go, by the monotonic clock.
  private var next: UInt64?
  private var error: ReplayError?
  private let finished = SharedWord()
  private let frames = SharedWord()
  private let bytes = SharedWord()

  /// - Parameters:
  ///   - files: traces, one after the other; no pipe, for a card does not wait for one.
  ///   - filter: a BPF expression that frames must match.
  public init(
    files: [String], loops: Int = 1, filter: String? = nil, pace: ReplayOptions.Pace = .top
  ) throws(ReplayError) {
    if let pipe = files.first(where: TraceSource.isPipe) {
      throw .usage("\(pipe == "-" ? "standard input" : pipe): a card's wire cannot wait for a pipe; give a file")
    }
    self.pace = pace
    var options = ReplayOptions(files: files)
    options.limit.loops = loops
    options.filter = filter
    options.pace = pace
    trace = try TraceSource.open(options)
    pacer = Pacer(pace)
  }

  /// Whether every frame was offered to the card, and taken or lost there; or the trace could not be read further.
  public var isFinished: Bool { finished.value != 0 }
  /// Frames that were, and their bytes.
  public var sentFrames: UInt64 { frames.value }
  public var sentBytes: UInt64 { bytes.value }
  /// Why it ended before its time; known when `isFinished` is.
  public var failure: String? {
    guard isFinished else { return nil }
    return error.map { "\($0)" } ?? trace.failure.map { "\($0)" }
  }

  public func peek(_ limit: Int, into burst: WireBurst) -> Int {
    guard !isFinished else { return 0 }
    do throws(ReplayError) {
      if !pacer.isPaced {
        let count = try trace.peek(limit, into: burst)
        if count == 0 { finish() }
        return count
      }
      guard try trace.advance() else {
        finish()
        return 0
      }
    } catch {
      self.error = error
      finish()
      return 0
    }
    let now = MonotonicClock.now()
    if start == nil { start = now }
    let due = start! + (unsafe pacer.due(trace.current))
    next = due > now ? due : nil
    if due > now { return 0 }
    unsafe burst[0] = trace.current.wire
    return 1
  }

  public func consume(_ count: Int) {
    guard count > 0 else { return }
    if pacer.isPaced { pacer.sent(unsafe trace.current.wire.count, due: 0, at: 0) }
    let consumed = trace.consume(count)
    frames.set(frames.value + UInt64(count))
    bytes.set(bytes.value + consumed)
  }

  public var due: UInt64? { next }

  private func finish() {
    next = nil
    finished.set(1)
  }
}
