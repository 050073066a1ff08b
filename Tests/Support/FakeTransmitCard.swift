public import Bus
public import NIC

/// A card that sends when it is told to: what lies in the posted pieces then, read through the bus.
public final class FakeTransmitCard {
  public let space: FakeAddressSpace
  public let capacity: Int
  public let pieceLimit: Int
  public let frameByteCounts: ClosedRange<UInt32>

  /// A frame as it was posted.
  public struct Frame {
    public var pieces: [(address: IOVA, byteCount: UInt32)] = []
  }
  /// Those that are out, oldest first; how many of them the doorbell told of, and how many were sent and not reaped.
  public private(set) var posted: [Frame] = []
  public private(set) var known = 0
  private var done = 0
  private var begun = Frame()
  private var out = 0
  /// What went over the wire.
  public private(set) var sent: [[UInt8]] = []

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
  public var onRing: () -> Void = {}
  public var onQuiesce: () -> Void = {}

  public init(
    space: FakeAddressSpace, capacity: Int, pieceLimit: Int = 40, frameByteCounts: ClosedRange<UInt32> = 17...1518
  ) {
    (self.space, self.capacity) = (space, capacity)
    (self.pieceLimit, self.frameByteCounts) = (pieceLimit, frameByteCounts)
  }

  /// Frames that could be sent now.
  public var waiting: Int { known - done }
  fileprivate var room: Int { capacity - out }

  /// Sends so many of the oldest.
  public func send(_ count: Int = .max) {
    for frame in posted[done..<done + min(count, waiting)] {
      var bytes: [UInt8] = []
      for piece in frame.pieces {
        guard let read = space.read(piece.address, Int(piece.byteCount)) else {
          complaints.append("DMA of \(piece.byteCount) bytes from \(piece.address) faulted")
          continue
        }
        bytes += read
      }
      sent.append(bytes)
      done += 1
    }
  }

  /// Runs again after it was stopped, with nothing posted.
  public func restart() {
    (posted, known, done, out, begun, isQuiet, isStopping) = ([], 0, 0, 0, Frame(), false, false)
  }

  fileprivate func post(_ address: IOVA, _ byteCount: UInt32, of frameBytes: UInt32, isLast: Bool) -> Bool {
    if refuses(address) {
      out -= begun.pieces.count
      begun = Frame()
      return false
    }
    if room == 0 { complaints.append("posted without room") }
    if isQuiet || isStopping { complaints.append("posted after it was stopped") }
    if byteCount == 0 { complaints.append("an empty piece") }
    if !frameByteCounts.contains(frameBytes) { complaints.append("a frame of \(frameBytes) bytes") }
    begun.pieces.append((address, byteCount))
    out += 1
    guard isLast else { return true }
    if begun.pieces.count > pieceLimit { complaints.append("a frame of \(begun.pieces.count) pieces") }
    let total = begun.pieces.reduce(0) { $0 + UInt64($1.byteCount) }
    if total != UInt64(frameBytes) { complaints.append("pieces of \(total) bytes for a frame of \(frameBytes)") }
    posted.append(begun)
    begun = Frame()
    return true
  }
  fileprivate func ring() {
    if known == posted.count { complaints.append("rang for nothing") }
    if !begun.pieces.isEmpty { complaints.append("rang in the middle of a frame") }
    known = posted.count
    rings += 1
    onRing()
  }
  fileprivate func reap() -> Int {
    let count = done
    out -= posted[..<count].reduce(0) { $0 + $1.pieces.count }
    posted.removeFirst(count)
    (known, done) = (known - count, 0)
    return count
  }
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
public struct FakeTransmitQueue: ~Copyable, TransmitQueue {
  private let card: FakeTransmitCard
  public init(_ card: FakeTransmitCard) { self.card = card }
  public var frameByteCounts: ClosedRange<UInt32> { card.frameByteCounts }
  public var pieceLimit: Int { card.pieceLimit }
  public var finishesChecksums: Bool { false }
  public var capacity: Int { card.capacity }
  public var room: Int { card.room }
  public mutating func post(_ checksum: TransmitChecksum) { preconditionFailure("finishes none") }
  @discardableResult public mutating func post(_ address: IOVA, byteCount: UInt32, of frameByteCount: UInt32, isLast: Bool) -> Bool {
    card.post(address, byteCount, of: frameByteCount, isLast: isLast)
  }
  public mutating func ring() { card.ring() }
  public mutating func reap() -> Int { card.reap() }
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
