internal import CLinux
internal import Datapath
internal import Linux
internal import Simulation

/// A replay in real time: the wire, the card and the paths on the calling thread, the guests on another.
struct ThreadedRun: ~Copyable {
  private var engine: Engine
  /// The wire waits for a guest that makes no progress until the guests' thread has been round so often, and for so
  /// many nanoseconds: a thread that the machine does not run is not a guest that has stalled.
  private static let patientRounds: UInt64 = 64
  private static let patience: UInt64 = 5_000_000
  /// Between two looks at the clock for progress and limits, in rounds.
  private static let roundsPerLook = 256

  init(_ engine: consuming Engine) { self.engine = engine }

  mutating func run(
    until isCancelled: () -> Bool, progress: (ReplayProgress) -> Void
  ) throws(ReplayError) -> ReplayReport {
    let processors = engine.options.processors ?? Array(Thread.processors.prefix(2))
    let crew = try GuestCrew(engine.rig.machines.map(\.guest))
    if let first = processors.first, !Thread.pin(to: first) {
      throw .usage("--cpus \(processors[0]): this process may not run on that processor")
    }
    let thread = try Self.start(crew, on: processors.last)
    defer { Thread.unpin() }
    // It begins on this thread's processor, and gets away from there only when this thread lets it: frames of the first
    // milliseconds would find no guest.
    var patience = 2000
    while crew.rounds == 0 && patience > 0 {
      MonotonicClock.sleep(nanoseconds: 50_000)
      patience -= 1
    }

    let waitedBefore = ThreadWait.nanoseconds()
    let start = MonotonicClock.now()
    let result = drive(crew, start: start, isCancelled: isCancelled, progress: progress)
    let (end, waited) = (result.end, ThreadWait.nanoseconds())
    for lane in engine.rig.lanes.indices { engine.stop(lane, .requested) }
    crew.stop()
    thread.join()
    if let error = result.error { throw error }
    var report = engine.report(elapsed: Double(end - start) / 1e9)
    report.interrupted = result.wasCancelled
    if let waitedBefore, let waited, let guests = crew.waited {
      report.waited_ns = ReplayReport.Waits(datapath: waited - waitedBefore, guests: guests)
    }
    return report
  }

  private static func start(_ crew: GuestCrew, on processor: Int?) throws(ReplayError) -> Thread {
    do { return try Thread(name: "guests", processor: processor) { crew.run() } } catch {
      throw .machine("the guests' thread: \(error)")
    }
  }

  /// Rounds of wire and paths until everything was sent and has left.
  private mutating func drive(
    _ crew: GuestCrew, start: UInt64, isCancelled: () -> Bool, progress: (ReplayProgress) -> Void
  ) -> (end: UInt64, error: ReplayError?, wasCancelled: Bool) {
    let lanes = engine.rig.lanes.indices
    let isPaced = engine.isPaced
    // Lanes are turned again at once, but where the wire waits for a frame's time.
    if !isPaced { for lane in lanes { engine.rig.worker.withPath(lane) { $0.notifiesLate = true } } }
    let burst = modelBurst(rings: lanes.count)
    let deadline = engine.options.limit.seconds.map { start + UInt64($0 * 1e9) }
    var faults = 0
    var round = 0
    var isSending = true
    var wasCancelled = false
    var error: ReplayError?
    // Since when the wire has waited for a guest, and since when the last frames have not moved.
    var heldSince: (time: UInt64, round: UInt64)?
    var drainSince: UInt64 = 0
    var nextProgress = start + 250_000_000

    while true {
      var moved = false
      var wait: UInt64 = 0
      let (before, sourceBefore) = (TickCounter.now(), engine.sourceTicks)
      if isSending {
        do throws(ReplayError) {
          switch try engine.feed(burst, time: before, clock: { MonotonicClock.now() - start }) {
          case .sent: moved = true; heldSince = nil
          case .early(let due): wait = due
          case .finished: isSending = false
          case .held(let lane):
            let now = MonotonicClock.now()
            if let since = heldSince {
              if now - since.time > Self.patience, crew.rounds - since.round > Self.patientRounds {
                engine.giveUpWaiting(for: lane)
                heldSince = nil
              }
            } else { heldSince = (now, crew.rounds) }
          }
        } catch let failure {
          error = failure
          isSending = false
        }
      }
      let (between, sourceBetween) = (TickCounter.now(), engine.sourceTicks)
      var worked = false
      for lane in lanes {
        engine.lookAhead(from: lane)
        if engine.move(lane) > 0 { worked = true }
        // A latency ends here; else what is noted of it is no part of what a path takes.
        if isPaced { engine.noteTurn(lane, time: between) }
        if engine.rig.worker.takeSignal(lane) { crew.signal() }
      }
      let after = TickCounter.now()
      if !isPaced { for lane in lanes { engine.noteTurn(lane, time: between) } }
      if moved { engine.modelTicks += between - before - (sourceBetween - sourceBefore) }
      let compared = isPaced ? engine.sourceTicks - sourceBetween : 0
      if worked || moved { engine.pathTicks += after - between - compared }
      if worked { heldSince = nil }

      round += 1
      if round % Self.roundsPerLook == 0 || !moved {
        faults = engine.checkBus(after: faults)
        let now = MonotonicClock.now()
        if now >= nextProgress {
          progress(engine.progress(elapsed: Double(now - start) / 1e9))
          nextProgress = now + 100_000_000
        }
        if isSending {
          if isCancelled() { wasCancelled = true; isSending = false }
          if let deadline, now >= deadline { isSending = false }
          drainSince = now
          if wait > 0 { idle(until: start + wait, now: now) }
        } else {
          if worked { drainSince = now }
          // What is in the card's queues leaves in the next turns; a guest that has stalled holds nothing back, for
          // a frame in a queue has its buffer already.
          if engine.inFlight == 0 || now - drainSince > 4 * Self.patience { return (now, error, wasCancelled) }
        }
      }
    }
  }

  /// Lets time pass until the next frame is due: asleep if that is long, for the last part awake.
  private func idle(until due: UInt64, now: UInt64) {
    guard due > now + 60_000 else { return }
    MonotonicClock.sleep(nanoseconds: min(due - now - 50_000, 10_000_000))
  }
}
