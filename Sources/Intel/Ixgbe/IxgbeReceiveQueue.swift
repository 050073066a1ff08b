public import Bus
public import NIC

/// One receive queue of an 82599: a ring of advanced descriptors, and the tail register.
///
/// It is made by `Ixgbe.makeReceiveQueue` and runs after `Ixgbe.start`. `post`, `ring` and `reap` touch the ring and the
/// doorbell only; the registers are for starting and stopping. One thread at a time.
///
/// One descriptor is always left over: a tail that equals the head means an empty ring to the card, not a full one. So
/// `capacity` is the ring's size less one.
public struct IxgbeReceiveQueue: ~Copyable, ReceiveQueue {
  public let requirements: BufferRequirements
  /// The card's number of this queue.
  public let number: Int
  @usableFromInline let descriptors: DMABuffer
  @usableFromInline let tail: Doorbell
  /// Descriptors in the ring.
  @usableFromInline let size: Int
  @usableFromInline let largestFrame: UInt32
  @usableFromInline let reportsChecksum: Bool
  /// The next descriptor to fill, and the oldest one that is out.
  @usableFromInline var next = 0
  @usableFromInline var oldest = 0
  @usableFromInline var outCount = 0

  private let dropsWhenEmpty: Bool
  private let registers: any RegisterFile
  private let clock: any Timekeeper
  private var isRunning = false

  init(
    number: Int, size: Int, largestFrame: Int, descriptors: consuming DMABuffer, reportsChecksum: Bool,
    dropsWhenEmpty: Bool, registers: any RegisterFile, clock: any Timekeeper
  ) {
    self.number = number
    self.size = size
    self.largestFrame = UInt32(largestFrame)
    self.descriptors = descriptors
    self.reportsChecksum = reportsChecksum
    self.dropsWhenEmpty = dropsWhenEmpty
    self.registers = registers
    self.clock = clock
    requirements = BufferRequirements(largestFrame: largestFrame)
    tail = registers.doorbell(RDT.offset(number))
  }

  deinit {
    // Before the ring's pages go: a card that does not stop keeps its descriptors' addresses, and then faults.
    if isRunning { try? Self.disable(number, registers, clock) }
  }

  @inlinable public var capacity: Int { size &- 1 }
  @inlinable public var room: Int { size &- 1 &- outCount }

  @inlinable @inline(__always) public mutating func post(_ address: IOVA) {
    precondition(outCount < size &- 1, "no room in the receive ring")
    let descriptor = next &* ReceiveDescriptor.byteCount
    descriptors.store64(address.rawValue, descriptor)
    // The header's address is not used; its bit 0 is where the card reports.
    descriptors.store64(0, descriptor &+ 8)
    next = next &+ 1 == size ? 0 : next &+ 1
    outCount &+= 1
  }

  @inlinable public mutating func ring() { tail.ring(UInt32(truncatingIfNeeded: next)) }

  /// A frame longer than the limit that was set cannot be; if the card says so, it is damaged, and `byteCount` stays
  /// inside the buffer.
  @inlinable @inline(__always) public mutating func reap() -> Completion? {
    if outCount == 0 { return nil }
    let word = descriptors.load64Acquire(oldest &* ReceiveDescriptor.byteCount &+ 8)
    if word & ReceiveDescriptor.done == 0 { return nil }
    oldest = oldest &+ 1 == size ? 0 : oldest &+ 1
    outCount &-= 1
    let found = UInt32(truncatingIfNeeded: word >> 32) & 0xFFFF
    // By bits: the set's own methods are generic, and would not be free.
    var flags: UInt32 = 0
    if word & ReceiveDescriptor.endOfPacket != 0 { flags |= Completion.Flags.isEnd.rawValue }
    if word & ReceiveDescriptor.macError != 0 || found > largestFrame { flags |= Completion.Flags.isDamaged.rawValue }
    if reportsChecksum && word & ReceiveDescriptor.checksumFields == ReceiveDescriptor.checksumRight {
      flags |= Completion.Flags.isChecksumValid.rawValue
    }
    return Completion(byteCount: found > largestFrame ? largestFrame : found, flags: Completion.Flags(rawValue: flags))
  }

  /// Stops the queue: 4.6.7.1.2. Idempotent; `reap` still works, and `Ixgbe.start` begins anew.
  public mutating func quiesce() throws(RegisterError) {
    guard isRunning else { return }
    try Self.disable(number, registers, clock)
    isRunning = false
  }

  /// Starts the queue with nothing posted, the first time or after `quiesce`, as often as wanted. Its ring stays where
  /// it is.
  public mutating func start() throws(IxgbeError) {
    guard !isRunning, !registers.read(RXDCTL.self, number).isEnabled else { throw .queueInUse(number) }
    do { try restart() } catch { throw .register(error) }
  }

  private mutating func restart() throws(RegisterError) {
    (next, oldest, outCount) = (0, 0, 0)
    for offset in stride(from: 0, to: size * ReceiveDescriptor.byteCount, by: 8) { descriptors.store64(0, offset) }
    let address = descriptors.address.rawValue
    registers.write(RDBAL(rawValue: UInt32(truncatingIfNeeded: address)), number)
    registers.write(RDBAH(rawValue: UInt32(address >> 32)), number)
    registers.write(RDLEN(rawValue: UInt32(size * ReceiveDescriptor.byteCount)), number)
    // Both, and before ENABLE: with the tail of an earlier run the card would fetch descriptors that nobody posted.
    registers.write(RDH(rawValue: 0), number)
    registers.write(RDT(rawValue: 0), number)
    var split = SRRCTL(rawValue: 0)
    // At or above the frame limit, so that every frame is one descriptor: what protects the byte after a smaller
    // buffer is the frame limit.
    split.bufferKibibytes = (largestFrame + 1023) / 1024
    split.headerUnits = 4
    split.descriptorType = 1
    split.dropsWhenEmpty = dropsWhenEmpty
    registers.write(split, number)
    registers.write(RSCCTL(rawValue: 0), number)
    registers.modify(DCA_RXCTRL.self, number) { $0.reserved12 = false }
    registers.modify(RXDCTL.self, number) {
      $0.stripsVLAN = false
      $0.isEnabled = true
    }
    do throws(RegisterError) {
      try registers.wait(for: RXDCTL.self, number, within: .milliseconds(10), on: clock) { $0.isEnabled }
    } catch {
      registers.modify(RXDCTL.self, number) { $0.isEnabled = false }
      throw error
    }
    // From here on `ring` may move the tail: 4.6.7.
    isRunning = true
  }

  /// The card clears ENABLE when its accesses to the ring are done; buffers may be written for 100 µs more.
  private static func disable(_ n: Int, _ registers: any RegisterFile, _ clock: any Timekeeper) throws(RegisterError) {
    registers.modify(RXDCTL.self, n) { $0.isEnabled = false }
    try registers.wait(for: RXDCTL.self, n, within: .milliseconds(100), on: clock) { !$0.isEnabled }
    clock.pause(nanoseconds: 100_000)
  }
}
