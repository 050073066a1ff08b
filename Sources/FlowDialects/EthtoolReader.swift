import FlowSteering

/// Rules of `ethtool -N`.
///
/// - A mask's ones are the bits that do not matter.
/// - `flow-type ip4` and `ip6` cover every protocol, and fragments too.
/// - `tcp4` and its like cover whole packets only: the fields are not there in others.
/// - `loc` is the rule's number. What order it gives rules is each driver's own affair, so it gives none here.
/// - `vf` without `queue` leaves the queue to the card, though some drivers take queue 0. Without any action frames go to
///   queue 0.
/// - `user-def` means something else to every driver, and is refused.
struct EthtoolReader {
  var words: Words
  let context: DialectContext
  private var match = Match()
  private var rule = Rule(match: Match(), decision: .queue(0))
  private var isTagged = false

  init(words: Words, context: DialectContext) {
    self.words = words
    self.context = context
  }

  private struct FlowType {
    var version: IPVersion?
    var transport: Transport?
    /// Of AH and ESP.
    var number: UInt8?

    init?(_ name: Substring) {
      if name == "ether" { return }
      switch name.last {
      case "4": version = .v4
      case "6": version = .v6
      default: return nil
      }
      switch name.dropLast() {
      case "ip": break
      case "tcp": transport = .tcp
      case "udp": transport = .udp
      case "sctp": transport = .sctp
      case "ah": number = 51
      case "esp": number = 50
      default: return nil
      }
    }
  }

  mutating func command() throws(RuleError) -> RuleCommand {
    if words.takeIf("ethtool") {
      let option = try words.take("-N")
      switch option.text {
      case "-N", "-U", "--config-nfc", "--config-ntuple": break
      default: throw words.failure("rules are written with -N or -U, not \"\(option.text)\"", at: option)
      }
      _ = try words.take("a device")
    }
    let verb = try words.take("\"flow-type\" or \"delete\"")
    switch verb.text {
    case "flow-type": return .add(try flow())
    case "delete":
      let id = try words.id("a rule's number")
      try words.expectEnd()
      return .delete(id: id)
    case "rx-flow-hash":
      throw words.refusal(.actionUnsupported, of: "rx-flow-hash", "it sets what a hash is taken of, and is no rule", at: verb)
    default: throw words.failure("\"flow-type\" or \"delete\" should stand here, not \"\(verb.text)\"", at: verb)
    }
  }

  private mutating func flow() throws(RuleError) -> Rule {
    let name = try words.take("a flow type")
    guard let type = FlowType(name.text) else {
      throw words.failure(
        "no flow type \"\(name.text)\"; there are ether, and ip, tcp, udp, sctp, ah and esp with 4 or 6 behind it", at: name)
    }
    var transport = type.transport
    if let number = type.number { try insert(.ipProtocol, UInt128(number), 0xFF, at: name) }
    var ports: [(isSource: Bool, value: UInt128, mask: UInt128, word: Words.Word)] = []
    var action: Words.Word?
    var vf: (number: UInt64, word: Words.Word)?
    var queue: Int?
    var seen: Set<Substring> = []

    while let option = words.peek {
      words.skip()
      guard seen.insert(option.text).inserted else { throw words.failure("\(option.text) is given twice", at: option) }
      switch (option.text, type.version) {
      case ("src-ip", let version?): try field(version.source, option)
      case ("dst-ip", let version?): try field(version.destination, option)
      case ("tos", .v4), ("tclass", .v6): try field(.ipTOS, option)
      case ("l4proto", _?) where type.transport == nil && type.number == nil:
        let (value, mask) = try valueAndMask(.ipProtocol, option)
        if mask == 0xFF, let known = Transport(number: UInt8(value)) { transport = known } else { try insert(.ipProtocol, value, mask, at: option) }
      case ("src-port", _?) where type.number == nil, ("dst-port", _?) where type.number == nil:
        let (value, mask) = try valueAndMask(.tcpSource, option)
        ports.append((option.text == "src-port", value, mask, option))
      case ("src", nil): try field(.ethernetSource, option)
      case ("dst", nil), ("dst-mac", _): try field(.ethernetDestination, option)
      case ("proto", nil):
        let (value, mask) = try valueAndMask(.etherType, option)
        if value == 0x8100 && mask == 0xFFFF {
          throw words.refusal(of: "proto", "it is the type behind the tag here", at: option, fit: "frames with any tag are \"vlan 0 m 0xffff\"")
        }
        try insert(.etherType, value, mask, at: option)
      case ("vlan", _): try tag(option)
      case ("vlan-etype", _): try tagType(option)
      case ("user-def", _):
        throw words.refusal(of: "user-def", "every driver means something else by it", at: option, fit: "name bytes of the frame in a native rule: flex@N=value")
      case ("spi", _), ("l4data", _):
        throw words.refusal(of: String(option.text), "nothing behind the IP header is looked at but ports and TCP's flags", at: option, fit: "flex@N=value in a native rule looks at two bytes")
      case ("context", _):
        throw words.refusal(.actionUnsupported, of: "context", "there are no groups of queues", at: option, fit: "leave it out: a VM's queues are one group")
      case ("action", _):
        action = option
        try self.action(option)
      case ("vf", _): vf = (try words.number("a VM's number", to: .max), words.last ?? option)
      case ("queue", _): queue = try words.queue()
      case ("loc", _): rule.id = try words.id("loc")
      case ("m", _), ("mask", _): throw words.failure("a mask stands behind its value, once", at: option)
      default:
        throw words.failure("flow type \(name.text) has no option \"\(option.text)\"", at: option)
      }
    }

    if vf != nil || queue != nil {
      if let action { throw words.failure("action goes neither with vf nor with queue", at: action) }
      if let vf { rule.decision = .deliver([Rule.Target(try context.vm(vf.number, at: vf.word.column), queue: queue)]) }
      else if let queue { rule.decision = .queue(queue) }
    }
    for port in ports {
      guard let transport else {
        throw words.refusal(of: String(port.word.text), "this flow type says no protocol that has ports", at: port.word, fit: "flow-type tcp4, or l4proto 6")
      }
      try insert(port.isSource ? transport.source : transport.destination, port.value, port.mask, at: port.word)
    }
    if isTagged && match[.vlanID] == nil && match[.vlanPriority] == nil { try insert(.vlanID, 0, 0, at: name) }
    do throws(Match.Conflict) { rule.match = try match.completed(type.version, transport) } catch {
      throw words.failure("no frame can match both \(name.text) and what is said of \(error.field.name)", at: name)
    }
    return rule
  }

