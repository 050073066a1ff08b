public import Bus
public import FlowTables

/// The control side of an Intel 82576 or I350: reset, link, pools, addresses, VLANs, statistics, and the making of queues.
///
/// It knows the card by its registers and its bus only. Sections are those of the 82576 datasheet; what the I350 has
/// otherwise is its `Variant`. The card has 8 pools, of one queue or of two, n and n + 8, and is always used with them: a
/// frame reaches a queue only because an address, a VLAN or an EtherType that was set here names its pool.
///
/// One thread at a time. Its queues start, move frames and stop on threads of their own: they touch the registers of
/// their own queue only. Who makes it keeps the registers' mapping while it lives, and calls `shutDown` before that ends.
public final class Igb: IntelCard {
  /// What is settled at reset and cannot change afterwards.
  public struct Configuration: Hashable, Sendable {
    /// Bytes after the Ethernet header (and one VLAN tag) that a frame may have.
    public var mtu = 1500
    /// Queues that pools use: 1, or 2 that share a pool's frames by RSS where pools have two.
    public var queuesPerPool = 1
    /// A frame for a queue without a buffer is dropped and counted, instead of stalling all queues.
    public var dropsWhenEmpty = true
    /// 40 bytes for RSS.
    public var scalingKey: [UInt8] = ScalingHash.verificationKey
    /// Reports frames whose checksums the card found right.
    public var checksumOffload = true
    /// What one pool sends to another's address goes there inside the card, and not to the wire; broadcasts go both ways.
    public var switchesLocally = true
    public init() {}

    public static let mtus = 68...9216
    func check(for variant: Variant) throws(IntelError) {
      guard Self.mtus.contains(mtu) else { throw .mtu(mtu, allowed: Self.mtus) }
      guard queuesPerPool >= 1 && queuesPerPool <= variant.queuesPerPool else { throw .queuesPerPool(queuesPerPool) }
      guard scalingKey.count == 40 else { throw .keyByteCount(scalingKey.count) }
    }
  }

  /// MSI-X vectors of the physical function.
  public static let vectorCount = 10

  public let configuration: Configuration
  let variant: Variant
  public var profile: CardProfile { variant.profile }
  let registers: any RegisterFile
  let space: any IOAddressSpace
  let allocator: IOVAAllocator
  let clock: any Timekeeper
  var steering: State
  var statistics = IgbStatistics()
  var poolCounters = PoolCounters()

  /// Resets the card and initialises all of it but its queues, in the order of 4.6.2. Reception is off afterwards.
  ///
  /// - Parameters:
  ///   - variant: the card that it is.
  ///   - space: where the rings of this card's queues are mapped.
  ///   - allocator: bus addresses for them.
  public init(
    _ variant: Variant = .intel82576, registers: any RegisterFile, space: any IOAddressSpace, allocator: IOVAAllocator, clock: any Timekeeper,
    configuration: Configuration = Configuration()
  ) throws(IntelError) {
    try configuration.check(for: variant)
    self.variant = variant
    steering = State(variant)
    self.configuration = configuration
    self.registers = registers
    self.space = space
    self.allocator = allocator
    self.clock = clock
    guard registers.read(STATUS.self).rawValue != .max else { throw .deviceGone }
    try reset()
    registers.modify(CTRL_EXT.self) {
      $0.isDriverLoaded = true
      $0.expectsOuterTag = false
    }
    initializeInterrupts()
    initializeReceive()
    initializeTransmit()
    try initializeLink()
    initializeStatistics()
  }

  public var isThere: Bool { registers.read(STATUS.self).rawValue != .max }
  public var isOurs: Bool { registers.read(CTRL_EXT.self).isDriverLoaded }
  public var largestFrame: Int { configuration.mtu + 14 + 4 }
  public var queuesPerPool: Int { configuration.queuesPerPool }

  /// Queue 0 of pool n is n, queue 1, if there is one, is n + 8. 7.1.1.
  public func queueIndex(pool: Int, queue: Int = 0) -> Int {
    precondition(pool >= 0 && pool < variant.poolCount && queue >= 0 && queue < variant.queuesPerPool)
    return pool + variant.poolCount * queue
  }

  public func makeReceiveQueue(_ n: Int, ringSize: Int, bufferByteCount: Int) throws(IntelError) -> IntelReceiveQueue {
    try Self.check(n, of: "queues", count: variant.queueCount)
    guard bufferByteCount >= largestFrame else { throw .bufferTooSmall(needed: largestFrame, found: bufferByteCount) }
    return IntelReceiveQueue(
      .igb, number: n, size: ringSize, largestFrame: largestFrame, descriptors: try makeRing(ringSize),
      reportsChecksum: configuration.checksumOffload, dropsWhenEmpty: configuration.dropsWhenEmpty, registers: registers, clock: clock)
  }

  public func makeTransmitQueue(_ n: Int, ringSize: Int) throws(IntelError) -> IntelTransmitQueue {
    try Self.check(n, of: "queues", count: variant.queueCount)
    return IntelTransmitQueue(
      .igb, number: n, size: ringSize, largestFrame: largestFrame, descriptors: try makeRing(ringSize), registers: registers, clock: clock)
  }

  /// RDLEN counts in units of 128 bytes, up to 512 KiB.
  static let ringSizes = 8...32768
  private func makeRing(_ size: Int) throws(IntelError) -> DMABuffer {
    guard Self.ringSizes.contains(size), size % 8 == 0 else { throw .ringSize(size, allowed: Self.ringSizes) }
    // The card reads descriptors and writes them back.
    do { return try DMABuffer(byteCount: 16 * size, access: [.read, .write], in: space, allocator: allocator) } catch { throw .memory(error) }
  }

  static func check(_ index: Int, of table: String, count: Int) throws(IntelError) {
    guard index >= 0 && index < count else { throw .index(index, table: table, count: count) }
  }

  func wait<R: Register32>(
    for register: R.Type, _ n: Int = 0, within limit: Duration, until condition: (R) -> Bool
  ) throws(IntelError) {
    do { try registers.wait(for: register, n, within: limit, on: clock, until: condition) } catch { throw .register(error) }
  }
}
