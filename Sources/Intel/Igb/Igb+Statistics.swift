internal import Bus

/// What the card has counted since it was reset, FCS included.
public struct IgbStatistics: Hashable, Sendable {
  /// Frames without an error that passed the filters, and their bytes.
  public var receivedFrames: UInt64 = 0
  public var receivedBytes: UInt64 = 0
  public var receivedBroadcasts: UInt64 = 0
  public var receivedMulticasts: UInt64 = 0
  /// Lost because the packet buffer was full.
  public var missedFrames: UInt64 = 0
  /// Readings before which the NIC signalled that it lost frames for want of room. QEMU's 82576 counts these frames in no
  /// register: there this is the only evidence, and at least as many frames are lost.
  public var overruns: UInt64 = 0
  public var checksumErrors: UInt64 = 0
  public var lengthErrors: UInt64 = 0
  public var undersized: UInt64 = 0
  public var oversized: UInt64 = 0
  /// Sent under an address, or into a VLAN, that is not their pool's, and dropped.
  public var refusedFrames: UInt64 = 0
  public var sentFrames: UInt64 = 0
  public var sentBytes: UInt64 = 0

  /// Of one pool, as its virtual machine sees it.
  public struct Pool: Hashable, Sendable {
    public var receivedFrames: UInt64 = 0
    public var receivedBytes: UInt64 = 0
    public var sentFrames: UInt64 = 0
    public var sentBytes: UInt64 = 0
    /// Frames for which no buffer was posted.
    public var droppedFrames: UInt64 = 0
  }
  public var pools: [Pool] = Array(repeating: Pool(), count: 8)
  public init() {}
}

extension Igb {
  /// A pool's counters as they were read last: they are never cleared, and go round.
  struct PoolCounters {
    private var last: [Int: UInt32] = [:]
    /// How much one has counted since it was read before.
    mutating func grown(_ offset: Int, to value: UInt32) -> UInt64 {
      let before = last.updateValue(value, forKey: offset) ?? value
      return UInt64(value &- before)
    }
  }

  func initializeStatistics() {
    _ = readStatistics()
    statistics = IgbStatistics()
  }

  /// The counters since the reset. Call it at least once a minute, or 32-bit counters may pass their end.
  public func readStatistics() -> IgbStatistics {
    // A card that is gone answers all ones, which is no count.
    guard registers.read(STATUS.self).rawValue != .max else { return statistics }
    func wide(_ pair: (low: Int, high: Int)) -> UInt64 {
      let low = registers.read(pair.low)
      return UInt64(registers.read(pair.high)) << 32 | UInt64(low)
    }
    statistics.receivedFrames &+= UInt64(registers.read(Counter.GPRC))
    statistics.receivedBytes &+= wide(Counter.GORC)
    statistics.receivedBroadcasts &+= UInt64(registers.read(Counter.BPRC))
    statistics.receivedMulticasts &+= UInt64(registers.read(Counter.MPRC))
    statistics.missedFrames &+= UInt64(registers.read(Counter.MPC))
    // Reading clears it. No interrupt depends on it: those of queues have causes of their own.
    if registers.read(ICR.self).isOverrun { statistics.overruns &+= 1 }
    statistics.checksumErrors &+= UInt64(registers.read(Counter.CRCERRS))
    statistics.lengthErrors &+= UInt64(registers.read(Counter.RLEC))
    statistics.undersized &+= UInt64(registers.read(Counter.RUC))
    statistics.oversized &+= UInt64(registers.read(Counter.ROC))
    statistics.refusedFrames &+= UInt64(registers.read(Counter.SSVPC))
    statistics.sentFrames &+= UInt64(registers.read(Counter.GPTC))
    statistics.sentBytes &+= wide(Counter.GOTC)
    for pool in 0..<variant.poolCount {
      func grown(_ offset: Int) -> UInt64 { poolCounters.grown(offset, to: registers.read(offset)) }
      statistics.pools[pool].receivedFrames &+= grown(Counter.VFGPRC(pool))
      statistics.pools[pool].receivedBytes &+= grown(Counter.VFGORC(pool))
      statistics.pools[pool].sentFrames &+= grown(Counter.VFGPTC(pool))
      statistics.pools[pool].sentBytes &+= grown(Counter.VFGOTC(pool))
      for queue in 0..<variant.queuesPerPool {
        statistics.pools[pool].droppedFrames &+= UInt64(registers.read(Counter.RQDPC(queueIndex(pool: pool, queue: queue))))
      }
    }
    return statistics
  }
}
