internal import Bus
internal import CLinux
internal import Datapath
internal import FlowSteering
internal import Intel
internal import Linux
internal import Simulation

/// The moves of a replay: put frames on the wire, turn paths, see what became of each frame. When which move is made
/// is the business of `ThreadedRun` and `DeterministicRun`.
///
/// `@safe`: the tables that it looks into once a frame have as many places as the card has queues, or as there are
/// lanes, live as long as it does, and are indexed by nothing else. A struct, so that what changes once a frame needs
/// no check for exclusive access at run time.
@safe struct Engine: ~Copyable {
  /// Frames that one move of a deterministic run puts on the wire, at most.
  static let burst = 64

  let options: ReplayOptions
  private(set) var source: TraceSource
  let rig: Rig
  private(set) var pacer: Pacer
  let isPaced: Bool
  /// So many lanes that each is out of the cache by its turn.
  private let isCrowded: Bool
  private let card: SimulatedCard
  /// One each lane; empty unless frames are compared.
  let expectations: [Expectation]
  private var arrivals: [ArrivalTimes]
  private(set) var latency = DurationHistogram()
  /// When the frames were due that are in a lane's queue, in nanoseconds from the start; empty at top speed.
  ///
  /// What a wire that is late keeps from the card is left out of `latency`, for those frames have not come yet. Counted
  /// from here it is in: the omission that loads which wait for what they measure are known for.
  private var dues: [ArrivalTimes]
  private(set) var dueLatency = DurationHistogram()
  private var currentDue: UInt64 = 0
  /// One moment in ticks, and in nanoseconds from the start: the last `feed`, so that two rates drift apart by nothing.
  private var anchor: (ticks: UInt64, nanoseconds: UInt64) = (0, 0)
  /// Of the moments that `feed` and `turn` are told, and of what is spent.
  let nanosecondsPerTick: Double

  // What was put on the wire, and what the card said.
  private(set) var received: UInt64 = 0
  private(set) var receivedBytes: UInt64 = 0
  private(set) var replicated: UInt64 = 0
  private(set) var cardDrops: [String: UInt64] = [:]
  /// Of these: for queues that nobody has, where rules let frames end.
  private(set) var refusedForNobody: UInt64 = 0
  private(set) var laneDrops: [[String: UInt64]]
  private(set) var accepted: [UInt64]
  private(set) var settled: [UInt64]
  /// Frames that the card put into another VM's queue than the rules say.
  private(set) var misdelivered: UInt64 = 0
  private(set) var firstMisdelivery: String?
  /// Lanes for which the wire no longer waits: their guest has stalled.
  private let overrun: UnsafeMutablePointer<Bool>
  private(set) var stopped: [String?]
  /// Frames of this burst, a lane each.
  private let burstArrivals: UnsafeMutablePointer<UInt64>
  /// A lane, or -1, for each of the card's queues.
  private let laneOfQueue: UnsafeMutablePointer<Int>
  /// The machine's own queue; -1 without one. Its frames are taken before the wire goes on.
  private let hostQueue: Int
  /// Frames that the card put into it.
  private(set) var acceptedForHost: UInt64 = 0
  let verifies: Bool

  // Ticks spent: in the card's model, in the paths, in reading and comparing. The last is part of neither.
  var modelTicks: UInt64 = 0
  var pathTicks: UInt64 = 0
  var sourceTicks: UInt64 = 0

