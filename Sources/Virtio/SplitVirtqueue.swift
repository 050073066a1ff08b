public import CLinux
public import GuestMemory

/// A split virtqueue from the device's side: takes what the driver makes available, gives back what was used.
/// virtio 1.3, 2.7 "Split Virtqueues".
///
/// Everything goes back in the order it came: with IN_ORDER or without, because a back-end that dies can then be
/// followed by one that starts at the used index.
@safe public struct SplitVirtqueue: ~Copyable {
  @usableFromInline var ring: SplitRingMemory
  /// One byte a descriptor: whether it is the head of a buffer that is out.
  @usableFromInline let outstanding: UnsafeMutablePointer<UInt8>
  /// Free-running, as the driver's own indices; masked at the access.
  @usableFromInline var nextAvailable: UInt16
  @usableFromInline var nextUsed: UInt16
  /// The used index when the driver's wish to be told was looked at.
  @usableFromInline var lookedAtUsed: UInt16
  @usableFromInline let usesEventIndex: Bool
  private let allowsIndirect: Bool
  public let features: Features
  @usableFromInline var firstFault: VirtqueueFault?
  /// Set by the first thing the driver does wrong; from then on nothing more is taken.
  @inlinable public var fault: VirtqueueFault? { firstFault }
  /// Whether the driver has done something wrong.
  @inlinable public var isFaulted: Bool { if case .none = firstFault { false } else { true } }

  /// - Parameter base: where the front-end says to go on. What counts is the ring's own used index, which says to
  ///   which entry everything was given back, whatever became of who gave it: it may lie up to the queue's size behind.
  ///   Of 0 nothing is asked: DPDK's virtio-user says it at every connection. It is read once, here.
  public init(
    _ layout: SplitRingLayout, features: Features, base: UInt16 = 0, in view: inout MemoryView
  ) throws(VirtqueueError) {
    let ring = try SplitRingMemory(layout, in: &view)
    let used = ring.publishedIndex()
    guard base == 0 || Int(base &- used) <= layout.size else {
      throw .baseFarFromUsed(base: base, used: used, size: layout.size)
    }
    self.ring = ring
    unsafe outstanding = .allocate(capacity: layout.size)
    unsafe outstanding.initialize(repeating: 0, count: layout.size)
    self.features = features
    usesEventIndex = features.contains(.eventIndex)
    allowsIndirect = features.contains(.indirectDescriptors)
    (nextAvailable, nextUsed, lookedAtUsed) = (used, used, used)
  }

  /// One that nobody uses.
  init(unused view: borrowing MemoryView) {
    ring = SplitRingMemory(unused: view)
    unsafe outstanding = .allocate(capacity: 1)
    unsafe outstanding.initialize(to: 0)
    features = []
    (usesEventIndex, allowsIndirect) = (false, false)
    (nextAvailable, nextUsed, lookedAtUsed) = (0, 0, 0)
  }

  deinit { unsafe outstanding.deallocate() }

  @inlinable public var size: UInt32 { ring.size }
  /// The used index as last published. What a stopped ring reports as its base.
  @inlinable public var usedIndex: UInt16 { nextUsed }
  /// The next entry of the available ring to take.
  public var availableIndex: UInt16 { nextAvailable }
  /// Buffers that were taken and not given back.
  public var outstandingCount: Int { Int(nextAvailable &- nextUsed) }

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

  /// How many buffers can be taken now; none of a queue with a fault.
  @inlinable public mutating func pending() -> UInt32 {
    if _slowPath(isFaulted) { return 0 }
    let index = ring.availableIndex
    let count = UInt32(index &- nextAvailable)
    if _slowPath(count > ring.size) {
      fail(.indexRanAhead(from: nextAvailable, to: index))
      return 0
    }
    return count
  }

  /// The next buffer's head and its own descriptor, each read once; it is not taken yet. Precondition: fewer were
  /// taken since `pending` than it said. Nil, and a fault, if it is no head that could be there.
  @inlinable public mutating func next() -> AvailableBuffer? {
    let head = ring.head(at: nextAvailable)
    guard _fastPath(UInt32(head) <= ring.mask) else {
      fail(.headOutOfRange(head))
      return nil
    }
    guard _fastPath(unsafe outstanding[Int(head)] == 0) else {
      fail(.headOutstanding(head))
      return nil
    }
    let descriptor = ring.descriptor(head)
    return AvailableBuffer(range: descriptor.range, flags: descriptor.flags, id: head)
  }

  /// Takes what `next` showed, whatever its length.
  @inlinable public mutating func take(_ buffer: AvailableBuffer) {
    unsafe outstanding[Int(UInt32(buffer.id) & ring.mask)] = 1
    nextAvailable = nextAvailable &+ 1
  }

  /// Takes the next buffer's head. As `next` and `take` together.
  @inlinable public mutating func take() -> UInt16? {
    guard let buffer = next() else { return nil }
    take(buffer)
    return buffer.id
  }

