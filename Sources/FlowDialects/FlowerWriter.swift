import FlowSteering

/// Writes a rule for `tc filter add ... flower`, for the card alone.
struct FlowerWriter {
  let rule: Rule
  let context: DialectContext

  func line() throws(RuleError) -> String {
    if rule.priority == 0 { throw rule.refusal(.priority, of: "prio", "0 lets the kernel choose", fit: "prio 1 is the first that can be given") }
    let match = rule.match.canonical
    var device = context.device
    if let owner = rule.owner {
      _ = try context.number(of: owner, in: rule)
      device = owner
    } else if context.vms.contains(device) {
      throw rule.refusal(.fieldUnsupported, of: "for", "device \(device) is called like a VM, so that the rule would be for that VM alone", fit: "another name for the VM")
    }
    let isTagged = match.pairs.contains { $0.field == .vlanID && $0.pattern != .absent || $0.field == .vlanPriority }
    let type = try self.type(match)
    var words = ["tc filter add dev \(device) ingress"]
    if isTagged { words.append("protocol 802.1Q") } else {
      if type == 0x8100 { throw rule.refusal(.etherType, "tc means the tag itself by 802.1Q", fit: "vlan.id=0/0 for frames with any tag") }
      words.append("protocol \(type.map { name($0) } ?? "all")")
    }
    if rule.group != 0 { words.append("chain \(rule.group)") }
    words.append("pref \(rule.priority)")
    if rule.id != 0 { words.append("handle \(rule.id)") }
    words.append("flower skip_sw")
    words += try keys(match, isTagged ? type : nil)
    words += try actions()
    return words.joined(separator: " ")
  }

  private func name(_ type: UInt16, isInner: Bool = false) -> String {
    switch type {
    case 0x0800: isInner ? "ipv4" : "ip"
    case 0x86DD: "ipv6"
    case 0x0806: "arp"
    default: Number.hexadecimal(UInt128(type))
    }
  }

  /// The type behind the tag, from an address if need be.
  private func type(_ match: Match) throws(RuleError) -> UInt16? {
    if let version = match.ipVersion { return version.etherType }
    guard let pattern = match[.etherType] else { return nil }
    guard case .bits(let value, mask: 0xFFFF) = pattern else { throw rule.refusal(.etherType, "tc has no mask for it", fit: "one type a rule") }
    // Not a type: the kernel's word for all of them.
    if value == 3 { throw rule.refusal(.etherType, "tc takes 3 for any protocol") }
    return UInt16(value)
  }

  private func keys(_ match: Match, _ innerType: UInt16?) throws(RuleError) -> [String] {
    var words: [String] = []
    if match.ipVersion == nil, let pair = match.pairs.first(where: { !$0.field.isLayer2 && !$0.field.isFlexible }) {
      throw rule.refusal(pair.field, "a rule of tc is for one IP version", fit: "two rules, with eth.type=ip and eth.type=ip6")
    }
    for pair in match.pairs {
      switch (pair.field, pair.pattern) {
      case (.ethernetDestination, _): words.append(try address("dst_mac", pair))
      case (.ethernetSource, _): words.append(try address("src_mac", pair))
      case (.vlanID, .absent): words.append("num_of_vlans 0")
      // The protocol says it.
      case (.vlanID, .bits(_, mask: 0)): break
      case (.vlanID, _): words.append(try exact("vlan_id", pair))
      case (.vlanPriority, _): words.append(try exact("vlan_prio", pair))
      default: break
      }
    }
    if let innerType { words.append("vlan_ethtype \(name(innerType, isInner: true))") }
    if let transport = match.transport { words.append("ip_proto \(transport)") }
    for pair in match.pairs {
      switch pair.field {
      case .ipProtocol where match.transport == nil:
        switch pair.pattern {
        case .exactly(1, in: .ipProtocol) where match.ipVersion == .v4: words.append("ip_proto icmp")
        case .exactly(58, in: .ipProtocol) where match.ipVersion == .v6: words.append("ip_proto icmpv6")
        case .bits(let value, mask: 0xFF): words.append("ip_proto \(Number.hexadecimal(value))")
        default: throw rule.refusal(.ipProtocol, "tc has no mask for it", fit: "one protocol a rule")
        }
      case .ip4Source, .ip6Source: words.append(try prefix("src_ip", pair))
      case .ip4Destination, .ip6Destination: words.append(try prefix("dst_ip", pair))
      case .ipTOS: words.append(masked("ip_tos", pair))
      case .ipFragment: words.append("ip_flags \(try fragment(pair.pattern))")
      case .tcpSource, .udpSource, .sctpSource: words.append(masked("src_port", pair))
      case .tcpDestination, .udpDestination, .sctpDestination: words.append(masked("dst_port", pair))
      case .tcpFlags: words.append(masked("tcp_flags", pair))
      case .flexible: throw rule.refusal(pair.field, "flower does not look at bytes", fit: "leave it out, or use testpmd")
      default: break
      }
    }
    return words
  }

