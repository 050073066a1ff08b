internal import Datapath

/// What paths of one direction have counted, added up: a VM's, over all its rings and connections.
struct PathTotals {
  var lent = StatusReport.Traffic()
  var bounced = StatusReport.Traffic()
  var bouncedBy: [String: UInt64] = [:]
  var droppedBy: [String: UInt64] = [:]
  var dirtyPages: UInt64 = 0
  var cutPolls: UInt64 = 0

  var delivered: UInt64 { lent.frames + bounced.frames }
  var dropped: UInt64 { droppedBy.values.reduce(0, +) }

  mutating func add(_ counters: ReceiveCounters) {
    dirtyPages += counters.dirtyPages
    cutPolls += counters.cutPolls
    lent.frames += counters.lentFrames
    lent.bytes += counters.lentBytes
    bounced.frames += counters.bouncedFrames
    bounced.bytes += counters.bouncedBytes
    for reason in BounceReason.allCases { Self.add(counters.bounced(reason), to: &bouncedBy, reason.name) }
    for reason in PathDrop.allCases { Self.add(counters.dropped(reason), to: &droppedBy, reason.name) }
  }

  mutating func add(_ counters: TransmitCounters) {
    dirtyPages += counters.dirtyPages
    cutPolls += counters.cutPolls
    lent.frames += counters.lentFrames
    lent.bytes += counters.lentBytes
    bounced.frames += counters.copiedFrames
    bounced.bytes += counters.copiedBytes
    for reason in CopyReason.allCases { Self.add(counters.copied(reason), to: &bouncedBy, reason.name) }
    for reason in TransmitDrop.allCases { Self.add(counters.dropped(reason), to: &droppedBy, reason.name) }
  }

  /// What never occurred is not mentioned.
  private static func add(_ count: UInt64, to counts: inout [String: UInt64], _ name: String) {
    if count > 0 { counts[name, default: 0] += count }
  }
}
