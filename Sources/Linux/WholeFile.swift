internal import Glibc

/// A small file that is read whole, and replaced whole: whoever opens it finds the old contents or the new ones, also
/// after a loss of power.
public enum WholeFile {
  /// Nil: there is none. Follows no symbolic link.
  public static func read(_ path: String) throws(SystemError) -> [UInt8]? {
    let number = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    guard number >= 0 else {
      if errno == ENOENT { return nil }
      throw SystemError(.open)
    }
    let descriptor = OwnedDescriptor(adopting: number)
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = unsafe Glibc.read(descriptor.number, &buffer, buffer.count)
      if count < 0 && errno == EINTR { continue }
      guard count >= 0 else { throw SystemError(.read) }
      if count == 0 { return bytes }
      bytes += buffer.prefix(count)
    }
  }

  /// For this user alone.
  public static func replace(_ path: String, with bytes: [UInt8]) throws(SystemError) {
    let fresh = path + ".new"
    let number = unsafe open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard number >= 0 else { throw SystemError(.open) }
    let descriptor = OwnedDescriptor(adopting: number)
    var done = 0
    while done < bytes.count {
      let count = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor.number, $0.baseAddress! + done, bytes.count - done) }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { throw SystemError(.write) }
      done += count
    }
    guard Glibc.fsync(descriptor.number) == 0 else { throw SystemError(.fsync) }
    guard unsafe Glibc.rename(fresh, path) == 0 else { throw SystemError(.rename) }
  }
}
