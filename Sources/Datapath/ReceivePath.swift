public import Bus
public import CLinux
public import GuestMemory
public import NIC
public import Virtio

/// One guest receive queue joined to one queue of a card, owned by one thread.
///
/// A path *turns*: one batch of buffers walks out to the card, one batch of frames walks back to the guest. The
/// bytes of a lent frame are never touched here; what is read is the descriptor that the card wrote back, what is
/// written is twelve bytes of header and one used element.
///
/// A turn allocates nothing, retains nothing, takes no lock and makes no system call.
public struct ReceivePath<Queue: ReceiveQueue & ~Copyable>: ~Copyable {
  /// The most frames one turn moves each way.
  public static var batch: UInt32 { @inlinable get { 128 } }

  @usableFromInline var core: ReceiveCore
  @usableFromInline var queue: Queue
  /// The driver asked to be told of what was published; whoever turns the path signals and clears it.
  public var wantsSignal = false
  /// Whether the driver's wish to be told is looked at in the turn after the one that showed it something, or before the path sleeps or stops,
  /// instead of at once. To look takes a fence, which waits until the driver's processor has given up the line with the index:
  /// by the next turn it has. For who turns the path again at once.
  public var notifiesLate = false
  /// Something was shown since that was looked at.
  @usableFromInline var hasShown = false

  /// Joins a guest's queue to a card's. The card's queue runs, or will before the first turn; nothing else posts to it.
  ///
  /// - Parameters:
  ///   - window: the guest's memory on the bus; stays open while the path lives.
  ///   - parts: what has gone through other paths, or was made for this one.
  public init(
    virtqueue: consuming Virtqueue, window: DMAWindow, parts: consuming ReceiveParts<Queue>, mode: PathMode = .auto
  ) {
    let (slotCount, largestFrame) = (parts.queue.capacity, parts.queue.requirements.largestFrame)
    core = ReceiveCore(
      virtqueue: virtqueue, window: window, pool: parts.pool, counters: parts.counters, drops: parts.drops,
      settledFrames: parts.settledFrames, slotCount: slotCount, largestFrame: largestFrame, mode: mode)
    core.virtqueue.disableNotifications()
    queue = parts.queue
  }

  /// The same in one step.
  ///
  /// - Parameters:
  ///   - base, record: where to go on: see `Virtqueue.init`.
  ///   - bounceBuffers: host buffers for frames that cannot be lent, a power of two.
  public init(
    layout: RingLayout, features: Features, base: RingBase, record: RingRecord? = nil, window: DMAWindow,
    queue: consuming Queue, space: any IOAddressSpace, allocator: IOVAAllocator, mode: PathMode = .auto,
    bounceBuffers: Int = 256
  ) throws(AttachmentError) {
    let virtqueue = try Self.join { () throws(VirtqueueError) in
      var view = MemoryView(window.map)
      return try Virtqueue(layout, features: features, base: base, record: record, in: &view)
    }
    let pool = try Self.pool(
      capacity: bounceBuffers, largestFrame: queue.requirements.largestFrame, in: space, allocator: allocator)
    self.init(
      virtqueue: virtqueue, window: window,
      parts: ReceiveParts(
        queue: queue, pool: pool, counters: ReceiveCounters(), drops: DropLog(), settledFrames: 0), mode: mode)
  }

  private static func join(_ make: () throws(VirtqueueError) -> Virtqueue) throws(AttachmentError) -> Virtqueue {
    do { return try make() } catch { throw .virtqueue(error) }
  }
  private static func pool(
    capacity: Int, largestFrame: Int, in space: any IOAddressSpace, allocator: IOVAAllocator
  ) throws(AttachmentError) -> BouncePool {
    do {
      return try BouncePool(capacity: capacity, largestFrame: largestFrame, in: space, allocator: allocator)
    } catch { throw .memory(error) }
  }

  public var counters: ReceiveCounters { core.counters }
  /// Why the path has stopped, or nil while it runs.
  public var stopReason: StopReason? { core.stopReason }
  /// Frames that left the path, delivered or dropped, in the order in which the card received them.
  public var settledFrames: UInt64 { core.settledFrames }
  /// Which of those were dropped.
  public var drops: DropLog { core.drops }
  /// Guest buffers that were taken and not given back.
  public var outstandingBuffers: Int { core.ledger.count }
  /// The most slots that can be out.
  public var queueCapacity: Int { queue.capacity }
  /// Slots of the card that are out.
  public var outstandingSlots: Int { core.ledger.slotCount }
  /// Where a back-end that follows this one must go on: the oldest buffer that did not go back.
  public var base: RingBase { core.virtqueue.base }
  /// Changes with every turn in which a buffer went out or came back, or a frame was dropped.
  @inlinable public var progress: UInt32 {
    core.ledger.tail &+ core.ledger.front &+ core.ledger.slotTail &+ core.ledger.slotFront
  }

