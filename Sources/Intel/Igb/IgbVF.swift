public import Bus
public import FlowSteering
public import FlowTables

/// A virtual function of an 82576: one pool of the card, with an address space of its own. Its wall is the IOMMU's.
///
/// What comes to it is the physical function's to say, whoever drives that: this driver asks for it by the mailbox between
/// the two. It can have one address, broadcasts, and all groups; VLANs are set at the physical function, which then takes
/// the tags out and puts them in. 82576 datasheet 7.10.2, 8.27 to 8.29.
///
/// One thread at a time, as `Igb`.
public final class IgbVF: IntelCard {
  public let profile = CardProfile.intel82576VF
  /// Messages of a virtual function: one vector of three is for the mailbox elsewhere, and not used here.
  public static let vectorCount = 3
  private let mtu: Int
  private let registers: any RegisterFile
  private let space: any IOAddressSpace
  private let allocator: IOVAAllocator
  private let clock: any Timekeeper
  private let mailbox: IgbMailbox
  /// As the physical function gave or granted it; nil: none yet.
  public private(set) var address: MACAddress?
  private var tables: CardTables?
  private var isReceiving = false
  private let receiveMark = RunningMark()
  private let transmitMark = RunningMark()
  /// The physical function knows it, as far as was seen when its queues were made.
  private var isKnown = true
  private var past = Igb.PoolCounters()
  private var total = IgbStatistics.Pool()

  /// Resets the function, and asks for its address. Nothing is received before `enableReceive`.
  public init(
    registers: any RegisterFile, space: any IOAddressSpace, allocator: IOVAAllocator, clock: any Timekeeper, mtu: Int = 1500
  ) throws(IntelError) {
    guard Igb.Configuration.mtus.contains(mtu) else { throw .mtu(mtu, allowed: Igb.Configuration.mtus) }
    (self.mtu, self.registers, self.space, self.allocator, self.clock) = (mtu, registers, space, allocator, clock)
    guard registers.read(STATUS.self).rawValue != .max else { throw .deviceGone }
    mailbox = IgbMailbox(registers, clock)
    address = try Self.reset(registers, mailbox, clock)
    registers.write(EIAC(rawValue: 0x7))
    registers.write(EIAM(rawValue: 0x7))
    registers.write(IVAR(rawValue: 0))
    for n in 0..<Self.vectorCount { registers.write(EITR(rawValue: 0), n) }
    // The check sequence and a tag of four bytes are the physical function's to add, as Linux has it.
    try mailbox.ask(.setLargestFrame(UInt32(mtu + 18)))
    _ = readCounters()
    total = IgbStatistics.Pool()
  }

  private static func reset(_ registers: any RegisterFile, _ mailbox: IgbMailbox, _ clock: any Timekeeper) throws(IntelError) -> MACAddress? {
    registers.write(EIMC(rawValue: 0x7))
    registers.write(CTRL(rawValue: 1 << 26))
    clock.pause(nanoseconds: 10_000_000)
    try mailbox.waitForPhysicalFunction()
    return try mailbox.reset()
  }

  public var largestFrame: Int { mtu + 18 }
  public var queuesPerPool: Int { 1 }
  public func queueIndex(pool: Int, queue: Int) -> Int {
    precondition(pool == 0 && queue == 0)
    return 0
  }

