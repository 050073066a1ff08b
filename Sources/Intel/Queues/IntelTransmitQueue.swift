public import Bus
public import Linux
public import NIC

/// One transmit queue of a card of Intel's: a ring of advanced descriptors, one a piece of a frame, and the tail register.
///
/// Its card's driver makes it, and it runs after `start`. As in the receive ring, one descriptor is always
/// left over. One thread at a time.
///
/// The card reports at the end of a frame only, and writes no other descriptor back: where each frame ends is in a table
/// of ours, so that nothing hangs on what the card leaves in descriptors that it was not asked to report.
public struct IntelTransmitQueue: ~Copyable, TransmitQueue {
  /// The card's number of this queue.
  public let number: Int
  /// Bytes that a frame may have. Fewer than 17 can hang the card; up to 60 it pads.
  public let frameByteCounts: ClosedRange<UInt32>
  @usableFromInline let descriptors: DMABuffer
  @usableFromInline let tail: Doorbell
  @usableFromInline let size: Int
  /// For the descriptor that a frame begins with: the one that it ends with.
  @usableFromInline var ends: FixedTable<UInt16>
  /// The next descriptor to fill, and the oldest one that is out.
  @usableFromInline var next = 0
  @usableFromInline var oldest = 0
  @usableFromInline var outCount = 0
  /// Of the frame that is being posted: its first descriptor, its pieces, its bytes so far; and what each piece asks for.
  @usableFromInline var first = 0
  @usableFromInline var pieceCount = 0
  @usableFromInline var postedBytes: UInt32 = 0
  @usableFromInline var options: UInt64 = 0
  /// The card's first context as it will be when it comes to the next frame: both words in one, or `.max`.
  @usableFromInline var context = UInt64.max

  /// What a piece of a frame with a checksum to be finished asks for.
  @usableFromInline let finishesChecksum: UInt64
  private let registers: TransmitRegisters
  private let clock: any Timekeeper
  private var isRunning = false { didSet { mark?.set(isRunning) } }
  private let mark: RunningMark?
  /// As it was written when the queue was started.
  private var control = TXDCTL(rawValue: 0)
  private var quiescence = Quiescence.none

  init(
    _ kind: QueueKind, number: Int, size: Int, largestFrame: Int, descriptors: consuming DMABuffer,
    registers: any RegisterFile, clock: any Timekeeper, mark: RunningMark? = nil
  ) {
    self.mark = mark
    self.number = number
    self.size = size
    frameByteCounts = 17...UInt32(largestFrame)
    self.descriptors = descriptors
    self.registers = TransmitRegisters(kind, number, of: registers)
    self.clock = clock
    finishesChecksum = kind.finishesChecksum
    tail = self.registers.block.doorbell(TDT.offset(number))
    ends = FixedTable(repeating: 0, count: size)
  }

  deinit {
    // One that was waited for is not waited for again.
    guard isRunning, !quiescence.hasFailed else { return }
    mark?.set(false)
    try? registers.disable(on: clock)
  }

  @inlinable public var capacity: Int { size &- 1 }
  @inlinable public var room: Int { size &- 1 &- outCount }
  /// Descriptors of one frame. 82599 datasheet 7.2.1.1.
  @inlinable public var pieceLimit: Int { 40 }
  @inlinable public var finishesChecksums: Bool { true }

  /// Takes no descriptor where the frame before asked for the same: the card keeps the context. 7.2.3.2.3.
  @inlinable public mutating func post(_ checksum: TransmitChecksum) {
    precondition(first == next, "a frame is begun already")
    precondition(outCount < size &- 1, "no room in the transmit ring")
    options = finishesChecksum
    let (lengths, command) = (TransmitContext.lengths(checksum), TransmitContext.command(checksum))
    if context == lengths | command << 32 { return }
    context = lengths | command << 32
    fill(lengths, command)
  }

  /// Never refuses: see `TransmitQueue.post`.
  @discardableResult @inlinable @inline(__always)
  public mutating func post(_ address: IOVA, byteCount: UInt32, of frameByteCount: UInt32, isLast: Bool) -> Bool {
    precondition(outCount < size &- 1, "no room in the transmit ring")
    precondition(byteCount > 0 && byteCount <= frameByteCount &- postedBytes, "a piece that is empty, or past its frame's end")
    postedBytes &+= byteCount
    pieceCount &+= 1
    var word = TransmitDescriptor.piece(byteCount, of: frameByteCount) | options
    if isLast {
      precondition(postedBytes == frameByteCount && frameByteCounts.contains(frameByteCount) && pieceCount <= pieceLimit,
        "a frame that the card must not be given")
      word |= TransmitDescriptor.endOfPacket | TransmitDescriptor.reportsStatus
      ends[first] = UInt16(truncatingIfNeeded: next)
    }
    fill(address.rawValue, word)
    if isLast { (first, pieceCount, postedBytes, options) = (next, 0, 0, 0) }
    return true
  }

