internal import Bus
internal import Datapath
internal import FlowSteering
internal import FlowTables
internal import Intel
internal import Linux
internal import NIC
internal import Replay
internal import Simulation
internal import VhostUser

/// The card that all VMs share, and the rules for whose frames are whose.
///
/// The wall between guests: each VM has a pool of the card. Which frames reach a pool is settled here before any of its
/// queues runs, and stays so; a queue runs only while its guest's ring does.
final class CardHost {
  private(set) var card: any NetworkCard
  let mtu: Int
  /// The card's model, which a worker steps.
  var model: SharedCard? { card.model }
  /// Nil while the card is away.
  private var driver: (any IntelCard)?
  private let log: @Sendable (LogEvent) -> Void
  private let registers: (any RegisterFile) -> any RegisterFile
  /// Why the card cannot be opened again, as it was told last.
  private var lastObstacle = ""
  private let ringSize: Int
  private let configuration: Configuration
  private let profile: CardProfile
  private(set) var program: CardProgram
  /// How often the rules have been changed.
  private(set) var generation: UInt64 = 0
  private var counter = RuleCounter()
  /// Mappings that the IOMMU did not remove, of all cards that there were.
  var unmapLog = UnmapFailureLog()
  /// Whose the card's filters are; nil: to be found out anew.
  private var knownOwners: RuleCounter.Owners?

  /// A page of a guest's is on the bus only while something in it is lent.
  var isStrict: Bool { configuration.nic.protection == .strict }
  /// Where windows, rings and host buffers are mapped.
  var space: any IOAddressSpace { card.space }
  var allocator: IOVAAllocator { card.allocator }

  /// - Parameter registers: the registers that a model's driver uses, given the model's.
  init(
    _ configuration: Configuration, rules: [Rule], registers: @escaping (any RegisterFile) -> any RegisterFile = { $0 },
    log: @escaping @Sendable (LogEvent) -> Void
  ) throws(ServiceError) {
    self.configuration = configuration
    self.registers = registers
    self.log = log
    mtu = configuration.nic.mtu
    ringSize = configuration.nic.ringSize
    let device = try VFIONetworkCard.Device(configuration.nic)
    profile = device?.model.profile ?? SimulatedNetworkCard.profile
    let program: CardProgram
    do throws(RuleError) { program = try Self.compile(rules, configuration, profile) } catch { throw .rule(error) }
    self.program = program
    let tables = Self.tables(of: program)
    card = try Self.open(configuration, tables, after: nil, registers, log)
    driver = card.driver
    unmapLog.follow(card)
    do throws(IntelError) { try prepare(tables) } catch {
      card.shutDown()
      throw .card("\(error)")
    }
  }

  private static func open(
    _ configuration: Configuration, _ tables: CardTables, after before: (any NetworkCard)?,
    _ registers: (any RegisterFile) -> any RegisterFile, _ log: @escaping @Sendable (LogEvent) -> Void
  ) throws(ServiceError) -> any NetworkCard {
    guard let device = try VFIONetworkCard.Device(configuration.nic) else {
      return try SimulatedNetworkCard(configuration, tables, after: before, registers: registers)
    }
    return try VFIONetworkCard(device, configuration, tables, after: before, log: log)
  }

  /// Whose frames are whose, before any come in.
  private func prepare(_ tables: CardTables) throws(IntelError) {
    guard let driver else { return }
    try driver.apply(tables)
    try driver.enableReceive()
    // A wire that nobody is at is no error of ours: service begins with its link.
    if model != nil { try driver.waitForLink(within: .seconds(10)) }
  }

  // MARK: A card that goes, and comes again

  /// Told that the card was found to be gone; it lets everything of it go.
  var onLoss: () -> Void = {}
  /// Looks whether the card is there still, and ours, before something is asked of it: one that was pulled a moment ago must
  /// not make a ring fail that could wait.
  func look() { if let driver, !driver.isThere || !driver.isOurs || space.unmapFailures.count > 0 { onLoss() } }

