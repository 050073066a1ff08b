internal import Glibc
internal import Linux

/// What the machine kept from a sample: time that its threads waited for their processors, times that they were taken off
/// them, time that a host took from the whole machine.
struct Disturbance: Equatable {
  /// Of the thread that waited longer, in nanoseconds. Nil: this kernel does not count it.
  var waited: UInt64?
  /// Of all threads of this process; getrusage(2), `ru_nivcsw`.
  var switches: Int
  /// Of all processors, in nanoseconds. Nil: this kernel does not say.
  var stolen: UInt64?

  /// The largest share of a sample that may be waited, and that may be stolen.
  static let largestShare = (waited: 0.05, stolen: 0.05)
  /// The most involuntary switches a second, where waiting is not counted: the kernel's own threads make some fifty, and a
  /// processor that is shared in turns has hundreds.
  static let largestSwitchRate = 300.0

  /// Counted since boot, or since the process began. What was waited a replay tells.
  static func now() -> Disturbance {
    var usage = rusage()
    unsafe getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    return Disturbance(
      switches: usage.ru_nivcsw,
      stolen: WholeFile.text("/proc/stat").flatMap { stolen(in: $0, ticksPerSecond: sysconf(CInt(_SC_CLK_TCK))) })
  }

  /// The eighth number of the first line, in ticks; proc(5), "/proc/stat".
  static func stolen(in text: String, ticksPerSecond: Int) -> UInt64? {
    let words = text.prefix { $0 != "\n" }.split(separator: " ")
    guard words.count > 8, words[0] == "cpu", ticksPerSecond > 0, let ticks = UInt64(words[8]) else { return nil }
    return ticks * (1_000_000_000 / UInt64(ticksPerSecond))
  }

  /// What was added since, and what was waited meanwhile.
  func since(_ earlier: Disturbance, waited: UInt64?) -> Disturbance {
    Disturbance(
      waited: waited, switches: max(0, switches - earlier.switches),
      stolen: stolen.flatMap { stolen in earlier.stolen.map { stolen - min(stolen, $0) } })
  }

  /// Whether a sample of so many seconds says something about what ran in it.
  func isSmall(in seconds: Double) -> Bool {
    Double(waited ?? 0) <= seconds * 1e9 * Self.largestShare.waited
      && Double(stolen ?? 0) <= seconds * 1e9 * Self.largestShare.stolen
      && (waited != nil || Double(switches) <= max(seconds * Self.largestSwitchRate, 10))
  }
}