  /// One whole frame in one buffer.
  @discardableResult @inlinable @inline(__always) public mutating func post(_ address: IOVA, byteCount: UInt32) -> Bool {
    post(address, byteCount: byteCount, of: byteCount, isLast: true)
  }

  @inlinable @inline(__always) mutating func fill(_ low: UInt64, _ high: UInt64) {
    let descriptor = next &* TransmitDescriptor.byteCount
    descriptors.store64(low, descriptor)
    descriptors.store64(high, descriptor &+ 8)
    next = next &+ 1 == size ? 0 : next &+ 1
    outCount &+= 1
  }

  /// A frame that is begun stays behind the tail.
  @inlinable public mutating func ring() { tail.ring(UInt32(truncatingIfNeeded: first)) }

  @inlinable public mutating func reap() -> Int {
    var count = 0
    while oldest != first {
      let end = Int(ends[oldest])
      let word = descriptors.load64Acquire(end &* TransmitDescriptor.byteCount &+ 8)
      if word & TransmitDescriptor.done == 0 { break }
      let taken = end &- oldest &+ 1
      outCount &-= taken > 0 ? taken : taken &+ size
      oldest = end &+ 1 == size ? 0 : end &+ 1
      count &+= 1
    }
    return count
  }

  // MARK: Stopping. 4.6.8. The card may send what was posted, for up to 10 ms; then the queue is disabled.

  public mutating func beginQuiesce() {
    guard isRunning, !quiescence.isUnderWay else { return }
    mark?.set(false)
    quiescence = .draining(since: clock.now, tail: nil)
  }

  public mutating func pollQuiesce() throws(RegisterError) -> Bool {
    guard isRunning else { return true }
    switch quiescence {
    case .none, .failed: preconditionFailure("a queue is polled that is not being stopped")
    case .draining(let since, nil): quiescence = .draining(since: since, tail: registers.tail)
    case .draining(let since, let tail?):
      // Frames that a link that is down did not send are forgotten.
      let isOver = clock.now &- since >= TransmitRegisters.drainLimit
      if isOver || registers.head == tail {
        registers.beginDisable(control)
        quiescence = .disabling(since: clock.now)
      }
    case .disabling(let since):
      let waited = clock.now &- since
      let found = registers.control
      // A device that is gone answers all ones.
      if found.rawValue != .max, !found.isEnabled {
        quiescence = .settling(until: clock.now &+ TransmitRegisters.lateReadTime)
      } else if waited >= TransmitRegisters.disableLimit {
        quiescence = .failed
        throw registers.block.error(found, number, waited: TransmitRegisters.disableLimit)
      }
    case .settling(let until):
      guard clock.now >= until else { return false }
      (isRunning, quiescence) = (false, .none)
      return true
    }
    return false
  }

  public mutating func quiesce() throws(RegisterError) {
    beginQuiesce()
    while try !pollQuiesce() { clock.pause(nanoseconds: Quiescence.pollInterval) }
  }

  public mutating func abandon() { (isRunning, quiescence) = (false, .none) }

  /// Starts the queue with nothing posted, the first time or after `quiesce`, as often as wanted. Its ring stays where
  /// it is. 4.6.8.
  public mutating func start() throws(IntelError) {
    guard !isRunning, !registers.isEnabled else { throw .queueInUse(number) }
    quiescence = .none
    do { try restart() } catch { throw .register(error) }
  }

  private mutating func restart() throws(RegisterError) {
    (next, oldest, outCount) = (0, 0, 0)
    (first, pieceCount, postedBytes, options, context) = (0, 0, 0, 0, .max)
    let byteCount = size * TransmitDescriptor.byteCount
    for offset in stride(from: 0, to: byteCount, by: 8) { descriptors.store64(0, offset) }
    registers.setRing(at: descriptors.address, byteCount: byteCount)
    control = try registers.enable(on: clock)
    isRunning = true
  }
}
