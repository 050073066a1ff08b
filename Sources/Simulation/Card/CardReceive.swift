internal import Bus
internal import CLinux

/// A frame on the wire, from the destination address on, without the check sequence.
///
/// Whoever makes one keeps the bytes, and the headers, until `receive` has returned.
@unsafe public struct WireFrame {
  public let bytes: UnsafeRawPointer
  /// Bytes, without the check sequence.
  public let count: Int
  /// What is known of it from before, or nil: then it is parsed on arrival. A pointer, so that the whole goes in
  /// registers: what is put together in memory and read in other pieces at once waits for the stores to leave the core.
  public let notes: UnsafeMutablePointer<FrameNotes>?
  /// Its check sequence is wrong.
  public var badCRC = false

  @inlinable public init(bytes: UnsafeRawPointer, count: Int, notes: UnsafeMutablePointer<FrameNotes>? = nil, badCRC: Bool = false) {
    unsafe self.bytes = bytes
    unsafe self.count = count
    unsafe self.notes = notes
    unsafe self.badCRC = badCRC
  }
}

/// Why a frame did not get into memory.
public enum CardDrop: String, Hashable, Sendable, CaseIterable {
  case removed, resetting, masterDisabled, linkDown, receiveDisabled
  /// Counted in RUC: shorter than an Ethernet header. Reading "short frames".
  case undersize
  /// Counted in ROC.
  case oversize
  /// Counted in CRCERRS, RFC (short) or RJC (long).
  case crcError
  /// It passed no address or VLAN filter, or no pool wanted it.
  case noPool
  /// A flow director filter sent it to the drop queue, and that one is not enabled.
  case filtered
  /// Counted in QPRDC.
  case queueDisabled
  /// No descriptor, and SRRCTL.DROP_EN or PFQDE drops then. Counted in QPRDC.
  case noDescriptors
  /// No descriptor, and nothing drops then: the port stands still, and this is the first frame lost. Counted in RXMPC.
  case missed
  /// The port stood still because another frame's queue has no descriptor. Counted in RXMPC.
  case portStalled
  /// The IOMMU refused; the queue stands still until the card is reset.
  case dmaFault
  /// The queue stood still already.
  case queueFaulted
}

/// What became of a frame.
public enum Arrival: Hashable, Sendable {
  case delivered(queue: Int)
  case dropped(CardDrop, queue: Int?)
  /// Nothing has happened; the wire offers it again when the queue has descriptors.
  case held(queue: Int)
  /// Copied for several pools: the ones (bit p: pool p) that got it, and the ones whose copy was dropped; and which
  /// queue of each pool, by its place in the pool: RSS gives all the same number, of which a pool with fewer queues
  /// uses the low bits.
  case replicated(delivered: UInt64, dropped: UInt64, queueInPool: Int)
}

/// A receive queue as the engine sees it: its registers, decoded, and its place in the ring.
///
/// `@safe`: its pointers are unsafe to use, and say so at each use.
@safe struct ReceiveQueueState {
  enum Phase: UInt8 { case off, enabling, running, disabling }
  var phase = Phase.off
  /// Takes frames.
  var isRunning = false
  var isLegacy = false
  var dropsWhenEmpty = false
  /// By PFQDE.
  var isDropForced = false
  var stripsTag = false
  /// Not every frame goes the short way.
  var isSpecial = false
  var hasFault = false
  /// Its counters, 0 to 15.
  var statistic: UInt8 = 0
  /// Descriptors.
  var count: UInt32 = 0
  var head: UInt32 = 0
  /// BSIZEPACKET, in bytes.
  var bufferBytes: Int = 0
  var base: UInt64 = 0
  /// The ring in this process, if it lies there in one piece; true as long as the IOMMU's generation.
  var ring: UnsafeMutableRawPointer?
  var generation: UInt64 = .max
  /// RDT.
  var tail: UnsafeMutablePointer<UInt32>?
  /// Write-backs that a fault holds back.
  var heldBack = 0
  /// The bit of its interrupt vector; 0: none.
  var vector: UInt64 = 0

