import ArgumentParser
import Control
import Datapath
import FlowSteering
import Foundation
import Support
import Testing

@testable import sluice

struct BackendOptionTests {
  @Test func `a name and a socket are a VM whose front-end connects to us`() throws {
    let vm = try BackendOption.parse("web,socket=/run/web.sock")
    #expect(vm == Configuration.VM(name: "web", endpoint: .server(.init(path: "/run/web.sock"))))
    #expect(try BackendOption.parse("web,server,socket=/run/web.sock") == vm)
  }

  @Test func `every key is taken`() throws {
    let vm = try BackendOption.parse("db-1,socket=a=b.sock,client,mac=02:00:00:00:00:0A,vlan=4094,vlan-port=tagged,spoof=allow,queues=4,packed=off,config=on,datapath=required")
    var expected = Configuration.VM(name: "db-1", endpoint: .client(path: "a=b.sock"))
    (expected.address, expected.vlan, expected.queuePairs) = (.local(10), 4094, 4)
    (expected.vlanPort, expected.spoof) = (.tagged, .allow)
    (expected.offersPacked, expected.offersConfig, expected.mode) = (false, true, .required)
    #expect(vm == expected)
  }

  @Test(arguments: [
    ("web", "socket is missing; write socket=/run/sluice/web.sock"), ("web,socket=", "socket has no value; write socket=/run/sluice/web.sock"),
    ("socket=/a", "the name comes first: --vm NAME,socket=/a"),
    ("web,sock=/a", "no such key \"sock\"; keys are socket, server, client, mac, vlan, vlan-port, spoof, queues, packed, config, datapath, ring-size-limit, memory-limit"),
    ("web,socket=/a,server,client", "server or client is given twice"), ("web,socket=/a,client,client", "server or client is given twice"),
    ("web,socket=/a,socket=/b", "socket is given twice"), ("web,socket=/a,client=yes", "client takes no value"),
    ("web,socket=/a,mac", "mac has no value; write mac=02:00:00:00:00:01"),
    ("web,socket=/a,mac=02:00", "mac=02:00: not an address; write it like 02:00:00:00:00:01"),
    ("web,socket=/a,vlan=0", "vlan=0: must be from 1 to 4094"), ("web,socket=/a,vlan=4095", "vlan=4095: must be from 1 to 4094"),
    ("web,socket=/a,spoof", "spoof has no value; write spoof=allow"), ("web,socket=/a,spoof=no", "spoof=no: must be deny or allow"),
    ("web,socket=/a,vlan-port=", "vlan-port has no value; write vlan-port=tagged"), ("web,socket=/a,vlan-port=trunk", "vlan-port=trunk: must be access or tagged"),
    ("web,socket=/a,queues=3", "queues=3: must be 1, 2 or 4"), ("web,socket=/a,packed=maybe", "packed=maybe: must be on or off"),
    ("web,socket=/a,config=1", "config=1: must be on or off"),
    ("web,socket=/a,datapath=fast", "datapath=fast: no such mode; modes are auto, required, copy"),
  ])
  func `a refusal names the key, the value and the mend`(text: String, reason: String) {
    expectRefusal("--vm \(text): \(reason)") { try BackendOption.parse(text) }
  }
}

struct RunOptionsTests {
  private func plan(_ arguments: String...) throws -> ConfigurationFile {
    let command = try Sluice.parseAsRoot(["run"] + arguments)
    return try #require(command as? RunCommand).plan()
  }

  @Test func `flags are a configuration`() throws {
    let plan = try plan(
      "--vm", "a,socket=/a,mac=02:00:00:00:00:01", "--vm", "b,socket=/b,client,mac=02:00:00:00:00:02", "--wire", "tap=tap0",
      "--control", "/run/c", "--state-dir", "/s", "--mtu", "9000", "--ring-size", "256", "--workers", "1", "--spin-us", "0",
      "--log-level", "debug", "--log-format", "json", "--nic", "sim", "--moderation-us", "100")
    var expected = Configuration()
    expected.nic.moderationMicroseconds = 100
    (expected.wire, expected.control, expected.stateDirectory) = (.tap("tap0"), .init(path: "/run/c"), "/s")
    (expected.nic.mtu, expected.nic.ringSize, expected.workers.spinMicroseconds) = (9000, 256, 0)
    expected.vms = [
      .init(name: "a", endpoint: .server(.init(path: "/a"))), .init(name: "b", endpoint: .client(path: "/b")),
    ]
    (expected.vms[0].address, expected.vms[1].address) = (.local(1), .local(2))
    #expect(plan == ConfigurationFile(configuration: expected, log: LogOptions(level: .debug, format: .json)))
  }

