import Control
import Datapath
import FlowSteering
import Linux
import Support
import Testing

@testable import sluice

struct ConfigurationFileTests {
  private func parse(_ text: String) throws(ConfigurationFileError) -> ConfigurationFile {
    try ConfigurationFile.parse(text, name: "f")
  }

  /// The smallest file there is, with something before it.
  private func withVM(_ text: String) -> String { text + "\nvms: [{name: a, socket: /run/a}]\n" }

  @Test func `a file with nothing but a VM is the defaults`() throws {
    let file = try parse("vms:\n- name: web\n  socket: /run/web.sock\n")
    var expected = Configuration()
    expected.vms = [.init(name: "web", endpoint: .server(.init(path: "/run/web.sock")))]
    #expect(file == ConfigurationFile(configuration: expected))
  }

  @Test func `every key is taken`() throws {
    let file = try parse(
      """
      nic: {kind: sim, mtu: 0x5dc, ring-size: 4Ki, moderation-us: 0}
      wire: {tap: tap0}
      control: {socket: /run/c.sock, mode: 0660, owner: root, group: "0"}
      state-dir: /var/lib/sluice
      workers: {count: 1, cpus: [\(first)], spin-us: 1k}
      vms:
      - name: web
        socket: /run/web.sock
        mode: server
        permissions: {mode: "0666", owner: "0", group: root}
        mac: 02:00:00:00:00:01
        vlan: 100
        vlan-port: tagged
        spoof: allow
        queues: 4
        packed: off
        config: on
        datapath: required
      - {name: db, socket: /run/db.sock, mode: client, mac: "02:00:00:00:00:02", packed: true, config: false}
      log: {level: debug, format: json}
      """)
    var expected = Configuration()
    (expected.nic.mtu, expected.nic.ringSize, expected.nic.moderationMicroseconds, expected.wire) = (1500, 4096, 0, .tap("tap0"))
    var control = Configuration.Socket(path: "/run/c.sock")
    (control.mode, control.owner, control.group) = (0o660, "root", "0")
    (expected.control, expected.stateDirectory) = (control, "/var/lib/sluice")
    (expected.workers.processors, expected.workers.spinMicroseconds) = ([first], 1000)
    var socket = Configuration.Socket(path: "/run/web.sock")
    (socket.mode, socket.owner, socket.group) = (0o666, "0", "root")
    var web = Configuration.VM(name: "web", endpoint: .server(socket))
    (web.address, web.vlan, web.queuePairs) = (MACAddress.local(1), 100, 4)
    (web.vlanPort, web.spoof) = (.tagged, .allow)
    (web.offersPacked, web.offersConfig, web.mode) = (false, true, .required)
    var db = Configuration.VM(name: "db", endpoint: .client(path: "/run/db.sock"))
    db.address = .local(2)
    expected.vms = [web, db]
    #expect(file == ConfigurationFile(configuration: expected, log: LogOptions(level: .debug, format: .json)))
  }

  private let first = Thread.processors[0]

  @Test func `a wire is written as the option has it, too`() throws {
    #expect(try parse(withVM("wire: tap=tap7")).configuration.wire == .tap("tap7"))
  }

  @Test func `an alias is refused at its place, and an anchor alone is harmless`() throws {
    #expect(try parse("vms: &all [{name: a, socket: &path /run/a}]") == parse("vms: [{name: a, socket: /run/a}]"))
    expectRefusal("f:2:66: aliases are not accepted; write the value out") { () throws(ConfigurationFileError) in
      try parse(
        """
        vms: [{name: a, socket: /a, mac: 02:00:00:00:00:01, permissions: &all {mode: 0666}},
              {name: b, socket: /b, mac: 02:00:00:00:00:02, permissions: *all}]
        """)
    }
  }

  /// Each level of such a key takes nine times as long to hash as the one below: a refusal that composed it first would not come.
  @Test func `a key that is not a word is refused before anything is composed`() throws {
    var bomb = "? &a0 [x, x]\n: 1\n"
    for level in 1...9 { bomb += "? &a\(level) [" + Array(repeating: "*a\(level - 1)", count: 9).joined(separator: ", ") + "]\n: 1\n" }
    for (text, place) in [(bomb, "1:3"), ("vms: [{name: a, socket: /a}]\n? {a: 1}\n: 1\n", "2:3"), ("nic: {? [mtu] : 1}", "1:9")] {
      expectRefusal("f:\(place): a key must be a word") { () throws(ConfigurationFileError) in try parse(text) }
    }
  }

