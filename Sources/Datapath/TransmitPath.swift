public import Bus
public import GuestMemory
public import NIC
public import Virtio

/// One guest transmit queue joined to one queue of a card, owned by one thread.
///
/// A turn takes frames that the driver made available and posts them, where they lie if they can lie there, and gives
/// back those that the card has read. The card's buffers are the guest's own: they are its again when the card says so
/// and not before. Everything goes back in order, what was not sent too.
///
/// A turn allocates nothing, retains nothing, takes no lock and makes no system call.
public struct TransmitPath<Queue: TransmitQueue & ~Copyable>: ~Copyable {
  /// The most frames one turn moves each way.
  public static var batch: UInt32 { @inlinable get { 64 } }

  @usableFromInline var core: TransmitCore
  @usableFromInline var queue: Queue
  /// The driver asked to be told of what was published; whoever turns the path signals and clears it.
  public var wantsSignal = false

  /// Joins a guest's queue to a card's. The card's queue runs, or will before the first turn; nothing else posts to it.
  ///
  /// - Parameters:
  ///   - window: the guest's memory on the bus; stays open while the path lives.
  ///   - parts: what has gone through other paths, or was made for this one.
  ///   - copies: copy every frame instead of lending.
  ///   - check: what the processor holds the guest's frames to; the rest is the card's.
  public init(
    virtqueue: consuming Virtqueue, window: DMAWindow, parts: consuming TransmitParts<Queue>, copies: Bool = false, check: SourceCheck = .none
  ) {
    let (byteCounts, capacity) = (parts.queue.frameByteCounts, parts.queue.capacity)
    // A frame is taken when there is room for as many pieces as it may have: not many have more than a few.
    let pieceLimit = max(1, min(parts.queue.pieceLimit, 16, capacity))
    core = TransmitCore(
      virtqueue: virtqueue, window: window, pool: parts.pool, counters: parts.counters, frameByteCounts: byteCounts,
      pieceLimit: pieceLimit, copies: copies, check: check)
    core.virtqueue.disableNotifications()
    queue = parts.queue
  }

  public var counters: TransmitCounters { core.counters }
  /// Why the path has stopped, or nil while it runs.
  public var stopReason: StopReason? { core.stopReason }
  /// Guest buffers that were taken and not given back.
  public var outstandingBuffers: Int { core.ledger.count }
  /// Frames that are with the card.
  public var postedFrames: Int { core.ledger.postedCount }
  /// Where a back-end that follows this one must go on: the oldest buffer that did not go back.
  public var base: RingBase { core.virtqueue.base }
  /// Changes with every turn in which a buffer was taken or went back.
  public var progress: UInt32 { core.progress }

  /// The ring is disabled: frames are taken and go back, counted, without being sent. vhost-user, "Ring states".
  public var discards: Bool {
    get { core.discards }
    set { core.discards = newValue }
  }

  /// Walks one batch out and one batch back. Answers how many guest buffers went back.
  @inlinable @inline(__always) public mutating func turn() -> Int {
    guard case .none = core.stopReason else { return 0 }
    // What the card is done with makes room for what comes.
    core.doneCount &+= queue.reap()
    let rang = send()
    let returned = settle()
    if let place = queue.unmapFailure { core.stop(.unmapFailed(at: place)) }
    core.countTurn(rang: rang)
    return returned
  }

  /// Takes what the driver made available and posts it; answers whether the doorbell rang.
  @inlinable @inline(__always) mutating func send() -> Bool {
    var left = min(core.virtqueue.pending(), Self.batch)
    var posted = false
    core.budget = TransmitCore.descriptorBudget
    while left > 0, core.budget > 0, core.isReady(room: queue.room), let buffer = core.virtqueue.next() {
      switch core.take(buffer) {
      case .post(let address, let byteCount):
        if !queue.post(address, byteCount: byteCount) { postCopy(core.copyWhole(address, byteCount)) }
        posted = true
      case .postPieces(let count, let byteCount):
        var n = 0
        while n < count {
          let piece = core.piece(n)
          guard queue.post(piece.address, byteCount: piece.byteCount, of: byteCount, isLast: n == count &- 1) else { break }
          n &+= 1
        }
        if n < count { postCopy(core.copyPieces(byteCount)) }
        posted = true
      case .postCopy(let address, let byteCount):
        postCopy((address, byteCount))
        posted = true
      case .nothing: break
      case .stop: left = 1
      }
      left &-= 1
    }
    if posted { queue.ring() }
    if _slowPath(core.virtqueue.isFaulted) { core.stopForFault() }
    return posted
  }

  /// Posts a frame from a host buffer.
  @inlinable @inline(__always) mutating func postCopy(_ frame: (address: IOVA, byteCount: UInt32)) {
    let isPosted = queue.post(frame.address, byteCount: frame.byteCount)
    precondition(isPosted, "a queue refused a host buffer")
  }

  /// Gives back what the card is done with, in one store.
  @inlinable @inline(__always) mutating func settle() -> Int {
    core.doneCount &+= queue.reap()
    let count = core.settle(limit: UInt16(Self.batch))
    if count == 0 { return 0 }
    if core.publish(count) { wantsSignal = true }
    return Int(count)
  }

  // MARK: Between turns