  mutating func reset() {
    let cell = unsafe tail
    self = ReceiveQueueState()
    unsafe tail = cell
  }
}

// MARK: a frame

extension SimulatedCard {
  /// One frame from the wire.
  ///
  /// - Parameter flowControl: the other side stops when it is told to: with no descriptor free, or a queue that is not
  ///   enabled, nothing is lost, and the frame is held, whatever DROP_EN says. Reading "flow control".
  public func receive(_ frame: WireFrame, flowControl: Bool = false) -> Arrival {
    if line.blocked != 0 { return refuse() }
    if line.filtersAreStale { rebuildFilters() }
    let count = unsafe frame.count
    if unsafe count < 60 || frame.badCRC {
      if let arrival = unsafe receiveIrregular(frame, flowControl) { return arrival }
    }
    if let notes = unsafe frame.notes {
      if unsafe notes.pointee.decision.stamp == line.stamp && !frame.badCRC, let n = unsafe acceptDecided(frame.bytes, count, notes) {
        return .delivered(queue: n)
      }
      return unsafe accept(frame.bytes, count, notes.pointee.headers, frame.badCRC, flowControl, notes)
    }
    return unsafe accept(frame.bytes, count, FrameHeaders(parsing: frame.bytes, count: count), frame.badCRC, flowControl, nil)
  }

  @inline(never) private func refuse() -> Arrival {
    if line.isBlocked(.removed) { return .dropped(.removed, queue: nil) }
    if line.isBlocked(.resetting) { return .dropped(.resetting, queue: nil) }
    if line.isBlocked(.linkDown) { return .dropped(.linkDown, queue: nil) }
    if line.isBlocked(.receiveDisabled) { return .dropped(.receiveDisabled, queue: nil) }
    counters.missed &+= 1
    return .dropped(.masterDisabled, queue: nil)
  }

  /// Damaged or short. Nil: goes on like any other.
  @inline(never) private func receiveIrregular(_ frame: WireFrame, _ flowControl: Bool) -> Arrival? {
    let count = unsafe frame.count
    if unsafe frame.badCRC {
      // FCTRL.SBP: bad frames are stored, and marked.
      if count >= 14 && registers[Offset.FCTRL] & 2 != 0 { return nil }
      counters.other(count)
      if count < 60 {
        counters.fragments &+= 1
      } else if count > line.largestFrame {
        counters.jabber &+= 1
      } else {
        counters.crcErrors &+= 1
      }
      return .dropped(.crcError, queue: nil)
    }
    guard count >= 14 else {
      counters.other(count)
      counters.undersize &+= 1
      return .dropped(.undersize, queue: nil)
    }
    guard padsShortFrames else { return nil }
    // The far half of the scratch: the near half is where the frame is put together.
    let padded = unsafe scratch + Self.scratchBytes - 64
    unsafe sl_fill(padded, 0, 60)
    unsafe sl_copy(padded, frame.bytes, count)
    return unsafe accept(
      padded, 60, frame.notes?.pointee.headers ?? FrameHeaders(parsing: padded, count: 60), false, flowControl, nil)
  }

