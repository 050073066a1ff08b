internal import Glibc

/// A file descriptor with one owner; it is closed exactly once, when that owner goes away.
///
/// One that came from another process is closed by that VM's `Reaper`, whichever thread its owner is on.
public struct OwnedDescriptor: ~Copyable, Sendable {
  public private(set) var number: CInt
  /// Closes it; nil if it is this process's own, and whoever lets it go closes it.
  public private(set) var reaper: Reaper?

  /// Takes over a descriptor that the kernel has just handed to us.
  public init(adopting number: CInt) {
    precondition(number >= 0, "not a descriptor: \(number)")
    self.number = number
  }

  /// Takes over one that came from another process, and was counted there.
  init(received number: CInt, _ reaper: Reaper?) {
    self.init(adopting: number)
    self.reaper = reaper
  }

  /// Takes over a descriptor that this process was started with.
  ///
  /// - Throws: EBADF if it was not.
  public init(inherited number: CInt) throws(SystemError) {
    guard number >= 0, fcntl(number, F_SETFD, FD_CLOEXEC) == 0 else { throw SystemError(.fcntl, code: EBADF) }
    self.number = number
  }

  deinit {
    guard number >= 0 else { return }
    if let reaper { reaper.close(number) } else { _ = Glibc.close(number) }
  }

  /// Has it closed by a VM's reaper from now on: another process decides how long that takes.
  public mutating func entrust(to reaper: Reaper) {
    precondition(self.reaper == nil)
    reaper.adopt()
    self.reaper = reaper
  }

  /// Whether it is a socket that listens. socket(7), SO_ACCEPTCONN.
  public var isListening: Bool {
    var value: CInt = 0
    var length = socklen_t(MemoryLayout<CInt>.size)
    return unsafe getsockopt(number, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0 && value != 0
  }

  /// Another descriptor of the same open file, with an owner of its own, closed in the same way.
  public borrowing func duplicate() throws(SystemError) -> OwnedDescriptor {
    let copy = fcntl(number, F_DUPFD_CLOEXEC, 0)
    guard copy >= 0 else { throw SystemError(.dup) }
    reaper?.adopt()
    return OwnedDescriptor(received: copy, reaper)
  }

  /// The size of the file behind it, in bytes. For files of our own.
  public borrowing func fileByteCount() throws(SystemError) -> Int {
    var status = stat()
    guard unsafe fstat(number, &status) == 0 else { throw SystemError(.fstat) }
    return Int(status.st_size)
  }

  /// Closes now, for callers who need to know that it worked. For files of our own.
  public consuming func close() throws(SystemError) {
    precondition(reaper == nil)
    let number = self.number
    self.number = -1
    guard Glibc.close(number) == 0 else { throw SystemError(.close) }
  }
}