  /// Walks one batch out and one batch back. Answers how many guest buffers went back.
  @inlinable @inline(__always) public mutating func turn() -> Int {
    guard case .none = core.stopReason else { return 0 }
    lend()
    if hasShown { notify() }
    let returned = settle()
    if let place = queue.unmapFailure { core.stop(.unmapFailed(at: place)) }
    core.tally.set(.postedBuffers, UInt64(core.ledger.slotTail &- core.ledger.slotFront))
    return returned
  }

  // MARK: Out to the card

  /// Takes what the driver made available and posts it: the guest's own buffers where a frame can land in them.
  @inline(never) @inlinable mutating func lend() {
    let pending = min(core.virtqueue.pending(), Self.batch)
    let rung = core.ledger.slotTail
    if _fastPath(core.isPlain) {
      let count = min(pending, UInt32(truncatingIfNeeded: queue.room))
      if count == 0 {
        if _slowPath(core.virtqueue.isFaulted) { core.stopForFault() }
        return
      }
      let isPacked = core.virtqueue.isPacked
      var left = count
      while left > 0 {
        let (done, run) = isPacked ? Self.lend(left, of: &core.virtqueue.packed, to: &queue, &core.memory, &core.ledger, core.need, core.frameBase)
          : Self.lend(left, of: &core.virtqueue.split, to: &queue, &core.memory, &core.ledger, core.need, core.frameBase)
        left &-= done
        if done < run || run == 0 { break }
      }
      if left > 0 { lendFrom(of: pending &- (count &- left)) }
    } else {
      core.turn &+= 1
      core.refillBudget = ReceiveCore.descriptorBudget
      lendSlowly(pending)
    }
    if core.ledger.slotTail != rung {
      queue.ring()
      core.tally.add(.doorbells, 1)
    }
    if _slowPath(core.virtqueue.isFaulted) { core.stopForFault() }
  }

  /// Posts buffers that can be lent as they are, `most` at most, from a run of entries into a run of the card's. Answers how many, and
  /// how long the run was: it ends before the first other buffer, before the first that the card refuses, and before the first that
  /// is not there.
  @inlinable @inline(__always) static func lend<Format: RingFormat & ~Copyable>(
    _ most: UInt32, of virtqueue: inout Format, to queue: inout Queue, _ memory: inout MemoryView, _ ledger: inout Ledger, _ need: UInt32,
    _ frameBase: UInt64
  ) -> (done: UInt32, run: UInt32) {
    let posting = queue.posting(most)
    let taking = virtqueue.taking(posting.count)
    let entering = ledger.entering(taking.count)
    let run = entering.count
    var n: UInt32 = 0
    while n < run, let buffer = taking.plainBuffer(at: n), _fastPath(buffer.range.count >= need), let slice = memory.slice(buffer.range),
      posting.post(IOVA(frameBase &+ buffer.range.start.rawValue), at: n) {
      taking.mark(buffer, at: n)
      entering.enterLent(slice, id: buffer.id, at: n)
      n &+= 1
    }
    virtqueue.advance(taken: n)
    queue.advance(posted: n)
    ledger.enterLent(n)
    return (n, run)
  }

  /// The first buffer that cannot be lent as those before it were, if there is one, and the rest of what is pending.
  @inline(never) @inlinable mutating func lendFrom(of pending: UInt32) {
    guard let odd = core.virtqueue.next() else { return }
    // Everything before this one is lent: what follows is a new run.
    core.ledger.closeRun()
    core.turn &+= 1
    core.refillBudget = ReceiveCore.descriptorBudget
    if enter(odd) { lendSlowly(pending &- 1) }
  }

  /// The same for buffers that are not all alike.
  @inline(never) @inlinable mutating func lendSlowly(_ count: UInt32) {
    postBounces()
    var left = core.copiesAll ? enterPieces(count) : count
    while true {
      if core.refillBudget <= 0 { return core.countCut() }
      if left > 0 && queue.room > 0 {
        left -= 1
      } else if !core.isHoping() || core.virtqueue.pending() == 0 {
        return
      }
      guard let buffer = core.virtqueue.next(), enter(buffer) else { return }
    }
  }

