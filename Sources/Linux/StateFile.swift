internal import Glibc

/// A file that keeps what must outlive this process, of a fixed length, mapped by its owner. One process at a time has it.
public struct StateFile: ~Copyable, Sendable {
  public let descriptor: OwnedDescriptor

  /// Opens or makes it, for this user alone; new bytes are zero. Follows no symbolic link.
  ///
  /// - Throws: EWOULDBLOCK where another process has it.
  public init(at path: String, byteCount: Int) throws(SystemError) {
    let number = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard number >= 0 else { throw SystemError(.open) }
    let descriptor = OwnedDescriptor(adopting: number)
    guard flock(number, LOCK_EX | LOCK_NB) == 0 else { throw SystemError(.flock) }
    if try descriptor.fileByteCount() != byteCount {
      // Another length is another version's: nothing in it is to be believed.
      guard ftruncate(number, 0) == 0, ftruncate(number, off_t(byteCount)) == 0 else { throw SystemError(.ftruncate) }
    }
    self.descriptor = descriptor
  }
}
