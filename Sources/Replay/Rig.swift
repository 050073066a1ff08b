internal import Bus
internal import Datapath
internal import FlowSteering
internal import FlowTables
internal import GuestMemory
internal import Intel
internal import Linux
internal import NIC
internal import Simulation
internal import Virtio

/// A simulated machine: a card behind an IOMMU, its driver, and guests whose queues are joined to the card's.
///
/// The card and the IOMMU are models; the driver, the paths and everything between are what runs on hardware.
final class Rig {
  /// A guest and what was set up for it.
  struct Machine {
    let vm: ReplayOptions.VM
    let guest: SimulatedGuest
    let window: DMAWindow
    /// The numbers of its paths, in the order of its queues.
    var paths: [Int] = []
  }
  /// A path's place in the world.
  struct Lane {
    let machine: Int
    let queue: Int
    /// The card's queue.
    let cardQueue: Int
    let counters: ReceiveCounters
    let drops: DropLog
    /// The most frames that can be in the card's queue.
    let capacity: Int
  }

  let clock = SimulatedClock()
  let iommu: SimulatedIOMMU
  let card: SimulatedCard
  let driver: Ixgbe
  private(set) var machines: [Machine] = []
  private(set) var lanes: [Lane] = []
  let worker = Worker<IntelReceiveQueue>()
  let classifier: RuleIndex
  /// What the card's filters hold; nil: the port is one VM's, and has no pools.
  let program: CardProgram?
  var tables: CardTables? { program?.tables }
  /// Nil: no rule sends the host anything.
  private(set) var host: HostLane?
  /// The lane that each of the card's queues belongs to; -1 for none.
  private(set) var laneOfQueue = Array(repeating: -1, count: SimulatedCard.queueCount)

  /// The features that a path offers.
  static let offered: Features = [
    .version1, .mergeableBuffers, .eventIndex, .indirectDescriptors, .guestChecksum, .mtu, .mac,
  ]
  init(_ options: ReplayOptions, vms: [ReplayOptions.VM], hashes: Bool, sinks: [Int: any FrameSink]) throws(ReplayError) {
    let (clock, space) = (clock, SimulatedIOMMU(clock: clock))
    let card = SimulatedCard(dma: space, clock: clock)
    iommu = space
    self.card = card
    let steering = try Self.steering(options.rules, vms)
    classifier = RuleIndex(steering)
    let allocator = IOVAAllocator()
    var configuration = Ixgbe.Configuration()
    configuration.mtu = options.mtu
    configuration.queuesPerPool = vms.map(\.queues).max() ?? 1
    if vms.count > 1 || !options.rules.isEmpty {
      let (program, tables) = try Self.compile(steering)
      configuration.poolCount = tables.plan.count
      configuration.usedQueues = vms.map(\.queues) + Array(repeating: 1, count: tables.plan.count - vms.count)
      configuration.flowDirector = tables.exactFlows.isEmpty ? .off : Ixgbe.Configuration.FlowDirectorMemory(filters: tables.exactFlows.count) ?? .off
      self.program = program
    } else {
      program = nil
    }
    driver = try Self.attempt("the card") { () throws(IntelError) in
      try Ixgbe(registers: card, space: space, allocator: allocator, clock: clock, configuration: configuration)
    }

    // The guests, and their memory on the bus.

    for (index, vm) in vms.enumerated() {
      let guest = try Self.makeGuest(vm, index: index, options: options, hashes: hashes)
      let map = try Self.attempt("VM \(vm.name)") { () throws(MemoryError) in try guest.makeBackEndMap() }
      let window = try Self.attempt("VM \(vm.name)") { () throws(IOAddressSpaceError) in
        try DMAWindow(number: index + 1, map: map, in: space)
      }
      machines.append(Machine(vm: vm, guest: guest, window: window))
    }

    // A queue runs before it is lent anything, and its rules come last: nothing reaches it before it is a wall.
    let cardRing = min(4096, max(64, options.ringSize))
    for (index, machine) in machines.enumerated() {
      for queue in 0..<machine.vm.queues {
        let cardQueue = driver.queueIndex(pool: index, queue: queue)
        let lane = try makeLane(
          machine: index, queue: queue, cardQueue: cardQueue, ringSize: cardRing, mode: options.mode,
          allocator: allocator)
        laneOfQueue[cardQueue] = lane
        machines[index].paths.append(lane)
      }
      machine.guest.start(sink: sinks[index])
    }
    if let tables, options.rules.contains(where: { $0.decision == .host }) {
      host = try makeHost(driver.queueIndex(pool: tables.plan.host), ringSize: cardRing, allocator: allocator)
    }
    try steer(vms)
    for lane in lanes.indices { post(lane) }
    let driver = driver
    try Self.attempt("the card") { () throws(IntelError) in
      try driver.enableReceive()
      try driver.waitForLink()
    }
  }

