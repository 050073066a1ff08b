import Control
import Datapath
import FlowSteering
import VFIO
import Yams

/// Walks a file's nodes and takes what it knows. What it does not know, or cannot use, is noted with its place, and the
/// walk goes on: all errors are told at once.
final class ConfigurationReader {
  private(set) var problems: [FileProblem] = []
  /// Where each key that was there has its value.
  private var places: [String: Place] = [:]

  private struct Place {
    var line = 1
    var column = 1
    init(_ mark: Mark? = nil) { if let mark { (line, column) = (mark.line, mark.column) } }
  }

  func read(_ root: Node) -> ConfigurationFile {
    var file = ConfigurationFile()
    note(root, at: "")
    keys(
      of: root, at: "",
      [
        ("nic", { node, key in file.configuration.nic = self.nic(node, key) }),
        ("wire", { node, key in file.configuration.wire = self.wire(node, key) }),
        ("host", { node, key in file.configuration.host = self.wire(node, key) }),
        ("control", { node, key in file.configuration.control = self.control(node, key) }),
        ("state-dir", { node, key in file.configuration.stateDirectory = self.text(node, key) }),
        ("workers", { node, key in file.configuration.workers = self.workers(node, key) }),
        ("vms", { node, key in file.configuration.vms = self.vms(node, key) }),
        ("log", { node, key in file.log = self.log(node, key) }),
        ("rules", { node, key in file.configuration.rules = self.rules(node, key) }),
      ])
    return file
  }

  /// Gives what is wrong with the whole its place. What follows from a value that could not be read is left out.
  func located(_ errors: [ConfigurationError]) -> [FileProblem] {
    let known = problems.map(\.key)
    return errors.compactMap { error in
      let isKnown = known.contains { $0.isEmpty || $0 == error.key || error.key.hasPrefix($0 + ".") || error.key.hasPrefix($0 + "[") }
      if isKnown { return nil }
      let place = place(of: error.key)
      return FileProblem(place.line, place.column, error.key, error.reason)
    }
  }

  /// Of the key, or of the nearest thing around it that is there.
  private func place(of key: String) -> Place {
    var key = Substring(key)
    while !key.isEmpty {
      if let place = places[String(key)] { return place }
      key = key.lastIndex { $0 == "." || $0 == "[" }.map { key[..<$0] } ?? ""
    }
    return places[""] ?? Place()
  }

  // MARK: The parts

  private func nic(_ node: Node, _ key: String) -> Configuration.NIC {
    var nic = Configuration.NIC()
    keys(
      of: node, at: key,
      [
        ("kind", { node, key in self.choose(&nic, node, key) }),
        ("vfio", { node, key in nic.interface = self.interface(node, key) }),
        ("protect", { node, key in nic.protection = self.word(node, key) ?? nic.protection }),
        ("mtu", { node, key in nic.mtu = self.number(node, key) ?? nic.mtu }),
        ("ring-size", { node, key in nic.ringSize = self.number(node, key) ?? nic.ringSize }),
        ("moderation-us", { node, key in nic.moderationMicroseconds = self.number(node, key) ?? nic.moderationMicroseconds }),
        ("exact-flows", { node, key in nic.exactFlows = self.number(node, key) ?? nic.exactFlows }),
      ])
    return nic
  }

  private func choose(_ nic: inout Configuration.NIC, _ node: Node, _ key: String) {
    guard let text = text(node, key) else { return }
    if !nic.choose(text) { report(node, key, "\(text): no such card; write \(Configuration.NIC.Kind.forms)") }
  }
  /// Nil: the one that the kernel has.
  private func interface(_ node: Node, _ key: String) -> VFIODevice.Interface? {
    guard let text = text(node, key), text != "auto" else { return nil }
    guard let interface = VFIODevice.Interface(rawValue: text) else {
      report(node, key, "\(text): must be one of auto, \(VFIODevice.Interface.allCases.map(\.rawValue).joined(separator: ", "))")
      return nil
    }
    return interface
  }

  /// `tap=NAME`, as the option has it, or `{tap: NAME}`.
  private func wire(_ node: Node, _ key: String) -> Configuration.Wire? {
    if case .scalar = node {
      guard let text = text(node, key) else { return nil }
      do { return try WireOption.wire(text) } catch {
        report(node, key, error.reason)
        return nil
      }
    }
    var name: String?
    keys(of: node, at: key, [("tap", { node, key in name = self.text(node, key) })], required: ["tap"])
    return name.map { .tap($0) }
  }

  private func control(_ node: Node, _ key: String) -> Configuration.Socket? {
    var path: String?
    var socket = Configuration.Socket(path: "")
    keys(
      of: node, at: key, [("socket", { node, key in path = self.text(node, key) })] + permissions { change in change(&socket) },
      required: ["socket"])
    if let path { socket.path = path }
    return path == nil ? nil : socket
  }

  private typealias Key = (name: String, take: (Node, String) -> Void)

  /// `mode`, `owner` and `group` of a socket.
  private func permissions(_ update: @escaping ((inout Configuration.Socket) -> Void) -> Void) -> [Key] {
    [
      ("mode", { node, key in
        if let mode = self.mode(node, key) { update { $0.mode = mode } }
      }),
      ("owner", { node, key in
        let name = self.text(node, key)
        update { $0.owner = name }
      }),
      ("group", { node, key in
        let name = self.text(node, key)
        update { $0.group = name }
      }),
    ]
  }

