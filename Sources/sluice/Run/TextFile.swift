import Glibc
import Linux

/// Reads a small file of text, and writes one.
enum TextFile {
  struct Unreadable: Error { let reason: String }

  /// - Parameter largest: in bytes; a longer file is refused.
  static func read(_ path: String, largest: Int) throws(Unreadable) -> String {
    let number = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY)
    guard number >= 0 else { throw Unreadable(reason: SystemError.text(errno)) }
    let descriptor = OwnedDescriptor(adopting: number)
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = unsafe Glibc.read(descriptor.number, &buffer, buffer.count)
      guard count >= 0 else {
        if errno == EINTR { continue }
        throw Unreadable(reason: SystemError.text(errno))
      }
      if count == 0 { break }
      bytes += buffer.prefix(count)
      guard bytes.count <= largest else { throw Unreadable(reason: "longer than \(grouped(largest)) bytes; is it the right file?") }
    }
    guard let text = String(validating: bytes, as: UTF8.self) else { throw Unreadable(reason: "not text in UTF-8") }
    return text
  }

  /// Makes the file, or replaces what is in it. Answers why it cannot be, in words; nil: it is whole.
  static func write(_ text: String, to path: String) -> String? {
    let number = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0o666)
    guard number >= 0 else { return SystemError.text(errno) }
    let descriptor = OwnedDescriptor(adopting: number)
    let bytes = Array(text.utf8)
    var done = 0
    while done < bytes.count {
      let count = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor.number, $0.baseAddress! + done, bytes.count - done) }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { return SystemError.text(errno) }
      done += count
    }
    do { try descriptor.close() } catch { return SystemError.text(error.code) }
    return nil
  }
}