  /// A frame of which the filters have decided before, with what is usual: its queue runs and has a descriptor, it fits that,
  /// and ring and buffer each lie in one piece here. Exactly what `accept` does; anything else is `accept`'s.
  @inline(__always) private func acceptDecided(_ bytes: UnsafeRawPointer, _ count: Int, _ notes: UnsafeMutablePointer<FrameNotes>) -> Int? {
    let decision = unsafe notes.pointer(to: \.decision).unsafelyUnwrapped
    let n = unsafe decision.pointee.steering.queue
    let queue = unsafe receiveQueues + n
    let (head, size) = unsafe (queue.pointee.head, queue.pointee.count)
    guard line.stalledQueue < 0, unsafe queue.pointee.isRunning && !queue.pointee.isSpecial && !line.isSpecial,
      unsafe count &+ 4 <= queue.pointee.bufferBytes, unsafe queue.pointee.generation == dma.generation
    else { return nil }
    let tail = unsafe sl_load32_acquire(queue.pointee.tail.unsafelyUnwrapped)
    guard tail != head, tail < size, let ring = unsafe queue.pointee.ring else { return nil }
    let descriptor = unsafe ring + Int(head) &* 16
    guard let target = unsafe dma.translate(sl_load64(descriptor), count: count, access: writeAccess) else { return nil }
    unsafe prefetch(ring, head, size)
    if !line.leavesPayload { unsafe sl_copy(target, bytes, count) }
    unsafe sl_store64(descriptor, decision.pointee.steering.word)
    unsafe sl_store64_release(descriptor + 8, decision.pointee.status | UInt64(count) << 32)
    let next = head &+ 1
    unsafe queue.pointee.head = next == size ? 0 : next
    if unsafe decision.pointee.steering.flowLookup != .none { counters.count(unsafe decision.pointee.steering.flowLookup) }
    counters.good(count, unsafe notes.pointee.headers.flags)
    filterCounters.count(unsafe decision.pointee.place, count)
    if unsafe decision.pointee.steering.filter != 0 { filterCounters.count(unsafe decision.pointee.steering.filter, count) }
    unsafe stored(queue, n, count)
    return n
  }

  @inline(never) private func accept(
    _ bytes: UnsafeRawPointer, _ count: Int, _ headers: FrameHeaders, _ badCRC: Bool, _ flowControl: Bool,
    _ notes: UnsafeMutablePointer<FrameNotes>?
  ) -> Arrival {
    let isTagged = headers.flags.contains(.tagged)
    if count > line.largestFrame &+ (isTagged ? 4 : 0) || count > 16_000 {
      counters.other(count)
      counters.oversize &+= 1
      return .dropped(.oversize, queue: nil)
    }
    let choice = filters.pools(headers, registers)
    if choice.pools == 0 {
      counters.other(count)
      filterCounters.count(choice.place, count)
      return .dropped(.noPool, queue: nil)
    }
    if line.stalledQueue >= 0, let arrival = waitForStalledQueue(headers, count, flowControl) { return arrival }
    if choice.pools & (choice.pools &- 1) != 0 {
      return unsafe replicate(bytes, count, headers, choice, badCRC, flowControl)
    }
    let steering = unsafe steer(bytes, headers, choice.pools.trailingZeroBitCount)
    if let notes = unsafe notes, !badCRC {
      unsafe notes.pointee.decision = FilterDecision(
        stamp: line.stamp, steering: steering, place: choice.place,
        status: status(headers, steering, inexact: choice.isInexact) | Status.endOfPacket)
    }
    let n = steering.queue
    let room = roomInQueue(n, count, headers)
    if room != .free {
      return noRoom(n, room, steering, headers, count, flowControl, choice.place)
    }
    counters.good(count, headers.flags)
    filterCounters.count(choice.place, count)
    if steering.filter != 0 { filterCounters.count(steering.filter, count) }
    let written = unsafe place(bytes, count, headers, n, steering, inexact: choice.isInexact, badCRC: badCRC)
    if written { return .delivered(queue: n) }
    return .dropped(line.isBlocked(.removed) ? .removed : .dmaFault, queue: n)
  }

  /// One copy a pool. 82599 datasheet 7.10.3.4. Reading "replication".
  @inline(never) private func replicate(
    _ bytes: UnsafeRawPointer, _ count: Int, _ headers: FrameHeaders, _ choice: CardFilters.Choice, _ badCRC: Bool,
    _ flowControl: Bool
  ) -> Arrival {
    if flowControl {
      var pools = choice.pools
      while pools != 0 {
        let steering = unsafe steer(bytes, headers, pools.trailingZeroBitCount)
        let room = roomInQueue(steering.queue, count, headers)
        if room == .none || room == .disabled && !steering.isDropAction { return .held(queue: steering.queue) }
        pools &= pools &- 1
      }
    }
    counters.good(count, headers.flags)
    filterCounters.count(choice.place, count)
    copyRecord.clear()
    let done = unsafe deliver(bytes, count, headers, to: choice.pools, inexact: choice.isInexact, badCRC: badCRC)
    return .replicated(delivered: done.delivered, dropped: done.dropped, queueInPool: done.queueInPool)
  }

