/// A place in a packed virtqueue together with the lap in which it is meant, as drivers and devices write it down:
/// virtio 1.3, 2.8.14 "Event Suppression Structure Format".
@frozen public struct RingPosition: Hashable, Sendable, CustomStringConvertible {
  /// The place in 15 bits, and the wrap counter above.
  public var rawValue: UInt16
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }
  @inlinable public init(place: UInt16, wrap: Bool) { rawValue = place & 0x7FFF | (wrap ? 0x8000 : 0) }

  /// virtio 1.3, 2.8.1: both wrap counters begin at 1.
  @inlinable public static var start: RingPosition { RingPosition(rawValue: 0x8000) }

  @inlinable public var place: UInt16 { rawValue & 0x7FFF }
  @inlinable public var wrap: Bool { rawValue & 0x8000 != 0 }

  /// The position so many places on, at most a whole lap of a ring of `size`.
  @inlinable public func advanced(by count: UInt32, size: UInt32) -> RingPosition {
    let place = UInt32(self.place) &+ count
    return place < size
      ? RingPosition(rawValue: rawValue & 0x8000 | UInt16(truncatingIfNeeded: place))
      : RingPosition(rawValue: (rawValue & 0x8000 ^ 0x8000) | UInt16(truncatingIfNeeded: place &- size))
  }

  /// How many places `later` is further on, less than two laps: 0 if it is the same.
  @inlinable public func distance(to later: RingPosition, size: UInt32) -> UInt32 {
    let place = UInt32(later.place)
    // The other wrap counter is the next lap's.
    return (later.wrap == wrap ? place : place &+ size) &- UInt32(self.place)
  }

  public var description: String { "\(place) wrap \(wrap ? 1 : 0)" }
}