  @Test func `of very many errors the first hundred are written out, and the rest counted`() throws {
    let text = withVM((0..<90_000).map { "k\($0): 1\n" }.joined())
    do throws(ConfigurationFileError) { _ = try parse(text) } catch {
      #expect(error.problems.count == 90_000)
      let lines = error.description.split(separator: "\n")
      #expect(lines.count == 102 && lines[0] == "f has 90000 errors" && lines[1].hasPrefix("f:1:1: k0: ") && lines[101] == "and 89900 more")
      return
    }
    Issue.record("accepted")
  }

  /// Each with the place where an editor should go.
  @Test(arguments: [
    // Not YAML, or not ours.
    ("", "f:1:1: the file is empty"), ("# nothing\n", "f:1:1: the file is empty"),
    ("a: [1\nb: }", "f:2:2: not YAML: did not find expected ',' or ']'"),
    ("a: \t- b", "f:1:5: not YAML: block sequence entries are not allowed in this context"),
    ("vms: []\n---\nvms: []", "f:2:1: not YAML: but found another document"),
    ("a: \"\u{1}\"", "f:1:5: not YAML: control characters are not allowed"),
    ("5", "f:1:1: must have keys: nic, wire, host, control, state-dir, workers, vms, log, rules"),
    ("vms: 5", "f:1:6: vms: must be a list"),
    ("nic: {mtu: 1500}", "f:1:1: vms: there must be at least one VM"), ("vms: []", "f:1:6: vms: there must be at least one VM"),
    // Keys.
    ("nic: {}\nvms: []\nnic: {}", "f:1:1: nic: given twice"),
    ("vms:\n- name: a\n  name: b\n  socket: /a", "f:2:3: name: given twice"),
    ("vms:\n- socket: /a\n", "f:2:3: vms[0].name: is missing"), ("vms:\n- name: a\n", "f:2:3: vms[0].socket: is missing"),
    ("vms:\n- {name: a, socket: /a, sokcet: /b}", "f:2:25: vms[0].sokcet: no such key; keys are name, socket, mode, permissions, mac, vlan, vlan-port, spoof, queues, packed, config, datapath, ring-size-limit, memory-limit"),
    ("vms:\n- {name: a, socket: /a, permissions: {mod: 0660}}", "f:2:39: vms[0].permissions.mod: no such key; keys are mode, owner, group"),
    ("vms:\n- 7", "f:2:3: vms[0]: must have keys: name, socket, mode, permissions, mac, vlan, vlan-port, spoof, queues, packed, config, datapath, ring-size-limit, memory-limit"),
  ])
  func `a file that is none, or a key that is none, is refused with its place`(text: String, message: String) {
    expectRefusal(message) { () throws(ConfigurationFileError) in try parse(text) }
  }