  /// A copy for each pool.
  func deliver(
    _ bytes: UnsafeRawPointer, _ count: Int, _ headers: FrameHeaders, to targets: UInt64, inexact: Bool,
    badCRC: Bool = false, switched: Bool = false
  ) -> (delivered: UInt64, dropped: UInt64, queueInPool: Int) {
    var (pools, delivered, dropped, queueInPool) = (targets, UInt64(0), UInt64(0), 0)
    while pools != 0 {
      let pool = pools & ~(pools &- 1)
      var steering = unsafe steer(bytes, headers, pools.trailingZeroBitCount)
      if switched { steering.status |= Steering.switched } else if steering.filter != 0 { filterCounters.count(steering.filter, count) }
      pools &= pools &- 1
      let n = steering.queue
      queueInPool |= n & (1 << (unsafe filters.current.pointee.poolShift) - 1)
      var drop: CardDrop?
      let room = roomInQueue(n, count, headers)
      if room == .free {
        let written = unsafe place(bytes, count, headers, n, steering, inexact: inexact, badCRC: badCRC)
        if !written { drop = line.isBlocked(.removed) ? .removed : .dmaFault }
      } else {
        countLoss(n, room)
        drop = reason(n, room, isDropAction: steering.isDropAction)
      }
      copyRecord.add(queue: n, drop: drop)
      if drop == nil { delivered |= pool } else { dropped |= pool }
    }
    return (delivered, dropped, queueInPool)
  }

  enum Room: UInt8 { case free, none, disabled, faulted }

  /// Whether a frame finds its descriptors in a queue.
  @inline(__always) private func roomInQueue(_ n: Int, _ count: Int, _ headers: FrameHeaders) -> Room {
    let queue = unsafe receiveQueues + n
    guard unsafe queue.pointee.isRunning else { return unsafe queue.pointee.hasFault ? .faulted : .disabled }
    let tail = unsafe sl_load32_acquire(queue.pointee.tail.unsafelyUnwrapped)
    let head = unsafe queue.pointee.head
    if tail == head { return .none }
    let size = unsafe queue.pointee.count
    if tail >= size { return badTail(n) }
    let bufferBytes = unsafe queue.pointee.bufferBytes
    // Fits in any case: with the check sequence, and with its tag.
    if count &+ 4 <= bufferBytes { return .free }
    let free = Int(tail > head ? tail &- head : tail &+ size &- head)
    let length = unsafe storedCount(queue, count, headers)
    return (length &+ bufferBytes &- 1) / bufferBytes <= free ? .free : .none
  }

  /// Bytes of a frame in memory: with its check sequence or not, with its tag or not.
  private func storedCount(
    _ queue: UnsafeMutablePointer<ReceiveQueueState>, _ count: Int, _ headers: FrameHeaders
  ) -> Int {
    let stripsTag = unsafe queue.pointee.stripsTag && headers.flags.contains(.tagged)
    return count + (line.deliversCheckSequence ? 4 : 0) - (stripsTag ? 4 : 0)
  }

  @inline(never) private func badTail(_ n: Int) -> Room {
    failReceiveQueue(n, .misuse(.badReceiveTail(queue: n)))
    note(.badReceiveTail(queue: n))
    return .faulted
  }

  @inline(never) private func noRoom(
    _ n: Int, _ room: Room, _ steering: Steering, _ headers: FrameHeaders, _ count: Int, _ flowControl: Bool, _ place: Int
  ) -> Arrival {
    if flowControl && (room == .none || room == .disabled && !steering.isDropAction) { return .held(queue: n) }
    counters.good(count, headers.flags)
    filterCounters.count(place, count)
    if steering.filter != 0 { filterCounters.count(steering.filter, count) }
    countLoss(n, room)
    return .dropped(reason(n, room, isDropAction: steering.isDropAction), queue: n)
  }

