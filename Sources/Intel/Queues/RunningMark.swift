internal import Synchronization

/// Whether a queue runs, as far as whoever has it knows: for its driver, which may ask from another thread.
///
/// A reset by somebody else stops a queue that nobody has stopped: that is how it is seen where no register tells of it.
final class RunningMark: Sendable {
  private let mark = Atomic(false)

  /// It runs from now on, or may stop from now on.
  func set(_ isRunning: Bool) { mark.store(isRunning, ordering: .sequentiallyConsistent) }
  var isSet: Bool { mark.load(ordering: .sequentiallyConsistent) }

  /// Whether the card says the same. While it is being stopped it may say what it wants.
  func agrees(_ isEnabled: () -> Bool) -> Bool { !isSet || isEnabled() || !isSet }
}
