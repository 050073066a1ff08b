public import GuestMemory

/// Why a queue can no longer be trusted. Sticky: a faulted queue stays so until it is made anew.
///
/// A `head` is a split virtqueue's; of a packed one it is the place of the buffer's first descriptor in the ring.
public enum VirtqueueFault: Error, Hashable, Sendable, CustomStringConvertible {
  /// The driver's index moved further than the queue is long. virtio 1.3, 2.7.13.3.
  case indexRanAhead(from: UInt16, to: UInt16)
  /// A head that is no descriptor of this queue. virtio 1.3, 2.7.6.
  case headOutOfRange(UInt16)
  /// A head that was made available again before it was used.
  case headOutstanding(UInt16)
  /// A chain that loops, leaves its table, or is longer than the queue. virtio 1.3, 2.7.5.2.
  case malformedChain(head: UInt16)
  /// A buffer of more descriptors than are taken, its table's included. See `DescriptorChain.largestCount`.
  case chainTooLong(head: UInt16)
  /// An indirect table where none may be, or of an impossible length. virtio 1.3, 2.7.5.3.1.
  case badIndirectTable(head: UInt16)
  /// A receive buffer that the device may only read. virtio 1.3, 5.1.6.3.
  case readOnlyBuffer(head: UInt16)
  /// A transmit buffer with a piece for the device to write. virtio 1.3, 5.1.6.2.
  case writableBuffer(head: UInt16)
  /// A buffer that cannot even hold the header. virtio 1.3, 5.1.6.3.1.
  case bufferTooSmall(head: UInt16, byteCount: UInt32)
  /// A buffer, or part of one, that is not guest memory.
  case outsideMemory(GuestRange)

  public var description: String {
    switch self {
    case .indexRanAhead(let from, let to): "the available index ran ahead, from \(from) to \(to)"
    case .headOutOfRange(let head): "head \(head) is no descriptor of this queue"
    case .headOutstanding(let head): "head \(head) was made available while it was still out"
    case .malformedChain(let head): "the chain of head \(head) loops or is longer than its queue"
    case .chainTooLong(let head):
      "the buffer of head \(head) has more than \(DescriptorChain.largestCount) descriptors: no more are taken for one frame"
    case .badIndirectTable(let head): "the indirect table of head \(head) is not allowed there or has an impossible length"
    case .readOnlyBuffer(let head): "the receive buffer of head \(head) is not writable"
    case .writableBuffer(let head): "the transmit buffer of head \(head) is writable"
    case .bufferTooSmall(let head, let count): "the buffer of head \(head) has \(count) bytes, less than the header"
    case .outsideMemory(let range): "\(range) is not guest memory"
    }
  }
}

/// Why a queue could not be made.
public enum VirtqueueError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Not from 1 to 32768, or, of a split virtqueue, no power of two. virtio 1.3, 2.7 and 2.8.10.1.
  case badSize(Int)
  case misaligned(GuestAddress, alignment: Int)
  /// A ring that does not lie wholly in one region of guest memory.
  case outsideMemory(GuestRange)
  /// Two parts of the queue share bytes.
  case overlap(GuestAddress, GuestAddress)
  /// A split virtqueue that shall go on further from what was used last than it is long.
  case baseFarFromUsed(base: UInt16, used: UInt16, size: Int)
  /// A packed virtqueue that shall go on at a place that it does not have.
  case baseOutsideRing(UInt16, size: Int)
  /// A record that has no room for what a ring of this size may give back at once.
  case recordTooSmall(Int, size: Int)
  /// A new memory map in which this queue does not lie where it did.
  case moved(GuestAddress)

  public var description: String {
    switch self {
    case .badSize(let size): "a virtqueue of \(size) entries: must be 1 to 32768, and of a split one a power of two"
    case .misaligned(let address, let alignment): "virtqueue part at \(address) is not aligned to \(alignment) bytes"
    case .outsideMemory(let range): "virtqueue part \(range) does not lie in one region of guest memory"
    case .overlap(let a, let b): "virtqueue parts at \(a) and \(b) overlap"
    case .baseFarFromUsed(let base, let used, let size):
      "a split virtqueue of \(size) entries cannot go on at \(base): its used index is \(used)"
    case .baseOutsideRing(let place, let size): "a packed virtqueue of \(size) entries cannot go on at place \(place)"
    case .recordTooSmall(let capacity, let size):
      "a ring record of \(capacity) entries is too small for a virtqueue of \(size)"
    case .moved(let address): "the virtqueue part at \(address) is not where it was in the new memory map"
    }
  }
}