  public func makeReceiveQueue(_ n: Int, ringSize: Int, bufferByteCount: Int) throws(IntelError) -> IntelReceiveQueue {
    try Igb.check(n, of: "queues", count: 1)
    guard bufferByteCount >= largestFrame else { throw .bufferTooSmall(needed: largestFrame, found: bufferByteCount) }
    askWhetherKnown()
    return IntelReceiveQueue(
      .igbVF, number: n, size: ringSize, largestFrame: largestFrame, descriptors: try makeRing(ringSize), reportsChecksum: true, dropsWhenEmpty: true,
      registers: registers, clock: clock, mark: receiveMark)
  }
  public func makeTransmitQueue(_ n: Int, ringSize: Int) throws(IntelError) -> IntelTransmitQueue {
    try Igb.check(n, of: "queues", count: 1)
    askWhetherKnown()
    return IntelTransmitQueue(
      .igbVF, number: n, size: ringSize, largestFrame: largestFrame, descriptors: try makeRing(ringSize), registers: registers, clock: clock,
      mark: transmitMark)
  }
  /// While no queue of its own runs there is nothing that a reset would stop: then the physical function is asked, which
  /// answers one that has been reset with no, or not at all.
  private func askWhetherKnown() {
    guard !receiveMark.isSet, !transmitMark.isSet, isOurs else { return }
    isKnown = (try? mailbox.ask(.setLargestFrame(UInt32(mtu + 18)))) != nil
  }
  private func makeRing(_ size: Int) throws(IntelError) -> DMABuffer {
    guard Igb.ringSizes.contains(size), size % 8 == 0 else { throw .ringSize(size, allowed: Igb.ringSizes) }
    do { return try DMABuffer(byteCount: 16 * size, access: [.read, .write], in: space, allocator: allocator) } catch { throw .memory(error) }
  }

  // MARK: Interrupts

  public func assign(vector: Int?, receiveQueue n: Int) throws(IntelError) { try setVector(vector, entry: 0, of: n) }
  public func assign(vector: Int?, transmitQueue n: Int) throws(IntelError) { try setVector(vector, entry: 1, of: n) }
  private func setVector(_ vector: Int?, entry: Int, of n: Int) throws(IntelError) {
    try Igb.check(n, of: "queues", count: 1)
    if let vector { try Igb.check(vector, of: "interrupt vectors", count: Self.vectorCount) }
    registers.modify(IVAR.self) { $0.set(entry, vector: vector) }
  }
  public func interrupt(_ vector: Int) throws(IntelError) -> IntelInterrupt {
    try Igb.check(vector, of: "interrupt vectors", count: Self.vectorCount)
    return IntelInterrupt(
      vector: vector, bit: 1 << UInt32(vector), cause: EICR.offset(0), set: EIMS.offset(0), clear: EIMC.offset(0), registers: registers)
  }

  public func setModeration(microseconds: Int, vector: Int) throws(IntelError) {
    try Igb.check(vector, of: "interrupt vectors", count: Self.vectorCount)
    try Igb.check(microseconds, of: "moderation intervals (µs)", count: 8192)
    registers.write(EITR(microseconds: microseconds), vector)
  }

  // MARK: What it receives

  public func apply(_ new: CardTables) throws(IntelError) {
    let own = new.addresses.filter { $0.pools & 1 != 0 }.map(\.address)
    guard own.count == 1, let wanted = own.first, !wanted.isGroup, new.unicastPools & 1 == 0 else {
      throw .unavailable("a virtual function receives by one address: give its VM mac=\(address.map { "\($0), which it has" } ?? "ADDRESS")")
    }
    guard new.broadcastPools & 1 == 1 else { throw .unavailable("a virtual function receives broadcasts, wanted or not") }
    guard !new.filtersVLANs else {
      throw .unavailable("a virtual function's VLAN is set where its physical function is driven (ip link set DEVICE vf N vlan ID)")
    }
    guard new.etherTypes.isEmpty, new.syn == nil, new.fiveTuples.isEmpty, new.defaultPool == nil || new.defaultPool == new.plan.nowhere else {
      throw .unavailable("a virtual function has no filters of its own but its address")
    }
    if wanted != address { try setAddress(wanted) }
    if new.multicastPools & 1 != (tables?.multicastPools ?? 0) & 1 { try setAllMulticast(new.multicastPools & 1 == 1) }
    tables = new
  }
  public func add(_ filter: CardProgram.Addition) throws(IntelError) { throw .unavailable("a virtual function has no filters of its own but its address") }

  private func setAddress(_ wanted: MACAddress) throws(IntelError) {
    do throws(IntelError) { try mailbox.ask(.setAddress(wanted)) } catch {
      guard case .unavailable = error else { throw error }
      throw .unavailable("the physical function keeps this virtual function's address\(address.map { " \($0)" } ?? ""): give its VM that one, or set it there (ip link set DEVICE vf N mac \(wanted))")
    }
    address = wanted
  }