  private func workers(_ node: Node, _ key: String) -> Configuration.Workers {
    var workers = Configuration.Workers()
    keys(
      of: node, at: key,
      [
        ("count", { node, key in workers.count = self.number(node, key) ?? workers.count }),
        ("cpus", { node, key in workers.processors = self.list(node, key).compactMap { self.number($0, $1) } }),
        ("spin-us", { node, key in workers.spinMicroseconds = self.number(node, key) ?? workers.spinMicroseconds }),
      ])
    return workers
  }

  private func log(_ node: Node, _ key: String) -> LogOptions {
    var log = LogOptions()
    keys(
      of: node, at: key,
      [
        ("level", { node, key in log.level = self.word(node, key) ?? log.level }),
        ("format", { node, key in log.format = self.word(node, key) ?? log.format }),
      ])
    return log
  }

  private func rules(_ node: Node, _ key: String) -> [Rule] {
    list(node, key).compactMap { node, key in
      guard let text = text(node, key) else { return nil }
      do throws(RuleError) { return try Rule(parsing: text) } catch {
        report(node, key, "\(error)")
        return nil
      }
    }
  }

  private func vms(_ node: Node, _ key: String) -> [Configuration.VM] { list(node, key).map { vm($0.0, $0.1) } }

  private enum Side: String, CaseIterable { case server, client }

  private func vm(_ node: Node, _ key: String) -> Configuration.VM {
    var vm = Configuration.VM(name: "", endpoint: .client(path: ""))
    var socket = Configuration.Socket(path: "")
    var side = Side.server
    var permissionsNode: Node?
    keys(
      of: node, at: key,
      [
        ("name", { node, key in vm.name = self.text(node, key) ?? "" }),
        ("socket", { node, key in socket.path = self.text(node, key) ?? "" }),
        ("mode", { node, key in side = self.word(node, key) ?? side }),
        ("permissions", { node, key in
          permissionsNode = node
          self.keys(of: node, at: key, self.permissions { change in change(&socket) })
        }),
        // One that cannot be read is nobody's, so that nothing else is said of it.
        ("mac", { node, key in vm.address = self.address(node, key) ?? .local(0xFF_0000 + self.problems.count) }),
        ("vlan", { node, key in vm.vlan = self.vlan(node, key) }),
        ("vlan-port", { node, key in vm.vlanPort = self.word(node, key) }),
        ("spoof", { node, key in vm.spoof = self.word(node, key) ?? vm.spoof }),
        ("queues", { node, key in vm.queuePairs = self.number(node, key) ?? vm.queuePairs }),
        ("packed", { node, key in vm.offersPacked = self.flag(node, key) ?? vm.offersPacked }),
        ("config", { node, key in vm.offersConfig = self.flag(node, key) ?? vm.offersConfig }),
        ("datapath", { node, key in vm.mode = self.datapath(node, key) ?? vm.mode }),
        ("ring-size-limit", { node, key in vm.ringSizeLimit = self.number(node, key) ?? vm.ringSizeLimit }),
        ("memory-limit", { node, key in vm.memoryLimit = self.number(node, key).map { UInt64($0) } ?? vm.memoryLimit }),
      ], required: ["name", "socket"])
    switch side {
    case .server: vm.endpoint = .server(socket)
    case .client:
      vm.endpoint = .client(path: socket.path)
      if let node = permissionsNode { report(node, key + ".permissions", "in mode client the front-end makes the socket, and its permissions") }
    }
    return vm
  }

  // MARK: Keys and places

  /// Takes each key of a mapping once; what is not in the table, and what is required and missing, is noted.
  private func keys(of node: Node, at path: String, _ table: [Key], required: [String] = []) {
    guard case .mapping(let mapping) = node else {
      return report(node, path, "must have keys: \(table.map(\.name).joined(separator: ", "))")
    }
    for (key, value) in mapping {
      guard let name = key.scalar?.string else {
        report(key, path, "a key must be a word")
        continue
      }
      let full = path.isEmpty ? name : "\(path).\(name)"
      guard let entry = table.first(where: { $0.name == name }) else {
        report(key, full, "no such key; keys are \(table.map(\.name).joined(separator: ", "))")
        continue
      }
      note(value, at: full)
      entry.take(value, full)
    }
    for name in required where places[path.isEmpty ? name : "\(path).\(name)"] == nil {
      report(node, "\(path).\(name)", "is missing")
    }
  }

  private func list(_ node: Node, _ key: String) -> [(Node, String)] {
    guard case .sequence(let sequence) = node else {
      report(node, key, "must be a list")
      return []
    }
    return sequence.enumerated().map { index, node in
      note(node, at: "\(key)[\(index)]")
      return (node, "\(key)[\(index)]")
    }
  }

  private func note(_ node: Node, at key: String) { places[key] = Place(node.mark) }

  func report(_ node: Node, _ key: String, _ reason: String) {
    let place = Place(node.mark)
    problems.append(FileProblem(place.line, place.column, key, reason))
  }
}
