internal import Control
internal import Glibc
internal import Linux

/// The control socket in the file system, with the mode, the owner and the group that were asked for.
struct SocketFile: ~Copyable {
  /// The group whose members may read.
  let group: UInt32
  private let listener: UnixListener
  var path: String { listener.path }

  init(_ socket: Configuration.Socket) throws(ControlSocketError) {
    var permissions = UnixListener.Permissions(mode: UInt32(socket.mode ?? 0o600))
    permissions.owner = try Self.number(socket.owner, Accounts.user) { .noSuchUser($0) }
    permissions.group = try Self.number(socket.group, Accounts.group) { .noSuchGroup($0) }
    try Self.checkFolder(of: socket.path)
    let listener: UnixListener
    do { listener = try UnixListener(at: socket.path, permissions, backlog: 64, takesDescriptors: false) } catch { throw .listener(error) }
    guard let status = UnixSocket.status(of: socket.path).status else { throw .system("lstat", path: socket.path, code: errno) }
    self.listener = listener
    group = status.group
  }

  /// The socket, for who closes it then; the file stays ours, and goes with this.
  borrowing func handOver() throws(ControlSocketError) -> CInt {
    let copy = fcntl(listener.descriptor.number, F_DUPFD_CLOEXEC, 0)
    guard copy >= 0 else { throw .system("dup", path: path, code: errno) }
    return copy
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
}