  init(options: ReplayOptions, source: consuming TraceSource, rig: Rig, verifies: Bool, nanosecondsPerTick: Double = 1) {
    self.options = options
    self.source = source
    self.rig = rig
    pacer = Pacer(options.pace)
    isPaced = pacer.isPaced
    card = rig.card
    isCrowded = rig.lanes.count >= Worker<IntelReceiveQueue>.fewestToLookAhead
    let count = rig.lanes.count
    expectations = verifies ? rig.lanes.map { Expectation(capacity: $0.capacity) } : []
    arrivals = rig.lanes.map { ArrivalTimes(capacity: $0.capacity) }
    dues = pacer.isPaced ? arrivals : []
    self.nanosecondsPerTick = nanosecondsPerTick
    laneDrops = Array(repeating: [:], count: count)
    accepted = Array(repeating: 0, count: count)
    settled = Array(repeating: 0, count: count)
    unsafe overrun = .allocate(capacity: count)
    unsafe overrun.initialize(repeating: false, count: count)
    stopped = Array(repeating: nil, count: count)
    unsafe burstArrivals = .allocate(capacity: count)
    unsafe burstArrivals.initialize(repeating: 0, count: count)
    unsafe laneOfQueue = .allocate(capacity: rig.laneOfQueue.count)
    for (queue, lane) in rig.laneOfQueue.enumerated() { unsafe (laneOfQueue + queue).initialize(to: lane) }
    hostQueue = rig.host?.cardQueue ?? -1
    self.verifies = verifies
  }

  deinit {
    unsafe overrun.deallocate()
    unsafe burstArrivals.deallocate()
    unsafe laneOfQueue.deallocate()
  }

  /// What a move on the wire came to.
  enum Feed {
    case sent(Int)
    /// The next frame waits for this lane's guest.
    case held(lane: Int)
    /// The next frame is due later, by the clock given.
    case early(due: UInt64)
    case finished
  }

  /// Puts up to `limit` frames on the wire.
  ///
  /// - Parameters:
  ///   - time: the moment, for latencies, in ticks.
  ///   - clock: nanoseconds since the start, for the pace.
  mutating func feed(_ limit: Int, time: UInt64, clock: () -> UInt64) throws(ReplayError) -> Feed {
    var sent = 0
    var result: Feed?
    var now: UInt64 = isPaced ? clock() : 0
    anchor = (time, now)
    while sent < limit {
      guard try advance() else {
        if sent == 0 { result = .finished }
        break
      }
      let due = isPaced ? unsafe pacer.due(source.current) : 0
      if due > now {
        now = clock()
        if due > now {
          if sent == 0 { result = .early(due: due) }
          break
        }
      }
      currentDue = due
      guard let lane = unsafe put(source.current.wire) else {
        if isPaced { unsafe pacer.sent(source.current.wire.count, due: due, at: now) }
        source.consume()
        sent += 1
        if isCrowded, let next = unsafe source.following(1) { unsafe card.expect(next) }
        continue
      }
      if sent == 0 { result = .held(lane: lane) }
      break
    }
    for lane in arrivals.indices {
      let count = unsafe burstArrivals[lane]
      if count == 0 { continue }
      arrivals[lane].arrived(count, at: time)
      accepted[lane] += count
      unsafe burstArrivals[lane] = 0
    }
    rig.host?.drain(verifies: verifies)
    return result ?? .sent(sent)
  }

  /// Makes the next frame current. What reading a streamed trace takes is counted apart.
  private mutating func advance() throws(ReplayError) -> Bool {
    if source.isPreloaded { return try source.advance() }
    let before = TickCounter.now()
    defer { sourceTicks += TickCounter.now() - before }
    return try source.advance()
  }

  /// Offers one frame to the card. Answers the lane that it must wait for; nil when it was taken or dropped.
  private mutating func put(_ wire: WireFrame) -> Int? {
    var arrival = unsafe card.receive(wire, flowControl: !isPaced)
    if case .held(let queue) = arrival {
      let lane = unsafe laneOfQueue[queue]
      if unsafe lane >= 0 && !overrun[lane] && stopped[lane] == nil { return lane }
      if queue == hostQueue {
        rig.host?.drain(verifies: verifies)
        return unsafe put(wire)
      }
      // Nobody waits for this guest: the card drops the frame, and counts it.
      arrival = unsafe card.receive(wire, flowControl: false)
    }
    switch arrival {
    case .delivered(let queue): unsafe arrive(wire, queue: queue)
    case .dropped(let reason, let queue): drop(reason, queue: queue)
    case .replicated: unsafe replicate(wire)
    case .held: preconditionFailure("the card holds a frame that it was not asked to hold")
    }
    received += 1
    receivedBytes += UInt64(unsafe wire.count)
    return nil
  }

