/// As many values as it was made with, in memory of its own: no growth, no sharing, nothing retained.
///
/// `@safe`: every index is checked against the count.
@safe @frozen public struct FixedTable<Element: BitwiseCopyable>: ~Copyable {
  @usableFromInline let elements: UnsafeMutablePointer<Element>
  public let count: Int

  public init(repeating element: Element, count: Int) {
    precondition(count > 0)
    unsafe elements = .allocate(capacity: count)
    unsafe elements.initialize(repeating: element, count: count)
    self.count = count
  }
  deinit { unsafe elements.deallocate() }

  @inlinable public subscript(_ index: Int) -> Element {
    @inline(__always) get {
      precondition(index >= 0 && index < count, "outside the table")
      return unsafe elements[index]
    }
    @inline(__always) set {
      precondition(index >= 0 && index < count, "outside the table")
      unsafe elements[index] = newValue
    }
  }
}

extension FixedTable: @unchecked Sendable where Element: Sendable {}
