/// Which frames a path dropped, by their number among those that it settled, for who wants to know what is missing.
///
/// Written on the long way only. Keeps the latest few; who needs them all reads after every turn, which drops at
/// most that many.
///
/// `@safe`: the cells live as long as this object, and every index is masked. One thread.
@safe public final class DropLog: @unchecked Sendable {
  /// More than a turn can drop, and than a card can hold when it is stopped. A power of two.
  fileprivate static let capacity = 16384
  /// The numbers, then how many were written, then how many were read.
  private let cells: UnsafeMutablePointer<UInt64>

  init() {
    unsafe cells = .allocate(capacity: Self.capacity + 2)
    unsafe cells.initialize(repeating: 0, count: Self.capacity + 2)
  }
  deinit { unsafe cells.deallocate() }

  /// The way to the cells that a path keeps: no reference to count. Valid while the log lives.
  @safe struct Writer {
    fileprivate let cells: UnsafeMutablePointer<UInt64>

    func append(_ number: UInt64) {
      let written = unsafe cells[DropLog.capacity]
      unsafe cells[Int(written) & (DropLog.capacity - 1)] = number
      unsafe cells[DropLog.capacity] = written + 1
    }
  }
  var writer: Writer { unsafe Writer(cells: cells) }

  /// The oldest that was not taken yet.
  public func next() -> UInt64? {
    let written = unsafe cells[Self.capacity]
    let oldest = written > UInt64(Self.capacity) ? written - UInt64(Self.capacity) : 0
    let read = max(unsafe cells[Self.capacity + 1], oldest)
    guard read < written else { return nil }
    unsafe cells[Self.capacity + 1] = read + 1
    return unsafe cells[Int(read) & (Self.capacity - 1)]
  }
}
