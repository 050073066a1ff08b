public import CLinux
public import GuestMemory

/// A packed virtqueue from the device's side: takes what the driver makes available, gives back what was used.
/// virtio 1.3, 2.8 "Packed Virtqueues".
///
/// Everything goes back in the order it came, as in a split virtqueue; so each buffer's used descriptor is written where
/// the buffer's own first one was, and the rest of its chain is skipped. A buffer ID is the driver's and is only ever
/// given back.
@safe public struct PackedVirtqueue: ~Copyable {
  @usableFromInline var ring: PackedRingMemory
  /// For each place where a buffer that is out begins, how many descriptors of the ring it has.
  @usableFromInline let lengths: UnsafeMutablePointer<UInt16>
  /// What was put and not yet published lies in the record, and nowhere else.
  @usableFromInline let words: UnsafeMutableRawPointer
  @usableFromInline let places: UnsafeMutableRawPointer
  private let state: UnsafeMutableRawPointer
  private let record: RingRecord
  private let keeper: RingRecord.Keeper

  /// The next descriptor to take, and what its AVAIL and USED flags are when it is there: the lap's wrap counter, and its
  /// opposite. virtio 1.3, 2.8.1.
  @usableFromInline var takePlace: UInt32
  @usableFromInline var takeBits: UInt16
  /// The oldest buffer that was not put, and what both flags will be when it is used.
  @usableFromInline var putPlace: UInt32
  @usableFromInline var putBits: UInt16
  /// The oldest that was not published.
  @usableFromInline var nextUsed: RingPosition
  /// What was shown when the driver's wish to be told was looked at, and how many places lie between.
  private var lookedAtUsed: RingPosition
  @usableFromInline var unlookedCount: UInt32 = 0
  /// `RingRecord.State.afterStraddles` of what was published last.
  private var lastStraddles = false
  @usableFromInline let usesEventIndex: Bool
  private let allowsIndirect: Bool
  public let features: Features
  @usableFromInline var firstFault: VirtqueueFault?
  /// Set by the first thing the driver does wrong; from then on nothing more is taken.
  @inlinable public var fault: VirtqueueFault? { firstFault }
  @inlinable public var isFaulted: Bool { if case .none = firstFault { false } else { true } }

  /// - Parameters:
  ///   - base: where the front-end says to go on. What it calls used counts: what lies between that and what it calls
  ///     available was taken by a device that is gone, and is taken again.
  ///   - record: where the ring is written down, so that a successor can go on. If it is live, it knows better than the
  ///     front-end.
  public init(
    _ layout: RingLayout, features: Features, base: RingBase = .packedStart, record: RingRecord? = nil,
    in view: inout MemoryView
  ) throws(VirtqueueError) {
    let ring = try PackedRingMemory(layout, in: &view)
    var position = RingPosition(place: base.used, wrap: base.usedWrap)
    // DPDK's virtio-user says in its lower half that nothing was taken yet, and nothing in its upper half.
    if base.used == 0 && !base.usedWrap && base.available == 0 && base.availableWrap { position = .start }
    for place in [base.available, base.used] where Int(place) >= layout.size {
      throw .baseOutsideRing(place, size: layout.size)
    }
    if let record {
      guard record.capacity >= layout.size else { throw .recordTooSmall(record.capacity, size: layout.size) }
      if let found = record.resume(layout, in: ring) { position = found }
    }
    self.ring = ring
    self.record = record ?? RingRecord(ringSize: layout.size)
    lastStraddles = self.record.begin(layout, at: position)
    unsafe (words, places, state) = (self.record.words, self.record.places, self.record.state)
    keeper = self.record.keeper
    unsafe lengths = .allocate(capacity: layout.size)
    unsafe lengths.initialize(repeating: 1, count: layout.size)
    self.features = features
    usesEventIndex = features.contains(.eventIndex)
    allowsIndirect = features.contains(.indirectDescriptors)
    (nextUsed, lookedAtUsed) = (position, position)
    (takePlace, putPlace) = (UInt32(position.place), UInt32(position.place))
    takeBits = position.wrap ? PackedRingMemory.availableFlag : PackedRingMemory.usedFlag
    putBits = position.wrap ? PackedRingMemory.bothFlags : 0
  }

