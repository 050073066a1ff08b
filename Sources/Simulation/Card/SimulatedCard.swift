public import Bus
internal import CLinux
internal import Synchronization

/// A register-level model of one port of the Intel 82599ES, from its datasheet: registers, filters, queues, DMA.
///
/// A driver reaches it as it reaches the hardware, through registers and memory. The wire is `receive` and
/// `transmit`; whoever calls them is the cable. All it does to memory goes through the IOMMU. Time is the
/// simulated clock's: what takes time on a card is finished when the clock has passed it.
///
/// Where the datasheet is silent, or the model departs from it, a Reading has a name: see `Readings.md`.
///
/// One thread at a time. `@safe`: its tables have fixed lengths, indices are checked or masked where they come from
/// a register, and memory of others is only reached where the IOMMU answered for the whole run.
@safe public final class SimulatedCard: RegisterFile {
  public static let vendorID: UInt16 = 0x8086
  public static let deviceID: UInt16 = 0x10FB
  /// Of the register BAR.
  public static let barByteCount = RegisterCells.byteCount
  public static let queueCount = 128
  public static let poolCount = 64

  /// Cards that there were so far: no two have the same stamps.
  private static let cards = Atomic<UInt64>(0)

  let dma: SimulatedIOMMU
  let clock: SimulatedClock
  /// `.write`, kept because the option set's own is a call into another module.
  let writeAccess = DMAAccess.write
  /// The station address in the EEPROM: six bytes.
  public let macAddress: [UInt8]
  public var faults: CardFaults { didSet { followFaults() } }
  /// Frames of 14 to 59 bytes get zeroes up to 60 on the wire. Reading "short frames".
  public var padsShortFrames = false
  /// Called with the number of a vector when it is raised.
  public var onInterrupt: ((Int) -> Void)?

  let registers = RegisterCells()
  let receiveQueues: UnsafeMutablePointer<ReceiveQueueState>
  let transmitQueues: UnsafeMutablePointer<TransmitQueueState>
  let rss = ToeplitzHash()
  let filters = CardFilters()
  let flowDirector = FlowDirectorTable()
  /// What no register tells.
  let filterCounters = FilterCounters()
  /// Room to put a frame together: one that comes in, and one that goes out, which may come in at once.
  let scratch: UnsafeMutableRawPointer
  let outgoing: UnsafeMutableRawPointer
  static let scratchBytes = 65_536 + 64

  // In memory of their own, where no check for exclusive access is made: they are touched for every frame.
  private let lineCell = StateCell(LineState())
  private let counterCell = StateCell(CardCounters())
  private let interruptCell = StateCell(InterruptState())
  private let copyCell = StateCell(CopyRecord())
  var line: LineState {
    unsafeAddress { unsafe UnsafePointer(lineCell.pointer) }
    unsafeMutableAddress { unsafe lineCell.pointer }
  }
  var counters: CardCounters {
    unsafeAddress { unsafe UnsafePointer(counterCell.pointer) }
    unsafeMutableAddress { unsafe counterCell.pointer }
  }
  var interrupts: InterruptState {
    unsafeAddress { unsafe UnsafePointer(interruptCell.pointer) }
    unsafeMutableAddress { unsafe interruptCell.pointer }
  }

  /// Of the last frame that was copied.
  var copyRecord: CopyRecord {
    unsafeAddress { unsafe UnsafePointer(copyCell.pointer) }
    unsafeMutableAddress { unsafe copyCell.pointer }
  }

  private var events: [Event] = []
  /// What the driver did that it must not. Grows to a hundred.
  public private(set) var misuses: [CardMisuse] = []
  /// Why queues stand still: receive queues by their number, transmit queues by their number and 128.
  var queueFaults: [Int: CardQueueFault] = [:]
  var heldWriteBacks: [HeldWriteBack] = []
  /// What `rss` was made from.
  var rssKey: [UInt8] = []
  /// The other end of the cable is not there, by a fault.
  private var cableIsOut = false

