internal import Glibc

/// Descriptors that came with a message, in its order; those that nobody takes are closed with the list, by the VM's
/// reaper.
public struct ReceivedDescriptors: ~Copyable, Sendable {
  /// Turned round, so that the next one to take is the last.
  private var numbers: [CInt]
  private let reaper: Reaper?

  public init() { (numbers, reaper) = ([], nil) }
  init(adopting numbers: some Collection<CInt>, _ reaper: Reaper?) {
    self.numbers = numbers.reversed()
    self.reaper = reaper
    if !numbers.isEmpty { reaper?.adopt(numbers.count) }
  }

  public var count: Int { numbers.count }
  public var isEmpty: Bool { numbers.isEmpty }

  /// The first one left; it is the caller's now.
  public mutating func takeFirst() -> OwnedDescriptor? {
    guard let number = numbers.popLast() else { return nil }
    return OwnedDescriptor(received: number, reaper)
  }

  deinit {
    for number in numbers {
      if let reaper { reaper.close(number) } else { _ = close(number) }
    }
  }
}
