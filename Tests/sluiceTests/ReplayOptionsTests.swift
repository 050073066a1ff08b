import ArgumentParser
import Datapath
import Foundation
import Replay
import Testing

@testable import sluice

/// The options that a command line comes to.
func options(_ arguments: String...) throws -> ReplayOptions {
  let command = try Sluice.parseAsRoot(["replay"] + arguments)
  return try #require(command as? ReplayCommand).options()
}

struct ReplayOptionsTests {
  @Test func `a file alone is replayed once at top speed into one VM`() throws {
    let options = try options("a.pcap")
    #expect(options.files == ["a.pcap"])
    #expect(options.limit == ReplayOptions.Limit(loops: 1, seconds: nil))
    #expect(options.pace == .top)
    #expect(options.vms == [ReplayOptions.VM(name: "vm0")])
    #expect(options.ringSize == 1024 && options.mtu == 1500 && options.mode == .auto && options.seed == 1)
    #expect(options.verify == nil && options.preload == nil && options.processors == nil && options.filter == nil)
    #expect(!options.isDeterministic && !options.allowsTruncated && !options.hugePages)
    #expect(options.captures.isEmpty && options.eventLog == nil)
  }

  @Test func `every option reaches the replay`() throws {
    let options = try options(
      "a.pcap", "b.pcap", "--loop", "1k", "--duration", "2m", "--speed", "gbps=10", "--vm", "x", "--vm", "y,queues=4",
      "--queues", "2", "--ring-size", "256", "--mtu", "9000", "--mode", "copy", "--no-verify", "--write", "x=/dev/null",
      "--seed", "0x10", "--deterministic", "--event-log", "/dev/null", "--filter", "ip", "--allow-truncated",
      "--preload", "--huge-pages", "--guest-memory", "64Mi")
    #expect(options.files == ["a.pcap", "b.pcap"])
    #expect(options.limit == ReplayOptions.Limit(loops: 1000, seconds: 120))
    #expect(options.pace == .gigabitsPerSecond(10))
    #expect(options.vms == [ReplayOptions.VM(name: "x", queues: 2), ReplayOptions.VM(name: "y", queues: 4)])
    #expect(options.ringSize == 256 && options.mtu == 9000 && options.mode == .copy && options.seed == 16)
    #expect(options.verify == false && options.preload == true && options.filter == "ip" && options.guestMemory == 64 << 20)
    #expect(options.isDeterministic && options.allowsTruncated && options.hugePages)
    #expect(options.captures.map(\.vm) == ["x"] && options.captures.map(\.path) == ["/dev/null"])
    #expect(options.eventLog == "/dev/null")
  }

  @Test func `a duration alone plays the traces as often as it takes`() throws {
    #expect(try options("a.pcap", "--duration", "1s").limit.loops == .max)
    #expect(try options("-", "--duration", "1s").limit.loops == 1)
    #expect(try options("a.pcap", "--duration", "1s", "--loop", "3").limit.loops == 3)
  }

  @Test(arguments: [
    (["--loop", "0"], "--loop 0: must be a whole number, 1 or more; to go on until a time, give --duration"),
    (["--loop", "2.5"], "--loop 2.5: must be a whole number, 1 or more; to go on until a time, give --duration"),
    (["--duration", "0s"], "--duration 0s: not a time more than 0; write it like 500ms, 10s, 2m or 1h"),
    (["--duration", "soon"], "--duration soon: not a time more than 0; write it like 500ms, 10s, 2m or 1h"),
    (["--ring-size", "1000"], "--ring-size 1000: must be a power of two from 2 to 32768"),
    (["--ring-size", "65536"], "--ring-size 65536: must be a power of two from 2 to 32768"),
    (["--ring-size", "1"], "--ring-size 1: must be a power of two from 2 to 32768"),
    (["--guest-memory", "1k"], "--guest-memory 1k: must be from 1Mi to 16Gi bytes; write it like 256Mi"),
    (["--mtu", "67"], "--mtu 67: must be a whole number, from 68 to 9710"),
    (["--mode", "fast"], "--mode fast: no such mode; modes are auto, required, copy"),
    (["--queues", "3"], "--queues 3: must be 1, 2 or 4"),
    (["--seed", "dice"], "--seed dice: must be a whole number below 2^64; 0x for hexadecimal"),
    (["--cpus", "a"], "--cpus a: write one or two numbers of processors, like 0,1"),
    (["--event-log", "e.log"], "--event-log e.log: only a run with --deterministic has events to compare; give that too"),
    (["--vm", "a", "--vm", "a,vlan=3"], "--vm a,vlan=3: there is a VM \"a\" already; give each a name of its own"),
    (["--write", "/nowhere/at/all/x.pcap"], "--write /nowhere/at/all/x.pcap: the folder does not exist"),
  ])
  func `a refusal names the option, the value, the reason and the mend`(arguments: [String], message: String) {
    expectRefusal(message) {
      let command = try Sluice.parseAsRoot(["replay", "a.pcap"] + arguments)
      return try (command as! ReplayCommand).options()
    }
  }

  @Test func `a processor that the process may not have is answered with those that it may`() {
    do {
      _ = try options("a.pcap", "--cpus", "1023")
      Issue.record("accepted")
    } catch {
      let message = (error as? Failure)?.message ?? ""
      #expect(message.hasPrefix("--cpus 1023: this process may not run on processor 1023; it may on 0"))
    }
  }

  @Test func `processors are told in ranges`() {
    #expect(ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8")
    #expect(ranges([]) == "")
  }

  @Test func `a file that is replayed is not written to`() throws {
    try withFolder { folder in
      let trace = folder + "/trace.pcap"
      try Data([1, 2, 3]).write(to: URL(fileURLWithPath: trace))
      try FileManager.default.createSymbolicLink(atPath: folder + "/link", withDestinationPath: trace)
      for path in [trace, folder + "/../" + folder.split(separator: "/").last! + "/trace.pcap", folder + "/link"] {
        expectRefusal("--write \(path): this file is replayed; writing to it would empty it first") {
          try options(trace, "--write", path)
        }
      }
    }
  }

  @Test func `two outputs are not one file`() throws {
    try withFolder { folder in
      let path = folder + "/new.pcap"
      expectRefusal("--write b=\(path): --write a=\(path) is written there already") {
        try options("t.pcap", "--vm", "a", "--vm", "b", "--write", "a=\(path)", "--write", "b=\(path)")
      }
      expectRefusal("--event-log \(path): --write \(path) is written there already") {
        try options("t.pcap", "--deterministic", "--write", path, "--event-log", path)
      }
    }
  }
}