  public init(
    dma: SimulatedIOMMU, clock: SimulatedClock, faults: CardFaults = .none,
    macAddress: [UInt8] = [0x02, 0x00, 0x00, 0x82, 0x59, 0x9E]
  ) {
    precondition(macAddress.count == 6, "an Ethernet address has 6 bytes")
    self.dma = dma
    self.clock = clock
    self.faults = faults
    self.macAddress = macAddress
    unsafe receiveQueues = .allocate(capacity: Self.queueCount)
    unsafe receiveQueues.initialize(repeating: ReceiveQueueState(), count: Self.queueCount)
    unsafe transmitQueues = .allocate(capacity: Self.queueCount)
    unsafe transmitQueues.initialize(repeating: TransmitQueueState(), count: Self.queueCount)
    unsafe scratch = .allocate(byteCount: Self.scratchBytes, alignment: 64)
    unsafe scratch.initializeMemory(as: UInt8.self, repeating: 0, count: Self.scratchBytes)
    unsafe outgoing = .allocate(byteCount: Self.scratchBytes, alignment: 64)
    unsafe outgoing.initializeMemory(as: UInt8.self, repeating: 0, count: Self.scratchBytes)
    for n in 0..<Self.queueCount {
      unsafe receiveQueues[n].tail = registers.cell(Offset.receive(Offset.RDT, n))
      unsafe transmitQueues[n].tail = registers.cell(Offset.transmit(Offset.TDT, n))
    }
    followFaults()
    line.stamp = Self.cards.add(1, ordering: .relaxed).newValue << 40
    loadDefaults()
    schedule(.initialised, after: faults.initialisationTime)
    if let time = faults.linkDownAt { events.append(Event(time: time, kind: .linkFails)) }
    startLink()
    clock.observe { [weak self] now in self?.timePassed(now) }
  }

  deinit {
    unsafe receiveQueues.deallocate()
    unsafe transmitQueues.deallocate()
    unsafe scratch.deallocate()
    unsafe outgoing.deallocate()
    registers.deallocate()
    rss.deallocate()
    filters.deallocate()
    flowDirector.deallocate()
    filterCounters.deallocate()
    lineCell.deallocate()
    counterCell.deallocate()
    interruptCell.deallocate()
    copyCell.deallocate()
  }

  /// Why a receive queue stands still, or nil.
  public func queueFault(_ n: Int) -> CardQueueFault? { queueFaults[n] }
  /// Why a transmit queue stands still, or nil.
  public func transmitQueueFault(_ n: Int) -> CardQueueFault? { queueFaults[n + Self.queueCount] }
  /// Whether LINKS says that the link is up.
  public var isLinkUp: Bool { registers[Offset.LINKS] & LINKS.up != 0 }
  /// Of all queues since the start.
  public var descriptorsWrittenBack: UInt64 { line.writtenBack }
  /// The card has left the bus.
  public private(set) var isRemoved = false

  /// Takes the card off the bus, as when it is pulled.
  public func remove() {
    isRemoved = true
    events = []
    line.block(.removed)
  }

  /// Bus Master Enable of its configuration space: off, it reads and writes no memory by itself, as with CTRL's master disable. A reset
  /// by CTRL leaves it as it is.
  public var isBusMaster: Bool {
    get { !line.isBlocked(.busMasterOff) }
    set { line.set(.busMasterOff, !newValue) }
  }

  func note(_ misuse: CardMisuse) { if misuses.count < 100 { misuses.append(misuse) } }
}

// MARK: registers

