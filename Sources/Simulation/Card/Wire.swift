internal import CLinux

/// The far end of the cable, as a card sees it that sends.
///
/// Called while the card works: it may give the card a frame (`receive`), and nothing else.
public protocol Wire: AnyObject {
  /// A frame on the wire: without its check sequence, padded where the card pads. The bytes stay until this returns.
  func take(_ bytes: UnsafeRawPointer, _ count: Int, from card: SimulatedCard)
  /// A frame has left its queue: after `take`, and also where the wire did not get it.
  func left(_ departure: Departure, from card: SimulatedCard)
}

extension Wire {
  public func left(_ departure: Departure, from card: SimulatedCard) {}
}

/// What became of a frame that a queue sent.
public struct Departure: Hashable, Sendable {
  /// The transmit queue.
  public let queue: Int
  /// Bytes, without the check sequence.
  public let byteCount: Int
  /// The wire got it.
  public let isOnWire: Bool
  /// Copies for other pools that the card's own switch made; what became of each is in `SimulatedCard.copies`.
  public let copyCount: Int
  /// Its source or its VLAN is not its pool's, and the pool is held to its own (PFVFSPOOF): nobody got it.
  public let isRefused: Bool
}

/// A wire for tests.
public final class TransmitWire: Wire {
  public enum Kind: Hashable, Sendable {
    /// Counts frames and forgets them.
    case drop
    /// Keeps them.
    case capture
    /// Gives each back to the card that sent it.
    case loopback
  }
  public let kind: Kind
  public private(set) var frameCount = 0
  /// Without check sequences.
  public private(set) var byteCount = 0
  /// What was sent, in order; empty unless it captures.
  public private(set) var frames: [[UInt8]] = []
  /// What became of the frames that were given back, in order.
  public private(set) var arrivals: [Arrival] = []

  public init(_ kind: Kind) { self.kind = kind }

  public func take(_ bytes: UnsafeRawPointer, _ count: Int, from card: SimulatedCard) {
    frameCount += 1
    byteCount += count
    switch kind {
    case .drop: break
    case .capture: unsafe frames.append(Array(unsafe UnsafeRawBufferPointer(start: bytes, count: count)))
    case .loopback: arrivals.append(unsafe card.receive(WireFrame(bytes: bytes, count: count)))
    }
  }
}
