import Control
import ControlSocket
import ControlSupport
import Foundation
import Glibc
import Linux
import Testing

/// A client without manners: it sends what it is told, and reads what comes.
final class RawClient {
  let descriptor: Int32
  /// Lives as long as its client.
  private let server: AnyObject?

  init(_ path: String, of server: AnyObject? = nil) throws {
    self.server = server
    descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
    let code = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
    try #require(code == 0, "connect: \(errno)")
  }
  deinit { close(descriptor) }

  /// What could not be sent because the other end has closed is none of the client's business.
  func send(_ text: String) { send(Array(text.utf8)) }
  func send(_ all: [UInt8]) {
    var bytes = all[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress!, $0.count, Int32(MSG_NOSIGNAL)) }
      if count <= 0 { return }
      bytes = bytes.dropFirst(count)
    }
  }
  func shutdownWrite() { shutdown(descriptor, Int32(SHUT_WR)) }

  /// Everything until the other end closes, which it must. Waits on a thread of its own: those of the tests are also
  /// those that the server's tasks run on.
  func readAll() async -> String {
    let descriptor = descriptor
    let text = await withCheckedContinuation { continuation in
      Foundation.Thread.detachNewThread { continuation.resume(returning: Self.readAll(descriptor)) }
    }
    return withExtendedLifetime(self) { text }
  }
  private static func readAll(_ descriptor: Int32) -> String {
    var all: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = read(descriptor, &buffer, buffer.count)
      if count <= 0 { return String(decoding: all, as: UTF8.self) }
      all += buffer.prefix(count)
    }
  }
}

/// A server on a socket of its own, in a folder of its own.
final class Stage {
  let service = ScriptedService()
  let server: ControlServer
  let path: String
  let folder: String
  private let events: Events

  final class Events: Sendable {
    let list = Mutex<[LogEvent]>([])
  }
  var log: [LogEvent] { events.list.withLock { $0 } }

  init(mode: UInt16? = nil, group: String? = nil, limits: ControlServer.Limits = .init()) throws {
    folder = FileManager.default.temporaryDirectory.path + "/sluice-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
    path = folder + "/control.sock"
    var socket = Configuration.Socket(path: path)
    (socket.mode, socket.group) = (mode, group)
    let events = Events()
    self.events = events
    server = try ControlServer(socket, of: service, limits: limits) { event in events.list.withLock { $0.append(event) } }
  }
  deinit {
    server.stop()
    try? FileManager.default.removeItem(atPath: folder)
  }

  func raw() throws -> RawClient { try RawClient(path, of: self) }

  /// One whole exchange.
  func ask(_ text: String) async throws -> Reply {
    let client = try raw()
    client.send(text)
    return try Reply(await client.readAll())
  }
  func get(_ target: String) async throws -> Reply { try await ask("GET \(target) HTTP/1.1\r\nHost: x\r\n\r\n") }
  func post(_ target: String, _ body: String) async throws -> Reply {
    try await ask("POST \(target) HTTP/1.1\r\nHost: x\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
  }
}

/// An answer, taken apart by hand.
struct Reply {
  let status: Int
  let headers: [String: String]
  let body: String

  init(_ text: String) throws {
    let parts = text.components(separatedBy: "\r\n\r\n")
    let lines = parts[0].components(separatedBy: "\r\n")
    let words = lines[0].split(separator: " ")
    try #require(words.count >= 2 && words[0] == "HTTP/1.1", "\(text)")
    status = try #require(Int(words[1]))
    headers = Dictionary(
      lines.dropFirst().compactMap { line in
        line.firstIndex(of: ":").map { (line[..<$0].lowercased(), line[line.index(after: $0)...].trimmingCharacters(in: .whitespaces)) }
      }, uniquingKeysWith: { "\($0), \($1)" })
    body = parts.dropFirst().joined(separator: "\r\n\r\n")
  }

  func object() throws -> [String: Any] {
    try #require(try JSONSerialization.jsonObject(with: Data(body.utf8)) as? [String: Any])
  }
  /// The error's code, from a body of the promised form.
  func code() throws -> String? {
    let error = try object()["error"] as? [String: String]
    #expect(error?["message"]?.isEmpty == false)
    return error?["code"]
  }
}