  private static func attempt<Result, Failure: Error & CustomStringConvertible>(
    _ what: String, _ body: () throws(Failure) -> Result
  ) throws(ReplayError) -> Result {
    do { return try body() } catch { throw .machine("\(what): \(error)") }
  }

  private static func makeGuest(
    _ vm: ReplayOptions.VM, index: Int, options: ReplayOptions, hashes: Bool
  ) throws(ReplayError) -> SimulatedGuest {
    var configuration = SimulatedGuest.Configuration(name: vm.name)
    configuration.queueCount = vm.queues
    configuration.ringSize = options.ringSize
    configuration.shape = vm.buffers
    configuration.bufferByteCount = vm.bufferBytes
    configuration.features = vm.buffers.usualFeatures
    configuration.hashesFrames = hashes
    configuration.checksCanaries = options.checksCanaries
    configuration.checksUnusedMemory = options.checksCanaries
    configuration.placement.memoryByteCount = options.guestMemory
    // Large pages if the kernel has some, as for guests whose frames a back-end moves. Where all of a guest's memory is looked
    // at, or its size is given, only what is used is there.
    configuration.placement.pages = options.hugePages ? .huge : options.checksCanaries || options.guestMemory != nil ? .standard : .large
    // Guest memory lies where the thread that moves its frames runs.
    let processors = options.processors ?? Thread.processors
    if NUMA.nodeCount > 1, let first = processors.first { configuration.placement.node = NUMA.node(ofProcessor: first) }
    configuration.seed = options.seed &+ UInt64(index)
    if let count = vm.stallsAfter { configuration.pace = .stall(afterFrames: count) }
    let guest: SimulatedGuest
    do throws(GuestError) { guest = try SimulatedGuest(configuration) } catch {
      guard case .chainTooLong(let descriptors, _) = error else { throw .machine("VM \(vm.name): \(error)") }
      var least = 2
      while least < descriptors { least *= 2 }
      throw .usage("--vm \(vm.name),buffers=\(vm.buffers.rawValue): \(error); give --ring-size \(least) or more")
    }
    try attempt("VM \(vm.name)") { () throws(GuestError) in _ = try guest.negotiate(offered: offered) }
    return guest
  }

  private func makeLane(
    machine index: Int, queue: Int, cardQueue: Int, ringSize: Int, mode: PathMode, allocator: IOVAAllocator
  ) throws(ReplayError) -> Int {
    let machine = machines[index]
    let path = try makePath(machine, queue: queue, cardQueue: cardQueue, ringSize: ringSize, mode: mode, allocator: allocator)
    let (counters, drops, capacity) = (path.counters, path.drops, path.queueCapacity)
    let lane = worker.add(path)
    lanes.append(
      Lane(
        machine: index, queue: queue, cardQueue: cardQueue, counters: counters, drops: drops, capacity: capacity))
    return lane
  }

  private func makePath(
    _ machine: Machine, queue: Int, cardQueue: Int, ringSize: Int, mode: PathMode, allocator: IOVAAllocator
  ) throws(ReplayError) -> ReceivePath<IntelReceiveQueue> {
    let name = "VM \(machine.vm.name)"
    let receiveQueue = try startQueue(cardQueue, ringSize: ringSize, for: name)
    do throws(AttachmentError) {
      return try ReceivePath(
        layout: machine.guest.layout(queue: queue).generic, features: machine.guest.features,
        base: RingBase(split: 0), window: machine.window, queue: receiveQueue, space: iommu, allocator: allocator, mode: mode)
    } catch { throw .machine("\(name): \(error)") }
  }

  private func makeHost(_ number: Int, ringSize: Int, allocator: IOVAAllocator) throws(ReplayError) -> HostLane {
    let queue = try startQueue(number, ringSize: ringSize, for: "the host")
    do throws(DMABufferError) { return try HostLane(queue: queue, in: iommu, allocator: allocator) } catch { throw .machine("the host: \(error)") }
  }

  private func startQueue(_ number: Int, ringSize: Int, for name: String) throws(ReplayError) -> IntelReceiveQueue {
    do throws(IntelError) {
      var queue = try driver.makeReceiveQueue(number, ringSize: ringSize, bufferByteCount: driver.largestFrame)
      try driver.start(&queue)
      return queue
    } catch { throw .machine("\(name): the card: \(error)") }
  }

