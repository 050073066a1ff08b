import Control
import Datapath
import FlowSteering
import VFIO

/// A configuration with everything said, as `--check` prints it: YAML that reads back as what it was, or JSON.
struct EffectiveConfiguration {
  private indirect enum Tree {
    case keys([(String, Tree)])
    case list([Tree])
    case text(String)
    /// A word of ours, which needs no quotes.
    case word(String)
    case flag(Bool)
    case number(Int)
  }
  private let tree: Tree

  init(_ configuration: Configuration, _ log: LogOptions) {
    var keys: [(String, Tree)] = [
      (
        "nic",
        .keys(Self.kind(configuration.nic) + [
          ("protect", .word(configuration.nic.protection.rawValue)), ("mtu", .number(configuration.nic.mtu)), ("ring-size", .number(configuration.nic.ringSize)),
          ("moderation-us", .number(configuration.nic.moderationMicroseconds)), ("exact-flows", .number(configuration.nic.exactFlows)),
        ])
      )
    ]
    if case .tap(let name) = configuration.wire { keys.append(("wire", .keys([("tap", .text(name))]))) }
    if case .tap(let name) = configuration.host { keys.append(("host", .keys([("tap", .text(name))]))) }
    if let control = configuration.control {
      keys.append(("control", .keys([("socket", .text(control.path))] + Self.permissions(control))))
    }
    if let folder = configuration.stateDirectory { keys.append(("state-dir", .text(folder))) }
    let workers = configuration.workers
    keys.append(
      (
        "workers",
        .keys([
          ("count", .number(workers.count)), ("cpus", .list(workers.processors.map { .number($0) })),
          ("spin-us", .number(workers.spinMicroseconds)),
        ])
      ))
    keys.append(("vms", .list(configuration.vms.map(Self.vm))))
    keys.append(("rules", .list(configuration.rules.map { .text($0.text) })))
    keys.append(("log", .keys([("level", .word(log.level.rawValue)), ("format", .word(log.format.rawValue))])))
    tree = .keys(keys)
  }

  private static func kind(_ nic: Configuration.NIC) -> [(String, Tree)] {
    nic.kind == .sim ? [("kind", .word(nic.card))] : [("kind", .text("\(nic.kind)")), ("vfio", .word(nic.interface?.rawValue ?? "auto"))]
  }

  private static func vm(_ vm: Configuration.VM) -> Tree {
    var keys: [(String, Tree)] = [("name", .text(vm.name))]
    switch vm.endpoint {
    case .server(let socket):
      keys += [("socket", .text(socket.path)), ("mode", .word("server")), ("permissions", .keys(permissions(socket)))]
    case .client(let path): keys += [("socket", .text(path)), ("mode", .word("client"))]
    case .descriptor(let number): keys.append(("fd", .number(Int(number))))
    }
    if let address = vm.address { keys.append(("mac", .text(address.description))) }
    if let vlan = vm.vlan { keys += [("vlan", .number(Int(vlan))), ("vlan-port", .word(vm.effectivePort.rawValue))] }
    return .keys(
      keys + [
        ("spoof", .word(vm.spoof.rawValue)),
        ("queues", .number(vm.queuePairs)), ("packed", .flag(vm.offersPacked)), ("config", .flag(vm.offersConfig)),
        ("datapath", .word(vm.mode.name)), ("ring-size-limit", .number(vm.ringSizeLimit)),
        ("memory-limit", .number(Int(clamping: vm.memoryLimit))),
      ])
  }

  private static func permissions(_ socket: Configuration.Socket) -> [(String, Tree)] {
    let digits = String(socket.mode ?? 0o600, radix: 8)
    var keys: [(String, Tree)] = [("mode", .text(String(repeating: "0", count: max(0, 4 - digits.utf8.count)) + digits))]
    if let owner = socket.owner { keys.append(("owner", .text(owner))) }
    if let group = socket.group { keys.append(("group", .text(group))) }
    return keys
  }

  // MARK: YAML

  var yaml: String { Self.yaml(tree, indent: "") }

  private static func yaml(_ tree: Tree, indent: String) -> String {
    guard case .keys(let keys) = tree else { return indent + scalar(tree) + "\n" }
    return keys.map { name, value in
      switch value {
      case .keys: "\(indent)\(name):\n" + yaml(value, indent: indent + "  ")
      case .list(let items) where items.contains(where: { if case .keys = $0 { true } else { false } }):
        "\(indent)\(name):\n" + items.map { item in "\(indent)- " + yaml(item, indent: indent + "  ").dropFirst(indent.count + 2) }.joined()
      default: "\(indent)\(name): \(scalar(value))\n"
      }
    }.joined()
  }

  private static func scalar(_ tree: Tree) -> String {
    switch tree {
    case .text(let text): JSONString.quoted(text)
    case .word(let text): text
    case .flag(let flag): flag ? "on" : "off"
    case .number(let number): String(number)
    case .list(let items): "[" + items.map(scalar).joined(separator: ", ") + "]"
    case .keys: preconditionFailure("keys are no scalar")
    }
  }

  // MARK: JSON

  var json: String { Self.json(tree) }

  private static func json(_ tree: Tree) -> String {
    switch tree {
    case .keys(let keys): "{" + keys.map { "\(JSONString.quoted($0.0)):\(json($0.1))" }.joined(separator: ",") + "}"
    case .list(let items): "[" + items.map(json).joined(separator: ",") + "]"
    case .text(let text), .word(let text): JSONString.quoted(text)
    case .flag(let flag): flag ? "true" : "false"
    case .number(let number): String(number)
    }
  }
}

/// A text between quotes, as JSON has it and YAML takes it too.
enum JSONString {
  static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\t": result += "\\t"
      // Control characters, and those that end a line for some reader.
      case _ where scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) || scalar.value == 0x2028 || scalar.value == 0x2029:
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}
