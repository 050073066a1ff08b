internal import CLinux
internal import Glibc

/// Waits for many descriptors at once. epoll(7), level-triggered unless asked for otherwise.
public struct Poller: ~Copyable, Sendable {
  private let descriptor: OwnedDescriptor

  public init() throws(SystemError) {
    let number = sl_poller()
    guard number >= 0 else { throw SystemError(.epollCreate) }
    descriptor = OwnedDescriptor(adopting: number)
  }

  /// What to wait for. A closed other end is told in any case.
  public struct Interest: OptionSet, Hashable, Sendable {
    public let rawValue: CInt
    public init(rawValue: CInt) { self.rawValue = rawValue }
    public static let read = Interest(rawValue: CInt(SL_READABLE))
    public static let write = Interest(rawValue: CInt(SL_WRITABLE))
    /// Told once for each time that it becomes ready: what was told need not be read away. EPOLLET.
    public static let edges = Interest(rawValue: CInt(SL_EDGES))
  }

  /// A descriptor that is ready for something.
  public struct Ready: Hashable, Sendable {
    /// As it was added with.
    public let token: UInt64
    public let isReadable: Bool
    public let isWritable: Bool
    /// The other end is gone or the descriptor has failed; there may still be bytes to read.
    public let isClosed: Bool
  }

  public borrowing func add(_ number: CInt, for interest: Interest, token: UInt64) throws(SystemError) {
    guard sl_poller_add(descriptor.number, number, interest.rawValue, token) == 0 else { throw SystemError(.epollControl) }
  }
  public borrowing func modify(_ number: CInt, for interest: Interest, token: UInt64) throws(SystemError) {
    guard sl_poller_modify(descriptor.number, number, interest.rawValue, token) == 0 else { throw SystemError(.epollControl) }
  }
  /// To be called before the descriptor is closed: an open file that somebody else holds too would stay.
  public borrowing func remove(_ number: CInt) throws(SystemError) {
    guard sl_poller_remove(descriptor.number, number) == 0 else { throw SystemError(.epollControl) }
  }

  /// Waits until something is ready, at most so long; nil: without end. Empty if the time is over or a signal came.
  public borrowing func wait(milliseconds: Int?) throws(SystemError) -> [Ready] {
    var (tokens, states) = ([UInt64](repeating: 0, count: 64), [CInt](repeating: 0, count: 64))
    let timeout = milliseconds.map { CInt(clamping: max($0, 0)) } ?? -1
    let count = unsafe sl_poller_wait(descriptor.number, &tokens, &states, 64, timeout)
    guard count >= 0 else { throw SystemError(.epollWait) }
    return (0..<Int(count)).map { n in
      let state = Int(states[n])
      return Ready(
        token: tokens[n], isReadable: state & SL_READABLE != 0, isWritable: state & SL_WRITABLE != 0,
        isClosed: state & SL_CLOSED != 0)
    }
  }
}
