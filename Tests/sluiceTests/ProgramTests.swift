import Foundation
import Support
import Testing

/// The built program, run as a user would.
struct ProgramTests {
  struct Outcome {
    let status: Int32
    let output: String
    let error: String
    /// What `--json` promises on every way: one object, and nothing else.
    func object() throws -> [String: Any] {
      #expect(output.hasSuffix("}\n") && output.filter { $0 == "\n" }.count == 1, "\(output)")
      return try #require(try JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any])
    }
  }

  /// Beside the tests' own executable.
  static let program: URL = {
    let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
    let beside = URL(fileURLWithPath: own).deletingLastPathComponent().appendingPathComponent("sluice")
    if FileManager.default.isExecutableFile(atPath: beside.path) { return beside }
    return packageRoot.appendingPathComponent(".build/debug/sluice")
  }()

  /// Through a shell, so that a test can redirect; the program is `"$0"`.
  func shell(_ script: String, _ arguments: [String] = []) throws -> Outcome {
    try withFolder { folder in
      let process = Process()
      process.executableURL = URL(fileURLWithPath: "/bin/sh")
      process.arguments = ["-c", script, Self.program.path] + arguments
      process.currentDirectoryURL = URL(fileURLWithPath: folder)
      // To files, not pipes: whoever fills a pipe that nobody reads never ends.
      for name in ["out", "err"] { _ = FileManager.default.createFile(atPath: folder + "/" + name, contents: nil) }
      process.standardInput = FileHandle.nullDevice
      process.standardOutput = FileHandle(forWritingAtPath: folder + "/out")
      process.standardError = FileHandle(forWritingAtPath: folder + "/err")
      try withNoSignalBlocked { try process.run() }
      process.waitUntilExit()
      func text(_ name: String) throws -> String {
        String(decoding: try Data(contentsOf: URL(fileURLWithPath: folder + "/" + name)), as: UTF8.self)
      }
      let code = process.terminationStatus
      return Outcome(
        status: process.terminationReason == .uncaughtSignal ? 128 + code : code, output: try text("out"), error: try text("err"))
    }
  }