  @Test func `the simulated card can leave out payloads, and says so`() throws {
    let nic = try plan("--vm", "a,socket=/a", "--nic", "sim:no-payload").configuration.nic
    #expect(nic.kind == .sim && !nic.writesPayload && nic.card == "sim:no-payload")
    #expect(try plan("--vm", "a,socket=/a", "--nic", "sim").configuration.nic.writesPayload)
  }

  @Test func `a back-end program of the conventions is one VM that gets everything`() throws {
    #expect(try plan("--socket-path", "/s").configuration.vms == [.init(name: "vm0", endpoint: .server(.init(path: "/s")))])
    #expect(try plan("--fd", "7").configuration.vms == [.init(name: "vm0", endpoint: .descriptor(7))])
    #expect(Sluice.arguments(of: ["/usr/libexec/vhost-user-net", "--fd=3"]) == ["run", "--fd=3"])
    #expect(Sluice.arguments(of: ["/usr/bin/sluice", "run", "--fd=3"]) == ["run", "--fd=3"])
  }

  /// Refusals of single values, and of what is only wrong together.
  @Test(arguments: [
    ([], "nothing to run: give --vm NAME,socket=PATH, or --config FILE"),
    (["--vm", "a,socket=/a", "--fd", "3"], "--vm and --fd exclude each other"),
    (["--socket-path", "/a", "--fd", "3"], "--socket-path and --fd exclude each other"),
    (["--fd=-1"], "--fd -1: must be a whole number"), (["--fd", "9999999999"], "--fd 9999999999: no descriptor has that number"),
    (["--socket-path", String(repeating: "a", count: 108)], "--socket-path \(String(repeating: "a", count: 108)): a path of 1 to 107 bytes"),
    (["--vm", "a,socket=/a", "--vm", "a,socket=/b"], "--vm a,socket=/a: mac: of several VMs each needs its address, or rules: they decide whose a frame is"),
    (["--vm", "a,socket=/a,mac=02:00:00:00:00:01", "--vm", "a,socket=/b,mac=02:00:00:00:00:02"], "--vm a,socket=/b,mac=02:00:00:00:00:02: name: a is taken"),
    (["--vm", "a,socket=/a,vlan=5"], "--vm a,socket=/a,vlan=5: vlan: needs mac too"),
    (["--vm", "a b,socket=/a"], "--vm a b,socket=/a: name: a name is 1 to 32 letters, digits, '.', '_' or '-'"),
    (["--vm", "a,socket=/a", "--control", "/a"], "--vm a,socket=/a: socket: /a is the control socket's"),
    (["--vm", "a,socket=/a", "--nic", "e1000"], "--nic e1000: no such card; write sim, sim:no-payload, or vfio: and a PCI address, as in vfio:0000:03:00.0"),
    (["--vm", "a,socket=/a", "--wire", "eth0"], "--wire eth0: no such device; write tap=NAME"),
    (["--vm", "a,socket=/a", "--wire", "tap="], "--wire tap=: the name of a TAP device has 1 to 15 bytes, without '/', spaces or colons"),
    (["--vm", "a,socket=/a", "--mtu", "67"], "--mtu 67: 67 bytes; 68 to 9710 are possible"),
    (["--vm", "a,socket=/a", "--mtu", "big"], "--mtu big: must be a whole number"),
    (["--vm", "a,socket=/a", "--ring-size", "100"], "--ring-size 100: 100; a multiple of 8 from 64 to 4096"),
    (["--vm", "a,socket=/a", "--workers", "0"], "--workers 0: 0; 1 to 16 are possible"),
    (["--vm", "a,socket=/a", "--workers", "2", "--cpus", "0"], "--cpus 0: 1 processor for 2 workers"),
    (["--vm", "a,socket=/a", "--cpus", "0,,1"], "--cpus 0,,1: write numbers of processors, like 0,1"),
    (["--vm", "a,socket=/a", "--moderation-us", "1001"], "--moderation-us 1001: 1001 microseconds; at most 1000"),
    (["--vm", "a,socket=/a", "--spin-us", "2M"], "--spin-us 2M: 2000000 microseconds; at most a second"),
    (["--vm", "a,socket=/a", "--log-level", "loud"], "--log-level loud: no such level; levels are debug, info, notice, warning, error"),
    (["--vm", "a,socket=/a", "--log-format", "xml"], "--log-format xml: no such format; formats are text, json"),
    (["--config", "f", "--vm", "a,socket=/a", "--mtu", "1500"], "--config f: everything but the log's options stands in the file; leave out --vm, --mtu"),
    (["--config", "f", "--fd", "3"], "--config f: everything but the log's options stands in the file; leave out --fd"),
  ] as [([String], String)])
  func `a refusal names the option`(arguments: [String], message: String) {
    expectRefusal(message) {
      let command = try Sluice.parseAsRoot(["run"] + arguments)
      return try #require(command as? RunCommand).plan()
    }
  }

