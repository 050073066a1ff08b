import CLinux
import GuestMemory
import Linux
import Virtio

/// A guest with one split receive queue, that looks by itself and offers each buffer again where it came back: written
/// once, for both paths. Rings lie in one region of its memory, buffers in another.
///
/// `@safe`: rings and buffers lie in mappings that the map holds, and every index is masked to them.
@safe final class Guest {
  static let features: Features = [.version1, .mergeableBuffers, .eventIndex, .guestChecksum]
  private static let bufferBytes = 2048
  private static let bufferStart: UInt64 = 4 << 30

  let size: Int
  let map: MemoryMap
  let layout: RingLayout
  private let rings: UnsafeMutableRawPointer
  private let buffers: UnsafeMutableRawPointer
  private let ringBytes: Int
  private let (available, used): (Int, Int)
  private var offered: UInt16 = 0
  private var seen: UInt16 = 0

  init(ringSize: Int) throws {
    size = ringSize
    available = 16 * ringSize
    used = (available + 6 + 2 * ringSize + 4095) & ~4095
    ringBytes = (used + 6 + 8 * ringSize + 4095) & ~4095
    let low = MemoryRegion(at: GuestAddress(0), mapping: try Mapping(anonymousBytes: ringBytes, alignment: 2 << 20))
    let high = MemoryRegion(
      at: GuestAddress(Self.bufferStart), mapping: try Mapping(anonymousBytes: ringSize * Self.bufferBytes, alignment: 2 << 20))
    unsafe (rings, buffers) = (low.base, high.base)
    map = try MemoryMap([low, high])
    layout = RingLayout(
      size: ringSize, descriptorArea: GuestAddress(0), driverArea: GuestAddress(UInt64(available)),
      deviceArea: GuestAddress(UInt64(used)))
    for place in 0..<ringSize {
      unsafe sl_store64(rings + 16 * place, Self.bufferStart + UInt64(place * Self.bufferBytes))
      unsafe sl_store32(rings + 16 * place + 8, UInt32(Self.bufferBytes))
      unsafe sl_store16(rings + 16 * place + 12, Descriptor.isWritable)
      offer(UInt16(place))
    }
    show()
  }

  private func offer(_ id: UInt16) {
    unsafe sl_store16(rings + available + 4 + 2 * (Int(offered) & (size - 1)), id)
    offered &+= 1
  }
  private func show() {
    // used_event lies behind: no signal is wanted.
    unsafe sl_store16(rings + available + 4 + 2 * size, seen &- 1)
    unsafe sl_store16_release(rings + available + 2, offered)
  }

  /// Takes back every used buffer and offers it again. Answers how many there were.
  func step() -> Int {
    let index = unsafe sl_load16_acquire(rings + used + 2)
    let count = Int(index &- seen)
    while seen != index {
      offer(UInt16(truncatingIfNeeded: unsafe sl_load32(rings + used + 4 + 8 * (Int(seen) & (size - 1)))))
      seen &+= 1
    }
    show()
    return count
  }

  /// Where another guest's memory differs first, in words; nil if it is the same byte for byte.
  func difference(from other: Guest) -> String? {
    for offset in 0..<ringBytes
    where unsafe rings.load(fromByteOffset: offset, as: UInt8.self) != other.rings.load(fromByteOffset: offset, as: UInt8.self) {
      return offset < available ? "byte \(offset) of the descriptor table"
        : offset < used ? "byte \(offset - available) of the available ring" : "byte \(offset - used) of the used ring"
    }
    for offset in 0..<size * Self.bufferBytes
    where unsafe buffers.load(fromByteOffset: offset, as: UInt8.self) != other.buffers.load(fromByteOffset: offset, as: UInt8.self) {
      let (buffer, byte) = offset.quotientAndRemainder(dividingBy: Self.bufferBytes)
      return "byte \(byte) of buffer \(buffer), in its \(byte < NetHeader.byteCount ? "header" : "frame")"
    }
    return nil
  }
}
