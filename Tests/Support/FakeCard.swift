public import Bus
public import NIC

/// A card that does as it is told: what is received lands in the oldest posted buffer, through the bus.
public final class FakeCard {
  public let space: FakeAddressSpace
  public let capacity: Int
  public let largestFrame: Int

  public private(set) var posted: [IOVA] = []
  /// How many of those the doorbell told of.
  public private(set) var known = 0
  private var completions: [Completion] = []
  /// Completions that the card keeps to itself for now: the latest of them.
  public var hidden = 0

  public private(set) var rings = 0
  public private(set) var isQuiet = false
  /// What should not have happened.
  public private(set) var complaints: [String] = []
  public var willNotStop = false
  /// Polls that find the queue still running before it has stopped.
  public var pollsUntilQuiet = 0
  public private(set) var isStopping = false
  public private(set) var quiescePolls = 0
  /// Whether it cannot reach an address now.
  public var refuses: (IOVA) -> Bool = { _ in false }
  /// Called in the middle of the path's work.
  public var onPost: (IOVA) -> Void = { _ in }
  public var onRing: () -> Void = {}
  public var onQuiesce: () -> Void = {}

  public init(space: FakeAddressSpace, capacity: Int, largestFrame: Int = 1518) {
    self.space = space
    self.capacity = capacity
    self.largestFrame = largestFrame
  }

  /// Posted buffers that nothing has landed in.
  public var free: Int { known - completions.count }

  /// A frame, or part of one; false if there is no buffer for it.
  public func receive(_ bytes: [UInt8], claiming count: UInt32? = nil, flags: Completion.Flags = .isEnd) -> Bool {
    guard free > 0, !isQuiet else { return false }
    let address = posted[completions.count]
    if !space.write(bytes, at: address) { complaints.append("DMA of \(bytes.count) bytes to \(address) faulted") }
    completions.append(Completion(byteCount: count ?? UInt32(bytes.count), flags: flags))
    return true
  }

  /// Runs again after it was stopped, with nothing posted.
  public func restart() {
    (posted, known, completions, isQuiet, isStopping) = ([], 0, [], false, false)
  }

  fileprivate func post(_ address: IOVA) -> Bool {
    if refuses(address) { return false }
    if posted.count == capacity { complaints.append("posted without room") }
    if isQuiet || isStopping { complaints.append("posted after it was stopped") }
    posted.append(address)
    onPost(address)
    return true
  }
  fileprivate func ring() {
    if known == posted.count { complaints.append("rang for nothing") }
    known = posted.count
    rings += 1
    onRing()
  }
  fileprivate func reap() -> Completion? {
    guard completions.count > hidden else { return nil }
    posted.removeFirst()
    known -= 1
    return completions.removeFirst()
  }
  fileprivate var ready: Int { max(completions.count - hidden, 0) }
  fileprivate func completion(_ n: Int) -> Completion? { n < ready ? completions[n] : nil }
  fileprivate func beginQuiesce() {
    if !isStopping { onQuiesce() }
    isStopping = true
  }
  fileprivate func pollQuiesce() throws(RegisterError) -> Bool {
    precondition(isStopping, "polled before it was asked to stop")
    quiescePolls += 1
    if willNotStop { throw RegisterError(name: "FAKE", number: 0, offset: 0, value: 1, waited: 0) }
    if pollsUntilQuiet > 0 {
      pollsUntilQuiet -= 1
      return false
    }
    isQuiet = true
    return true
  }
}

/// The card as a path sees it.
public struct FakeQueue: ~Copyable, ReceiveQueue {
  private let card: FakeCard
  public init(_ card: FakeCard) { self.card = card }
  public var requirements: BufferRequirements { BufferRequirements(largestFrame: card.largestFrame) }
  public var capacity: Int { card.capacity }
  public var room: Int { card.capacity - card.posted.count }
  @discardableResult public mutating func post(_ address: IOVA) -> Bool { card.post(address) }
  public mutating func ring() { card.ring() }
  public mutating func reap() -> Completion? { card.reap() }

  public struct Posting: PostingRun {
    let card: FakeCard
    public let count: UInt32
    public func post(_ address: IOVA, at n: UInt32) -> Bool { card.post(address) }
  }
  public struct Reaping: ReapingRun {
    let card: FakeCard
    public let count: UInt32
    public func wholeFrame(at n: UInt32, most: UInt32) -> WholeFrame? {
      guard let completion = card.completion(Int(n)), completion.byteCount <= most else { return nil }
      guard completion.flags == .isEnd || completion.flags == [.isEnd, .isChecksumValid] else { return nil }
      return WholeFrame(byteCount: completion.byteCount, isChecksumValid: completion.flags.contains(.isChecksumValid))
    }
  }
  public func posting(_ most: UInt32) -> Posting { Posting(card: card, count: min(most, UInt32(room))) }
  public func reaping(_ most: UInt32) -> Reaping { Reaping(card: card, count: min(most, UInt32(card.posted.count))) }
  public mutating func advance(posted count: UInt32) {}
  public mutating func advance(reaped count: UInt32) { for _ in 0..<count { _ = card.reap() } }
  public mutating func beginQuiesce() { card.beginQuiesce() }
  public mutating func pollQuiesce() throws(RegisterError) -> Bool { try card.pollQuiesce() }
  public mutating func quiesce() throws(RegisterError) {
    card.beginQuiesce()
    while try !card.pollQuiesce() {}
  }
  public mutating func abandon() {
    (card.willNotStop, card.pollsUntilQuiet) = (false, 0)
    card.beginQuiesce()
  }
}
