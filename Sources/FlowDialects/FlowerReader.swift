import FlowSteering

/// Rules of `tc filter ... flower`, on what a port receives.
///
/// - `chain` is the group, `pref` the priority, `handle` the number. Without `pref`, or with 0, a filter gets 49152, which
///   the kernel starts from.
/// - `protocol` is the type behind a tag as well, unless it is 802.1Q: then a tag must be there, and `vlan_ethtype` is
///   the type behind it.
/// - On the device of a VM a rule is for that VM's frames; any other device is the port's.
/// - Words may be cut short as tc takes them. As in tc, `ip_proto`'s numbers and `tcp_flags` are hexadecimal.
/// - `hw_stats immediate` and `delayed` count; without it the card may do as it likes, and nothing is counted here.
/// - A queue that skbedit sets holds for all targets behind it. All targets but the last are `mirror`.
struct FlowerReader {
  var words: Words
  let context: DialectContext
  private var match = Match()
  private var rule = Rule(priority: Self.firstPriority, match: Match(), decision: .drop)
  private var hasPriority = false
  private var hasChain = false
  private var isIngress = false
  private var type: (value: UInt16, word: Words.Word)?
  private var innerType: (value: UInt16, word: Words.Word)?
  private var number: (value: UInt8, word: Words.Word)?
  private var later: [(name: String, value: Words.Word, word: Words.Word)] = []

  /// What the kernel gives to the first filter without one.
  static let firstPriority = 0xC000
  static let types: [String: UInt16] = [
    "all": 3, "ip": 0x0800, "ipv4": 0x0800, "ipv6": 0x86DD, "arp": 0x0806, "rarp": 0x8035, "802.1q": 0x8100, "802.1ad": 0x88A8,
    "mpls_uc": 0x8847, "mpls_mc": 0x8848, "ppp_disc": 0x8863, "ppp_ses": 0x8864, "aoe": 0x88A2, "lldp": 0x88CC, "tipc": 0x88CA,
  ]

  init(words: Words, context: DialectContext) {
    self.words = words
    self.context = context
  }

  /// Whether a word is a keyword, or its beginning.
  private static func matches(_ word: Substring, _ keyword: String) -> Bool { !word.isEmpty && keyword.hasPrefix(word) }

  mutating func command() throws(RuleError) -> RuleCommand {
    _ = words.takeIf("tc")
    guard let filter = words.peek, Self.matches(filter.text, "filter") else { throw words.failure("\"filter\" should stand here", at: words.peek) }
    words.skip()
    let verb = try words.take("add, replace or del")
    if Self.matches(verb.text, "add") || Self.matches(verb.text, "replace") { return .add(try filterRule()) }
    guard Self.matches(verb.text, "delete") else {
      throw words.failure("no command \"filter \(verb.text)\" here; there are add, replace and del", at: verb)
    }
    try place()
    if words.takeIf("flower") { try words.expectEnd() }
    try words.expectEnd()
    guard isIngress else { throw words.failure("\"ingress\" should stand here", at: nil) }
    if rule.id != 0 { return .delete(id: rule.id) }
    guard !hasPriority, !hasChain, type == nil else {
      throw words.failure("a rule is deleted by its handle", at: nil, fit: "handle N; with no pref, protocol and chain all rules go")
    }
    return .flush(vm: rule.owner)
  }

  // MARK: The place of a filter

  private mutating func place() throws(RuleError) {
    var seen: Set<String> = []
    while let word = words.peek {
      func once(_ name: String) throws(RuleError) {
        guard seen.insert(name).inserted else { throw words.failure("\(name) is given twice", at: word) }
      }
      switch word.text {
      case "dev":
        try once("dev")
        words.skip()
        let name = try words.take("a device")
        if context.vms.contains(where: { $0 == name.text }) { rule.owner = String(name.text) }
      case "ingress":
        try once("ingress")
        words.skip()
        isIngress = true
      case "parent":
        try once("ingress")
        words.skip()
        let parent = try words.take("ffff:")
        guard ["ffff:", "ffff:0", "ffff:fff2"].contains(parent.text.lowercased()) else {
          throw words.refusal(.actionUnsupported, of: "parent", "rules are for frames that the port receives", at: parent, fit: "ingress, or parent ffff:")
        }
        isIngress = true
      case "egress", "root", "block":
        throw words.refusal(.actionUnsupported, of: String(word.text), "rules are for frames that a port receives", at: word, fit: "dev NAME ingress")
      case "handle":
        try once("handle")
        words.skip()
        rule.id = try words.id("handle")
      case _ where Self.matches(word.text, "preference") || Self.matches(word.text, "priority"):
        try once("pref")
        words.skip()
        let priority = try words.number("pref", to: UInt64(Rule.priorities.upperBound))
        hasPriority = true
        if priority != 0 { rule.priority = Int(priority) }
      case _ where Self.matches(word.text, "protocol"):
        try once("protocol")
        words.skip()
        let value = try words.take("a protocol")
        type = (try etherType(value), value)
      case _ where Self.matches(word.text, "chain"):
        try once("chain")
        words.skip()
        rule.group = Int(try words.number("chain", to: UInt64(Rule.groups.upperBound)))
        hasChain = true
      default: return
      }
    }
  }

