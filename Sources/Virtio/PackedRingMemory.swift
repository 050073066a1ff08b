public import CLinux
public import GuestMemory

/// The three areas of a packed virtqueue in guest memory: virtio 1.3, 2.8.13 "The Virtqueue Descriptor Format" and
/// 2.8.14 "Event Suppression Structure Format".
///
/// `@safe`: each area was checked, once, to lie wholly in a region of the map that is held here; a place is never a
/// number of the driver's, and is less than the size. The driver may write any of it at any moment, so each read is one
/// load, and nothing is read twice to be believed twice.
@safe public struct PackedRingMemory: ~Copyable {
  @usableFromInline let descriptors: UnsafeMutableRawPointer
  /// The driver's event suppression: when it wants to hear of us.
  @usableFromInline let driverEvents: UnsafeMutableRawPointer
  /// Ours: when we want to be kicked.
  @usableFromInline let deviceEvents: UnsafeMutableRawPointer
  public let size: UInt32
  private var areas: RingAreas

  /// VIRTQ_DESC_F_AVAIL and VIRTQ_DESC_F_USED: virtio 1.3, 2.8.1.
  @inlinable static var availableFlag: UInt16 { 0x0080 }
  @inlinable static var usedFlag: UInt16 { 0x8000 }
  @inlinable static var bothFlags: UInt16 { 0x8080 }
  /// VIRTQ_DESC_F_NEXT, _WRITE, _INDIRECT: the bits that the driver's descriptors mean something by besides.
  @inlinable static var kindFlags: UInt16 { 7 }

  init(_ layout: RingLayout, in view: inout MemoryView) throws(VirtqueueError) {
    guard layout.size >= 1, layout.size <= RingLayout.largestSize else { throw .badSize(layout.size) }
    areas = try RingAreas(
      [
        .init(start: layout.descriptorArea, byteCount: Self.descriptorAreaBytes(layout.size), alignment: 16),
        .init(start: layout.driverArea, byteCount: Self.eventAreaBytes, alignment: 4),
        .init(start: layout.deviceArea, byteCount: Self.eventAreaBytes, alignment: 4),
      ], in: &view)
    unsafe (descriptors, driverEvents, deviceEvents) = (areas.bases[0], areas.bases[1], areas.bases[2])
    size = UInt32(layout.size)
  }

  /// One that nobody uses.
  init(unused view: borrowing MemoryView) {
    areas = RingAreas(none: view)
    unsafe (descriptors, driverEvents, deviceEvents) = (areas.bases[0], areas.bases[1], areas.bases[2])
    size = 1
  }

  /// Bytes of each area.
  public static func descriptorAreaBytes(_ size: Int) -> Int { 16 * size }
  public static var eventAreaBytes: Int { 4 }

  /// Holds another map, in which every area must be where it is now.
  mutating func hold(_ map: MemoryMap) throws(VirtqueueError) { try areas.hold(map) }

  /// Length, ID and flags of a descriptor in one load; what the driver wrote before its flags can be read after it.
  @inlinable func wordAcquire(_ place: UInt32) -> UInt64 { unsafe sl_load64_acquire(descriptors + (16 * Int(place) + 8)) }
  @inlinable func address(_ place: UInt32) -> GuestAddress {
    GuestAddress(unsafe sl_load64(descriptors + 16 * Int(place)))
  }
  /// A descriptor in the middle of a chain: its flags say nothing of whether it may be used, the first one's do.
  @inlinable func buffer(_ place: UInt32) -> AvailableBuffer {
    let word = unsafe sl_load64(descriptors + (16 * Int(place) + 8))
    return AvailableBuffer(word: word, address: address(place))
  }
  func flags(_ place: UInt16) -> UInt16 { unsafe sl_load16(descriptors + (16 * Int(place) + 14)) }

  /// Writes a used descriptor's length, ID and flags; its address stays the driver's.
  @inlinable func storeUsed(_ place: UInt16, _ word: UInt64) {
    unsafe sl_store64(descriptors + (16 * Int(place) + 8), word)
  }
  /// The same, and all that was stored before is seen by who sees it.
  @inlinable func storeUsedRelease(_ place: UInt16, _ word: UInt64) {
    unsafe sl_store64_release(descriptors + (16 * Int(place) + 8), word)
  }

  /// Position below, flags above: both in one load.
  @inlinable var driverEvent: UInt32 { unsafe sl_load32(driverEvents) }
  func setDeviceEvent(_ position: RingPosition, flags: UInt32) {
    unsafe sl_store32(deviceEvents, UInt32(position.rawValue) | flags << 16)
  }
}

extension AvailableBuffer {
  /// A packed descriptor: length, ID and flags in one word, lowest first.
  @inlinable init(word: UInt64, address: GuestAddress) {
    self.init(
      range: GuestRange(address, count: UInt32(truncatingIfNeeded: word)),
      flags: UInt16(truncatingIfNeeded: word >> 48) & PackedRingMemory.kindFlags,
      id: UInt16(truncatingIfNeeded: word >> 32))
  }
}
