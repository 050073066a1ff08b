internal import CLinux
internal import Glibc

/// A Unix stream socket that others connect to, at a path of its own. The path goes with it, if it is still its own.
public struct UnixListener: ~Copyable, Sendable {
  public private(set) var descriptor: OwnedDescriptor
  public let path: String
  private let identity: Identity?

  private struct Identity: Hashable {
    let device: UInt64
    let inode: UInt64
  }

  /// Who may connect: writing to a socket's path is connecting.
  public struct Permissions: Hashable, Sendable {
    public var mode: UInt32
    /// nil: as the process.
    public var owner: UInt32?
    public var group: UInt32?
    public init(mode: UInt32 = 0o660, owner: UInt32? = nil, group: UInt32? = nil) {
      self.mode = mode
      self.owner = owner
      self.group = group
    }
  }

  /// Listens at a path. It appears there in one step, with its owner and mode, when it already listens; what a dead
  /// process left there goes at the same moment.
  ///
  /// Refuses to take away anything but a socket that this user owns and that nobody answers on.
  ///
  /// - Parameter takesDescriptors: false if connections shall bring none: who closes a connection, or reads from it without
  ///   room for them, closes what was sent along, and that may take long. A kernel before 6.16 lets them in all the same.
  public init(
    at path: String, _ permissions: Permissions = Permissions(), backlog: Int = 16, takesDescriptors: Bool = true
  ) throws(UnixListenerError) {
    // It is made next to the place, and then moved there.
    let draft = path + ".new"
    let longest = sl_unix_longest_path() - 4
    guard path.utf8.count <= longest else { throw .pathTooLong(path, limit: longest) }
    try Self.checkPlace(path)
    try Self.checkPlace(draft)
    _ = unsafe unlink(draft)
    let number = sl_unix_socket()
    guard number >= 0 else { throw .system(path, SystemError(.socket)) }
    let descriptor = OwnedDescriptor(adopting: number)
    do throws(SystemError) {
      if !takesDescriptors { _ = sl_refuse_descriptors(number) }
      guard unsafe sl_unix_bind(number, draft) == 0 else { throw SystemError(.bind) }
      do throws(SystemError) {
        guard unsafe chmod(draft, mode_t(permissions.mode)) == 0 else { throw SystemError(.chmod) }
        if permissions.owner != nil || permissions.group != nil {
          guard unsafe chown(draft, permissions.owner ?? .max, permissions.group ?? .max) == 0 else { throw SystemError(.chown) }
        }
        guard sl_unix_listen(number, CInt(clamping: backlog)) == 0 else { throw SystemError(.listen) }
        guard unsafe rename(draft, path) == 0 else { throw SystemError(.rename) }
      } catch {
        _ = unsafe unlink(draft)
        throw error
      }
    } catch { throw .system(path, error) }
    self.path = path
    identity = Self.look(path)?.identity
    self.descriptor = descriptor
  }

  /// Takes over a socket that listens already, from whoever started this process. Its path stays.
  public init(adopting descriptor: consuming OwnedDescriptor, path: String) throws(SystemError) {
    guard sl_set_nonblocking(descriptor.number) == 0 else { throw SystemError(.fcntl) }
    self.descriptor = descriptor
    self.path = path
    identity = nil
  }

  /// Has the socket closed by a VM's reaper: connections that wait in it are closed with it, and what waits in them.
  public mutating func entrust(to reaper: Reaper) { descriptor.entrust(to: reaper) }

  /// The next connection; nil if nobody waits now, or who waited is gone.
  public borrowing func accept() throws(SystemError) -> UnixStream? {
    let number = sl_unix_accept(descriptor.number)
    if number >= 0 { return UnixStream(OwnedDescriptor(adopting: number)) }
    let code = errno
    if code == EAGAIN || code == EWOULDBLOCK || code == ECONNABORTED || code == EINTR { return nil }
    throw SystemError(.accept, code: code)
  }

  /// Closes what waits, up to a backlog's worth: who is served already is the only one. Answers how many that were.
  @discardableResult public borrowing func turnAway() throws(SystemError) -> Int {
    for count in 0..<64 {
      guard let stream = try accept() else { return count }
      _ = consume stream
    }
    return 64
  }

  /// Whether others could exchange what lies at a path: its directory is a link, or its group or everybody may write
  /// there. To be asked before a socket is made that others connect to.
  public static func checkDirectory(of path: String) throws(UnixListenerError) {
    let parts = path.split(separator: "/", omittingEmptySubsequences: true)
    let directory = (path.hasPrefix("/") ? "/" : "") + parts.dropLast().joined(separator: "/")
    let name = directory.isEmpty ? "." : directory
    var status = stat()
    guard unsafe lstat(name, &status) == 0 else { throw .system(name, SystemError(.lstat)) }
    guard status.st_mode & S_IFMT == S_IFDIR else { throw .notADirectory(name) }
    guard status.st_mode & 0o022 == 0 else { throw .openDirectory(name, mode: status.st_mode & 0o7777) }
  }

  deinit {
    if let identity, Self.look(path)?.identity == identity { _ = unsafe unlink(path) }
  }

  private static func look(_ path: String) -> (identity: Identity, isSocket: Bool, owner: UInt32)? {
    var status = stat()
    guard unsafe lstat(path, &status) == 0 else { return nil }
    let identity = Identity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    return (identity, status.st_mode & S_IFMT == S_IFSOCK, status.st_uid)
  }

  private static func checkPlace(_ path: String) throws(UnixListenerError) {
    guard let found = look(path) else { return }
    guard found.isSocket else { throw .notASocket(path) }
    guard found.owner == geteuid() else { throw .notOurs(path, owner: found.owner) }
    do {
      let answer = try UnixStream(connectingTo: path)
      _ = consume answer
      throw UnixListenerError.inUse(path)
    } catch let error as SystemError {
      // Refused: the socket is there, and nobody listens on it. Any other failure may be a busy listener.
      guard error.code == ECONNREFUSED || error.code == ENOENT else { throw .inUse(path) }
    } catch { throw .inUse(path) }
  }
}

/// Why a socket cannot be made.
public enum UnixListenerError: Error, Hashable, Sendable, CustomStringConvertible {
  case pathTooLong(String, limit: Int)
  /// Something else has the name. It is left alone.
  case notASocket(String)
  case notOurs(String, owner: UInt32)
  case inUse(String)
  case notADirectory(String)
  /// Its group or everybody may write to it.
  case openDirectory(String, mode: UInt32)
  case system(String, SystemError)

  public var description: String {
    switch self {
    case .pathTooLong(let path, let limit): "\(path): \(path.utf8.count) bytes; a socket's path has at most \(limit)"
    case .notASocket(let path): "\(path): exists and is not a socket; remove it or name another path"
    case .notOurs(let path, let owner): "\(path): belongs to user \(owner); remove it or name another path"
    case .inUse(let path): "\(path): another process listens there"
    case .notADirectory(let path): "\(path): not a directory; a socket's directory must not be a link either"
    case .openDirectory(let path, let mode):
      "\(path): others may write there (mode \(String(mode, radix: 8))), and so exchange the socket; chmod go-w, or name another directory"
    case .system(let path, let error): "\(path): \(error)"
    }
  }
}
