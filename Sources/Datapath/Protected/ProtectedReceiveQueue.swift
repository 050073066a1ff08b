public import Bus
public import NIC

/// A receive queue whose card can reach a buffer's pages only while the buffer is lent: from `post` until just before it is
/// handed out by `reap`.
///
/// What the card has filled is taken back in one go, its pages are taken off the bus together, and only then is the first
/// of it handed out: the guest never has a buffer that the card can still write to.
public struct ProtectedReceiveQueue<Base: ReceiveQueue & ~Copyable>: ~Copyable, ReceiveQueue {
  // What is done for a buffer costs far more than a run would save.
  public typealias Posting = NoRun
  public typealias Reaping = NoRun

  private var base: Base
  private let pages: LentPages
  /// Buffers that the card has, oldest first, from `first` on around.
  private var posted: [IOVA]
  private var first = 0
  private var postedCount = 0
  /// What was taken back and not handed out, in order.
  private var ready: [Completion] = []
  private var handedOut = 0

  public init(_ base: consuming Base, _ pages: LentPages) {
    posted = Array(repeating: IOVA(0), count: base.capacity)
    self.base = base
    self.pages = pages
  }

  public var requirements: BufferRequirements { base.requirements }
  public var capacity: Int { base.capacity }
  public var room: Int { base.room - (ready.count - handedOut) }

  public mutating func post(_ address: IOVA) {
    pages.lend(address, byteCount: requirements.largestFrame)
    posted[(first + postedCount) % posted.count] = address
    postedCount += 1
    base.post(address)
  }
  public mutating func ring() { base.ring() }

  public mutating func reap() -> Completion? {
    if handedOut == ready.count { takeBack() }
    guard handedOut < ready.count else { return nil }
    handedOut += 1
    return ready[handedOut - 1]
  }

  private mutating func takeBack() {
    ready.removeAll(keepingCapacity: true)
    handedOut = 0
    while let completion = base.reap() {
      giveBackOldest()
      ready.append(completion)
    }
    pages.flush()
  }
  private mutating func giveBackOldest() {
    pages.giveBack(posted[first], byteCount: requirements.largestFrame)
    first = (first + 1) % posted.count
    postedCount -= 1
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
    while let completion = base.reap() {
      giveBackOldest()
      ready.append(completion)
    }
    while postedCount > 0 { giveBackOldest() }
    pages.flush()
  }
}