  /// Holds another map, in which every part of the ring must be where it is now.
  public mutating func hold(_ map: MemoryMap) throws(VirtqueueError) { try ring.hold(map) }

  /// A head's own descriptor, read once.
  @inlinable public func descriptor(_ head: UInt16) -> Descriptor { ring.descriptor(head) }

  /// Reads a head's whole chain; false, and a fault, if it is not one that the device may use so.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  public mutating func read(
    _ head: UInt16, _ direction: BufferDirection = .writable, into chain: inout DescriptorChain,
    in view: inout MemoryView
  ) -> Bool {
    chain.removeAll()
    var steps: UInt32 = 0
    var index = head
    while true {
      // One step an entry: a chain that is longer than the queue has come to an entry twice.
      guard steps < ring.size else { return refuse(.malformedChain(head: head)) }
      let descriptor = ring.descriptor(index)
      if descriptor.flags & Descriptor.isIndirect != 0 {
        // The flag for writing is ignored on the entry that names a table; the table ends the chain.
        guard allowsIndirect, descriptor.flags & Descriptor.hasNext == 0 else {
          return refuse(.badIndirectTable(head: head))
        }
        guard readTable(descriptor.range, direction, head: head, after: steps, into: &chain, in: &view) else {
          return false
        }
        break
      }
      steps += 1
      if let fault = chain.add(descriptor.range, flags: descriptor.flags, direction, head: head, in: &view) {
        return refuse(fault)
      }
      guard descriptor.flags & Descriptor.hasNext != 0 else { break }
      guard UInt32(descriptor.next) < ring.size else { return refuse(.malformedChain(head: head)) }
      index = descriptor.next
    }
    if let fault = chain.verdict(head: head) { return refuse(fault) }
    return true
  }

  private mutating func readTable(
    _ range: GuestRange, _ direction: BufferDirection, head: UInt16, after entriesBefore: UInt32,
    into chain: inout DescriptorChain, in view: inout MemoryView
  ) -> Bool {
    guard range.count > 0, range.count % 16 == 0, range.count / 16 <= ring.size else {
      return refuse(.badIndirectTable(head: head))
    }
    guard range.count / 16 <= DescriptorChain.largestCount else { return refuse(.chainTooLong(head: head)) }
    guard let table = view.slice(range) else { return refuse(.outsideMemory(range)) }
    let entries = range.count / 16
    var index: UInt32 = 0
    var steps: UInt32 = 0
    while true {
      // With the entries before the table: no chain is longer than its queue. virtio 1.3, 2.7.5.3.1.
      guard steps < entries, entriesBefore + steps < ring.size else { return refuse(.malformedChain(head: head)) }
      steps += 1
      let descriptor = Descriptor(table: table, entry: index)
      guard descriptor.flags & Descriptor.isIndirect == 0 else { return refuse(.badIndirectTable(head: head)) }
      if let fault = chain.add(descriptor.range, flags: descriptor.flags, direction, head: head, in: &view) {
        return refuse(fault)
      }
      guard descriptor.flags & Descriptor.hasNext != 0 else { return true }
      index = UInt32(descriptor.next)
      guard index < entries else { return refuse(.malformedChain(head: head)) }
    }
  }

  private mutating func refuse(_ fault: VirtqueueFault) -> Bool {
    fail(fault)
    return false
  }

  /// Writes the used element `offset` places after the published index. Nobody sees it before `show`.
  @inlinable public mutating func put(_ head: UInt16, byteCount: UInt32, at offset: UInt16) {
    ring.storeUsed(at: nextUsed &+ offset, id: head, byteCount: byteCount)
    unsafe outstanding[Int(UInt32(head) & ring.mask)] = 0
  }

  /// Makes `count` used elements visible in one store.
  @inlinable @inline(__always) public mutating func show(_ count: UInt16) {
    nextUsed = nextUsed &+ count
    ring.publish(index: nextUsed)
  }
  /// Whether the driver asked to be told of what was shown since it was looked at last.
  /// virtio 1.3, 2.7.7 "Used Buffer Notification Suppression".
  @inlinable @inline(__always) public mutating func mustNotify() -> Bool {
    // The index must be visible before the driver's wish is read: the driver does it the other way round.
    sl_fence()
    let old = lookedAtUsed
    lookedAtUsed = nextUsed
    if usesEventIndex { return Self.crosses(event: ring.usedEvent, from: old, to: nextUsed) }
    return ring.availableFlags & 1 == 0
  }

  /// Both. True if the driver asked to be told.
  @inlinable @inline(__always) public mutating func publish(_ count: UInt16) -> Bool {
    show(count)
    return mustNotify()
  }

  /// Whether an index that went from `old` to `new` passed `event`. virtio 1.3, 2.7.7.2, in 16-bit arithmetic.
  @inlinable public static func crosses(event: UInt16, from old: UInt16, to new: UInt16) -> Bool {
    new &- event &- 1 < new &- old
  }

  /// Tells the driver not to kick: we look by ourselves. A hint; kicks may come all the same.
  public mutating func disableNotifications() {
    // With EVENT_IDX an index that lies behind us is not reached for another 65 535 buffers.
    if usesEventIndex { ring.setAvailableEvent(nextAvailable &- 1) }
    // With EVENT_IDX the flags say nothing, and must be 0. virtio 1.3, 2.7.10.2.
    ring.setUsedFlags(usesEventIndex ? 0 : 1)
  }

  /// Asks for a kick at the next buffer. True if one is there already: then there will be no kick for it.
  public mutating func enableNotifications() -> Bool {
    if usesEventIndex { ring.setAvailableEvent(nextAvailable) }
    ring.setUsedFlags(0)
    sl_fence()
    return pending() > 0
  }
}