  private func reason(_ n: Int, _ room: Room, isDropAction: Bool) -> CardDrop {
    switch room {
    case .disabled: isDropAction ? .filtered : .queueDisabled
    case .faulted: .queueFaulted
    default: unsafe receiveQueues[n].dropsWhenEmpty ? .noDescriptors : .missed
    }
  }

  private func countLoss(_ n: Int, _ room: Room) {
    if unsafe room == .none && !receiveQueues[n].dropsWhenEmpty {
      // The frame waits in the packet buffer for this queue, and every later one behind it. Reading "packet buffer".
      line.stalledQueue = Int32(n)
      counters.missed &+= 1
      raiseOther(.receiveMiss)
    } else {
      unsafe counters.queueDropped[Int(receiveQueues[n].statistic)] &+= 1
    }
  }

  /// Nil: the queue that the port waited for has descriptors again, or is no longer enabled.
  @inline(never) func waitForStalledQueue(_ headers: FrameHeaders, _ count: Int, _ flowControl: Bool) -> Arrival? {
    let n = Int(line.stalledQueue)
    let queue = unsafe receiveQueues + n
    let waits = unsafe queue.pointee.isRunning && !queue.pointee.dropsWhenEmpty
      && sl_load32_acquire(queue.pointee.tail.unsafelyUnwrapped) == queue.pointee.head
    guard waits else {
      line.stalledQueue = -1
      return nil
    }
    if flowControl { return .held(queue: n) }
    counters.good(count, headers.flags)
    counters.missed &+= 1
    return .dropped(.portStalled, queue: n)
  }
}

// MARK: into memory

/// Bits of a receive descriptor's status. 82599 datasheet 7.1.6.2.
private enum Status {
  static let done: UInt64 = 1
  static let endOfPacket: UInt64 = 1 << 1
  static let tagStripped: UInt64 = 1 << 3
  static let inexact: UInt64 = 1 << 7
  /// RXE: any error that the MAC found.
  static let macError: UInt64 = 1 << 29
}

extension SimulatedCard {
  /// False: the IOMMU refused, and the queue stands still.
  @inline(__always) private func place(
    _ bytes: UnsafeRawPointer, _ count: Int, _ headers: FrameHeaders, _ n: Int, _ steering: Steering, inexact: Bool,
    badCRC: Bool
  ) -> Bool {
    let queue = unsafe receiveQueues + n
    let status = status(headers, steering, inexact: inexact)
    if unsafe line.deliversCheckSequence || badCRC || queue.pointee.stripsTag || queue.pointee.isLegacy
      || line.longWriteBack || count > queue.pointee.bufferBytes
    {
      return unsafe placeTheLongWay(bytes, count, headers, n, steering, status, badCRC)
    }
    if unsafe queue.pointee.generation != dma.generation { locateRing(n) }
    guard let ring = unsafe queue.pointee.ring else {
      return unsafe placeTheLongWay(bytes, count, headers, n, steering, status, badCRC)
    }
    let head = unsafe queue.pointee.head
    let descriptor = unsafe ring + Int(head) &* 16
    let buffer = unsafe sl_load64(descriptor)
    guard let target = unsafe dma.translate(buffer, count: count, access: writeAccess) else {
      return unsafe placeTheLongWay(bytes, count, headers, n, steering, status, badCRC)
    }
    unsafe prefetch(ring, head, queue.pointee.count)
    if !line.leavesPayload { unsafe sl_copy(target, bytes, count) }
    unsafe sl_store64(descriptor, steering.word)
    unsafe sl_store64_release(
      descriptor + 8, status | Status.endOfPacket | UInt64(count) << 32)
    let next = head &+ 1
    unsafe queue.pointee.head = next == queue.pointee.count ? 0 : next
    unsafe stored(queue, n, count)
    return true
  }

