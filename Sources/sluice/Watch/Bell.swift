import Linux

/// Wakes the one who waits for it, from any thread.
final class Bell: Sendable {
  private let descriptor: EventDescriptor

  init() throws(Failure) {
    do { descriptor = try EventDescriptor() } catch { throw Failure(status: .machine, message: "\(error)") }
  }

  func ring() { descriptor.signal() }

  /// Whether it was rung within this time.
  func wait(milliseconds: Int) -> Bool {
    descriptor.wait(milliseconds: milliseconds)
    return descriptor.clear()
  }
}
