internal import Bus
public import FlowTables

/// What the control side of a back-end needs of a card's driver, whichever card it is. Nothing here is for a frame.
///
/// One thread at a time; its queues start, move frames and stop on threads of their own.
public protocol IntelCard: AnyObject {
  /// What its filter tables can hold.
  var profile: CardProfile { get }
  /// Bytes of the largest frame as it is stored: MTU, header and one VLAN tag; the FCS is not stored.
  var largestFrame: Int { get }
  /// Queues that every pool has.
  var queuesPerPool: Int { get }

  /// The card's number of a queue of a pool.
  func queueIndex(pool: Int, queue: Int) -> Int
  /// - Parameters:
  ///   - ringSize: descriptors, a multiple of 8.
  ///   - bufferByteCount: bytes in the buffers that will be lent; at least `largestFrame`.
  func makeReceiveQueue(_ n: Int, ringSize: Int, bufferByteCount: Int) throws(IntelError) -> IntelReceiveQueue
  func makeTransmitQueue(_ n: Int, ringSize: Int) throws(IntelError) -> IntelTransmitQueue

  /// Sends a queue's message to a vector; nil: to none.
  func assign(vector: Int?, receiveQueue n: Int) throws(IntelError)
  func assign(vector: Int?, transmitQueue n: Int) throws(IntelError)
  func interrupt(_ vector: Int) throws(IntelError) -> IntelInterrupt
  /// How long a vector is quiet after a message, up to 1 ms. 0, as after a reset, does not hold it back.
  func setModeration(microseconds: Int, vector: Int) throws(IntelError)

  /// Brings the filter tables to what rules were made into: all of it, or the card is as it was.
  ///
  /// - Throws: `steeringLost`: then it receives nothing any more.
  func apply(_ tables: CardTables) throws(IntelError)
  /// Puts one filter in that touches no other.
  func add(_ filter: CardProgram.Addition) throws(IntelError)
  /// Everything by which a frame can come to a queue, as the card itself says it.
  func readSteering(_ plan: PoolPlan) -> CardState
  /// What checks the card does of what pools send, and what it checks by: a part of `readSteering`, before a queue may send.
  func readSending(_ plan: PoolPlan) -> CardState
  /// Where tables that were applied stand in the card.
  func filterSlots(of tables: CardTables) -> FilterSlots
  /// Over how many of its queues a pool's frames are spread. Answers how many get frames.
  @discardableResult func setUsedQueues(pool: Int, count: Int) throws(IntelError) -> Int

  /// Lets frames in: the last step, after rules are in place.
  func enableReceive() throws(IntelError)
  func disableReceive() throws(IntelError)
  /// Whether it answers: a card that was taken out reads as all ones.
  var isThere: Bool { get }
  /// Whether it still has what it was told: a reset by another takes it away.
  var isOurs: Bool { get }
  var link: CardLink { get }
  /// What it has counted since its reset. Call it several times a minute, or counters may pass their end.
  func readCounters() -> CardCounters
  /// Waits for the link, as long as a negotiation may take.
  func waitForLink(within limit: Duration) throws(IntelError)
  /// Stops every queue and the bus master, and resets: when it returns, nothing of the card reaches memory.
  func shutDown() throws(IntelError)
}

/// The state of the wire.
public struct CardLink: Hashable, Sendable {
  public let isUp: Bool
  /// Megabits a second; 0 if down or not known.
  public let megabits: Int
}

extension Ixgbe: IntelCard {
  public var isThere: Bool { registers.read(STATUS.self).rawValue != .max }
  public var isOurs: Bool { registers.read(CTRL_EXT.self).isDriverLoaded }
  public var profile: CardProfile { .intel82599 }
  public var queuesPerPool: Int { configuration.queuesPerPool }
}