  @inline(__always) private func status(_ headers: FrameHeaders, _ steering: Steering, inexact: Bool) -> UInt64 {
    let raw = headers.flags.rawValue
    // The parser's bits lie as the descriptor wants them.
    let status = UInt64(raw >> 12 & 0x70 | raw & 0xC000_0000) | UInt64(steering.status) | Status.done
    return inexact ? status | Status.inexact : status
  }

  /// Counts a frame that was written back, and tells of it.
  @inline(__always) private func stored(_ queue: UnsafeMutablePointer<ReceiveQueueState>, _ n: Int, _ count: Int) {
    unsafe counters.queue(Int(queue.pointee.statistic), count)
    let vector = unsafe queue.pointee.vector
    if vector != 0 && (interrupts.causes & vector == 0 || interrupts.mask & vector != 0) { raiseReceive(n) }
    line.writtenBack &+= 1
  }

  /// A frame's first bytes go to lines that the guest's processor has had last. A card's writes do not wait for these one
  /// after the other; so that the model's do not either, they are asked for some frames ahead.
  @inline(__always) private func prefetch(_ ring: UnsafeMutableRawPointer, _ head: UInt32, _ count: UInt32) {
    let ahead = head &+ 16 < count ? head &+ 16 : head &+ 16 &- count
    // Past the tail there is no address, and nothing is found.
    if ahead < count, let place = unsafe dma.hint(sl_load64(ring + Int(ahead) &* 16)) {
      unsafe sl_prefetch_write(place)
      // Behind a header the shortest frame ends in the next line.
      unsafe sl_prefetch_write(place + 64)
    }
  }

  /// A frame comes soon, and none before it to its queue: asks for where it will be written. With many queues in turn that
  /// is out of the cache, and one store after the other would wait for its line. Nothing of the card changes.
  @inline(__always) public func expect(_ frame: WireFrame) {
    guard let notes = unsafe frame.notes, unsafe notes.pointee.decision.stamp == line.stamp else { return }
    let queue = unsafe receiveQueues + notes.pointee.decision.steering.queue
    guard unsafe queue.pointee.generation == dma.generation, let ring = unsafe queue.pointee.ring else { return }
    let (head, size) = unsafe (queue.pointee.head, queue.pointee.count)
    guard head < size, let place = unsafe dma.hint(sl_load64(ring + Int(head) &* 16), walks: true) else { return }
    // A frame begins inside a line.
    var offset = 0
    let end = unsafe min(frame.count, queue.pointee.bufferBytes) &+ 16
    while offset < end {
      unsafe sl_prefetch_write(place + offset)
      offset &+= 64
    }
  }

