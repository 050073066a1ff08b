import Foundation
import Glibc
import Support
import Testing

/// `sluice run` as a process of its own, and the commands that ask it.
@Suite(.serialized) struct RunProgramTests {
  /// A back-end in a folder of its own, which it does not outlive.
  final class Backend {
    let folder: String
    let process = Process()
    var control: String { folder + "/c.sock" }
    var log: String { (try? String(contentsOfFile: folder + "/err", encoding: .utf8)) ?? "" }

    /// - Parameter name: what the program is called; a link, if not sluice.
    init(_ arguments: [String], file: String? = nil, environment: [String: String] = [:], as name: String? = nil) throws {
      folder = FileManager.default.temporaryDirectory.path + "/sluice-" + UUID().uuidString.prefix(8)
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
      try file?.write(toFile: folder + "/f.yaml", atomically: false, encoding: .utf8)
      var program = ProgramTests.program
      if let name {
        try FileManager.default.createSymbolicLink(atPath: folder + "/" + name, withDestinationPath: program.path)
        program = URL(fileURLWithPath: folder + "/" + name)
      }
      process.executableURL = program
      process.arguments = arguments
      process.currentDirectoryURL = URL(fileURLWithPath: folder)
      process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
      for name in ["out", "err"] { _ = FileManager.default.createFile(atPath: folder + "/" + name, contents: nil) }
      process.standardInput = FileHandle.nullDevice
      process.standardOutput = FileHandle(forWritingAtPath: folder + "/out")
      process.standardError = FileHandle(forWritingAtPath: folder + "/err")
      try withNoSignalBlocked { try process.run() }
    }
    deinit {
      if process.isRunning { kill(process.processIdentifier, SIGKILL) }
      process.waitUntilExit()
      try? FileManager.default.removeItem(atPath: folder)
    }

    /// Until its log says so. Half a minute is for ever.
    func wait(for text: String) throws {
      for _ in 0..<3000 {
        if log.contains(text) { return }
        if !process.isRunning { break }
        usleep(10_000)
      }
      try #require(log.contains(text), "\(log)")
    }

    /// Its status once it has ended after a signal.
    ///
    /// - Parameter limit: after which it is killed, and the status is SIGKILL's.
    func end(by signal: CInt, within limit: Duration = .seconds(600)) -> Int32 {
      kill(process.processIdentifier, signal)
      let start = ContinuousClock.now
      while process.isRunning, ContinuousClock.now - start < limit { usleep(10_000) }
      if process.isRunning { kill(process.processIdentifier, SIGKILL) }
      process.waitUntilExit()
      return process.terminationReason == .uncaughtSignal ? -process.terminationStatus : process.terminationStatus
    }

    /// Runs the program beside it, in its folder.
    func ask(_ arguments: String...) throws -> ProgramTests.Outcome {
      try ProgramTests().shell(#"exec "$0" "$@""#, arguments + ["--control", control])
    }
  }

  private static let file = """
    vms: [{name: web, socket: web.sock}]
    control: {socket: c.sock, mode: 0600}
    """

  @Test(arguments: [SIGTERM, SIGINT]) func `it runs until it is asked to end, and leaves nothing behind`(signal: CInt) throws {
    let backend = try Backend(["run", "--config", "f.yaml"], file: Self.file)
    try backend.wait(for: "notice  ready")
    #expect(FileManager.default.fileExists(atPath: backend.control) && FileManager.default.fileExists(atPath: backend.folder + "/web.sock"))
    #expect(backend.end(by: signal) == 0)
    #expect(try FileManager.default.contentsOfDirectory(atPath: backend.folder).sorted() == ["err", "f.yaml", "out"])
    #expect(backend.log.contains("asked to end") && backend.log.contains("stopped"))
  }

