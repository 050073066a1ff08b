public import Bus
public import NIC

/// A transmit queue whose card can reach the pages of a frame only while it has the frame: from `post` until `reap` says that
/// it was sent. A frame's pieces go to the card together, when all of their pages are mapped.
public struct ProtectedTransmitQueue<Base: TransmitQueue & ~Copyable>: ~Copyable, TransmitQueue {
  private struct Piece {
    var address = IOVA(0)
    var byteCount = 0
    var isLast = false
  }
  private var base: Base
  private let pages: LentPages
  /// Pieces that the card has, oldest first, from `first` on around.
  private var pieces: [Piece]
  private var first = 0
  private var pieceCount = 0
  /// The newest of those, which the card does not have yet: of a frame that is begun.
  private var begunCount = 0
  /// Frames that are sent and not handed back, for the card may still reach them.
  private var withheld = 0
  /// The card reads nothing any more.
  private var isStopped = false

  public init(_ base: consuming Base, _ pages: LentPages) {
    pieces = Array(repeating: Piece(), count: base.capacity)
    self.base = base
    self.pages = pages
  }

  /// Takes the queue out again. What is posted stays mapped until the window is closed.
  public consuming func unprotected() -> Base { base }

  public var frameByteCounts: ClosedRange<UInt32> { base.frameByteCounts }
  public var pieceLimit: Int { base.pieceLimit }
  public var finishesChecksums: Bool { base.finishesChecksums }
  public var capacity: Int { base.capacity }
  public var room: Int { base.room - begunCount }
  public var unmapFailure: IOVA? { pages.failure?.address }

  public mutating func post(_ checksum: TransmitChecksum) { base.post(checksum) }
  public mutating func post(_ address: IOVA, byteCount: UInt32, of frameByteCount: UInt32, isLast: Bool) -> Bool {
    guard pages.lend(address, byteCount: Int(byteCount)) else { return withdraw() }
    pieces[(first + pieceCount) % pieces.count] = Piece(address: address, byteCount: Int(byteCount), isLast: isLast)
    pieceCount += 1
    begunCount += 1
    guard isLast else { return true }
    for n in pieceCount - begunCount..<pieceCount {
      let piece = pieces[(first + n) % pieces.count]
      guard base.post(piece.address, byteCount: UInt32(piece.byteCount), of: frameByteCount, isLast: piece.isLast) else { return withdraw() }
    }
    begunCount = 0
    isStopped = false
    return true
  }
  /// The frame that is begun does not go to the card.
  private mutating func withdraw() -> Bool {
    while begunCount > 0 {
      begunCount -= 1
      pieceCount -= 1
      let piece = pieces[(first + pieceCount) % pieces.count]
      pages.giveBack(piece.address, byteCount: piece.byteCount)
    }
    pages.flush()
    return false
  }
  public mutating func ring() { base.ring() }

  public mutating func reap() -> Int {
    if pages.failure != nil && !isStopped { return 0 }
    let count = base.reap()
    var left = count
    while left > 0, pieceCount > begunCount { if giveBackOldest() { left -= 1 } }
    if count > 0 { pages.flush() }
    withheld += count
    if pages.failure != nil && !isStopped { return 0 }
    defer { withheld = 0 }
    return withheld
  }
  /// Answers whether a frame ended in it.
  private mutating func giveBackOldest() -> Bool {
    let piece = pieces[first]
    pages.giveBack(piece.address, byteCount: piece.byteCount)
    first = (first + 1) % pieces.count
    pieceCount -= 1
    return piece.isLast
  }

  public mutating func beginQuiesce() { base.beginQuiesce() }
  public mutating func pollQuiesce() throws(RegisterError) -> Bool {
    guard try base.pollQuiesce() else { return false }
    forgetPieces()
    return true
  }
  public mutating func quiesce() throws(RegisterError) {
    try base.quiesce()
    forgetPieces()
  }
  public mutating func abandon() {
    base.abandon()
    forgetPieces()
  }
  private mutating func forgetPieces() {
    isStopped = true
    begunCount = 0
    while pieceCount > 0 { _ = giveBackOldest() }
    pages.flush()
  }
}