  /// Where everything is copied: takes buffers of one piece that every frame fits, as many as there is room for slots; the first other one
  /// ends it. Answers how many are left of `count`.
  @inline(never) @inlinable mutating func enterPieces(_ count: UInt32) -> UInt32 {
    let most = min(count, UInt32(truncatingIfNeeded: queue.room))
    let isPacked = core.virtqueue.isPacked
    var left = most
    while left > 0 {
      let (done, run) = isPacked ? Self.enterPieces(left, of: &core.virtqueue.packed, &core.memory, &core.ledger, core.need)
        : Self.enterPieces(left, of: &core.virtqueue.split, &core.memory, &core.ledger, core.need)
      left &-= done
      if done < run || run == 0 { break }
    }
    if left < most {
      core.endHope()
      postBounces()
    }
    return count &- (most &- left)
  }

  /// A run of those.
  @inlinable @inline(__always) static func enterPieces<Format: RingFormat & ~Copyable>(
    _ most: UInt32, of virtqueue: inout Format, _ memory: inout MemoryView, _ ledger: inout Ledger, _ need: UInt32
  ) -> (done: UInt32, run: UInt32) {
    let taking = virtqueue.taking(most)
    let entering = ledger.entering(taking.count)
    let run = entering.count
    var (n, first, differing): (UInt32, UInt32, UInt32) = (0, 0, 0)
    while n < run, let buffer = taking.plainBuffer(at: n), _fastPath(buffer.range.count >= need), let slice = memory.slice(buffer.range) {
      taking.mark(buffer, at: n)
      entering.enterPiece(slice, id: buffer.id, at: n)
      if n == 0 { first = buffer.range.count }
      differing |= buffer.range.count ^ first
      n &+= 1
    }
    virtqueue.advance(taken: n)
    if n > 0 { ledger.enterPieces(n, byteCount: differing == 0 ? first : 0) }
    return (n, run)
  }

  /// Takes one buffer and puts it where it belongs; false if the path must stop. Precondition: the queue has room, or the path
  /// is hoping.
  @inline(never) @inlinable mutating func enter(_ buffer: AvailableBuffer) -> Bool {
    switch core.enter(buffer) {
    case .lend(let address):
      if queue.post(address) {
        core.enterLent()
      } else {
        guard core.bounce(.notMapped) else { return false }
        postBounces()
      }
    case .wait: postBounces()
    case .stop: return false
    }
    return true
  }

  @inline(never) @inlinable mutating func postBounces() {
    var covered = min(core.coveredBounces(), UInt32(truncatingIfNeeded: queue.room))
    while covered > 0 {
      let posting = queue.posting(covered)
      let (first, count) = core.pool.taking(posting.count)
      if count == 0 { break }
      for n in 0..<count {
        let isPosted = posting.post(IOVA(first.rawValue &+ UInt64(n) &* UInt64(core.pool.stride)), at: n)
        precondition(isPosted, "a queue refused a host buffer")
      }
      queue.advance(posted: count)
      core.pool.taken = core.pool.taken &+ count
      core.ledger.enterBouncedSlots(count)
      covered &-= count
    }
    while queue.room > 0, let address = core.nextBounce() {
      let isPosted = queue.post(address)
      precondition(isPosted, "a queue refused a host buffer")
    }
  }

  // MARK: Back to the guest

  /// Takes back what the card has filled, and hands it to the guest in one store.
  @inline(never) @inlinable mutating func settle() -> Int {
    var used: UInt16 = 0
    if _fastPath(core.isPlain && !core.isLogging && !core.isDiscarding) {
      let isPacked = core.virtqueue.isPacked
      let most = min(Self.batch, UInt32(truncatingIfNeeded: core.ledger.slotCount))
      var count: UInt32 = 0
      var bytes: UInt64 = 0
      while count < most {
        let (done, run) = isPacked ? Self.settle(most &- count, after: count, &core.virtqueue.packed, &queue, &core.ledger, core.mostFrameBytes, core.checkedWord, &bytes)
          : Self.settle(most &- count, after: count, &core.virtqueue.split, &queue, &core.ledger, core.mostFrameBytes, core.checkedWord, &bytes)
        count &+= done
        if done < run || run == 0 { break }
      }
      used = UInt16(truncatingIfNeeded: count)
      core.settleLent(count)
      core.tally.add(.lentFrames, UInt64(count))
      core.tally.add(.lentBytes, bytes)
      // What follows an odd one goes the long way with it, which counts for itself.
      if count < most, let odd = queue.reap() { used = settleFrom(odd, after: used) }
      if used == 0 { return 0 }
    } else {
      core.completionBudget = ReceiveCore.descriptorBudget
      used = settleSlowly(Self.batch)
      if used == 0 { return 0 }
    }
    core.ledger.expectBatches(of: UInt32(used))
    hasShown = true
    if _fastPath(!core.isLogging) { core.virtqueue.show(used) } else { core.showLogged(used) }
    if !notifiesLate { notify() }
    return Int(used)
  }

