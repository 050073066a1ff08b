import FlowSteering

/// A way to write flow rules.
public enum Dialect: String, Hashable, Sendable, CaseIterable {
  /// This project's own text.
  case native
  /// `ethtool -N DEV flow-type ...`, of the kernel's RX classification.
  case ethtool
  /// `flow create PORT ...`, of DPDK's testpmd.
  case testpmd
  /// `tc filter add dev DEV ingress ... flower ...`.
  case tc

  /// The dialect of a line, by how it starts; what starts like no other is native.
  public init(of line: some StringProtocol) {
    var words = Words(String(line))
    words.skipPrompt()
    switch words.peek?.text {
    case "ethtool", "flow-type", "delete": self = .ethtool
    case "testpmd>", "flow": self = .testpmd
    case "tc", "filter": self = .tc
    default: self = .native
    }
  }
}

/// What foreign names and numbers stand for.
///
/// A line is read for whatever device or port it names; these two are for writing.
public struct DialectContext: Hashable, Sendable {
  /// The network device that carries the port.
  public var device: String
  /// The port's number in testpmd.
  public var port: Int
  /// The VMs: the n-th, from 0, is ethtool's `vf n` and testpmd's `vf id n`. For tc a VM's name is that of its
  /// representor device.
  public var vms: [String]

  public init(device: String = "eth0", port: Int = 0, vms: [String] = []) {
    self.device = device
    self.port = port
    self.vms = vms
  }

  private var list: String {
    vms.isEmpty ? "there is none" : vms.count == 1 ? "there is 1: \(vms[0])" : "there are \(vms.count): \(vms.joined(separator: ", "))"
  }

  func vm(_ number: UInt64, at column: Int) throws(RuleError) -> String {
    guard number < vms.count else {
      throw RuleError(.noSuchVM, "no VM has the number \(number), counted from 0; \(list)", column: column)
    }
    return vms[Int(number)]
  }
  func vm(named name: Substring, at column: Int) throws(RuleError) -> String {
    guard let vm = vms.first(where: { $0 == name }) else {
      throw RuleError(.noSuchVM, "no VM is called \(name); \(list)", column: column)
    }
    return vm
  }
  func number(of vm: String, in rule: Rule) throws(RuleError) -> Int {
    guard let number = vms.firstIndex(of: vm) else {
      throw RuleError(.noSuchVM, "no VM is called \(vm); \(list)", rule: rule.label)
    }
    return number
  }
}
