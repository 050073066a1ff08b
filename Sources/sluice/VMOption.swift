import Control
import FlowSteering
import Replay
import Simulation

/// `--vm NAME[,key=value…]`: one virtual machine.
enum VMOption {
  static let keys = ["mac", "vlan", "queues", "buffers", "stall-after"]
  /// Shapes of buffers, as they are typed.
  static var shapes: [String] { BufferShape.allCases.map(\.rawValue) }

  /// - Parameter queues: where the option says nothing of them.
  static func parse(_ text: String, queues: Int = 1) throws(Failure) -> ReplayOptions.VM {
    let parts = text.split(separator: ",", omittingEmptySubsequences: false)
    let name = String(parts[0])
    guard !name.contains("=") else {
      throw .usage("--vm", text, "the name comes first: --vm NAME,\(text)")
    }
    guard Configuration.isName(name) else {
      throw .usage("--vm", text, "a name is 1 to 32 letters, digits, '.', '_' or '-'")
    }
    var vm = ReplayOptions.VM(name: name, queues: queues)
    var seen: Set<Substring> = []
    for part in parts.dropFirst() {
      let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard keys.contains(String(pair[0])) else {
        throw .usage("--vm", text, "no such key \"\(pair[0])\"; keys are \(keys.joined(separator: ", "))")
      }
      guard pair.count == 2, !pair[1].isEmpty else {
        throw .usage("--vm", text, "\(pair[0]) has no value; write \(example(of: pair[0]))")
      }
      guard seen.insert(pair[0]).inserted else { throw .usage("--vm", text, "\(pair[0]) is given twice") }
      do {
        try set(pair[0], to: pair[1], in: &vm)
      } catch {
        throw .usage("--vm", text, "\(pair[0])=\(pair[1]): \(error.reason)")
      }
    }
    return vm
  }

  private struct Refusal: Error { let reason: String }

  private static func set(
    _ key: Substring, to value: Substring, in vm: inout ReplayOptions.VM
  ) throws(Refusal) {
    switch key {
    case "mac":
      do { vm.address = try MACAddress(parsing: String(value)) } catch {
        throw Refusal(reason: "not an address; write it like 02:00:00:00:00:01")
      }
    case "vlan":
      guard let number = Quantity.count(value), (1...4094).contains(number) else {
        throw Refusal(reason: "must be from 1 to 4094")
      }
      vm.vlan = UInt16(number)
    case "queues":
      guard let number = queueCount(value) else { throw Refusal(reason: "must be 1, 2 or 4") }
      vm.queues = number
    case "buffers":
      try setBuffers(value, in: &vm)
    default:
      guard let number = Quantity.count(value) else {
        throw Refusal(reason: "must be a number of frames, 0 or more")
      }
      vm.stallsAfter = number
    }
  }

  /// `SHAPE` or `SHAPE:BYTES`.
  private static func setBuffers(_ value: Substring, in vm: inout ReplayOptions.VM) throws(Refusal) {
    let parts = value.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    guard let shape = BufferShape(rawValue: String(parts[0])) else {
      throw Refusal(reason: "no such shape \"\(parts[0])\"; shapes are \(shapes.joined(separator: ", "))")
    }
    vm.buffers = shape
    guard parts.count == 2 else { return }
    guard let bytes = Quantity.count(parts[1]), let count = Int(exactly: bytes), shape.byteCounts.contains(count) else {
      let range = shape.byteCounts
      throw Refusal(
        reason: "\(shape.rawValue) buffers have \(grouped(range.lowerBound)) to \(grouped(range.upperBound)) bytes, the 12 of the header with them")
    }
    vm.bufferBytes = count
  }

  static func queueCount(_ text: some StringProtocol) -> Int? {
    Quantity.count(text).flatMap { [1, 2, 4].contains($0) ? Int($0) : nil }
  }

  private static func example(of key: Substring) -> String {
    switch key {
    case "mac": "mac=02:00:00:00:00:01"
    case "vlan": "vlan=100"
    case "queues": "queues=2"
    case "buffers": "buffers=page"
    default: "stall-after=1000"
    }
  }
}
