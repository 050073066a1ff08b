internal import Control
internal import Glibc
internal import Linux

/// A listening socket in the file system, with the mode, the owner and the group that were asked for.
///
/// It is bound first, then given its mode and owner, and listens last: until then nobody can connect, so there is no
/// moment with the wrong ones.
struct SocketFile: ~Copyable {
  let path: String
  /// The group whose members may read.
  let group: UInt32
  private let descriptor: OwnedDescriptor
  private let identity: FileStatus.Identity

  init(_ socket: Configuration.Socket) throws(ControlSocketError) {
    let path = socket.path
    let owner = try Self.number(socket.owner, Accounts.user) { .noSuchUser($0) }
    let group = try Self.number(socket.group, Accounts.group) { .noSuchGroup($0) }
    try Self.checkFolder(of: path)
    try Self.removeStale(path)
    let number = UnixSocket.bind(path)
    guard number >= 0 else { throw .system("bind", path: path, code: -number) }
    let descriptor = OwnedDescriptor(adopting: number)
    let status: FileStatus
    do {
      status = try Self.open(path, number, mode: socket.mode ?? 0o600, owner: owner, group: group)
    } catch {
      _ = UnixSocket.remove(path)
      throw error
    }
    self.path = path
    self.descriptor = descriptor
    self.group = status.group
    identity = status.identity
  }

  /// Between these calls only whoever may write to the folder could put something else there.
  private static func open(
    _ path: String, _ number: CInt, mode: UInt16, owner: UInt32?, group: UInt32?
  ) throws(ControlSocketError) -> FileStatus {
    func expect(_ code: CInt, _ call: String) throws(ControlSocketError) {
      if code != 0 { throw .system(call, path: path, code: code) }
    }
    try expect(UnixSocket.setMode(of: path, to: mode), "chmod")
    if owner != nil || group != nil { try expect(UnixSocket.setOwner(of: path, to: owner, group: group), "chown") }
    let (status, code) = UnixSocket.status(of: path)
    guard let status else { throw .system("lstat", path: path, code: code) }
    try expect(listen(number, 64) == 0 ? 0 : errno, "listen")
    return status
  }

  /// The socket, for who closes it then; the file stays ours.
  borrowing func handOver() throws(ControlSocketError) -> CInt {
    let copy = fcntl(descriptor.number, F_DUPFD_CLOEXEC, 0)
    guard copy >= 0 else { throw .system("dup", path: path, code: errno) }
    return copy
  }

  /// Takes the file away, unless another one is there by now.
  deinit {
    if UnixSocket.status(of: path).status?.identity == identity { _ = UnixSocket.remove(path) }
  }

  private static func number(
    _ name: String?, _ look: (String) -> UInt32?, _ missing: (String) -> ControlSocketError
  ) throws(ControlSocketError) -> UInt32? {
    guard let name else { return nil }
    guard let number = look(name) else { throw missing(name) }
    return number
  }

  /// A folder like /tmp is sticky: there nobody can take another's file away.
  private static func checkFolder(of path: String) throws(ControlSocketError) {
    let folder = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
    // Through a link, as bind(2) goes.
    let (status, code) = UnixSocket.status(of: folder + "/.")
    guard let status else { throw .system("folder", path: folder, code: code) }
    if status.permissions & 0o1002 == 0o0002 { throw .openFolder(path: folder) }
  }

  /// What a back-end that was killed has left behind.
  private static func removeStale(_ path: String) throws(ControlSocketError) {
    let (status, code) = UnixSocket.status(of: path)
    guard let status else {
      if code == ENOENT { return }
      throw .system("lstat", path: path, code: code)
    }
    guard status.kind == S_IFSOCK else { throw .notASocket(path: path) }
    switch UnixSocket.probe(path) {
    case 0: throw .taken(path: path)
    case ECONNREFUSED:
      let code = UnixSocket.remove(path)
      guard code == 0 || code == ENOENT else { throw .system("unlink", path: path, code: code) }
    case let code: throw .system("connect", path: path, code: code)
    }
  }
}
