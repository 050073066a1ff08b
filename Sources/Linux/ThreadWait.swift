/// Time that a thread could run and did not, for its processor was another's.
public enum ThreadWait {
  /// The calling thread's since it began, in nanoseconds. Nil: this kernel does not count it.
  ///
  /// What it ran, what it waited, how often: the kernel's Documentation/scheduler/sched-stats.rst.
  public static func nanoseconds() -> UInt64? {
    guard let words = WholeFile.text("/proc/thread-self/schedstat")?.split(separator: " "), words.count > 1 else { return nil }
    return UInt64(words[1])
  }
}
