public import Bus
internal import CLinux
public import GuestMemory
public import NIC
public import Virtio

/// How a path treats a buffer that could be lent, and one that could not.
///
/// No raw strings: a comparison of two modes would compare these, on the path.
@frozen public enum PathMode: UInt8, CaseIterable, Sendable {
  /// Lend what can be lent, copy the rest and count the reason.
  case auto
  /// Lend everything, or stop.
  case required
  /// Copy everything.
  case copy

  /// The value of `datapath` in a configuration and of `--mode`.
  public var name: String {
    switch self {
    case .auto: "auto"
    case .required: "required"
    case .copy: "copy"
    }
  }

  /// - Returns: nil if no mode has this name.
  public init?(name: String) {
    guard let mode = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = mode
  }
}

/// Everything of a receive path that does not depend on the kind of card: the guest's ring and memory, the ledger,
/// the host buffers and the counters. The long ways are here, out of line; the short way is in `ReceivePath`.
///
/// What is called for a frame is mutating, whether it changes anything or not: this compiler copies the whole of a value
/// that cannot be copied to lend it to a call that is not inlined.
public struct ReceiveCore: ~Copyable {
  @usableFromInline var virtqueue: Virtqueue
  @usableFromInline var memory: MemoryView
  @usableFromInline var ledger: Ledger
  @usableFromInline var pool: BouncePool
  @usableFromInline var chain: DescriptorChain
  @usableFromInline let windowBase: UInt64
  /// The same for what lies behind a header.
  @usableFromInline let frameBase: UInt64
  /// Bytes of a buffer that can be lent: the header, and the largest frame that the card accepts.
  @usableFromInline let need: UInt32
  /// Bytes of such a frame.
  @usableFromInline let mostFrameBytes: UInt32
  /// True if everything is copied: `PathMode.copy`.
  @usableFromInline let copiesAll: Bool
  /// True if the path stops instead of copying: `PathMode.required`.
  private let requiresLending: Bool
  @usableFromInline let merges: Bool
  /// NetHeader's low word for a frame whose checksums the card found right.
  @usableFromInline let checkedWord: UInt64
  let counters: ReceiveCounters
  @usableFromInline let tally: ReceiveCounters.Writer
  /// Inside a frame that came in pieces.
  @usableFromInline var isDiscarding = false
  @usableFromInline var stopReason: StopReason?
  /// Frames that left the path, delivered or dropped.
  @usableFromInline var settledFrames: UInt64
  let drops: DropLog
  @usableFromInline let scratch: HeaderScratch
  private let dropWriter: DropLog.Writer
  private var log: DirtyLog?
  private var marks: PageMarks
  /// Pages that are written have to be marked.
  @usableFromInline var isLogging = false

  init(
    virtqueue: consuming Virtqueue, window: DMAWindow, pool: consuming BouncePool, counters: ReceiveCounters,
    drops: DropLog, settledFrames: UInt64, slotCount: Int, largestFrame: Int, mode: PathMode
  ) {
    let size = Int(virtqueue.size)
    let features = virtqueue.features
    marks = PageMarks(layout: virtqueue.layout)
    self.virtqueue = virtqueue
    memory = MemoryView(window.map)
    self.pool = pool
    chain = DescriptorChain(queueSize: size)
    windowBase = window.base.rawValue
    frameBase = window.base.rawValue + UInt64(NetHeader.byteCount)
    need = NetHeader.byteCount + UInt32(largestFrame)
    mostFrameBytes = UInt32(largestFrame)
    (copiesAll, requiresLending) = (mode == .copy, mode == .required)
    merges = features.contains(.mergeableBuffers)
    ledger = Ledger(queueSize: size, slotCount: slotCount, need: need, merges: merges)
    checkedWord = features.contains(.guestChecksum) ? NetHeader(isChecksumValid: true).lowWord : 0
    self.counters = counters
    tally = counters.writer
    self.settledFrames = settledFrames
    self.drops = drops
    dropWriter = drops.writer
    scratch = HeaderScratch()
  }