enum CTRL {
  static let masterDisable: UInt32 = 1 << 2
  static let linkReset: UInt32 = 1 << 3
  static let reset: UInt32 = 1 << 26
}
enum LINKS {
  static let up: UInt32 = 1 << 30
  static let tenGigabits: UInt32 = 3 << 28
}
enum RXDCTL {
  static let enable: UInt32 = 1 << 25
  static let vlanStrip: UInt32 = 1 << 30
}
enum HLREG0 {
  static let checkSequence: UInt32 = 1
  static let stripCheckSequence: UInt32 = 1 << 1
  static let jumbo: UInt32 = 1 << 2
  static let padTransmit: UInt32 = 1 << 10
  static let loopback: UInt32 = 1 << 15
}
enum RDRXCTL {
  static let stripCheckSequence: UInt32 = 1 << 1
  static let initialised: UInt32 = 1 << 3
}
/// EEC: an EEPROM is there, and it has been read.
private let eepromPresent: UInt32 = 1 << 8
private let eepromRead: UInt32 = 1 << 9
/// STATUS: PCIe master enable status.
private let masterEnabled: UInt32 = 1 << 19

extension SimulatedCard {
  public func read(_ offset: Int) -> UInt32 {
    precondition(offset >= 0 && offset & 3 == 0 && offset < Self.barByteCount, "no register at \(offset)")
    if isRemoved { return .max }
    let at = Offset.canonical(offset)
    if let value = readQueueRegister(at) ?? readStatistics(at) ?? readInterrupt(at) ?? readFlowDirector(at) { return value }
    let value = registers[at]
    // The semaphore bit is taken by reading it as 0. 82599 datasheet 8.2.3.4.9.
    if at == Offset.SWSM { registers[at] = value | 1 }
    return value
  }

  /// The cell is the register: a store to it is what the engines see when they look.
  public func doorbell(_ offset: Int) -> Doorbell {
    precondition(offset >= 0 && offset & 3 == 0 && offset < Self.barByteCount, "no register at \(offset)")
    return unsafe Doorbell(unsafe: UnsafeMutableRawPointer(registers.cell(Offset.canonical(offset))))
  }

  public func write(_ value: UInt32, _ offset: Int) {
    precondition(offset >= 0 && offset & 3 == 0 && offset < Self.barByteCount, "no register at \(offset)")
    if isRemoved { return }
    line.stamp &+= 1
    let at = Offset.canonical(offset)
    if line.isBlocked(.resetting) && at != Offset.CTRL { return note(.writtenDuringReset(offset: offset)) }
    if writeInterrupt(value, at) || writeReceiveQueue(value, at) || writeTransmitQueue(value, at)
      || writeFlowDirector(value, at)
    { return }
    switch at {
    case Offset.CTRL: writeControl(value)
    case Offset.STATUS, Offset.LINKS, Offset.SECRXSTAT, Offset.SECTXSTAT, Offset.FWSM: break  // read-only
    case Offset.EEC: registers[at] = value & ~(eepromPresent | eepromRead) | registers[at] & (eepromPresent | eepromRead)
    case Offset.RDRXCTL:
      registers[at] = value & ~RDRXCTL.initialised | registers[at] & RDRXCTL.initialised
      decodeLine()
    case Offset.AUTOC:
      // The restart bit clears itself. 82599 datasheet 8.2.3.22.19.
      registers[at] = value & ~(1 << 12)
      if value & (1 << 12) != 0 { startLink() }
      if value & 1 != 0 { linkIsUp() }
    case Offset.SECRXCTRL:
      registers[at] = value
      // With the path halted, it is empty at once. 82599 datasheet 4.6.7.
      registers[Offset.SECRXSTAT] = value & 2 != 0 ? 1 : 0
      decodeLine()
    case Offset.SECTXCTRL:
      registers[at] = value
      registers[Offset.SECTXSTAT] = value & 2 != 0 ? 1 : 0
    case Offset.RXCTRL, Offset.HLREG0, Offset.MAXFRS, Offset.RXCSUM:
      registers[at] = value
      decodeLine()
    case Offset.PFQDE:
      registers[at] = value
      // A window: a write with bit 16 is for the queue it names. 82599 datasheet 8.2.3.27.
      if value & (1 << 16) != 0 {
        let n = Int(value >> 8 & 0x7F)
        unsafe receiveQueues[n].isDropForced = value & 1 != 0
        decodeReceiveQueue(n)
      }
    case Offset.RQSMR..<Offset.RQSMR + 128, Offset.TQSM..<Offset.TQSM + 128:
      registers[at] = value
      decodeStatisticsMap()
    default:
      guard !isStatistic(at) else { return }
      registers[at] = value
      if CardFilters.decides(at) { line.filtersAreStale = true }
    }
  }