  /// Frames that take several descriptors or change on their way, rings and buffers that are not in one piece here, and
  /// write-backs with a fault.
  @inline(never) private func placeTheLongWay(
    _ bytes: UnsafeRawPointer, _ count: Int, _ headers: FrameHeaders, _ n: Int, _ steering: Steering, _ status: UInt64,
    _ badCRC: Bool
  ) -> Bool {
    let queue = unsafe receiveQueues + n
    var status = status | (badCRC ? Status.macError : 0)
    var tag: UInt64 = 0
    var length = count
    if unsafe queue.pointee.stripsTag && headers.flags.contains(.tagged) {
      unsafe sl_copy(scratch, bytes, 12)
      unsafe sl_copy(scratch + 12, bytes + 16, count - 16)
      length -= 4
      status |= Status.tagStripped
      tag = UInt64(headers.tag)
    } else {
      unsafe sl_copy(scratch, bytes, count)
    }
    if line.deliversCheckSequence {
      let sequence = unsafe CheckSequence.of(bytes, count) ^ (badCRC ? 1 : 0)
      unsafe (scratch + length).storeBytes(of: sequence.littleEndian, as: UInt32.self)
      length += 4
    }
    let bufferBytes = unsafe queue.pointee.bufferBytes
    var offset = 0
    while offset < length {
      // By a fault, the card leaves the bus between two descriptors.
      if line.isBlocked(.removed) { return false }
      let piece = min(length - offset, bufferBytes)
      let isLast = offset + piece == length
      let address = unsafe queue.pointee.base &+ UInt64(queue.pointee.head) &* 16
      var buffer: UInt64 = 0
      guard unsafe dma.read(address, into: &buffer, count: 8) else {
        return failDMA(n, .descriptorRead(address: address))
      }
      guard unsafe dma.write(buffer, from: scratch + offset, count: piece) else {
        return failDMA(n, .bufferWrite(address: buffer, count: piece))
      }
      let words: (UInt64, UInt64)
      if unsafe queue.pointee.isLegacy {
        // Length, checksum, status, errors, tag. 82599 datasheet 7.1.5.
        let end = isLast ? status & 0xF8 | (status >> 30 & 3) << 14 | Status.endOfPacket : 0
        let errors = isLast && badCRC ? UInt64(1) << 8 : 0
        words = (buffer, UInt64(piece) | (Status.done | end & 0xFF) << 32 | (end & 0xC000 | errors) << 32 | tag << 48)
      } else {
        let end = isLast ? status | Status.endOfPacket : Status.done
        words = (steering.word, end | UInt64(piece) << 32 | (isLast ? tag << 48 : 0))
      }
      let next = unsafe queue.pointee.head &+ 1
      unsafe queue.pointee.head = next == queue.pointee.count ? 0 : next
      guard writeBack(n, at: address, words) else { return failDMA(n, .descriptorWrite(address: address)) }
      offset += piece
    }
    unsafe counters.queue(Int(queue.pointee.statistic), count)
    if unsafe queue.pointee.vector != 0 { raiseReceive(n) }
    return true
  }

  private func failDMA(_ n: Int, _ fault: CardQueueFault) -> Bool {
    failReceiveQueue(n, fault)
    unsafe counters.queueDropped[Int(receiveQueues[n].statistic)] &+= 1
    raiseOther(.descriptorHandler)
    return false
  }

  func failReceiveQueue(_ n: Int, _ fault: CardQueueFault) {
    if queueFaults[n] == nil { queueFaults[n] = fault }
    unsafe receiveQueues[n].isRunning = false
    unsafe receiveQueues[n].hasFault = true
  }

  /// Looks the ring up again: the IOMMU's tables have changed.
  @inline(never) private func locateRing(_ n: Int) {
    let queue = unsafe receiveQueues + n
    unsafe queue.pointee.generation = dma.generation
    unsafe queue.pointee.ring = dma.translate(
      queue.pointee.base, count: Int(queue.pointee.count) * 16, access: [.read, .write])
  }
}

// MARK: write-back, and what goes wrong with it

extension SimulatedCard {
  /// A descriptor that is written back later.
  struct HeldWriteBack {
    let queue: Int
    let address: UInt64
    let words: (UInt64, UInt64)
    /// The first of a pair, whose second is there already.
    var isOvertaken = false
  }

  /// The first word, then the one with DD.
  private func store(_ address: UInt64, _ words: (UInt64, UInt64)) -> Bool {
    var (first, second) = words
    guard let cell = unsafe dma.translate(address, count: 16, access: .write) else {
      return unsafe dma.write(address, from: &first, count: 8) && dma.write(address &+ 8, from: &second, count: 8)
    }
    unsafe sl_store64(cell, first)
    unsafe sl_store64_release(cell + 8, second)
    return true
  }

