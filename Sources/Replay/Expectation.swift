internal import CLinux
internal import Simulation

/// What one queue must have received: the frames that the card put into it, less those that the path says it dropped,
/// in order. Compared by digest with what the guest found in its memory.
///
/// Keeps a copy of each frame that is in the card, because a streamed trace does not keep them.
///
/// `@safe`: the ring of copies lives as long as this; every slot is masked, and holds any frame that a trace can have.
@safe final class Expectation {
  private let slotCount: Int
  private var slots: [UnsafeMutableRawBufferPointer]
  private var lengths: [Int]
  private var arrived = 0
  private var left = 0
  private var hash = SHA256Stream()
  /// Frames and bytes that the guest must have.
  private(set) var frames: UInt64 = 0
  private(set) var bytes: UInt64 = 0

  /// - Parameter capacity: the most frames that can be in the queue.
  init(capacity: Int) {
    var power = 1
    while power < capacity + 1 { power *= 2 }
    slotCount = power
    unsafe slots = Array(repeating: UnsafeMutableRawBufferPointer(start: nil, count: 0), count: power)
    lengths = Array(repeating: 0, count: power)
  }
  deinit { for index in unsafe slots.indices { unsafe slots[index].deallocate() } }

  /// The card has put a frame into the queue.
  func arrive(_ frame: UnsafeRawBufferPointer) {
    precondition(arrived - left < slotCount, "more frames in a queue than it has descriptors")
    let index = arrived & (slotCount - 1)
    if unsafe slots[index].count < frame.count {
      unsafe slots[index].deallocate()
      unsafe slots[index] = .allocate(byteCount: (frame.count + 255) & ~255, alignment: 64)
    }
    if frame.count > 0 { unsafe sl_copy(slots[index].baseAddress!, frame.baseAddress!, frame.count) }
    lengths[index] = frame.count
    arrived += 1
  }

  /// The oldest frame has left the path.
  func leave(delivered: Bool) {
    precondition(left < arrived, "a frame left a queue that it had not come to")
    let index = left & (slotCount - 1)
    left += 1
    guard delivered else { return }
    unsafe hash.update(frame: UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(slots[index])[0..<lengths[index]]))
    frames += 1
    bytes += UInt64(lengths[index])
  }

  var digest: SHA256Digest { hash.digestSoFar() }
}
