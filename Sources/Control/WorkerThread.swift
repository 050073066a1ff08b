internal import CLinux
internal import Bus
internal import Datapath
internal import Intel
internal import Linux
internal import Replay
internal import VhostUser
internal import Simulation

/// A thread that moves the frames of some VMs: it turns their paths as long as that moves something, looks a while
/// longer, and then sleeps until a driver's kick, the card's interrupt or a command wakes it.
///
/// The control thread makes lanes and hands them over, finished; it detaches them by a command, and has them back when they
/// have stopped. This thread waits for no hardware, and reads no register but to poll a queue that is being stopped. What it
/// does for the control thread are commands, executed in order; all else belongs to the thread itself. Safe, for that reason.
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
  private var model: SharedCard? { didSet { keepModel() } }
  private let models = Roster<SharedCard>()
  /// What it has counted: in reach without a reference to count.
  private let modelCounters = Roster<TrafficCounters>()
  /// Called on this thread when a path has stopped by itself.
  var report: @Sendable (_ session: Int, _ ring: Int, _ lane: UInt64, _ reason: String) -> Void = { _, _, _, _ in }
  private let poller: Poller
  private let spinTicks: UInt64
  private let turnCount = SharedWord()
  private let sleepCount = SharedWord()
  // Ticks in which rings, and in which the card's model, moved something.
  private let datapathTicks = SharedWord()
  private let modelTicks = SharedWord()
  let secondsPerTick: Double
  private var isStopping = false
  /// What a VM, or the host's port, is polled for at a time, and may be ahead of others by, in microseconds. A poll of a ring
  /// that lends takes 1 to 10; one that ends at its budget of descriptors less than 100.
  private static let quantumMicroseconds = 50

  // The thread's own.
  /// VMs that have lanes here. All that it may have are in `allShares`, by their numbers.
  private let shares = Roster<VMShare>()
  private let allShares: [VMShare]
  private let fairness: FairShares
  private let ports = Roster<HostPort>()
  /// Lanes that are being stopped, the next one to be polled first.
  private var draining: [(lane: Lane, group: DrainGroup)] = []
  private var lastDrainPoll: UInt64 = 0
  private let drainTicks: UInt64
  private let portAccount = ShareAccount()
  /// Receive lanes here; and of all workers, which the card's model serves together.
  private let receiveLaneCount = SharedWord()
  private let receiveLaneCounts = Roster<SharedWord>()

  /// - Parameter shares: of every VM, by number.
  init(
    number: Int, processor: Int?, spinMicroseconds: Int, vector: IntelInterrupt, host: CardHost, shares: [VMShare], ticksPerSecond: Double
  ) throws(SystemError) {
    self.number = number
    self.processor = processor
    node = processor.flatMap(NUMA.node(ofProcessor:))
    self.vector = vector
    self.host = host
    mailbox = try Mailbox()
    interrupt = try EventDescriptor()
    poller = try Poller()
    secondsPerTick = 1 / ticksPerSecond
    allShares = shares
    fairness = FairShares(quantum: UInt64(Double(Self.quantumMicroseconds) * ticksPerSecond / 1e6))
    fairness.add(portAccount)
    spinTicks = UInt64(Double(spinMicroseconds) * ticksPerSecond / 1e6)
    drainTicks = UInt64(Double(Self.drainInterval) * ticksPerSecond / 1e9)
    model = host.model
    keepModel()
    try host.card.connect(vector: number, to: interrupt)
    // Nothing is asked of what is ready but that it wakes: everything is looked at then.
    try poller.add(mailbox.wakeUp.descriptor.number, for: .read, token: 0)
    try poller.add(interrupt.descriptor.number, for: .read, token: 0)
    try followModel()
  }

  private func keepModel() {
    models.replace(with: model.map { [$0] } ?? [])
    modelCounters.replace(with: model.map { [$0.counters] } ?? [])
  }

  /// The card's model, and its wire, is stepped by the first of the threads.
  private var drivesCard: Bool { number == 0 }

  /// The workers of one card, before they run.
  func join(_ workers: [WorkerThread]) { receiveLaneCounts.replace(with: workers.map(\.receiveLaneCount)) }

  /// What a VM has taken of its worker.
  func share(of vm: Int) -> VMShare { allShares[vm] }
  var turns: UInt64 { turnCount.value }
  var sleeps: UInt64 { sleepCount.value }
  var datapathSeconds: Double { Double(datapathTicks.value) * secondsPerTick }
  var modelSeconds: Double { Double(modelTicks.value) * secondsPerTick }

  // MARK: The control thread's side

  /// How long the control thread waits for this thread in all that one message of a front-end asks for, in nanoseconds.
  /// A worker's poll of every lane takes far less, and a NIC's queue stops within 110 ms or not at all; a service manager's
  /// watchdog waits for some seconds.
  static let commandLimit: UInt64 = 480_000_000
  /// The same of a worker that has not executed another VM's command in its time.
  static let overdueLimit: UInt64 = 100_000_000
  /// How long it waits for a command at least, when that time is used up by others: nanoseconds.
  static let leastWait: UInt64 = 20_000_000
  /// How long a report waits for this thread, in nanoseconds: it goes without its figures then.
  static let reportLimit: UInt64 = 100_000_000
  /// Between two polls of queues that are being stopped, in nanoseconds: each reads a register of the NIC.
  private static let drainInterval: UInt64 = 20_000

  /// Has `body` executed between two iterations of the loop.
  ///
  /// - Parameter limit: how long to wait for it, in nanoseconds.
  /// - Returns: nil if it was not executed in time: it is executed later.
  @discardableResult func perform<Result>(within limit: UInt64 = commandLimit, _ body: @escaping (WorkerThread) -> Result) -> Result? {
    mailbox.perform(until: MonotonicClock.now() + limit) { body(self) }
  }
  /// Whether it has not executed a command in the time that it had.
  var isOverdue: Bool { mailbox.isOverdue }
  /// As `perform`, for a report: not at all if the thread has not executed an earlier command in time.
  func read<Result>(_ body: @escaping () -> Result) -> Result? {
    mailbox.isOverdue ? nil : perform(within: Self.reportLimit) { _ in body() }
  }
  /// Queues a command, and does not wait. Returns nil if there is no place for it.
  func send(_ body: @escaping (WorkerThread) -> Void) -> Receipt? { mailbox.send { body(self) } }
  /// Blocks until a command is finished; false if it is not by `deadline`.
  func wait(for receipt: Receipt, until deadline: UInt64) -> Bool { mailbox.wait(for: receipt, until: deadline) }

  /// Queues a command that detaches lanes: their queues are stopped while others' lanes go on. It is finished when all of
  /// them have stopped, or their queues did not: `Lane.stopProblem`.
  ///
  /// - Parameters:
  ///   - cardIsGone: the NIC is off the bus, and is not asked to stop.
  ///   - isLast: the only one that is queued for a VM whose command is overdue.
  /// - Returns: nil if there is no place for it.
  func detach(_ receive: [ReceiveLane], _ transmit: [TransmitLane], cardIsGone: Bool = false, isLast: Bool = false) -> Receipt? {
    mailbox.send(isLast: isLast) { [self] receipt in beginDetaching(receive, transmit, cardIsGone: cardIsGone, receipt) }
  }

  /// False if the thread did not execute it in time.
  func stop() -> Bool { perform { $0.isStopping = true } != nil }
  /// Brings it to a guest's memory.
  func move(toNode node: Int) { if perform({ _ in NUMA.run(onNode: node) }) == true { self.node = node } }
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
  /// Wakes the thread on a kick. Edges only: a kick is never read, so that another reader of it cannot block this thread.
  ///
  /// - Throws: the kernel refuses: the ring would never be polled again once the thread sleeps.
  func watch(_ kick: SharedDescriptor?) throws(SystemError) {
    guard let kick else { return }
    try poller.add(kick.descriptor.number, for: [.read, .edges], token: 0)
  }
  /// Precondition: `watch` returned.
  func unwatch(_ kick: SharedDescriptor?) {
    guard let kick else { return }
    // What the kernel would say is that it is not watched.
    try? poller.remove(kick.descriptor.number)
  }
  /// As `watch`, for the host port's TAP device.
  func watch(_ port: HostPort) throws(SystemError) { try poller.add(port.descriptor, for: .read, token: 0) }
  func unwatch(_ port: HostPort) { try? poller.remove(port.descriptor) }

  /// Ends its sleep: there is something on the card's wire.
  func wake() { mailbox.wakeUp.signal() }

  // MARK: On the thread: in `perform`

  func add(_ lane: Lane) {
    let share = allShares[lane.session]
    if share.lanes.count == 0 {
      shares.append(share)
      fairness.add(share.account)
    }
    lane.notifications = share.notifications
    share.lanes.append(lane)
    if lane is ReceiveLane { receiveLaneCount.set(receiveLaneCount.value &+ 1) }
  }
  private func remove(_ lane: Lane) {
    let share = allShares[lane.session]
    share.lanes.remove(lane)
    if share.lanes.count == 0 {
      shares.remove(share)
      fairness.remove(share.account)
    }
    if lane is ReceiveLane { receiveLaneCount.set(receiveLaneCount.value &- 1) }
  }
  func add(_ port: HostPort) { ports.replace(with: [port]) }
  func removePort() { if let port = ports.first { ports.remove(port) } }

  private func beginDetaching(_ receive: [ReceiveLane], _ transmit: [TransmitLane], cardIsGone: Bool, _ receipt: Receipt) {
    let group = DrainGroup(receipt, receive.count + transmit.count)
    for lane in receive as [Lane] + transmit {
      remove(lane)
      lane.beginStop(cardIsGone: cardIsGone)
      draining.append((lane, group))
    }
  }

  /// Notifies the driver of a VM's ring, at the VM's cost.
  func notify(vm: Int, ring: Int, _ target: SharedDescriptor?) {
    let start = TickCounter.now()
    allShares[vm].notifications.send(target, ring: ring)
    fairness.charge(allShares[vm].account, TickCounter.now() &- start, moved: false)
  }

  /// Polls one of the lanes that are being stopped, every `drainInterval`: never more than one read of a register.
  ///
  /// - Returns: true if there is one. The thread does not sleep then.
  private func pollDraining() -> Bool {
    guard !draining.isEmpty else { return false }
    let now = TickCounter.now()
    guard now &- lastDrainPoll >= drainTicks else { return true }
    lastDrainPoll = now
    let (lane, group) = draining.removeFirst()
    // What it takes is its VM's.
    defer { fairness.charge(allShares[lane.session].account, TickCounter.now() &- now, moved: false) }
    do throws(RegisterError) {
      guard try lane.pollStop() else {
        draining.append((lane, group))
        return true
      }
    } catch {
      lane.stopProblem = error
      // Here, where its lent pages belong: they go off the bus now.
      lane.forsake()
    }
    group.remove()
    return true
  }

  /// Lanes that one command detaches.
  private final class DrainGroup {
    private let receipt: Receipt
    private var count: Int
    init(_ receipt: Receipt, _ count: Int) {
      (self.receipt, self.count) = (receipt, count)
      if count == 0 { receipt.finish() }
    }
    func remove() {
      count -= 1
      if count == 0 { receipt.finish() }
    }
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
      let isDraining = pollDraining()
      if round() || isDraining {
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

  /// Everything once, but for VMs that others have to catch up with. Returns true if anything moved, or may have.
  private func round() -> Bool {
    // A lane that was not polled may have something: then the thread must not sleep.
    var (moved, isCut) = (false, false)
    let start = TickCounter.now()
    var middle = start
    shares.forEach { share in
      guard fairness.mayPoll(share.account) else { return }
      let (end, hasMoved, wasCut) = share.poll(from: middle, quantum: fairness.quantum) { turn($0) }
      var ticks = end &- middle
      modelCounters.forEach { ticks &+= share.takeModelTicks($0) }
      fairness.charge(share.account, ticks, moved: hasMoved)
      if hasMoved { moved = true }
      if wasCut { isCut = true }
      middle = end
    }
    ports.forEach { port in
      guard fairness.mayPoll(portAccount) else { return }
      let hasMoved = port.turn()
      let end = TickCounter.now()
      fairness.charge(portAccount, end &- middle, moved: hasMoved)
      if hasMoved { moved = true }
      middle = end
    }
    let isOwing = fairness.endIteration()
    turnCount.set(turnCount.value &+ 1)
    if moved { datapathTicks.set(datapathTicks.value &+ middle &- start) }
    models.forEach { model in
      guard drivesCard else {
        if moved { model.waker.wake() }
        return
      }
      if model.pump(modelBurst(rings: ringsOfCard)) > 0 {
        modelTicks.set(modelTicks.value &+ TickCounter.now() &- middle)
        moved = true
      }
    }
    return moved || isOwing || isCut
  }

  /// Receive rings that the card's model has frames for, whichever worker's they are.
  private var ringsOfCard: Int {
    var count: UInt64 = 0
    receiveLaneCounts.forEach { count &+= $0.value }
    return Int(truncatingIfNeeded: count)
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
    shares.forEach { share in share.lanes.forEach { if !$0.prepareToSleep() { maySleep = false } } }
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
    shares.forEach { share in share.lanes.forEach { $0.wake() } }
  }

  /// Until the card has something to do by itself, in milliseconds; nil: nobody knows of anything.
  private var limit: Int? {
    guard drivesCard, let nanoseconds = model?.sleepLimit else { return nil }
    return Int(clamping: nanoseconds / 1_000_000) + 1
  }
}