  private func etherType(_ word: Words.Word) throws(RuleError) -> UInt16 {
    if let known = Self.types[word.text.lowercased()] { return known }
    guard let number = Number.parse(word.text), number <= 0xFFFF else {
      throw words.failure("\"\(word.text)\" is no protocol: ip, ipv6, arp, 802.1Q, all, or a number such as 0x88cc", at: word)
    }
    return UInt16(number)
  }

  // MARK: A rule

  private mutating func filterRule() throws(RuleError) -> Rule {
    try place()
    let kind = try words.take("flower")
    guard kind.text == "flower" else { throw words.failure("\"\(kind.text)\" is no filter that is known here: flower", at: kind) }
    guard isIngress else { throw words.failure("\"ingress\" should stand before flower", at: kind) }
    if let type, type.value != 3, type.value != 0x8100 { try insert(Match.Pair(.etherType, .exactly(type.value, in: .etherType)), at: type.word) }
    var isDone = false
    while let word = words.peek, !isDone {
      isDone = Self.matches(word.text, "action") && !Self.keys.contains { Self.matches(word.text, $0) }
      if !isDone { try key() }
    }
    if type?.value == 0x8100 && match[.vlanID] == .absent { throw words.failure("protocol 802.1Q asks for a tag, num_of_vlans 0 for none", at: type?.word) }
    if type?.value == 0x8100 && match[.vlanID] == nil && match[.vlanPriority] == nil, let type { try insert(Match.Pair(.vlanID, .bits(0, mask: 0)), at: type.word) }
    try resolve()
    guard isDone else { throw words.failure("\"action\" should stand here", at: nil) }
    do throws(Match.Conflict) { rule.match = try match.completed(nil, number.flatMap { Transport(number: $0.value) }) } catch {
      throw words.failure("no frame can match both ip_proto and what is said of \(error.field.name)", at: number?.word)
    }
    try actions()
    return rule
  }

  /// In the order in which tc compares what is cut short.
  private static let keys = [
    "classid", "flowid", "hw_tc", "ip_flags", "verbose", "skip_hw", "skip_sw", "ct_state", "ct_zone", "ct_mark", "ct_label", "indev",
    "vlan_id", "vlan_prio", "vlan_ethtype", "cvlan_id", "cvlan_prio", "cvlan_ethtype", "mpls", "mpls_label", "mpls_tc", "mpls_bos",
    "mpls_ttl", "dst_mac", "src_mac", "ip_proto", "ip_tos", "ip_ttl", "dst_ip", "src_ip", "dst_port", "src_port", "tcp_flags", "type", "code",
    "arp_tip", "arp_sip", "arp_op", "arp_tha", "arp_sha", "enc_dst_ip", "enc_src_ip", "enc_key_id", "enc_dst_port", "enc_tos", "enc_ttl",
    "geneve_opts", "vxlan_opts", "erspan_opts", "in_hw", "not_in_hw", "num_of_vlans",
  ]