  private mutating func insert(_ field: Field, _ value: UInt128, _ mask: UInt128, at word: Words.Word) throws(RuleError) {
    do throws(Match.Conflict) { try match.insert(Match.Pair(field, .bits(value & mask, mask: mask))) } catch {
      throw words.failure(
        error.isTwice ? "\(field.name) is given twice" : "no frame can match both \(word.text) and what is said of \(error.field.name)", at: word)
    }
  }
  private mutating func field(_ field: Field, _ option: Words.Word) throws(RuleError) {
    let (value, mask) = try valueAndMask(field, option)
    try insert(field, value, mask, at: option)
  }

  /// A value, and the bits of it that matter.
  private mutating func valueAndMask(_ field: Field, _ option: Words.Word) throws(RuleError) -> (UInt128, UInt128) {
    let value = try self.value(field, option)
    guard let word = words.peek, word.text == "m" || word.text == "mask" || word.text == option.text + "-mask" else {
      return (value, field.fullMask)
    }
    words.skip()
    return (value, field.fullMask & ~(try self.value(field, option)))
  }
  private mutating func value(_ field: Field, _ option: Words.Word) throws(RuleError) -> UInt128 {
    let word = try words.take("a value of \(option.text)")
    guard let value = Number.value(word.text, of: field) else {
      let kind =
        field.isEthernetAddress ? "an Ethernet address" : field.ipVersion.map { $0 == .v4 ? "an IPv4 address" : "an IPv6 address" }
        ?? "a number from 0 to \(field.fullMask)"
      throw words.failure(
        "\(option.text) takes \(kind), not \"\(word.text)\"", at: word,
        fit: word.text.contains("/") ? "a mask stands behind \"m\", and its ones do not matter" : nil)
    }
    return value
  }

  /// The whole tag in one number.
  private mutating func tag(_ option: Words.Word) throws(RuleError) {
    let (value, mask) = try valueAndMask(.etherType, option)
    if mask & 0x1000 != 0 {
      throw words.refusal(
        of: "vlan", "the bit between number and priority cannot be looked at", at: option,
        fit: "\"vlan \(value & 0xFFF) m 0xf000\" looks at the number alone, m 0x1000 at number and priority")
    }
    isTagged = true
    if mask & 0xFFF != 0 { try insert(.vlanID, value & 0xFFF, mask & 0xFFF, at: option) }
    if mask >> 13 != 0 { try insert(.vlanPriority, value >> 13, mask >> 13, at: option) }
  }
  private mutating func tagType(_ option: Words.Word) throws(RuleError) {
    let (value, mask) = try valueAndMask(.etherType, option)
    if mask == 0 { return }
    guard mask == 0xFFFF, value == 0x8100 else {
      throw words.refusal(of: "vlan-etype", "a tag has the type 0x8100", at: option, fit: "vlan-etype 0x8100, or none")
    }
    isTagged = true
  }

  /// A queue, -1, or what the kernel makes of `vf` and `queue`: above 32 bits the VF's number and one.
  private mutating func action(_ option: Words.Word) throws(RuleError) {
    let word = try words.take("a queue, or -1")
    if word.text == "-1" {
      rule.decision = .drop
      return
    }
    if word.text == "-2" { throw words.refusal(.actionUnsupported, of: "action", "-2 wakes a machine up", at: word, fit: "a queue, or -1 to drop") }
    guard let cookie = Number.parse(word.text), cookie & 0xFFFF_FFFF <= UInt64(Number.lastQueue), cookie >> 40 == 0 else {
      throw words.failure("action is a queue from 0 to \(Number.lastQueue), or -1 to drop, not \"\(word.text)\"", at: word)
    }
    let queue = Int(cookie & 0xFFFF_FFFF)
    let vf = cookie >> 32
    rule.decision = vf == 0 ? .queue(queue) : .deliver([Rule.Target(try context.vm(vf - 1, at: word.column), queue: queue)])
  }
}
