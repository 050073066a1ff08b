/// Which of a guest's frames are out, in what order, and what became of each.
///
/// `@safe`: every index is masked to storage that lives as long as the ledger.
@safe @usableFromInline struct TransmitLedger: ~Copyable {
  @usableFromInline struct Entry {
    var id: UInt16
    var fate: Fate
    /// Of the frame as the guest gave it, without header.
    var byteCount: UInt32
  }
  /// What is known of a frame when it is taken.
  enum Fate {
    case lent
    /// But for its first bytes, which are in a host buffer: `SourceCheck`.
    case lentBehindHead
    case copied(CopyReason)
    /// It never went to the card: it goes back when all before it have.
    case dropped(TransmitDrop)
  }

  @usableFromInline let entries: UnsafeMutablePointer<Entry>
  private let mask: UInt32
  private(set) var front: UInt32 = 0
  private(set) var tail: UInt32 = 0
  /// Frames that are with the card.
  private(set) var postedCount = 0

  init(queueSize: Int) {
    var places = 1
    while places < queueSize { places *= 2 }
    unsafe entries = .allocate(capacity: places)
    mask = UInt32(places - 1)
  }
  @inlinable deinit { unsafe entries.deallocate() }

  var count: Int { Int(tail &- front) }
  var oldest: Entry? { front == tail ? nil : unsafe entries[Int(front & mask)] }

  /// Precondition: no more are out than the queue has entries.
  mutating func append(_ entry: Entry) {
    precondition(tail &- front <= mask, "more frames are out than the queue has entries")
    unsafe (entries + Int(tail & mask)).initialize(to: entry)
    tail = tail &+ 1
    if case .dropped = entry.fate {} else { postedCount += 1 }
  }
  /// Another fate of the newest frame, which is with the card either way. Precondition: it is out.
  mutating func setNewest(_ fate: Fate) {
    precondition(front != tail, "no frame is out")
    unsafe entries[Int((tail &- 1) & mask)].fate = fate
  }
  mutating func removeFirst() {
    if let oldest { if case .dropped = oldest.fate {} else { postedCount -= 1 } }
    front = front &+ 1
  }
  /// Forgets everything that is out: the card has been stopped.
  mutating func removeAll() {
    front = tail
    postedCount = 0
  }
}
