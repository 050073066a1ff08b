public import GuestMemory

/// Who has which buffer, and in what order: the guest's buffers that were taken, and the card's slots they went to.
///
/// Two queues that move together. A *lent* buffer has one slot and one place here. A *bounced* slot has a host buffer
/// and no place: when its frame comes, it takes as many of the oldest guest buffers as it fills. Guest buffers go
/// back strictly in the order they came (see `SplitVirtqueue`), so all of those lie before the next lent one.
///
/// `@safe`: every index is masked to storage that lives as long as the ledger; the pointers inside entries come from
/// slices of guest memory whose map the path holds.
@safe public struct Ledger: ~Copyable {
  /// A guest buffer that is out.
  @usableFromInline @unsafe struct Entry {
    /// Where the header goes; for a bounced buffer of one piece, its first byte.
    @usableFromInline var base: UnsafeMutableRawPointer
    /// Bytes from there on: header and frame.
    @usableFromInline var byteCount: UInt32
    @usableFromInline var id: UInt16
    @usableFromInline var kind: Kind
    /// Why it is not lent.
    @usableFromInline var reason: UInt8
    @inlinable init(base: UnsafeMutableRawPointer, byteCount: UInt32, id: UInt16, kind: Kind, reason: UInt8) {
      unsafe self.base = base
      unsafe self.byteCount = byteCount
      unsafe self.id = id
      unsafe self.kind = kind
      unsafe self.reason = reason
    }
  }
  @usableFromInline enum Kind: UInt8 {
    /// The frame lands right behind the header, in the same piece.
    case lent
    /// It lands in another piece: `frames` says where.
    case lentApart
    /// To be filled by copying; one piece of memory.
    case piece
    /// To be filled by copying; its chain is read again then.
    case chain
  }

  @usableFromInline let entries: UnsafeMutablePointer<Entry>
  /// Beside the entries: where a frame lands that does not land in its header's piece.
  let frames: UnsafeMutablePointer<GuestAddress>
  /// Beside the entries: descriptors of a chain that is to be copied into, which are read again then.
  private let works: UnsafeMutablePointer<UInt16>
  @usableFromInline let entryMask: UInt32
  @usableFromInline var front: UInt32 = 0
  @usableFromInline var tail: UInt32 = 0
  /// Places that are not lent.
  @usableFromInline var waiting: UInt32 = 0

  /// Whether a slot that is out is a bounced one; false for every other.
  @usableFromInline let slots: UnsafeMutablePointer<Bool>
  @usableFromInline let slotMask: UInt32
  @usableFromInline var slotFront: UInt32 = 0
  @usableFromInline var slotTail: UInt32 = 0

  // The run: what was taken after the last lent buffer. Only there can further bounced slots be posted.
  @usableFromInline var runStart: UInt32 = 0
  @usableFromInline var runSlots: UInt32 = 0
  @usableFromInline var runSlotStart: UInt32 = 0
  /// The frames of the largest size that the run can take for certain, and the bytes that are left over for another.
  /// Kept up to date as buffers come; counted anew, once, after some have gone.
  @usableFromInline var runFrames: UInt32 = 0
  @usableFromInline var runRest: UInt64 = 0
  @usableFromInline var runIsStale = false
  /// The size of every buffer of the run, or 0 if they differ: then counting anew takes no walk.
  @usableFromInline var runUniform: UInt32 = 0
  /// Every buffer of the run takes a frame of the largest size: then there is nothing to count.
  @usableFromInline var runIsWhole = true
  /// Bytes of a frame of the largest size with its header.
  private let need: UInt64
  /// Whether a frame may fill several buffers.
  private let merges: Bool

