internal import CLinux
internal import Virtio

/// A split virtqueue's memory as the driver sees it: it writes the descriptors and the available ring, and reads the used ring.
/// virtio 1.3, 2.7 "Split Virtqueues".
///
/// `@safe`: the three parts were checked to be guest memory of the right size, the guest keeps its memory mapped
/// as long as its rings, and every index is brought into range by the mask.
@safe struct DriverRing: ~Copyable {
  private let descriptors: UnsafeMutableRawPointer
  private let available: UnsafeMutableRawPointer
  private let used: UnsafeMutableRawPointer
  /// Entries, a power of two.
  let size: Int
  private let mask: Int

  /// Bits of a descriptor's flags. 2.7.5.
  static let next: UInt16 = 1
  static let write: UInt16 = 2
  static let indirect: UInt16 = 4

  init(_ layout: SplitRingLayout, in memory: borrowing GuestMemoryFiles) {
    unsafe descriptors = memory.host(layout.descriptorTable, SplitRingLayout.descriptorTableBytes(layout.size))
    unsafe available = memory.host(layout.availableRing, SplitRingLayout.availableRingBytes(layout.size))
    unsafe used = memory.host(layout.usedRing, SplitRingLayout.usedRingBytes(layout.size))
    size = layout.size
    mask = layout.size - 1
    // A driver hands over rings of zeros.
    unsafe sl_fill(descriptors, 0, SplitRingLayout.descriptorTableBytes(layout.size))
    unsafe sl_fill(available, 0, SplitRingLayout.availableRingBytes(layout.size))
    unsafe sl_fill(used, 0, SplitRingLayout.usedRingBytes(layout.size))
  }

  // The driver's side.

  @inline(__always)
  func writeDescriptor(_ index: Int, address: UInt64, byteCount: UInt32, flags: UInt16, next: UInt16) {
    let entry = unsafe descriptors + 16 * (index & mask)
    unsafe sl_store64(entry, address)
    unsafe sl_store64(entry + 8, Self.word(byteCount, flags, next))
  }

  /// Whether a descriptor still says what was written into it.
  func holdsDescriptor(_ index: Int, address: UInt64, byteCount: UInt32, flags: UInt16, next: UInt16) -> Bool {
    let entry = unsafe descriptors + 16 * (index & mask)
    return unsafe sl_load64(entry) == address && sl_load64(entry + 8) == Self.word(byteCount, flags, next)
  }

  /// A descriptor's upper eight bytes: len, flags, next.
  @inline(__always)
  static func word(_ byteCount: UInt32, _ flags: UInt16, _ next: UInt16) -> UInt64 {
    UInt64(byteCount) | UInt64(flags) << 32 | UInt64(next) << 48
  }

  @inline(__always) func setAvailable(_ index: UInt16, head: UInt16) {
    unsafe sl_store16(available + 4 + 2 * (Int(index) & mask), head)
  }
  func availableHead(_ index: UInt16) -> UInt16 {
    unsafe sl_load16(available + 4 + 2 * (Int(index) & mask))
  }
  /// Makes every entry below `index` visible to the device, which reads it with acquire. 2.7.13.3.
  @inline(__always) func publish(availableIndex index: UInt16) {
    unsafe sl_store16_release(available + 2, index)
  }
  var publishedIndex: UInt16 { unsafe sl_load16(available + 2) }

  /// VIRTQ_AVAIL_F_NO_INTERRUPT or not; of no effect with VIRTIO_F_EVENT_IDX. 2.7.7.
  func setNoInterrupt(_ isSet: Bool) { unsafe sl_store16(available, isSet ? 1 : 0) }
  /// used_event. 2.7.7.
  func setUsedEvent(_ index: UInt16) { unsafe sl_store16(available + 4 + 2 * size, index) }

  // The device's side.

  /// used.idx, with acquire: it pairs with the device's release of the elements below it.
  @inline(__always) var usedIndex: UInt16 { unsafe sl_load16_acquire(used + 2) }
  @inline(__always) func usedElement(_ index: UInt16) -> (id: UInt32, byteCount: UInt32) {
    let entry = unsafe used + 4 + 8 * (Int(index) & mask)
    return unsafe (sl_load32(entry), sl_load32(entry + 4))
  }
  /// VIRTQ_USED_F_NO_NOTIFY; of no meaning with VIRTIO_F_EVENT_IDX. 2.7.10.
  var noNotify: Bool { unsafe sl_load16(used) & 1 != 0 }
  /// avail_event. 2.7.10.
  var availableEvent: UInt16 { unsafe sl_load16(used + 4 + 8 * size) }

  /// Whether an index that moved from `old` to `new` passed the one that the other side waits for. 2.7.10.1.
  static func passed(_ event: UInt16, from old: UInt16, to new: UInt16) -> Bool {
    new &- event &- 1 < new &- old
  }
}
