internal import CLinux
internal import Datapath
internal import Intel
internal import Linux
internal import Replay
internal import VhostUser
internal import Simulation

/// A thread that moves the frames of some VMs: it turns their paths as long as that moves something, looks a while
/// longer, and then sleeps until a driver's kick, the card's interrupt or a command wakes it.
///
/// The control thread adds and takes lanes by `perform`; all else belongs to the thread itself. Safe, for that reason.
final class WorkerThread: @unchecked Sendable {
  let number: Int
  /// The processor that it is pinned to.
  let processor: Int?
  /// The memory node that it runs on: of its processor, or of the first guest that it serves. Control thread only.
  private(set) var node: Int?
  private let mailbox: Mailbox
  /// The card's vector of this thread raises it.
  private let interrupt: EventDescriptor
  /// Nil while the card is away.
  private var vector: IntelInterrupt?
  private let host: CardHost
  /// The card, if it is a model.
  private var model: SharedCard? { didSet { models.replace(with: model.map { [$0] } ?? []) } }
  private let models = Roster<SharedCard>()
  /// Called on this thread when a path has stopped by itself.
  var report: @Sendable (_ session: Int, _ ring: Int, _ lane: UInt64, _ reason: String) -> Void = { _, _, _, _ in }
  private let poller: Poller
  private let spinTicks: UInt64
  private let turnCount = SharedWord()
  private let sleepCount = SharedWord()
  // Ticks in which rings, and in which the card's model, moved something.
  private let datapathTicks = SharedWord()
  private let modelTicks = SharedWord()
  private let secondsPerTick: Double
  private var isStopping = false

  // The thread's own.
  private let receiveLanes = Roster<ReceiveLane>()
  private let transmitLanes = Roster<TransmitLane>()
  private let ports = Roster<HostPort>()

  init(number: Int, processor: Int?, spinMicroseconds: Int, vector: IntelInterrupt, host: CardHost, ticksPerSecond: Double) throws(SystemError) {
    self.number = number
    self.processor = processor
    node = processor.flatMap(NUMA.node(ofProcessor:))
    self.vector = vector
    self.host = host
    mailbox = try Mailbox()
    interrupt = try EventDescriptor()
    poller = try Poller()
    secondsPerTick = 1 / ticksPerSecond
    spinTicks = UInt64(Double(spinMicroseconds) * ticksPerSecond / 1e6)
    model = host.model
    models.replace(with: model.map { [$0] } ?? [])
    try host.card.connect(vector: number, to: interrupt)
    // Nothing is asked of what is ready but that it wakes: everything is looked at then.
    try poller.add(mailbox.wakeUp.descriptor.number, for: .read, token: 0)
    try poller.add(interrupt.descriptor.number, for: .read, token: 0)
    try followModel()
  }

  /// The card's model, and its wire, is stepped by the first of the threads.
  private var drivesCard: Bool { number == 0 }

  var turns: UInt64 { turnCount.value }
  var sleeps: UInt64 { sleepCount.value }
  var datapathSeconds: Double { Double(datapathTicks.value) * secondsPerTick }
  var modelSeconds: Double { Double(modelTicks.value) * secondsPerTick }

  // MARK: The control thread's side

  func perform<Result>(_ body: @escaping (WorkerThread) -> Result) -> Result {
    mailbox.perform { body(self) }
  }
  func stop() { perform { $0.isStopping = true } }
  /// Brings it to a guest's memory: what its paths allocate from then on lies there too.
  func move(toNode node: Int) { if perform({ _ in NUMA.run(onNode: node) }) { self.node = node } }
  private func followModel() throws(SystemError) {
    guard drivesCard, let model else { return }
    for descriptor in model.descriptors { try poller.add(descriptor, for: .read, token: 0) }
  }

  /// Lets the card go. Its lanes have gone.
  func releaseCard() {
    perform { worker in
      worker.vector = nil
      if worker.drivesCard, let model = worker.model { for descriptor in model.descriptors { try? worker.poller.remove(descriptor) } }
      worker.model = nil
    }
  }
  /// Takes another card: its vector, and if it is a model its steps.
  func takeCard() throws(ServiceError) {
    let vector = try host.interrupt(number)
    do throws(SystemError) { try host.card.connect(vector: number, to: interrupt) } catch { throw .machine("\(error)") }
    let model = host.model
    perform { worker in
      (worker.vector, worker.model) = (vector, model)
      // A descriptor that cannot be watched is looked at in every round all the same.
      try? worker.followModel()
    }
  }
  /// Ends its sleep: there is something on the card's wire.
  func wake() { mailbox.wakeUp.signal() }

