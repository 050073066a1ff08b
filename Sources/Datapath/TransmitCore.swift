public import Bus
internal import CLinux
internal import GuestMemory
public import Virtio

/// Everything of a transmit path that does not depend on the kind of card: the guest's ring and memory, the ledger, the
/// host buffers and the counters.
///
/// What a frame's length is, and where it lies, comes from descriptors that were read once. The guest may change its bytes
/// until the card has read them: those that decide whether it is sent are copied first (`SourceCheck`).
public struct TransmitCore: ~Copyable {
  @usableFromInline var virtqueue: Virtqueue
  private var memory: MemoryView
  var ledger: TransmitLedger
  var pool: BouncePool
  private var chain: DescriptorChain
  /// Where the frame begins in the chain, behind the header.
  private var firstPiece = 0
  private var firstOffset: UInt32 = 0
  private let windowBase: UInt64
  private let frameByteCounts: ClosedRange<UInt32>
  /// The most pieces that a frame may lie in and still be lent.
  @usableFromInline let pieceLimit: Int
  private let copies: Bool
  private let check: SourceCheck
  private let checks: Bool
  /// Bytes of the largest frame that is sent as it lies: less than the card's by what the card puts in.
  private let largestFrame: UInt32
  /// True if a frame in one descriptor is lent with nothing but its length looked at; and if it must have no tag for that.
  private var lendsWhole: Bool
  private let lendsUntaggedOnly: Bool
  /// The head of the frame that was just taken, if it is in a host buffer.
  private var head: IOVA?
  let counters: TransmitCounters
  let tally: TransmitCounters.Writer
  private let header = HeaderScratch()
  @usableFromInline var stopReason: StopReason?
  /// Frames are taken, and go back without being sent.
  var discards: Bool {
    get { isDiscarding }
    set {
      isDiscarding = newValue
      lendsWhole = !copies && !newValue && !check.comparesAll
    }
  }
  private var isDiscarding = false
  /// Frames that the card is done with and that the ledger still has.
  @usableFromInline var doneCount = 0
  private var log: DirtyLog?
  private var marks: PageMarks
  private var isLogging = false

  /// Descriptors that one poll walks in chains: see `ReceiveCore.descriptorBudget`. Of what is copied each descriptor counts
  /// twice, and `bytesPerDescriptor` as one.
  public static var descriptorBudget: Int { @inlinable get { ReceiveCore.descriptorBudget } }
  /// A copy of so many bytes takes as long as a walk of one descriptor.
  private static var bytesPerDescriptor: Int { 1024 }
  /// What is left of it in this poll. May fall below zero by one frame.
  @usableFromInline var budget = 0

  /// Bytes that an Ethernet frame begins with; and those that it has on a wire at least, without its check sequence.
  private static let ethernetHeader: UInt32 = 14, shortestFrame: UInt32 = 60

  init(
    virtqueue: consuming Virtqueue, window: DMAWindow, pool: consuming BouncePool, counters: TransmitCounters,
    frameByteCounts: ClosedRange<UInt32>, pieceLimit: Int, copies: Bool, check: SourceCheck = .none
  ) {
    let size = Int(virtqueue.size)
    marks = PageMarks(layout: virtqueue.layout)
    self.virtqueue = virtqueue
    memory = MemoryView(window.map)
    ledger = TransmitLedger(queueSize: size)
    self.pool = pool
    chain = DescriptorChain(queueSize: size)
    windowBase = window.base.rawValue
    self.frameByteCounts = frameByteCounts
    self.pieceLimit = pieceLimit
    self.copies = copies
    self.check = check
    checks = check != .none
    largestFrame = frameByteCounts.upperBound - (check.isAccessPort ? SourceCheck.tagByteCount : 0)
    lendsWhole = !copies && !check.comparesAll
    lendsUntaggedOnly = check.isAccessPort
    self.counters = counters
    tally = counters.writer
  }

  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func stop(_ reason: StopReason) {
    if case .none = stopReason { stopReason = reason }
  }
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @usableFromInline mutating func stopForFault() {
    if let fault = virtqueue.fault { stop(.virtqueue(fault)) }
  }

