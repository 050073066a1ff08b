import Control
import ControlSocket
import ControlSupport
import Foundation
import Glibc
import Testing

/// Our client against our server, and against what is none.
struct ClientTests {
  /// Off the threads that the server's tasks need.
  private func off<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
    try await withCheckedThrowingContinuation { continuation in
      Foundation.Thread.detachNewThread { continuation.resume(with: Result(catching: body)) }
    }
  }

  @Test func `a good answer is its body`() async throws {
    let stage = try Stage()
    let path = stage.path
    let body = try await off { try ControlClient(path: path).get("/v1/stats") }
    #expect(try JSONDecoder().decode(StatsReport.self, from: Data(body.utf8)).pid == 4711)
    _ = stage
  }

  @Test func `a refusal is the back-end's own words`() async throws {
    let stage = try Stage()
    stage.service.fail(with: .busy("another injection is under way"))
    let path = stage.path
    await #expect(throws: ControlClientError.refused(status: 409, message: "another injection is under way")) {
      try await off { try ControlClient(path: path).start(.post, "/v1/inject", body: #"{"file":"a"}"#).wait() }
    }
    _ = stage
  }

  @Test func `who cancels an injection ends it`() async throws {
    let stage = try Stage()
    let client = ControlClient(path: stage.path)
    let pending = client.start(.post, "/v1/inject", body: #"{"file":"forever"}"#, seconds: nil)
    while stage.service.requests.isEmpty { try await Task.sleep(for: .milliseconds(1)) }
    pending.cancel()
    while stage.service.cancelled == 0 { try await Task.sleep(for: .milliseconds(1)) }
    await #expect(throws: ControlClientError.self) { try await off { try pending.wait() } }
  }

  @Test func `where nobody is, the error says what is wrong`() async throws {
    let folder = FileManager.default.temporaryDirectory.path + "/sluice-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    func error(_ path: String) async -> ControlClientError? {
      do {
        _ = try await off { try ControlClient(path: path).get("/v1/health") }
        return nil
      } catch { return error as? ControlClientError }
    }
    #expect(await error(folder + "/none") == .noSocket(path: folder + "/none"))
    #expect(await error(folder + "/none/none") == .noSocket(path: folder + "/none/none"))
    let long = "/" + String(repeating: "a", count: 200)
    #expect(await error(long) == .badPath(long))
    try "".write(toFile: folder + "/file", atomically: false, encoding: .utf8)
    #expect(await error(folder + "/file") == .nobodyListens(path: folder + "/file"))
  }

  @Test(arguments: ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "SSH-2.0-x\r\n\r\n"])
  func `a listener that is no back-end is an error, not a wait`(answer: String) async throws {
    let folder = FileManager.default.temporaryDirectory.path + "/sluice-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let path = folder + "/s"
    let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(listener) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
    let code = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
    #expect(code == 0 && listen(listener, 1) == 0)
    Foundation.Thread.detachNewThread {
      let connection = accept(listener, nil, nil)
      _ = answer.withCString { send(connection, $0, strlen($0), Int32(MSG_NOSIGNAL)) }
      close(connection)
    }
    await #expect(throws: ControlClientError.self) { try await off { try ControlClient(path: path).get("/v1/health") } }
  }
}
