// A connected UNIX socket, read by lines.

import Foundation

final class Channel {
  private let descriptor: Int32
  private let name: String
  private var buffer = Data()

  /// Connects to a socket that another program listens on, once it does.
  init(_ name: String, to path: String, within seconds: Int = Deadline.patience) throws {
    self.name = name
    descriptor = try eventually("\(name) accepts a connection at \(path)", within: seconds) { Self.connect(path) }
  }

  deinit { close(descriptor) }

  private static func connect(_ path: String) -> Int32? {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let fits = withUnsafeMutableBytes(of: &address.sun_path) { room in
      path.utf8.count < room.count && { room.copyBytes(from: path.utf8); return true }()
    }
    let isConnected = fits && withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Foundation.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0
      }
    }
    if isConnected { return descriptor }
    close(descriptor)
    return nil
  }

  func write(_ line: String) throws {
    var bytes = Array((line + "\n").utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
      guard count > 0 else { throw RigError("\(name): \(String(cString: strerror(errno)))") }
      bytes = bytes.dropFirst(count)
    }
  }

  /// The next line, without its end.
  func line(before deadline: Deadline) throws -> String {
    while true {
      if let end = buffer.firstIndex(of: 10) {
        let line = String(decoding: buffer[..<end], as: UTF8.self)
        buffer = Data(buffer[(end + 1)...])
        return line.trimmed
      }
      try read(before: deadline)
    }
  }

  private func read(before deadline: Deadline) throws {
    var readable = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    if poll(&readable, 1, deadline.milliseconds) == 0 { throw RigError("\(name) said nothing within \(deadline.allowed) s") }
    var bytes = [UInt8](repeating: 0, count: 65536)
    let count = recv(descriptor, &bytes, bytes.count, 0)
    if count < 0, errno == EINTR { return }
    guard count > 0 else { throw RigError("\(name) closed its socket") }
    buffer.append(contentsOf: bytes[..<count])
  }
}