  /// One frame, copied by the card for several pools.
  private mutating func replicate(_ wire: WireFrame) {
    replicated += UInt64(card.copyCount - 1)
    for index in 0..<card.copyCount {
      let copy = card.copy(index)
      if let reason = copy.drop { drop(reason, queue: copy.queue) } else { unsafe arrive(wire, queue: copy.queue) }
    }
  }

  private mutating func arrive(_ wire: WireFrame, queue: Int) {
    if queue == hostQueue { return unsafe arriveAtHost(wire) }
    let lane = unsafe laneOfQueue[queue]
    precondition(lane >= 0, "the card delivered to a queue that nobody has")
    unsafe burstArrivals[lane] += 1
    if isPaced { dues[lane].arrived(1, at: currentDue) }
    unsafe overrun[lane] = false
    guard verifies else { return }
    let before = TickCounter.now()
    defer { sourceTicks += TickCounter.now() - before }
    let bytes = unsafe UnsafeRawBufferPointer(start: wire.bytes, count: wire.count)
    unsafe expectations[lane].arrive(bytes)
    if unsafe rig.classifier.receivers(of: bytes.bindMemory(to: UInt8.self).span) >> UInt64(rig.lanes[lane].machine) & 1 == 0 {
      noteMisdelivery("a queue of VM \(rig.machines[rig.lanes[lane].machine].vm.name)", byteCount: bytes.count)
    }
  }

  @inline(never) private mutating func arriveAtHost(_ wire: WireFrame) {
    acceptedForHost += 1
    guard verifies else { return }
    let before = TickCounter.now()
    defer { sourceTicks += TickCounter.now() - before }
    let bytes = unsafe UnsafeRawBufferPointer(start: wire.bytes, count: wire.count)
    unsafe rig.host?.expectation.arrive(bytes)
    var isForHost = false
    unsafe rig.classifier.decide(bytes.bindMemory(to: UInt8.self).span) { _, copy in if copy.fate == .host { isForHost = true } }
    if !isForHost { noteMisdelivery("the host's queue", byteCount: bytes.count) }
  }

  private mutating func noteMisdelivery(_ place: String, byteCount: Int) {
    misdelivered += 1
    if firstMisdelivery == nil {
      firstMisdelivery = "frame \(source.read) of \(byteCount) bytes was put into \(place), to which no rule sends it"
    }
  }

  /// Counts a frame that the card did not deliver: for the VM that it was for, or for none.
  private mutating func drop(_ reason: CardDrop, queue: Int?) {
    guard let queue, unsafe laneOfQueue[queue] >= 0 else {
      let end = queue.flatMap { rig.end(at: $0) } ?? reason
      if queue != nil { refusedForNobody += 1 }
      cardDrops[end.name, default: 0] += 1
      return
    }
    laneDrops[unsafe laneOfQueue[queue]][reason.name, default: 0] += 1
  }

  // MARK: Paths

  /// One turn of one path. Answers whether anything moved.
  ///
  /// - Parameter time: the moment, for latencies, in ticks.
  @discardableResult mutating func turn(_ lane: Int, time: UInt64) -> Bool {
    guard stopped[lane] == nil else { return false }
    let returned = move(lane)
    noteTurn(lane, time: time)
    return returned > 0
  }

  /// Before a lane's turn, where all are turned one after the other.
  @inline(__always) func lookAhead(from lane: Int) {
    if isCrowded { askAhead(rig.worker, from: lane) }
  }

  /// The same without a look at what became of the frames: `noteTurn` is to follow before the wire goes on.
  @inline(__always) mutating func move(_ lane: Int) -> Int { rig.worker.withPath(lane) { turnPath(&$0) } }

