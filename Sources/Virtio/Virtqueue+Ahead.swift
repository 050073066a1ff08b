public import CLinux

// Lines of a queue that are asked for before its turn. Most were the driver's last: from another core they take as long as
// a turn does.

extension Virtqueue {
  /// Asks for the lines by which a turn finds out what there is to do.
  @inlinable @inline(__always) public mutating func approach() {
    if isPacked { packed.ring.approach(packed.takePlace, packed.putPlace) } else { split.approach() }
  }
  /// Asks for those of the buffers that can be taken now, and for where as many are given back.
  @inlinable @inline(__always) public mutating func prepare() {
    if isPacked { packed.ring.prepare(packed.takePlace, packed.putPlace) } else { split.prepare() }
  }
}

extension SplitVirtqueue {
  /// Of those that are there, so many are prepared for.
  @inlinable static var preparedCount: UInt16 { 64 }

  @inlinable @inline(__always) mutating func approach() {
    unsafe sl_prefetch(ring.available + 2)
    ring.prefetch(at: nextAvailable)
    unsafe sl_prefetch(ring.available + 4 + 2 * Int(size))
    unsafe sl_prefetch_write(ring.used + 2)
    ring.prefetchUsed(at: nextUsed)
  }

  /// What it reads of the driver's is only where to look: whatever it says, nothing is believed.
  @inlinable @inline(__always) mutating func prepare() {
    let count = min(ring.availableIndex &- nextAvailable, Self.preparedCount)
    var place: UInt16 = 0
    while place < count {
      // Four to a line, if the driver takes them in order, as most do.
      let head = ring.head(at: nextAvailable &+ place)
      unsafe sl_prefetch(ring.descriptors + 16 * Int(UInt32(head) & ring.mask))
      if place == 0 { unsafe sl_prefetch_write(outstanding + Int(UInt32(head) & ring.mask)) }
      place &+= 4
    }
    ring.prefetchUsed(at: nextUsed &+ 8)
    ring.prefetchUsed(at: nextUsed &+ 16)
  }
}

extension SplitRingMemory {
  @inlinable @inline(__always) func prefetchUsed(at index: UInt16) {
    unsafe sl_prefetch_write(used + 4 + 8 * Int(UInt32(index) & mask))
  }
}

extension PackedRingMemory {
  @inlinable @inline(__always) func approach(_ take: UInt32, _ put: UInt32) {
    unsafe sl_prefetch(descriptors + 16 * Int(take))
    unsafe sl_prefetch_write(descriptors + 16 * Int(put))
    unsafe sl_prefetch(driverEvents)
  }
  /// At the ring's end these lie behind it, and are asked for in vain.
  @inlinable @inline(__always) func prepare(_ take: UInt32, _ put: UInt32) {
    for line in 1...5 {
      unsafe sl_prefetch(descriptors + 16 * (Int(take) + line * 4))
      unsafe sl_prefetch_write(descriptors + 16 * (Int(put) + line * 4))
    }
  }
}
