internal import Glibc
internal import Linux

/// What the control socket needs of Unix sockets beside listening: who is at the other end, with all his groups, and
/// one datagram to whoever started us.
///
/// The one place of this target with pointers: they live as long as a call.
enum UnixSocket {
  /// Runs `body` with the address of a path; nil if it is too long to be one. A path that begins with @ is a name
  /// outside the file system.
  private static func withAddress<R>(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R? {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    var bytes = Array(path.utf8)
    let isAbstract = bytes.first == UInt8(ascii: "@")
    if isAbstract { bytes[0] = 0 }
    let room = MemoryLayout.size(ofValue: address.sun_path)
    guard !bytes.isEmpty, bytes.count < room else { return nil }
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
    let prefix = MemoryLayout<sockaddr_un>.size - room
    let length = isAbstract ? prefix + bytes.count : MemoryLayout<sockaddr_un>.size
    return unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe body($0, socklen_t(length)) }
    }
  }

  /// Sends one datagram, or does not: errno's value, 0 for success.
  static func send(_ text: String, to path: String) -> CInt {
    let number = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue), 0)
    guard number >= 0 else { return errno }
    defer { _ = close(number) }
    let bytes = Array(text.utf8)
    return unsafe withAddress(path) { address, length in
      unsafe sendto(number, bytes, bytes.count, CInt(MSG_NOSIGNAL), address, length) == bytes.count ? 0 : errno
    } ?? ENAMETOOLONG
  }

  /// Who had the other end when it was connected. Nil where the kernel does not say.
  static func peer(of number: CInt) -> Peer? {
    // struct ucred, which the C library shows to GNU programs only: pid, uid, gid.
    var credentials: [UInt32] = [0, .max, .max]
    var length: socklen_t = 12
    guard unsafe getsockopt(number, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0, length == 12, credentials[1] != .max
    else { return nil }
    return Peer(pid: Int32(truncatingIfNeeded: credentials[0]), uid: credentials[1], gid: credentials[2], groups: groups(of: number))
  }

  /// SO_PEERGROUPS, since Linux 4.13: the supplementary groups, at most 65,536 (NGROUPS_MAX).
  private static func groups(of number: CInt) -> [UInt32] {
    let peerGroups: CInt = 59
    var length: socklen_t = 0
    // With no room it says how much is needed.
    guard unsafe getsockopt(number, SOL_SOCKET, peerGroups, nil, &length) == 0 || errno == ERANGE else { return [] }
    var groups = [UInt32](repeating: .max, count: Int(length) / MemoryLayout<UInt32>.size)
    guard !groups.isEmpty, unsafe getsockopt(number, SOL_SOCKET, peerGroups, &groups, &length) == 0 else { return [] }
    return Array(groups.prefix(Int(length) / MemoryLayout<UInt32>.size))
  }

  /// What lies at a path, links not followed; nil with errno's value where nothing can be seen.
  static func status(of path: String) -> (status: (permissions: UInt16, group: UInt32)?, code: CInt) {
    var status = stat()
    guard unsafe lstat(path, &status) == 0 else { return (nil, errno) }
    return ((UInt16(truncatingIfNeeded: status.st_mode & 0o7777), status.st_gid), 0)
  }
}