  /// One that nobody uses.
  init(unused view: borrowing MemoryView) {
    ring = PackedRingMemory(unused: view)
    record = RingRecord(ringSize: 1)
    unsafe (words, places, state) = (record.words, record.places, record.state)
    keeper = record.keeper
    unsafe lengths = .allocate(capacity: 1)
    unsafe lengths.initialize(to: 1)
    features = []
    (usesEventIndex, allowsIndirect) = (false, false)
    (nextUsed, lookedAtUsed) = (.start, .start)
    (takePlace, putPlace) = (0, 0)
    (takeBits, putBits) = (PackedRingMemory.availableFlag, PackedRingMemory.bothFlags)
  }

  deinit { unsafe lengths.deallocate() }

  @inlinable public var size: UInt32 { ring.size }
  /// What was published last ended here. What a stopped ring reports as its base.
  @inlinable public var usedPosition: RingPosition { nextUsed }
  /// Descriptors that were taken and not published: never more than the ring has.
  public var outstandingDescriptors: Int { Int(takenCount) }
  @inlinable var takenCount: UInt32 {
    @inline(__always) get { nextUsed.distance(to: takePosition, size: ring.size) }
  }
  @inlinable var takePosition: RingPosition {
    @inline(__always) get {
      RingPosition(place: UInt16(truncatingIfNeeded: takePlace), wrap: takeBits == PackedRingMemory.availableFlag)
    }
  }

  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  @inline(never) @usableFromInline mutating func fail(_ fault: VirtqueueFault) {
    if case .none = firstFault { firstFault = fault }
  }
  /// Records a fault that somebody else found in what this queue's driver gave.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  public mutating func poison(_ fault: VirtqueueFault) { fail(fault) }

  /// Holds another map, in which every part of the ring must be where it is now.
  public mutating func hold(_ map: MemoryMap) throws(VirtqueueError) { try ring.hold(map) }

  // MARK: What is available

  /// How many buffers can be taken now, at most: what the ring has room for. 0 exactly if there are none.
  @inlinable @inline(__always) public mutating func pending() -> UInt32 {
    if _slowPath(isFaulted) { return 0 }
    guard isAvailable(ring.wordAcquire(takePlace)) else { return 0 }
    return ring.size &- takenCount
  }

  /// Whether a descriptor of this word is the driver's offer in this lap.
  @inlinable func isAvailable(_ word: UInt64) -> Bool {
    UInt16(truncatingIfNeeded: word >> 48) & PackedRingMemory.bothFlags == takeBits
  }

  /// The next buffer's first descriptor, read once; it is not taken yet. Nil if there is none.
  /// Precondition: fewer were taken since `pending` than it said, each with one descriptor; or `takeChain` is next.
  @inlinable public mutating func next() -> AvailableBuffer? {
    let word = ring.wordAcquire(takePlace)
    guard isAvailable(word) else { return nil }
    return AvailableBuffer(word: word, address: ring.address(takePlace))
  }

  /// Takes what `next` showed. Precondition: it has one descriptor.
  @inlinable public mutating func take(_ buffer: AvailableBuffer) {
    unsafe lengths[Int(takePlace)] = 1
    advance(by: 1)
  }

  @inlinable mutating func advance(by count: UInt32) {
    takePlace = takePlace &+ count
    if _slowPath(takePlace >= ring.size) {
      takePlace = takePlace &- ring.size
      takeBits ^= PackedRingMemory.bothFlags
    }
  }