  @Test(arguments: [
    ("nic: {mtu: 9711}", "f:1:12: nic.mtu: 9711 bytes; 68 to 9710 are possible"),
    ("nic: {mtu: \"1500\"}", "f:1:12: nic.mtu: must be a whole number, without quotes"),
    ("nic: {mtu: }", "f:1:12: nic.mtu: must be a whole number, without quotes"),
    ("nic: {mtu: 1500.5}", "f:1:12: nic.mtu: 1500.5: must be a whole number, without quotes"),
    ("nic: {mtu: -1}", "f:1:12: nic.mtu: -1: must be a whole number, without quotes"),
    ("nic: {mtu: [1500]}", "f:1:12: nic.mtu: must be a whole number, without quotes"),
    ("nic: {ring-size: 100}", "f:1:18: nic.ring-size: 100; a multiple of 8 from 64 to 4096"),
    ("nic: {kind: ixgbe}", "f:1:13: nic.kind: ixgbe: no such card; write sim, sim:no-payload, or vfio: and a PCI address, as in vfio:0000:03:00.0"), ("nic: [sim]", "f:1:6: nic: must have keys: kind, vfio, protect, mtu, ring-size, moderation-us, exact-flows"),
    ("wire: eth0", "f:1:7: wire: no such device; write tap=NAME"), ("wire: {}", "f:1:7: wire.tap: is missing"),
    ("wire: {tap: 0123456789abcdef}", "f:1:7: wire: the name of a TAP device has 1 to 15 bytes, without '/', spaces or colons"),
    ("wire: tap=a/b", "f:1:7: wire: the name of a TAP device has 1 to 15 bytes, without '/', spaces or colons"),
    ("control: /run/c", "f:1:10: control: must have keys: socket, mode, owner, group"),
    ("control: {mode: 0600}", "f:1:10: control.socket: is missing"),
    ("control: {socket: /c, mode: 0888}", "f:1:29: control.mode: 0888: permission bits, in octal: 0660"),
    ("control: {socket: /c, mode: 4755}", "f:1:29: control.mode: 4755: permission bits, in octal: 0660"),
    ("control: {socket: /c, mode: 66}", "f:1:29: control.mode: 66: permission bits, in octal: 0660"),
    ("control: {socket: /c, owner: no-such-user}", "f:1:30: control.owner: there is no user \"no-such-user\""),
    ("control: {socket: /c, group: no-such-group}", "f:1:30: control.group: there is no group \"no-such-group\""),
    ("control: {socket: ''}", "f:1:19: control.socket: has no value"), ("control: {socket: ~}", "f:1:19: control.socket: has no value"),
    ("control: {socket: /run/a}", "f:2:25: vms[0].socket: /run/a is the control socket's"),
    ("workers: {count: 17}", "f:1:18: workers.count: 17; 1 to 16 are possible"),
    ("workers: {count: 2, cpus: [0]}", "f:1:27: workers.cpus: 1 processor for 2 workers"),
    ("workers: {cpus: [0, 0]}", "f:1:17: workers.cpus: a processor is named twice"),
    ("workers: {cpus: 0}", "f:1:17: workers.cpus: must be a list"),
    ("workers: {cpus: [x]}", "f:1:18: workers.cpus[0]: x: must be a whole number, without quotes"),
    ("nic: {moderation-us: 1001}", "f:1:22: nic.moderation-us: 1001 microseconds; at most 1000"),
    ("workers: {spin-us: 1000001}", "f:1:20: workers.spin-us: 1000001 microseconds; at most a second"),
    ("log: {level: loud}", "f:1:14: log.level: loud: must be one of debug, info, notice, warning, error"),
    ("log: {format: xml}", "f:1:15: log.format: xml: must be one of text, json"),
    ("rules: [x]", "f:1:9: rules[0]: column 1: E_SYNTAX: \"match\" should stand here; a rule is: [id N] [group N] [prio N] [for NAME] match field=value... then action"),
    ("colour: red", "f:1:1: colour: no such key; keys are nic, wire, host, control, state-dir, workers, vms, log, rules"),
    ("? [a, b]\n: c", "f:1:3: a key must be a word"),
  ])
  func `a bad value outside the VMs is refused with its place`(text: String, message: String) {
    expectRefusal(message) { () throws(ConfigurationFileError) in try parse(withVM(text)) }
  }

  @Test(arguments: [
    ("name: a b", "9: vms[0].name: a name is 1 to 32 letters, digits, '.', '_' or '-'"),
    ("name: a, mac: 02:00:00:00:00:0g", "17: vms[0].mac: 02:00:00:00:00:0g: not an address; write it like 02:00:00:00:00:01"),
    ("name: a, mac: 01:00:00:00:00:01", "17: vms[0].mac: 01:00:00:00:00:01 is a group's address, no machine's"),
    ("name: a, vlan: 5", "18: vms[0].vlan: needs mac too"),
    ("name: a, mac: 02:00:00:00:00:01, vlan: 4095", "42: vms[0].vlan: 4095; 1 to 4094"),
    ("name: a, mac: 02:00:00:00:00:01, vlan: 70000", "42: vms[0].vlan: 70000; 1 to 4094"),
    ("name: a, spoof: maybe", "19: vms[0].spoof: maybe: must be one of deny, allow"),
    ("name: a, mac: 02:00:00:00:00:01, vlan-port: access", "47: vms[0].vlan-port: needs vlan too"),
    ("name: a, mac: 02:00:00:00:00:01, vlan: 5, vlan-port: trunk", "56: vms[0].vlan-port: trunk: must be one of access, tagged"),
    ("name: a, mac: 02:00:00:00:00:01, vlan: 5, spoof: allow, vlan-port: access", "70: vms[0].vlan-port: an access port has one VLAN, and spoof: allow lets the VM send into any: set tagged"),
    ("name: a, queues: 3", "20: vms[0].queues: 3; 1, 2 or 4"), ("name: a, packed: maybe", "20: vms[0].packed: maybe: must be on or off"),
    ("name: a, packed: 'on'", "20: vms[0].packed: must be on or off"), ("name: a, config: 1", "20: vms[0].config: 1: must be on or off"),
    ("name: a, datapath: fast", "22: vms[0].datapath: fast: must be one of auto, required, copy"),
    ("name: a, mode: both", "18: vms[0].mode: both: must be one of server, client"),
    ("name: a, mode: client, permissions: {mode: 0600}", "39: vms[0].permissions: in mode client the front-end makes the socket, and its permissions"),
    ("name: a, permissions: {owner: no-such-user}", "33: vms[0].permissions.owner: there is no user \"no-such-user\""),
    ("name: {a: b}", "9: vms[0].name: must be a text"),
  ])
  func `a bad value of a VM is refused with its place`(keys: String, message: String) {
    expectRefusal("f:1:" + message.replacing(/^(\d+)/) { "\(Int($0.1)! + 5)" }) { () throws(ConfigurationFileError) in
      try parse("vms: [{\(keys), socket: /a}]")
    }
  }

