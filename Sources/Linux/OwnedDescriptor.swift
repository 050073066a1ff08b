internal import Glibc

/// A file descriptor with one owner; it is closed exactly once, when that owner goes away.
public struct OwnedDescriptor: ~Copyable, Sendable {
  public let number: CInt

  /// Takes over a descriptor that the kernel has just handed to us.
  public init(adopting number: CInt) {
    precondition(number >= 0, "not a descriptor: \(number)")
    self.number = number
  }

  /// Takes over a descriptor that this process was started with.
  ///
  /// - Throws: EBADF if it was not.
  public init(inherited number: CInt) throws(SystemError) {
    guard number >= 0, fcntl(number, F_SETFD, FD_CLOEXEC) == 0 else { throw SystemError(.fcntl, code: EBADF) }
    self.number = number
  }

  deinit { _ = Glibc.close(number) }

  /// Whether it is a socket that listens. socket(7), SO_ACCEPTCONN.
  public var isListening: Bool {
    var value: CInt = 0
    var length = socklen_t(MemoryLayout<CInt>.size)
    return unsafe getsockopt(number, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0 && value != 0
  }

  /// Another descriptor of the same open file, with an owner of its own.
  public borrowing func duplicate() throws(SystemError) -> OwnedDescriptor {
    let copy = fcntl(number, F_DUPFD_CLOEXEC, 0)
    guard copy >= 0 else { throw SystemError(.dup) }
    return OwnedDescriptor(adopting: copy)
  }

  /// The size of the file behind it, in bytes.
  public borrowing func fileByteCount() throws(SystemError) -> Int {
    var status = stat()
    guard unsafe fstat(number, &status) == 0 else { throw SystemError(.fstat) }
    return Int(status.st_size)
  }

  /// Closes now, for callers who need to know that it worked.
  public consuming func close() throws(SystemError) {
    let number = self.number
    discard self
    guard Glibc.close(number) == 0 else { throw SystemError(.close) }
  }
}
