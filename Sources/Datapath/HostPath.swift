public import Bus
internal import CLinux
public import NIC

/// A receive queue whose frames are this machine's own: the card puts them into buffers of ours, and whoever turns the
/// path sees each of them there, once, and copies what is to be kept. One thread at a time.
public struct HostReceivePath<Queue: ReceiveQueue & ~Copyable>: ~Copyable {
  private var queue: Queue
  private var pool: BouncePool
  /// Frames and bytes that were handed on, and frames that the card marked as damaged.
  public private(set) var frames: UInt64 = 0
  public private(set) var bytes: UInt64 = 0
  public private(set) var damaged: UInt64 = 0
  /// Inside a frame that came in pieces, of which nothing is handed on.
  private var isDiscarding = false

  /// Takes a queue that runs and is empty, and gives it all its buffers.
  public init(queue: consuming Queue, in space: any IOAddressSpace, allocator: IOVAAllocator) throws(DMABufferError) {
    // The largest power of two that the queue has room for.
    let capacity = 1 << (Int.bitWidth - 1 - queue.capacity.leadingZeroBitCount)
    pool = try BouncePool(capacity: capacity, largestFrame: queue.requirements.largestFrame, in: space, allocator: allocator)
    self.queue = queue
    post()
  }

  private mutating func post() {
    var posted = false
    while queue.room > 0, let address = pool.take() {
      let isPosted = queue.post(address)
      precondition(isPosted, "a queue refused a host buffer")
      posted = true
    }
    if posted { queue.ring() }
  }

  /// Hands on what has come, `limit` frames at most.
  ///
  /// - Parameter take: called with each whole frame; its bytes are good until it returns.
  /// - Returns: buffers that have come back.
  public mutating func turn(limit: Int = 64, _ take: (UnsafeRawBufferPointer) -> Void) -> Int {
    var count = 0
    while count < limit, let completion = queue.reap() {
      // Buffers hold the largest frame there is: one that goes on in the next buffer is damaged, and counts once, with its end.
      let isEnd = completion.flags.contains(.isEnd)
      let isWhole = isEnd && !isDiscarding && !completion.flags.contains(.isDamaged)
      isDiscarding = !isEnd
      if isWhole {
        unsafe take(UnsafeRawBufferPointer(pool.oldest(byteCount: Int(completion.byteCount))))
        frames += 1
        bytes += UInt64(completion.byteCount)
      } else if isEnd {
        damaged += 1
      }
      pool.release()
      count += 1
    }
    if count > 0 { post() }
    return count
  }

  /// Stops the queue. What it had received can still be taken.
  public mutating func stop() throws(RegisterError) { try queue.quiesce() }
}

/// A transmit queue for frames of this machine's own, each copied once into a buffer of ours. One thread at a time.
public struct HostTransmitPath<Queue: TransmitQueue & ~Copyable>: ~Copyable {
  private var queue: Queue
  /// Frames come back in their order: the pool is a FIFO.
  private var pool: BouncePool
  /// Room for one byte more than the largest frame has, so that one that is too long is seen to be.
  private let room: Int
  public private(set) var frames: UInt64 = 0
  public private(set) var bytes: UInt64 = 0
  /// Frames that were longer than the card takes, or shorter than an Ethernet header.
  public private(set) var misshapen: UInt64 = 0

  /// Takes a queue that runs and is empty.
  public init(queue: consuming Queue, in space: any IOAddressSpace, allocator: IOVAAllocator) throws(DMABufferError) {
    room = Int(queue.frameByteCounts.upperBound) + 1
    pool = try BouncePool(capacity: 64, largestFrame: room, keepsToPages: true, in: space, allocator: allocator)
    self.queue = queue
  }

  /// Sends what there is, as far as there are buffers.
  ///
  /// - Parameter read: puts the next frame into the room given, cut to it, and answers its bytes; nil when there is none.
  /// - Returns: frames that were read.
  public mutating func turn(_ read: (UnsafeMutableRawBufferPointer) -> Int?) -> Int {
    for _ in 0..<queue.reap() { pool.release() }
    let least = Int(queue.frameByteCounts.lowerBound)
    var (count, posted) = (0, false)
    while count < pool.capacity, queue.room > 0, let address = pool.take() {
      let buffer = unsafe pool.newest(byteCount: room)
      guard let length = unsafe read(buffer) else {
        pool.untake()
        break
      }
      count += 1
      guard length >= 14 && length < room else {
        pool.untake()
        misshapen += 1
        continue
      }
      // What has no payload is too short for the card, which pads all others.
      if length < least { unsafe sl_fill(buffer.baseAddress.unsafelyUnwrapped + length, 0, least - length) }
      let isPosted = queue.post(address, byteCount: UInt32(max(length, least)))
      precondition(isPosted, "a queue refused a host buffer")
      posted = true
      frames += 1
      bytes += UInt64(length)
    }
    if posted { queue.ring() }
    return count
  }

  public mutating func stop() throws(RegisterError) { try queue.quiesce() }
}