  /// Finds out what left a path since the last time, and whether it has stopped.
  mutating func noteTurn(_ lane: Int, time: UInt64) {
    let total = rig.worker.settledFrames(lane)
    if total != settled[lane] { settle(lane, upTo: total, time: time) }
    if rig.worker.hasStopped(lane), stopped[lane] == nil { stop(lane, .requested) }
  }

  private mutating func settle(_ lane: Int, upTo total: UInt64, time: UInt64) {
    arrivals[lane].left(total - settled[lane], at: time, in: &latency, scale: nanosecondsPerTick)
    if isPaced { dues[lane].left(total - settled[lane], at: sinceStart(time), in: &dueLatency, scale: 1) }
    if verifies {
      let before = TickCounter.now()
      defer { sourceTicks += TickCounter.now() - before }
      let drops = rig.lanes[lane].drops
      var dropped = drops.next()
      for number in settled[lane]..<total {
        let isDropped = dropped == number
        if isDropped { dropped = drops.next() }
        expectations[lane].leave(delivered: !isDropped)
      }
      precondition(dropped == nil, "a path dropped a frame that it has not settled")
    }
    settled[lane] = total
  }

  /// Nanoseconds from the start: now, or, where time is simulated, at `time`.
  private func sinceStart(_ time: UInt64) -> UInt64 {
    let ticks = options.isDeterministic ? time : TickCounter.now()
    return anchor.nanoseconds + UInt64(Double(ticks - min(ticks, anchor.ticks)) * nanosecondsPerTick)
  }

  /// Ends a path for good: the card is stopped first. What it still held is counted.
  mutating func stop(_ lane: Int, _ reason: StopReason) {
    guard stopped[lane] == nil else { return }
    let (text, total) = rig.worker.withPath(lane) { path -> (String, UInt64) in
      do throws(RegisterError) {
        try path.stop(reason)
      } catch {
        // The card does not say that it has stopped: the IOMMU keeps it out.
        rig.closeWindow(of: rig.lanes[lane].machine)
        return ("\(path.stopReason ?? reason); \(error)", path.settledFrames)
      }
      return ("\(path.stopReason ?? reason)", path.settledFrames)
    }
    settle(lane, upTo: total, time: options.isDeterministic ? rig.clock.now : TickCounter.now())
    stopped[lane] = text
  }

  /// Frames that the card has put into queues and that have not left their paths.
  var inFlight: UInt64 {
    var sum: UInt64 = 0
    for lane in accepted.indices { sum += accepted[lane] - settled[lane] }
    return sum
  }

  /// From now on the wire does not wait for this lane.
  func giveUpWaiting(for lane: Int) { unsafe overrun[lane] = true }

  /// Stops the paths whose memory the IOMMU refused to the card. Answers the faults seen.
  mutating func checkBus(after seen: Int) -> Int {
    let count = rig.iommu.faultCount
    guard count > seen else { return seen }
    for fault in rig.iommu.faults {
      let machine = rig.machine(at: fault.address)
      for lane in rig.lanes.indices where machine == rig.lanes[lane].machine { stop(lane, .busFault(at: fault.refused)) }
    }
    return count
  }

  func progress(elapsed: Double) -> ReplayProgress {
    var (delivered, bytes, dropped) = (UInt64(0), UInt64(0), UInt64(0))
    for lane in rig.lanes {
      delivered += lane.counters.deliveredFrames
      bytes += lane.counters.deliveredBytes
      dropped += lane.counters.droppedFrames
    }
    dropped += cardDrops.values.reduce(0, +) + laneDrops.reduce(0) { $0 + $1.values.reduce(0, +) }
    var fraction = source.fraction
    if let seconds = options.limit.seconds {
      let ofTime = min(1, elapsed / seconds)
      fraction = max(fraction ?? 0, ofTime)
    }
    return ReplayProgress(
      framesReceived: received, framesDelivered: delivered, bytesDelivered: bytes, framesDropped: dropped,
      elapsed: elapsed, fraction: fraction)
  }
}