  /// Finds out whether the driver asked to be told of what was shown.
  @inlinable @inline(__always) mutating func notify() {
    hasShown = false
    if core.virtqueue.mustNotify() {
      wantsSignal = true
      core.tally.add(.signals, 1)
    } else {
      core.tally.add(.suppressedSignals, 1)
    }
  }

  /// Gives back the lent buffers with a whole frame in each, `most` at most, where `offset` were given back already. Answers how many,
  /// and how long the run was: it ends before the first that has something else, and before the first that has nothing yet.
  @inlinable @inline(__always) static func settle<Format: RingFormat & ~Copyable>(
    _ most: UInt32, after offset: UInt32, _ virtqueue: inout Format, _ queue: inout Queue, _ ledger: inout Ledger, _ mostFrameBytes: UInt32,
    _ checkedWord: UInt64, _ bytes: inout UInt64
  ) -> (done: UInt32, run: UInt32) {
    let reaping = queue.reaping(most)
    let putting = virtqueue.putting(reaping.count, after: offset)
    let leaving = ledger.leaving(putting.count, after: offset)
    let distance = ledger.prefetchDistance
    let run = leaving.count
    var n: UInt32 = 0
    while n < run, let frame = reaping.wholeFrame(at: n, most: mostFrameBytes), putting.isPlain(at: n) {
      // The header's line was the guest's last: it is asked for some frames ahead.
      unsafe sl_prefetch_write(ledger.header(after: offset &+ n &+ distance))
      let entry = unsafe leaving.place(n)
      let header = unsafe entry.pointee.base
      unsafe sl_store64(header, frame.isChecksumValid ? checkedWord : 0)
      unsafe sl_store32(header + 8, NetHeader(bufferCount: 1).highWord)
      putting.put(unsafe entry.pointee.id, byteCount: frame.byteCount &+ NetHeader.byteCount, at: n)
      bytes &+= UInt64(frame.byteCount)
      n &+= 1
    }
    queue.advance(reaped: n)
    virtqueue.advance(put: n)
    return (n, run)
  }

  /// Settles a lent buffer that came back with something else than one whole frame, and the rest of a batch that it is in.
  @inline(never) @inlinable mutating func settleFrom(_ odd: Completion, after used: UInt16) -> UInt16 {
    core.completionBudget = ReceiveCore.descriptorBudget
    return used &+ core.settle(odd) &+ settleSlowly(Self.batch &- UInt32(used) &- 1)
  }

  @inline(never) @inlinable mutating func settleSlowly(_ most: UInt32) -> UInt16 {
    var used: UInt16 = 0
    var frames: UInt32 = 0
    // A broken ring gets nothing more: what went into it half would be followed by what came later.
    while frames < most, !core.virtqueue.isFaulted {
      if core.completionBudget <= 0 {
        core.countCut()
        break
      }
      let copied = copy(most &- frames)
      used &+= UInt16(truncatingIfNeeded: copied)
      frames &+= copied
      guard frames < most, let completion = queue.reap() else { break }
      used &+= core.settle(completion)
      frames &+= 1
    }
    if core.virtqueue.isFaulted { core.stopForFault() }
    return used
  }

