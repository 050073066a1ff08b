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
  public static var batch: UInt32 { @inlinable get { 64 } }

  @usableFromInline var core: ReceiveCore
  @usableFromInline var queue: Queue
  /// The driver asked to be told of what was published; whoever turns the path signals and clears it.
  public var wantsSignal = false

  /// Joins a guest's queue to a card's. The card's queue runs, or will before the first turn; nothing else posts to it.
  ///
  /// - Parameters:
  ///   - window: the guest's memory on the bus; stays open while the path lives.
  ///   - bounceBuffers: host buffers for frames that cannot be lent, a power of two.
  public init(
    layout: SplitRingLayout, features: Features, base: UInt16 = 0, window: DMAWindow, queue: consuming Queue,
    space: any IOAddressSpace, allocator: IOVAAllocator, mode: PathMode = .auto, bounceBuffers: Int = 1024
  ) throws(AttachmentError) {
    var view = MemoryView(window.map)
    let virtqueue = try Self.join { () throws(VirtqueueError) in
      try SplitVirtqueue(layout, features: features, base: base, in: &view)
    }
    let largestFrame = queue.requirements.largestFrame
    let pool = try Self.pool(
      capacity: bounceBuffers, largestFrame: largestFrame, in: space, allocator: allocator)
    core = ReceiveCore(
      virtqueue: virtqueue, window: window, pool: pool, slotCount: queue.capacity, largestFrame: largestFrame,
      mode: mode)
    core.virtqueue.disableNotifications()
    self.queue = queue
  }

  private static func join(_ make: () throws(VirtqueueError) -> SplitVirtqueue) throws(AttachmentError) -> SplitVirtqueue {
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
  /// Where a back-end that follows this one must go on.
  public var base: UInt16 { core.virtqueue.usedIndex }

  /// Walks one batch out and one batch back. Answers how many guest buffers went back.
  @inlinable @inline(__always) public mutating func turn() -> Int {
    guard case .none = core.stopReason else { return 0 }
    lend()
    return settle()
  }

  // MARK: Out to the card

  /// Takes what the driver made available and posts it: the guest's own buffers where a frame can land in them.
  @inlinable @inline(__always) mutating func lend() {
    let pending = min(core.virtqueue.pending(), Self.batch)
    let count = min(pending, UInt32(truncatingIfNeeded: queue.room))
    let rung = core.ledger.slotTail
    if _fastPath(core.isPlain) {
      if count == 0 {
        if _slowPath(core.virtqueue.isFaulted) { core.stopForFault() }
        return
      }
      var done: UInt32 = 0
      while done < count {
        guard let head = core.virtqueue.take() else { break }
        let descriptor = core.virtqueue.descriptor(head)
        guard _fastPath(descriptor.flags == Descriptor.isWritable && descriptor.range.count >= core.need),
          let slice = core.memory.slice(descriptor.range)
        else {
          // Everything before this one is lent: what follows is a new run.
          core.ledger.closeRun()
          if enter(head) { lendSlowly(pending &- done &- 1) }
          break
        }
        unsafe core.ledger.enterLent(slice.base, byteCount: descriptor.range.count, id: head)
        queue.post(
          IOVA(core.windowBase &+ descriptor.range.start.rawValue &+ UInt64(NetHeader.byteCount)))
        done &+= 1
      }
    } else {
      lendSlowly(pending)
    }
    if core.ledger.slotTail != rung {
      queue.ring()
      core.tally.add(.doorbells, 1)
    }
    if _slowPath(core.virtqueue.isFaulted) { core.stopForFault() }
  }


  /// The same for buffers that are not all alike.
  @inline(never) @inlinable mutating func lendSlowly(_ count: UInt32) {
    postBounces()
    var left = count
    while true {
      if left > 0 && queue.room > 0 {
        left -= 1
      } else if !core.isHoping() || core.virtqueue.pending() == 0 {
        return
      }
      guard let head = core.virtqueue.take(), enter(head) else { return }
    }
  }

  /// Puts one head where it belongs; false if the path must stop. Precondition: the queue has room, or the path
  /// is hoping.
  @inline(never) @inlinable mutating func enter(_ head: UInt16) -> Bool {
    switch core.enter(head) {
    case .lend(let address): queue.post(address)
    case .wait: postBounces()
    case .stop: return false
    }
    return true
  }

  @inline(never) @inlinable mutating func postBounces() {
    while queue.room > 0, let address = core.nextBounce() { queue.post(address) }
  }

  // MARK: Back to the guest

  /// Takes back what the card has filled, and hands it to the guest in one store.
  @inlinable @inline(__always) mutating func settle() -> Int {
    var used: UInt16 = 0
    if _fastPath(core.isPlain) {
      var bytes: UInt64 = 0
      var odd: UInt16 = 0
      var counted: UInt16 = 0
      while UInt32(used) < Self.batch, let completion = queue.reap() {
        let entry = unsafe core.ledger.entries[Int(core.ledger.front & core.ledger.entryMask)]
        let isWhole = completion.flags.rawValue & 3 == 1 && !core.isDiscarding
        let fits = completion.byteCount <= core.need &- NetHeader.byteCount
        guard _fastPath(isWhole && fits) else {
          // Those before it are settled first: the long way counts for itself.
          core.settledFrames &+= UInt64(used &- odd &- counted)
          counted = used &- odd
          core.settleOdd(completion, at: used)
          used &+= 1
          odd &+= 1
          continue
        }
        unsafe sl_store64(entry.base, completion.flags.rawValue & 4 != 0 ? core.checkedWord : 0)
        unsafe sl_store32(entry.base + 8, NetHeader(bufferCount: 1).highWord)
        core.virtqueue.put(unsafe entry.id, byteCount: completion.byteCount &+ NetHeader.byteCount, at: used)
        core.ledger.front = core.ledger.front &+ 1
        core.ledger.slotFront = core.ledger.slotFront &+ 1
        bytes &+= UInt64(completion.byteCount)
        used &+= 1
      }
      if used == 0 { return 0 }
      core.settledFrames &+= UInt64(used &- odd &- counted)
      core.tally.add(.lentFrames, UInt64(used &- odd))
      core.tally.add(.lentBytes, bytes)
    } else {
      used = settleSlowly()
      if used == 0 { return 0 }
    }
    if core.virtqueue.publish(used) {
      wantsSignal = true
      core.tally.add(.signals, 1)
    }
    return Int(used)
  }

  @inline(never) @inlinable mutating func settleSlowly() -> UInt16 {
    var used: UInt16 = 0
    var frames: UInt32 = 0
    // A broken ring gets nothing more: what went into it half would be followed by what came later.
    while frames < Self.batch, !core.virtqueue.isFaulted, let completion = queue.reap() {
      used &+= core.settle(completion, at: used)
      frames += 1
    }
    if core.virtqueue.isFaulted { core.stopForFault() }
    return used
  }

  // MARK: The end

  /// Stops the card, hands back what had come, and forgets the rest. When it returns, nothing of this path writes
  /// to guest memory any more, and `base` is where a successor goes on.
  ///
  /// - Throws: if the card does not say that it has stopped. Then only the IOMMU can keep it out: close the window.
  public mutating func stop(_ reason: StopReason) throws(RegisterError) {
    core.stop(reason)
    try queue.quiesce()
    if case .virtqueue = core.stopReason {} else {
      // A batch may be used up without giving anything back: go on until the card has no more.
      var before: UInt32
      repeat {
        before = core.ledger.slotFront
        _ = settle()
      } while core.ledger.slotFront != before
    }
    // A broken ring takes no more frames, and a stopped card brings no more than it had.
    let drop: PathDrop = core.virtqueue.fault == nil ? .stopped : .ringViolation
    while let completion = queue.reap() {
      guard completion.flags.contains(.isEnd) else { continue }
      core.drop(drop)
      core.settledFrames += 1
    }
    core.ledger.removeAll()
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