  @Test func `all errors are told, in the file's order, those of each VM and those between them`() {
    expectRefusal(
      """
      f has 7 errors
      f:2:8: nic.mtu: 10 bytes; 68 to 9710 are possible
      f:6:9: vms[0].vlan: 5000; 1 to 4094
      f:7:8: vms[0].mac: x: not an address; write it like 02:00:00:00:00:01
      f:8:3: vms[1].mac: of several VMs each needs its address, or rules: they decide whose a frame is
      f:8:9: vms[1].name: a is taken
      f:9:11: vms[1].socket: /a is a's
      f:10:11: vms[1].qeues: no such key; keys are name, socket, mode, permissions, mac, vlan, vlan-port, spoof, queues, packed, config, datapath, ring-size-limit, memory-limit
      """.replacing("f:10:11: vms[1].qeues", with: "f:10:3: vms[1].qeues")
    ) { () throws(ConfigurationFileError) in
      try parse(
        """
        nic:
          mtu: 10
        vms:
        - name: a
          socket: /a
          vlan: 5000
          mac: x
        - name: a
          socket: /a
          qeues: 2
        """)
    }
  }

  /// Whatever is done to a good file: it is read, or refused with places that it has.
  @Test func `a file that was torn is refused, and nothing worse`() throws {
    let good = Array(Packaging.example.unicodeScalars)
    let odd = Array("{}[]:,-#&*!|>'\"%@`?~\n\t \0aé0".unicodeScalars)
    try withSeeds(1500) { generator in
      var scalars = good
      for _ in 0..<generator.int(1...6) {
        let at = generator.int(0...(scalars.count - 1))
        switch generator.int(0...3) {
        case 0: scalars[at] = generator.pick(odd)
        case 1: scalars.insert(generator.pick(odd), at: at)
        case 2: scalars.removeSubrange(at..<min(scalars.count - 1, at + generator.int(1...40)))
        default: scalars.insert(contentsOf: scalars[at..<min(scalars.count, at + generator.int(1...60))], at: generator.int(0...(scalars.count - 1)))
        }
      }
      let text = String(String.UnicodeScalarView(scalars))
      let lines = text.split(omittingEmptySubsequences: false) { $0.isNewline }.count
      do throws(ConfigurationFileError) { _ = try parse(text) } catch {
        for problem in error.problems {
          try check((1...lines + 1).contains(problem.line) && problem.column >= 1 && !problem.reason.isEmpty, "\(problem) of \(lines) lines")
        }
      }
    }
  }

  @Test func `a file of lists in lists is refused, not walked into`() {
    for text in [String(repeating: "[", count: 100_000), String(repeating: "{a: ", count: 100_000), String(repeating: "- ", count: 50_000)] {
      #expect(throws: ConfigurationFileError.self) { try parse(text) }
    }
  }

  @Test func `a file that names itself many times over is no work`() {
    var text = "a0: &a0 [x]\n"
    for level in 1...40 { text += "a\(level): &a\(level) [*a\(level - 1), *a\(level - 1)]\n" }
    #expect(throws: ConfigurationFileError.self) { try parse(text) }
  }