  /// Takes the buffer whose first descriptor `next` showed, reading the whole of it. Nil, and a fault, if it is not one
  /// that the device may use so.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  public mutating func takeChain(
    _ first: AvailableBuffer, _ direction: BufferDirection, into chain: inout DescriptorChain, in view: inout MemoryView
  ) -> UInt16? {
    let limit = ring.size &- takenCount
    guard let (count, id) = read(first, at: takePlace, limit: limit, direction, into: &chain, in: &view) else {
      return nil
    }
    unsafe lengths[Int(takePlace)] = UInt16(truncatingIfNeeded: count)
    advance(by: count)
    return id
  }

  /// Reads the oldest buffer that was not put once more, and checks it once more: what is written to is what is there
  /// now. False, and a fault, if it is no longer as long in the ring, or not a buffer.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  public mutating func readOldest(
    _ direction: BufferDirection, into chain: inout DescriptorChain, in view: inout MemoryView
  ) -> Bool {
    let length = UInt32(unsafe lengths[Int(putPlace)])
    guard let (count, _) = read(
      ring.buffer(putPlace), at: putPlace, limit: length, direction, into: &chain, in: &view)
    else { return false }
    return count == length || refuse(.malformedChain(head: UInt16(truncatingIfNeeded: putPlace)))
  }

  /// Answers how many descriptors of the ring a buffer has, and its ID: the last one's. virtio 1.3, 2.8.6.
  private mutating func read(
    _ first: AvailableBuffer, at start: UInt32, limit: UInt32, _ direction: BufferDirection,
    into chain: inout DescriptorChain, in view: inout MemoryView
  ) -> (count: UInt32, id: UInt16)? {
    chain.removeAll()
    let head = UInt16(truncatingIfNeeded: start)
    var place = start
    var count: UInt32 = 1
    var buffer = first
    // What lies beyond is not the driver's to offer: it is out already.
    guard count <= limit else {
      fail(.malformedChain(head: head))
      return nil
    }
    if buffer.flags & Descriptor.isIndirect != 0 {
      // A list is direct or one table, never both. virtio 1.3, 2.8.7.
      guard allowsIndirect, buffer.flags & Descriptor.hasNext == 0 else {
        fail(.badIndirectTable(head: head))
        return nil
      }
      guard readTable(buffer.range, direction, head: head, into: &chain, in: &view) else { return nil }
    } else {
      while true {
        if let fault = chain.add(buffer.range, flags: buffer.flags, direction, head: head, in: &view) {
          fail(fault)
          return nil
        }
        guard buffer.flags & Descriptor.hasNext != 0 else { break }
        guard count < limit else {
          fail(.malformedChain(head: head))
          return nil
        }
        place = place + 1 == ring.size ? 0 : place + 1
        count += 1
        buffer = ring.buffer(place)
        guard buffer.flags & Descriptor.isIndirect == 0 else {
          fail(.badIndirectTable(head: head))
          return nil
        }
      }
    }
    if let fault = chain.verdict(head: head) {
      fail(fault)
      return nil
    }
    return (count, buffer.id)
  }

  /// Every entry of a table in turn: in it no flag but WRITE means anything. virtio 1.3, 2.8.7.
  private mutating func readTable(
    _ range: GuestRange, _ direction: BufferDirection, head: UInt16, into chain: inout DescriptorChain,
    in view: inout MemoryView
  ) -> Bool {
    // No list is longer than its queue. virtio 1.3, 2.8.5.
    guard range.count > 0, range.count % 16 == 0, range.count / 16 <= ring.size else {
      return refuse(.badIndirectTable(head: head))
    }
    guard range.count / 16 <= DescriptorChain.largestCount else { return refuse(.chainTooLong(head: head)) }
    guard let table = view.slice(range) else { return refuse(.outsideMemory(range)) }
    for entry in 0..<range.count / 16 {
      let offset = 16 * Int(entry)
      let buffer = AvailableBuffer(word: table.load64(offset + 8), address: GuestAddress(table.load64(offset)))
      if let fault = chain.add(buffer.range, flags: buffer.flags, direction, head: head, in: &view) {
        return refuse(fault)
      }
    }
    return true
  }

  private mutating func refuse(_ fault: VirtqueueFault) -> Bool {
    fail(fault)
    return false
  }

  // MARK: What was used

  /// Gives back the oldest buffer, as the `n`-th since the last publication. Nobody sees it before `show`, and the ring
  /// is not touched. Precondition: one is out.
  @inlinable public mutating func put(_ id: UInt16, byteCount: UInt32, at n: UInt16) {
    // virtio 1.3, 2.8.4: WRITE says that there are bytes.
    let flags = byteCount == 0 ? putBits : putBits | Descriptor.isWritable
    unsafe sl_store64(words + 8 * Int(n), UInt64(byteCount) | UInt64(id) << 32 | UInt64(flags) << 48)
    unsafe sl_store16(places + 2 * Int(n), UInt16(truncatingIfNeeded: putPlace))
    putPlace = putPlace &+ UInt32(unsafe lengths[Int(putPlace)])
    if _slowPath(putPlace >= ring.size) {
      putPlace = putPlace &- ring.size
      putBits ^= PackedRingMemory.bothFlags
    }
  }

  /// Makes the first `count` of the `putCount` buffers that were put visible together, and forgets the rest. The first
  /// descriptor is written last: the driver looks at none behind it before. virtio 1.3, 2.8.9.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  public mutating func show(_ count: UInt16, of putCount: UInt16) {
    precondition(count <= putCount, "publishes what was not put")
    if count < putCount {
      putPlace = UInt32(place(Int(count)))
      putBits = UInt16(truncatingIfNeeded: word(Int(count)) >> 48) & PackedRingMemory.bothFlags
    }
    guard count > 0 else { return }
    let before = nextUsed
    let after = RingPosition(place: UInt16(truncatingIfNeeded: putPlace), wrap: putBits != 0)
    // The last one's lap is its USED flag.
    let straddles = word(Int(count) - 1) >> 63 == 0 && after.wrap && after.place > 0
    keeper.keep(Int(count))
    sl_fence_release()
    let recorded = RingRecord.State(
      before: before, after: after, count: count, beforeStraddles: lastStraddles, afterStraddles: straddles)
    lastStraddles = straddles
    unsafe sl_store64(state, recorded.rawValue)
    sl_fence_release()
    var n = 1
    while n < Int(count) {
      ring.storeUsed(place(n), word(n))
      n += 1
    }
    ring.storeUsedRelease(place(0), word(0))
    nextUsed = after
    unlookedCount = unlookedCount &+ before.distance(to: after, size: ring.size)
  }

  /// Whether the driver asked to be told of what was shown since it was looked at last.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  public mutating func mustNotify() -> Bool {
    // The descriptors must be visible before the driver's wish is read: the driver does it the other way round.
    sl_fence()
    let (old, length) = (lookedAtUsed, unlookedCount)
    (lookedAtUsed, unlookedCount) = (nextUsed, 0)
    return wantsNotification(from: old, length: length)
  }

  /// Both. True if the driver asked to be told.
  @inlinable @inline(__always) public mutating func publish(_ count: UInt16, of putCount: UInt16) -> Bool {
    show(count, of: putCount)
    return unlookedCount > 0 && mustNotify()
  }

  private func word(_ n: Int) -> UInt64 { unsafe sl_load64(words + 8 * n) }
  private func place(_ n: Int) -> UInt16 { unsafe sl_load16(places + 2 * n) }

  // MARK: Notifications

  /// RING_EVENT_FLAGS_ENABLE, _DISABLE and _DESC; the fourth is reserved, and means the first. virtio 1.3, 2.8.14.
  private enum EventFlags {
    static let enable: UInt32 = 0, disable: UInt32 = 1, descriptor: UInt32 = 2
  }

  @inline(__always) private func wantsNotification(from old: RingPosition, length: UInt32) -> Bool {
    let event = ring.driverEvent
    switch event >> 16 & 3 {
    case EventFlags.disable: return false
    case EventFlags.descriptor where usesEventIndex:
      let wanted = RingPosition(rawValue: UInt16(truncatingIfNeeded: event))
      return Self.crosses(event: wanted, from: old, by: length, size: ring.size)
    default: return true
    }
  }

  /// Whether the `count` places from `old` on have `event` among them.
  public static func crosses(event: RingPosition, from old: RingPosition, by count: UInt32, size: UInt32) -> Bool {
    guard event.place < size else { return false }
    // A place with the other wrap counter is the next lap's.
    let place = UInt32(event.place) &+ (event.wrap == old.wrap ? 0 : size)
    return place >= old.place && place &- UInt32(old.place) < count
  }

  /// Tells the driver not to kick: we look by ourselves. A hint; kicks may come all the same.
  public mutating func disableNotifications() {
    ring.setDeviceEvent(RingPosition(rawValue: 0), flags: EventFlags.disable)
  }

  /// Asks for a kick at the next buffer. True if one is there already: then there will be no kick for it.
  public mutating func enableNotifications() -> Bool {
    ring.setDeviceEvent(takePosition, flags: usesEventIndex ? EventFlags.descriptor : EventFlags.enable)
    sl_fence()
    return pending() > 0
  }
}

