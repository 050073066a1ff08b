public import Bus

/// The control side of an Intel 82599: reset, link, filters, statistics, and the making of queues.
///
/// It knows the card by its registers and its bus only, so the same code runs on a BAR and on a model. Sections are
/// those of the 82599 datasheet.
///
/// The wall between guests: with more than one pool, a frame reaches a queue only because an address, a VLAN or a
/// filter that was set here names its pool; what nobody asked for is dropped. Set the rules, then start the queue.
///
/// One thread at a time. Its queues start, move frames and stop on threads of their own: they touch the registers of
/// their own queue only. Who makes it keeps the registers' mapping while it lives, and calls `shutDown` before that ends.
public final class Ixgbe {
  public let configuration: Configuration
  let registers: any RegisterFile
  let space: any IOAddressSpace
  let allocator: IOVAAllocator
  let clock: any Timekeeper
  var statistics = IxgbeStatistics()
  var vlans = VLANTable()
  var steering = SteeringState()

  /// Resets the card and initialises all of it but its queues, in the order of 4.6.3. Reception is off afterwards.
  ///
  /// - Parameters:
  ///   - space: where the rings of this card's queues are mapped.
  ///   - allocator: bus addresses for them.
  public init(
    registers: any RegisterFile, space: any IOAddressSpace, allocator: IOVAAllocator, clock: any Timekeeper,
    configuration: Configuration = Configuration()
  ) throws(IntelError) {
    try configuration.check()
    self.configuration = configuration
    self.registers = registers
    self.space = space
    self.allocator = allocator
    self.clock = clock
    guard registers.read(STATUS.self).rawValue != .max else { throw .deviceGone }
    try reset()
    try wait(for: EEC.self, within: .milliseconds(500)) { $0.isAutoReadDone }
    try wait(for: RDRXCTL.self, within: .milliseconds(100)) { $0.isInitialized }
    registers.modify(CTRL_EXT.self) { $0.isDriverLoaded = true }
    registers.modify(AUTOC.self) { $0.restartsLink = true }
    initializeInterrupts()
    initializeStatistics()
    try initializeReceive()
    initializeTransmit()
  }

  /// Bytes of the largest frame as it is stored: MTU, header and one VLAN tag; the FCS is stripped.
  public var largestFrame: Int { configuration.largestFrame }

  /// The card's number of a queue of a pool.
  public func queueIndex(pool: Int, queue: Int = 0) -> Int {
    precondition(pool >= 0 && pool < configuration.poolCount && queue >= 0 && queue < configuration.queuesPerPool)
    return pool * configuration.queueStride + queue
  }

  /// Stops every queue and the bus master, and resets: when it returns, nothing of the card reaches memory.
  public func shutDown() throws(IntelError) {
    guard isThere else { throw .deviceGone }
    // The reset comes also where the data path does not empty: it is what stops everything.
    try? disableReceive()
    try reset()
    registers.modify(CTRL_EXT.self) { $0.isDriverLoaded = false }
  }

  /// Looks at a register until it is as wanted; says which one stuck.
  func wait<R: Register32>(
    for register: R.Type, _ n: Int = 0, within limit: Duration, until condition: (R) -> Bool
  ) throws(IntelError) {
    do { try registers.wait(for: register, n, within: limit, on: clock, until: condition) } catch { throw .register(error) }
  }
}

// MARK: Link

extension Ixgbe {
  public var link: CardLink {
    let links = registers.read(LINKS.self)
    let megabits = [0, 100, 1000, 10_000][Int(links.speed)]
    return CardLink(isUp: links.isUp, megabits: links.isUp ? megabits : 0)
  }

  /// Waits for the link, as long as a negotiation may take.
  public func waitForLink(within limit: Duration = .seconds(10)) throws(IntelError) {
    try wait(for: LINKS.self, within: limit) { $0.isUp }
  }
}

// MARK: Queues

extension Ixgbe {
  /// Makes queue `n` of the card, not running yet: `start` it when its rules are in place.
  ///
  /// - Parameters:
  ///   - ringSize: descriptors, a multiple of 8.
  ///   - bufferByteCount: bytes in the buffers that will be lent; at least `largestFrame`.
  public func makeReceiveQueue(_ n: Int, ringSize: Int, bufferByteCount: Int) throws(IntelError) -> IntelReceiveQueue {
    guard n >= 0 && n < configuration.receiveQueueCount else { throw .queue(n, count: configuration.receiveQueueCount) }
    try Self.check(ringSize: ringSize)
    guard bufferByteCount >= largestFrame else { throw .bufferTooSmall(needed: largestFrame, found: bufferByteCount) }
    return IntelReceiveQueue(
      .ixgbe, number: n, size: ringSize, largestFrame: largestFrame, descriptors: try makeRing(ringSize),
      reportsChecksum: configuration.checksumOffload, dropsWhenEmpty: configuration.dropsWhenEmpty, stripsTag: stripsTag(queue: n),
      registers: registers, clock: clock)
  }

  public func makeTransmitQueue(_ n: Int, ringSize: Int) throws(IntelError) -> IntelTransmitQueue {
    guard n >= 0 && n < configuration.transmitQueueCount else { throw .queue(n, count: configuration.transmitQueueCount) }
    try Self.check(ringSize: ringSize)
    return IntelTransmitQueue(
      .ixgbe, number: n, size: ringSize, largestFrame: largestFrame, descriptors: try makeRing(ringSize), registers: registers,
      clock: clock)
  }

  /// Starts a queue, empty. 4.6.7, 4.6.7.1.
  public func start(_ queue: inout IntelReceiveQueue) throws(IntelError) { try queue.start() }
  public func start(_ queue: inout IntelTransmitQueue) throws(IntelError) { try queue.start() }
  /// Stops a queue: afterwards the card touches no buffer that was lent to it.
  public func stop(_ queue: inout IntelReceiveQueue) throws(IntelError) {
    do { try queue.quiesce() } catch { throw .register(error) }
  }
  public func stop(_ queue: inout IntelTransmitQueue) throws(IntelError) {
    do { try queue.quiesce() } catch { throw .register(error) }
  }

  private func makeRing(_ size: Int) throws(IntelError) -> DMABuffer {
    // The card reads descriptors and writes them back.
    do {
      return try DMABuffer(byteCount: 16 * size, access: [.read, .write], in: space, allocator: allocator)
    } catch { throw .memory(error) }
  }

  /// RDLEN counts in units of 128 bytes, eight descriptors; 8192 of them are 128 KiB.
  static let ringSizes = 8...8192
  private static func check(ringSize: Int) throws(IntelError) {
    guard ringSizes.contains(ringSize), ringSize % 8 == 0 else { throw .ringSize(ringSize, allowed: ringSizes) }
  }
}
