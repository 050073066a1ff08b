/// One of the two formats of a virtqueue, as the short way goes through it: a run of entries that follow one another, of which each
/// buffer is one writable descriptor. Everything else goes by `Virtqueue`, one by one.
public protocol RingFormat: ~Copyable {
  associatedtype Taking: TakingRun
  associatedtype Putting: PuttingRun
  /// The next entries to take, `most` at most, up to the ring's end. Precondition: `pending` said that many.
  func taking(_ most: UInt32) -> Taking
  /// Takes the first `count` of what `taking` answered, each of which was marked.
  mutating func advance(taken count: UInt32)
  /// The oldest buffers that are out and not put, `most` at most, where nothing was put since the last were shown; `offset` of them are passed over.
  func putting(_ most: UInt32, after offset: UInt32) -> Putting
  /// Puts the first `count` of what `putting` answered. The caller says it to `Virtqueue.countPut`.
  mutating func advance(put count: UInt32)
}

/// Entries to take. A value, and nothing of it changes: a loop has it in registers.
public protocol TakingRun {
  var count: UInt32 { get }
  /// The `n`-th buffer, read once, if it is there, is one writable descriptor, and is not out. Nil: `Virtqueue.next` tells why.
  /// Precondition: `n < count`, and those before it were marked.
  func plainBuffer(at n: UInt32) -> AvailableBuffer?
  /// Marks what `plainBuffer` showed as being out.
  func mark(_ buffer: AvailableBuffer, at n: UInt32)
}

/// Entries to put.
public protocol PuttingRun {
  var count: UInt32 { get }
  /// Whether the `n`-th buffer that is out was taken as one descriptor of the ring. Precondition: `n < count`.
  func isPlain(at n: UInt32) -> Bool
  /// Gives it back, as `Virtqueue.put`.
  func put(_ id: UInt16, byteCount: UInt32, at n: UInt32)
}