extension PackedVirtqueue: RingFormat {
  @inlinable @inline(__always) public func taking(_ most: UInt32) -> PackedTakingRun {
    unsafe PackedTakingRun(
      descriptors: ring.descriptors + 16 * Int(takePlace), lengths: lengths + Int(takePlace), bits: takeBits | Descriptor.isWritable,
      count: min(most, ring.size &- takePlace))
  }
  @inlinable @inline(__always) public mutating func advance(taken count: UInt32) { advance(by: count) }

  @inlinable @inline(__always) public func putting(_ most: UInt32, after offset: UInt32) -> PackedPuttingRun {
    unsafe PackedPuttingRun(
      words: words + 8 * Int(offset), places: places + 2 * Int(offset), lengths: lengths + Int(putPlace), place: putPlace,
      bits: putBits, count: min(most, min(ring.size &- putPlace, ring.size &- min(offset, ring.size))))
  }
  @inlinable @inline(__always) public mutating func advance(put count: UInt32) {
    putPlace = putPlace &+ count
    if _slowPath(putPlace >= ring.size) {
      putPlace = putPlace &- ring.size
      putBits ^= PackedRingMemory.bothFlags
    }
  }
}

/// Descriptors of a packed virtqueue that follow one another.
///
/// `@safe`: they lie in the ring, and every number is checked against the count. The virtqueue that it was made by lives as long.
@safe @frozen public struct PackedTakingRun: TakingRun {
  @usableFromInline let descriptors: UnsafeMutableRawPointer
  @usableFromInline let lengths: UnsafeMutablePointer<UInt16>
  /// The flags of a descriptor that is there in this lap, and writable, and nothing else.
  @usableFromInline let bits: UInt16
  public let count: UInt32

