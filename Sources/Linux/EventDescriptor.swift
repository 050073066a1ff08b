internal import CLinux
internal import Glibc

/// A counter in the kernel that one side raises and the other waits for. eventfd(2), never blocking.
public struct EventDescriptor: ~Copyable, Sendable {
  public let descriptor: OwnedDescriptor

  public init() throws(SystemError) {
    let number = sl_eventfd()
    guard number >= 0 else { throw SystemError(.eventfd) }
    descriptor = OwnedDescriptor(adopting: number)
  }

  /// Takes over an eventfd that somebody else has made, or a duplicate of one.
  public init(adopting descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }

  /// Raises it by one. A counter that is full already is as good as raised.
  public borrowing func signal() {
    var one: UInt64 = 1
    _ = unsafe write(descriptor.number, &one, 8)
  }

  /// Takes what was raised; false if nothing was.
  @discardableResult public borrowing func clear() -> Bool {
    var value: UInt64 = 0
    return unsafe read(descriptor.number, &value, 8) == 8
  }

  /// Waits until it is raised, at most so long. Does not take what was raised.
  public borrowing func wait(milliseconds: Int) {
    var request = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
    _ = unsafe poll(&request, 1, CInt(milliseconds))
  }
}