  /// Each value that is the first or the last of its option's range: a worker that never spins, or one of many.
  @Test(arguments: [
    ["--spin-us", "0"], ["--spin-us", "1000000"], ["--workers", "16"], ["--mtu", "68"], ["--mtu", "9710"], ["--ring-size", "64"],
    ["--ring-size", "4096"], ["--moderation-us", "0"], ["--moderation-us", "1000"],
  ])
  func `it ends when asked, with every option at either end of its range`(options: [String]) throws {
    let backend = try Backend(["run", "--vm", "web,socket=web.sock"] + options)
    try backend.wait(for: "notice  ready")
    #expect(backend.end(by: SIGTERM, within: .seconds(60)) == 0)
  }

  @Test func `without descriptors for its VMs it does not start, and says how many they need`() throws {
    let outcome = try ProgramTests().shell(#"ulimit -n 600; exec "$0" run --vm a,socket=a.sock"#)
    #expect(outcome.status == 71, "\(outcome.error)")
    #expect(outcome.error.contains("1 VM may need ") && outcome.error.contains("this process may have 600: raise the limit (ulimit -n "))
  }

  /// Any user can take all that the machine has. What a process has from its start on stays its own.
  @Test(.enabled(if: FileManager.default.isWritableFile(atPath: "/proc/sys/fs/aio-max-nr"), "fs.aio-max-nr may not be changed here"))
  func `without an AIO context it does not start, and names the limit`() throws {
    let before = try String(contentsOfFile: "/proc/sys/fs/aio-max-nr", encoding: .utf8)
    func set(_ text: String) throws { try #require(FileHandle(forWritingAtPath: "/proc/sys/fs/aio-max-nr")).write(contentsOf: Data(text.utf8)) }
    let running = try Backend(["run", "--vm", "a,socket=a.sock", "--control", "c.sock"])
    try running.wait(for: "ready")
    try set("1")
    defer { try? set(before) }
    let outcome = try ProgramTests().shell(#"exec "$0" run --vm a,socket=a.sock"#)
    try set(before)
    #expect(outcome.status == 71, "\(outcome.error)")
    #expect(outcome.error.contains("raise it: sysctl -w fs.aio-max-nr=1048576"))
    #expect(try running.ask("status").status == 0)
    #expect(running.end(by: SIGTERM) == 0)
  }

  @Test func `status, stats and inject ask it`() throws {
    let backend = try Backend(["run", "--vm", "web,socket=web.sock", "--control", "c.sock", "--log-format", "json"])
    try backend.wait(for: "\"message\":\"ready\"")
    let status = try backend.ask("status")
    #expect(status.status == 0 && status.output.contains("\nVM web\n  front-end   listening\n"))
    let json = try backend.ask("status", "--json").object()
    #expect(json["pid"] as? Int == Int(backend.process.processIdentifier) && json["schema"] as? Int == 1)
    // A guest that is not there takes nothing; but nothing is lost without being counted.
    let inject = try backend.ask("inject", trace("imix.pcap"), "--loop", "3", "--json", "--quiet")
    #expect(inject.status == 0)
    let frames = try #require(try inject.object()["frames"] as? [String: Int])
    #expect(frames["sent"] == 3 * 768 && frames["dropped"] == 3 * 768)
    let stats = try backend.ask("stats", "50ms", "--json").object()
    #expect(stats["vm_order"] as? [String] == ["web"] && (stats["seconds"] as? Double ?? 0) > 0.04)
    #expect(try backend.ask("stats", "10ms").output.contains("\nweb      rx "))
    #expect(backend.log.contains("\"verb\":\"inject\""))
    #expect(backend.end(by: SIGTERM) == 0)
  }

  @Test func `what it refuses has its status and its words`() throws {
    let backend = try Backend(["run", "--config", "f.yaml"], file: Self.file)
    try backend.wait(for: "notice  ready")
    let missing = try backend.ask("inject", "/no/such/file")
    #expect(missing.status == 64 && missing.error.contains("/no/such/file"))
    let filter = try backend.ask("inject", trace("imix.pcap"), "--filter", "no such thing (", "--json")
    #expect(try filter.status == 64 && ( filter.object()["error"] as? [String: String])?["kind"] == "usage")
    #expect(backend.end(by: SIGTERM) == 0)
    let gone = try backend.ask("status", "--json")
    #expect(try gone.status == 69 && ( gone.object()["error"] as? [String: String])?["kind"] == "unavailable")
    #expect(gone.error.contains("no such socket; is 'sluice run' running"))
  }

  @Test(.enabled(if: geteuid() == 0 && FileManager.default.isExecutableFile(atPath: "/usr/bin/setpriv"), "needs root and setpriv"))
  func `who may not ask is told so`() throws {
    let backend = try Backend(["run", "--config", "f.yaml"], file: Self.file.replacing("0600", with: "0666"))
    try backend.wait(for: "notice  ready")
    unsafe chmod(backend.folder, 0o755)
    let nobody = #"exec setpriv --reuid=65534 --regid=65534 --clear-groups "$0" "$@""#
    // The program lies where nobody may look, on some machines.
    guard try ProgramTests().shell(nobody, ["--version"]).status == 0 else { return }
    let stranger = try ProgramTests().shell(nobody, ["status", "--control", backend.control])
    #expect(stranger.status == 77 && stranger.error.contains("members of the socket's group"))
    unsafe chmod(backend.control, 0o600)
    let outside = try ProgramTests().shell(nobody, ["status", "--control", backend.control])
    #expect(outside.status == 77 && outside.error.contains("permission denied"))
  }

  @Test func `an injection ends with the one who asked for it`() throws {
    let backend = try Backend(["run", "--config", "f.yaml"], file: Self.file)
    try backend.wait(for: "notice  ready")
    let script = #"""
      "$0" inject "$1" --loop 1000000 --speed pps=1000 --control "$2" & child=$!
      sleep 1; kill -INT $child; wait $child
      """#
    let outcome = try ProgramTests().shell(script, [trace("imix.pcap"), backend.control])
    #expect(outcome.status == 130 && outcome.error.contains("the back-end sends no more"))
    try backend.wait(for: "has ended verb=inject")
    let again = try backend.ask("inject", trace("imix.pcap"), "--quiet")
    #expect(again.status == 0, "the next one is not kept waiting: \(again.error)")
  }

  @Test func `watched, it is a line a VM each time, until SIGINT`() throws {
    let backend = try Backend(["run", "--config", "f.yaml"], file: Self.file)
    try backend.wait(for: "notice  ready")
    let script = #"""
      : > lines
      "$0" stats --watch 20ms --control "$1" > lines & child=$!
      while [ "$(wc -l < lines)" -lt 3 ]; do sleep 0.05; done
      kill -INT $child; wait $child; status=$?; head -n 3 lines; exit $status
      """#
    let outcome = try ProgramTests().shell(script, [backend.control])
    #expect(outcome.status == 0)
    #expect(outcome.output.split(separator: "\n").allSatisfy { $0.contains(" web rx 0 frames/s, 0 bit/s tx 0 frames/s") })
  }

  @Test func `SIGHUP reads the file again; one that is wrong changes nothing`() throws {
    let backend = try Backend(["run", "--config", "f.yaml"], file: Self.file)
    try backend.wait(for: "notice  ready")
    let pid = backend.process.processIdentifier
    try (Self.file + "\nlgo: {}\n").write(toFile: backend.folder + "/f.yaml", atomically: true, encoding: .utf8)
    kill(pid, SIGHUP)
    try backend.wait(for: "the configuration stays as it is error=\"f.yaml:3:1: lgo: no such key")
    try (Self.file + "\nnic: {mtu: 9000}\nlog: {level: debug}\n").write(toFile: backend.folder + "/f.yaml", atomically: true, encoding: .utf8)
    kill(pid, SIGHUP)
    try backend.wait(for: "the configuration was read again")
    try backend.wait(for: "restart")
    #expect(try backend.ask("status").status == 0)
    #expect(backend.end(by: SIGTERM) == 0)
  }

  @Test func `started with options it has no file to read again, and goes on`() throws {
    let backend = try Backend(["run", "--vm", "web,socket=web.sock"])
    try backend.wait(for: "notice  ready")
    kill(backend.process.processIdentifier, SIGHUP)
    try backend.wait(for: "there is no file to read again")
    #expect(backend.end(by: SIGTERM) == 0)
  }

  @Test func `what cannot be had ends it early, with a reason`() throws {
    func outcome(_ arguments: String...) throws -> ProgramTests.Outcome { try ProgramTests().shell(#"exec "$0" run "$@""#, arguments) }
    let folder = try outcome("--vm", "web,socket=/no/such/folder/s")
    #expect(folder.status == 71 && folder.error.contains("/no/such/folder/s"))
    let control = try outcome("--vm", "web,socket=web.sock", "--control", "/no/such/folder/c")
    #expect(control.status == 71 && control.error.contains("the control socket: /no/such/folder"))
    let number = try outcome("--fd", "999")
    #expect(number.status == 71 && number.error.contains("999"))
  }

  @Test func `under the name of a back-end program it needs no sub-command`() throws {
    let backend = try Backend(["--socket-path=v.sock"], as: "vhost-user-net")
    try backend.wait(for: "notice  ready")
    #expect(FileManager.default.fileExists(atPath: backend.folder + "/v.sock"))
    #expect(backend.end(by: SIGTERM) == 0)
    let outcome = try ProgramTests().shell(#"ln -s "$0" vhost-user-net; ./vhost-user-net --fd=banana --print-capabilities --what"#)
    #expect(outcome.status == 0 && outcome.output == "{\"type\":\"net\"}\n")
  }

  @Test func `who started it is told when it is ready, that it lives, and when it ends`() throws {
    let folder = FileManager.default.temporaryDirectory.path + "/sluice-" + UUID().uuidString.prefix(8)
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let manager = try Manager(folder + "/notify")
    let backend = try Backend(
      ["run", "--config", "f.yaml"], file: Self.file, environment: ["NOTIFY_SOCKET": folder + "/notify", "WATCHDOG_USEC": "100000"])
    #expect(manager.next() == "READY=1")
    for _ in 0..<3 { #expect(manager.next() == "WATCHDOG=1") }
    kill(backend.process.processIdentifier, SIGHUP)
    let reloading = manager.next { $0 != "WATCHDOG=1" }
    #expect(reloading.hasPrefix("RELOADING=1\nMONOTONIC_USEC="))
    #expect(manager.next { $0 != "WATCHDOG=1" } == "READY=1")
    kill(backend.process.processIdentifier, SIGTERM)
    #expect(manager.next { $0 != "WATCHDOG=1" } == "STOPPING=1")
    backend.process.waitUntilExit()
    #expect(backend.process.terminationStatus == 0)
  }

  /// What systemd is to a service: a datagram socket.
  private final class Manager {
    let descriptor: CInt
    init(_ path: String) throws {
      descriptor = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue), 0)
      var address = sockaddr_un()
      address.sun_family = sa_family_t(AF_UNIX)
      unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: Array(path.utf8)) }
      let code = unsafe withUnsafePointer(to: &address) {
        unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
      }
      try #require(code == 0)
      var limit = timeval(tv_sec: 60, tv_usec: 0)
      unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }
    deinit { close(descriptor) }

    func next(_ isWanted: (String) -> Bool = { _ in true }) -> String {
      var buffer = [UInt8](repeating: 0, count: 4096)
      while true {
        let count = unsafe recv(descriptor, &buffer, buffer.count, 0)
        guard count > 0 else { return "nothing came" }
        let text = String(decoding: buffer.prefix(count), as: UTF8.self)
        if isWanted(text) { return text }
      }
    }
  }
}
