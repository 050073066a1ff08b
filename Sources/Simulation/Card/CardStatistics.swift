/// The statistics registers' counters. 82599 datasheet 8.2.3.23. Reading "what is counted".
struct CardCounters {
  var totalPackets: UInt64 = 0
  var totalOctets: UInt64 = 0
  var goodPackets: UInt64 = 0
  var goodOctets: UInt64 = 0
  var broadcasts: UInt64 = 0
  var multicasts: UInt64 = 0
  var missed: UInt64 = 0
  var crcErrors: UInt64 = 0
  var undersize: UInt64 = 0
  var oversize: UInt64 = 0
  var fragments: UInt64 = 0
  var jabber: UInt64 = 0
  /// Of frames with their check sequence: 64, to 127, 255, 511, 1023, and more.
  var sizes = InlineArray<8, UInt64>(repeating: 0)
  var queuePackets = InlineArray<16, UInt64>(repeating: 0)
  var queueOctets = InlineArray<16, UInt64>(repeating: 0)
  var queueDropped = InlineArray<16, UInt64>(repeating: 0)
  /// Stored in memory, all queues together.
  var storedPackets: UInt64 = 0
  var storedOctets: UInt64 = 0
  /// Without errors, before any filter.
  var unfilteredPackets: UInt64 = 0
  var unfilteredOctets: UInt64 = 0

  var sentPackets: UInt64 = 0
  var sentOctets: UInt64 = 0
  var sentTotal: UInt64 = 0
  var sentBroadcasts: UInt64 = 0
  var sentMulticasts: UInt64 = 0
  var sentSizes = InlineArray<8, UInt64>(repeating: 0)
  var sentQueuePackets = InlineArray<16, UInt64>(repeating: 0)
  var sentQueueOctets = InlineArray<16, UInt64>(repeating: 0)

  /// Switched from one pool to another: frames, and their further copies.
  var switchedPackets: UInt64 = 0
  var switchedOctets: UInt64 = 0
  var switchedCopies: UInt64 = 0
  var switchedCopyOctets: UInt64 = 0
  /// Dropped for their source address.
  var refused: UInt64 = 0

  var flowMatches: UInt64 = 0
  var flowMisses: UInt64 = 0
  var flowAdds: UInt64 = 0
  var flowRemoves: UInt64 = 0
  var flowFailedAdds: UInt64 = 0
  var flowFailedRemoves: UInt64 = 0

  /// The class of a frame's size: without its check sequence, up to 60, 123, 251, 507, 1019, and more.
  @inline(__always) static func sizeClass(_ count: Int) -> Int {
    let octets = UInt64(truncatingIfNeeded: max(count &+ 4, 64))
    // The position of the highest bit: 64 is 6. Only 64 itself is in the first class.
    let bit = 63 &- octets.leadingZeroBitCount
    return octets == 64 ? 0 : min(bit &- 5, 5)
  }

  @inline(__always) mutating func count(_ lookup: Steering.FlowLookup) {
    switch lookup {
    case .none: break
    case .miss: flowMisses &+= 1
    case .match: flowMatches &+= 1
    }
  }

  /// A frame that passed the address filters.
  @inline(__always) mutating func good(_ count: Int, _ flags: FrameHeaders.Flags) {
    let octets = UInt64(truncatingIfNeeded: count &+ 4)
    totalPackets &+= 1
    totalOctets &+= octets
    goodPackets &+= 1
    goodOctets &+= octets
    unfilteredPackets &+= 1
    unfilteredOctets &+= octets
    sizes[Self.sizeClass(count)] &+= 1
    if flags.contains(.multicast) {
      if flags.contains(.broadcast) { broadcasts &+= 1 } else { multicasts &+= 1 }
    }
  }
  /// A frame that was damaged, or that nobody wanted.
  mutating func other(_ count: Int) {
    totalPackets &+= 1
    totalOctets &+= UInt64(count + 4)
  }
  /// A frame in memory.
  @inline(__always) mutating func queue(_ statistic: Int, _ count: Int) {
    let octets = UInt64(truncatingIfNeeded: count &+ 4)
    queuePackets[statistic & 15] &+= 1
    queueOctets[statistic & 15] &+= octets
    storedPackets &+= 1
    storedOctets &+= octets
  }
  /// A frame that has left its queue, whatever became of it.
  mutating func left(_ count: Int, statistic: Int, isRefused: Bool) {
    if isRefused { refused &+= 1 }
    sentQueuePackets[statistic & 15] &+= 1
    sentQueueOctets[statistic & 15] &+= UInt64(count + 4)
  }
  /// A frame from one pool in the memory of others.
  mutating func switched(_ count: Int, copies: Int) {
    guard copies > 0 else { return }
    let octets = UInt64(count + 4)
    switchedPackets &+= 1
    switchedOctets &+= octets
    switchedCopies &+= UInt64(copies - 1)
    switchedCopyOctets &+= UInt64(copies - 1) * octets
  }
  /// A frame on the wire.
  mutating func sent(_ count: Int, _ first: UInt8, isBroadcast: Bool) {
    let octets = UInt64(count + 4)
    sentPackets &+= 1
    sentTotal &+= 1
    sentOctets &+= octets
    sentSizes[Self.sizeClass(count)] &+= 1
    if isBroadcast { sentBroadcasts &+= 1 } else if first & 1 != 0 { sentMulticasts &+= 1 }
  }

  /// Reads and clears; a counter stays at its top.
  static func take(_ counter: inout UInt64) -> UInt32 {
    defer { counter = 0 }
    return UInt32(clamping: counter)
  }
  /// The low half stays until the high half is read.
  static func low(_ counter: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: counter) }
  static func takeHigh(_ counter: inout UInt64) -> UInt32 {
    defer { counter = 0 }
    return UInt32(truncatingIfNeeded: counter >> 32)
  }
}

