public import Bus

// A card that many queues are turned for has each of them out of the cache by the time it is its turn again.

extension IntelReceiveQueue {
  /// Descriptors in a line of the cache.
  @inlinable static var descriptorsPerLine: Int { 4 }

  @inlinable @inline(__always) public mutating func approach() {
    descriptors.prefetch(at: oldest)
    descriptors.prefetchWrite(at: next)
  }

  /// Some lines further: what a turn of many queues' moves. At the ring's end they lie behind it, and are asked for in vain.
  @inlinable @inline(__always) public mutating func prepare() -> Bool {
    if oldest == next || descriptors.loadSecondAcquire(at: oldest) & ReceiveDescriptor.done == 0 { return false }
    for line in 1...5 {
      descriptors.prefetch(at: oldest &+ line &* Self.descriptorsPerLine)
      descriptors.prefetchWrite(at: next &+ line &* Self.descriptorsPerLine)
    }
    return true
  }
}
