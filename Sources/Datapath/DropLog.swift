/// Which frames a path dropped, by their number among those that it settled, for who wants to know what is missing.
///
/// Written on the long way only. Keeps the latest few; who needs them all reads after every turn, which drops at
/// most that many.
@safe public final class DropLog: @unchecked Sendable {
  /// More than a turn can drop, and than a card can hold when it is stopped.
  static let capacity = 16384
  private let numbers: UnsafeMutablePointer<UInt64>
  private var written = 0
  private var read = 0

  init() {
    unsafe numbers = .allocate(capacity: Self.capacity)
    unsafe numbers.initialize(repeating: 0, count: Self.capacity)
  }
  deinit { unsafe numbers.deallocate() }

  func append(_ number: UInt64) {
    unsafe numbers[written % Self.capacity] = number
    written += 1
    read = max(read, written - Self.capacity)
  }

  public var isEmpty: Bool { read == written }

  /// The oldest that was not taken yet.
  public func next() -> UInt64? {
    guard read < written else { return nil }
    defer { read += 1 }
    return unsafe numbers[read % Self.capacity]
  }
}
