internal import Linux

/// Time as a driver needs it: to wait between two looks at a register. Real, or simulated: then a pause is when
/// the models take a step.
public protocol Timekeeper: AnyObject {
  /// Nanoseconds since some moment.
  var now: UInt64 { get }
  /// Lets this many nanoseconds pass.
  func pause(nanoseconds: UInt64)
}

/// The machine's clock.
public final class SystemTimekeeper: Timekeeper {
  public init() {}
  public var now: UInt64 { MonotonicClock.now() }
  public func pause(nanoseconds: UInt64) { MonotonicClock.sleep(nanoseconds: nanoseconds) }
}
