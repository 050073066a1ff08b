import Control
import Datapath
import FlowSteering

/// `--vm NAME,socket=PATH[,key=value…]`: one virtual machine, and where its front-end is met.
enum BackendOption {
  static let keys = ["socket", "server", "client", "mac", "vlan", "vlan-port", "spoof", "queues", "packed", "config", "datapath", "ring-size-limit", "memory-limit"]

  static func parse(_ text: String) throws(Failure) -> Configuration.VM {
    let parts = text.split(separator: ",", omittingEmptySubsequences: false)
    let name = String(parts[0])
    guard !name.contains("=") else { throw .usage("--vm", text, "the name comes first: --vm NAME,\(text)") }
    var vm = Configuration.VM(name: name, endpoint: .client(path: ""))
    var path: String?
    var isClient = false
    var seen: Set<Substring> = []
    for part in parts.dropFirst() {
      let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let key = pair[0]
      guard keys.contains(String(key)) else {
        throw .usage("--vm", text, "no such key \"\(key)\"; keys are \(keys.joined(separator: ", "))")
      }
      // One of the two, once.
      let isSide = key == "server" || key == "client"
      guard seen.insert(isSide ? "server or client" : key).inserted else {
        throw .usage("--vm", text, "\(isSide ? "server or client" : String(key)) is given twice")
      }
      if isSide {
        guard pair.count == 1 else { throw .usage("--vm", text, "\(key) takes no value") }
        isClient = key == "client"
        continue
      }
      guard pair.count == 2, !pair[1].isEmpty else {
        throw .usage("--vm", text, "\(key) has no value; write \(example(of: key))")
      }
      if key == "socket" {
        path = String(pair[1])
        continue
      }
      do { try set(key, to: pair[1], in: &vm) } catch { throw .usage("--vm", text, "\(key)=\(pair[1]): \(error.reason)") }
    }
    guard let path else { throw .usage("--vm", text, "socket is missing; write \(example(of: "socket"))") }
    vm.endpoint = isClient ? .client(path: path) : .server(Configuration.Socket(path: path))
    return vm
  }

  private struct Refusal: Error { let reason: String }

  private static func set(_ key: Substring, to value: Substring, in vm: inout Configuration.VM) throws(Refusal) {
    switch key {
    case "mac":
      do { vm.address = try MACAddress(parsing: value) } catch { throw Refusal(reason: "not an address; write it like 02:00:00:00:00:01") }
    case "vlan":
      guard let number = Quantity.count(value), (1...4094).contains(number) else { throw Refusal(reason: "must be from 1 to 4094") }
      vm.vlan = UInt16(number)
    case "vlan-port":
      guard let port = VLANPort(rawValue: String(value)) else { throw Refusal(reason: "must be access or tagged") }
      vm.vlanPort = port
    case "spoof":
      guard let spoof = Configuration.VM.Spoofing(rawValue: String(value)) else { throw Refusal(reason: "must be deny or allow") }
      vm.spoof = spoof
    case "queues":
      guard let number = VMOption.queueCount(value) else { throw Refusal(reason: "must be 1, 2 or 4") }
      vm.queuePairs = number
    case "packed": vm.offersPacked = try flag(value)
    case "config": vm.offersConfig = try flag(value)
    case "ring-size-limit":
      guard let number = Quantity.count(value), (1...32768).contains(number) else { throw Refusal(reason: "must be from 1 to 32768") }
      vm.ringSizeLimit = Int(number)
    case "memory-limit":
      guard let number = Quantity.count(value), number >= 1 << 20, number <= Int64.max else {
        throw Refusal(reason: "must be a number of bytes, 1Mi or more")
      }
      vm.memoryLimit = number
    default:
      guard let mode = PathMode(name: String(value)) else {
        throw Refusal(reason: "no such mode; modes are \(PathMode.allCases.map(\.name).joined(separator: ", "))")
      }
      vm.mode = mode
    }
  }

  private static func flag(_ value: Substring) throws(Refusal) -> Bool {
    guard let flag = Words.flag(value) else { throw Refusal(reason: "must be on or off") }
    return flag
  }

  private static func example(of key: Substring) -> String {
    switch key {
    case "socket": "socket=/run/sluice/web.sock"
    case "mac": "mac=02:00:00:00:00:01"
    case "vlan": "vlan=100"
    case "vlan-port": "vlan-port=tagged"
    case "spoof": "spoof=allow"
    case "queues": "queues=2"
    case "datapath": "datapath=required"
    case "ring-size-limit": "ring-size-limit=1024"
    case "memory-limit": "memory-limit=64Gi"
    default: "\(key)=on"
    }
  }
}
