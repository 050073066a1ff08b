public import Bus

/// Host buffers for frames that cannot land in the guest's. Used in the order of their slots, so the pool is a FIFO too.
public struct BouncePool: ~Copyable {
  @usableFromInline let memory: DMABuffer
  /// Bytes from one buffer to the next.
  @usableFromInline let stride: Int
  /// Buffers, a power of two.
  public let capacity: Int
  @usableFromInline var taken: UInt32 = 0
  @usableFromInline var released: UInt32 = 0

  /// - Parameters:
  ///   - capacity: buffers, a power of two.
  ///   - largestFrame: bytes that the card may write to one.
  ///   - keepsToPages: no buffer crosses a page, if it fits one: for a NIC that reads a buffer by one translation of the IOMMU. QEMU's
  ///     drops a frame whose pages do not follow one another in memory, and counts it nowhere.
  public init(
    capacity: Int, largestFrame: Int, keepsToPages: Bool = false, in space: any IOAddressSpace, allocator: IOVAAllocator
  ) throws(DMABufferError) {
    precondition(capacity > 0 && capacity & (capacity - 1) == 0)
    let least = (largestFrame + 127) & ~63
    // Else an odd number of lines, so that buffers do not compete for the same sets of a cache.
    let powerOfTwo = 1 << (Int.bitWidth - (least - 1).leadingZeroBitCount)
    stride = keepsToPages && powerOfTwo <= 4096 ? powerOfTwo : least
    self.capacity = capacity
    memory = try DMABuffer(byteCount: capacity * stride, access: [.read, .write], in: space, allocator: allocator)
  }

  /// How many are with the card.
  @inlinable public var outstanding: UInt32 { taken &- released }

  /// The next buffer's bus address, or nil if all are out.
  @inlinable mutating func take() -> IOVA? {
    guard Int(outstanding) < capacity else { return nil }
    let index = Int(taken) & (capacity - 1)
    taken = taken &+ 1
    return memory.address + UInt64(index * stride)
  }

  /// The next buffers that follow one another, `most` at most: the first one's bus address, and how many. `taken` is to be moved.
  @inlinable func taking(_ most: UInt32) -> (address: IOVA, count: UInt32) {
    let index = Int(taken) & (capacity &- 1)
    let free = UInt32(truncatingIfNeeded: capacity) &- outstanding
    return (memory.address + UInt64(index * stride), min(most, min(free, UInt32(truncatingIfNeeded: capacity &- index))))
  }
  /// The oldest ones that follow one another, `most` at most. `released` is to be moved.
  @inlinable @inline(__always) func releasing(_ most: UInt32) -> BouncedRun {
    let index = Int(released) & (capacity &- 1)
    let count = min(most, min(outstanding, UInt32(truncatingIfNeeded: capacity &- index)))
    let bytes = unsafe memory.bytes(index * stride, Int(count) * stride)
    return unsafe BouncedRun(base: bytes.baseAddress!, stride: stride, count: count)
  }

  /// The one that was taken last was not used.
  mutating func untake() {
    precondition(outstanding > 0)
    taken = taken &- 1
  }

  /// The bytes of the one that was taken last, to be written here for the card to read.
  @inlinable func newest(byteCount: Int) -> UnsafeMutableRawBufferPointer {
    precondition(byteCount <= stride)
    return unsafe memory.bytes((Int(taken &- 1) & (capacity - 1)) * stride, byteCount)
  }

  /// The oldest one's bytes, which the card has written.
  @inlinable func oldest(byteCount: Int) -> UnsafeMutableRawBufferPointer {
    unsafe memory.bytes((Int(released) & (capacity - 1)) * stride, byteCount)
  }
  @inlinable mutating func release() { released = released &+ 1 }
  /// All of them are ours again: the card has been stopped.
  mutating func releaseAll() { released = taken }
}

/// Host buffers that follow one another, each with a frame in it.
///
/// `@safe`: they lie in the pool, which lives as long, and every number is checked against the count, every length against a buffer's.
@safe @usableFromInline struct BouncedRun {
  @usableFromInline let base: UnsafeMutableRawPointer
  @usableFromInline let stride: Int
  @usableFromInline let count: UInt32
  @inlinable init(base: UnsafeMutableRawPointer, stride: Int, count: UInt32) {
    unsafe self.base = base
    (self.stride, self.count) = (stride, count)
  }
  @inlinable @inline(__always) func frame(_ n: UInt32, byteCount: UInt32) -> UnsafeRawPointer {
    precondition(n < count && Int(byteCount) <= stride, "outside the run")
    return unsafe UnsafeRawPointer(base + Int(n) &* stride)
  }
}
