internal import Bus
internal import FlowSteering
internal import FlowTables
internal import Intel
internal import Linux
internal import NIC
internal import Replay
internal import Simulation
internal import VhostUser

/// The card that all VMs share, its driver, and the bus it sits on: the one place that knows which kind it is.
///
/// The wall between guests: each VM has a pool of the card. Which frames reach a pool is settled here before any of its
/// queues runs, and stays so; a queue runs only while its guest's ring does.
final class CardHost {
  let card: SharedCard
  let allocator = IOVAAllocator()
  let mtu: Int
  private let driver: Ixgbe
  private let ringSize: Int
  private let tap: TapWire?
  private let configuration: Configuration
  private(set) var program: CardProgram
  /// How often the rules have been changed.
  private(set) var generation: UInt64 = 0
  private var counter = RuleCounter()
  /// Whose the card's filters are; nil: to be found out anew.
  private var knownOwners: RuleCounter.Owners?

  /// Where windows, rings and host buffers are mapped.
  var space: any IOAddressSpace { card }

  init(_ configuration: Configuration, rules: [Rule]) throws(ServiceError) {
    self.configuration = configuration
    mtu = configuration.nic.mtu
    ringSize = configuration.nic.ringSize
    let card: SharedCard
    do { card = try SharedCard() } catch { throw .machine("\(error)") }
    self.card = card
    tap = try Self.openWire(configuration, card)
    let program: CardProgram
    do throws(RuleError) { program = try Self.compile(rules, configuration) } catch { throw .rule(error) }
    self.program = program
    let (tables, plan) = (Self.tables(of: program), Self.tables(of: program).plan)
    var settings = Ixgbe.Configuration()
    settings.mtu = mtu
    settings.poolCount = plan.count
    settings.queuesPerPool = configuration.vms.map(\.queuePairs).max() ?? 1
    // Nobody's pools have one queue, so that RSS does not spread what ends there.
    settings.usedQueues = configuration.vms.map(\.queuePairs) + Array(repeating: 1, count: plan.count - plan.vmCount)
    settings.flowDirector = Ixgbe.Configuration.FlowDirectorMemory(filters: max(configuration.nic.exactFlows, tables.exactFlows.count)) ?? .filters8190
    do {
      driver = try Ixgbe(registers: card, space: card, allocator: allocator, clock: card, configuration: settings)
      try driver.apply(tables)
      // Nobody is ever behind these.
      for queue in 0..<plan.queuesEach { card.stopWaiting(forQueue: plan.nowhere * plan.queuesEach + queue) }
      try driver.enableReceive()
      try driver.waitForLink()
    } catch { throw .card("\(error)") }
  }

  private static func tables(of program: CardProgram) -> CardTables {
    guard let tables = program.tables else { preconditionFailure("an 82599 has tables") }
    return tables
  }

  /// What rules make of the card.
  static func compile(_ rules: [Rule], _ configuration: Configuration) throws(RuleError) -> CardProgram {
    if configuration.host == nil, let rule = Steering.numbered(rules).first(where: { $0.decision == .host }) { throw noHost(rule) }
    let program = try CardProgram(Steering(rules, for: configuration.receivers), for: .intel82599)
    try program.checkCounts()
    return program
  }
  private static func noHost(_ rule: Rule) -> RuleError {
    RuleError(
      .actionUnsupported, "\"host\": this back-end has no port of the machine's own", fit: "start it with --host tap=NAME (host: in a file), or name a VM, or drop",
      rule: rule.label)
  }
  /// As `compile(_:_:)`, for the VMs of this back-end.
  func compile(_ rules: [Rule]) throws(RuleError) -> CardProgram { try Self.compile(rules, configuration) }

  private static func openWire(_ configuration: Configuration, _ card: SharedCard) throws(ServiceError) -> TapWire? {
    guard case .tap(let name) = configuration.wire else { return nil }
    let wire = TapWire(try openTap(name, mtu: configuration.nic.mtu, for: "--wire"))
    card.attach(wire)
    card.setUplink(wire)
    return wire
  }

  private static func openTap(_ name: String, mtu: Int, for option: String) throws(ServiceError) -> TapDevice {
    do throws(TapError) {
      let device = try TapDevice(name: name)
      try device.setMTU(mtu)
      try device.bringUp()
      return device
    } catch { throw .machine("\(option) tap=\(name): \(error)") }
  }

  // MARK: Rules