  // MARK: Out to the card
  //
  // What is called for a frame is mutating, whether it changes anything or not: this compiler copies the whole of a
  // value that cannot be copied to lend it to a call that is not inlined.

  /// What to do with the buffer that was just taken.
  @usableFromInline enum Step {
    /// One piece of the guest's: `copyWhole` if the card refuses it.
    case post(IOVA, byteCount: UInt32)
    /// The frame's pieces are `piece(0)` to `piece(count - 1)`: `copyPieces` if the card refuses one.
    case postPieces(count: Int, byteCount: UInt32)
    /// One piece, a host buffer.
    case postCopy(IOVA, byteCount: UInt32)
    /// It is not sent.
    case nothing
    case stop
  }

  /// Whether every frame that could come next could be posted, by its pieces or copied; or need not be.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @usableFromInline mutating func isReady(room: Int) -> Bool {
    isDiscarding || (room >= pieceLimit && Int(pool.outstanding) < pool.capacity)
  }

  /// Takes the next buffer and finds out what becomes of its frame. Precondition: the path is ready.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func take(_ buffer: AvailableBuffer) -> Step {
    if let step = takeWhole(buffer) { return step }
    guard let id = virtqueue.takeChain(buffer, .readable, into: &chain, in: &memory) else { return .stop }
    budget -= chain.work
    // A chain has the header's bytes at least, and 2³² at most.
    let byteCount = UInt32(truncatingIfNeeded: chain.byteCount - UInt64(NetHeader.byteCount))
    readHeader()
    if let drop = verdict(byteCount) {
      ledger.append(.init(id: id, fate: .dropped(drop), byteCount: byteCount))
      return .nothing
    }
    head = nil
    if checks, let step = takeChecked(id, byteCount) { return step }
    let pieceCount = chain.count - firstPiece
    let reason: CopyReason? =
      copies
      ? .copyMode
      : byteCount < frameByteCounts.lowerBound
        ? .padded : chain.crossesRegions ? .crossesRegions : pieceCount > pieceLimit ? .fragmented : nil
    guard let reason else {
      ledger.append(.init(id: id, fate: .lent, byteCount: byteCount))
      return .postPieces(count: pieceCount, byteCount: byteCount)
    }
    return copy(id, byteCount, reason)
  }

  /// The short way: header and frame in one descriptor, nothing asked for. Nil, with nothing taken, for any other.
  private mutating func takeWhole(_ buffer: AvailableBuffer) -> Step? {
    guard buffer.flags == 0, lendsWhole,
      buffer.range.count >= NetHeader.byteCount &+ frameByteCounts.lowerBound,
      buffer.range.count &- NetHeader.byteCount <= largestFrame,
      let slice = memory.slice(buffer.range), !Self.asksForOffload(slice.load64(0))
    else { return nil }
    // No more than a hint, for the guest can still put a tag in: the card then sends it behind the port's.
    if _slowPath(lendsUntaggedOnly), slice.load16(Int(NetHeader.byteCount) + 12) == SourceCheck.tagType { return nil }
    let byteCount = buffer.range.count - NetHeader.byteCount
    virtqueue.take(buffer)
    ledger.append(.init(id: buffer.id, fate: .lent, byteCount: byteCount))
    return .post(
      IOVA(windowBase &+ buffer.range.start.rawValue &+ UInt64(NetHeader.byteCount)), byteCount: byteCount)
  }

  /// Gathers the header, wherever it is split, and finds where the frame begins. virtio 1.3, 2.7.4.1.
  private mutating func readHeader() {
    var got: UInt32 = 0
    (firstPiece, firstOffset) = (0, 0)
    while got < NetHeader.byteCount {
      let piece = chain.piece(firstPiece)
      let count = min(piece.count, NetHeader.byteCount - got)
      unsafe sl_copy(header.base + Int(got), piece.base, Int(count))
      got += count
      if count == piece.count { firstPiece += 1 } else { firstOffset = count }
    }
  }

  private func verdict(_ byteCount: UInt32) -> TransmitDrop? {
    if isDiscarding { return .ringDisabled }
    if byteCount < Self.ethernetHeader { return .runt }
    if byteCount > frameByteCounts.upperBound { return .tooLong }
    return Self.asksForOffload(unsafe sl_load64(header.base)) ? .offload : nil
  }

  /// By a header's first eight bytes: VIRTIO_NET_HDR_F_NEEDS_CSUM among the flags, or a gso_type. Neither is offered.
  private static func asksForOffload(_ word: UInt64) -> Bool { word & 0x01 != 0 || word & 0xFF00 != 0 }

  /// The n-th piece of the frame that was just taken, on the bus.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @usableFromInline mutating func piece(_ n: Int) -> (address: IOVA, byteCount: UInt32) {
    var n = n
    if let head {
      if n == 0 { return (head, SourceCheck.headByteCount) }
      n -= 1
    }
    let offset = n == 0 ? firstOffset : 0
    let index = firstPiece + n
    return (
      IOVA(windowBase &+ chain.start(index).rawValue &+ UInt64(offset)), byteCount: chain.piece(index).count - offset
    )
  }

  /// Copies the frame that was just taken, and adds zeroes to what is too short for the card.
  private mutating func copy(_ id: UInt16, _ byteCount: UInt32, _ reason: CopyReason) -> Step {
    let length = posted(byteCount)
    budget -= chain.work + Int(length) / Self.bytesPerDescriptor
    guard let address = pool.take() else { preconditionFailure("no host buffer is left") }
    let buffer = unsafe pool.newest(byteCount: Int(length))
    unsafe gather(byteCount, into: buffer)
    ledger.append(.init(id: id, fate: .copied(reason), byteCount: byteCount))
    return .postCopy(address, byteCount: length)
  }

  /// The frame that was just taken in one piece cannot be read by the card where it lies: copies it to a host buffer.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func copyWhole(_ place: IOVA, _ byteCount: UInt32) -> (address: IOVA, byteCount: UInt32) {
    guard let address = pool.take() else { preconditionFailure("no host buffer is left") }
    guard let slice = memory.slice(GuestRange(GuestAddress(place.rawValue &- windowBase), count: byteCount)) else {
      preconditionFailure("a frame that was checked is not in memory")
    }
    let base = unsafe pool.newest(byteCount: Int(byteCount)).baseAddress!
    unsafe sl_copy(base, slice.base, Int(byteCount))
    ledger.setNewest(.copied(.notMapped))
    return (address, byteCount)
  }

  /// The same of a frame in pieces. One whose first bytes were compared keeps these, in the host buffer that they are in.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func copyPieces(_ byteCount: UInt32) -> (address: IOVA, byteCount: UInt32) {
    let known = head == nil ? 0 : SourceCheck.headByteCount
    guard let address = head ?? pool.take() else { preconditionFailure("no host buffer is left") }
    let buffer = unsafe pool.newest(byteCount: Int(byteCount))
    unsafe gather(byteCount - known, into: UnsafeMutableRawBufferPointer(rebasing: buffer[Int(known)...]))
    ledger.setNewest(.copied(.notMapped))
    return (address, byteCount)
  }

  /// Bytes that the card is given of a frame.
  private mutating func posted(_ byteCount: UInt32) -> UInt32 {
    byteCount >= frameByteCounts.lowerBound ? byteCount : min(max(Self.shortestFrame, frameByteCounts.lowerBound), frameByteCounts.upperBound)
  }

  /// Copies the first bytes of the frame that was just taken, and fills the rest of the buffer with zeroes.
  private mutating func gather(_ byteCount: UInt32, into buffer: UnsafeMutableRawBufferPointer) {
    let base = unsafe buffer.baseAddress.unsafelyUnwrapped
    let wanted = min(Int(byteCount), buffer.count)
    var (done, index) = (0, firstPiece)
    while done < wanted {
      let piece = chain.piece(index)
      let offset = index == firstPiece ? Int(firstOffset) : 0
      let count = min(Int(piece.count) - offset, wanted - done)
      unsafe sl_copy(base + done, piece.base + offset, count)
      done += count
      index += 1
    }
    unsafe sl_fill(base + done, 0, buffer.count - done)
  }

  // MARK: Whose frame it is

  /// Compares what the card does not compare by itself, in bytes that the guest cannot change any more. nil if the frame
  /// goes the usual way: to an access port, without a tag.
  @inline(never) private mutating func takeChecked(_ id: UInt16, _ byteCount: UInt32) -> Step? {
    if !check.comparesAll && !looksTagged() {
      if byteCount <= largestFrame { return nil }
      return refuse(id, byteCount, .tooLong)
    }
    // A tag is taken off in a copy of the whole frame.
    let copiesWhole =
      copies || !check.comparesAll || byteCount <= SourceCheck.largestCopied || chain.crossesRegions || chain.count - firstPiece >= pieceLimit
    if copiesWhole { return checkCopy(id, byteCount) }
    guard let address = pool.take() else { preconditionFailure("no host buffer is left") }
    let buffer = unsafe pool.newest(byteCount: Int(SourceCheck.headByteCount))
    unsafe gather(SourceCheck.headByteCount, into: buffer)
    let verdict = unsafe check.verdict(UnsafeRawBufferPointer(buffer), byteCount: byteCount)
    guard verdict == .send, byteCount <= largestFrame else {
      pool.untake()
      return verdict == .removeTag ? checkCopy(id, byteCount) : refuse(id, byteCount, verdict == .send ? .tooLong : .spoofed)
    }
    head = address
    skipHead()
    ledger.append(.init(id: id, fate: .lentBehindHead, byteCount: byteCount))
    return .postPieces(count: chain.count - firstPiece + 1, byteCount: byteCount)
  }

  /// A look at bytes that the guest can still change.
  private mutating func looksTagged() -> Bool {
    var (index, offset) = (firstPiece, firstOffset + 12)
    var type: UInt16 = 0
    for _ in 0..<2 {
      while offset >= chain.piece(index).count { (index, offset) = (index + 1, offset - chain.piece(index).count) }
      type = type << 8 | UInt16(unsafe sl_load8(chain.piece(index).base + Int(offset)))
      offset += 1
    }
    return type == SourceCheck.tagType.byteSwapped
  }

  /// Copies the whole frame, compares the copy, and takes off a tag that the card puts in again.
  private mutating func checkCopy(_ id: UInt16, _ byteCount: UInt32) -> Step {
    guard let address = pool.take() else { preconditionFailure("no host buffer is left") }
    let length = posted(byteCount)
    budget -= chain.work + Int(length) / Self.bytesPerDescriptor
    let buffer = unsafe pool.newest(byteCount: Int(length))
    unsafe gather(byteCount, into: buffer)
    switch unsafe check.verdict(UnsafeRawBufferPointer(buffer), byteCount: byteCount) {
    case .send where byteCount <= largestFrame:
      ledger.append(.init(id: id, fate: .copied(copies ? .copyMode : .sourceCheck), byteCount: byteCount))
      return .postCopy(address, byteCount: length)
    case .removeTag:
      let base = unsafe buffer.baseAddress.unsafelyUnwrapped
      let tag = Int(SourceCheck.tagByteCount)
      unsafe sl_move(base + 12, base + 12 + tag, buffer.count - 12 - tag)
      unsafe sl_fill(base + (buffer.count - tag), 0, tag)
      ledger.append(.init(id: id, fate: .copied(.tagRemoved), byteCount: byteCount))
      return .postCopy(address, byteCount: max(byteCount - SourceCheck.tagByteCount, frameByteCounts.lowerBound))
    case .send:
      pool.untake()
      return refuse(id, byteCount, .tooLong)
    case .refuse:
      pool.untake()
      return refuse(id, byteCount, .spoofed)
    }
  }

  private mutating func refuse(_ id: UInt16, _ byteCount: UInt32, _ reason: TransmitDrop) -> Step {
    ledger.append(.init(id: id, fate: .dropped(reason), byteCount: byteCount))
    return .nothing
  }

  /// Goes behind the bytes of a frame that are in a host buffer.
  private mutating func skipHead() {
    var left = SourceCheck.headByteCount
    while left > 0 {
      let there = chain.piece(firstPiece).count - firstOffset
      if there > left {
        firstOffset += left
        return
      }
      left -= there
      (firstPiece, firstOffset) = (firstPiece + 1, 0)
    }
  }

  // MARK: Back to the guest

  /// Gives back what the card is done with, and what never went to it, oldest first, at most so many. Answers how many.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func settle(limit: UInt16) -> UInt16 {
    var count: UInt16 = 0
    while count < limit, let id = removeDone() {
      // virtio 1.3, 5.1.6.2: nothing was written.
      virtqueue.put(id, byteCount: 0)
      count += 1
    }
    return count
  }

  /// Takes the oldest frame out if it is done with, and counts it; nil if there is none.
  mutating func removeDone() -> UInt16? {
    guard let entry = ledger.oldest else { return nil }
    switch entry.fate {
    case .lent:
      guard doneCount > 0 else { return nil }
      doneCount -= 1
      tally.add(.lentFrames, 1)
      tally.add(.lentBytes, UInt64(entry.byteCount))
    case .lentBehindHead:
      guard doneCount > 0 else { return nil }
      doneCount -= 1
      pool.release()
      tally.add(.lentFrames, 1)
      tally.add(.lentBytes, UInt64(entry.byteCount))
    case .copied(let reason):
      guard doneCount > 0 else { return nil }
      doneCount -= 1
      pool.release()
      tally.add(.copiedFrames, 1)
      tally.add(.copiedBytes, UInt64(entry.byteCount))
      tally.add(reason)
    case .dropped(let reason): tally.add(reason)
    }
    ledger.removeFirst()
    return entry.id
  }

  /// Shows so many of what was given back. True if the driver asked to be told.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func publish(_ count: UInt16) -> Bool {
    let old = virtqueue.base
    let wantsSignal = virtqueue.publish(count)
    if isLogging {
      let fresh = marks.markUsed(
        from: old, to: virtqueue.base, layout: virtqueue.layout, isPacked: virtqueue.isPacked)
      tally.add(.dirtyPages, UInt64(fresh))
    }
    tally.add(wantsSignal ? .signals : .suppressedSignals, 1)
    return wantsSignal
  }

  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @usableFromInline mutating func countTurn(rang: Bool) {
    if rang { tally.add(.doorbells, 1) }
    if budget <= 0 { tally.add(.cutPolls, 1) }
    tally.set(.postedFrames, UInt64(ledger.postedCount))
  }

  // MARK: Between turns

  var progress: UInt32 { ledger.front &+ ledger.tail }

  mutating func replaceMap(_ map: MemoryMap) throws(VirtqueueError) {
    try virtqueue.hold(map)
    memory = MemoryView(map)
  }

  mutating func setLog(_ log: DirtyLog?, ringLogAddress: GuestAddress?) {
    self.log = log
    marks = PageMarks(log, ringLogAddress: ringLogAddress, layout: virtqueue.layout)
    isLogging = log != nil
    // A predecessor may have died before it marked what it wrote, and its successor has finished its batch.
    if isLogging {
      tally.add(.dirtyPages, UInt64(marks.markRing(layout: virtqueue.layout, isPacked: virtqueue.isPacked)))
    }
  }
  mutating func logNotifications() {
    guard isLogging else { return }
    tally.add(
      .dirtyPages, UInt64(marks.markNotifications(layout: virtqueue.layout, isPacked: virtqueue.isPacked)))
  }

  /// The NIC may still read host buffers that it was given: they stay taken.
  mutating func forsake() {
    ledger.removeAll()
    tally.set(.postedFrames, 0)
  }

  mutating func forgetAll() {
    ledger.removeAll()
    pool.releaseAll()
    doneCount = 0
    tally.set(.postedFrames, 0)
  }
}
