internal import Datapath
internal import Linux
internal import Simulation
internal import Virtio

/// A replay in simulated time on one thread. Which of wire, paths and guests moves next, and how far, is drawn from
/// the seed: the same seed gives the same run, move by move.
struct DeterministicRun: ~Copyable {
  private(set) var engine: Engine
  private let log: EventLog
  private var seed: Seed
  private var faults = 0
  /// Simulated nanoseconds that one move takes.
  private static let moveTime: UInt64 = 100
  /// Rounds without any movement after which a waiting wire gives up on a guest.
  private static let patience = 64

  init(_ engine: consuming Engine, log: EventLog) {
    seed = Seed(engine.options.seed)
    self.engine = engine
    self.log = log
  }

  mutating func run(
    until isCancelled: () -> Bool, progress: (ReplayProgress) -> Void
  ) throws(ReplayError) -> ReplayReport {
    let clock = engine.rig.clock
    let start = clock.now
    log.note("seed \(engine.options.seed)")
    for machine in engine.rig.machines {
      log.note("vm \(machine.vm.name) queues=\(machine.vm.queues) buffers=\(machine.vm.buffers.rawValue) features=0x\(String(machine.guest.features.rawValue, radix: 16))")
    }
    let deadline = engine.options.limit.seconds.map { start + UInt64($0 * 1e9) }
    var isSending = true
    var wasCancelled = false
    var still = 0
    var moves = 0
    while true {
      clock.pause(nanoseconds: Self.moveTime)
      var moved = false
      let lanes = engine.rig.lanes
      let draw = Int.random(in: 0..<(1 + 2 * lanes.count), using: &seed)
      if draw == 0 {
        if isSending {
          let (didMove, goesOn) = try feed(start: start, patient: still < Self.patience)
          moved = didMove
          isSending = goesOn
        }
      } else if draw <= lanes.count {
        moved = turn(draw - 1)
      } else {
        moved = step(draw - 1 - lanes.count)
      }
      faults = engine.checkBus(after: faults)
      still = moved ? 0 : still + 1
      moves += 1
      if moves % 65536 == 0 { progress(engine.progress(elapsed: Double(clock.now - start) / 1e9)) }
      if isSending, isCancelled() { wasCancelled = true; isSending = false }
      if isSending, let deadline, clock.now >= deadline { isSending = false }
      // Every mover was drawn many times over without anything to do.
      if !isSending && still > Self.patience * (1 + 2 * lanes.count) { break }
    }
    let elapsed = clock.now - start
    for lane in engine.rig.lanes.indices { engine.stop(lane, .requested) }
    for machine in engine.rig.machines {
      for queue in 0..<machine.vm.queues {
        machine.guest.resume(queue: queue)
        while machine.guest.step(queue: queue) > 0 {}
      }
    }
    var report = engine.report(elapsed: Double(elapsed) / 1e9)
    report.interrupted = wasCancelled
    log.note("end received=\(report.frames.received) delivered=\(report.frames.delivered) dropped=\(report.frames.dropped)")
    return report
  }

  /// A burst on the wire. Answers whether anything moved, and whether there is more to send.
  private mutating func feed(start: UInt64, patient: Bool) throws(ReplayError) -> (Bool, Bool) {
    let clock = engine.rig.clock
    let count = Int.random(in: 1...Engine.burst, using: &seed)
    switch try engine.feed(count, time: clock.now, clock: { clock.now - start }) {
    case .sent(let sent):
      log.note("\(clock.now - start) wire sent=\(sent) received=\(engine.received)")
      return (true, true)
    case .early(let due):
      // Nothing else will make time pass faster than the moves do.
      if !patient { clock.pause(nanoseconds: due - min(due, clock.now - start)) }
      return (false, true)
    case .held(let lane):
      if !patient {
        log.note("\(clock.now - start) wire gives up on lane=\(lane)")
        engine.giveUpWaiting(for: lane)
        return (true, true)
      }
      return (false, true)
    case .finished: return (false, false)
    }
  }

  private mutating func turn(_ lane: Int) -> Bool {
    let (settledBefore, clock) = (engine.settled[lane], engine.rig.clock)
    let returned = engine.turn(lane, time: clock.now)
    _ = engine.rig.worker.takeSignal(lane)
    if returned || engine.settled[lane] != settledBefore {
      log.note("\(clock.now) path lane=\(lane) settled=\(engine.settled[lane]) lent=\(engine.rig.lanes[lane].counters.lentFrames) bounced=\(engine.rig.lanes[lane].counters.bouncedFrames) dropped=\(engine.rig.lanes[lane].counters.droppedFrames)")
    }
    if let reason = engine.stopped[lane] { noteStop(lane, reason) }
    return returned
  }

  private var notedStops: Set<Int> = []
  private mutating func noteStop(_ lane: Int, _ reason: String) {
    if notedStops.insert(lane).inserted { log.note("\(engine.rig.clock.now) path lane=\(lane) stopped: \(reason)") }
  }

  private mutating func step(_ lane: Int) -> Bool {
    let place = engine.rig.lanes[lane]
    let guest = engine.rig.machines[place.machine].guest
    let frames = guest.step(queue: place.queue)
    if frames > 0 {
      log.note("\(engine.rig.clock.now) guest lane=\(lane) took=\(frames)")
    }
    return frames > 0
  }
}