  private func followFaults() { (line.longWriteBack, line.leavesPayload) = (faults.changesWriteBack, faults.leavesPayload) }

  private func writeControl(_ value: UInt32) {
    if value & CTRL.reset != 0 || value & CTRL.linkReset != 0 { return reset(by: value & (CTRL.reset | CTRL.linkReset)) }
    let before = registers[Offset.CTRL]
    registers[Offset.CTRL] = value
    if value & CTRL.masterDisable != 0 && before & CTRL.masterDisable == 0 {
      // No request is issued from here on; the status bit tells when the last one is done. 82599 datasheet 5.2.5.3.2.
      line.block(.masterDisabled)
      schedule(.masterDisabled, after: faults.masterDisableLatency)
    } else if value & CTRL.masterDisable == 0 && before & CTRL.masterDisable != 0 {
      line.unblock(.masterDisabled)
      forget(.masterDisabled)
      registers[Offset.STATUS] |= masterEnabled
    }
  }

  /// Everything stops at once and becomes as after power-up; the bit clears when that is done.
  /// 82599 datasheet 4.2.1.6.1. Reading "link reset".
  private func reset(by bits: UInt32) {
    events.removeAll { $0.kind != .linkFails && $0.kind != .linkRecovers }
    queueFaults = [:]
    heldWriteBacks = []
    registers.clear()
    for n in 0..<Self.queueCount {
      unsafe receiveQueues[n].reset()
      unsafe transmitQueues[n].reset()
    }
    counters = CardCounters()
    interrupts = InterruptState()
    flowDirector.removeAll()
    let stamp = line.stamp
    let isBusMaster = isBusMaster
    line = LineState()
    line.stamp = stamp &+ 1
    self.isBusMaster = isBusMaster
    followFaults()
    line.block(.resetting)
    loadDefaults()
    registers[Offset.CTRL] = bits
    if !faults.resetNeverCompletes { schedule(.resetDone, after: faults.resetTime) }
    schedule(.initialised, after: faults.initialisationTime)
    startLink()
  }

  /// The values of the datasheet's tables, and the station address from the EEPROM.
  private func loadDefaults() {
    let defaults: [(Int, UInt32)] = [
      (Offset.STATUS, masterEnabled), (Offset.EEC, eepromPresent), (Offset.VLNCTRL, 0x8100),
      (Offset.MAXFRS, 1518 << 16), (Offset.RXPBSIZE, 512 << 10), (Offset.TXPBSIZE, 160 << 10),
      (Offset.TXPBTHRESH, 0x96), (Offset.DMATXCTL, 0x8100 << 16), (Offset.AUTOC, 3 << 13), (Offset.AUTOC2, 2 << 16),
      (Offset.HLREG0, HLREG0.checkSequence | HLREG0.stripCheckSequence | HLREG0.padTransmit | 1 << 16 | 1 << 27),
      (Offset.RDRXCTL, 8 << 17), (Offset.FDIRHKEY, 0x8000_0001), (Offset.FDIRSKEY, 0x8080_0101),
    ]
    for (offset, value) in defaults { registers[offset] = value }
    for n in 0..<Self.queueCount {
      registers[Offset.receive(Offset.SRRCTL, n)] = 4 << 8 | 2
      registers[Offset.receive(Offset.DCA_RXCTRL, n)] = 1 << 9 | 1 << 12 | 1 << 13 | 1 << 15
      decodeReceiveQueue(n)
      decodeTransmitQueue(n)
    }
    let address = macAddress.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    registers[Offset.RAL] = UInt32(truncatingIfNeeded: address)
    registers[Offset.RAL + 4] = UInt32(truncatingIfNeeded: address >> 32) | 1 << 31
    // Reading "first address and pool 0".
    registers[Offset.MPSAR] = 1
    line.filtersAreStale = true
    decodeStatisticsMap()
    decodeLine()
  }