  /// What to do with a head that was just taken.
  @usableFromInline enum Entry {
    /// It can be posted there: `enterLent` if it was, else `bounce`.
    case lend(IOVA)
    /// It waits to be copied into.
    case wait
    case stop
  }

  /// Turns that have gone the long way; in how many of them since the last new buffer there was only a hope to post, and
  /// the last of those.
  @usableFromInline var turn: UInt32 = 0
  @usableFromInline var hopeTurns = 0
  @usableFromInline var hopeTurn: UInt32 = 0
  /// So many turns without a new buffer before the card is given a slot with too few bytes behind it. They have next to
  /// nothing to do: together they are some milliseconds, in which a guest that runs posts more.
  var hopePatience = 16384

  /// Descriptors that one poll walks in chains, each way: then it ends, with at least one buffer or frame more than before,
  /// and the next goes on. A poll counts frames, and a frame may be 1,024 descriptors. With the last chain, which may begin with
  /// one left, that is at most 1,535 each way: a table's are 16 kB, and each is looked up in O(log n). Buffers of one descriptor
  /// that are lent never come here.
  public static var descriptorBudget: Int { @inlinable get { 512 } }
  /// What is left of it in this poll, on the way out and on the way back. May fall below zero by one buffer or frame.
  @usableFromInline var refillBudget = 0
  @usableFromInline var completionBudget = 0

  @inlinable var isPlain: Bool { ledger.isPlain && !copiesAll }

  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func stop(_ reason: StopReason) {
    if case .none = stopReason { stopReason = reason }
  }

  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func stopForFault() {
    if let fault = virtqueue.fault { stop(.virtqueue(fault)) }
  }

  /// Counts a poll that ended at its budget.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func countCut() { tally.add(.cutPolls, 1) }

  // MARK: Out to the card, the long way

