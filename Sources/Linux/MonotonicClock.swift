public import CLinux
internal import Glibc

/// Time that only goes forward, in nanoseconds since some moment.
public enum MonotonicClock {
  public static func now() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  /// Sleeps about this long.
  public static func sleep(nanoseconds: UInt64) {
    var time = timespec(
      tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
    unsafe _ = nanosleep(&time, nil)
  }
}

/// The processor's time that the calling thread has used, in nanoseconds: it stands still while the thread waits, or another one has
/// the processor. clock_gettime(2), CLOCK_THREAD_CPUTIME_ID: a system call.
public enum ThreadClock {
  public static func now() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}

/// The processor's time-stamp counter: cheap enough to read twice a batch, and of constant rate.
public enum TickCounter {
  @inlinable public static func now() -> UInt64 { sl_ticks() }

  /// Ticks a second, measured against the monotonic clock over 20 ms.
  public static func measureRate() -> Double {
    let (t0, c0) = (MonotonicClock.now(), now())
    MonotonicClock.sleep(nanoseconds: 20_000_000)
    let (t1, c1) = (MonotonicClock.now(), now())
    return Double(c1 - c0) * 1e9 / Double(t1 - t0)
  }
}
