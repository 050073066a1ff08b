/// Where frames on a card's wire come from: a trace, a TAP device, a test.
///
/// Asked with the card's lock held: it must not call the card, and must not block.
public protocol WireSource: AnyObject {
  /// The frame whose turn it is; nil when there is none now. The same one until `consume`, and so long its bytes stay.
  func peek() -> WireFrame?
  /// The card has taken it, or it was lost.
  func consume()
  /// When the next frame is due, in nanoseconds of the monotonic clock; nil: there is one, or nobody knows.
  var due: UInt64? { get }
  /// Becomes readable when there is a frame; nil: it is known from `due`, or whoever has made one calls `wake`.
  var descriptor: CInt? { get }
}

extension WireSource {
  public var due: UInt64? { nil }
  public var descriptor: CInt? { nil }
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

  init(_ counters: TrafficCounters) { self.counters = counters }

  func take(_ bytes: UnsafeRawPointer, _ count: Int, from card: SimulatedCard) {
    if let uplink, unsafe !uplink.take(UnsafeRawBufferPointer(start: bytes, count: count)) { counters.lost(count) }
  }
  func left(_ departure: Departure, from card: SimulatedCard) {
    counters.left(departure)
    for index in 0..<departure.copyCount {
      let copy = card.copyRecord[index]
      counters.arrived(copy.drop, queue: copy.queue, departure.byteCount, from: .pools)
    }
  }
}
