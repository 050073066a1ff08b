import FlowSteering

/// Writes a rule for testpmd's `flow create`.
struct TestpmdWriter {
  let rule: Rule
  let context: DialectContext

  func line() throws(RuleError) -> String {
    let match = rule.match.canonical
    var words = ["flow create \(context.port)"]
    if rule.group != 0 { words.append("group \(rule.group)") }
    words.append("priority \(rule.priority)")
    if rule.id != 0 { words.append("user_id \(rule.id)") }
    words.append("ingress pattern")
    var items: [String] = []
    if let owner = rule.owner { items.append("represented_port ethdev_port_id is \(try context.number(of: owner, in: rule))") }
    let tag = match.pairs.filter { $0.field == .vlanID && $0.pattern != .absent || $0.field == .vlanPriority }
    items.append(try ethernet(match, hasTag: !tag.isEmpty))
    if !tag.isEmpty { items.append(try self.tag(match, tag)) }
    items += try ip(match)
    for pair in match.pairs {
      guard case .flexible(let offset) = pair.field, case .bits(let value, let mask) = pair.pattern else { continue }
      let pattern = mask == 0xFFFF ? "pattern_hex is \(bytes(value))" : "pattern_hex spec \(bytes(value)) pattern_hex mask \(bytes(mask))"
      items.append("raw relative is 0 search is 0 offset is \(offset) limit is 0 \(pattern)")
    }
    words += items.map { $0 + " /" }
    words.append("end actions")
    words += try actions().map { $0 + " /" }
    words.append("end")
    return words.joined(separator: " ")
  }

