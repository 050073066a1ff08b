import FlowSteering

/// Writes a rule for `ethtool -N`: one that looks at one IP version, with nothing beside number, match and target.
struct EthtoolWriter {
  let rule: Rule
  let context: DialectContext

  func line() throws(RuleError) -> String {
    if rule.group != 0 { throw rule.refusal(.priority, of: "group", "ethtool has no groups", fit: "group 0") }
    if rule.priority != Rule.usualPriority {
      throw rule.refusal(.priority, of: "prio", "ethtool's rules have no priority", fit: "prio \(Rule.usualPriority), which is every rule's that names none")
    }
    if let owner = rule.owner {
      throw rule.refusal(.fieldUnsupported, of: "for", "ethtool's rules see every VM's frames", fit: "leave \"for \(owner)\" out, or match its address")
    }
    if rule.counts { throw rule.refusal(.actionUnsupported, of: "count", "ethtool's rules do not count", fit: "leave it out") }
    let match = rule.match.canonical
    var words = ["ethtool -N \(context.device) flow-type"]
    words += match.looksAtIP ? try ip(match) : try ether(match)
    words += try tag(match)
    words += try action()
    if rule.id != 0 { words.append("loc \(rule.id)") }
    return words.joined(separator: " ")
  }

  private func ether(_ match: Match) throws(RuleError) -> [String] {
    var words = ["ether"]
    for pair in match.pairs {
      switch pair.field {
      case .ethernetSource: words.append(try option("src", pair))
      case .ethernetDestination: words.append(try option("dst", pair))
      case .etherType:
        if pair.pattern == .exactly(0x8100, in: .etherType) { throw rule.refusal(.etherType, "ethtool means the tag itself by 0x8100") }
        words.append(try option("proto", pair))
      case .vlanID, .vlanPriority: break
      default: throw unsupported(pair.field)
      }
    }
    return words
  }

  private func ip(_ match: Match) throws(RuleError) -> [String] {
    guard let version = match.ipVersion else {
      let field = match.pairs.first { !$0.field.isLayer2 && !$0.field.isFlexible }?.field ?? .ipProtocol
      throw rule.refusal(field, "an ethtool rule is for one IP version", fit: "two rules, with eth.type=ip and eth.type=ip6")
    }
    let transport = match.transport
    let suffix = version == .v4 ? "4" : "6"
    var words = [(transport.map { "\($0)" } ?? "ip") + suffix]
    for pair in match.pairs {
      switch pair.field {
      case .ethernetDestination: words.append(try option("dst-mac", pair))
      case .ethernetSource:
        throw rule.refusal(.ethernetSource, "ethtool looks at it in flow type ether alone, not along with IP", fit: "a rule without IP fields")
      // The flow type says it.
      case .etherType: break
      case .ipProtocol: if transport == nil { words.append(try option("l4proto", pair)) }
      case .vlanID, .vlanPriority: break
      case .ip4Source, .ip6Source: words.append(try option("src-ip", pair))
      case .ip4Destination, .ip6Destination: words.append(try option("dst-ip", pair))
      case .ipTOS: words.append(try option(version == .v4 ? "tos" : "tclass", pair))
      case .tcpSource, .udpSource, .sctpSource: words.append(try option("src-port", pair))
      case .tcpDestination, .udpDestination, .sctpDestination: words.append(try option("dst-port", pair))
      case .ipFragment, .tcpFlags, .flexible: throw unsupported(pair.field)
      }
    }
    return words
  }

  private func unsupported(_ field: Field) -> RuleError {
    rule.refusal(
      field, field.isFlexible ? "what ethtool's user-def means is each driver's own" : "ethtool has no such field",
      fit: "leave it out, or use testpmd or tc")
  }

  private func option(_ name: String, _ pair: Match.Pair) throws(RuleError) -> String {
    switch pair.pattern {
    case .absent: throw rule.refusal(pair.field, "ethtool cannot ask for the absence of a tag")
    case .range(let range):
      let parts = Match.prefixes(of: range).map { Match.Pair(pair.field, $0).text }
      throw rule.refusal(
        pair.field, "ethtool has no ranges",
        fit: parts.count == 1 ? "\(pair.field.name)=\(parts[0])" : "\(parts.count) rules with masks, the first with \(pair.field.name)=\(parts[0])")
    case .bits(let value, let mask):
      let text = "\(name) \(Number.text(value, of: pair.field))"
      return mask == pair.field.fullMask ? text : text + " m \(Number.maskText(pair.field.fullMask & ~mask, of: pair.field))"
    }
  }

  private func tag(_ match: Match) throws(RuleError) -> [String] {
    var (value, mask): (UInt128, UInt128) = (0, 0)
    var isThere = false
    for pair in match.pairs where pair.field == .vlanID || pair.field == .vlanPriority {
      guard case .bits(let bits, let under) = pair.pattern else {
        throw rule.refusal(pair.field, "ethtool cannot ask for frames without a tag", fit: "leave it out")
      }
      isThere = true
      let shift: UInt128 = pair.field == .vlanPriority ? 13 : 0
      value |= bits << shift
      mask |= under << shift
    }
    return isThere ? ["vlan \(value) m \(Number.hexadecimal(0xFFFF & ~mask))"] : []
  }

  private func action() throws(RuleError) -> [String] {
    switch rule.decision {
    case .drop: return ["action -1"]
    case .queue(let queue): return ["action \(queue)"]
    case .host: throw rule.refusal(.actionUnsupported, of: "host", "ethtool can only name queues and VFs", fit: "queue, vm or drop")
    case .deliver(let targets):
      guard targets.count == 1 else {
        throw rule.refusal(.actionUnsupported, of: "vm", "an ethtool rule has one target, not \(targets.count)", fit: "use tc")
      }
      let number = try context.number(of: targets[0].vm, in: rule)
      return ["vf \(number)"] + (targets[0].queue.map { ["queue \($0)"] } ?? [])
    }
  }
}