  /// An older physical function does not know the wish: then the VM hears no groups, which `unavailable` says.
  private func setAllMulticast(_ isOn: Bool) throws(IntelError) { try mailbox.ask(.setAllMulticast(isOn)) }

  /// What the physical function has granted. What it has besides is not to be read from here.
  public func readSteering(_ plan: PoolPlan) -> CardState {
    var state = CardState(plan: plan)
    if let tables { state.tables = tables }
    state.enabledPools = 1
    state.replicates = true
    return state
  }
  /// Its frames are compared by the processor; what its physical function checks besides (ip link set DEVICE vf N spoofchk on)
  /// cannot be read from here.
  public func readSending(_ plan: PoolPlan) -> CardState { readSteering(plan) }
  public func filterSlots(of tables: CardTables) -> FilterSlots {
    FilterSlots(addresses: [:], vlans: [:], etherTypes: [:], fiveTuples: [:], exactFlows: [:])
  }
  @discardableResult public func setUsedQueues(pool: Int, count: Int) throws(IntelError) -> Int { 1 }

  /// Its queue decides: the physical function lets frames through since the reset.
  public func enableReceive() throws(IntelError) { isReceiving = true }
  public func disableReceive() throws(IntelError) { throw .unavailable("a virtual function cannot hold what is received: stop its queue") }

  // MARK: State

  public var isThere: Bool { registers.read(STATUS.self).rawValue != .max }
  /// The physical function says that it was reset, and this one with it. Of a reset of this one alone no register tells: a
  /// queue that runs stands still then.
  public var isOurs: Bool {
    isKnown && !mailbox.wasReset && receiveMark.agrees { ReceiveRegisters(.igbVF, 0, of: registers).isEnabled }
      && transmitMark.agrees { TransmitRegisters(.igbVF, 0, of: registers).isEnabled }
  }
  public var link: CardLink {
    let status = registers.read(STATUS.self)
    guard status.isLinkUp, status.rawValue != .max else { return CardLink(isUp: false, megabits: 0) }
    return CardLink(isUp: true, megabits: [10, 100, 1000, 1000][status.speed])
  }
  public func waitForLink(within limit: Duration) throws(IntelError) {
    do { try registers.wait(for: STATUS.self, within: limit, on: clock) { $0.isLinkUp } } catch { throw .register(error) }
  }

  public func readCounters() -> CardCounters {
    if isThere {
      func grown(_ offset: Int) -> UInt64 { past.grown(offset, to: registers.read(offset)) }
      total.receivedFrames &+= grown(0xF10)
      total.sentFrames &+= grown(0xF14)
      total.receivedBytes &+= grown(0xF18)
      total.sentBytes &+= grown(0xF34)
    }
    let pool = CardCounters.Pool(
      received: .init(frames: total.receivedFrames, wireBytes: total.receivedBytes), sent: .init(frames: total.sentFrames, wireBytes: total.sentBytes),
      dropped: 0)
    return CardCounters(received: pool.received, sent: pool.sent, switched: nil, dropped: [:], overruns: nil, refused: 0, pools: [pool])
  }

  public func shutDown() throws(IntelError) {
    guard isThere else { throw .deviceGone }
    registers.write(EIMC(rawValue: 0x7))
    registers.write(CTRL(rawValue: 1 << 26))
    clock.pause(nanoseconds: 10_000_000)
  }

  // Registers that it has of the card's, at the same places.
  private typealias CTRL = Igb.CTRL
  private typealias STATUS = Igb.STATUS
  private typealias EICR = Igb.EICR
  private typealias EIMS = Igb.EIMS
  private typealias EIMC = Igb.EIMC
  private typealias EIAC = Igb.EIAC
  private typealias EIAM = Igb.EIAM
  private typealias EITR = Igb.EITR
  private typealias IVAR = Igb.IVAR
}