  /// - Parameters: the guest's ring and the card's, in entries.
  init(queueSize: Int, slotCount: Int, need: UInt32, merges: Bool) {
    self.need = UInt64(need)
    self.merges = merges
    let places = Self.powerOfTwo(queueSize)
    let slotPlaces = Self.powerOfTwo(slotCount)
    unsafe entries = .allocate(capacity: places)
    // Something to look ahead to in every place.
    unsafe entries.initialize(repeating: Entry(base: UnsafeMutableRawPointer(entries), byteCount: 0, id: 0, kind: .lent, reason: 0), count: places)
    unsafe frames = .allocate(capacity: places)
    unsafe works = .allocate(capacity: places)
    unsafe works.initialize(repeating: 1, count: places)
    entryMask = UInt32(places - 1)
    unsafe slots = .allocate(capacity: slotPlaces)
    unsafe slots.initialize(repeating: false, count: slotPlaces)
    slotMask = UInt32(slotPlaces - 1)
  }
  deinit {
    unsafe entries.deallocate()
    unsafe frames.deallocate()
    unsafe works.deallocate()
    unsafe slots.deallocate()
  }

  private static func powerOfTwo(_ n: Int) -> Int {
    var power = 1
    while power < n { power *= 2 }
    return power
  }

  /// Guest buffers that are out.
  @inlinable public var count: Int { Int(tail &- front) }
  /// Slots of the card that are out.
  @inlinable public var slotCount: Int { Int(slotTail &- slotFront) }
  /// Whether everything that is out is lent: then slot n is place n, and the short way may be taken.
  @inlinable var isPlain: Bool { waiting == 0 && tail &- front == slotTail &- slotFront }

  /// The next places to enter lent buffers in, `most` at most, up to where they begin again.
  @inlinable @inline(__always) func entering(_ most: UInt32) -> LedgerRun {
    let place = tail & entryMask
    return unsafe LedgerRun(entries: entries + Int(place), count: min(most, entryMask &+ 1 &- place))
  }
  /// Enters lent buffers that were written down in the first `count` places of `entering`, and their slots.
  @inlinable @inline(__always) mutating func enterLent(_ count: UInt32) {
    tail = tail &+ count
    slotTail = slotTail &+ count
  }
  /// The oldest places but for `offset` of them, as many as lie in a row of `most` at most.
  @inlinable @inline(__always) func leaving(_ most: UInt32, after offset: UInt32) -> LedgerRun {
    let place = (front &+ offset) & entryMask
    return unsafe LedgerRun(entries: entries + Int(place), count: min(most, entryMask &+ 1 &- place))
  }
  /// Where the header goes of the buffer after the `offset` oldest ones, or of any other: there is a pointer in every entry.
  @inlinable @inline(__always) func header(after offset: UInt32) -> UnsafeMutableRawPointer {
    unsafe entries[Int((front &+ offset) & entryMask)].base
  }
  /// Frames ahead of the one that is settled, for lines that take a while to come.
  @usableFromInline var prefetchDistance: UInt32 = 12
  /// Not more than these have to be: at a batch's end it is buffers that are asked for whose frames have not come, and whose lines
  /// nobody needs here yet. Of many paths in turn each has short batches, and 12 ahead most of it was that.
  @inlinable @inline(__always) mutating func expectBatches(of count: UInt32) { prefetchDistance = count < 32 ? 4 : 12 }

  /// Enters a lent buffer and its slot.
  mutating func enterLent(_ base: UnsafeMutableRawPointer, byteCount: UInt32, id: UInt16) {
    unsafe entries[Int(tail & entryMask)] = Entry(base: base, byteCount: byteCount, id: id, kind: .lent, reason: 0)
    enterLent(1)
  }

  /// The same for a buffer of any shape.
  mutating func enterLent(
    _ base: UnsafeMutableRawPointer, byteCount: UInt32, id: UInt16, frame: GuestAddress, isApart: Bool
  ) {
    let index = Int(tail & entryMask)
    unsafe enterLent(base, byteCount: byteCount, id: id)
    if isApart {
      unsafe entries[index].kind = .lentApart
      unsafe (frames + index).initialize(to: frame)
    }
  }