  /// The usual case of bounced frames: whole, and each for one buffer of one piece that it fits. Copies such, `most` at most, up to the
  /// first other one, or the first that has not come; answers how many.
  @inlinable mutating func copy(_ most: UInt32) -> UInt32 {
    if core.isDiscarding || core.isLogging { return 0 }
    let isPacked = core.virtqueue.isPacked
    let start = min(most, core.ledger.waiting)
    var left = start
    while left > 0 {
      let (done, run) = isPacked
        ? Self.copy(left, to: &core.virtqueue.packed, after: core.virtqueue.unshownCount, &queue, &core.ledger, &core.pool, core.tally, core.mostFrameBytes, core.checkedWord)
        : Self.copy(left, to: &core.virtqueue.split, after: core.virtqueue.unshownCount, &queue, &core.ledger, &core.pool, core.tally, core.mostFrameBytes, core.checkedWord)
      core.virtqueue.countPut(UInt16(truncatingIfNeeded: done))
      core.settledFrames &+= UInt64(done)
      left &-= done
      if done < run || run == 0 { break }
    }
    return start &- left
  }

  /// A run of those.
  @inlinable @inline(__always) static func copy<Format: RingFormat & ~Copyable>(
    _ most: UInt32, to virtqueue: inout Format, after offset: UInt16, _ queue: inout Queue, _ ledger: inout Ledger, _ pool: inout BouncePool,
    _ tally: ReceiveCounters.Writer, _ mostFrameBytes: UInt32, _ checkedWord: UInt64
  ) -> (done: UInt32, run: UInt32) {
    let reaping = queue.reaping(most)
    let putting = virtqueue.putting(reaping.count, after: UInt32(offset))
    let leaving = ledger.leaving(putting.count, after: 0)
    let distance = ledger.prefetchDistance
    let source = pool.releasing(leaving.count)
    let run = source.count
    var n: UInt32 = 0
    var bytes: UInt64 = 0
    while n < run, let frame = reaping.wholeFrame(at: n, most: mostFrameBytes), putting.isPlain(at: n), ledger.isBounced(n) {
      // Its first lines were the guest's last: the header's and the frame's.
      let ahead = unsafe ledger.header(after: n &+ distance)
      unsafe sl_prefetch_write(ahead)
      unsafe sl_prefetch_write(ahead + 64)
      let entry = unsafe leaving.place(n).pointee
      let length = frame.byteCount &+ NetHeader.byteCount
      guard unsafe entry.kind == .piece && entry.byteCount >= length else { break }
      unsafe sl_store64(entry.base, frame.isChecksumValid ? checkedWord : 0)
      unsafe sl_store32(entry.base + 8, NetHeader(bufferCount: 1).highWord)
      unsafe sl_copy_frame(entry.base + Int(NetHeader.byteCount), source.frame(n, byteCount: frame.byteCount), Int(frame.byteCount))
      putting.put(unsafe entry.id, byteCount: length, at: n)
      tally.addBounce(unsafe entry.reason)
      bytes &+= UInt64(frame.byteCount)
      n &+= 1
    }
    queue.advance(reaped: n)
    virtqueue.advance(put: n)
    ledger.removeCopied(n)
    pool.released = pool.released &+ n
    tally.add(.bouncedFrames, UInt64(n))
    tally.add(.bouncedBytes, bytes)
    return (n, run)
  }

  // MARK: Between turns

