internal import Capture
public import Simulation

/// A trace that is put on the wire of a card that somebody else runs: what is due is current until it is consumed.
///
/// One thread at a time. A class: the card's pump and who asked for the injection share it.
public final class TraceFeed {
  private var source: TraceSource
  private var pacer: Pacer
  /// Frames and bytes that were put on the wire.
  public private(set) var sentFrames: UInt64 = 0
  public private(set) var sentBytes: UInt64 = 0
  /// Whether there is nothing more to come.
  public private(set) var isFinished = false
  /// Why the trace ended before its end, or nil.
  public private(set) var failure: String?

  /// Opens the trace; what cannot be read at all is known at once.
  ///
  /// - Parameter file: of this machine; not standard input.
  public init(
    file: String, loops: Int = 1, pace: ReplayOptions.Pace = .top, filter: String? = nil
  ) throws(ReplayError) {
    var options = ReplayOptions(files: [file])
    options.limit.loops = loops
    options.pace = pace
    options.filter = filter
    source = try TraceSource.open(options)
    pacer = Pacer(pace)
  }

  public var skippedFrames: UInt64 { source.skipped }
  /// Whether frames are due at moments of their own, and lost if no buffer waits for them then.
  public var isPaced: Bool { pacer.isPaced }

  /// The next frame if it is due.
  ///
  /// - Parameter now: nanoseconds since the injection began.
  public func current(now: UInt64) -> WireFrame? {
    guard !isFinished else { return unsafe Optional<WireFrame>.none }
    do throws(ReplayError) {
      guard try source.advance() else { return unsafe finish(source.failure.map { "\($0)" }) }
    } catch { return unsafe finish("\(error)") }
    if pacer.isPaced, unsafe pacer.due(source.current) > now { return unsafe Optional<WireFrame>.none }
    return unsafe source.current.wire
  }

  private func finish(_ reason: String?) -> WireFrame? {
    failure = reason
    isFinished = true
    return unsafe Optional<WireFrame>.none
  }

  /// The current frame was put on the wire.
  public func consume(now: UInt64) {
    let count = unsafe source.current.wire.count
    if pacer.isPaced { pacer.sent(count, due: unsafe pacer.due(source.current), at: now) }
    sentFrames += 1
    sentBytes += UInt64(count)
    source.consume()
  }

  /// Nothing more is put on the wire.
  public func cancel(_ reason: String) {
    if !isFinished { _ = unsafe finish(reason) }
  }
}