  /// Takes the next buffer, reads its whole chain, and finds out whether a frame can land in it.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func enter(_ buffer: AvailableBuffer) -> Entry {
    guard let head = virtqueue.takeChain(buffer, .writable, into: &chain, in: &memory) else { return .stop }
    refillBudget -= chain.work
    let byteCount = UInt32(min(chain.byteCount, UInt64(UInt32.max)))
    taken = head
    guard let (reason, address) = judge(byteCount) else { return .stop }
    if let address {
      // The run must be covered by slots before something is posted behind it.
      let run = ledger.runCapacity()
      if run.frames == ledger.runSlots && !run.hasRest {
        runAddress = address
        return .lend(address)
      }
    }
    return bounce(reason) ? .wait : .stop
  }

  /// Enters the buffer that was just taken, and its slot: it was posted.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func enterLent() {
    unsafe ledger.enterLent(
      chain.piece(0).base, byteCount: NetHeader.byteCount + runByteCount, id: taken,
      frame: GuestAddress(runAddress.rawValue &- windowBase), isApart: runIsApart)
    ledger.closeRun()
  }

  /// Enters the buffer that was just taken as one that waits to be copied into; false if the path must stop.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func bounce(_ reason: BounceReason) -> Bool {
    if requiresLending {
      stop(.cannotLend(reason))
      return false
    }
    endHope()
    unsafe ledger.enterWaiting(
      chain.piece(0).base, byteCount: UInt32(min(chain.byteCount, UInt64(UInt32.max))), id: taken,
      kind: chain.count == 1 ? .piece : .chain, reason: reason, work: chain.work)
    return true
  }

  /// The head that was just taken: its chain is in `chain`.
  private var taken: UInt16 = 0
  /// Where its frame would land.
  private var runAddress = IOVA(0)

  /// Bytes behind the header in the one run that a frame would land in; whether it begins in a piece
  /// of its own. Set by `judge`.
  private var runByteCount: UInt32 = 0
  private var runIsApart = false

  /// Where a frame could land, and else why it cannot. virtio 1.3, 2.7.4: nothing may be assumed of how a driver
  /// splits its buffers.
  private mutating func judge(_ byteCount: UInt32) -> (BounceReason, IOVA?)? {
    if copiesAll { return (.copyMode, nil) }
    if byteCount < need { return (.tooSmall, nil) }
    if chain.crossesRegions { return (.crossesRegions, nil) }
    let header = NetHeader.byteCount
    let first = chain.piece(0)
    // The header must lie in one piece; the frame begins right behind it, there or in the second.
    guard first.count >= header else { return (.scattered, nil) }
    var index = 0
    var start = chain.start(0).rawValue
    var length = UInt64(first.count)
    if first.count == header {
      guard chain.count > 1 else { return (.tooSmall, nil) }
      index = 1
      start = chain.start(1).rawValue
      length = UInt64(chain.piece(1).count)
    } else {
      start += UInt64(header)
      length -= UInt64(header)
    }
    // Pieces that follow one another on the bus are one run.
    while index + 1 < chain.count, chain.start(index + 1).rawValue == start + length, length < UInt64(need) {
      index += 1
      length += UInt64(chain.piece(index).count)
    }
    guard length >= UInt64(need - header) else { return (.scattered, nil) }
    runByteCount = UInt32(min(length, UInt64(UInt32.max - header)))
    // Even where one follows the other on the bus: they may lie in two regions, which do not here.
    runIsApart = first.count == header
    return (.behindSmaller, IOVA(windowBase &+ start))
  }

  /// Whether a slot is out for which there are too few bytes: then more buffers are better taken than left.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func isHoping() -> Bool {
    ledger.waiting > 0 && ledger.runCapacity().frames < ledger.runSlots
  }

  /// How many more bounced slots there can be whose frames what waits can take, whatever their size.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func coveredBounces() -> UInt32 {
    guard ledger.waiting > 0 else { return 0 }
    let frames = ledger.runCapacity().frames
    return frames > ledger.runSlots ? frames - ledger.runSlots : 0
  }

  /// A host buffer for the next bounced slot, if what waits can take its frame.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func nextBounce() -> IOVA? {
    guard ledger.waiting > 0 else { return nil }
    let run = ledger.runCapacity()
    let covered = run.frames > ledger.runSlots
    guard covered || isLastHope(run), let address = pool.take() else { return nil }
    ledger.enterBouncedSlot()
    return address
  }

  /// Too few bytes for the largest frame, nothing else out and nothing more to take: a smaller frame may still come. Not
  /// at once, unless the ring can hold no more: a guest that is busy with what it has just got gives more in a moment, and
  /// then nothing is lost.
  private mutating func isLastHope(_ run: (frames: UInt32, hasRest: Bool)) -> Bool {
    guard run.hasRest, run.frames == 0, ledger.slotCount == 0, virtqueue.pending() == 0 else { return false }
    if hopeTurn != turn { (hopeTurn, hopeTurns) = (turn, hopeTurns + 1) }
    guard hopeTurns > hopePatience || ledger.count >= Int(virtqueue.size) else { return false }
    hopeTurns = 0
    return true
  }

  /// Whether the card has nothing because more buffers are being waited for. If so, the next turn waits no longer.
  mutating func endPatience() -> Bool {
    guard ledger.waiting > 0, ledger.slotCount == 0 else { return false }
    let run = ledger.runCapacity()
    guard run.hasRest, run.frames == 0 else { return false }
    hopeTurns = hopePatience
    return true
  }

  // MARK: Back to the guest, the long way

  /// Settles one completion, whatever its slot; answers how many used elements were put.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func settle(_ completion: Completion) -> UInt16 {
    completionBudget -= 1
    defer { if completion.flags.contains(.isEnd) { settledFrames += 1 } }
    if ledger.takeSlot() { return settleBounced(completion) }
    // What bounced frames left over lies before this buffer, and must go back before it.
    var used: UInt16 = 0
    while ledger.waiting > 0, ledger.isFrontWaiting {
      returnEmpty()
      used &+= 1
    }
    settleLent(completion)
    return used &+ 1
  }

  /// A lent buffer whose slot was taken out already.
  private mutating func settleLent(_ completion: Completion) {
    let entry = unsafe ledger.entries[Int(ledger.front & ledger.entryMask)]
    let verdict = judge(completion)
    // Whatever it is worth, the card has written it.
    if isLogging { logFrame(ledger.front, byteCount: min(completion.byteCount, need - NetHeader.byteCount)) }
    guard verdict == .deliver else {
      count(verdict)
      returnEmpty()
      return
    }
    unsafe storeHeader(entry.base, isChecked: completion.flags.contains(.isChecksumValid), bufferCount: 1)
    if isLogging { unsafe logHost(entry.base, byteCount: Int(NetHeader.byteCount)) }
    virtqueue.put(unsafe entry.id, byteCount: completion.byteCount &+ NetHeader.byteCount)
    ledger.removeFront()
    tally.add(.lentFrames, 1)
    tally.add(.lentBytes, UInt64(completion.byteCount))
  }

  /// Takes the oldest `count` lent buffers out of the ledger, each of which was put with one frame in it.
  @inlinable @inline(__always) mutating func settleLent(_ count: UInt32) {
    ledger.front = ledger.front &+ count
    ledger.slotFront = ledger.slotFront &+ count
    virtqueue.countPut(UInt16(truncatingIfNeeded: count))
    settledFrames &+= UInt64(count)
  }

  private enum Verdict: Equatable {
    case deliver
    case drop(PathDrop)
    /// Part of a frame that is dropped, and counted, with its last part.
    case part
  }

  /// Whether a completion is a frame to deliver. A frame in pieces is dropped whole: its rest is not a new frame.
  private mutating func judge(_ completion: Completion) -> Verdict {
    guard completion.flags.contains(.isEnd) else {
      isDiscarding = true
      return .part
    }
    if isDiscarding {
      isDiscarding = false
      return .drop(.damaged)
    }
    if virtqueue.isFaulted { return .drop(.ringViolation) }
    if completion.flags.contains(.isDamaged) { return .drop(.damaged) }
    // However large the buffer is: the card does not write more, so the guest would be told of bytes that nobody wrote.
    if completion.byteCount > need - NetHeader.byteCount { return .drop(.badLength) }
    return .deliver
  }

  private mutating func count(_ verdict: Verdict) {
    if case .drop(let reason) = verdict { drop(reason) }
  }

  mutating func drop(_ reason: PathDrop) {
    tally.add(reason)
    dropWriter.append(settledFrames)
  }

  private mutating func returnEmpty() {
    let id = unsafe ledger.entries[Int(ledger.front & ledger.entryMask)].id
    virtqueue.put(id, byteCount: 0)
    ledger.removeFront()
    tally.add(.returnedEmpty, 1)
  }

  private mutating func storeHeader(_ base: UnsafeMutableRawPointer, isChecked: Bool, bufferCount: UInt16) {
    unsafe sl_store64(base, isChecked ? checkedWord : 0)
    unsafe sl_store32(base + 8, NetHeader(bufferCount: bufferCount).highWord)
  }

  /// Copies a frame out of the oldest host buffer into as many of the oldest guest buffers as it fills.
  /// virtio 1.3, 5.1.6.4.1: all of them but the last are filled to their end, and only the first has a header.
  private mutating func settleBounced(_ completion: Completion) -> UInt16 {
    defer { pool.release() }
    let verdict = judge(completion)
    guard verdict == .deliver else {
      count(verdict)
      return 0
    }
    let total = UInt64(completion.byteCount) + UInt64(NetHeader.byteCount)
    // How many buffers it takes.
    var count: UInt16 = 0
    var capacity: UInt64 = 0
    // Chains are read again when they are filled.
    var work = 0
    var index = ledger.front
    while capacity < total {
      guard index != ledger.tail, ledger.isWaiting(index),
        merges || count == 0
      else {
        completionBudget -= work
        drop(merges ? .insufficientBuffers : .tooLong)
        return 0
      }
      capacity += UInt64(unsafe ledger.entries[Int(index & ledger.entryMask)].byteCount)
      work += ledger.work(index)
      count += 1
      index = index &+ 1
    }
    completionBudget -= work
    guard work <= DescriptorChain.largestCount else {
      virtqueue.poison(.chainTooLong(head: unsafe ledger.entries[Int(ledger.front & ledger.entryMask)].id))
      drop(.ringViolation)
      return 0
    }
    let reason = unsafe ledger.entries[Int(ledger.front & ledger.entryMask)].reason
    let source = unsafe pool.oldest(byteCount: Int(completion.byteCount))
    let header = NetHeader(
      isChecksumValid: checkedWord != 0 && completion.flags.contains(.isChecksumValid), bufferCount: count)
    var written = 0
    for n in 0..<count {
      let filled = unsafe fillFront(header: n == 0 ? header : nil, from: source, at: written)
      guard let filled else {
        drop(.ringViolation)
        return 0
      }
      let id = unsafe ledger.entries[Int(ledger.front & ledger.entryMask)].id
      virtqueue.put(id, byteCount: UInt32(filled))
      ledger.removeFront()
      written += n == 0 ? filled - Int(NetHeader.byteCount) : filled
    }
    tally.add(.bouncedFrames, 1)
    tally.add(.bouncedBytes, UInt64(completion.byteCount))
    tally.add(BounceReason(rawValue: Int(reason)) ?? .tooSmall)
    return count
  }

  /// Buffers came: what was hoped for is there.
  @inlinable mutating func endHope() {
    hopeTurns = 0
    hopeTurn = turn &- 1
  }

  /// Fills the oldest guest buffer: a header, if given, then the frame from byte `start` on. Answers the bytes
  /// written; nil, and a fault, if the driver changed its chain for a worse one.
  private mutating func fillFront(
    header: NetHeader?, from frame: UnsafeMutableRawBufferPointer, at start: Int
  ) -> Int? {
    let entry = unsafe ledger.entries[Int(ledger.front & ledger.entryMask)]
    if unsafe entry.kind == .piece {
      let room = Int(unsafe entry.byteCount)
      var offset = 0
      if let header {
        unsafe storeHeader(entry.base, isChecked: header.isChecksumValid, bufferCount: header.bufferCount)
        offset = Int(NetHeader.byteCount)
      }
      let count = min(room - offset, frame.count - start)
      unsafe sl_copy(entry.base + offset, frame.baseAddress! + start, count)
      if isLogging { unsafe logHost(entry.base, byteCount: offset + count) }
      return offset + count
    }
    // Read again, and checked again: what counts is what is written to now.
    guard unsafe virtqueue.readOldest(entry.id, .writable, into: &chain, in: &memory) else { return nil }
    guard unsafe min(chain.byteCount, UInt64(UInt32.max)) == UInt64(entry.byteCount) else {
      virtqueue.poison(.malformedChain(head: unsafe entry.id))
      return nil
    }
    var headerLeft = 0
    if let header {
      unsafe storeHeader(scratch.base, isChecked: header.isChecksumValid, bufferCount: header.bufferCount)
      headerLeft = Int(NetHeader.byteCount)
    }
    var filled = 0
    var next = start
    var n = 0
    while n < chain.count, headerLeft > 0 || next < frame.count {
      let piece = chain.piece(n)
      var used = 0
      if headerLeft > 0 {
        let count = min(Int(piece.count), headerLeft)
        let from = unsafe scratch.base + (Int(NetHeader.byteCount) - headerLeft)
        unsafe sl_copy(piece.base, from, count)
        headerLeft -= count
        used = count
      }
      let count = min(Int(piece.count) - used, frame.count - next)
      if count > 0 {
        unsafe sl_copy(piece.base + used, frame.baseAddress! + next, count)
        next += count
      }
      filled += used + max(count, 0)
      if isLogging { mark(chain.start(n), byteCount: UInt64(used + max(count, 0))) }
      n += 1
    }
    return filled
  }
}

