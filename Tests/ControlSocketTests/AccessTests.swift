import ControlSupport
import Foundation
import Glibc
import Support
import Testing

@testable import ControlSocket

/// Who may do what: by curl, as users that we are not.
struct AccessTests {
  static let canChangeUser = geteuid() == 0 && FileManager.default.isExecutableFile(atPath: "/usr/bin/setpriv")
  static let hasCurl = FileManager.default.isExecutableFile(atPath: "/usr/bin/curl")

  /// The HTTP status and the body, or curl's exit status as a negative number.
  private func curl(_ stage: Stage, as identity: [String], _ arguments: String...) async throws -> (status: Int, body: String) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/setpriv")
    process.arguments = identity + ["/usr/bin/curl", "-s", "-w", "\n%{http_code}", "--unix-socket", stage.path] + arguments
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = FileHandle.nullDevice
    let code: Int32 = try await withCheckedThrowingContinuation { continuation in
      process.terminationHandler = { continuation.resume(returning: $0.terminationStatus) }
      do { try withNoSignalBlocked { try process.run() } } catch { continuation.resume(throwing: error) }
    }
    if code != 0 { return (-Int(code), "") }
    let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    let lines = text.components(separatedBy: "\n")
    return (Int(lines.last ?? "") ?? 0, lines.dropLast().joined(separator: "\n"))
  }

  private static let stranger = ["--reuid=65534", "--regid=65534", "--clear-groups"]
  private static let member = ["--reuid=65534", "--regid=65534", "--groups=7777"]
  private static let primary = ["--reuid=65534", "--regid=7777", "--clear-groups"]

  @Test(.enabled(if: canChangeUser && hasCurl, "needs root, curl and setpriv"))
  func `root may look and change`() async throws {
    let stage = try Stage()
    #expect(try await curl(stage, as: [], "http://x/v1/status").status == 200)
    #expect(try await curl(stage, as: [], "-d", #"{"file":"a"}"#, "http://x/v1/inject").status == 200)
    #expect(try await curl(stage, as: [], "-I", "http://x/v1/health").status == 200)
    #expect(try await curl(stage, as: [], "http://x/v1/health", "http://x/v1/health").status == 200, "a connection for each")
  }

  @Test(.enabled(if: canChangeUser && hasCurl, "needs root, curl and setpriv"), arguments: [member, primary])
  func `a member of the socket's group may look and not change`(identity: [String]) async throws {
    let stage = try Stage(mode: 0o660, group: "7777")
    for path in ["/v1/health", "/v1/status", "/v1/stats", "/metrics"] {
      #expect(try await curl(stage, as: identity, "http://x" + path).status == 200)
    }
    let refusal = try await curl(stage, as: identity, "-d", #"{"file":"a"}"#, "http://x/v1/inject")
    #expect(refusal.status == 403 && refusal.body.contains(#""code":"forbidden""#))
    #expect(stage.service.requests.isEmpty)
    let event = try #require(stage.log.first)
    #expect(stage.log.count == 1 && event.level == .warning && event["uid"] == "65534" && event["reason"] == "forbidden")
  }

  @Test(.enabled(if: canChangeUser && hasCurl, "needs root, curl and setpriv"))
  func `who is not of the group may not even look, though the mode lets him connect`() async throws {
    let stage = try Stage(mode: 0o666, group: "7777")
    for path in ["/v1/health", "/v1/status", "/metrics", "/no/such/path"] {
      let refusal = try await curl(stage, as: Self.stranger, "http://x" + path)
      #expect(refusal.status == 403 && refusal.body.contains(#""code":"forbidden""#))
    }
    #expect(try await curl(stage, as: Self.stranger, "-d", #"{"file":"a"}"#, "http://x/v1/inject").status == 403)
    #expect(stage.service.requests.isEmpty)
  }

  @Test(.enabled(if: canChangeUser && hasCurl, "needs root, curl and setpriv"))
  func `where the mode keeps him out he does not connect`() async throws {
    let stage = try Stage(mode: 0o660, group: "7777")
    #expect(try await curl(stage, as: Self.stranger, "http://x/v1/health").status == -7)
  }

  @Test(.enabled(if: hasCurl, "needs curl")) func `a large body by curl is refused with an answer`() async throws {
    let stage = try Stage()
    let file = stage.folder + "/large"
    try Data(repeating: 0x61, count: 1 << 20).write(to: URL(fileURLWithPath: file))
    let refusal = try await curl(stage, as: [], "--data-binary", "@" + file, "http://x/v1/inject")
    #expect(refusal.status == 413)
  }

  @Test func `the superuser and the service's user change, the group reads, others nothing`() {
    func access(uid: UInt32, gid: UInt32, groups: [UInt32] = []) -> Peer.Access {
      Peer(pid: 1, uid: uid, gid: gid, groups: groups).access(service: 990, group: 50)
    }
    #expect(access(uid: 0, gid: 0) == .changes)
    #expect(access(uid: 990, gid: 990) == .changes)
    #expect(access(uid: 1000, gid: 50) == .reads)
    #expect(access(uid: 1000, gid: 1000, groups: [4, 50]) == .reads)
    #expect(access(uid: 1000, gid: 1000, groups: [4, 51]) == .none)
    #expect(access(uid: 1000, gid: 0) == .none, "root's group is not root")
    // From inside a user namespace, strangers.
    let nobody = Peer(pid: 1, uid: 65534, gid: 65534, groups: [65534])
    #expect(nobody.access(service: 65534, group: 65534) == .none)
    #expect(Peer(pid: 1, uid: 0, gid: 0, groups: []).access(service: 65534, group: 65534) == .changes)
  }

  @Test func `readers cannot take the places of those who may change`() {
    var limits = ControlServer.Limits()
    (limits.connections, limits.readers) = (4, 3)
    let core = ControlServer.Core(ScriptedService(), limits) { _ in }
    #expect(core.enter(.reads) && core.enter(.none) && core.enter(.reads))
    #expect(!core.enter(.reads) && !core.enter(.none))
    #expect(core.enter(.changes))
    #expect(!core.enter(.changes))
    core.leave(.none)
    #expect(core.enter(.reads))
  }
}