  /// Adds a rule that needs one filter more and touches nothing else; nil for one that is not of this kind.
  func add(_ rule: Rule) throws(RuleError) -> Rule? {
    guard let (added, filter) = try program.add(rule) else { return nil }
    knownOwners = nil
    do throws(IntelError) { try driver.add(filter) } catch {
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
    let old = owners
    counter.collect(filterCounts, by: old)
    do throws(IntelError) { try driver.apply(Self.tables(of: new)) } catch {
      // It has its old rules, but not where they were.
      knownOwners = nil
      throw Self.refusal(error)
    }
    generation += 1
    program = new
    knownOwners = nil
    counter.collect(filterCounts, left: old, for: owners)
  }

  private var owners: RuleCounter.Owners {
    if let knownOwners { return knownOwners }
    let owners = RuleCounter.Owners(program, slots: driver.filterSlots(of: Self.tables(of: program)))
    knownOwners = owners
    return owners
  }
  private var filterCounts: [FilterPlace: FilterCount] { card.withModels { card, _, _ in card.filterCounts } }

  /// What the card's filters have counted of each rule, in the order in which they are asked; nil for one whose frames
  /// cannot be told from another's.
  func ruleCounts() -> [FilterCount?] {
    let owners = owners
    counter.collect(filterCounts, by: owners)
    return program.steering.rules.map { counter.count(of: $0, by: owners) }
  }

  // MARK: Queues

  /// A receive queue that runs, empty. Its interrupts go to a worker's vector.
  func startReceiveQueue(pool: Int, queue: Int, worker: Int) throws(RingRefusal) -> IntelReceiveQueue {
    let number = driver.queueIndex(pool: pool, queue: queue)
    // Guest memory is lent to it from now on: nothing but its owner's rules may reach it.
    do throws(RuleError) {
      try Exclusivity(program).check(pool: pool, in: driver.readSteering(Self.tables(of: program).plan))
    } catch { throw RingRefusal("\(error)") }
    do {
      var receive = try driver.makeReceiveQueue(number, ringSize: ringSize, bufferByteCount: driver.largestFrame)
      try driver.assign(vector: worker, receiveQueue: number)
      try driver.start(&receive)
      card.resumeWaiting(forQueue: number)
      return receive
    } catch { throw RingRefusal("the card: \(error)") }
  }

  func startTransmitQueue(pool: Int, queue: Int, worker: Int) throws(RingRefusal) -> IntelTransmitQueue {
    let number = driver.queueIndex(pool: pool, queue: queue)
    do {
      var transmit = try driver.makeTransmitQueue(number, ringSize: ringSize)
      try driver.assign(vector: worker, transmitQueue: number)
      try driver.start(&transmit)
      return transmit
    } catch { throw RingRefusal("the card: \(error)") }
  }

  /// The port of the machine's own, if the configuration has one; its interrupts go to a worker's vector.
  func openHostPort(worker: Int) throws(ServiceError) -> HostPort? {
    guard case .tap(let name) = configuration.host else { return nil }
    let device = try Self.openTap(name, mtu: configuration.nic.mtu, for: "--host")
    let pool = Self.tables(of: program).plan.host
    do throws(RingRefusal) {
      let receive = try startReceiveQueue(pool: pool, queue: 0, worker: worker)
      let transmit = try startTransmitQueue(pool: pool, queue: 0, worker: worker)
      do { return try HostPort(device, receive: receive, transmit: transmit, in: space, allocator: allocator) } catch {
        throw RingRefusal("\(error)")
      }
    } catch { throw .card("the host's port: \(error)") }
  }
  /// What the card has put into the host's queue.
  var hostArrivals: UInt64 { arrived(in: Self.tables(of: program).plan.host, queues: 1).frames }

  /// Nobody is behind one of a pool's queues any more: a wire that waits does not wait for it.
  func abandon(pool: Int, queue: Int) { card.stopWaiting(forQueue: queueNumber(pool: pool, queue: queue)) }

  func queueNumber(pool: Int, queue: Int) -> Int { driver.queueIndex(pool: pool, queue: queue) }

  /// Over how many of its queues a pool's frames are spread: 1, 2 or 4, for the card counts in bits.
  func setUsedQueues(pool: Int, count: Int) {
    let used = count >= 4 ? 4 : count >= 2 ? 2 : 1
    _ = try? driver.setUsedQueues(pool: pool, count: min(used, driver.configuration.queuesPerPool))
  }

  // MARK: Interrupts

  /// The vector of a worker raises its eventfd.
  func connect(vector: Int, to event: borrowing EventDescriptor) throws(SystemError) { try card.connect(vector: vector, to: event) }
  /// A worker's vector, to be armed before it sleeps.
  func interrupt(_ vector: Int) -> IntelInterrupt {
    do { return try driver.interrupt(vector) } catch { preconditionFailure("\(error)") }
  }

  var link: CardLink { driver.link }

  /// Tells the network that an address is behind this port now.
  func announce(_ address: [UInt8]) {
    let frame = ReverseARP.frame(address)
    unsafe frame.withUnsafeBytes { bytes in _ = unsafe tap?.take(bytes) }
  }

  /// Stops everything: afterwards the card touches no memory.
  func shutDown() { try? driver.shutDown() }
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

// MARK: What came of frames

extension CardHost {
  private func sum(of pool: Int, queues: Int, _ value: (_ queue: Int, TrafficCounters.Origin) -> UInt64) -> UInt64 {
    (0..<queues).reduce(UInt64(0)) { total, queue in
      let number = queueNumber(pool: pool, queue: queue)
      return TrafficCounters.Origin.allCases.reduce(total) { $0 + value(number, $1) }
    }
  }

  /// What the card has put into a pool's queues.
  func arrived(in pool: Int, queues: Int) -> StatusReport.Traffic {
    StatusReport.Traffic(
      frames: sum(of: pool, queues: queues) { card.counters.deliveredFrames(queue: $0, from: $1) },
      bytes: sum(of: pool, queues: queues) { card.counters.deliveredBytes(queue: $0, from: $1) })
  }

  /// What the card has dropped of a pool's frames, by reason; those that occurred.
  func drops(of pool: Int, queues: Int) -> [String: UInt64] {
    var result: [String: UInt64] = [:]
    for reason in CardDrop.allCases {
      let count = sum(of: pool, queues: queues) { card.counters.droppedFrames(reason, queue: $0, from: $1) }
      if count > 0 { result[reason.name] = count }
    }
    return result
  }

  /// Why a frame ended: for a queue that nobody is ever behind, what rules have it end for.
  private func reason(_ drop: CardDrop, _ queue: Int?) -> String {
    guard let queue, drop == .queueDisabled else { return drop.name }
    let plan = Self.tables(of: program).plan
    guard queue / plan.queuesEach == plan.nowhere else { return drop.name }
    return (queue % plan.queuesEach == plan.dropQueue.number ? CardDrop.filtered : .noPool).name
  }
  /// Queues that are no VM's, and nil for those of no queue.
  private var queuesOfNobody: [Int?] {
    let plan = Self.tables(of: program).plan
    return (plan.vmCount * plan.queuesEach..<SimulatedCard.queueCount).map { $0 } + [nil]
  }

  /// What the card has dropped for no VM.
  func unroutedDrops() -> [String: UInt64] {
    var result: [String: UInt64] = [:]
    for queue in queuesOfNobody {
      for reason in CardDrop.allCases {
        let count = TrafficCounters.Origin.allCases.reduce(UInt64(0)) {
          $0 + card.counters.droppedFrames(reason, queue: queue, from: $1)
        }
        if count > 0 { result[self.reason(reason, queue), default: 0] += count }
      }
    }
    return result
  }

  /// All that was dropped of what some counters have counted.
  func drops(in counters: TrafficCounters) -> [String: UInt64] {
    var result: [String: UInt64] = [:]
    for queue in (0..<SimulatedCard.queueCount).map(Optional.some) + [nil] {
      for reason in CardDrop.allCases {
        let count = counters.droppedFrames(reason, queue: queue, from: .wire)
        if count > 0 { result[self.reason(reason, queue), default: 0] += count }
      }
    }
    return result
  }
  /// Frames that were put into a pool's queues, of what some counters have counted.
  func stored(in pool: Int, queues: Int, by counters: TrafficCounters) -> UInt64 {
    (0..<queues).reduce(UInt64(0)) { $0 + counters.deliveredFrames(queue: queueNumber(pool: pool, queue: $1), from: .wire) }
  }

  func storedForHost(by counters: TrafficCounters) -> UInt64 {
    stored(in: Self.tables(of: program).plan.host, queues: 1, by: counters)
  }

  /// What a pool's queues have sent, and what of that went to other pools.
  func sent(from pool: Int, queues: Int) -> (all: StatusReport.Traffic, switched: UInt64) {
    var (all, switched) = (StatusReport.Traffic(), UInt64(0))
    for queue in 0..<queues {
      let number = queueNumber(pool: pool, queue: queue)
      all.frames += card.counters.sentFrames(queue: number)
      all.bytes += card.counters.sentBytes(queue: number)
      switched += card.counters.switchedCopies(queue: number)
    }
    return (all, switched)
  }

  /// All that went onto the wire.
  func onWire() -> StatusReport.Traffic {
    (0..<SimulatedCard.queueCount).reduce(into: StatusReport.Traffic()) {
      $0.frames += card.counters.wireFrames(queue: $1)
      $0.bytes += card.counters.wireBytes(queue: $1)
    }
  }

  /// Copies of frames that went from one pool to another.
  func switchedFrames() -> UInt64 {
    (0..<SimulatedCard.queueCount).reduce(UInt64(0)) { $0 + card.counters.switchedCopies(queue: $1) }
  }

  /// Mappings that the card can use now.
  var mapCount: Int { card.withModels { _, iommu, _ in iommu.mappingCount } }

  /// Accesses that the IOMMU refused after the first `seen`: whose window, and in words.
  func busFaults(after seen: UInt64) -> [(pool: Int?, text: String)] {
    let faults = card.busFaults
    let fresh = Int(min(card.counters.busFaults - seen, UInt64(faults.count)))
    return faults.suffix(fresh).map { fault in
      let number = Int(fault.address.rawValue / DMAWindow.span)
      return (number > 0 ? number - 1 : nil, "\(fault)")
    }
  }
}