  private func expectRefusal(
    _ message: String, at location: SourceLocation = #_sourceLocation, _ body: () throws(ConfigurationFileError) -> ConfigurationFile
  ) {
    do {
      let file = try body()
      Issue.record("accepted: \(file)", sourceLocation: location)
    } catch { #expect(error.description == message, sourceLocation: location) }
  }
}

struct EffectiveConfigurationTests {
  /// Values of every kind, drawn from a seed that a failure prints.
  private func random(_ generator: inout SeededGenerator) -> ConfigurationFile {
    var file = ConfigurationFile()
    func pick<T>(_ values: [T]) -> T { values.randomElement(using: &generator)! }
    let paths = ["/run/a b", "rel.sock", "/tmp/\"q\"", "/tmp/ü\\", "@x", "- ", "~", "true", "{}", "#x", "a: b", "1"]
    func socket(_ path: String) -> Configuration.Socket {
      var socket = Configuration.Socket(path: path)
      (socket.mode, socket.owner, socket.group) = (pick([0, 0o600, 0o660, 0o777]), pick([nil, "0", "root"]), pick([nil, "0", "root"]))
      return socket
    }
    file.configuration.nic.mtu = .random(in: 68...9710, using: &generator)
    file.configuration.nic.ringSize = 8 * Int.random(in: 8...512, using: &generator)
    file.configuration.nic.moderationMicroseconds = .random(in: 0...1000, using: &generator)
    file.configuration.wire = pick([nil, .tap("tap0"), .tap("a.b-c"), .tap("12")])
    if Bool.random(using: &generator) { file.configuration.control = socket("/run/control") }
    file.configuration.stateDirectory = pick([nil] + paths)
    file.configuration.workers.spinMicroseconds = .random(in: 0...1_000_000, using: &generator)
    file.configuration.workers.processors = pick([[], [Thread.processors[0]]])
    for (number, path) in paths.shuffled(using: &generator).prefix(.random(in: 1...5, using: &generator)).enumerated() {
      var vm = Configuration.VM(name: pick(["a", "on", "12", "x.y", "-"]) + String(number), endpoint: pick([.server(socket(path)), .client(path: path)]))
      (vm.address, vm.vlan, vm.spoof) = (MACAddress.local(number + 1), pick([nil, 1, 4094]), pick([.deny, .allow]))
      if vm.vlan != nil { vm.vlanPort = vm.spoof == .allow ? .tagged : pick([.access, .tagged]) }
      (vm.queuePairs, vm.offersPacked, vm.offersConfig, vm.mode) = (pick([1, 2, 4]), pick([true, false]), pick([true, false]), pick([.auto, .required, .copy]))
      file.configuration.vms.append(vm)
    }
    let names = file.configuration.vms.map(\.name)
    if Bool.random(using: &generator) {
      let texts = ["match eth.type=ip udp.dst=53 then vm \(pick(names))", "id 7 prio 1 match tcp.flags=syn/syn then drop"]
      file.configuration.rules = texts.compactMap { try? Rule(parsing: $0) }
    }
    file.configuration.nic.exactFlows = pick([2046, 4094, 8190])
    file.log = LogOptions(level: pick(LogEvent.Level.allCases), format: pick(LogOptions.Format.allCases))
    return file
  }

  @Test func `what is printed reads back as what it was`() throws {
    try withSeeds(300) { generator in
      let file = random(&generator)
      let text = EffectiveConfiguration(file.configuration, file.log).yaml
      let again = try ConfigurationFile.parse(text, name: "f")
      try check(again, is: file, text)
    }
  }

  @Test func `as JSON it has the keys of the file`() throws {
    let file = try ConfigurationFile.parse("wire: tap=t\nvms: [{name: a, socket: /a, mode: client}]", name: "f")
    #expect(
      EffectiveConfiguration(file.configuration, file.log).json
        == #"{"nic":{"kind":"sim","protect":"static","mtu":1500,"ring-size":1024,"moderation-us":20,"exact-flows":2046},"wire":{"tap":"t"},"workers":{"count":1,"cpus":[],"spin-us":50},"vms":[{"name":"a","socket":"/a","mode":"client","spoof":"deny","queues":1,"packed":true,"config":false,"datapath":"auto","ring-size-limit":32768,"memory-limit":1099511627776}],"rules":[],"log":{"level":"info","format":"text"}}"#)
  }
}
