public import CLinux
public import GuestMemory

/// The three parts of a split virtqueue in guest memory.
///
/// `@safe`: each part was checked, once, to lie wholly in a region of the map that is held here; every index
/// is masked to the size at the access. The driver may write any of it at any moment, so each
/// read is one load, and nothing is read twice to be believed twice.
@safe public struct SplitRingMemory: ~Copyable {
  @usableFromInline let descriptors: UnsafeMutableRawPointer
  @usableFromInline let available: UnsafeMutableRawPointer
  @usableFromInline let used: UnsafeMutableRawPointer
  @usableFromInline let mask: UInt32
  private var areas: RingAreas

  public init(_ layout: SplitRingLayout, in view: inout MemoryView) throws(VirtqueueError) {
    let size = layout.size
    guard size >= 1, size <= SplitRingLayout.largestSize, size & (size - 1) == 0 else { throw .badSize(size) }
    areas = try RingAreas(
      [
        .init(start: layout.descriptorTable, byteCount: SplitRingLayout.descriptorTableBytes(size), alignment: 16),
        .init(start: layout.availableRing, byteCount: SplitRingLayout.availableRingBytes(size), alignment: 2),
        .init(start: layout.usedRing, byteCount: SplitRingLayout.usedRingBytes(size), alignment: 4),
      ], in: &view)
    unsafe (descriptors, available, used) = (areas.bases[0], areas.bases[1], areas.bases[2])
    mask = UInt32(size - 1)
  }

  /// One that nobody uses.
  init(unused view: borrowing MemoryView) {
    areas = RingAreas(none: view)
    unsafe (descriptors, available, used) = (areas.bases[0], areas.bases[1], areas.bases[2])
    mask = 0
  }

  /// Holds another map, in which every part must be where it is now.
  mutating func hold(_ map: MemoryMap) throws(VirtqueueError) { try areas.hold(map) }

  @inlinable public var size: UInt32 { mask &+ 1 }

  /// The driver's index; every entry that it covers can be read after this. Pairs with the driver's release.
  @inlinable public var availableIndex: UInt16 { unsafe sl_load16_acquire(available + 2) }
  /// VIRTQ_AVAIL_F_NO_INTERRUPT is bit 0.
  @inlinable public var availableFlags: UInt16 { unsafe sl_load16(available) }
  /// After which used index the driver wants to hear of us. virtio 1.3, 2.7.7.
  @inlinable public var usedEvent: UInt16 { unsafe sl_load16(available + 4 + 2 * Int(size)) }
  @inlinable public func head(at index: UInt16) -> UInt16 {
    unsafe sl_load16(available + 4 + 2 * Int(UInt32(index) & mask))
  }

  @inlinable public func descriptor(_ index: UInt16) -> Descriptor {
    let entry = unsafe descriptors + 16 * Int(UInt32(index) & mask)
    return Descriptor(word: unsafe sl_load64(entry + 8), address: GuestAddress(unsafe sl_load64(entry)))
  }

  @inlinable public func prefetch(at index: UInt16) {
    unsafe sl_prefetch(available + 4 + 2 * Int(UInt32(index) & mask))
  }

  /// Writes one element of the used ring; nobody looks at it before the index is published.
  @inlinable public func storeUsed(at index: UInt16, id: UInt16, byteCount: UInt32) {
    let element = unsafe used + 4 + 8 * Int(UInt32(index) & mask)
    unsafe sl_store32(element, UInt32(id))
    unsafe sl_store32(element + 4, byteCount)
  }
  /// Makes everything stored before visible to the driver. virtio 1.3, 2.7.8.2.
  @inlinable public func publish(index: UInt16) { unsafe sl_store16_release(used + 2, index) }
  public func publishedIndex() -> UInt16 { unsafe sl_load16(used + 2) }
  /// VIRTQ_USED_F_NO_NOTIFY is bit 0.
  public func setUsedFlags(_ flags: UInt16) { unsafe sl_store16(used, flags) }
  /// At which available index the driver shall kick us. virtio 1.3, 2.7.10.
  public func setAvailableEvent(_ index: UInt16) { unsafe sl_store16(used + 4 + 8 * Int(size), index) }
}
