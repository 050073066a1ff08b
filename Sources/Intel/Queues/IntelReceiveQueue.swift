public import Bus
public import NIC

/// One receive queue of a card of Intel's: a ring of advanced descriptors, and the tail register.
///
/// Its card's driver makes it, and it runs after `start`. `post`, `ring` and `reap` touch the ring and the
/// doorbell only; the registers are for starting and stopping. One thread at a time.
///
/// One descriptor is always left over: a tail that equals the head means an empty ring to the card, not a full one. So
/// `capacity` is the ring's size less one.
public struct IntelReceiveQueue: ~Copyable, ReceiveQueue {
  public let requirements: BufferRequirements
  /// The card's number of this queue.
  public let number: Int
  @usableFromInline let descriptors: DMABuffer
  @usableFromInline let tail: Doorbell
  /// Descriptors in the ring.
  @usableFromInline let size: Int
  @usableFromInline let largestFrame: UInt32
  /// Bits of the status: the frame is damaged; its checksums were looked at, and are right.
  @usableFromInline let damage: UInt64
  /// What is looked at of a frame that is whole and undamaged: `damage`, and that it ends here.
  @usableFromInline let verdict: UInt64
  @usableFromInline let checksumFields: UInt64
  @usableFromInline let checksumRight: UInt64
  /// The next descriptor to fill, and the oldest one that is out; the same if none is.
  @usableFromInline var next = 0
  @usableFromInline var oldest = 0

  private let dropsWhenEmpty: Bool
  private let stripsTag: Bool
  private let registers: ReceiveRegisters
  private let clock: any Timekeeper
  private var isRunning = false { didSet { mark?.set(isRunning) } }
  private let mark: RunningMark?
  /// As it was written when the queue was started.
  private var control = RXDCTL(rawValue: 0)
  private var quiescence = Quiescence.none

  init(
    _ kind: QueueKind, number: Int, size: Int, largestFrame: Int, descriptors: consuming DMABuffer, reportsChecksum: Bool,
    dropsWhenEmpty: Bool, stripsTag: Bool = false, registers: any RegisterFile, clock: any Timekeeper, mark: RunningMark? = nil
  ) {
    self.mark = mark
    self.number = number
    self.size = size
    self.largestFrame = UInt32(largestFrame)
    self.descriptors = descriptors
    self.dropsWhenEmpty = dropsWhenEmpty
    self.stripsTag = stripsTag
    self.registers = ReceiveRegisters(kind, number, of: registers)
    self.clock = clock
    damage = kind.receiveDamage
    verdict = kind.receiveDamage | ReceiveDescriptor.endOfPacket
    checksumFields = reportsChecksum ? kind.checksumFields : 0
    // Of no bits it is never what they are.
    checksumRight = ReceiveDescriptor.checksumChecked
    requirements = BufferRequirements(largestFrame: largestFrame)
    tail = self.registers.block.doorbell(RDT.offset(number))
  }

  deinit {
    // Before the ring's pages go: a card that does not stop keeps its descriptors' addresses, and then faults. One that
    // was waited for is not waited for again.
    guard isRunning, !quiescence.hasFailed else { return }
    mark?.set(false)
    try? registers.disable(on: clock)
  }

  @inlinable public var capacity: Int { size &- 1 }
  @inlinable public var room: Int { (oldest > next ? oldest : oldest &+ size) &- next &- 1 }

  /// Never refuses: see `ReceiveQueue.post`.
  @discardableResult @inlinable @inline(__always) public mutating func post(_ address: IOVA) -> Bool {
    let after = next &+ 1 == size ? 0 : next &+ 1
    precondition(after != oldest, "no room in the receive ring")
    // The header's address is not used; its bit 0 is where the card reports.
    descriptors.storePair(address.rawValue, 0, at: next)
    next = after
    return true
  }

  @inlinable public mutating func ring() { tail.ring(UInt32(truncatingIfNeeded: next)) }

  /// A frame longer than the limit that was set cannot be; if the card says so, it is damaged, and `byteCount` stays
  /// inside the buffer.
  @inlinable @inline(__always) public mutating func reap() -> Completion? {
    if oldest == next { return nil }
    let word = descriptors.loadSecondAcquire(at: oldest)
    if word & ReceiveDescriptor.done == 0 { return nil }
    oldest = oldest &+ 1 == size ? 0 : oldest &+ 1
    let found = UInt32(truncatingIfNeeded: word >> 32) & 0xFFFF
    guard _fastPath(word & verdict == ReceiveDescriptor.endOfPacket && found <= largestFrame) else { return judge(word, found) }
    // By bits: the set's own methods are generic, and would not be free.
    let (end, right) = (Completion.Flags.isEnd.rawValue, Completion.Flags.isChecksumValid.rawValue)
    return Completion(byteCount: found, flags: Completion.Flags(rawValue: word & checksumFields == checksumRight ? end | right : end))
  }

  // MARK: Many at once

  public typealias Posting = IntelPostingRun
  public typealias Reaping = IntelReapingRun

  /// Up to the ring's end.
  @inlinable @inline(__always) public func posting(_ most: UInt32) -> IntelPostingRun {
    let count = min(most, UInt32(truncatingIfNeeded: min(room, size &- next)))
    return IntelPostingRun(pairs: descriptors.pairs(from: next, count: count))
  }
  @inlinable @inline(__always) public mutating func advance(posted count: UInt32) {
    next = next &+ Int(count)
    if next == size { next = 0 }
  }

