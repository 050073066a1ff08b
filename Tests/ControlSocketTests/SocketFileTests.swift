import Control
import ControlSocket
import ControlSupport
import Foundation
import Glibc
import Linux
import Testing

/// The file: its mode, its owner, and what lies in its place already.
struct SocketFileTests {
  private func serve(_ socket: Configuration.Socket) throws(ControlSocketError) -> ControlServer {
    try ControlServer(socket, of: ScriptedService()) { _ in }
  }
  private func withFolder(_ mode: Int = 0o755, _ body: (String) throws -> Void) throws {
    let folder = FileManager.default.temporaryDirectory.path + "/sluice-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    #expect(chmod(folder, mode_t(mode)) == 0)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try body(folder)
  }
  private func status(_ path: String) -> stat? {
    var status = stat()
    return lstat(path, &status) == 0 ? status : nil
  }

  @Test(arguments: [(nil, 0o600), (0o660, 0o660), (0o600, 0o600), (0o666, 0o666)] as [(UInt16?, mode_t)])
  func `it has the mode that was asked for, whatever the umask`(asked: UInt16?, mode: mode_t) throws {
    try withFolder { folder in
      var socket = Configuration.Socket(path: folder + "/s")
      socket.mode = asked
      let server = try serve(socket)
      #expect(status(socket.path).map { $0.st_mode & 0o7777 } == mode)
      server.stop()
      #expect(status(socket.path) == nil)
    }
  }

  @Test(.enabled(if: geteuid() == 0, "only root may give files away"))
  func `it has the owner and group that were asked for, by name or number`() throws {
    try withFolder { folder in
      var socket = Configuration.Socket(path: folder + "/s")
      (socket.owner, socket.group) = ("daemon", "7777")
      let server = try serve(socket)
      let found = try #require(status(socket.path))
      #expect(found.st_uid == getpwnam("daemon").pointee.pw_uid && found.st_gid == 7777)
      server.stop()
    }
  }

  @Test func `an unknown user or group is named, and nothing is left behind`() throws {
    try withFolder { folder in
      var socket = Configuration.Socket(path: folder + "/s")
      socket.owner = "nobody-of-that-name"
      #expect(throws: ControlSocketError.noSuchUser("nobody-of-that-name")) { try serve(socket) }
      (socket.owner, socket.group) = (nil, "4294967295")
      #expect(throws: ControlSocketError.noSuchGroup("4294967295")) { try serve(socket) }
      #expect(status(socket.path) == nil)
    }
  }

  @Test func `what a killed back-end left is replaced, and what somebody answers is not`() throws {
    try withFolder { folder in
      let socket = Configuration.Socket(path: folder + "/s")
      // A socket whose owner is gone.
      let stale = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
      var address = sockaddr_un()
      address.sun_family = sa_family_t(AF_UNIX)
      withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(socket.path.utf8)) }
      let code = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(stale, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
      }
      #expect(code == 0)
      close(stale)
      let first = try serve(socket)
      let node = status(socket.path)?.st_ino
      #expect(throws: ControlSocketError.listener(.inUse(socket.path))) { try serve(socket) }
      #expect(status(socket.path)?.st_ino == node, "the one that is at work keeps its socket")
      first.stop()
      let second = try serve(socket)
      second.stop()
    }
  }

  @Test func `a file that is no socket is left alone`() throws {
    try withFolder { folder in
      let path = folder + "/precious"
      try "data".write(toFile: path, atomically: false, encoding: .utf8)
      #expect(throws: ControlSocketError.listener(.notASocket(path))) { try serve(.init(path: path)) }
      #expect(try String(contentsOfFile: path, encoding: .utf8) == "data")
      #expect(symlink(path, folder + "/link") == 0)
      #expect(throws: ControlSocketError.listener(.notASocket(folder + "/link"))) { try serve(.init(path: folder + "/link")) }
    }
  }

  @Test func `a socket that took our file's place is left alone`() throws {
    try withFolder { folder in
      let socket = Configuration.Socket(path: folder + "/s")
      let first = try serve(socket)
      #expect(rename(socket.path, folder + "/elsewhere") == 0)
      let second = try serve(socket)
      first.stop()
      #expect(status(socket.path) != nil)
      second.stop()
      #expect(status(socket.path) == nil)
    }
  }

  @Test(arguments: [(0o777, false), (0o1777, true), (0o775, true), (0o700, true)])
  func `a folder in which anybody could replace it is refused`(mode: Int, isGood: Bool) throws {
    try withFolder(mode) { folder in
      if isGood {
        try serve(.init(path: folder + "/s")).stop()
      } else {
        #expect(throws: ControlSocketError.openFolder(path: folder)) { try serve(.init(path: folder + "/s")) }
      }
    }
  }

  @Test func `where there is no folder, or the path is too long, the error says so`() throws {
    try withFolder { folder in
      let missing = ControlSocketError.system("folder", path: folder + "/none", code: ENOENT)
      #expect(throws: missing) { try serve(.init(path: folder + "/none/s")) }
      #expect("\(missing)".hasSuffix("/none: folder: No such file or directory"))
      let long = folder + "/" + String(repeating: "s", count: 108)
      #expect(throws: ControlSocketError.self) { try serve(.init(path: long)) }
    }
  }
}
