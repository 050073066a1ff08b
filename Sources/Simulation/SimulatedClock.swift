public import Bus

/// Time that passes only when somebody lets it: a pause of a driver is when the models take a step.
///
/// One thread at a time.
public final class SimulatedClock: Timekeeper {
  private var time: UInt64
  private var observers: [(UInt64) -> Void] = []
  private var isTelling = false

  /// - Parameter now: nanoseconds.
  public init(now: UInt64 = 0) { time = now }

  /// Nanoseconds. Setting it tells the observers; it never goes back.
  public var now: UInt64 {
    get { time }
    set {
      precondition(newValue >= time, "simulated time goes forward only")
      time = newValue
      tell()
    }
  }

  public func pause(nanoseconds: UInt64) { now = time + nanoseconds }
  /// Lets this many nanoseconds pass.
  public func advance(by nanoseconds: UInt64) { now = time + nanoseconds }

  /// Calls `body` with the time whenever time has passed, after the observers that came before it. Time that passes
  /// inside an observer is seen by the observers after it, and by nobody twice.
  public func observe(_ body: @escaping (_ now: UInt64) -> Void) { observers.append(body) }

  private func tell() {
    guard !isTelling else { return }
    isTelling = true
    for observer in observers { observer(time) }
    isTelling = false
  }
}
