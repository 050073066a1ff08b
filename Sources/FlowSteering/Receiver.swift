/// A VM as steering knows it.
public struct Receiver: Hashable, Sendable {
  public var name: String
  /// Its receive queues, numbered from 0.
  public var queueCount: Int
  /// Its own address; with it, it also gets broadcast and multicast frames. Nil: only what rules give it, or
  /// everything if it is the port's only VM.
  public var address: MACAddress?
  /// Its VLAN. Nil: frames without a tag, and those with any tag if no VM names a VLAN.
  public var vlan: UInt16?
  /// True if it may send under its own address only, and into its own VLAN only; what it has none of is not checked.
  public var checksSource = false
  /// How its VLAN's frames look to it.
  public var port = VLANPort.tagged

  public init(name: String, queueCount: Int = 1, address: MACAddress? = nil, vlan: UInt16? = nil) {
    self.name = name
    self.queueCount = queueCount
    self.address = address
    self.vlan = vlan
  }

  /// The only source address that it may send; nil if it may send any.
  public var sourceAddress: MACAddress? { checksSource ? address : nil }
  /// The only VLAN that it may send into; nil if it may send into any, and without a tag.
  public var sourceVLAN: UInt16? { checksSource ? vlan : nil }
  /// The VLAN of an access port; nil if it is none.
  public var accessVLAN: UInt16? { port == .access ? vlan : nil }

  /// The rules that follow from addresses and VLANs: they come after all others.
  ///
  /// A priority tag (VLAN 0) counts as none.
  public static func rules(for receivers: [Receiver]) -> [Rule] {
    if receivers.count == 1 && receivers[0].address == nil {
      var rule = Rule(match: Match(), decision: .deliver([Rule.Target(receivers[0].name)]))
      rule.origin = .vm
      return [rule]
    }
    let someNameVLAN = receivers.contains { $0.vlan != nil }
    var rules: [Rule] = []
    func add(_ pairs: [Match.Pair], _ names: [String], rank: Int) {
      var rule = Rule(match: Match(pairs), decision: .deliver(names.map { Rule.Target($0) }))
      rule.origin = .vm
      // Of equal rank none overlap.
      rule.priority = rank
      rules.append(rule)
    }
    func tags(_ vlan: UInt16?) -> [[Match.Pair]] {
      if let vlan { return [[Match.Pair(.vlanID, .exactly(vlan, in: .vlanID))]] }
      if !someNameVLAN { return [[]] }
      return [[Match.Pair(.vlanID, .absent)], [Match.Pair(.vlanID, .exactly(0, in: .vlanID))]]
    }
    for receiver in receivers {
      guard let address = receiver.address else { continue }
      for tag in tags(receiver.vlan) {
        add([Match.Pair(.ethernetDestination, .exactly(address.rawValue, in: .ethernetDestination))] + tag, [receiver.name], rank: 0)
      }
    }
    var vlans: [UInt16?] = []
    for receiver in receivers where receiver.address != nil && !vlans.contains(receiver.vlan) { vlans.append(receiver.vlan) }
    for vlan in vlans {
      let names = receivers.filter { $0.address != nil && $0.vlan == vlan }.map(\.name)
      for tag in tags(vlan) { add([Match.Pair(.ethernetDestination, .bits(1 << 40, mask: 1 << 40))] + tag, names, rank: 1) }
    }
    return rules
  }
}

/// How the frames of a VM's VLAN look to the VM.
public enum VLANPort: String, CaseIterable, Hashable, Sendable {
  /// Without a tag: the NIC takes it off what the VM receives, and puts it into what the VM sends. IEEE 802.1Q has such a port
  /// as an untagged member with this VLAN as its PVID.
  case access
  /// With their tag, both ways.
  case tagged
}
