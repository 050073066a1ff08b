internal import Linux

/// Mappings of an address space that could not be removed, and what follows from that.
///
/// The device may still reach such memory. So the memory is never freed, and its addresses are never used for anything else; and
/// at the first failure the device's bus mastering is turned off, by the thread that met it and before that goes on. Then nothing
/// is written any more. Who looks after the device finds the failures here, reports them, and closes it.
///
/// Any thread may call: a lock guards it. Not for a frame that went well.
public final class UnmapFailures: Sendable {
  /// One call that failed.
  public struct Failure: Hashable, Sendable {
    /// Where the mapping begins, and its bytes.
    public let address: IOVA
    public let byteCount: Int
    public let error: IOAddressSpaceError
  }

  /// How many are remembered one by one; all are counted. A log needs no more to say what happened.
  public static let capacity = 64

  private struct State {
    var failures: [Failure] = []
    var count = 0
    var stop: (@Sendable () -> Void)?
  }
  private let state = Mutex(State())

  /// What a device may still reach: kept until the process ends, for only then the kernel is sure to have let it go.
  private static let kept = Mutex<[any AnyObject & Sendable]>([])

  public init() {}

  /// Failures so far.
  public var count: Int { state.withLock { $0.count } }
  /// The first of them, oldest first.
  public var failures: [Failure] { state.withLock { $0.failures } }

  /// What turns the device's bus mastering off. Called once, at the first failure, on the thread where it happens; at once if one
  /// has happened already.
  public func onFirst(_ stop: @escaping @Sendable () -> Void) {
    let isLate = state.withLock { state in
      if state.count == 0 { state.stop = stop }
      return state.count > 0
    }
    if isLate { stop() }
  }

  /// A mapping could not be removed. When this returns, bus mastering is off, and `memory` is kept for good.
  public func record(_ error: IOAddressSpaceError, at address: IOVA, byteCount: Int, keeping memory: any AnyObject & Sendable) {
    Self.kept.withLock { kept in if !kept.contains(where: { $0 === memory }) { kept.append(memory) } }
    let stop = state.withLock { state in
      state.count += 1
      if state.failures.count < Self.capacity { state.failures.append(Failure(address: address, byteCount: byteCount, error: error)) }
      return state.stop.take()
    }
    stop?()
  }
}
