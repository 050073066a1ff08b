internal import Bus

/// The progress of a queue that is being stopped. Times are the driver's clock's, in nanoseconds.
enum Quiescence {
  case none
  /// A transmit queue may still send what was posted. The tail is nil until it was read.
  case draining(since: UInt64, tail: UInt32?)
  /// ENABLE was cleared, and reads 1 still.
  case disabling(since: UInt64)
  /// ENABLE reads 0; accesses under way end by then.
  case settling(until: UInt64)
  /// The NIC did not clear ENABLE in time: only a reset stops the queue.
  case failed

  var isUnderWay: Bool {
    switch self {
    case .none, .failed: false
    case .draining, .disabling, .settling: true
    }
  }
  var hasFailed: Bool { if case .failed = self { true } else { false } }

  /// Between two polls of a caller that blocks, in nanoseconds.
  static let pollInterval: UInt64 = 10_000
}

extension RegisterBlock {
  /// The error of a register that did not become what it must.
  func error<R: Register32>(_ found: R, _ number: Int, waited: UInt64) -> RegisterError {
    RegisterError(name: "\(R.self)", number: number, offset: firstOffset + R.offset(number), value: found.rawValue, waited: waited)
  }
}