  private mutating func key() throws(RuleError) {
    let word = try words.take("a key")
    guard let name = Self.keys.first(where: { Self.matches(word.text, $0) }) else {
      throw words.failure("flower has no key \"\(word.text)\" that is known here", at: word)
    }
    switch name {
    case "verbose", "skip_sw", "in_hw", "not_in_hw": return
    case "skip_hw": throw words.refusal(.actionUnsupported, of: name, "it asks the processor to do it, and rules are the card's", at: word, fit: "skip_sw, or neither")
    case "hw_tc": throw words.refusal(.actionUnsupported, of: name, "it names a traffic class, not a queue", at: word, fit: "action skbedit queue_mapping N")
    case "classid", "flowid": throw words.refusal(.actionUnsupported, of: name, "there are no classes", at: word, fit: "action skbedit queue_mapping N")
    default: break
    }
    let value = try words.take("a value of \(name)")
    switch name {
    case "dst_mac": try address(value, .ethernetDestination)
    case "src_mac": try address(value, .ethernetSource)
    case "vlan_id": try tag(name, value, .vlanID, word)
    case "vlan_prio": try tag(name, value, .vlanPriority, word)
    case "vlan_ethtype":
      try checkTag(name, word)
      guard innerType == nil else { throw words.failure("vlan_ethtype is given twice", at: word) }
      let type = try etherType(value)
      innerType = (type, value)
      try insert(Match.Pair(.etherType, .exactly(type, in: .etherType)), at: value)
    case "num_of_vlans":
      guard value.text == "0" else { throw words.refusal(of: name, "tags are not counted", at: value, fit: "num_of_vlans 0, or protocol 802.1Q") }
      try insert(Match.Pair(.vlanID, .absent), at: value)
    case "ip_proto", "ip_tos", "ip_flags", "dst_ip", "src_ip", "dst_port", "src_port", "tcp_flags":
      guard !later.contains(where: { $0.name == name }) else { throw words.failure("\(name) is given twice", at: word) }
      later.append((name, value, word))
    default: throw words.refusal(of: name, "no rule can look at it", at: word, fit: "flex@N=value in a native rule looks at any two bytes")
    }
  }

  private func checkTag(_ name: String, _ word: Words.Word) throws(RuleError) {
    if type?.value == 0x88A8 { throw words.refusal(of: name, "a tag has the type 0x8100, which is 802.1Q", at: word, fit: "protocol 802.1Q") }
    guard type?.value == 0x8100 else { throw words.failure("\(name) needs protocol 802.1Q", at: word) }
  }
  private mutating func tag(_ name: String, _ value: Words.Word, _ field: Field, _ word: Words.Word) throws(RuleError) {
    try checkTag(name, word)
    guard let number = Number.parse(value.text, radix: 10), UInt128(number) <= field.fullMask else {
      throw words.failure("\(name) is a decimal number from 0 to \(field.fullMask), not \"\(value.text)\"", at: value)
    }
    try insert(Match.Pair(field, .exactly(number, in: field)), at: value)
  }

  private mutating func address(_ word: Words.Word, _ field: Field) throws(RuleError) {
    let (text, mask) = Self.halves(word.text)
    guard let value = Number.ethernet(text) else { throw words.failure("\"\(text)\" is no Ethernet address", at: word) }
    guard let mask else { return try insert(Match.Pair(field, .exactly(value, in: field)), at: word) }
    let bits: UInt128
    if let length = Number.parse(mask, radix: 10), length <= 48 { bits = Prefix.mask(Int(length), width: 48) }
    else if let whole = Number.ethernet(mask) { bits = whole }
    else { throw words.failure("behind \"/\" stands a number of bits, or a mask like an address", at: word, offset: text.utf8.count + 1) }
    try insert(Match.Pair(field, .bits(value & bits, mask: bits)), at: word)
  }

  private static func halves(_ text: Substring) -> (value: Substring, mask: Substring?) {
    guard let slash = text.utf8.firstIndex(of: UInt8(ascii: "/")) else { return (text, nil) }
    return (text[..<slash], text[text.utf8.index(after: slash)...])
  }