  // MARK: On the thread: in `perform`

  func add(_ lane: ReceiveLane) {
    receiveLanes.append(lane)
    watch(lane.kick)
  }
  func add(_ lane: TransmitLane) {
    transmitLanes.append(lane)
    watch(lane.kick)
  }
  func add(_ port: HostPort) {
    ports.replace(with: [port])
    try? poller.add(port.descriptor, for: .read, token: 0)
  }
  func removePort() {
    guard let port = ports.first else { return }
    try? poller.remove(port.descriptor)
    ports.remove(port)
  }
  func remove(_ lane: ReceiveLane) {
    receiveLanes.remove(lane)
    unwatch(lane.kick)
  }
  func remove(_ lane: TransmitLane) {
    transmitLanes.remove(lane)
    unwatch(lane.kick)
  }

  /// Edges only: a kick is never read, so that nobody can make us wait for one that somebody else has read.
  private func watch(_ kick: SharedDescriptor?) {
    guard let kick else { return }
    try? poller.add(kick.descriptor.number, for: [.read, .edges], token: 0)
  }
  private func unwatch(_ kick: SharedDescriptor?) {
    guard let kick else { return }
    try? poller.remove(kick.descriptor.number)
  }

  // MARK: The thread

  func run() {
    if let processor { Thread.pin(to: processor) }
    var idleSince: UInt64 = 0
    while !isStopping {
      if mailbox.isPending {
        mailbox.serve()
        idleSince = 0
        // The command may have been the last one: a sleep without a limit would not end.
        if isStopping { return }
      }
      if round() {
        idleSince = 0
        continue
      }
      let now = TickCounter.now()
      if idleSince == 0 { idleSince = now }
      if now &- idleSince < spinTicks {
        for _ in 0..<20 { sl_pause() }
      } else {
        sleep()
        idleSince = 0
      }
    }
  }

  /// Everything once. Answers whether anything moved.
  private func round() -> Bool {
    var moved = false
    let start = TickCounter.now()
    receiveLanes.forEach { if turn($0) { moved = true } }
    transmitLanes.forEach { if turn($0) { moved = true } }
    ports.forEach { if $0.turn() { moved = true } }
    turnCount.set(turnCount.value &+ 1)
    let middle = moved || drivesCard ? TickCounter.now() : start
    if moved { datapathTicks.set(datapathTicks.value &+ middle &- start) }
    models.forEach { model in
      guard drivesCard else {
        if moved { model.waker.wake() }
        return
      }
      if model.pump(modelBurst(rings: receiveLanes.count)) > 0 {
        modelTicks.set(modelTicks.value &+ TickCounter.now() &- middle)
        moved = true
      }
    }
    return moved
  }

  private func turn(_ lane: Lane) -> Bool {
    let moved = lane.turn()
    if let reason = lane.stopReason { tell(lane, "\(reason)") }
    return moved
  }

  /// Once, that a path has stopped by itself.
  private func tell(_ lane: Lane, _ reason: @autoclosure () -> String) {
    if lane.isReported { return }
    lane.isReported = true
    report(lane.session, lane.ring, lane.serial, reason())
  }

  /// Waits for a kick, an interrupt, a command or the wire. Each is asked for first, and then looked for once more: what
  /// came in between is found, what comes later wakes.
  private func sleep() {
    var maySleep = true
    receiveLanes.forEach { if !$0.prepareToSleep() { maySleep = false } }
    transmitLanes.forEach { if !$0.prepareToSleep() { maySleep = false } }
    vector?.arm()
    if drivesCard, let model, !model.prepareToSleep() { maySleep = false }
    if maySleep && !isStopping && !round() && !mailbox.isPending {
      sleepCount.set(sleepCount.value &+ 1)
      _ = try? poller.wait(milliseconds: limit)
      interrupt.clear()
      // A command's own is cleared by serving it; a wake-up without one here.
      if !mailbox.isPending { mailbox.wakeUp.clear() }
    }
    vector?.disarm()
    if drivesCard { model?.wakeUp() }
    receiveLanes.forEach { $0.wake() }
    transmitLanes.forEach { $0.wake() }
  }

  /// Until the card has something to do by itself, in milliseconds; nil: nobody knows of anything.
  private var limit: Int? {
    guard drivesCard, let nanoseconds = model?.sleepLimit else { return nil }
    return Int(clamping: nanoseconds / 1_000_000) + 1
  }
}
