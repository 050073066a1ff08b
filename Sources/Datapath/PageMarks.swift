internal import GuestMemory
internal import Virtio

/// What a path marks in the log of a front-end that migrates its guest: nothing, until there is a log. Who has it holds
/// the log: there is no reference to count here.
///
/// Bytes are marked after they were written: a bit that is older than its bytes would let a front-end send the page
/// without them.
struct PageMarks {
  private let writer: DirtyLog.Writer
  /// Where the front-end wants the used ring to be marked; of a packed virtqueue the device's event suppression.
  private let ringAddress: GuestAddress

  init(_ log: DirtyLog? = nil, ringLogAddress: GuestAddress? = nil, layout: RingLayout) {
    writer = log?.writer ?? .none
    ringAddress = ringLogAddress ?? layout.deviceArea
  }

  /// Each answers how many pages were marked that were not before.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  func mark(_ start: GuestAddress, byteCount: UInt64) -> Int { writer.mark(start, byteCount: byteCount) }

  /// What showing used buffers has written.
  #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
  @_noLocks
  #endif
  func markUsed(from old: RingBase, to new: RingBase, layout: RingLayout, isPacked: Bool) -> Int {
    let size = UInt64(layout.size)
    var (start, entryBytes, first, count, fresh): (UInt64, UInt64, UInt64, UInt64, Int)
    if isPacked {
      let position = RingPosition(place: old.used, wrap: old.usedWrap)
      let end = RingPosition(place: new.used, wrap: new.usedWrap)
      (start, entryBytes, fresh) = (layout.descriptorArea.rawValue, 16, 0)
      (first, count) = (UInt64(old.used), UInt64(position.distance(to: end, size: UInt32(layout.size))))
    } else {
      (start, entryBytes) = (ringAddress.rawValue &+ 4, 8)
      (first, count) = (UInt64(old.used) % size, UInt64(new.used &- old.used))
      fresh = mark(GuestAddress(ringAddress.rawValue &+ 2), byteCount: 2)
    }
    let untilEnd = min(count, size - first)
    fresh += mark(GuestAddress(start &+ entryBytes * first), byteCount: entryBytes * untilEnd)
    return fresh + mark(GuestAddress(start), byteCount: entryBytes * (count - untilEnd))
  }

  /// What asking for kicks, or for none, has written.
  func markNotifications(layout: RingLayout, isPacked: Bool) -> Int {
    if isPacked { return mark(ringAddress, byteCount: UInt64(PackedRingMemory.eventAreaBytes)) }
    let event = GuestAddress(ringAddress.rawValue &+ 4 &+ 8 * UInt64(layout.size))
    return mark(ringAddress, byteCount: 2) + mark(event, byteCount: 2)
  }

  /// All of the ring that a device writes: what may have been written before there was a log.
  func markRing(layout: RingLayout, isPacked: Bool) -> Int {
    let size = layout.size
    if !isPacked { return mark(ringAddress, byteCount: UInt64(SplitRingLayout.usedRingBytes(size))) }
    return mark(layout.descriptorArea, byteCount: UInt64(PackedRingMemory.descriptorAreaBytes(size)))
      + markNotifications(layout: layout, isPacked: true)
  }
}