  /// Ends the run: a lent buffer was entered behind it.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func closeRun() {
    runStart = tail
    runSlotStart = slotTail
    runSlots = 0
    (runFrames, runRest, runIsStale) = (0, 0, false)
    (runUniform, runIsWhole) = (0, true)
  }

  /// Enters a buffer that is to be copied into.
  ///
  /// - Parameter work: its descriptors.
  mutating func enterWaiting(
    _ base: UnsafeMutableRawPointer, byteCount: UInt32, id: UInt16, kind: Kind, reason: BounceReason, work: Int = 1
  ) {
    unsafe works[Int(tail & entryMask)] = UInt16(clamping: work)
    clipRun()
    if tail == runStart { (runUniform, runIsWhole) = (byteCount, true) } else if runUniform != byteCount { runUniform = 0 }
    if UInt64(byteCount) < need { runIsWhole = false }
    if !runIsStale { addToRun(byteCount) }
    unsafe entries[Int(tail & entryMask)] = Entry(
      base: base, byteCount: byteCount, id: id, kind: kind, reason: UInt8(reason.rawValue))
    tail = tail &+ 1
    waiting += 1
  }

  /// Enters buffers of one piece that were written down in the first `count` places of `entering`, each of which takes a frame of the
  /// largest size.
  ///
  /// - Parameter byteCount: of every one of them, or 0 if they differ.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func enterPieces(_ count: UInt32, byteCount: UInt32) {
    clipRun()
    if tail == runStart { (runUniform, runIsWhole) = (byteCount, true) } else if runUniform != byteCount { runUniform = 0 }
    if !runIsStale { (runFrames, runRest) = (runFrames &+ count, 0) }
    tail = tail &+ count
    waiting = waiting &+ count
  }

  /// Enters slots that point at host buffers.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func enterBouncedSlots(_ count: UInt32) {
    for n in 0..<count { unsafe slots[Int((slotTail &+ n) & slotMask)] = true }
    slotTail = slotTail &+ count
    runSlots = runSlots &+ count
  }

  /// Takes out the oldest `count` waiting places, and as many slots, each a bounced one.
  @inlinable @inline(__always) mutating func removeCopied(_ count: UInt32) {
    let before = min(count, UInt32(max(Int32(bitPattern: runSlotStart &- slotFront), 0)))
    runSlots = runSlots &- (count &- before)
    for n in 0..<count { unsafe slots[Int((slotFront &+ n) & slotMask)] = false }
    slotFront = slotFront &+ count
    front = front &+ count
    waiting = waiting &- count
  }
  @inlinable @inline(__always) func isBounced(_ n: UInt32) -> Bool { unsafe slots[Int((slotFront &+ n) & slotMask)] }

  /// Enters a slot that points at a host buffer.
  @inlinable mutating func enterBouncedSlot() {
    unsafe slots[Int(slotTail & slotMask)] = true
    slotTail = slotTail &+ 1
    runSlots &+= 1
  }

  /// How many frames of the largest size the run can take for certain; and whether it ends with too few bytes for another.
  ///
  /// Filling in order, with the rest of each last buffer wasted, is the worst case: a shorter frame starts the
  /// next one earlier, never later.
  mutating func runCapacity() -> (frames: UInt32, hasRest: Bool) {
    clipRun()
    if runIsStale {
      (runFrames, runRest, runIsStale) = (0, 0, false)
      if !merges || runIsWhole {
        runFrames = tail &- runStart
        return (runFrames, false)
      }
      if runUniform > 0 {
        let places = tail &- runStart
        let each = UInt32((need - 1) / UInt64(runUniform)) + 1
        (runFrames, runRest) = (places / each, UInt64(places % each) * UInt64(runUniform))
        return (runFrames, runRest > 0)
      }
      var index = runStart
      while index != tail {
        addToRun(unsafe entries[Int(index & entryMask)].byteCount)
        index = index &+ 1
      }
    }
    return (runFrames, runRest > 0)
  }

  private mutating func addToRun(_ byteCount: UInt32) {
    runRest += UInt64(byteCount)
    if !merges || runRest >= need {
      runFrames += 1
      runRest = 0
    }
  }

  /// What was given back is no longer part of the run. Both starts follow their fronts, so that their distance never
  /// comes near 2³¹.
  private mutating func clipRun() {
    if Int32(bitPattern: runStart &- front) < 0 {
      runStart = front
      runIsStale = true
    }
    if Int32(bitPattern: runSlotStart &- slotFront) < 0 { runSlotStart = slotFront }
  }

  /// Takes the oldest slot out; true if it was a bounced one.
  mutating func takeSlot() -> Bool {
    let bounced = isFrontSlotBounced
    if bounced { removeBouncedSlot() } else { slotFront = slotFront &+ 1 }
    return bounced
  }
  @inlinable var isFrontSlotBounced: Bool { unsafe slots[Int(slotFront & slotMask)] }
  /// Precondition: the oldest slot is a bounced one.
  @inlinable mutating func removeBouncedSlot() {
    if Int32(bitPattern: slotFront &- runSlotStart) >= 0 { runSlots &-= 1 }
    unsafe slots[Int(slotFront & slotMask)] = false
    slotFront = slotFront &+ 1
  }

  /// Whether a place, or the oldest one, waits to be copied into.
  func isWaiting(_ place: UInt32) -> Bool { unsafe entries[Int(place & entryMask)].kind.rawValue >= Kind.piece.rawValue }
  var isFrontWaiting: Bool { isWaiting(front) }
  /// Descriptors that are read again to fill a place.
  func work(_ place: UInt32) -> Int {
    let index = Int(place & entryMask)
    return unsafe entries[index].kind == .chain ? Int(works[index]) : 1
  }

  /// Takes the oldest place out.
  mutating func removeFront() {
    if isFrontWaiting { waiting -= 1 }
    front = front &+ 1
  }

  /// Forgets everything that is out: the card has been stopped.
  mutating func removeAll() {
    front = tail
    while slotFront != slotTail {
      unsafe slots[Int(slotFront & slotMask)] = false
      slotFront = slotFront &+ 1
    }
    waiting = 0
    closeRun()
  }
}

