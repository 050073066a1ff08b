internal import Datapath

/// What receive paths have counted, added up: a VM's, over all its rings and connections.
struct ReceiveTotals {
  var lent = StatusReport.Traffic()
  var bounced = StatusReport.Traffic()
  var bouncedBy: [String: UInt64] = [:]
  var droppedBy: [String: UInt64] = [:]
  var dirtyPages: UInt64 = 0

  var delivered: UInt64 { lent.frames + bounced.frames }
  var dropped: UInt64 { droppedBy.values.reduce(0, +) }

  mutating func add(_ counters: ReceiveCounters) {
    dirtyPages += counters.dirtyPages
    lent.frames += counters.lentFrames
    lent.bytes += counters.lentBytes
    bounced.frames += counters.bouncedFrames
    bounced.bytes += counters.bouncedBytes
    for reason in BounceReason.allCases where counters.bounced(reason) > 0 { bouncedBy[reason.name, default: 0] += counters.bounced(reason) }
    for reason in PathDrop.allCases where counters.dropped(reason) > 0 { droppedBy[reason.name, default: 0] += counters.dropped(reason) }
  }
}

/// The same for transmit paths.
struct TransmitTotals {
  var lent = StatusReport.Traffic()
  var bounced = StatusReport.Traffic()
  var bouncedBy: [String: UInt64] = [:]
  var droppedBy: [String: UInt64] = [:]
  var dirtyPages: UInt64 = 0

  mutating func add(_ counters: TransmitCounters) {
    dirtyPages += counters.dirtyPages
    lent.frames += counters.lentFrames
    lent.bytes += counters.lentBytes
    bounced.frames += counters.copiedFrames
    bounced.bytes += counters.copiedBytes
    for reason in CopyReason.allCases where counters.copied(reason) > 0 { bouncedBy[reason.name, default: 0] += counters.copied(reason) }
    for reason in TransmitDrop.allCases where counters.dropped(reason) > 0 { droppedBy[reason.name, default: 0] += counters.dropped(reason) }
  }
}