  @Test func `a file's log may be overridden, and nothing else`() throws {
    try withFolder { folder in
      let path = folder + "/f.yaml"
      try "vms: [{name: a, socket: /a}]\nlog: {level: error, format: json}".write(toFile: path, atomically: false, encoding: .utf8)
      #expect(try plan("--config", path).log == LogOptions(level: .error, format: .json))
      #expect(try plan("--config", path, "--log-level", "debug").log == LogOptions(level: .debug, format: .json))
      #expect(try plan("--config", path, "--log-format", "text").log == LogOptions(level: .error, format: .text))
    }
  }

  @Test(arguments: [("/no/such/file", "No such file or directory"), ("/", "Is a directory"), ("/dev/zero", "longer than 1,048,576 bytes; is it the right file?")])
  func `a file that cannot be read is an error of its own kind`(path: String, reason: String) {
    #expect(throws: Failure(status: .configuration, message: "\(path): \(reason)")) { try plan("--config", path) }
  }
}

struct PackagingTests {
  @Test func `the example is a configuration, and says what the defaults are`() throws {
    let file = try ConfigurationFile.parse(Packaging.example, name: "example")
    #expect(file.configuration.vms.map(\.name) == ["web"] && file.configuration.control?.path == ControlOptions.fallback)
    // What it says of keys that have a default is that default.
    var plain = Configuration.VM(name: "web", endpoint: file.configuration.vms[0].endpoint)
    plain.address = .local(1)
    #expect(file.configuration.vms == [plain] && file.configuration.nic == .init() && file.configuration.workers == .init())
    #expect(file.log == LogOptions())
    // What it leaves out by a comment is right, too.
    let more = Packaging.example.replacing(/(?m)^( *)#([\w-]+: ?[\w\/{ :}]*)/) { "\($0.1)\($0.2)" }
    #expect(more != Packaging.example && more.contains("\nwire: {tap: tap0}") && more.contains("\n    group: kvm"))
    let named = more.replacing("group: kvm", with: "group: root").replacing("group: adm", with: "group: root")
    let all = try ConfigurationFile.parse(named, name: "example")
    #expect(all.configuration.wire == .tap("tap0") && all.configuration.vms[0].vlan == 100 && all.configuration.stateDirectory == "/run/sluice")
  }

  @Test func `the description is what QEMU's schema wants`() throws {
    let json = try #require(try JSONSerialization.jsonObject(with: Data(Packaging.description.utf8)) as? [String: Any])
    // VhostUserBackend: three keys, and tags that are strings.
    #expect(Set(json.keys) == ["description", "type", "binary", "tags"] && json["type"] as? String == "net")
    #expect((json["binary"] as? String)?.hasPrefix("/") == true && json["tags"] is [String])
    #expect(Sluice.arguments(of: [json["binary"] as? String ?? ""]) == ["run"])
    #expect(BackendProgram.answer(["run", "--nonsense", "--print-capabilities"]) == "{\"type\":\"net\"}\n")
    #expect(BackendProgram.answer(["run", "--", "--print-capabilities"]) == nil && BackendProgram.answer(["replay", "--print-capabilities"]) == nil)
  }

  @Test(.enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/systemd-analyze"), "needs systemd-analyze"))
  func `systemd finds nothing wrong with the unit`() throws {
    try withFolder { folder in
      // The program that it names is not installed here.
      let unit = Packaging.unit.replacing("/usr/local/bin/sluice", with: "/bin/true")
      try unit.write(toFile: folder + "/sluice.service", atomically: false, encoding: .utf8)
      let process = Process()
      process.executableURL = URL(fileURLWithPath: "/usr/bin/systemd-analyze")
      process.arguments = ["verify", "--man=no", folder + "/sluice.service"]
      let pipe = Pipe()
      process.standardError = pipe
      try withNoSignalBlocked { try process.run() }
      let said = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
      process.waitUntilExit()
      #expect(process.terminationStatus == 0)
      #expect(!said.contains("sluice.service"), "\(said)")
    }
  }

  @Test func `the unit's command is one that there is`() throws {
    let line = try #require(Packaging.unit.split(separator: "\n").first { $0.hasPrefix("ExecStart=") })
    let words = line.dropFirst("ExecStart=".count).split(separator: " ").map(String.init)
    let command = try Sluice.parseAsRoot(Array(words.dropFirst()))
    #expect((command as? RunCommand)?.file.config == "/etc/sluice/sluice.yaml")
    #expect(Packaging.unit.contains("Type=notify\n") && Packaging.unit.contains("WatchdogSec="))
  }
}
