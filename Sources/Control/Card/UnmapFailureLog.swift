internal import Bus

/// What could not be unmapped, of all cards that there were: for the log, and for the status.
///
/// Control thread only.
struct UnmapFailureLog {
  private struct Source {
    let failures: UnmapFailures
    let device: String
    let windowSpan: UInt64
    /// How many were asked for.
    var seen = 0
  }
  private var sources: [Source] = []

  /// From now on of this card too.
  mutating func follow(_ card: any NetworkCard) {
    sources.append(Source(failures: card.space.unmapFailures, device: card.kind, windowSpan: card.windowSpan))
  }

  var count: Int { sources.reduce(0) { $0 + $1.failures.count } }

  struct Entry {
    let failure: UnmapFailures.Failure
    let device: String
    /// Whose window it lies in, by the VM's number; nil: it is a ring or a host buffer.
    let vm: Int?
  }

  /// Those that were not asked for yet.
  mutating func takeNew() -> [Entry] {
    sources.indices.flatMap { n in
      let source = sources[n]
      let failures = source.failures.failures
      sources[n].seen = failures.count
      return failures.dropFirst(source.seen).map { failure in
        let window = Int(failure.address.rawValue / source.windowSpan)
        return Entry(failure: failure, device: source.device, vm: window > 0 ? window - 1 : nil)
      }
    }
  }
}
