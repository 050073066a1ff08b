internal import Linux

/// Where frames on a card's wire come from: a trace, a TAP device, a test.
///
/// Asked with the card's lock held: it must not call the card, and must not block.
public protocol WireSource: AnyObject {
  /// Puts the frames whose turn it is into `burst`, from its first place on: at most `limit`, which is no more than it
  /// holds. Answers how many; none when there are none now. They are the same until `consume`, and so long their bytes
  /// stay.
  func peek(_ limit: Int, into burst: WireBurst) -> Int
  /// So many of these the card has taken, or they were lost.
  func consume(_ count: Int)
  /// When the next frame is due, in nanoseconds of the monotonic clock; nil: there is one, or nobody knows.
  var due: UInt64? { get }
  /// Becomes readable when there is a frame; nil: it is known from `due`, or whoever has made one calls `wake`.
  var descriptor: CInt? { get }
}

extension WireSource {
  public var due: UInt64? { nil }
  public var descriptor: CInt? { nil }
}

/// Room for the frames of one step. Whoever makes one deallocates it.
///
/// Frames go through it in bursts because a call of a source by its protocol, a retain and a check for exclusive access
/// cost more than the card's own work on a frame; an atomic operation also waits until every byte that was written
/// before it has left the core.
///
/// `@safe`: every place is checked.
@safe public struct WireBurst {
  /// Frames.
  public static var capacity: Int { @inlinable get { 64 } }
  @usableFromInline let frames: UnsafeMutablePointer<WireFrame>

  public init() { unsafe frames = .allocate(capacity: Self.capacity) }
  public func deallocate() { unsafe frames.deallocate() }

  @inlinable public subscript(_ index: Int) -> WireFrame {
    get {
      precondition(index >= 0 && index < Self.capacity)
      return unsafe frames[index]
    }
    nonmutating set {
      precondition(index >= 0 && index < Self.capacity)
      unsafe (frames + index).initialize(to: newValue)
    }
  }
}

/// Where frames go that a card puts on its wire. Called as a `WireSource` is.
public protocol Uplink: AnyObject {
  /// One frame, without its check sequence; the bytes are good until it returns. False: it was lost.
  func take(_ frame: UnsafeRawBufferPointer) -> Bool
}

/// A source at the wire's end, and what it waits for.
final class WirePort {
  let source: any WireSource
  let waits: Bool
  /// Nanoseconds.
  let patience: UInt64?
  /// Counts this source's frames alone.
  let counters: TrafficCounters?
  /// The queue that its next frame waits for, or -1, and since when, by the monotonic clock.
  var heldQueue = -1
  var heldSince: UInt64 = 0

  init(_ source: any WireSource, waits: Bool, patience: UInt64?, counters: TrafficCounters?) {
    self.counters = counters
    self.source = source
    self.waits = waits
    self.patience = patience
  }
}

/// The other end of the card's wire: it counts, and hands on to the uplink.
final class CountingWire: Wire {
  let counters: TrafficCounters
  var uplink: (any Uplink)?

  private let tally: TrafficCounters.Writer

  /// When the frame began that leaves next: where the one before it ended.
  private var start: UInt64 = 0

  init(_ counters: TrafficCounters) { (self.counters, tally) = (counters, counters.writer) }

  /// Frames leave from now on: the time that each takes is counted for its queue.
  func begin() { start = TickCounter.now() }

  func take(_ bytes: UnsafeRawPointer, _ count: Int, from card: SimulatedCard) {
    if let uplink, unsafe !uplink.take(UnsafeRawBufferPointer(start: bytes, count: count)) { tally.lost(count) }
  }
  func left(_ departure: Departure, from card: SimulatedCard) {
    tally.left(departure)
    for index in 0..<departure.copyCount {
      let copy = card.copyRecord[index]
      tally.arrived(copy.drop, queue: copy.queue, departure.byteCount, from: .pools)
    }
    let now = TickCounter.now()
    tally.sent(queue: departure.queue, ticks: now &- start)
    start = now
  }
}
