internal import Replay

/// One replay of a point, and what the machine did meanwhile.
struct Sample: Equatable {
  /// Which of the point's; samples of one round are beside each other in time.
  var round: Int
  /// Round trips between the cores before and after, in nanoseconds; nil where there is one core.
  var pings: (before: Double, after: Double)?
  var isPreempted = false
  var figures: [String: Double] = [:]
  var droppedBy: [String: UInt64] = [:]

  /// The most by which the cores' distance may change within a sample, and in a class of samples from one to the next.
  static let largestPingRatio = 1.5

  var hasMoved: Bool {
    pings.map { Statistics.differ($0.before, $0.after, byMoreThan: Self.largestPingRatio) } ?? false
  }
  var isDisturbed: Bool { hasMoved || isPreempted }
  /// The cores' distance.
  var ping: Double? { pings.map { ($0.before + $0.after) / 2 } }

  static func == (a: Sample, b: Sample) -> Bool {
    a.round == b.round && a.figures == b.figures && a.isPreempted == b.isPreempted && a.droppedBy == b.droppedBy && a.ping == b.ping
  }
}

extension Sample {
  /// What a replay says.
  init(_ report: ReplayReport, round: Int) {
    self.init(round: round)
    droppedBy = report.dropped_by
    figures[FigureName.frames] = report.rate.frames_per_second
    figures[FigureName.bits] = report.rate.bits_per_second
    figures[FigureName.datapath] = report.cost.datapath_ns_per_frame
    figures[FigureName.model] = report.cost.model_ns_per_frame
    figures[FigureName.host] = report.cost.datapath_ns_per_frame + report.cost.model_ns_per_frame
    guard let latency = report.due_latency_ns else { return }
    let values = [latency.p50, latency.p90, latency.p99, latency.p999, latency.p9999, latency.max]
    // Of fewer frames a percentile is only the largest one.
    let fewest: [UInt64] = [2, 10, 100, 1_000, 10_000, 1]
    for (index, name) in FigureName.latencies.enumerated() where report.frames.delivered >= fewest[index] {
      figures[name] = Double(values[index])
    }
  }
}
