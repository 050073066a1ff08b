/// How many lines of one source may be written: a hostile guest must not fill a disk, nor hide what others say.
///
/// A bucket of `burst` lines for each source, which fills again at `perSecond`.
struct LogRate {
  static let burst = 50.0
  static let perSecond = 2.0
  /// Beyond so many sources there is one bucket for all the others.
  static let sources = 256

  private struct Bucket {
    var lines = LogRate.burst
    /// Seconds of the clock at its last line.
    var time: Double
    var suppressed: UInt64 = 0
  }
  private var buckets: [String: Bucket] = [:]

  /// Whether a line of this source may be written at this time, and how many before it were not; nil if it may not.
  mutating func enter(_ source: String, at time: Double) -> UInt64? {
    let source = buckets[source] == nil && buckets.count >= Self.sources ? "" : source
    var bucket = buckets[source] ?? Bucket(time: time)
    defer { buckets[source] = bucket }
    bucket.lines = min(Self.burst, bucket.lines + max(0, time - bucket.time) * Self.perSecond)
    bucket.time = time
    guard bucket.lines >= 1 else {
      bucket.suppressed += 1
      return nil
    }
    bucket.lines -= 1
    defer { bucket.suppressed = 0 }
    return bucket.suppressed
  }

  /// What was left out and not told yet, by source.
  mutating func drain() -> [(source: String, count: UInt64)] {
    let left = buckets.filter { $0.value.suppressed > 0 }.map { (source: $0.key, count: $0.value.suppressed) }
    for source in left.map(\.source) { buckets[source]?.suppressed = 0 }
    return left.sorted { $0.source < $1.source }
  }
}
