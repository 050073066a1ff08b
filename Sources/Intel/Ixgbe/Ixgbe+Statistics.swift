internal import Bus

/// What the card has counted since it was reset. Frames and bytes as the card sees them on the wire, FCS included.
public struct IxgbeStatistics: Hashable, Sendable {
  /// Frames without an error that passed the filters, and their bytes.
  public var receivedFrames: UInt64 = 0
  public var receivedBytes: UInt64 = 0
  public var receivedBroadcasts: UInt64 = 0
  public var receivedMulticasts: UInt64 = 0
  /// Frames on the wire, also those that the filters refused.
  public var seenFrames: UInt64 = 0
  /// Frames lost because the packet buffer was full.
  public var missedFrames: UInt64 = 0
  /// Damaged frames by what was wrong.
  public var checksumErrors: UInt64 = 0
  public var symbolErrors: UInt64 = 0
  public var byteErrors: UInt64 = 0
  public var lengthErrors: UInt64 = 0
  public var undersized: UInt64 = 0
  public var fragments: UInt64 = 0
  /// Past the frame limit.
  public var oversized: UInt64 = 0
  public var jabbers: UInt64 = 0

  public var sentFrames: UInt64 = 0
  public var sentBytes: UInt64 = 0
  public var sentBroadcasts: UInt64 = 0
  public var sentMulticasts: UInt64 = 0

  /// Frames that went from one pool to others inside the card, and the further copies of those for several.
  public var switchedFrames: UInt64 = 0
  public var switchedCopies: UInt64 = 0
  /// Dropped because their source, or their VLAN, was none of their pool's.
  public var refusedFrames: UInt64 = 0

  /// Flow director's hits and misses.
  public var flowMatches: UInt64 = 0
  public var flowMisses: UInt64 = 0

  /// What one of the card's 16 sets of queue counters has counted: pool n and queue n (without pools) count in
  /// set n modulo 16.
  public struct Queue: Hashable, Sendable {
    public var receivedFrames: UInt64 = 0
    public var receivedBytes: UInt64 = 0
    /// Dropped because no buffer was posted.
    public var droppedFrames: UInt64 = 0
    public var sentFrames: UInt64 = 0
    public var sentBytes: UInt64 = 0
  }
  public var queues: [Queue] = Array(repeating: Queue(), count: 16)

  public init() {}
}

extension Ixgbe {
  /// Maps queues to counters, and reads every counter once, which clears it. 4.6.5.
  func initializeStatistics() {
    for register in 0..<32 {
      // Four queues, eight bits apart, four bits each.
      let word = (0..<4).reduce(UInt32(0)) { $0 | UInt32(counter(of: 4 * register + $1)) << UInt32(8 * $1) }
      registers.write(RQSMR(rawValue: word), register)
      registers.write(TQSM(rawValue: word), register)
    }
    _ = readStatistics()
    statistics = IxgbeStatistics()
  }

  private func counter(of queue: Int) -> Int {
    (configuration.isVirtualized ? queue / configuration.queueStride : queue) % 16
  }

  /// The counters since the reset. Reads the card's, which clears them, and adds: call it at least every ten
  /// seconds or so, or 32-bit counters may pass their end.
  public func readStatistics() -> IxgbeStatistics {
    func add(_ offset: Int, _ field: WritableKeyPath<IxgbeStatistics, UInt64>) {
      statistics[keyPath: field] &+= UInt64(registers.read(offset))
    }
    func add(_ pair: (low: Int, high: Int), _ field: WritableKeyPath<IxgbeStatistics, UInt64>) {
      statistics[keyPath: field] &+= wide(pair)
    }
    add(Counter.GPRC, \.receivedFrames)
    add(Counter.GORC, \.receivedBytes)
    add(Counter.BPRC, \.receivedBroadcasts)
    add(Counter.MPRC, \.receivedMulticasts)
    add(Counter.TPR, \.seenFrames)
    for n in 0..<8 { add(Counter.RXMPC(n), \.missedFrames) }
    add(Counter.CRCERRS, \.checksumErrors)
    add(Counter.ILLERRC, \.symbolErrors)
    add(Counter.ERRBC, \.byteErrors)
    add(Counter.RLEC, \.lengthErrors)
    add(Counter.RUC, \.undersized)
    add(Counter.RFC, \.fragments)
    add(Counter.ROC, \.oversized)
    add(Counter.RJC, \.jabbers)
    add(Counter.GPTC, \.sentFrames)
    add(Counter.GOTC, \.sentBytes)
    add(Counter.BPTC, \.sentBroadcasts)
    add(Counter.MPTC, \.sentMulticasts)
    add(Counter.RXLPBKPC, \.switchedFrames)
    add(Counter.RXDLPBKPC, \.switchedCopies)
    add(Counter.SSVPC, \.refusedFrames)
    add(Counter.FDIRMATCH, \.flowMatches)
    add(Counter.FDIRMISS, \.flowMisses)
    for n in 0..<16 {
      statistics.queues[n].receivedFrames &+= UInt64(registers.read(Counter.QPRC(n)))
      statistics.queues[n].receivedBytes &+= wide(Counter.QBRC(n))
      statistics.queues[n].droppedFrames &+= UInt64(registers.read(Counter.QPRDC(n)))
      statistics.queues[n].sentFrames &+= UInt64(registers.read(Counter.QPTC(n)))
      statistics.queues[n].sentBytes &+= wide(Counter.QBTC(n))
    }
    return statistics
  }

  /// A counter of 36 bits: the high word goes with the read of the low one, so that one comes first.
  private func wide(_ pair: (low: Int, high: Int)) -> UInt64 {
    let low = registers.read(pair.low)
    return UInt64(registers.read(pair.high) & 0xF) << 32 | UInt64(low)
  }
}
