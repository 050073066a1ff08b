/// What a card has counted since it was reset, as a back-end tells it. Frames, and bytes without check sequences.
public struct CardCounters: Hashable, Sendable {
  public struct Traffic: Hashable, Sendable {
    public var frames: UInt64
    public var bytes: UInt64
    /// - Parameter wireBytes: with four bytes a frame that are not stored.
    init(frames: UInt64, wireBytes: UInt64) {
      self.frames = frames
      bytes = wireBytes >= 4 * frames ? wireBytes - 4 * frames : 0
    }
  }
  public struct Pool: Hashable, Sendable {
    public var received: Traffic
    public var sent: Traffic
    /// Frames for which no buffer was posted.
    public var dropped: UInt64
  }

  /// Good frames that the filters let in, and that were sent.
  public var received: Traffic
  public var sent: Traffic
  /// Copies between pools; nil: the card does not count them.
  public var switched: UInt64?
  /// Dropped before any pool was the one, by reason; those that occurred.
  public var dropped: [String: UInt64]
  /// Readings before which the NIC signalled an overrun: it lost at least one frame for want of a buffer or of room, whether
  /// or not it counts that frame elsewhere. Nil if it signals none.
  public var overruns: UInt64?
  /// Sent by some pool under an address, or into a VLAN, that is not its own, and dropped.
  public var refused: UInt64
  /// By number; nil: the card cannot tell this one from another.
  public var pools: [Pool?]
}

extension Igb {
  public func readCounters() -> CardCounters {
    let all = readStatistics()
    return CardCounters(
      received: .init(frames: all.receivedFrames, wireBytes: all.receivedBytes), sent: .init(frames: all.sentFrames, wireBytes: all.sentBytes),
      switched: nil,
      dropped: [
        "packet_buffer_full": all.missedFrames, "damaged": all.checksumErrors + all.lengthErrors, "too_short": all.undersized, "too_long": all.oversized,
      ].filter { $0.value > 0 },
      overruns: all.overruns, refused: all.refusedFrames,
      pools: all.pools.map {
        .init(
          received: .init(frames: $0.receivedFrames, wireBytes: $0.receivedBytes), sent: .init(frames: $0.sentFrames, wireBytes: $0.sentBytes),
          dropped: $0.droppedFrames)
      })
  }
}

extension Ixgbe {
  public func readCounters() -> CardCounters {
    let all = readStatistics()
    // Pools share the 16 sets of counters.
    let pools: [CardCounters.Pool?] = (0..<configuration.poolCount).map { pool in
      guard configuration.poolCount <= 16 else { return nil }
      let set = all.queues[pool]
      return .init(
        received: .init(frames: set.receivedFrames, wireBytes: set.receivedBytes), sent: .init(frames: set.sentFrames, wireBytes: set.sentBytes),
        dropped: set.droppedFrames)
    }
    return CardCounters(
      received: .init(frames: all.receivedFrames, wireBytes: all.receivedBytes), sent: .init(frames: all.sentFrames, wireBytes: all.sentBytes),
      switched: all.switchedCopies,
      dropped: [
        "packet_buffer_full": all.missedFrames, "damaged": all.checksumErrors + all.symbolErrors + all.byteErrors + all.lengthErrors,
        "too_short": all.undersized + all.fragments, "too_long": all.oversized + all.jabbers,
      ].filter { $0.value > 0 }, overruns: nil, refused: all.refusedFrames, pools: pools)
  }
}