  /// How often a card was opened: queues of an earlier one are not for this one.
  private(set) var openings = 1
  /// The card was lost, and has not come back.
  var isAway: Bool { driver == nil }

  /// Lets the card go. Nothing uses it any more.
  func loseCard() {
    let lost = card
    // Frames by rule are kept; those of the next card are counted from its own beginning.
    if driver != nil, let counts = card.filterCounts { counter.collect(counts, by: owners) }
    counter.beginAnew()
    driver = nil
    card = AbsentNetworkCard(after: lost)
    knownOwners = nil
    lost.shutDown()
  }

  /// Takes the card again if it is there, and tells it the rules; false: it is not, or not for us yet.
  func findCard() -> Bool {
    do throws(ServiceError) {
      let tables = Self.tables(of: program)
      let found = try Self.open(configuration, tables, after: card, registers, log)
      let away = card
      (card, driver) = (found, found.driver)
      unmapLog.follow(found)
      do throws(IntelError) { try prepare(tables) } catch {
        (card, driver) = (away, nil)
        found.shutDown()
        throw .card("\(error)")
      }
      lastObstacle = ""
      openings += 1
      return true
    } catch {
      // Once, and not as long as nothing changes.
      let obstacle = "\(error)"
      if obstacle != lastObstacle { log(LogEvent(.notice, "the card is not there yet", ["reason": obstacle])) }
      lastObstacle = obstacle
      return false
    }
  }

  private static func tables(of program: CardProgram) -> CardTables {
    guard let tables = program.tables else { preconditionFailure("a card has tables") }
    return tables
  }
  /// The card's queues that are a pool's, whether they run or not.
  func cardQueues(ofPool pool: Int) -> Range<Int> { pool * plan.queuesEach..<(pool + 1) * plan.queuesEach }
  private var plan: PoolPlan { Self.tables(of: program).plan }

  /// What rules make of the card.
  static func compile(_ rules: [Rule], _ configuration: Configuration, _ profile: CardProfile) throws(RuleError) -> CardProgram {
    if configuration.host == nil, let rule = Steering.numbered(rules).first(where: { $0.decision == .host }) { throw noHost(rule) }
    if configuration.nic.kind != .sim, let rule = Steering.numbered(rules).first(where: \.counts) { throw noCount(rule, profile) }
    let program = try CardProgram(Steering(rules, for: configuration.receivers), for: profile)
    try program.checkCounts()
    return program
  }
  private static func noHost(_ rule: Rule) -> RuleError {
    RuleError(
      .actionUnsupported, "\"host\": this back-end has no port of the machine's own", fit: "start it with --host tap=NAME (host: in a file), or name a VM, or drop",
      rule: rule.label)
  }
  private static func noCount(_ rule: Rule, _ profile: CardProfile) -> RuleError {
    RuleError(.actionUnsupported, "\"count\": an \(profile.name) counts no filter's frames", fit: "leave it out; sluice stats has each VM's", rule: rule.label)
  }
  /// As `compile(_:_:_:)`, for the VMs and the card of this back-end.
  func compile(_ rules: [Rule]) throws(RuleError) -> CardProgram { try Self.compile(rules, configuration, profile) }

  // MARK: Rules

  /// Adds a rule that needs one filter more and touches nothing else; nil for one that is not of this kind.
  func add(_ rule: Rule) throws(RuleError) -> Rule? {
    guard let (added, filter) = try program.add(rule) else { return nil }
    knownOwners = nil
    do throws(IntelError) { try driver?.add(filter) } catch {
      // Without it again: from the rules anew, for nothing takes a rule out of a program.
      program = try compile(program.steering.userRules.filter { $0.id != added.id })
      throw Self.refusal(error)
    }
    generation += 1
    return added
  }

  private static func refusal(_ error: IntelError) -> RuleError {
    let fit: String? =
      if case .tableFull("flow director", let count) = error { "\(count) exact flows were reserved; start it with more of nic.exact-flows" } else { nil }
    if case .steeringLost = error { return RuleError(.refusedByCard, "the card: \(error)", fit: "restart the back-end") }
    return RuleError(.refusedByCard, "the card did not take the change, and is as it was: \(error)", fit: fit)
  }