  /// What depends on the protocols.
  private mutating func resolve() throws(RuleError) {
    let version = (innerType ?? type).flatMap { known in IPVersion.allCases.first { $0.etherType == known.value } }
    for key in later {
      guard let version else {
        throw words.failure("\(key.name) needs protocol ip or ipv6", at: key.word, fit: type?.value == 0x8100 ? "vlan_ethtype ipv4 or ipv6 before it" : nil)
      }
      guard key.name == "ip_proto" else { continue }
      number = (try protocolNumber(key.value, version), key.value)
    }
    guard let version else { return }
    for key in later {
      let (text, mask) = Self.halves(key.value.text)
      func bits(_ field: Field, _ value: UInt64?, _ under: UInt64?) throws(RuleError) -> Match.Pair {
        guard let value, UInt128(value) <= field.fullMask else { throw words.failure("\"\(text)\" is no value of \(key.name)", at: key.value) }
        guard mask != nil else { return Match.Pair(field, .exactly(value, in: field)) }
        guard let under, UInt128(under) <= field.fullMask else {
          throw words.failure("\"\(mask ?? "")\" is no mask of \(key.name)", at: key.value, offset: text.utf8.count + 1)
        }
        return Match.Pair(field, .bits(UInt128(value & under), mask: UInt128(under)))
      }
      switch key.name {
      case "ip_proto":
        if let number, Transport(number: number.value) == nil { try insert(Match.Pair(.ipProtocol, .exactly(number.value, in: .ipProtocol)), at: key.value) }
      case "ip_tos":
        let value = Number.parse(text, radix: 10) ?? Number.parse(text, radix: 16)
        try insert(try bits(.ipTOS, value, mask.flatMap { Number.parse($0, radix: 16) }), at: key.value)
      case "ip_flags": try insert(Match.Pair(.ipFragment, try fragment(key.value)), at: key.value)
      case "dst_ip": try ip(key.value, version, version.destination)
      case "src_ip": try ip(key.value, version, version.source)
      case "tcp_flags":
        guard number?.value == 6 else { throw words.failure("tcp_flags needs ip_proto tcp", at: key.word) }
        try insert(try bits(.tcpFlags, Number.parse(text, radix: 16), mask.flatMap { Number.parse($0, radix: 16) }), at: key.value)
      default:
        guard let transport = number.flatMap({ Transport(number: $0.value) }) else { throw words.failure("\(key.name) needs ip_proto tcp, udp or sctp", at: key.word) }
        let field = key.name == "dst_port" ? transport.destination : transport.source
        if let dash = text.utf8.firstIndex(of: UInt8(ascii: "-")), mask == nil {
          guard let low = Number.parse(text[..<dash], radix: 10), let high = Number.parse(text[text.utf8.index(after: dash)...], radix: 10), low < high, high <= 65_535 else {
            throw words.failure("a range of ports goes up, as 1000-2000 does", at: key.value)
          }
          try insert(Match.Pair(field, .range(UInt16(low)...UInt16(high))), at: key.value)
        } else {
          try insert(try bits(field, Number.parse(text, radix: mask == nil ? 10 : nil), mask.flatMap { Number.parse($0) }), at: key.value)
        }
      }
    }
  }

  private func protocolNumber(_ word: Words.Word, _ version: IPVersion) throws(RuleError) -> UInt8 {
    if let transport = Transport.allCases.first(where: { Self.matches(word.text, "\($0)") }) { return transport.number }
    let isICMP = Self.matches(word.text, "icmp")
    if isICMP || Self.matches(word.text, "icmpv6") {
      guard isICMP == (version == .v4) else { throw words.failure("IPv4 has icmp, IPv6 has icmpv6", at: word) }
      return isICMP ? 1 : 58
    }
    guard let number = Number.parse(word.text, radix: 16), number <= 0xFF else {
      throw words.failure("ip_proto is tcp, udp, sctp, icmp, icmpv6 or a hexadecimal number, not \"\(word.text)\"", at: word)
    }
    return UInt8(number)
  }

  private mutating func ip(_ word: Words.Word, _ version: IPVersion, _ field: Field) throws(RuleError) {
    let (text, mask) = Self.halves(word.text)
    guard let value = Number.ip(text, version) else { throw words.failure("\"\(text)\" is no \(version == .v4 ? "IPv4" : "IPv6") address", at: word) }
    var bits = field.fullMask
    if let mask {
      if let length = Number.parse(mask, radix: 10), length <= field.width { bits = Prefix.mask(Int(length), width: field.width) }
      else if let whole = Number.ip(mask, version), Prefix.length(whole, width: field.width) != nil { bits = whole }
      else { throw words.failure("behind \"/\" stands a number of bits, 0 to \(field.width)", at: word, offset: text.utf8.count + 1) }
    }
    try insert(Match.Pair(field, .bits(value & bits, mask: bits)), at: word)
  }

  private func fragment(_ word: Words.Word) throws(RuleError) -> Pattern {
    var isFragment: Bool?
    var isFirst: Bool?
    for flag in word.text.split(separator: "/") {
      switch flag {
      case "frag": isFragment = true
      case "nofrag": isFragment = false
      case "firstfrag": isFirst = true
      case "nofirstfrag": isFirst = false
      default: throw words.failure("ip_flags is made of frag, nofrag, firstfrag and nofirstfrag, not \"\(flag)\"", at: word)
      }
    }
    switch (isFragment, isFirst) {
    case (true, nil): return .bits(1, mask: 1)
    case (false, nil), (false, false): return .bits(0, mask: 3)
    case (true, true), (nil, true): return .bits(1, mask: 3)
    case (true, false): return .bits(3, mask: 3)
    case (false, true): throw words.failure("the first fragment is one", at: word)
    case (nil, false): throw words.refusal(of: "ip_flags", "what is no fragment and what is a later one are two rules", at: word, fit: "nofrag, or frag/nofirstfrag")
    case (nil, nil): throw words.failure("ip_flags is made of frag, nofrag, firstfrag and nofirstfrag", at: word)
    }
  }