  /// Asks the driver for a kick at its next frame, and looks once more whether there is one already. True if the path may
  /// sleep as far as the guest is concerned. While frames are with the card (`postedFrames`), the guest waits for them: the
  /// card's interrupt, or a look after a while, must end the sleep too.
  public mutating func prepareToSleep() -> Bool {
    if stopReason != nil { return true }
    // With no room for a frame a kick would be for nothing: room comes with what the card is done with.
    guard core.isReady(room: queue.room) else { return true }
    let isPending = core.virtqueue.enableNotifications()
    if isPending { core.virtqueue.disableNotifications() }
    core.logNotifications()
    if core.virtqueue.isFaulted { core.stopForFault() }
    return !isPending
  }

  /// Tells the driver that no kicks are needed: the path turns again.
  public mutating func wake() {
    core.virtqueue.disableNotifications()
    core.logNotifications()
  }

  /// Goes on with another map of the guest's memory, in which everything that is with the card is still there.
  ///
  /// - Throws: if the ring is not where it was. Then the path goes on with the old map, and must be stopped.
  public mutating func replaceMap(_ map: MemoryMap) throws(VirtqueueError) { try core.replaceMap(map) }

  /// Marks pages in a log from now on, or no longer: those of the used ring, after they were written; nothing else of the
  /// guest's is written. See `ReceivePath.setLog`.
  public mutating func setLog(_ log: DirtyLog?, ringLogAddress: GuestAddress? = nil) {
    core.setLog(log, ringLogAddress: ringLogAddress)
  }

  // MARK: The end

  /// Stops the card, gives back what it is done with, and forgets the rest. When it returns, nothing of this path reads
  /// or writes guest memory any more, and `base` is where a successor goes on: it sends what did not go back, which may
  /// have been sent already.
  ///
  /// - Throws: if the card does not say that it has stopped. Then only the IOMMU can keep it out: close the window.
  public mutating func stop(_ reason: StopReason, cardIsGone: Bool = false) throws(RegisterError) {
    beginStop(reason, cardIsGone: cardIsGone)
    try queue.quiesce()
    while try !pollStop() {}
  }

  /// Begins to stop the path: nothing is posted any more. No wait. Then `pollStop`.
  ///
  /// - Parameter cardIsGone: the NIC is off the bus, and is not asked to stop.
  public mutating func beginStop(_ reason: StopReason, cardIsGone: Bool = false) {
    core.stop(reason)
    if cardIsGone { queue.abandon() }
    queue.beginQuiesce()
  }

  /// One step of stopping: checks whether the queue has stopped (at most one register read, no wait), or then gives one
  /// batch back to the guest.
  ///
  /// - Returns: true when the path has stopped: nothing of it reads or writes guest memory any more.
  /// - Throws: the NIC does not stop the queue: see `stop`.
  public mutating func pollStop() throws(RegisterError) -> Bool {
    guard try queue.pollQuiesce() else { return false }
    core.doneCount += queue.reap()
    if let place = queue.unmapFailure { core.stop(.unmapFailed(at: place)) }
    if core.virtqueue.isFaulted || queue.unmapFailure != nil {
      // A broken ring gets nothing back, and nor does a guest what the card may still reach. What was sent was sent.
      while core.removeDone() != nil {}
    } else if settle() > 0 {
      return false
    }
    core.forgetAll()
    return true
  }

  /// Forgets what is posted to a queue that the NIC did not stop: as `ReceivePath.forsake`.
  public mutating func forsake() { core.forsake() }

  /// Takes a stopped path apart, so that its queue and its host buffers can go into another one.
  /// Precondition: `stop` returned, `pollStop` returned true, or `forsake` was called.
  public consuming func dismantle() -> TransmitParts<Queue> {
    precondition(outstandingBuffers == 0, "takes a running path apart")
    return TransmitParts(queue: queue, pool: core.pool, counters: core.counters)
  }
}

/// What of a transmit path outlives it: see `ReceiveParts`.
public struct TransmitParts<Queue: TransmitQueue & ~Copyable>: ~Copyable {
  /// To be started again by its device: a path leaves it stopped.
  public var queue: Queue
  var pool: BouncePool
  public private(set) var counters: TransmitCounters

  /// - Parameter bounceBuffers: host buffers for frames that cannot be lent, a power of two.
  public init(
    queue: consuming Queue, space: any IOAddressSpace, allocator: IOVAAllocator, bounceBuffers: Int = 256
  ) throws(DMABufferError) {
    let pool = try BouncePool(
      capacity: bounceBuffers, largestFrame: Int(queue.frameByteCounts.upperBound), keepsToPages: true, in: space, allocator: allocator)
    self.init(queue: queue, pool: pool, counters: TransmitCounters())
  }

  init(queue: consuming Queue, pool: consuming BouncePool, counters: TransmitCounters) {
    self.queue = queue
    self.pool = pool
    self.counters = counters
  }
}

extension TransmitParts where Queue: ~Copyable {
  /// As `ReceiveParts.useFreshCounters`.
  public mutating func useFreshCounters() { counters = TransmitCounters() }

  /// As `ReceiveParts.protected`.
  public consuming func protected(by pages: LentPages) -> TransmitParts<ProtectedTransmitQueue<Queue>> {
    TransmitParts<ProtectedTransmitQueue<Queue>>(queue: ProtectedTransmitQueue(queue, pages), pool: pool, counters: counters)
  }
  public consuming func unprotected<Base: TransmitQueue & ~Copyable>() -> TransmitParts<Base> where Queue == ProtectedTransmitQueue<Base> {
    TransmitParts<Base>(queue: queue.unprotected(), pool: pool, counters: counters)
  }
}