  /// Brings the card to other rules: all of them, or, if it refuses, none.
  func apply(_ new: CardProgram) throws(RuleError) {
    let old = card.filterCounts == nil ? nil : owners
    if let counts = card.filterCounts, let old { counter.collect(counts, by: old) }
    do throws(IntelError) { try driver?.apply(Self.tables(of: new)) } catch {
      // It has its old rules, but not where they were.
      knownOwners = nil
      throw Self.refusal(error)
    }
    generation += 1
    program = new
    knownOwners = nil
    if let counts = card.filterCounts, let old { counter.collect(counts, left: old, for: owners) }
  }

  private var owners: RuleCounter.Owners {
    if let knownOwners { return knownOwners }
    guard let driver else { preconditionFailure("a card that is away counts nothing") }
    let owners = RuleCounter.Owners(program, slots: driver.filterSlots(of: Self.tables(of: program)))
    knownOwners = owners
    return owners
  }

  /// What the card's filters have counted of each rule, in the order in which they are asked; nil for one whose frames
  /// cannot be told from another's.
  func ruleCounts() -> [FilterCount?] {
    guard let counts = card.filterCounts else { return program.steering.rules.map { _ in nil } }
    let owners = owners
    counter.collect(counts, by: owners)
    return program.steering.rules.map { counter.count(of: $0, by: owners) }
  }

  // MARK: Queues

  // Control thread only: a proof reads hundreds of registers, and a start waits for the NIC for up to 10 ms.

  /// Makes a receive queue that does not run.
  func makeReceiveQueue(pool: Int, queue: Int) throws(RingRefusal) -> IntelReceiveQueue {
    guard let driver else { throw RingRefusal("the card is away") }
    do throws(IntelError) {
      return try driver.makeReceiveQueue(driver.queueIndex(pool: pool, queue: queue), ringSize: ringSize, bufferByteCount: driver.largestFrame)
    } catch { throw RingRefusal("the card: \(error)") }
  }
  func makeTransmitQueue(pool: Int, queue: Int) throws(RingRefusal) -> IntelTransmitQueue {
    guard let driver else { throw RingRefusal("the card is away") }
    do throws(IntelError) { return try driver.makeTransmitQueue(driver.queueIndex(pool: pool, queue: queue), ringSize: ringSize) } catch {
      throw RingRefusal("the card: \(error)")
    }
  }

  /// Starts a receive queue of a pool's, empty. Its interrupts go to a worker's vector.
  func start(_ receive: inout IntelReceiveQueue, pool: Int, worker: Int) throws(RingRefusal) {
    guard let driver else { throw RingRefusal("the card is away") }
    // Guest memory is lent to it from now on: nothing but its owner's rules may reach it.
    do throws(RuleError) {
      try Exclusivity(program).check(pool: pool, in: driver.readSteering(plan))
    } catch { throw RingRefusal("\(error)") }
    do throws(IntelError) {
      try driver.assign(vector: worker, receiveQueue: receive.number)
      try receive.start()
    } catch { throw RingRefusal("the card: \(error)") }
    card.resumeWaiting(forQueue: receive.number)
  }
  func start(_ transmit: inout IntelTransmitQueue, pool: Int, worker: Int) throws(RingRefusal) {
    guard let driver else { throw RingRefusal("the card is away") }
    // What leaves the pool is its own: the card's checks are on before the first frame.
    do throws(RuleError) {
      try Exclusivity(program).checkSending(pool: pool, in: driver.readSending(plan))
    } catch { throw RingRefusal("\(error)") }
    do throws(IntelError) {
      try driver.assign(vector: worker, transmitQueue: transmit.number)
      try transmit.start()
    } catch { throw RingRefusal("the card: \(error)") }
  }

