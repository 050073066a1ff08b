internal import Linux
internal import Replay
internal import Simulation

/// A trace on the card's wire, from the request to the report.
///
/// The pump asks it for frames with the card's lock held; the control thread begins it, looks whether it is done, and
/// ends it.
final class Injection {
  /// A wish of whoever asked for it that it should end; from any thread.
  final class Cancellation: Sendable {
    private let word = SharedWord()
    func request() { word.set(1) }
    var isRequested: Bool { word.value != 0 }
  }

  /// How long the wire waits for a guest that takes nothing, in nanoseconds, before its frames are dropped.
  static let patience: UInt64 = 5_000_000_000

  private let request: InjectRequest
  private let host: CardHost
  private let sessions: [Session]
  private let cancellation: Cancellation
  private let answer: (Result<InjectReport, ControlError>) -> Void
  private let source: TraceWire
  private let before: Tally
  private let start = MonotonicClock.now()
  /// When the last frame moved, and how many had been settled then.
  private var quietSince: (time: UInt64, settled: UInt64)?

  init(
    _ request: InjectRequest, host: CardHost, sessions: [Session], cancellation: Cancellation,
    _ answer: @escaping (Result<InjectReport, ControlError>) -> Void
  ) throws(ControlError) {
    self.request = request
    self.host = host
    self.sessions = sessions
    self.cancellation = cancellation
    self.answer = answer
    let pace = try Self.pace(request.speed)
    guard request.loops > 0 else { throw .badRequest("loops: \(request.loops); at least 1") }
    guard request.file.hasPrefix("/") else { throw .badRequest("file: \(request.file): the path must be absolute") }
    do {
      source = TraceWire(try TraceFeed(file: request.file, loops: request.loops, pace: pace, filter: request.filter))
    } catch { throw .badRequest("\(error)") }
    before = Tally(host: host, sessions: sessions)
    host.card.attach(source, waits: pace == .top, patience: Self.patience)
  }

  private static func pace(_ text: String) throws(ControlError) -> ReplayOptions.Pace {
    if text == "top" { return .top }
    let parts = text.split(separator: "=", maxSplits: 1)
    guard parts.count == 2, parts[0] == "pps", let rate = Double(parts[1]), rate > 0, rate.isFinite else {
      throw .badRequest("speed: \(text); top, or pps=N with more than 0 frames a second")
    }
    return .framesPerSecond(rate)
  }

  /// Whether every frame was sent and has been settled, or the end was asked for.
  var isDone: Bool {
    if cancellation.isRequested { return true }
    guard source.isFinished else { return false }
    let tally = Tally(host: host, sessions: sessions)
    if tally.inFlight == 0 { return true }
    // What a lane that was stopped held is settled by its stop; what is still out after so long will not come back.
    let now = MonotonicClock.now()
    if quietSince?.settled != tally.settled { quietSince = (now, tally.settled) }
    return now - quietSince!.time > Self.patience
  }

  func cancel(_ reason: String) { source.cancel(reason) }

  /// Ends it, and answers.
  func finish() {
    if cancellation.isRequested { source.cancel("it was not wanted any longer") }
    host.card.detach(source)
    let after = Tally(host: host, sessions: sessions)
    var report = InjectReport(
      file: request.file, loops: request.loops,
      frames: InjectReport.Frames(
        sent: source.sentFrames, replicated: after.replicated - before.replicated, delivered: 0, dropped: 0),
      bytes_sent: source.sentBytes, dropped_by: after.dropped.merging(before.dropped) { $0 - $1 }.filter { $0.value > 0 },
      delivered: after.delivered.merging(before.delivered) { $0 - $1 },
      elapsed_s: Double(MonotonicClock.now() - start) / 1e9, interrupted: source.failure)
    report.frames.delivered = report.delivered.values.reduce(0, +)
    report.frames.dropped = report.dropped_by.values.reduce(0, +)
    answer(.success(report))
  }
}

/// A trace as a source of the card's wire. Its numbers may be read when the card does not ask it any more, or with the
/// card's lock held; `isFinished` at any time.
private final class TraceWire: WireSource {
  private let feed: TraceFeed
  private let start = MonotonicClock.now()
  private let finished = SharedWord()

  init(_ feed: TraceFeed) { self.feed = feed }

  var isFinished: Bool { finished.value != 0 }
  var sentFrames: UInt64 { feed.sentFrames }
  var sentBytes: UInt64 { feed.sentBytes }
  var failure: String? { feed.failure }
  func cancel(_ reason: String) { feed.cancel(reason) }

  func peek() -> WireFrame? {
    let frame = unsafe feed.current(now: feed.isPaced ? MonotonicClock.now() - start : 0)
    if unsafe frame == nil && feed.isFinished { finished.set(1) }
    return unsafe frame
  }
  func consume() { feed.consume(now: feed.isPaced ? MonotonicClock.now() - start : 0) }

  /// A paced trace is looked at every millisecond; the next frame of another is there, or the wire waits for a queue.
  var due: UInt64? { isFinished || !feed.isPaced ? nil : MonotonicClock.now() + 1_000_000 }
}

/// What had become of all frames at one moment.
private struct Tally {
  var replicated: UInt64 = 0
  var delivered: [String: UInt64] = [:]
  var dropped: [String: UInt64] = [:]
  /// Frames in the card's queues that no path has settled.
  var inFlight: UInt64 = 0
  var settled: UInt64 = 0

  init(host: CardHost, sessions: [Session]) {
    let traffic = host.card.counters
    for session in sessions {
      let receive = session.device.receiveTotals
      delivered[session.vm.name] = receive.delivered
      for (reason, count) in receive.droppedBy { dropped[reason, default: 0] += count }
      let arrived = host.arrived(in: session.number, queues: session.vm.queuePairs)
      settled += receive.delivered + receive.dropped
      inFlight += arrived.frames &- (receive.delivered + receive.dropped)
    }
    for (reason, count) in host.cardDrops() { dropped[reason, default: 0] += count }
    replicated = traffic.replicatedFrames
  }
}
