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
  /// What was given back and not yet published lies here, and nowhere else.
  @usableFromInline let entries: UnsafeMutableRawPointer
  @usableFromInline let recordedState: UnsafeMutableRawPointer
  private let record: RingRecord

  /// The next descriptor to take, and what its AVAIL and USED flags are when it is there.
  @usableFromInline var nextAvailable: RingPosition
  @usableFromInline var availableBits: UInt16
  /// The oldest buffer that was not put, and the oldest that was not published.
  @usableFromInline var nextPut: RingPosition
  @usableFromInline var nextUsed: RingPosition
  @usableFromInline var putCount: UInt32 = 0
  /// Descriptors that were taken and not published: never more than the ring has.
  @usableFromInline var takenCount: UInt32 = 0
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
    self.record.begin(layout, at: position)
    unsafe (entries, recordedState) = (self.record.entries, self.record.state)
    unsafe lengths = .allocate(capacity: layout.size)
    unsafe lengths.initialize(repeating: 1, count: layout.size)
    self.features = features
    usesEventIndex = features.contains(.eventIndex)
    allowsIndirect = features.contains(.indirectDescriptors)
    (nextAvailable, nextPut, nextUsed) = (position, position, position)
    availableBits = position.wrap ? PackedRingMemory.availableFlag : PackedRingMemory.usedFlag
  }

  /// One that nobody uses.
  init(unused view: borrowing MemoryView) {
    ring = PackedRingMemory(unused: view)
    record = RingRecord(ringSize: 1)
    unsafe (entries, recordedState) = (record.entries, record.state)
    unsafe lengths = .allocate(capacity: 1)
    unsafe lengths.initialize(to: 1)
    features = []
    (usesEventIndex, allowsIndirect) = (false, false)
    (nextAvailable, nextPut, nextUsed) = (.start, .start, .start)
    availableBits = PackedRingMemory.availableFlag
  }

  deinit { unsafe lengths.deallocate() }

  @inlinable public var size: UInt32 { ring.size }
  /// What was published last ended here. What a stopped ring reports as its base.
  public var usedPosition: RingPosition { nextUsed }
  /// Descriptors that were taken and not published.
  public var outstandingDescriptors: Int { Int(takenCount) }

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
  @inlinable public func pending() -> UInt32 {
    if _slowPath(isFaulted) { return 0 }
    if takenCount == ring.size { return 0 }
    return isAvailable(ring.wordAcquire(nextAvailable.place)) ? ring.size &- takenCount : 0
  }

  /// Whether a descriptor of this word is the driver's offer in this lap. virtio 1.3, 2.8.1.
  @inlinable func isAvailable(_ word: UInt64) -> Bool {
    UInt16(truncatingIfNeeded: word >> 48) & (PackedRingMemory.availableFlag | PackedRingMemory.usedFlag) == availableBits
  }

  /// The next buffer's first descriptor, read once; it is not taken yet. Nil if there is none, or if there was a fault.
  @inlinable public func next() -> AvailableBuffer? {
    guard takenCount != ring.size, _fastPath(!isFaulted) else { return nil }
    let word = ring.wordAcquire(nextAvailable.place)
    guard isAvailable(word) else { return nil }
    return AvailableBuffer(word: word, address: ring.address(nextAvailable.place))
  }

  /// Takes what `next` showed. Precondition: it has one descriptor.
  @inlinable public mutating func take(_ buffer: AvailableBuffer) {
    unsafe lengths[Int(nextAvailable.place)] = 1
    advance(by: 1)
  }

  @inlinable mutating func advance(by count: UInt32) {
    let from = nextAvailable
    nextAvailable = from.advanced(by: count, size: ring.size)
    if (from.rawValue ^ nextAvailable.rawValue) & 0x8000 != 0 {
      availableBits ^= PackedRingMemory.availableFlag | PackedRingMemory.usedFlag
    }
    takenCount &+= count
  }

  /// Takes the buffer whose first descriptor `next` showed, reading the whole of it. Nil, and a fault, if it is not one
  /// that the device may use so.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  public mutating func takeChain(
    _ first: AvailableBuffer, _ direction: BufferDirection, into chain: inout DescriptorChain, in view: inout MemoryView
  ) -> UInt16? {
    let start = nextAvailable
    guard let (count, id) = read(first, at: start, limit: ring.size &- takenCount, direction, into: &chain, in: &view)
    else { return nil }
    unsafe lengths[Int(start.place)] = UInt16(truncatingIfNeeded: count)
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
    let length = UInt32(unsafe lengths[Int(nextPut.place)])
    guard let (count, _) = read(
      ring.buffer(nextPut.place), at: nextPut, limit: length, direction, into: &chain, in: &view)
    else { return false }
    return count == length || refuse(.malformedChain(head: nextPut.place))
  }

  /// Answers how many descriptors of the ring a buffer has, and its ID: the last one's. virtio 1.3, 2.8.6.
  private mutating func read(
    _ first: AvailableBuffer, at start: RingPosition, limit: UInt32, _ direction: BufferDirection,
    into chain: inout DescriptorChain, in view: inout MemoryView
  ) -> (count: UInt32, id: UInt16)? {
    chain.removeAll()
    let head = start.place
    var position = start
    var count: UInt32 = 1
    var buffer = first
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
        // The rest of the ring is not the driver's to offer.
        guard count < limit else {
          fail(.malformedChain(head: head))
          return nil
        }
        position = position.advanced(by: 1, size: ring.size)
        count += 1
        buffer = ring.buffer(position.place)
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

  /// Gives back the oldest buffer. Nobody sees it before `publish`, and the ring is not touched. Precondition: one is out.
  @inlinable public mutating func put(_ id: UInt16, byteCount: UInt32) {
    unsafe sl_store64(
      entries + 8 * Int(putCount), UsedEntry(byteCount: byteCount, id: id, position: nextPut).rawValue)
    nextPut = nextPut.advanced(by: UInt32(unsafe lengths[Int(nextPut.place)]), size: ring.size)
    putCount &+= 1
  }

  /// Makes the first `count` of what was put visible together, and forgets the rest. True if the driver asked to be
  /// told. The first descriptor is written last: the driver looks at none behind it before. virtio 1.3, 2.8.9.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  public mutating func publish(_ count: UInt16) -> Bool {
    precondition(count <= putCount, "publishes what was not put")
    let wanted = UInt32(count)
    if wanted < putCount { nextPut = entry(wanted).position }
    putCount = 0
    let (before, after) = (nextUsed, nextPut)
    guard wanted > 0 else { return false }
    sl_fence_release()
    unsafe sl_store64(recordedState, RingRecord.State(before: before, after: after, count: count).rawValue)
    sl_fence_release()
    var n: UInt32 = 1
    while n < wanted {
      let entry = entry(n)
      ring.storeUsed(entry.position.place, entry.word)
      n += 1
    }
    let first = entry(0)
    ring.storeUsedRelease(first.position.place, first.word)
    nextUsed = after
    let length = before.distance(to: after, size: ring.size)
    takenCount &-= length
    // The descriptors must be visible before the driver's wish is read: the driver does it the other way round.
    sl_fence()
    return wantsNotification(from: before, length: length)
  }

  private func entry(_ n: UInt32) -> UsedEntry { UsedEntry(rawValue: unsafe sl_load64(entries + 8 * Int(n))) }

  // MARK: Notifications

  /// RING_EVENT_FLAGS_ENABLE, _DISABLE and _DESC; the fourth is reserved, and means the first. virtio 1.3, 2.8.14.
  private enum EventFlags {
    static let enable: UInt32 = 0, disable: UInt32 = 1, descriptor: UInt32 = 2
  }

  private func wantsNotification(from old: RingPosition, length: UInt32) -> Bool {
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
    ring.setDeviceEvent(nextAvailable, flags: usesEventIndex ? EventFlags.descriptor : EventFlags.enable)
    sl_fence()
    return pending() > 0
  }
}