  /// What the processor compares of a VM's frames; the rest is the card's.
  func sourceCheck(ofVM number: Int) -> SourceCheck { Self.check(program, number) }
  private static func check(_ program: CardProgram, _ number: Int) -> SourceCheck {
    guard let left = program.sending?.processor[number] else { return .none }
    return SourceCheck(address: left.address?.rawValue, vlan: left.vlan, isAccessPort: left.portVLAN != nil)
  }
  /// VMs whose frames the processor has to compare otherwise than now once a program is applied: their transmit rings stand
  /// still meanwhile, for a frame that is with the card already was not compared for what the card then is told.
  func vmsToCheckAnew(for new: CardProgram) -> [Int] {
    (0..<plan.vmCount).filter { Self.check(new, $0) != Self.check(program, $0) }
  }
  /// What sees to a VM's sources and VLANs: `card`, `processor`, or `off`.
  func checkers(ofVM number: Int) -> (source: String, vlan: String) {
    let sender = program.senders[number]
    return (sender.addressChecker ?? "off", sender.vlanChecker ?? "off")
  }

  /// The port of the machine's own, if the configuration has one; its interrupts go to a worker's vector.
  func openHostPort(worker: Int) throws(ServiceError) -> HostPort? {
    guard case .tap(let name) = configuration.host else { return nil }
    let device = try TapDevice.open(name, mtu: configuration.nic.mtu, for: "--host")
    let pool = plan.host
    do throws(RingRefusal) {
      var receive = try makeReceiveQueue(pool: pool, queue: 0)
      var transmit = try makeTransmitQueue(pool: pool, queue: 0)
      try start(&receive, pool: pool, worker: worker)
      try start(&transmit, pool: pool, worker: worker)
      do { return try HostPort(device, receive: receive, transmit: transmit, in: space, allocator: allocator) } catch {
        throw RingRefusal("\(error)")
      }
    } catch { throw .card("the host's port: \(error)") }
  }
  /// The host port's pool.
  var hostPool: Int { plan.host }

  /// Nobody is behind one of a pool's queues any more: a wire that waits does not wait for it.
  func abandon(pool: Int, queue: Int) {
    if let driver { card.stopWaiting(forQueue: driver.queueIndex(pool: pool, queue: queue)) }
  }

  /// Over how many of its queues a pool's frames are spread: 1, 2 or 4, for the card counts in bits.
  ///
  /// - Throws: they are spread as before: frames for a queue that does not run are dropped.
  func setUsedQueues(pool: Int, count: Int) throws(IntelError) {
    guard let driver else { return }
    let used = count >= 4 ? 4 : count >= 2 ? 2 : 1
    _ = try driver.setUsedQueues(pool: pool, count: min(used, driver.queuesPerPool))
  }

  /// A worker's vector, to be armed before it sleeps.
  func interrupt(_ vector: Int) throws(ServiceError) -> IntelInterrupt {
    guard let driver else { throw .card("it is away") }
    do {
      // The model's messages go to the thread that steps it.
      if model == nil { try driver.setModeration(microseconds: configuration.nic.moderationMicroseconds, vector: vector) }
      return try driver.interrupt(vector)
    } catch { throw .card("a vector for each worker: \(error)") }
  }

  /// Nil: the card is away.
  var link: CardLink? { driver?.link }

  /// Tells the network that an address is behind this port now.
  func announce(_ address: [UInt8]) { card.announce(ReverseARP.frame(address)) }

  /// Whose window an address lies in; nil: ours.
  func pool(ofWindowAt address: IOVA) -> Int? {
    let number = Int(address.rawValue / card.windowSpan)
    return number > 0 && number <= plan.vmCount ? number - 1 : nil
  }
}

/// What a back-end sends so that switches learn where a machine has moved to. RFC 903.
enum ReverseARP {
  /// 60 bytes: broadcast, EtherType 0x8035, a "request reverse" of the address about itself.
  static func frame(_ address: [UInt8]) -> [UInt8] {
    precondition(address.count == 6)
    let payload: [UInt8] =
      [0, 1, 8, 0, 6, 4, 0, 3] + address + [0, 0, 0, 0] + address + [0, 0, 0, 0]
    let frame = Array(repeating: 0xFF, count: 6) + address + [0x80, 0x35] + payload
    return frame + Array(repeating: 0, count: 60 - frame.count)
  }
}
