public import Bus

/// What the hardware asks of a buffer that is lent to it; checked once, when a guest is attached.
public struct BufferRequirements: Hashable, Sendable {
  /// The most bytes one frame may put into a buffer: the largest frame that the hardware accepts, as it is stored.
  /// The hardware stops there, whatever its own buffer-size unit says.
  public let largestFrame: Int
  public init(largestFrame: Int) { self.largestFrame = largestFrame }
}

/// What came back in one buffer.
@frozen public struct Completion: Hashable, Sendable {
  /// Bytes that the hardware wrote.
  public var byteCount: UInt32
  public var flags: Flags

  @frozen public struct Flags: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// The frame ends in this buffer. Without it, the next buffer has its continuation.
    public static var isEnd: Flags { @inlinable get { Flags(rawValue: 1) } }
    /// The hardware says that the frame is damaged.
    public static var isDamaged: Flags { @inlinable get { Flags(rawValue: 2) } }
    /// The hardware checked the frame's transport checksums and found them right.
    public static var isChecksumValid: Flags { @inlinable get { Flags(rawValue: 4) } }
  }

  @inlinable public init(byteCount: UInt32, flags: Flags) {
    self.byteCount = byteCount
    self.flags = flags
  }
}

/// Places of a receive queue that follow one another. A value, and nothing of it changes: a loop has it in registers, and what is
/// checked of a place is that it is one of these.
public protocol PostingRun {
  var count: UInt32 { get }
  /// Writes the descriptor of the `n`-th, as `ReceiveQueue.post`. False: it is as it was, and so are those behind it, which are
  /// not to be posted through this run. Precondition: `n < count`.
  func post(_ address: IOVA, at n: UInt32) -> Bool
}

/// The same of places whose buffers are out.
public protocol ReapingRun {
  var count: UInt32 { get }
  /// What came back in the `n`-th if it is one whole frame, undamaged, of `most` bytes at most. Nil: something else, or nothing yet;
  /// `reap` tells which. Precondition: `n < count`.
  func wholeFrame(at n: UInt32, most: UInt32) -> WholeFrame?
}

/// A frame that lies in one buffer, undamaged.
@frozen public struct WholeFrame: Hashable, Sendable {
  public let byteCount: UInt32
  /// As `Completion.Flags.isChecksumValid`.
  public let isChecksumValid: Bool
  @inlinable public init(byteCount: UInt32, isChecksumValid: Bool) {
    self.byteCount = byteCount
    self.isChecksumValid = isChecksumValid
  }
}

/// One hardware receive queue. Buffers come back in the order they were posted.
///
/// A turn makes these calls once a frame or once a batch, or goes through a run of places. They are meant to be inlined into the caller:
/// conforming types live in other modules and mark them `@inlinable`.
public protocol ReceiveQueue: ~Copyable {
  var requirements: BufferRequirements { get }
  /// How many buffers can be out at once.
  var capacity: Int { get }
  /// How many more can be posted now.
  var room: Int { get }
  /// Writes one descriptor. The hardware does not know of it before `ring`. Precondition: `room > 0`.
  ///
  /// - Returns: False if the hardware cannot reach the address now: nothing was posted, and the slot is free for another buffer.
  ///   Memory that is mapped for as long as it lives, as host buffers are, is never refused.
  mutating func post(_ address: IOVA) -> Bool
  /// Tells the hardware of everything posted so far: one doorbell.
  mutating func ring()
  /// Takes back the oldest buffer if the hardware has filled it.
  mutating func reap() -> Completion?

  /// The next places to post to, `most` at most. There may be fewer than there is room for.
  func posting(_ most: UInt32) -> Posting
  /// Posts what was written through the first `count` of what `posting` answered.
  mutating func advance(posted count: UInt32)
  /// The oldest places that are out, `most` at most; as with `posting`.
  mutating func reaping(_ most: UInt32) -> Reaping
  /// Takes back the first `count` of what `reaping` answered, each of which had a frame.
  mutating func advance(reaped count: UInt32)
  associatedtype Posting: PostingRun
  associatedtype Reaping: ReapingRun

  /// Asks for the lines that `post` and `reap` touch first: this queue is turned soon.
  mutating func approach()
  /// Asks for those that they touch after these. Answers whether there is anything to reap.
  mutating func prepare() -> Bool

  /// Begins to stop the queue: at most one register write, no register read, no wait. Idempotent. Nothing may be posted
  /// from then on until the next start. Buffers that are filled can still be reaped.
  mutating func beginQuiesce()
  /// Checks whether the queue has stopped: at most one register read, no wait. The caller polls, at most every 20 µs.
  ///
  /// - Returns: true when the hardware can no longer write to any posted buffer. Filled ones can still be reaped, the
  ///   others are forgotten with the next start.
  /// - Throws: the hardware did not stop within its deadline, or does not answer. Only a reset stops it then, and what
  ///   it was given (the ring, posted buffers) must stay allocated, or be unmapped, until that.
  /// - Precondition: `beginQuiesce` was called.
  mutating func pollQuiesce() throws(RegisterError) -> Bool
  /// Begins and polls until the queue has stopped. Blocks for up to 100 ms: never on a thread that moves frames.
  mutating func quiesce() throws(RegisterError)
  /// As `quiesce`, without asking the hardware: it is known to write nothing any more, for it is gone or off the bus.
  mutating func abandon()

  /// Where memory could not be unmapped from the IOMMU, so that the hardware may still reach a buffer that came back; nil: all
  /// is well. From then on `reap` and `reaping` hand out nothing. After `quiesce` or `abandon` they hand out what came, for it to
  /// be counted: none of those buffers may be given to a guest.
  var unmapFailure: IOVA? { get }
}

extension ReceiveQueue where Self: ~Copyable {
  @inlinable public var unmapFailure: IOVA? { nil }
  @inlinable public mutating func approach() {}
  @inlinable public mutating func prepare() -> Bool { true }
}
