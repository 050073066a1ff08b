public import Bus
public import NIC

/// A transmit queue whose card can reach the pages of a frame only while it has the frame: from `post` until `reap` says that
/// it was sent.
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
  public var room: Int { base.room }

  public mutating func post(_ checksum: TransmitChecksum) { base.post(checksum) }
  public mutating func post(_ address: IOVA, byteCount: UInt32, of frameByteCount: UInt32, isLast: Bool) {
    pages.lend(address, byteCount: Int(byteCount))
    pieces[(first + pieceCount) % pieces.count] = Piece(address: address, byteCount: Int(byteCount), isLast: isLast)
    pieceCount += 1
    base.post(address, byteCount: byteCount, of: frameByteCount, isLast: isLast)
  }
  public mutating func ring() { base.ring() }

  public mutating func reap() -> Int {
    let count = base.reap()
    var left = count
    while left > 0, pieceCount > 0 { if giveBackOldest() { left -= 1 } }
    if count > 0 { pages.flush() }
    return count
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
    while pieceCount > 0 { _ = giveBackOldest() }
    pages.flush()
  }
}