  private func exact(_ name: String, _ pair: Match.Pair) throws(RuleError) -> String {
    guard case .bits(let value, let mask) = pair.pattern, mask == pair.field.fullMask else {
      throw rule.refusal(pair.field, "tc has no mask for it", fit: "one value a rule")
    }
    return "\(name) \(value)"
  }
  private func address(_ name: String, _ pair: Match.Pair) throws(RuleError) -> String {
    guard case .bits(let value, let mask) = pair.pattern else { throw rule.refusal(pair.field, "it has a range") }
    return "\(name) \(Number.text(value, of: pair.field))" + (mask == pair.field.fullMask ? "" : "/\(Number.maskText(mask, of: pair.field))")
  }
  private func prefix(_ name: String, _ pair: Match.Pair) throws(RuleError) -> String {
    guard case .bits(let value, let mask) = pair.pattern, let length = Prefix.length(mask, width: pair.field.width) else {
      throw rule.refusal(pair.field, "tc takes prefixes of addresses only", fit: "a mask whose ones all come first")
    }
    return "\(name) \(Number.text(value, of: pair.field))" + (length == pair.field.width ? "" : "/\(length)")
  }
  private func masked(_ name: String, _ pair: Match.Pair) -> String {
    switch pair.pattern {
    case .bits(let value, let mask):
      "\(name) \(Number.text(value, of: pair.field))" + (mask == pair.field.fullMask ? "" : "/\(Number.hexadecimal(mask))")
    case .range(let range): "\(name) \(range.lowerBound)-\(range.upperBound)"
    case .absent: name
    }
  }
  private func fragment(_ pattern: Pattern) throws(RuleError) -> String {
    switch pattern {
    case .bits(0, mask: 3): "nofrag"
    case .bits(1, mask: 1): "frag"
    case .bits(1, mask: 3): "frag/firstfrag"
    case .bits(3, mask: 3): "frag/nofirstfrag"
    default: throw rule.refusal(.ipFragment, "tc cannot say this", fit: "no, yes, first or later")
    }
  }

  private func actions() throws(RuleError) -> [String] {
    var words: [String] = []
    switch rule.decision {
    case .drop: words = ["action drop"]
    case .host: words = ["action trap"]
    case .queue(let queue): words = ["action skbedit queue_mapping \(queue)"]
    case .deliver(let targets):
      var queue: Int?
      for (index, target) in targets.enumerated() {
        _ = try context.number(of: target.vm, in: rule)
        if let wanted = target.queue, wanted != queue { words.append("action skbedit queue_mapping \(wanted)") }
        if target.queue == nil, let queue {
          throw rule.refusal(
            .actionUnsupported, of: "vm", "\(target.vm) would get the frame in queue \(queue) too: what skbedit sets stays",
            fit: "name \(target.vm) first, or a queue of it")
        }
        queue = target.queue
        words.append("action mirred egress \(index == targets.count - 1 ? "redirect" : "mirror") dev \(target.vm)")
      }
    }
    if rule.counts, let last = words.indices.last { words[last] += " hw_stats immediate" }
    return words
  }
}
