public import GuestMemory

/// A guest's queue in either of the two formats, from the device's side. virtio 1.3, 2.6 "Virtqueues".
///
/// Both formats are here and one of them is unused: a branch that always goes the same way costs less than a call that
/// nobody can inline.
///
/// A buffer is looked at (`next`), taken whole (`take` or `takeChain`), given back (`put`) and shown (`publish`, or `show` and `mustNotify`).
/// Everything goes back in the order it was taken: that is IN_ORDER, kept whether it was agreed on or not, because a
/// back-end that dies can then be followed by one that knows where to go on. One used element or descriptor a buffer.
public struct Virtqueue: ~Copyable {
  /// The one of the two that is used is there for who goes through it by runs.
  public var split: SplitVirtqueue
  public var packed: PackedVirtqueue
  /// VIRTIO_F_RING_PACKED was agreed on.
  public let isPacked: Bool
  public let features: Features
  public let layout: RingLayout
  /// Buffers that were put and not published.
  @usableFromInline var putCount: UInt16 = 0

  /// - Parameters:
  ///   - features: as agreed on; they decide the format.
  ///   - base: where the front-end says to go on. The ring itself knows better if it is split, and the record if it is
  ///     packed: see `SplitVirtqueue.init`, `RingRecord`.
  ///   - record: where a packed virtqueue is written down so that a successor can go on. A split one needs none.
  public init(
    _ layout: RingLayout, features: Features, base: RingBase, record: RingRecord? = nil, in view: inout MemoryView
  ) throws(VirtqueueError) {
    isPacked = features.contains(.ringPacked)
    self.features = features
    self.layout = layout
    let split = isPacked
      ? SplitVirtqueue(unused: view)
      : try SplitVirtqueue(SplitRingLayout(layout), features: features, base: base.available, in: &view)
    let packed = isPacked
      ? try PackedVirtqueue(layout, features: features, base: base, record: record, in: &view)
      : PackedVirtqueue(unused: view)
    self.split = split
    self.packed = packed
  }

  /// Entries.
  @inlinable public var size: UInt32 { isPacked ? packed.size : split.size }
  /// Where a back-end that follows must go on: after everything that was published.
  @inlinable public var base: RingBase {
    isPacked ? RingBase(packed: packed.usedPosition) : RingBase(split: split.usedIndex)
  }

  /// Set by the first thing the driver does wrong; from then on nothing more is taken.
  @inlinable public var fault: VirtqueueFault? { isPacked ? packed.fault : split.fault }
  @inlinable public var isFaulted: Bool { isPacked ? packed.isFaulted : split.isFaulted }
  /// Records a fault that somebody else found in what this queue's driver gave.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  public mutating func poison(_ fault: VirtqueueFault) {
    if isPacked { packed.poison(fault) } else { split.poison(fault) }
  }

  /// Holds another memory map, in which every part of the queue must be where it is now: memory was added elsewhere.
  public mutating func hold(_ map: MemoryMap) throws(VirtqueueError) {
    if isPacked { try packed.hold(map) } else { try split.hold(map) }
  }

  // MARK: What is available

  /// How many buffers can be taken now, none of a queue with a fault. Exact of a split virtqueue; a packed one says only
  /// that there are some, and how many there may be at most: `next` says when they end.
  @inlinable @inline(__always) public mutating func pending() -> UInt32 { isPacked ? packed.pending() : split.pending() }

  /// The next buffer's first descriptor, read once; it is not taken yet. Precondition: fewer were taken since `pending`
  /// than it said. Nil if there is none, or if there was a fault.
  @inlinable public mutating func next() -> AvailableBuffer? { isPacked ? packed.next() : split.next() }

  /// Takes what `next` showed. Precondition: it has one descriptor and no table; `takeChain` takes any.
  @inlinable public mutating func take(_ buffer: AvailableBuffer) {
    if isPacked { packed.take(buffer) } else { split.take(buffer) }
  }

  /// Takes the buffer that `next` showed, reading the whole of it. Answers its ID; nil, and a fault, if it is not one that
  /// the device may use so.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  public mutating func takeChain(
    _ first: AvailableBuffer, _ direction: BufferDirection, into chain: inout DescriptorChain, in view: inout MemoryView
  ) -> UInt16? {
    if isPacked { return packed.takeChain(first, direction, into: &chain, in: &view) }
    split.take(first)
    return split.read(first.id, direction, into: &chain, in: &view) ? first.id : nil
  }

  /// Reads the oldest buffer that was not put once more, and checks it once more. False, and a fault, if it changed for
  /// something that it must not be.
  ///
  /// - Parameter id: what it was taken by.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  public mutating func readOldest(
    _ id: UInt16, _ direction: BufferDirection, into chain: inout DescriptorChain, in view: inout MemoryView
  ) -> Bool {
    isPacked
      ? packed.readOldest(direction, into: &chain, in: &view) : split.read(id, direction, into: &chain, in: &view)
  }

  // MARK: What was used

  /// Gives back the oldest buffer: the driver's name for it, and how many bytes were written from its beginning.
  /// Nobody sees it before `publish`.
  @inlinable public mutating func put(_ id: UInt16, byteCount: UInt32) {
    if isPacked {
      packed.put(id, byteCount: byteCount, at: putCount)
    } else {
      split.put(id, byteCount: byteCount, at: putCount)
    }
    putCount = putCount &+ 1
  }

  /// So many were put through a run: see `RingFormat`.
  @inlinable public var unshownCount: UInt16 { putCount }
  @inlinable public mutating func countPut(_ count: UInt16) { putCount = putCount &+ count }

  /// Makes the first `count` of what was put visible together, and forgets the rest.
  @inlinable @inline(__always) public mutating func show(_ count: UInt16) {
    let put = putCount
    putCount = 0
    if isPacked { packed.show(count, of: put) } else { split.show(count) }
  }
  /// Whether the driver asked to be told of what was shown since this was asked last. It costs a full fence, which waits until
  /// what was shown is visible. Whoever shows something asks some time later, and at the latest before he waits for the driver.
  @inlinable @inline(__always) public mutating func mustNotify() -> Bool { isPacked ? packed.mustNotify() : split.mustNotify() }
  /// Both. True if the driver asked to be told.
  @inlinable @inline(__always) public mutating func publish(_ count: UInt16) -> Bool {
    let put = putCount
    putCount = 0
    return isPacked ? packed.publish(count, of: put) : split.publish(count)
  }

  // MARK: Notifications

  /// Tells the driver not to kick: we look by ourselves. A hint; kicks may come all the same.
  public mutating func disableNotifications() {
    if isPacked { packed.disableNotifications() } else { split.disableNotifications() }
  }
  /// Asks for a kick at the next buffer. True if one is there already: then there will be no kick for it.
  public mutating func enableNotifications() -> Bool {
    isPacked ? packed.enableNotifications() : split.enableNotifications()
  }
}
