public import Bus
public import NIC

/// A receive queue whose card can reach a buffer's pages only while the buffer is lent: from `post` until just before it is
/// handed out by `reap`.
///
/// What the card has filled is taken back in one go, its pages are taken off the bus together, and only then is the first
/// of it handed out: the guest never has a buffer that the card can still write to. A page that cannot be mapped makes `post` refuse
/// its buffer; one that cannot be unmapped keeps back everything from then on (`unmapFailure`).
public struct ProtectedReceiveQueue<Base: ReceiveQueue & ~Copyable>: ~Copyable, ReceiveQueue {
  private var base: Base
  private let pages: LentPages
  private let posted: PostedBuffers
  /// What was taken back and not handed out, in order.
  private var ready: [Completion] = []
  private var handedOut = 0
  /// The card writes nothing any more.
  private var isStopped = false

  public init(_ base: consuming Base, _ pages: LentPages) {
    posted = PostedBuffers(capacity: base.capacity)
    self.base = base
    self.pages = pages
  }

  /// Takes the queue out again. What is posted stays mapped until the window is closed.
  public consuming func unprotected() -> Base { base }

  public var requirements: BufferRequirements { base.requirements }
  public var capacity: Int { base.capacity }
  public var room: Int { base.room - (ready.count - handedOut) }
  public var unmapFailure: IOVA? { pages.failure?.address }
  /// What the card may still write to is not handed out, but for being counted when the card has stopped.
  private var isWithholding: Bool { pages.failure != nil && !isStopped }

  public mutating func post(_ address: IOVA) -> Bool {
    guard pages.lend(address, byteCount: requirements.largestFrame) else { return false }
    guard base.post(address) else {
      pages.giveBack(address, byteCount: requirements.largestFrame)
      pages.flush()
      return false
    }
    posted.append(address)
    isStopped = false
    return true
  }
  public mutating func ring() { base.ring() }

  public mutating func reap() -> Completion? {
    takeBack()
    guard handedOut < ready.count, !isWithholding else { return nil }
    handedOut += 1
    return ready[handedOut - 1]
  }

  /// If all was handed out.
  private mutating func takeBack() {
    guard handedOut == ready.count, !isWithholding else { return }
    ready.removeAll(keepingCapacity: true)
    handedOut = 0
    while let completion = base.reap() {
      giveBackOldest()
      ready.append(completion)
    }
    pages.flush()
  }
  private mutating func giveBackOldest() {
    pages.giveBack(posted.removeFirst(), byteCount: requirements.largestFrame)
  }

  public mutating func beginQuiesce() { base.beginQuiesce() }
  public mutating func pollQuiesce() throws(RegisterError) -> Bool {
    guard try base.pollQuiesce() else { return false }
    forgetPosted()
    return true
  }
  public mutating func quiesce() throws(RegisterError) {
    try base.quiesce()
    forgetPosted()
  }
  public mutating func abandon() {
    base.abandon()
    forgetPosted()
  }
  /// What was filled is kept to be handed out; the rest is nobody's any more.
  private mutating func forgetPosted() {
    isStopped = true
    while let completion = base.reap() {
      giveBackOldest()
      ready.append(completion)
    }
    while posted.count > 0 { giveBackOldest() }
    pages.flush()
  }

  // MARK: Many at once

  public struct Posting: PostingRun {
    fileprivate let run: Base.Posting
    fileprivate let posted: PostedBuffers
    fileprivate let pages: LentPages
    fileprivate let byteCount: Int
    public var count: UInt32 { run.count }
    public func post(_ address: IOVA, at n: UInt32) -> Bool {
      guard pages.lend(address, byteCount: byteCount) else { return false }
      guard run.post(address, at: n) else {
        pages.giveBack(address, byteCount: byteCount)
        pages.flush()
        return false
      }
      posted.append(address)
      return true
    }
  }
  public func posting(_ most: UInt32) -> Posting {
    Posting(run: base.posting(most), posted: posted, pages: pages, byteCount: requirements.largestFrame)
  }
  public mutating func advance(posted count: UInt32) {
    if count > 0 { isStopped = false }
    base.advance(posted: count)
  }

  /// Of what was taken back.
  public struct Reaping: ReapingRun {
    fileprivate let ready: ArraySlice<Completion>
    public var count: UInt32 { UInt32(ready.count) }
    public func wholeFrame(at n: UInt32, most: UInt32) -> WholeFrame? {
      let completion = ready[ready.startIndex + Int(n)]
      guard completion.flags.subtracting(.isChecksumValid) == .isEnd, completion.byteCount <= most else { return nil }
      return WholeFrame(byteCount: completion.byteCount, isChecksumValid: completion.flags.contains(.isChecksumValid))
    }
  }
  public mutating func reaping(_ most: UInt32) -> Reaping {
    takeBack()
    return Reaping(ready: ready[handedOut..<(isWithholding ? handedOut : min(handedOut + Int(most), ready.count))])
  }
  public mutating func advance(reaped count: UInt32) { handedOut += Int(count) }
}

/// Buffers that the card has, oldest first.
private final class PostedBuffers {
  private var buffers: [IOVA]
  private var first = 0
  private(set) var count = 0
  init(capacity: Int) { buffers = Array(repeating: IOVA(0), count: capacity) }
  func append(_ address: IOVA) {
    buffers[(first + count) % buffers.count] = address
    count += 1
  }
  func removeFirst() -> IOVA {
    defer { (first, count) = ((first + 1) % buffers.count, count - 1) }
    return buffers[first]
  }
}
