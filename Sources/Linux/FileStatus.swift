internal import CLinux
internal import Glibc

/// A file of shared memory or huge pages that another process handed over.
public struct FileStatus: Hashable, Sendable {
  /// What is behind a descriptor, as far as that is known without a request to its owner.
  public enum Kind: String, Hashable, Sendable {
    /// A regular file of tmpfs or hugetlbfs: its pages are the kernel's.
    case memory = "shared memory"
    case event = "an eventfd"
    case pipe = "a pipe"
    case socket = "a socket"
    /// Something without a name in the file system: an epoll, and others of that sort.
    case anonymous = "an anonymous descriptor"
    /// O_PATH.
    case path = "a path without access"
    /// A file, a directory or a device: to ask which would be to ask its file system.
    case other = "a file or a device"
  }
  /// Where its pages come from.
  public enum FileSystem: Hashable, Sendable {
    /// tmpfs, and memfd_create(2) without huge pages.
    case sharedMemory
    /// hugetlbfs, and memfd_create(2) with huge pages.
    case hugePages
  }
  public enum Access: Hashable, Sendable { case read, write, both, none }

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
  /// What it is. To be asked before anything else of a descriptor that another process handed over: only of memory, of
  /// eventfds and of sockets are there calls that its owner cannot delay.
  public borrowing func kind() throws(SystemError) -> FileStatus.Kind {
    switch Int(sl_kind(number)) {
    case SL_KIND_MEMORY: .memory
    case SL_KIND_EVENT: .event
    case SL_KIND_PIPE: .pipe
    case SL_KIND_SOCKET: .socket
    case SL_KIND_ANONYMOUS: .anonymous
    case SL_KIND_PATH: .path
    case SL_KIND_OTHER: .other
    default: throw SystemError(.readlink)
    }
  }

  /// What the kernel knows of a file of memory; nil, and its file system is not asked, if it is anything else.
  ///
  /// tmpfs and hugetlbfs answer fstat(2) and fstatfs(2) from what they have in memory.
  public borrowing func memoryStatus() throws(SystemError) -> FileStatus? {
    guard try kind() == .memory else { return nil }
    var status = stat()
    guard unsafe fstat(number, &status) == 0 else { throw SystemError(.fstat) }
    let type = sl_filesystem(number)
    guard type >= 0 else { throw SystemError(.fstatfs) }
    let flags = sl_status_flags(number)
    guard flags >= 0 else { throw SystemError(.fcntl) }
    let fileSystem: FileStatus.FileSystem = type == sl_filesystem_huge_pages() ? .hugePages : .sharedMemory
    let seals = sl_seals(number)
    return FileStatus(
      fileSystem: fileSystem, access: Self.access(flags), device: UInt64(status.st_dev), inode: UInt64(status.st_ino),
      byteCount: Int(status.st_size),
      pageByteCount: fileSystem == .hugePages ? Int(status.st_blksize) : PageSize.standard.byteCount,
      isSealedAgainstShrinking: seals >= 0 && seals & sl_seal_shrink() != 0)
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

  /// True if it is one of two Unix sockets that were made connected, by socketpair(2): neither end has a name.
  public var isUnnamedPair: Bool { borrowing get { sl_is_unnamed_pair(number) != 0 } }

  /// Raises an eventfd by one, and never waits, whatever others who have it too do to it. Full is as good as raised.
  public borrowing func raise() { _ = sl_raise(number) }
  /// The same on the thread that will close it, if it came from another process: who raises an eventfd walks all that wait for it,
  /// and their number is its owner's.
  public borrowing func raiseElsewhere() {
    if let reaper { reaper.raise(number) } else { raise() }
  }
}
