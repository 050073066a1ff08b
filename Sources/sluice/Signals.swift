import Glibc
import Linux
import Replay

/// The signals that ask for the end.
enum StopSignal: UInt64 {
  case interrupt = 2
  case terminate = 15
}

/// Waits for SIGINT and SIGTERM on a thread of its own, so that no code has to be safe in a handler.
///
/// The first asks for the end: the report of what was done follows. The second, a fifth of a second later or more, ends the
/// process at once. SIGHUP, where it
/// is taken, asks for something else, any number of times.
final class Signals: Sendable {
  private let first = SharedWord()

  /// The signal that came first, if one came.
  var received: StopSignal? { StopSignal(rawValue: first.value) }

  /// To be called before other threads are started, or after `block` was: they must not be given the signals.
  ///
  /// - Parameters:
  ///   - hangUp: called for each SIGHUP, on the thread that waits; nil: SIGHUP ends the process as ever.
  ///   - stop: called once, on the thread that waits.
  init(hangUp: (@Sendable () -> Void)? = nil, stop: @escaping @Sendable () -> Void) throws(Failure) {
    let set = Self.block(hangUp: hangUp != nil)
    let first = first
    do {
      _ = try Thread(name: "signals") { [set] in
        first.set(Self.waitForEnd(set, hangUp))
        stop()
        // timeout(1) asks the process, and then its group with the process in it: that is one request.
        MonotonicClock.sleep(nanoseconds: 200_000_000)
        Self.forgetPending(set)
        let second = Self.waitForEnd(set, nil)
        if StandardStream.error.isTerminal { StandardStream.error.note(RedrawnLine.clearing) }
        _exit(CInt(128 + second))
      }
    } catch {
      throw Failure(status: .machine, message: "the thread for signals: \(error)")
    }
  }

  /// The same for a replay.
  static func ending(_ stop: @escaping @Sendable () -> Void) throws(ReplayError) -> Signals {
    do { return try Signals(stop: stop) } catch { throw .machine(error.message) }
  }

  /// Keeps the signals from this thread, and from those that it starts: whichever thread did not would be ended by them,
  /// and the process with it.
  @discardableResult static func block(hangUp: Bool) -> sigset_t {
    var set = sigset_t()
    unsafe sigemptyset(&set)
    unsafe sigaddset(&set, SIGINT)
    unsafe sigaddset(&set, SIGTERM)
    if hangUp { unsafe sigaddset(&set, SIGHUP) }
    unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
    return set
  }

  private static func waitForEnd(_ set: sigset_t, _ hangUp: (() -> Void)?) -> UInt64 {
    while true {
      let number = wait(set)
      if number != UInt64(SIGHUP) { return number }
      hangUp?()
    }
  }

  private static func forgetPending(_ set: sigset_t) {
    var (set, none) = (set, timespec())
    while unsafe sigtimedwait(&set, nil, &none) > 0 {}
  }

  private static func wait(_ set: sigset_t) -> UInt64 {
    var set = set
    var number: CInt = 0
    while unsafe sigwait(&set, &number) != 0 {}
    return UInt64(number)
  }
}