  private func sluice(_ arguments: String...) throws -> Outcome { try shell(#"exec "$0" "$@""#, arguments) }

  @Test func `a trace is replayed, and the report ends with a verdict`() throws {
    let outcome = try sluice("replay", trace("imix.pcap"))
    #expect(outcome.status == 0)
    #expect(outcome.output.contains("All is well: all 768 frames were delivered"))
    #expect(!outcome.output.contains("\u{1B}"), "colours are for terminals")
  }

  @Test func `as JSON it has the figures of the trace`() throws {
    let outcome = try sluice("replay", trace("imix.pcap"), "--loop", "3", "--json")
    #expect(outcome.status == 0)
    let json = try outcome.object()
    let frames = try #require(json["frames"] as? [String: Int])
    #expect(frames["read"] == 2304 && frames["delivered"] == 2304 && frames["lent"] == 2304)
    #expect((json["bytes"] as? [String: Int])?["delivered"] == 3 * 273_024)
    #expect(json["verified"] as? Bool == true && json["accounted"] as? Bool == true && json["status"] as? Int == 0)
    #expect(json["loops"] as? Int == 3)
  }

  @Test(arguments: [
    (["replay"], 64, "usage"), (["replay", "x.pcap", "--no-such-option"], 64, "usage"),
    (["replay", "x.pcap", "--vm", "a,b=c"], 64, "usage"), (["rules", "list", "x"], 64, "usage"), (["rules", "validate", "match x"], 1, "rule"), (["replai"], 64, "usage"),
    (["replay", "x.pcap"], 65, "unreadable"), (["replay", "/etc"], 65, "unreadable"),
    (["replay", "/etc/passwd"], 65, "unreadable"), (["replay", "/dev/null"], 65, "unreadable"),
    (["replay", trace("imix.pcap"), "--filter", "udp port 1"], 66, "nothing_sent"),
    (["replay", trace("imix.pcap"), "--filter", "no such thing ("], 64, "usage"),
    (["replay", trace("imix.pcap"), "--write", "/proc/none.pcap"], 71, "machine"),
  ] as [([String], Int, String)])
  func `an error has its status, its words, and is JSON when JSON is asked for`(
    arguments: [String], status: Int, kind: String
  ) throws {
    let plain = try shell(#"exec "$0" "$@""#, arguments)
    #expect(Int(plain.status) == status)
    #expect(plain.output.isEmpty)
    #expect(plain.error.contains("sluice: "))
    let outcome = try shell(#"exec "$0" "$@""#, arguments + ["--json"])
    #expect(Int(outcome.status) == status)
    let json = try outcome.object()
    #expect(json["status"] as? Int == status)
    #expect((json["error"] as? [String: Any])?["kind"] as? String == kind)
  }

  @Test func `a sub-command of a later version is not passed off as a typing error`() throws {
    #expect(try sluice("top").error.contains("does not have 'top' yet"))
    #expect(try sluice(trace("imix.pcap")).error.contains("write: sluice replay "))
    let help = try sluice("--help")
    #expect(help.status == 0)
    #expect(help.output.contains("bench") && help.output.contains("doctor") && help.output.contains("replay"))
  }

  @Test func `a stalled guest's drops are accounted for, unless drops are to fail`() throws {
    let arguments = ["replay", trace("imix.pcap"), "--vm", "a,stall-after=100", "--ring-size", "64"]
    #expect(try shell(#"exec "$0" "$@""#, arguments).status == 0)
    let strict = try shell(#"exec "$0" "$@""#, arguments + ["--fail-on-drop", "--quiet"])
    #expect(strict.status == 4)
    #expect(strict.output.isEmpty && strict.error.contains("dropped (no_buffers)"))
  }

  @Test func `what must be lent and cannot be stops the path`() throws {
    let outcome = try sluice("replay", trace("imix.pcap"), "--mode", "required", "--vm", "a,buffers=small")
    #expect(outcome.status == 3)
    #expect(outcome.output.contains("too_small"))
  }

  @Test func `quiet says nothing of a good run`() throws {
    let outcome = try sluice("replay", trace("imix.pcap"), "--quiet")
    #expect(outcome.status == 0 && outcome.output.isEmpty && outcome.error.isEmpty)
  }

  @Test func `a reader that goes away ends it quietly`() throws {
    // What runs the tests may ignore SIGPIPE, and a child would too.
    let outcome = try shell(
      #"{ env --default-signal=PIPE "$0" replay "$1" -q --json; echo $? >&2; } | true"#, [trace("imix.pcap")])
    #expect(["141\n", "0\n"].contains(outcome.error), "\(outcome.error)")
  }

  @Test func `a full disk under what a VM received is an error, and the report is there`() throws {
    let outcome = try sluice("replay", trace("imix.pcap"), "--loop", "100", "--write", "/dev/full", "--json", "--quiet")
    #expect(outcome.status == 71)
    #expect(outcome.output.contains("\"output_error\":\"--write: "))
    #expect(outcome.output.contains("\"delivered\":76800"))
  }

  @Test func `a full disk under the report is an error`() throws {
    let outcome = try shell(#"exec "$0" replay "$1" --quiet --json > /dev/full"#, [trace("imix.pcap")])
    #expect(outcome.status == 74)
    #expect(outcome.error.contains("standard output: No space left on device"))
  }

  @Test func `standard input is a trace too`() throws {
    let outcome = try shell(#"cat "$1" | "$0" replay - --json"#, [trace("imix.pcap")])
    #expect(outcome.status == 0)
    #expect((try outcome.object()["frames"] as? [String: Int])?["delivered"] == 768)
  }

  @Test(arguments: [("INT", 130), ("TERM", 143)] as [(String, Int32)])
  func `a signal stops it with a report of what was done`(name: String, status: Int32) throws {
    // The shell's job control would ignore SIGINT for a background process; `kill` from a subshell does not care.
    let script = #"""
      (sleep 1; kill -\#(name) $$) &
      exec "$0" replay "$1" --speed pps=1000 --duration 60s --json
      """#
    let outcome = try shell(script, [trace("imix.pcap")])
    #expect(outcome.status == status)
    let json = try outcome.object()
    #expect(json["interrupted"] as? Bool == true && json["status"] as? Int == Int(status))
    #expect((json["frames"] as? [String: Int])?["read"] ?? 0 > 0)
    #expect(json["accounted"] as? Bool == true)
  }

  @Test func `what a VM received is the trace`() throws {
    try withFolder { folder in
      let path = folder + "/received.pcap"
      let outcome = try sluice("replay", trace("imix.pcap"), "--write", path, "--json")
      #expect(outcome.status == 0)
      let again = try sluice("replay", path, "--json")
      #expect(again.status == 0)
      func hash(_ outcome: Outcome) throws -> String? {
        ((try outcome.object()["vms"] as? [String: Any])?["vm0"] as? [String: Any])?["sha256"] as? String
      }
      #expect(try hash(outcome) == hash(again))
    }
  }

  @Test func `the same seed gives the same events`() throws {
    try withFolder { folder in
      func log(_ name: String) throws -> Data {
        let path = folder + "/" + name
        let outcome = try sluice("replay", trace("imix.pcap"), "--deterministic", "--seed", "7", "--event-log", path, "-q")
        #expect(outcome.status == 0)
        return try Data(contentsOf: URL(fileURLWithPath: path))
      }
      let first = try log("a")
      #expect(first.count > 1000)
      #expect(try first == log("b"))
    }
  }

  @Test(arguments: ["bash", "zsh", "fish"])
  func `a completion script knows the options`(shell: String) throws {
    let outcome = try sluice("completion", shell)
    #expect(outcome.status == 0)
    #expect(outcome.output.contains("ring-size") && outcome.output.contains("required"))
    #expect(try sluice("--generate-completion-script", shell).output == outcome.output)
  }
}