  @inlinable @inline(__always) public func reaping(_ most: UInt32) -> IntelReapingRun {
    let count = min(most, UInt32(truncatingIfNeeded: (next >= oldest ? next : size) &- oldest))
    return IntelReapingRun(
      pairs: descriptors.pairs(from: oldest, count: count), verdict: verdict | ReceiveDescriptor.done, checksumFields: checksumFields,
      checksumRight: checksumRight)
  }
  @inlinable @inline(__always) public mutating func advance(reaped count: UInt32) {
    oldest = oldest &+ Int(count)
    if oldest == size { oldest = 0 }
  }

  /// What came back with anything else than one whole frame.
  @inline(never) @inlinable mutating func judge(_ word: UInt64, _ found: UInt32) -> Completion {
    var flags: UInt32 = 0
    if word & ReceiveDescriptor.endOfPacket != 0 { flags |= Completion.Flags.isEnd.rawValue }
    if word & damage != 0 || found > largestFrame { flags |= Completion.Flags.isDamaged.rawValue }
    if word & checksumFields == checksumRight { flags |= Completion.Flags.isChecksumValid.rawValue }
    return Completion(byteCount: found > largestFrame ? largestFrame : found, flags: Completion.Flags(rawValue: flags))
  }

  // MARK: Stopping. 4.6.7.1.2. `reap` still works, and `start` begins anew.

  public mutating func beginQuiesce() {
    guard isRunning, !quiescence.isUnderWay else { return }
    mark?.set(false)
    registers.beginDisable(control)
    quiescence = .disabling(since: clock.now)
  }

  public mutating func pollQuiesce() throws(RegisterError) -> Bool {
    guard isRunning else { return true }
    switch quiescence {
    case .none, .draining, .failed: preconditionFailure("a queue is polled that is not being stopped")
    case .disabling(let since):
      let waited = clock.now &- since
      let found = registers.control
      // A device that is gone answers all ones.
      if found.rawValue != .max, !found.isEnabled {
        quiescence = .settling(until: clock.now &+ ReceiveRegisters.lateWriteTime)
      } else if waited >= ReceiveRegisters.disableLimit {
        quiescence = .failed
        throw registers.block.error(found, number, waited: ReceiveRegisters.disableLimit)
      }
      return false
    case .settling(let until):
      guard clock.now >= until else { return false }
      (isRunning, quiescence) = (false, .none)
      return true
    }
  }

  public mutating func quiesce() throws(RegisterError) {
    beginQuiesce()
    while try !pollQuiesce() { clock.pause(nanoseconds: Quiescence.pollInterval) }
  }

  public mutating func abandon() { (isRunning, quiescence) = (false, .none) }

  /// Starts the queue with nothing posted, the first time or after `quiesce`, as often as wanted. Its ring stays where
  /// it is. 4.6.7, 4.6.7.1.
  public mutating func start() throws(IntelError) {
    guard !isRunning, !registers.isEnabled else { throw .queueInUse(number) }
    quiescence = .none
    do { try restart() } catch { throw .register(error) }
  }

  private mutating func restart() throws(RegisterError) {
    (next, oldest) = (0, 0)
    let byteCount = size * ReceiveDescriptor.byteCount
    for offset in stride(from: 0, to: byteCount, by: 8) { descriptors.store64(0, offset) }
    registers.setRing(at: descriptors.address, byteCount: byteCount)
    registers.setBuffers(kibibytes: (largestFrame + 1023) / 1024, dropsWhenEmpty: dropsWhenEmpty)
    control = try registers.enable(stripsTag: stripsTag, on: clock)
    // From here on `ring` may move the tail: 4.6.7.
    isRunning = true
  }
}

@frozen public struct IntelPostingRun: PostingRun {
  @usableFromInline let pairs: DMAPairs
  @inlinable init(pairs: DMAPairs) { self.pairs = pairs }
  @inlinable public var count: UInt32 { pairs.count }
  @inlinable @inline(__always) public func post(_ address: IOVA, at n: UInt32) -> Bool {
    pairs.store(address.rawValue, 0, at: n)
    return true
  }
}

@frozen public struct IntelReapingRun: ReapingRun {
  @usableFromInline let pairs: DMAPairs
  /// What is looked at of a frame, DD and EOP and damage: the first two are there, the third is not.
  @usableFromInline let verdict: UInt64
  @usableFromInline let checksumFields: UInt64
  @usableFromInline let checksumRight: UInt64
  @inlinable init(pairs: DMAPairs, verdict: UInt64, checksumFields: UInt64, checksumRight: UInt64) {
    self.pairs = pairs
    self.verdict = verdict
    self.checksumFields = checksumFields
    self.checksumRight = checksumRight
  }
  @inlinable public var count: UInt32 { pairs.count }
  @inlinable @inline(__always) public func wholeFrame(at n: UInt32, most: UInt32) -> WholeFrame? {
    let word = pairs.loadSecondAcquire(at: n)
    let byteCount = UInt32(truncatingIfNeeded: word >> 32) & 0xFFFF
    guard _fastPath(word & verdict == ReceiveDescriptor.done | ReceiveDescriptor.endOfPacket && byteCount <= most) else { return nil }
    return WholeFrame(byteCount: byteCount, isChecksumValid: word & checksumFields == checksumRight)
  }
}
