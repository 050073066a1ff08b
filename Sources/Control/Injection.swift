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
  private let card: SimulatedNetworkCard
  private let sessions: [Session]
  private let cancellation: Cancellation
  private let answer: (Result<InjectReport, ControlError>) -> Void
  private let trace: TraceWire
  /// What came of this trace's frames at the card.
  private let counters = TrafficCounters()
  private let before: [PathTotals]
  private let start = MonotonicClock.now()
  /// What each VM's queues had received when the last of the trace was on the wire. What arrives later is other traffic.
  private var targets: [UInt64]?
  /// Since when nothing has been settled, and how much had been then.
  private var quietSince: (time: UInt64, settled: UInt64)?
  private var interruption: String?

  /// Puts the trace on the wire.
  ///
  /// - Parameter trace: `open` made it of the same request.
  init(
    _ request: InjectRequest, _ trace: TraceWire, card: SimulatedNetworkCard, sessions: [Session], cancellation: Cancellation,
    _ answer: @escaping (Result<InjectReport, ControlError>) -> Void
  ) {
    self.request = request
    self.card = card
    self.sessions = sessions
    self.cancellation = cancellation
    self.answer = answer
    self.trace = trace
    before = sessions.map(\.device.receiveTotals)
    card.card.attach(trace, waits: trace.pace == .top, patience: Self.patience, counting: counters)
  }

  /// Reads what a request asks for, all of it if it is not too long. On any thread; it takes as long as it takes.
  static func open(_ request: InjectRequest) throws(ControlError) -> TraceWire {
    let pace = try pace(request.speed)
    guard request.loops > 0 else { throw .badRequest("loops: \(request.loops); at least 1") }
    guard request.file.hasPrefix("/") else { throw .badRequest("file: \(request.file): the path must be absolute") }
    do {
      return try TraceWire(files: [request.file], loops: request.loops, filter: request.filter, pace: pace)
    } catch { throw .badRequest("\(error)") }
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
    guard trace.isFinished else { return false }
    let (inFlight, settled) = progress
    if inFlight == 0 { return true }
    // A path that stops settles what it held; what is out after so long will not come back.
    let now = MonotonicClock.now()
    if quietSince?.settled != settled { quietSince = (now, settled) }
    return now - quietSince!.time > Self.patience
  }

  /// Of all receive queues, once the trace is on the wire: frames that the card had stored by then and no path has settled,
  /// and all frames that were settled.
  private var progress: (inFlight: UInt64, settled: UInt64) {
    let settled = sessions.map(\.device.settledOfCard)
    if targets == nil {
      // The card counts a burst after its descriptors are written back, when a path may have settled them: between two of its
      // steps its figures are complete.
      targets = card.betweenSteps { sessions.map { card.arrived(in: $0.number, queues: $0.vm.queuePairs)?.frames ?? 0 } }
    }
    return (Self.inFlight(arrived: targets ?? [], settled: settled), settled.reduce(0, &+))
  }

  /// Returns how many of the frames that had arrived are not settled. The two are counters of different threads: what was
  /// settled may include frames that came later, of any VM, so that each VM is compared with itself and never below zero.
  static func inFlight(arrived: [UInt64], settled: [UInt64]) -> UInt64 {
    zip(arrived, settled).reduce(0) { $0 &+ ($1.0 > $1.1 ? $1.0 &- $1.1 : 0) }
  }

  func cancel(_ reason: String) { interruption = reason }

  /// Takes the trace off the wire, and answers.
  func finish() {
    card.card.detach(trace)
    if cancellation.isRequested { interruption = "it was not wanted any longer" }
    var delivered: [String: UInt64] = [:]
    var drops = card.drops(in: counters)
    for (session, before) in zip(sessions, before) {
      // What paths drop is not told apart by where it came from.
      let after = session.device.receiveTotals
      for (reason, count) in after.droppedBy {
        let earlier = before.droppedBy[reason] ?? 0
        let fresh = count > earlier ? count - earlier : 0
        if fresh > 0 { drops[reason, default: 0] += fresh }
      }
      let stored = card.stored(in: session.number, queues: session.vm.queuePairs, by: counters)
      delivered[session.vm.name] = stored - min(stored, after.dropped &- before.dropped)
    }
    answer(
      .success(
        InjectReport(
          file: request.file, loops: request.loops,
          frames: InjectReport.Frames(
            sent: trace.sentFrames, replicated: counters.replicatedFrames, delivered: delivered.values.reduce(0, +),
            host: card.storedForHost(by: counters), dropped: drops.values.reduce(0, +)),
          bytes_sent: trace.sentBytes, dropped_by: drops, delivered: delivered,
          elapsed_s: Double(MonotonicClock.now() - start) / 1e9, interrupted: interruption ?? trace.failure)))
  }
}