extension ReceiveCore {
  /// Goes on with another map, in which everything of this path that is in guest memory must be where it is now.
  mutating func replaceMap(_ map: MemoryMap) throws(VirtqueueError) {
    var view = MemoryView(map)
    var place = ledger.front
    while place != ledger.tail {
      let index = Int(place & ledger.entryMask)
      let base = unsafe ledger.entries[index].base
      let now = unsafe view.guestAddress(ofHost: base)
      guard let now, let old = unsafe memory.guestAddress(ofHost: base), now == old else {
        throw .moved(unsafe memory.guestAddress(ofHost: base) ?? GuestAddress(0))
      }
      // Its frame lies elsewhere than its header, and may be in another region.
      if unsafe ledger.entries[index].kind == .lentApart {
        let frame = GuestRange(unsafe ledger.frames[index], count: need - NetHeader.byteCount)
        guard let new = view.slice(frame), let old = memory.slice(frame), unsafe new.base == old.base else { throw .moved(frame.start) }
      }
      place = place &+ 1
    }
    try virtqueue.hold(map)
    memory = view
  }

  // MARK: The log of written pages

  mutating func setLog(_ log: DirtyLog?, ringLogAddress: GuestAddress?) {
    self.log = log
    marks = PageMarks(log, ringLogAddress: ringLogAddress, layout: virtqueue.layout)
    isLogging = log != nil
    // A predecessor may have died before it marked what it wrote, and its successor has finished its batch.
    if isLogging {
      tally.add(.dirtyPages, UInt64(marks.markRing(layout: virtqueue.layout, isPacked: virtqueue.isPacked)))
    }
  }

