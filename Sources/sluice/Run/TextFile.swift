import Glibc
import Linux

/// Reads a small file of text.
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
}