  /// Asks the driver for a kick at its next buffer, and looks once more whether there is one already. True if the path
  /// may sleep: until a kick, or until the card has something. Frames that came before the card was asked to interrupt
  /// are for who asked it to find: by another turn, which may be made at any time.
  public mutating func prepareToSleep() -> Bool {
    if hasShown { notify() }
    if stopReason != nil { return true }
    if core.endPatience() { return false }
    // With no room for a buffer a kick would be for nothing: room comes with frames.
    guard queue.room > 0 || core.isHoping() else { return true }
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

  /// Goes on with another map of the guest's memory: regions were added, or some that nothing of this path lies in were
  /// removed. The window's map is the caller's to change.
  ///
  /// - Throws: if the ring, or a buffer that is out, is not where it was. Then the path goes on with the old map, and
  ///   must be stopped.
  public mutating func replaceMap(_ map: MemoryMap) throws(VirtqueueError) { try core.replaceMap(map) }

  /// Marks pages in a log from now on, or no longer: of every buffer before it is shown to the driver, with what the card
  /// has put into it, and of the used ring after it was written. When the path stops, everything is marked that the card
  /// may have written to.
  ///
  /// - Parameter ringLogAddress: where the front-end wants the used ring to be marked, if it says so; else where the ring
  ///   lies. Of a packed virtqueue it is the device's event suppression; descriptors are marked where they lie.
  public mutating func setLog(_ log: DirtyLog?, ringLogAddress: GuestAddress? = nil) {
    core.setLog(log, ringLogAddress: ringLogAddress)
  }

  // MARK: The end

  /// Stops the card, hands back what had come, and forgets the rest. When it returns, nothing of this path writes
  /// to guest memory any more, and `base` is where a successor goes on.
  ///
  /// - Parameter cardIsGone: nothing is asked of the card: it is known to be off the bus.
  /// - Throws: if the card does not say that it has stopped. Then only the IOMMU can keep it out: close the window.
  public mutating func stop(_ reason: StopReason, cardIsGone: Bool = false) throws(RegisterError) {
    beginStop(reason, cardIsGone: cardIsGone)
    do { try queue.quiesce() } catch {
      // Whatever becomes of the card: it had these.
      if core.isLogging { core.logPosted() }
      throw error
    }
    while try !pollStop() {}
  }

  /// Begins to stop the path: nothing is posted any more. At most one register write, no wait. Then `pollStop`.
  ///
  /// - Parameter cardIsGone: the NIC is off the bus, and is not asked to stop.
  public mutating func beginStop(_ reason: StopReason, cardIsGone: Bool = false) {
    core.stop(reason)
    if cardIsGone { queue.abandon() }
    queue.beginQuiesce()
  }

  /// One step of stopping: checks whether the queue has stopped (at most one register read, no wait), or then hands one
  /// batch of what had come to the guest.
  ///
  /// - Returns: true when the path has stopped: nothing of it writes to guest memory any more.
  /// - Throws: the NIC does not stop the queue: see `stop`.
  @inlinable public mutating func pollStop() throws(RegisterError) -> Bool {
    guard try isQuiet() else { return false }
    if case .virtqueue = core.stopReason {} else if let place = queue.unmapFailure {
      // What has come lies where the card may still write: none of it goes to the guest.
      core.stop(.unmapFailed(at: place))
    } else {
      // A batch may be used up without giving anything back: go on until the card has no more.
      let before = core.ledger.slotFront
      _ = settle()
      if core.ledger.slotFront != before { return false }
    }
    finishStop()
    return true
  }

  @usableFromInline mutating func isQuiet() throws(RegisterError) -> Bool {
    do { return try queue.pollQuiesce() } catch {
      // Whatever becomes of the NIC: it had these.
      if core.isLogging { core.logPosted() }
      throw error
    }
  }

  @usableFromInline mutating func finishStop() {
    if hasShown { notify() }
    // A broken ring takes no more frames, and a stopped card brings no more than it had.
    let drop: PathDrop = core.virtqueue.fault == nil ? .stopped : .ringViolation
    if core.isLogging { core.logPosted() }
    while let completion = queue.reap() {
      guard completion.flags.contains(.isEnd) else { continue }
      core.drop(drop)
      core.settledFrames += 1
    }
    core.ledger.removeAll()
    core.pool.releaseAll()
    core.tally.set(.postedBuffers, 0)
  }

  /// Forgets what is posted to a queue that the NIC did not stop, so that the path can be dismantled.
  ///
  /// The NIC may still write to the posted buffers. The caller unmaps the guest's memory, and keeps the parts until the
  /// NIC was reset: their addresses on the bus must not be given to anything else.
  public mutating func forsake() {
    // What had come is counted; what comes late is not.
    while let completion = queue.reap() {
      guard completion.flags.contains(.isEnd) else { continue }
      core.drop(.stopped)
      core.settledFrames += 1
    }
    core.ledger.removeAll()
    core.tally.set(.postedBuffers, 0)
  }

  /// Takes a stopped path apart, so that its queue and its host buffers can go into another one.
  /// Precondition: `stop` returned, `pollStop` returned true, or `forsake` was called.
  public consuming func dismantle() -> ReceiveParts<Queue> {
    precondition(outstandingSlots == 0 && outstandingBuffers == 0, "takes a running path apart")
    return ReceiveParts(
      queue: queue, pool: core.pool, counters: core.counters, drops: core.drops, settledFrames: core.settledFrames)
  }
}

/// Why a guest's queue and a card's could not be joined.
public enum AttachmentError: Error, Hashable, Sendable, CustomStringConvertible {
  case virtqueue(VirtqueueError)
  case memory(DMABufferError)

  public var description: String {
    switch self {
    case .virtqueue(let error): "\(error)"
    case .memory(let error): "\(error)"
    }
  }
}