extension SplitVirtqueue: RingFormat {
  @inlinable @inline(__always) public func taking(_ most: UInt32) -> SplitTakingRun {
    let place = UInt32(nextAvailable) & ring.mask
    return unsafe SplitTakingRun(
      heads: ring.available + (4 + 2 * Int(place)), descriptors: ring.descriptors, outstanding: outstanding, mask: ring.mask,
      count: min(most, ring.size &- place))
  }
  @inlinable @inline(__always) public mutating func advance(taken count: UInt32) {
    nextAvailable = nextAvailable &+ UInt16(truncatingIfNeeded: count)
  }
  @inlinable @inline(__always) public func putting(_ most: UInt32, after offset: UInt32) -> SplitPuttingRun {
    let place = (UInt32(nextUsed) &+ offset) & ring.mask
    return unsafe SplitPuttingRun(
      elements: ring.used + (4 + 8 * Int(place)), outstanding: outstanding, mask: ring.mask, count: min(most, ring.size &- place))
  }
  // What was put lies behind the published index until `show` moves that.
  @inlinable @inline(__always) public mutating func advance(put count: UInt32) {}
}

/// Entries of the available ring that follow one another.
///
/// `@safe`: they lie in the ring, every number is checked against the count, and every head against the ring's size. The virtqueue
/// that it was made by lives as long.
@safe @frozen public struct SplitTakingRun: TakingRun {
  @usableFromInline let heads: UnsafeMutableRawPointer
  @usableFromInline let descriptors: UnsafeMutableRawPointer
  @usableFromInline let outstanding: UnsafeMutablePointer<UInt8>
  @usableFromInline let mask: UInt32
  public let count: UInt32

  @inlinable init(
    heads: UnsafeMutableRawPointer, descriptors: UnsafeMutableRawPointer, outstanding: UnsafeMutablePointer<UInt8>, mask: UInt32,
    count: UInt32
  ) {
    unsafe (self.heads, self.descriptors, self.outstanding) = (heads, descriptors, outstanding)
    (self.mask, self.count) = (mask, count)
  }

  @inlinable @inline(__always) public func plainBuffer(at n: UInt32) -> AvailableBuffer? {
    precondition(n < count, "outside the run")
    let head = unsafe sl_load16(heads + 2 * Int(n))
    guard _fastPath(unsafe UInt32(head) <= mask && outstanding[Int(head)] == 0) else { return nil }
    let entry = unsafe descriptors + 16 * Int(head)
    let descriptor = Descriptor(word: unsafe sl_load64(entry + 8), address: GuestAddress(unsafe sl_load64(entry)))
    guard _fastPath(descriptor.flags == Descriptor.isWritable) else { return nil }
    return AvailableBuffer(range: descriptor.range, flags: descriptor.flags, id: head)
  }
  @inlinable @inline(__always) public func mark(_ buffer: AvailableBuffer, at n: UInt32) {
    unsafe outstanding[Int(UInt32(buffer.id) & mask)] = 1
  }
}

/// Elements of the used ring that follow one another. `@safe`: as `SplitTakingRun`.
@safe @frozen public struct SplitPuttingRun: PuttingRun {
  @usableFromInline let elements: UnsafeMutableRawPointer
  @usableFromInline let outstanding: UnsafeMutablePointer<UInt8>
  @usableFromInline let mask: UInt32
  public let count: UInt32

  @inlinable init(elements: UnsafeMutableRawPointer, outstanding: UnsafeMutablePointer<UInt8>, mask: UInt32, count: UInt32) {
    unsafe (self.elements, self.outstanding) = (elements, outstanding)
    (self.mask, self.count) = (mask, count)
  }

  @inlinable @inline(__always) public func isPlain(at n: UInt32) -> Bool { true }
  @inlinable @inline(__always) public func put(_ id: UInt16, byteCount: UInt32, at n: UInt32) {
    precondition(n < count, "outside the run")
    // virtio 1.3, 2.7.8: id, then len, both of 32 bits.
    unsafe sl_store64(elements + 8 * Int(n), UInt64(id) | UInt64(byteCount) << 32)
    unsafe outstanding[Int(UInt32(id) & mask)] = 0
  }
}