  @inlinable init(descriptors: UnsafeMutableRawPointer, lengths: UnsafeMutablePointer<UInt16>, bits: UInt16, count: UInt32) {
    unsafe (self.descriptors, self.lengths) = (descriptors, lengths)
    (self.bits, self.count) = (bits, count)
  }

  @inlinable @inline(__always) public func plainBuffer(at n: UInt32) -> AvailableBuffer? {
    precondition(n < count, "outside the run")
    let descriptor = unsafe descriptors + 16 * Int(n)
    let word = unsafe sl_load64_acquire(descriptor + 8)
    let mask = PackedRingMemory.bothFlags | PackedRingMemory.kindFlags
    guard _fastPath(UInt16(truncatingIfNeeded: word >> 48) & mask == bits) else { return nil }
    return AvailableBuffer(word: word, address: GuestAddress(unsafe sl_load64(descriptor)))
  }
  @inlinable @inline(__always) public func mark(_ buffer: AvailableBuffer, at n: UInt32) {
    precondition(n < count, "outside the run")
    unsafe lengths[Int(n)] = 1
  }
}

/// Buffers that are out, where the ring's places follow one another, with the staged entries that they are put into.
/// `@safe`: as `PackedTakingRun`; there are as many staged entries as the ring has.
@safe @frozen public struct PackedPuttingRun: PuttingRun {
  @usableFromInline let words: UnsafeMutableRawPointer
  @usableFromInline let places: UnsafeMutableRawPointer
  @usableFromInline let lengths: UnsafeMutablePointer<UInt16>
  @usableFromInline let place: UInt32
  @usableFromInline let bits: UInt16
  public let count: UInt32

  @inlinable init(
    words: UnsafeMutableRawPointer, places: UnsafeMutableRawPointer, lengths: UnsafeMutablePointer<UInt16>, place: UInt32, bits: UInt16,
    count: UInt32
  ) {
    unsafe (self.words, self.places, self.lengths) = (words, places, lengths)
    (self.place, self.bits, self.count) = (place, bits, count)
  }

  @inlinable @inline(__always) public func isPlain(at n: UInt32) -> Bool {
    precondition(n < count, "outside the run")
    return unsafe lengths[Int(n)] == 1
  }
  /// Precondition: `byteCount > 0`.
  @inlinable @inline(__always) public func put(_ id: UInt16, byteCount: UInt32, at n: UInt32) {
    precondition(n < count, "outside the run")
    // virtio 1.3, 2.8.4: WRITE says that there are bytes.
    let flags = bits | Descriptor.isWritable
    unsafe sl_store64(words + 8 * Int(n), UInt64(byteCount) | UInt64(id) << 32 | UInt64(flags) << 48)
    unsafe sl_store16(places + 2 * Int(n), UInt16(truncatingIfNeeded: place &+ n))
  }
}
