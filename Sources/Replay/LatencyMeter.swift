internal import Histogram

/// An HdrHistogram of nanoseconds with three significant digits, up to 100 s.
struct DurationHistogram {
  private static let limit: UInt64 = 100_000_000_000
  private var histogram = Histogram<UInt64>(
    highestTrackableValue: DurationHistogram.limit, numberOfSignificantValueDigits: .three)
  private(set) var largest: UInt64 = 0
  private(set) var count: UInt64 = 0

  mutating func record(_ nanoseconds: UInt64, times: UInt64 = 1) {
    largest = max(largest, nanoseconds)
    count += times
    _ = histogram.record(min(nanoseconds, Self.limit), count: times)
  }
  func percentile(_ percent: Double) -> UInt64 {
    count == 0 ? 0 : min(histogram.valueAtPercentile(percent), largest)
  }
}

/// When the frames came that are in one queue of the card. They leave in the same order.
struct ArrivalTimes {
  private struct Burst {
    var time: UInt64
    var count: UInt64
  }
  /// A ring: bursts that came and have not wholly left. There is at least one frame in each.
  private var bursts: [Burst]
  private var front = 0
  private var tail = 0

  /// - Parameter capacity: the most frames that can be in the queue.
  init(capacity: Int) { bursts = Array(repeating: Burst(time: 0, count: 0), count: capacity + 1) }

  mutating func arrived(_ count: UInt64, at time: UInt64) {
    bursts[tail] = Burst(time: time, count: count)
    tail = tail + 1 == bursts.count ? 0 : tail + 1
  }

  /// So many left: each is recorded with the time since it came.
  mutating func left(_ count: UInt64, at time: UInt64, in histogram: inout DurationHistogram, scale: Double) {
    var rest = count
    while rest > 0, front != tail {
      let taken = min(rest, bursts[front].count)
      histogram.record(UInt64(Double(time - min(time, bursts[front].time)) * scale), times: taken)
      bursts[front].count -= taken
      rest -= taken
      if bursts[front].count == 0 { front = front + 1 == bursts.count ? 0 : front + 1 }
    }
  }
}