/// Places of a ledger that follow one another, each for a lent buffer.
///
/// `@safe`: they lie in the ledger, which lives as long, and every number is checked against the count.
@safe @usableFromInline struct LedgerRun {
  @usableFromInline let entries: UnsafeMutablePointer<Ledger.Entry>
  @usableFromInline let count: UInt32
  @inlinable init(entries: UnsafeMutablePointer<Ledger.Entry>, count: UInt32) {
    unsafe self.entries = entries
    self.count = count
  }
  @inlinable @inline(__always) func enterLent(_ buffer: GuestSlice, id: UInt16, at n: UInt32) {
    precondition(n < count, "outside the run")
    unsafe entries[Int(n)] = Ledger.Entry(base: buffer.base, byteCount: buffer.count, id: id, kind: .lent, reason: 0)
  }
  /// A buffer of one piece, to be copied into, in a path that copies everything.
  @inlinable @inline(__always) func enterPiece(_ buffer: GuestSlice, id: UInt16, at n: UInt32) {
    precondition(n < count, "outside the run")
    let reason = UInt8(truncatingIfNeeded: BounceReason.copyMode.rawValue)
    unsafe entries[Int(n)] = Ledger.Entry(base: buffer.base, byteCount: buffer.count, id: id, kind: .piece, reason: reason)
  }
  @inlinable @inline(__always) func place(_ n: UInt32) -> UnsafeMutablePointer<Ledger.Entry> {
    precondition(n < count, "outside the run")
    return unsafe entries + Int(n)
  }
}
