public import Bus
public import NIC

/// What of a receive path outlives it: the card's queue, the host buffers and the counters. A ring that stops and starts
/// goes through many paths, and none of this is made again: nobody waits for it twice.
public struct ReceiveParts<Queue: ReceiveQueue & ~Copyable>: ~Copyable {
  /// To be started again by its device: a path leaves it stopped.
  public var queue: Queue
  var pool: BouncePool
  public private(set) var counters: ReceiveCounters
  public let drops: DropLog
  /// Frames that left the paths so far.
  let settledFrames: UInt64

  /// - Parameter bounceBuffers: host buffers for frames that cannot be lent, a power of two.
  public init(
    queue: consuming Queue, space: any IOAddressSpace, allocator: IOVAAllocator, bounceBuffers: Int = 256
  ) throws(DMABufferError) {
    let pool = try BouncePool(
      capacity: bounceBuffers, largestFrame: queue.requirements.largestFrame, in: space, allocator: allocator)
    self.init(queue: queue, pool: pool, counters: ReceiveCounters(), drops: DropLog(), settledFrames: 0)
  }

  init(
    queue: consuming Queue, pool: consuming BouncePool, counters: ReceiveCounters, drops: DropLog, settledFrames: UInt64
  ) {
    self.queue = queue
    self.pool = pool
    self.counters = counters
    self.drops = drops
    self.settledFrames = settledFrames
  }
}

extension ReceiveParts where Queue: ~Copyable {
  /// Counts anew from now on: what was counted is kept by who has the counters.
  public mutating func useFreshCounters() { counters = ReceiveCounters() }

  /// The same parts for a path that maps pages only while a buffer in them is posted.
  public consuming func protected(by pages: LentPages) -> ReceiveParts<ProtectedReceiveQueue<Queue>> {
    ReceiveParts<ProtectedReceiveQueue<Queue>>(
      queue: ProtectedReceiveQueue(queue, pages), pool: pool, counters: counters, drops: drops, settledFrames: settledFrames)
  }
  /// The parts of such a path, as they were.
  public consuming func unprotected<Base: ReceiveQueue & ~Copyable>() -> ReceiveParts<Base> where Queue == ProtectedReceiveQueue<Base> {
    ReceiveParts<Base>(queue: queue.unprotected(), pool: pool, counters: counters, drops: drops, settledFrames: settledFrames)
  }
}