  private mutating func insert(_ pair: Match.Pair, at word: Words.Word) throws(RuleError) {
    try words.insert(pair, into: &match, at: word)
  }

  // MARK: Actions

  private mutating func actions() throws(RuleError) {
    var queue: Int?
    var targets: [Rule.Target] = []
    var fate: (decision: Rule.Decision, word: Words.Word)?
    var isStolen = false
    var last: Words.Word?
    while let word = words.peek {
      guard Self.matches(word.text, "action") else { throw words.failure("\"\(word.text)\" is too much here", at: word, fit: "each action has \"action\" before it") }
      words.skip()
      if words.peek?.text == "gact" { words.skip() }
      let kind = try words.take("an action")
      if isStolen { throw words.failure("behind redirect nothing is left of the frame", at: kind, fit: "mirror for all VMs but the last") }
      if let fate { throw words.failure("\(kind.text) does not go with \(fate.word.text): a frame has one fate", at: kind) }
      last = kind
      switch kind.text {
      case "drop", "shot", "trap":
        guard queue == nil && targets.isEmpty else { throw words.failure("\(kind.text) does not go with what stands before it: a frame has one fate", at: kind) }
        fate = (kind.text == "trap" ? .host : .drop, kind)
      case "skbedit":
        let what = try words.take("queue_mapping")
        guard Self.matches(what.text, "queue_mapping") else {
          throw words.refusal(.actionUnsupported, of: "skbedit \(what.text)", "a frame's queue is all that can be set", at: what, fit: "skbedit queue_mapping N")
        }
        queue = try words.queue(radix: 10)
        _ = words.takeIf("pipe")
      case "mirred":
        let direction = try words.take("egress")
        guard direction.text == "egress" else { throw words.refusal(.actionUnsupported, of: "mirred \(direction.text)", "frames go to VMs only", at: direction, fit: "mirred egress redirect dev NAME") }
        let what = try words.take("redirect or mirror")
        guard what.text == "redirect" || what.text == "mirror" else { throw words.failure("mirred egress is redirect or mirror, not \"\(what.text)\"", at: what) }
        isStolen = what.text == "redirect"
        guard words.takeIf("dev") else { throw words.failure("\"dev\" should stand here", at: words.peek) }
        let name = try words.take("a VM's device")
        let vm = try context.vm(named: name.text, at: name.column)
        guard !targets.contains(where: { $0.vm == vm }) else { throw words.failure("VM \(vm) is named twice", at: name) }
        targets.append(Rule.Target(vm, queue: queue))
        _ = words.takeIf(isStolen ? "stolen" : "pipe")
      case "pass", "ok", "pipe", "continue", "reclassify", "goto", "vlan", "police", "ct", "pedit", "csum", "tunnel_key", "sample", "nat", "mpls",
        "gate", "bpf", "ife", "simple", "skbmod", "connmark", "ctinfo", "jump":
        throw words.refusal(.actionUnsupported, of: String(kind.text), "no rule can do this", at: kind, fit: "drop, trap, skbedit queue_mapping and mirred egress")
      default: throw words.failure("no action \"\(kind.text)\"; there are drop, trap, skbedit queue_mapping and mirred egress", at: kind)
      }
      if words.takeIf("hw_stats") {
        let stats = try words.take("immediate")
        switch stats.text {
        case "immediate", "delayed": rule.counts = true
        case "any", "disabled": break
        default: throw words.failure("hw_stats is any, immediate, delayed or disabled, not \"\(stats.text)\"", at: stats)
        }
      }
    }
    if let fate { rule.decision = fate.decision }
    else if !targets.isEmpty {
      guard isStolen else {
        throw words.refusal(.actionUnsupported, of: "mirror", "behind it the frame still goes where it would have gone", at: last, fit: "redirect for the last VM")
      }
      rule.decision = .deliver(targets)
    } else if let queue { rule.decision = .queue(queue) }
  }
}