  /// What `receive` looks at for every frame, from the registers that say so.
  func decodeLine() {
    let hlreg0 = registers[Offset.HLREG0]
    let strips = hlreg0 & HLREG0.stripCheckSequence != 0 && registers[Offset.RDRXCTL] & RDRXCTL.stripCheckSequence != 0
    line.deliversCheckSequence = !strips
    let largest = hlreg0 & HLREG0.jumbo != 0 ? Int(registers[Offset.MAXFRS] >> 16) : 1518
    line.largestFrame = max(largest, 4) - 4
    line.reportsHash = registers[Offset.RXCSUM] & (1 << 13) != 0
    line.set(.receiveDisabled, registers[Offset.RXCTRL] & 1 == 0 || registers[Offset.SECRXCTRL] & 2 != 0)
  }
}

// MARK: time

extension SimulatedCard {
  enum EventKind: Equatable {
    case resetDone, initialised, linkUp, linkFails, linkRecovers, masterDisabled
    case receiveEnabled(Int), receiveDisabled(Int), transmitEnabled(Int), transmitDisabled(Int)
    case lateDMA(Int, buffer: UInt64, descriptor: UInt64), writeBack(Int)
    case flowDirectorReady, vector(Int)
  }
  struct Event {
    let time: UInt64
    let kind: EventKind
  }

  /// When something is to happen by itself, in nanoseconds of the simulated clock; nil: nothing is.
  public var nextEventTime: UInt64? { events.lazy.map(\.time).min() }

  func schedule(_ kind: EventKind, after delay: UInt64) { events.append(Event(time: clock.now + delay, kind: kind)) }
  func forget(_ kind: EventKind) { events.removeAll { $0.kind == kind } }

  /// Does what has come due, in the order of time.
  private func timePassed(_ now: UInt64) {
    while let next = events.indices.min(by: { events[$0].time < events[$1].time }), events[next].time <= now {
      let event = events.remove(at: next)
      happen(event)
    }
  }

  private func happen(_ event: Event) {
    line.stamp &+= 1
    switch event.kind {
    case .resetDone:
      registers[Offset.CTRL] = 0
      line.unblock(.resetting)
    case .initialised:
      registers[Offset.EEC] |= eepromRead
      registers[Offset.RDRXCTL] |= RDRXCTL.initialised
    case .linkUp: linkIsUp()
    case .linkFails:
      cableIsOut = true
      linkIsDown()
      forget(.linkUp)
      // From then, also when the clock has gone on further in one step.
      if let time = faults.linkDownFor { events.append(Event(time: event.time + time, kind: .linkRecovers)) }
    case .linkRecovers:
      cableIsOut = false
      linkIsUp()
    case .masterDisabled: registers[Offset.STATUS] &= ~masterEnabled
    case .receiveEnabled(let n): receiveIsEnabled(n)
    case .receiveDisabled(let n): receiveIsDisabled(n)
    case .transmitEnabled(let n): transmitIsEnabled(n)
    case .transmitDisabled(let n): transmitIsDisabled(n)
    case .lateDMA(let n, let buffer, let descriptor): lateDMA(n, buffer: buffer, descriptor: descriptor)
    case .writeBack(let n): flushWriteBack(n)
    case .flowDirectorReady: registers[Offset.FDIRCTRL] |= FDIRCTRL.initialised
    case .vector(let v): moderationIsOver(v)
    }
  }