  /// Gives the card what the guest has made available: a frame that comes first finds a buffer.
  private func post(_ lane: Int) {
    worker.withPath(lane) { path in
      var before: Int
      repeat {
        before = path.outstandingBuffers
        _ = turnPath(&path)
      } while path.outstandingBuffers > before
    }
  }

  private static func steering(_ rules: [Rule], _ vms: [ReplayOptions.VM]) throws(ReplayError) -> Steering {
    let receivers = vms.map { Receiver(name: $0.name, queueCount: $0.queues, address: $0.address, vlan: $0.vlan) }
    do throws(RuleError) {
      return try Steering(rules, for: receivers)
    } catch { throw .rule(error) }
  }
  private static func compile(_ steering: Steering) throws(ReplayError) -> (CardProgram, CardTables) {
    do throws(RuleError) {
      let program = try CardProgram(steering, for: .intel82599)
      try program.checkCounts()
      guard let tables = program.tables else { preconditionFailure("an 82599 has tables") }
      return (program, tables)
    } catch { throw .rule(error) }
  }

  /// Tells the card which frames go to which pool, and to none but that.
  private func steer(_ vms: [ReplayOptions.VM]) throws(ReplayError) {
    let (driver, tables) = (driver, tables)
    try Self.attempt("the card") { () throws(IntelError) in
      if let tables { return try driver.apply(tables) }
      // The port's one guest.
      guard let address = vms[0].address else { return try driver.setPromiscuous(true) }
      try driver.setAddress(address, slot: 0, pool: 0)
      try driver.setAccepted([.broadcast, .allMulticast, .untagged], pool: 0)
      if let vlan = vms[0].vlan {
        try driver.setVLAN(vlan, pools: 1)
      }
    }
  }

  /// What a queue that nobody has stands for, if frames can end there.
  func end(at queue: Int) -> CardDrop? {
    guard let tables else { return nil }
    let stride = driver.queueIndex(pool: 1)
    guard queue / stride == tables.plan.nowhere else { return nil }
    return queue % stride == tables.plan.dropQueue.number ? .filtered : .noPool
  }

  /// Laws whose one side is what the card's own registers counted.
  func cardLaws(accepted: UInt64, refused: UInt64) -> [ReplayReport.Law] {
    let statistics = driver.readStatistics()
    // The card has 16 sets of queue counters, which pools share.
    let queues = statistics.queues.reduce((received: UInt64(0), dropped: UInt64(0))) {
      ($0.received + $1.receivedFrames, $0.dropped + $1.droppedFrames)
    }
    return [
      ReplayReport.Law("put into queues = counted by the card (QPRC)", accepted, queues.received),
      ReplayReport.Law("refused by queues = counted by the card (QPRDC)", refused, queues.dropped),
    ]
  }

  /// What the card's filters have counted, by rule.
  var ruleCounts: [ReplayReport.Rule] {
    guard let program, let tables else { return [] }
    let owners = RuleCounter.Owners(program, slots: driver.filterSlots(of: tables))
    var counter = RuleCounter()
    counter.collect(card.filterCounts, by: owners)
    return program.steering.rules.map { rule in
      let count = counter.count(of: rule, by: owners)
      return ReplayReport.Rule(id: rule.id, text: rule.text, frames: count?.frames, bytes: count?.bytes)
    }
  }

  /// What steers frames to a VM, in words.
  func steering(of index: Int) -> String {
    let vm = machines[index].vm
    if machines.count == 1 && vm.address == nil && vm.vlan == nil {
      return classifier.steering.userRules.isEmpty ? "everything" : "everything that no rule sends elsewhere"
    }
    var parts: [String] = []
    if let address = vm.address { parts.append("mac \(address), broadcast and multicast") }
    if let vlan = vm.vlan { parts.append("vlan \(vlan)") }
    let rules = classifier.steering.userRules.filter { $0.vms.contains(vm.name) }
    if !rules.isEmpty { parts.append(rules.map(\.label).joined(separator: ", ")) }
    return parts.joined(separator: ", ")
  }

  /// The machine whose window has a bus address; nil for one of our own.
  func machine(at address: IOVA) -> Int? {
    let number = Int(address.rawValue / DMAWindow.span)
    return (1...machines.count).contains(number) ? number - 1 : nil
  }

  /// Takes a machine's memory off the bus.
  func closeWindow(of index: Int) {
    do throws(IOAddressSpaceError) { try machines[index].window.close() } catch { preconditionFailure("the simulated IOMMU does not unmap: \(error)") }
  }
}
