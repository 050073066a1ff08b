public import Glibc

/// A system call that failed: which one, and how.
public struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The calls that this module makes.
  public enum Call: String, Sendable {
    case close, ftruncate, flock, mmap, munmap, memfdCreate = "memfd_create", eventfd, read, write, dup
    case pthreadCreate = "pthread_create", setAffinity = "pthread_setaffinity_np", open, fstat
    case fsync, socket, socketpair, bind, listen, accept = "accept4", connect, recvmsg, sendmsg, getsockopt, fcntl, fstatfs
    case lstat, chmod, chown, rename, unlink, epollCreate = "epoll_create1", epollControl = "epoll_ctl"
    case epollWait = "epoll_wait", pipe = "pipe2", readlink, ioSetup = "io_setup"
    case attachTap = "ioctl TUNSETIFF", setLinkUp = "ioctl SIOCSIFFLAGS", setLinkMTU = "ioctl SIOCSIFMTU"
  }
  public let call: Call
  /// errno's value right after the call.
  public let code: CInt

  public init(_ call: Call, code: CInt = errno) {
    self.call = call
    self.code = code
  }

  public var description: String { "\(call.rawValue): \(Self.text(code))" }

  /// The C library's words for an errno.
  public static func text(_ code: CInt) -> String {
    guard let text = unsafe strerror(code) else { return "error \(code)" }
    return unsafe String(cString: text)
  }
}

extension SystemError {
  /// EWOULDBLOCK: somebody else has it, or it is not there yet.
  public var isBusy: Bool { code == EWOULDBLOCK }
}