  private func bytes(_ value: UInt128) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 4 - digits.utf8.count) + digits
  }

  /// Whether an item of IP says the type.
  private func isImplied(_ pattern: Pattern) -> Bool { IPVersion.allCases.contains { pattern == .exactly($0.etherType, in: .etherType) } }

  private func ethernet(_ match: Match, hasTag: Bool) throws(RuleError) -> String {
    var words = ["eth"]
    for pair in match.pairs {
      switch pair.field {
      case .ethernetDestination: words.append(try field("dst", pair))
      case .ethernetSource: words.append(try field("src", pair))
      case .etherType where !hasTag && !isImplied(pair.pattern):
        if pair.pattern == .exactly(0x8100, in: .etherType) {
          throw rule.refusal(.etherType, "without a vlan item testpmd means the tag itself by 0x8100", fit: "vlan.id=0/0 for frames with any tag")
        }
        words.append(try field("type", pair))
      case .vlanID where pair.pattern == .absent: words.append("has_vlan is 0")
      default: break
      }
    }
    return words.joined(separator: " ")
  }

  private func tag(_ match: Match, _ tag: [Match.Pair]) throws(RuleError) -> String {
    var words = ["vlan"]
    for pair in tag where pair.pattern != .bits(0, mask: 0) { words.append(try field(pair.field == .vlanID ? "vid" : "pcp", pair)) }
    if let pattern = match[.etherType], !isImplied(pattern) { words.append(try field("inner_type", Match.Pair(.etherType, pattern))) }
    return words.joined(separator: " ")
  }

  private func ip(_ match: Match) throws(RuleError) -> [String] {
    guard let version = match.ipVersion else { return try unversioned(match) }
    var words = [version == .v4 ? "ipv4" : "ipv6"]
    let transport = match.transport
    for pair in match.pairs {
      switch pair.field {
      case .ip4Source, .ip6Source: words.append(try field("src", pair))
      case .ip4Destination, .ip6Destination: words.append(try field("dst", pair))
      case .ipProtocol where transport == nil: words.append(try field("proto", pair))
      case .ipTOS: words.append(try field(version == .v4 ? "tos" : "tc", pair))
      case .ipFragment: words.append(try fragment(pair.pattern, version))
      default: break
      }
    }
    return [words.joined(separator: " ")] + (try transport.map { (transport) throws(RuleError) in [try ports(match, transport)] } ?? [])
  }

  /// With either version of IP, or none.
  private func unversioned(_ match: Match) throws(RuleError) -> [String] {
    for pair in match.pairs where pair.field == .ipTOS || pair.field == .ipFragment {
      throw rule.refusal(pair.field, "testpmd has it in the items of one IP version", fit: "two rules, with eth.type=ip and eth.type=ip6")
    }
    if let transport = match.transport { return ["any num is 1", try ports(match, transport)] }
    switch match[.ipProtocol] {
    case nil: return []
    case .bits(1, mask: 0xFF): return ["any num is 1", "icmp"]
    case .bits(58, mask: 0xFF): return ["any num is 1", "icmp6"]
    default: throw rule.refusal(.ipProtocol, "testpmd has it in the items of one IP version", fit: "two rules, with eth.type=ip and eth.type=ip6")
    }
  }

  private func fragment(_ pattern: Pattern, _ version: IPVersion) throws(RuleError) -> String {
    if version == .v4 {
      func text(_ spec: String, _ last: String?, _ mask: String) -> String {
        "fragment_offset spec \(spec)" + (last.map { " fragment_offset last \($0)" } ?? "") + " fragment_offset mask \(mask)"
      }
      switch pattern {
      case .bits(0, mask: 3): return text("0", nil, "0x3fff")
      case .bits(1, mask: 3): return text("0x2000", nil, "0x3fff")
      case .bits(1, mask: 1): return text("1", "0x3fff", "0x3fff")
      case .bits(3, mask: 3): return text("1", "0x1fff", "0x1fff")
      default: break
      }
    }
    switch pattern {
    case .bits(0, mask: 3): return "has_frag_ext is 0"
    case .bits(1, mask: 1): return "has_frag_ext is 1"
    default: throw rule.refusal(.ipFragment, "testpmd cannot tell IPv6 fragments apart", fit: "ip.frag=yes or ip.frag=no")
    }
  }

  private func ports(_ match: Match, _ transport: Transport) throws(RuleError) -> String {
    var words = ["\(transport)"]
    for pair in match.pairs {
      switch pair.field {
      case transport.source: words.append(try field("src", pair))
      case transport.destination: words.append(try field("dst", pair))
      case .tcpFlags:
        guard case .bits(let value, let mask) = pair.pattern, mask <= 0xFF else {
          throw rule.refusal(
            .tcpFlags, "testpmd looks at the lower 8 flags", fit: "a mask of those that matter, such as tcp.flags=syn/syn+ack")
        }
        words.append(mask == 0xFF ? "flags is \(Number.hexadecimal(value))" : try field("flags", pair))
      default: break
      }
    }
    return words.joined(separator: " ")
  }

  private func field(_ name: String, _ pair: Match.Pair) throws(RuleError) -> String {
    switch pair.pattern {
    case .absent: throw rule.refusal(pair.field, "testpmd cannot ask for its absence")
    case .range(let range): return "\(name) spec \(range.lowerBound) \(name) last \(range.upperBound) \(name) mask 0xffff"
    case .bits(let value, let mask):
      let text = Number.text(value, of: pair.field)
      if mask == pair.field.fullMask { return "\(name) is \(text)" }
      return "\(name) spec \(text) \(name) mask \(Number.maskText(mask, of: pair.field))"
    }
  }

  private func actions() throws(RuleError) -> [String] {
    let count = rule.counts ? ["count"] : []
    switch rule.decision {
    case .drop: return count + ["drop"]
    case .host: return count + ["pf"]
    case .queue(let queue): return count + ["queue index \(queue)"]
    case .deliver(let targets):
      guard targets.count == 1 else {
        throw rule.refusal(.actionUnsupported, of: "vm", "a rule of testpmd has one target, not \(targets.count)", fit: "use tc")
      }
      let number = try context.number(of: targets[0].vm, in: rule)
      return count + ["vf id \(number)"] + (targets[0].queue.map { ["queue index \($0)"] } ?? [])
    }
  }
}