  private func writeBack(_ n: Int, at address: UInt64, _ words: (UInt64, UInt64)) -> Bool {
    line.writtenBack &+= 1
    guard line.longWriteBack else { return store(address, words) }
    var words = words
    if faults.lengthError != 0 && line.writtenBack % UInt64(max(faults.lengthErrorEvery, 1)) == 0 {
      let length = UInt16(truncatingIfNeeded: Int(words.1 >> 32 & 0xFFFF) + faults.lengthError)
      words.1 = words.1 & ~(0xFFFF << 32) | UInt64(length) << 32
    }
    if faults.writeBackBatch > 1 || faults.writesBackOutOfOrder {
      if !heldWriteBacks.contains(where: { $0.queue == n }) { schedule(.writeBack(n), after: faults.writeBackDelay) }
      heldWriteBacks.append(HeldWriteBack(queue: n, address: address, words: words))
      unsafe receiveQueues[n].heldBack += 1
      if unsafe receiveQueues[n].heldBack >= max(faults.writeBackBatch, faults.writesBackOutOfOrder ? 2 : 1) {
        if faults.writesBackOutOfOrder { writeBackSeconds(n) } else { flushWriteBack(n) }
      }
    } else if !store(address, words) {
      return false
    }
    if let last = faults.removedAfterDescriptors, line.writtenBack >= last {
      flushWriteBack(n)
      remove()
    }
    return true
  }

  /// Writes back what a fault has held.
  func flushWriteBack(_ n: Int) {
    forget(.writeBack(n))
    let mine = heldWriteBacks.filter { $0.queue == n }
    guard !mine.isEmpty else { return }
    heldWriteBacks.removeAll { $0.queue == n }
    unsafe receiveQueues[n].heldBack = 0
    storeAll(mine, n)
  }

  /// Writes back the second of each pair, and what an earlier call has left; the first ones wait for the next call, or
  /// for the delay to pass.
  private func writeBackSeconds(_ n: Int) {
    let mine = heldWriteBacks.filter { $0.queue == n }
    let fresh = mine.filter { !$0.isOvertaken }
    heldWriteBacks.removeAll { $0.queue == n }
    unsafe receiveQueues[n].heldBack = 0
    var ready = mine.filter(\.isOvertaken)
    for (index, one) in fresh.enumerated() {
      if index % 2 == 0 && index + 1 < fresh.count {
        heldWriteBacks.append(HeldWriteBack(queue: n, address: one.address, words: one.words, isOvertaken: true))
      } else {
        ready.append(one)
      }
    }
    forget(.writeBack(n))
    schedule(.writeBack(n), after: faults.writeBackDelay)
    storeAll(ready, n)
  }

  private func storeAll(_ writeBacks: [HeldWriteBack], _ n: Int) {
    guard isBusMaster else { return }
    for one in writeBacks where !store(one.address, one.words) {
      _ = failDMA(n, .descriptorWrite(address: one.address))
      return
    }
  }

  /// A frame that is in the pipeline when its queue is disabled.
  func holdLateDMA(_ n: Int) {
    guard let delay = faults.lateDMAAfterDisable, !faults.neverDisables else { return }
    let queue = unsafe receiveQueues + n
    guard unsafe queue.pointee.count > 0, unsafe sl_load32_acquire(queue.pointee.tail.unsafelyUnwrapped) != queue.pointee.head
    else { return }
    let address = unsafe queue.pointee.base &+ UInt64(queue.pointee.head) &* 16
    var buffer: UInt64 = 0
    guard unsafe dma.read(address, into: &buffer, count: 8) else { return }
    schedule(.lateDMA(n, buffer: buffer, descriptor: address), after: faults.disableLatency + delay)
  }

  func lateDMA(_ n: Int, buffer: UInt64, descriptor: UInt64) {
    unsafe sl_fill(scratch, 0xA5, 60)
    guard isBusMaster else { return }
    guard unsafe dma.write(buffer, from: scratch, count: 60) else { return }
    _ = store(descriptor, (0, Status.done | Status.endOfPacket | 60 << 32))
  }
}

/// The Ethernet check sequence, for frames that keep theirs. IEEE 802.3, 3.2.9.
enum CheckSequence {
  static func of(_ bytes: UnsafeRawPointer, _ count: Int) -> UInt32 {
    var value: UInt32 = .max
    for index in 0..<count {
      value ^= UInt32(unsafe bytes.load(fromByteOffset: index, as: UInt8.self))
      for _ in 0..<8 { value = value & 1 != 0 ? value >> 1 ^ 0xEDB8_8320 : value >> 1 }
    }
    return ~value
  }
}
