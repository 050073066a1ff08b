internal import Glibc

/// Descriptors that came with a message, in its order; those that nobody takes are closed with the list.
public struct ReceivedDescriptors: ~Copyable, Sendable {
  /// Turned round, so that the next one to take is the last.
  private var numbers: [CInt]

  public init() { numbers = [] }
  init(adopting numbers: some Collection<CInt>) { self.numbers = numbers.reversed() }

  public var count: Int { numbers.count }
  public var isEmpty: Bool { numbers.isEmpty }

  /// The first one left; it is the caller's now.
  public mutating func takeFirst() -> OwnedDescriptor? {
    guard let number = numbers.popLast() else { return nil }
    return OwnedDescriptor(adopting: number)
  }

  deinit { for number in numbers { _ = close(number) } }
}