extension SimulatedCard {
  func isStatistic(_ at: Int) -> Bool {
    switch at {
    case Offset.QPRC..<Offset.QPRC + 0x400:
      (0x30...0x38).contains(at & 0x3F)
    case Offset.QPRDC..<Offset.QPRDC + 0x400: at & 0x3F == 0x30
    case Offset.QPTC..<Offset.QPTC + 0x40, Offset.QBTCL..<Offset.QBTCL + 0x80: true
    case Offset.RXMPC..<Offset.RXMPC + 0x20, Offset.CRCERRS..<Offset.CRCERRS + 0x140: true
    case Offset.RXNFGPC...Offset.RXNFGBCH, Offset.RXDGPC...Offset.RXDGBCH: true
    case Offset.RXLPBKPC...Offset.RXDLPBKBCH, Offset.SSVPC: true
    default: false
    }
  }

  func readStatistics(_ at: Int) -> UInt32? {
    guard isStatistic(at) else { return nil }
    switch at {
    case Offset.CRCERRS: return CardCounters.take(&counters.crcErrors)
    case Offset.PRC64..<Offset.PRC64 + 24: return CardCounters.take(&counters.sizes[(at - Offset.PRC64) / 4])
    case Offset.GPRC: return CardCounters.take(&counters.goodPackets)
    case Offset.BPRC: return CardCounters.take(&counters.broadcasts)
    case Offset.MPRC: return CardCounters.take(&counters.multicasts)
    case Offset.GORCL: return CardCounters.low(counters.goodOctets)
    case Offset.GORCH: return CardCounters.takeHigh(&counters.goodOctets)
    case Offset.RUC: return CardCounters.take(&counters.undersize)
    case Offset.RFC: return CardCounters.take(&counters.fragments)
    case Offset.ROC: return CardCounters.take(&counters.oversize)
    case Offset.RJC: return CardCounters.take(&counters.jabber)
    case Offset.TORL: return CardCounters.low(counters.totalOctets)
    case Offset.TORH: return CardCounters.takeHigh(&counters.totalOctets)
    case Offset.TPR: return CardCounters.take(&counters.totalPackets)
    case Offset.TPT: return CardCounters.take(&counters.sentTotal)
    case Offset.GPTC: return CardCounters.take(&counters.sentPackets)
    case Offset.GOTCL: return CardCounters.low(counters.sentOctets)
    case Offset.GOTCH: return CardCounters.takeHigh(&counters.sentOctets)
    case Offset.PTC64..<Offset.PTC64 + 24: return CardCounters.take(&counters.sentSizes[(at - Offset.PTC64) / 4])
    case Offset.MPTC: return CardCounters.take(&counters.sentMulticasts)
    case Offset.BPTC: return CardCounters.take(&counters.sentBroadcasts)
    // All in the first packet buffer.
    case Offset.RXMPC: return CardCounters.take(&counters.missed)
    case Offset.RXNFGPC: return CardCounters.take(&counters.unfilteredPackets)
    case Offset.RXNFGBCL: return CardCounters.low(counters.unfilteredOctets)
    case Offset.RXNFGBCH: return CardCounters.takeHigh(&counters.unfilteredOctets)
    case Offset.RXDGPC: return CardCounters.take(&counters.storedPackets)
    case Offset.RXDGBCL: return CardCounters.low(counters.storedOctets)
    case Offset.RXDGBCH: return CardCounters.takeHigh(&counters.storedOctets)
    case Offset.RXLPBKPC: return CardCounters.take(&counters.switchedPackets)
    case Offset.RXLPBKBCL: return CardCounters.low(counters.switchedOctets)
    case Offset.RXLPBKBCH: return CardCounters.takeHigh(&counters.switchedOctets)
    case Offset.RXDLPBKPC: return CardCounters.take(&counters.switchedCopies)
    case Offset.RXDLPBKBCL: return CardCounters.low(counters.switchedCopyOctets)
    case Offset.RXDLPBKBCH: return CardCounters.takeHigh(&counters.switchedCopyOctets)
    case Offset.SSVPC: return CardCounters.take(&counters.refused)
    case Offset.QPTC..<Offset.QPTC + 0x40: return CardCounters.take(&counters.sentQueuePackets[(at - Offset.QPTC) / 4])
    case Offset.QBTCL..<Offset.QBTCL + 0x80:
      let n = (at - Offset.QBTCL) / 8
      return at & 4 == 0
        ? CardCounters.low(counters.sentQueueOctets[n]) : CardCounters.takeHigh(&counters.sentQueueOctets[n])
    case Offset.QPRDC..<Offset.QPRDC + 0x400: return CardCounters.take(&counters.queueDropped[(at - Offset.QPRDC) / 0x40])
    case Offset.QPRC..<Offset.QPRC + 0x400:
      let n = (at - Offset.QPRC) / 0x40
      switch at & 0x3F {
      case 0x30: return CardCounters.take(&counters.queuePackets[n])
      case 0x34: return CardCounters.low(counters.queueOctets[n])
      default: return CardCounters.takeHigh(&counters.queueOctets[n])
      }
    default: return 0
    }
  }

  /// RQSMR and TQSM: a byte for each queue says which of the 16 counters it has.
  func decodeStatisticsMap() {
    for n in 0..<Self.queueCount {
      let shift = UInt32(n % 4 * 8)
      unsafe receiveQueues[n].statistic = UInt8(registers[Offset.RQSMR + n & ~3] >> shift & 15)
      unsafe transmitQueues[n].statistic = UInt8(registers[Offset.TQSM + n & ~3] >> shift & 15)
    }
  }
}
