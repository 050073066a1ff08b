internal import CLinux
internal import Glibc

/// What stands behind a descriptor: to be asked of every descriptor that somebody else handed over.
public struct FileStatus: Hashable, Sendable {
  public enum Kind: String, Hashable, Sendable {
    case regular = "a file", directory = "a directory", character = "a character device", block = "a block device"
    case pipe = "a pipe", socket = "a socket", link = "a symbolic link"
    /// Something without an inode of its own: an eventfd, and others of that sort.
    case anonymous = "an anonymous descriptor"
  }
  /// Where its pages come from.
  public enum FileSystem: Hashable, Sendable {
    /// tmpfs, and memfd_create(2) without huge pages.
    case sharedMemory
    /// hugetlbfs, and memfd_create(2) with huge pages.
    case hugePages
    case other
  }
  public enum Access: Hashable, Sendable { case read, write, both, none }

  public let kind: Kind
  public let fileSystem: FileSystem
  public let access: Access
  /// Device and inode: no other file has these while it is held open or mapped.
  public let device: UInt64
  public let inode: UInt64
  public let byteCount: Int
  /// The unit in which its pages are mapped, in bytes: a huge page, or one of the machine's.
  public let pageByteCount: Int
  /// It cannot become shorter. F_SEAL_SHRINK.
  public let isSealedAgainstShrinking: Bool
}

extension OwnedDescriptor {
  public borrowing func status() throws(SystemError) -> FileStatus {
    var status = stat()
    guard unsafe fstat(number, &status) == 0 else { throw SystemError(.fstat) }
    let type = sl_filesystem(number)
    guard type >= 0 else { throw SystemError(.fstatfs) }
    let flags = sl_status_flags(number)
    guard flags >= 0 else { throw SystemError(.fcntl) }
    let fileSystem: FileStatus.FileSystem =
      type == sl_filesystem_shared_memory() ? .sharedMemory : type == sl_filesystem_huge_pages() ? .hugePages : .other
    let seals = sl_seals(number)
    return FileStatus(
      kind: Self.kind(status.st_mode), fileSystem: fileSystem, access: Self.access(flags),
      device: UInt64(status.st_dev), inode: UInt64(status.st_ino), byteCount: Int(status.st_size),
      pageByteCount: fileSystem == .hugePages ? Int(status.st_blksize) : PageSize.standard.byteCount,
      isSealedAgainstShrinking: seals >= 0 && seals & sl_seal_shrink() != 0)
  }

  private static func kind(_ mode: mode_t) -> FileStatus.Kind {
    switch mode & S_IFMT {
    case S_IFREG: .regular
    case S_IFDIR: .directory
    case S_IFCHR: .character
    case S_IFBLK: .block
    case S_IFIFO: .pipe
    case S_IFSOCK: .socket
    case S_IFLNK: .link
    default: .anonymous
    }
  }

  private static func access(_ flags: CInt) -> FileStatus.Access {
    if flags & sl_flag_path() != 0 { return .none }
    switch flags & O_ACCMODE {
    case O_RDONLY: return .read
    case O_WRONLY: return .write
    default: return .both
    }
  }

  /// Whether it is a Unix stream socket.
  public var isUnixStream: Bool { borrowing get { sl_is_unix_stream(number) != 0 } }

  /// Lets no read or write through it block, nor through any other descriptor of the same open file.
  public borrowing func setNonBlocking() throws(SystemError) {
    guard sl_set_nonblocking(number) == 0 else { throw SystemError(.fcntl) }
  }

  /// Whether it is an eventfd, as far as its owner can know: it takes the number zero, which no other anonymous
  /// descriptor does. That may wake who waits for it, to find nothing.
  public borrowing func isEventDescriptor() throws(SystemError) -> Bool {
    guard try status().kind == .anonymous else { return false }
    try setNonBlocking()
    var zero: UInt64 = 0
    return unsafe write(number, &zero, 8) == 8
  }

  /// Raises an eventfd by one, and never waits, whatever others who have it too do to it. Full is as good as raised.
  public borrowing func raise() { _ = sl_raise(number) }
}
