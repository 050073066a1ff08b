public import Bus
public import Linux

/// A simulated card, its IOMMU and its clock, for the threads of a program: a device that several drivers' threads use
/// while one thread, the pump, is what happens at the wire.
///
/// Registers, mappings, pauses and the pump's steps take one lock. The rings do not: descriptors are memory and doorbells
/// are cells, written and read with acquire and release as on hardware, so a worker's turn takes no lock. Interrupts are
/// eventfds, signalled where a card would write its message.
///
/// Time is real time, and goes ahead by every pause: a driver that waits for a register does not really wait, for what
/// the card does in that time is done at once, sending included.
///
/// Give it to the driver as its registers, its address space and its timekeeper. `@unchecked Sendable`: everything that
/// changes is touched with the lock held.
public final class SharedCard: @unchecked Sendable {
  let lock = Mutex(())
  let card: SimulatedCard
  let iommu: SimulatedIOMMU
  let clock = SimulatedClock()
  let wire: CountingWire
  /// What came of the frames.
  public let counters: TrafficCounters
  let tally: TrafficCounters.Writer
  /// To be woken by whoever has rung a doorbell.
  public let waker: Waker

  var ports: [WirePort] = []
  /// Queues that the wire waits for no longer, until they take a frame again. In memory of its own, where no check for
  /// exclusive access is made: it is looked at for every frame.
  private let overrunCell = StateCell(QueueSet())
  var overrun: QueueSet {
    unsafeAddress { unsafe UnsafePointer(overrunCell.pointer) }
    unsafeMutableAddress { unsafe overrunCell.pointer }
  }
  /// Of the source whose turn it is.
  let burst = WireBurst()
  private var lines = [InterruptLine?](repeating: nil, count: 64)
  /// Simulated time is the monotonic clock's less the start, and ahead of it by what was paused.
  private let start = MonotonicClock.now()
  private var ahead: UInt64 = 0
  /// The simulated time at which a pump that sleeps wakes by itself.
  var sleepsUntil: UInt64 = .max
  /// What a pause lets the card send, in frames.
  private static let pauseBudget = 256

  public init(faults: CardFaults = .none, macAddress: [UInt8] = [0x02, 0x00, 0x00, 0x82, 0x59, 0x9E]) throws(SystemError) {
    iommu = SimulatedIOMMU(clock: clock)
    card = SimulatedCard(dma: iommu, clock: clock, faults: faults, macAddress: macAddress)
    counters = TrafficCounters()
    tally = counters.writer
    wire = CountingWire(counters)
    waker = try Waker()
    iommu.unmapFailures.onFirst { [weak self] in self?.stopBusMastering() }
    card.onInterrupt = { [unowned self] vector in lines[vector]?.event.signal() }
  }

  deinit {
    overrunCell.deallocate()
    burst.deallocate()
  }

  /// Runs `body` with the models, and nobody else at them. What it answers must not be one of them, nor part of one.
  public func withModels<Result: Sendable, Failure: Error>(
    _ body: (SimulatedCard, SimulatedIOMMU, SimulatedClock) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try lock.withLock { _ throws(Failure) in
      followTime()
      defer { if waker.isAsleep { waker.raise() } }
      return try body(card, iommu, clock)
    }
  }

  /// What `body` reads with no step of the card under way: sums of what the counters say add up.
  public func betweenSteps<Result: Sendable>(_ body: (TrafficCounters) -> Result) -> Result { lock.withLock { _ in body(counters) } }

  /// Lets simulated time come up with real time: what the card does meanwhile happens. With the lock held.
  /// Answers the monotonic clock.
  @discardableResult func followTime() -> UInt64 {
    let now = MonotonicClock.now()
    let time = now &- start &+ ahead
    if time > clock.now { clock.now = time }
    return now
  }

  /// Wakes a pump that sleeps longer than it may now. With the lock held.
  func tellSleeper() { if waker.isAsleep && (card.nextEventTime ?? .max) < sleepsUntil { waker.raise() } }

  /// The last accesses that the IOMMU refused, oldest first. `counters.busFaults` says whether there are new ones.
  public var busFaults: [SimulatedIOMMU.Fault] { lock.withLock { _ in iommu.faults } }
  /// Why a queue stands still, or nil.
  public func receiveQueueFault(_ n: Int) -> CardQueueFault? { lock.withLock { _ in card.queueFault(n) } }
  public func transmitQueueFault(_ n: Int) -> CardQueueFault? { lock.withLock { _ in card.transmitQueueFault(n) } }
}

// MARK: the driver's side

extension SharedCard: RegisterFile {
  public func read(_ offset: Int) -> UInt32 {
    lock.withLock { _ in
      followTime()
      return card.read(offset)
    }
  }

  public func write(_ value: UInt32, _ offset: Int) {
    lock.withLock { _ in
      followTime()
      card.write(value, offset)
      // What the write has begun is the pump's to go on with; masking and unmasking begins nothing but what is dated.
      if !Offset.isInterrupt(offset) && waker.isAsleep { waker.raise() } else { tellSleeper() }
    }
  }

  public func doorbell(_ offset: Int) -> Doorbell { card.doorbell(offset) }
}

extension SharedCard: IOAddressSpace {
  public func map(_ memory: HostMemory, at address: IOVA, access: DMAAccess) throws(IOAddressSpaceError) {
    try lock.withLock { _ throws(IOAddressSpaceError) in unsafe try iommu.map(memory, at: address, access: access) }
  }
  public var unmapFailures: UnmapFailures { iommu.unmapFailures }
  /// When it returns, no step of the card reads or writes memory any more.
  private func stopBusMastering() { lock.withLock { _ in card.isBusMaster = false } }
  /// When it returns, no step of the card is under way that could still reach those pages.
  public func unmap(_ address: IOVA, byteCount: Int) throws(IOAddressSpaceError) {
    try lock.withLock { _ throws(IOAddressSpaceError) in try iommu.unmap(address, byteCount: byteCount) }
  }
}

extension SharedCard: Timekeeper {
  public var now: UInt64 {
    lock.withLock { _ in
      followTime()
      return clock.now
    }
  }

  /// Does not sleep: time goes ahead, and the card does what it would have done.
  public func pause(nanoseconds: UInt64) {
    lock.withLock { _ in
      followTime()
      ahead &+= nanoseconds
      clock.advance(by: nanoseconds)
      wire.begin()
      _ = card.transmit(budget: Self.pauseBudget, to: wire)
      tellSleeper()
    }
  }
}

// MARK: interrupts

/// Where a vector's messages go.
private final class InterruptLine {
  let event: EventDescriptor
  init(_ event: consuming EventDescriptor) { self.event = event }
}

extension SharedCard {
  /// Signals an eventfd whenever a vector sends its message, as VFIO does for a device's MSI-X. The card keeps a
  /// descriptor of its own.
  public func connect(vector: Int, to event: borrowing EventDescriptor) throws(SystemError) {
    precondition(lines.indices.contains(vector), "no such vector")
    let line = InterruptLine(EventDescriptor(adopting: try event.descriptor.duplicate()))
    lock.withLock { _ in lines[vector] = line }
  }
  public func disconnect(vector: Int) {
    precondition(lines.indices.contains(vector), "no such vector")
    lock.withLock { _ in lines[vector] = nil }
  }
}