  private func startLink() {
    linkIsDown()
    forget(.linkUp)
    if !faults.linkNeverComes && !cableIsOut { schedule(.linkUp, after: faults.linkUpDelay) }
  }
  private func linkIsUp() {
    guard !isLinkUp, !cableIsOut, !faults.linkNeverComes else { return }
    registers[Offset.LINKS] = LINKS.up | LINKS.tenGigabits
    line.unblock(.linkDown)
    raiseOther(.linkChange)
  }
  private func linkIsDown() {
    let wasUp = isLinkUp
    registers[Offset.LINKS] = 0
    line.block(.linkDown)
    if wasUp { raiseOther(.linkChange) }
  }
}

/// One value at an address that stays.
///
/// `@safe`: the pointer leaves only to the properties of the card that owns it.
@safe struct StateCell<Value> {
  let pointer: UnsafeMutablePointer<Value>
  init(_ value: Value) {
    unsafe pointer = .allocate(capacity: 1)
    unsafe pointer.initialize(to: value)
  }
  func deallocate() {
    unsafe pointer.deinitialize(count: 1)
    unsafe pointer.deallocate()
  }
}

/// What decides about every frame before its bytes do.
struct LineState {
  /// Why nothing is received now; 0 when it is.
  var blocked: UInt8 = Block.receiveDisabled.rawValue | Block.linkDown.rawValue
  var filtersAreStale = true
  /// Changes with every write to a register, and with every event: what the filters decided with another one must be
  /// decided again.
  var stamp: UInt64 = 0
  var reportsHash = false
  var deliversCheckSequence = true
  var longWriteBack = false
  /// By a fault.
  var leavesPayload = false
  /// Not every frame goes the short way.
  var isSpecial: Bool { deliversCheckSequence || longWriteBack }
  /// The queue that the whole port waits for, or -1.
  var stalledQueue: Int32 = -1
  /// Transmit queues that run, and the one that had the last turn.
  var senders = QueueSet()
  var lastSender = SimulatedCard.queueCount - 1
  /// Copies for other pools that the frame had which was sent last.
  var lastCopyCount = 0
  /// Without the check sequence and without a tag.
  var largestFrame = 1514
  /// Descriptors written back since the card was made.
  var writtenBack: UInt64 = 0

  enum Block: UInt8 {
    case removed = 1
    case resetting = 2
    case masterDisabled = 4
    case receiveDisabled = 8
    case linkDown = 16
    case busMasterOff = 32
  }
  func isBlocked(_ reason: Block) -> Bool { blocked & reason.rawValue != 0 }
  mutating func block(_ reason: Block) { blocked |= reason.rawValue }
  mutating func unblock(_ reason: Block) { blocked &= ~reason.rawValue }
  mutating func set(_ reason: Block, _ on: Bool) { if on { block(reason) } else { unblock(reason) } }
}

/// Some of 128 queues.
struct QueueSet {
  private var low: UInt64 = 0
  private var high: UInt64 = 0
  var isEmpty: Bool { low | high == 0 }
  var count: Int { low.nonzeroBitCount + high.nonzeroBitCount }

  func contains(_ n: Int) -> Bool { (n < 64 ? low >> UInt64(n) : high >> UInt64(n - 64)) & 1 != 0 }

  mutating func set(_ n: Int, _ isMember: Bool) {
    let bit: UInt64 = 1 << UInt64(n & 63)
    if n < 64 { low = isMember ? low | bit : low & ~bit } else { high = isMember ? high | bit : high & ~bit }
  }

  /// The next one in a round, or nil if there is none at all.
  func next(after n: Int) -> Int? {
    let from = (n + 1) & 127
    let first = from < 64 ? low >> UInt64(from) : high >> UInt64(from - 64)
    if first != 0 { return from + first.trailingZeroBitCount }
    if from < 64 && high != 0 { return 64 + high.trailingZeroBitCount }
    if low != 0 { return low.trailingZeroBitCount }
    return high != 0 ? 64 + high.trailingZeroBitCount : nil
  }
}
