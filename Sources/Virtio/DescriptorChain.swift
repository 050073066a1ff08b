public import GuestMemory

/// The pieces of one buffer in the order they are filled or read, each checked to be guest memory.
///
/// Reused from chain to chain: its storage is made once, for the longest chain that a queue allows and as many
/// region edges as one may cross.
@safe public struct DescriptorChain: ~Copyable {
  @usableFromInline let pieces: UnsafeMutablePointer<GuestSlice>
  @usableFromInline let starts: UnsafeMutablePointer<GuestAddress>
  public let capacity: Int
  /// The most descriptors that one buffer may have, an indirect table's included, and the most entries of such a table.
  ///
  /// A driver may make chains as long as its queue, up to 32,768 (virtio 1.3, 2.7.5.3.1), and each of them costs the device a
  /// walk that other guests wait for. No driver needs that many for a frame: Linux takes 19, DPDK 256. QEMU has the same bound
  /// (VIRTQUEUE_MAX_SIZE), and vhost-net (UIO_MAXIOV). A frame that was received takes no more than that of all the buffers that
  /// it is spread over.
  public static var largestCount: Int { @inlinable get { 1024 } }
  /// Descriptors that were read.
  public internal(set) var descriptorCount = 0
  public internal(set) var count = 0
  /// Bytes in all pieces together.
  public internal(set) var byteCount: UInt64 = 0
  /// Whether a single descriptor had to be cut where a memory region ends.
  public internal(set) var crossesRegions = false

  /// - Parameter queueSize: entries of the queue whose chains are read into it.
  public init(queueSize: Int) {
    capacity = min(queueSize, Self.largestCount) + 16
    unsafe pieces = .allocate(capacity: capacity)
    unsafe starts = .allocate(capacity: capacity)
  }

  deinit {
    unsafe pieces.deallocate()
    unsafe starts.deallocate()
  }

  /// The n-th piece. Precondition: `n < count`.
  @inlinable public func piece(_ n: Int) -> GuestSlice {
    precondition(n >= 0 && n < count)
    return unsafe pieces[n]
  }
  /// Where the guest sees it.
  @inlinable public func start(_ n: Int) -> GuestAddress {
    precondition(n >= 0 && n < count)
    return unsafe starts[n]
  }

  /// What it took to read it, in descriptors: the unit of a poll's budget.
  @inlinable public var work: Int { max(descriptorCount, count) }

  mutating func removeAll() {
    (count, descriptorCount) = (0, 0)
    byteCount = 0
    crossesRegions = false
  }

  /// Adds a descriptor's bytes; answers what is wrong with it, if anything is.
  mutating func add(
    _ range: GuestRange, flags: UInt16, _ direction: BufferDirection, head: UInt16, in view: inout MemoryView
  ) -> VirtqueueFault? {
    switch direction {
    case .writable: if flags & Descriptor.isWritable == 0 { return .readOnlyBuffer(head: head) }
    case .readable: if flags & Descriptor.isWritable != 0 { return .writableBuffer(head: head) }
    }
    guard descriptorCount < Self.largestCount else { return .chainTooLong(head: head) }
    descriptorCount += 1
    if append(range, in: &view) { return nil }
    return count < capacity ? .outsideMemory(range) : .chainTooLong(head: head)
  }

  /// What is wrong with the whole, if anything is.
  func verdict(head: UInt16) -> VirtqueueFault? {
    if byteCount < UInt64(NetHeader.byteCount) { return .bufferTooSmall(head: head, byteCount: UInt32(byteCount)) }
    // virtio 1.3, 2.7.5.2: no chain describes more than 2³² bytes.
    return byteCount <= 1 << 32 ? nil : .malformedChain(head: head)
  }

  /// Adds a descriptor's bytes; false if some of them are no guest memory, or if there are too many pieces.
  mutating func append(_ range: GuestRange, in view: inout MemoryView) -> Bool {
    if range.count == 0 { return true }
    byteCount += UInt64(range.count)
    var rest = range
    while rest.count > 0 {
      guard count < capacity, let slice = view.leadingSlice(rest) else { return false }
      unsafe (pieces + count).initialize(to: slice)
      unsafe (starts + count).initialize(to: rest.start)
      count += 1
      if slice.count < rest.count { crossesRegions = true }
      rest = GuestRange(GuestAddress(rest.start.rawValue &+ UInt64(slice.count)), count: rest.count - slice.count)
    }
    return true
  }
}