  private mutating func mark(_ start: GuestAddress, byteCount: UInt64) {
    tally.add(.dirtyPages, UInt64(marks.mark(start, byteCount: byteCount)))
  }
  private mutating func logHost(_ address: UnsafeMutableRawPointer, byteCount: Int) {
    guard let start = unsafe memory.guestAddress(ofHost: address) else { return }
    mark(start, byteCount: UInt64(byteCount))
  }

  /// So many bytes of the frame that a lent buffer was posted for.
  private mutating func logFrame(_ place: UInt32, byteCount: UInt32) {
    let index = Int(place & ledger.entryMask)
    let entry = unsafe ledger.entries[index]
    if unsafe entry.kind == .lentApart {
      mark(unsafe ledger.frames[index], byteCount: UInt64(byteCount))
    } else {
      unsafe logHost(entry.base + Int(NetHeader.byteCount), byteCount: Int(byteCount))
    }
  }

  /// Everything that the card may have written to and not told of. When it returns, a card that has stopped has left no
  /// page unmarked.
  mutating func logPosted() {
    var place = ledger.front
    while place != ledger.tail {
      if !ledger.isWaiting(place) { logFrame(place, byteCount: need - NetHeader.byteCount) }
      place = place &+ 1
    }
  }

  /// Shows what was put, and marks what that has written.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func showLogged(_ count: UInt16) {
    let old = virtqueue.base
    virtqueue.show(count)
    let fresh = marks.markUsed(from: old, to: virtqueue.base, layout: virtqueue.layout, isPacked: virtqueue.isPacked)
    tally.add(.dirtyPages, UInt64(fresh))
  }

  mutating func logNotifications() {
    guard isLogging else { return }
    tally.add(
      .dirtyPages, UInt64(marks.markNotifications(layout: virtqueue.layout, isPacked: virtqueue.isPacked)))
  }
}

/// Twelve bytes in which a header is made before it is spread over pieces.
@safe @usableFromInline struct HeaderScratch: ~Copyable {
  @usableFromInline let base: UnsafeMutableRawPointer
  init() { unsafe base = .allocate(byteCount: 16, alignment: 8) }
  @inlinable deinit { unsafe base.deallocate() }
}
