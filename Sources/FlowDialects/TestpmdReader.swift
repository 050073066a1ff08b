import FlowSteering

/// Rules of testpmd's `flow` command.
///
/// - A priority that is not given is 0, the highest.
/// - An item without fields says that its header is there. Without `vlan` item, and without `has_vlan`, frames may have a
///   tag or none: `type` is then the one behind it.
/// - `spec` without `mask` is refused: testpmd would compare the item's other fields with 0 too. A range is the exception.
/// - `user_id` is the rule's number; those that testpmd itself gives start at 0 in each session, and mean nothing here.
/// - `raw` is taken at a fixed place behind the start of the frame, in pairs of bytes. `pattern` is text, each letter a
///   byte; `pattern_hex` is what it says.
/// - What a VM has received, for rules that are for one VM, is what `represented_port` says; `pf` is the host.
struct TestpmdReader {
  var words: Words
  let context: DialectContext
  private var match = Match()
  private var rule = Rule(priority: 0, match: Match(), decision: .drop)
  private var version: IPVersion?
  private var transport: Transport?
  private var tagWord: Words.Word?
  private var isTagged = false
  /// `eth type`, which is the tag's if a `vlan` item follows.
  private var type: (pair: Match.Pair, word: Words.Word)?
  /// The highest layer that an item was of.
  private var layer = 0
  private var anyWord: Words.Word?

  init(words: Words, context: DialectContext) {
    self.words = words
    self.context = context
  }

  mutating func command() throws(RuleError) -> RuleCommand {
    _ = words.takeIf("testpmd>")
    guard words.takeIf("flow") else { throw words.failure("\"flow\" should stand here", at: words.peek) }
    let verb = try words.take("create, validate, destroy or flush")
    switch verb.text {
    case "create":
      return .add(try flow())
    case "validate":
      return .validate(try flow())
    case "destroy":
      try port()
      guard words.takeIf("rule") else { throw words.failure("\"rule\" should stand here", at: words.peek, fit: "flow destroy PORT rule N") }
      let id = try words.id("a rule's number")
      if words.peek?.text == "rule" { throw words.failure("one rule a line", at: words.peek, fit: "flow destroy PORT rule N") }
      _ = words.takeIf("user_id")
      try words.expectEnd()
      return .delete(id: id)
    case "flush":
      try port()
      try words.expectEnd()
      return .flush(vm: nil)
    default: throw words.failure("no command \"flow \(verb.text)\" here; there are create, validate, destroy and flush", at: verb)
    }
  }

  private mutating func port() throws(RuleError) { _ = try words.number("a port", to: 65_535) }

  // MARK: Attributes

  private mutating func flow() throws(RuleError) -> Rule {
    try port()
    var isIngress = false
    var seen: Set<Substring> = []
    attributes: while true {
      let word = try words.take("\"pattern\"")
      guard seen.insert(word.text).inserted else { throw words.failure("\(word.text) is given twice", at: word) }
      switch word.text {
      case "group": rule.group = Int(try words.number("a group", to: UInt64(Rule.groups.upperBound)))
      case "priority": rule.priority = Int(try words.number("a priority", to: UInt64(Rule.priorities.upperBound)))
      case "user_id": rule.id = try words.id("user_id")
      case "ingress": isIngress = true
      case "egress", "transfer":
        throw words.refusal(.actionUnsupported, of: String(word.text), "rules are for frames that the port receives", at: word, fit: "ingress")
      case "pattern":
        guard isIngress else { throw words.failure("\"ingress\" should stand before the pattern", at: word) }
        break attributes
      default:
        throw words.failure("\"\(word.text)\" should be group, priority, user_id, ingress or pattern", at: word)
      }
    }
    try pattern()
    guard words.takeIf("actions") else { throw words.failure("\"actions\" should stand here", at: words.peek) }
    try actions()
    try words.expectEnd()
    return rule
  }

  // MARK: Pattern

  private mutating func pattern() throws(RuleError) {
    while true {
      let item = try words.take("an item, or \"end\"")
      if item.text == "end" { break }
      try self.item(item)
      guard words.takeIf("/") else {
        throw words.failure("\(item.text) has no field \"\(words.peek?.text ?? "")\"; \"/\" ends an item", at: words.peek)
      }
    }
    if let type { try insert(type.pair, at: type.word) }
    if isTagged, match[.vlanID] == .absent { throw words.failure("no frame has a tag and none", at: tagWord) }
    if isTagged, let tagWord, match[.vlanID] == nil && match[.vlanPriority] == nil { try insert(Match.Pair(.vlanID, .bits(0, mask: 0)), at: tagWord) }
    do throws(Match.Conflict) { rule.match = try match.completed(version, transport) } catch {
      throw words.failure("the items do not go with what is said of \(error.field.name): no frame can match", at: words.last)
    }
  }

  private mutating func enter(_ newLayer: Int, _ item: Words.Word) throws(RuleError) {
    guard newLayer > layer else {
      throw words.failure("\(item.text) stands behind an item of its own layer or a higher one; tunnels are not looked into", at: item)
    }
    layer = newLayer
  }

  private mutating func item(_ item: Words.Word) throws(RuleError) {
    switch item.text {
    case "void": break
    case "represented_port":
      guard rule.owner == nil else { throw words.failure("represented_port is given twice", at: item) }
      guard let found = try fields(item, ["ethdev_port_id": 16])["ethdev_port_id"], found.mask == 0xFFFF, found.last == nil else {
        throw words.failure("represented_port takes \"ethdev_port_id is N\"", at: words.peek)
      }
      rule.owner = try context.vm(UInt64(found.value), at: found.word.column)
    case "eth": try ethernet(item)
    case "vlan": try tag(item)
    case "ipv4":
      try enter(3, item)
      try ip(.v4, item)
    case "ipv6":
      try enter(3, item)
      try ip(.v6, item)
    case "any":
      let found = try fields(item, ["num": 32])["num"]
      if layer == 0 && found == nil {
        // Nothing need follow; if an item does, it is refused there.
        anyWord = item
      } else {
        try enter(3, item)
        guard let found, found.value == 1, found.mask == 0xFFFF_FFFF, found.last == nil else {
          throw words.refusal(of: "any", "it stands for one layer, IP of either version", at: item, fit: "any num is 1")
        }
      }
      return
    case "tcp": try ports(.tcp, item)
    case "udp": try ports(.udp, item)
    case "sctp": try ports(.sctp, item)
    case "icmp", "icmp6":
      try enter(4, item)
      _ = try fields(item, [:])
      try insert(Match.Pair(.ipProtocol, .exactly(item.text == "icmp" ? 1 : 58, in: .ipProtocol)), at: item)
    case "raw": try raw(item)
    case "vxlan", "gre", "nvgre", "geneve", "gtp", "mpls", "arp_eth_ipv4", "esp", "ah", "port_id", "mark", "meta", "tag", "ipv6_ext",
      "ipv6_frag_ext", "e_tag", "fuzzy", "igmp", "vf", "pf", "phy_port", "invert", "port_representor", "ethdev":
      throw words.refusal(of: String(item.text), "no rule can look at it", at: item, fit: "raw looks at any two bytes of a frame")
    default: throw words.failure("no item \"\(item.text)\" here", at: item)
    }
    if let anyWord, layer > 0 { throw words.refusal(of: "any", "any number of layers may be tunnels, which are not looked into", at: anyWord, fit: "any num is 1") }
  }

  private mutating func ethernet(_ item: Words.Word) throws(RuleError) {
    try enter(1, item)
    let found = try fields(item, ["dst": -48, "src": -48, "type": 16, "has_vlan": 1])
    if let value = found["dst"] { try insert(value, .ethernetDestination) }
    if let value = found["src"] { try insert(value, .ethernetSource) }
    if let value = found["type"] { type = (try pair(value, .etherType), value.word) }
    if let value = found["has_vlan"], value.mask == 1 {
      if value.value == 0 { try insert(Match.Pair(.vlanID, .absent), at: value.word) } else { (isTagged, tagWord) = (true, value.word) }
    }
    if let type, type.pair.pattern == .exactly(0x8100, in: .etherType) {
      // A tag, of which nothing is said yet.
      (isTagged, tagWord) = (true, type.word)
      self.type = nil
    }
  }

  private mutating func tag(_ item: Words.Word) throws(RuleError) {
    try enter(2, item)
    if let type {
      throw words.refusal(of: "type", "a tag has the type 0x8100", at: type.word, fit: "what is behind the tag is vlan's inner_type")
    }
    (isTagged, tagWord) = (true, item)
    let found = try fields(item, ["vid": 12, "pcp": 3, "tci": 16, "inner_type": 16, "dei": 1, "has_more_vlan": 1])
    for name in ["dei", "has_more_vlan"] as [Substring] {
      if let value = found[name], value.mask != 0 { throw words.refusal(of: String(name), "no rule can look at it", at: value.word, fit: "leave it out") }
    }
    func tci(_ value: Value) throws(RuleError) {
      if value.mask & 0x1000 != 0 || value.last != nil {
        throw words.refusal(of: "tci", "the bit between priority and number cannot be looked at", at: value.word, fit: "vid and pcp")
      }
    }
    if let value = found["tci"] {
      try tci(value)
      if value.mask & 0xFFF != 0 { try insert(Match.Pair(.vlanID, .bits(value.value & value.mask & 0xFFF, mask: value.mask & 0xFFF)), at: value.word) }
      if value.mask >> 13 != 0 { try insert(Match.Pair(.vlanPriority, .bits((value.value & value.mask) >> 13, mask: value.mask >> 13)), at: value.word) }
    }
    if let value = found["vid"] { try insert(value, .vlanID) }
    if let value = found["pcp"] { try insert(value, .vlanPriority) }
    if let value = found["inner_type"] { try insert(value, .etherType) }
  }

  private mutating func ip(_ version: IPVersion, _ item: Words.Word) throws(RuleError) {
    self.version = version
    let width = version == .v4 ? -32 : -128
    var names: [Substring: Int] = ["src": width, "dst": width, "proto": 8, "ttl": 8, "hop": 8]
    if version == .v4 { (names["tos"], names["fragment_offset"]) = (8, 16) } else { (names["tc"], names["has_frag_ext"], names["flow"]) = (8, 1, 20) }
    names[version == .v4 ? "hop" : "ttl"] = nil
    let found = try fields(item, names)
    for name in ["ttl", "hop", "flow"] as [Substring] {
      if let value = found[name], value.mask != 0 { throw words.refusal(of: String(name), "no rule can look at it", at: value.word, fit: "leave it out") }
    }
    if let value = found["src"] { try insert(value, version.source) }
    if let value = found["dst"] { try insert(value, version.destination) }
    if let value = found["proto"] {
      let pair = try pair(value, .ipProtocol)
      if case .bits(let number, mask: 0xFF) = pair.pattern, let known = Transport(number: UInt8(number)) { transport = known }
      else { try insert(pair, at: value.word) }
    }
    if let value = found["tos"] ?? found["tc"] { try insert(value, .ipTOS) }
    if let value = found["has_frag_ext"], value.mask == 1 {
      try insert(Match.Pair(.ipFragment, value.value == 0 ? .bits(0, mask: 3) : .bits(1, mask: 1)), at: value.word)
    }
    if let value = found["fragment_offset"] {
      guard let pattern = Self.fragment(value) else {
        throw words.refusal(
          of: "fragment_offset", "what can be told apart is a fragment or none, and the first or a later one", at: value.word,
          fit: "fragment_offset spec 0 fragment_offset mask 0x3fff asks for no fragment")
      }
      try insert(Match.Pair(.ipFragment, pattern), at: value.word)
    }
  }

  /// More fragments is bit 13, the place in the packet the 13 bits below.
  private static func fragment(_ value: Value) -> Pattern? {
    switch (value.value & value.mask, value.last.map { $0 & value.mask }, value.mask) {
    case (0, nil, 0x3FFF): .bits(0, mask: 3)
    case (0x2000, nil, 0x3FFF): .bits(1, mask: 3)
    case (1, 0x3FFF, 0x3FFF): .bits(1, mask: 1)
    case (1, 0x1FFF, 0x1FFF): .bits(3, mask: 3)
    default: nil
    }
  }

  private mutating func ports(_ transport: Transport, _ item: Words.Word) throws(RuleError) {
    try enter(4, item)
    if let known = self.transport, known != transport { throw words.failure("no frame can be both \(known) and \(transport)", at: item) }
    self.transport = transport
    var names: [Substring: Int] = ["src": 16, "dst": 16]
    switch transport {
    case .tcp: names["flags"] = 8
    case .sctp: (names["tag"], names["cksum"]) = (32, 32)
    case .udp: break
    }
    let found = try fields(item, names)
    for name in ["tag", "cksum"] as [Substring] {
      if let value = found[name], value.mask != 0 { throw words.refusal(of: String(name), "no rule can look at it", at: value.word, fit: "leave it out") }
    }
    if let value = found["src"] { try insert(value, transport.source) }
    if let value = found["dst"] { try insert(value, transport.destination) }
    if let value = found["flags"] { try insert(value, .tcpFlags) }
  }

  /// Bytes of a raw item, before they are pairs.
  private struct Bytes {
    var value: [UInt8] = []
    var mask: [UInt8]?
    let word: Words.Word
  }

  private mutating func raw(_ item: Words.Word) throws(RuleError) {
    var offset: Int?
    var offsetWord = item
    var bytes: Bytes?
    while let name = words.peek, name.text != "/" {
      words.skip()
      switch name.text {
      case "relative", "search", "limit":
        _ = try relation(name)
        let word = try words.take("0")
        guard ["0", "off", "no", "false"].contains(word.text) else {
          throw words.refusal(of: String(name.text), "bytes are looked for in one place, counted from the start of the frame", at: word, fit: "\(name.text) is 0")
        }
      case "offset":
        _ = try relation(name)
        offsetWord = words.peek ?? name
        offset = Int(try words.number("an offset", to: 254))
      case "length":
        _ = try relation(name)
        _ = try words.number("a length", to: 65_535)
      case "pattern", "pattern_hex":
        let relation = try relation(name)
        let word = try words.take("bytes")
        var read = Array(word.text.utf8)
        if name.text == "pattern_hex" {
          read = try hexadecimal(word)
        }
        switch relation {
        case "mask": bytes?.mask = read
        case "is", "spec":
          guard bytes == nil else { throw words.failure("\(name.text) is given twice", at: name) }
          bytes = Bytes(value: read, mask: relation == "is" ? Array(repeating: 0xFF, count: read.count) : nil, word: word)
        default: throw words.failure("\(name.text) takes is, spec or mask", at: name)
        }
      default: throw words.failure("raw has no field \"\(name.text)\"", at: name)
      }
    }
    guard let bytes, let offset else { throw words.failure("raw takes an offset and a pattern", at: words.peek, fit: "raw relative is 0 offset is N pattern_hex is 0800") }
    guard let mask = bytes.mask else { throw words.failure("pattern has no mask", at: bytes.word, fit: "pattern_hex is ...") }
    guard mask.count == bytes.value.count, bytes.value.count >= 2, bytes.value.count % 2 == 0, bytes.value.count <= 2 * Match.mostFlexible else {
      throw words.refusal(of: "pattern", "bytes are looked at in pairs, \(Match.mostFlexible) at most", at: bytes.word, fit: "2, 4 or 6 bytes, and as many of the mask")
    }
    for place in stride(from: 0, to: mask.count, by: 2) {
      guard offset + place <= 254 else { throw words.failure("bytes behind 255 are not looked at", at: offsetWord) }
      let under = UInt128(mask[place]) << 8 | UInt128(mask[place + 1])
      let value = (UInt128(bytes.value[place]) << 8 | UInt128(bytes.value[place + 1])) & under
      guard match.pairs.count(where: \.field.isFlexible) < Match.mostFlexible else {
        throw words.refusal(of: "raw", "a rule looks at \(Match.mostFlexible) pairs of bytes at most", at: bytes.word)
      }
      try insert(Match.Pair(.flexible(offset: offset + place), .bits(value, mask: under)), at: offsetWord)
    }
  }

  private mutating func relation(_ name: Words.Word) throws(RuleError) -> Substring {
    let word = try words.take("is, spec or mask")
    guard ["is", "spec", "mask"].contains(word.text) else { throw words.failure("behind \(name.text) stands is, spec or mask, not \"\(word.text)\"", at: word) }
    return word.text
  }
  private func hexadecimal(_ word: Words.Word) throws(RuleError) -> [UInt8] {
    let digits = word.text.hasPrefix("0x") ? word.text.dropFirst(2) : word.text
    guard digits.utf8.count % 2 == 0, digits.utf8.count <= 32, let number = UInt128(digits, radix: 16), digits.first != "+" else {
      throw words.failure("pattern_hex takes pairs of hexadecimal digits, not \"\(word.text)\"", at: word)
    }
    let count = digits.utf8.count / 2
    return (0..<count).map { UInt8(truncatingIfNeeded: number >> UInt128(8 * (count - 1 - $0))) }
  }

  // MARK: Fields

  /// What is said of a field, in bits.
  private struct Value {
    var value: UInt128 = 0
    var mask: UInt128 = 0
    var last: UInt128?
    var word: Words.Word
  }

  /// Reads an item's fields up to its end.
  ///
  /// - Parameter names: the width of each; addresses' is negative.
  private mutating func fields(_ item: Words.Word, _ names: [Substring: Int]) throws(RuleError) -> [Substring: Value] {
    struct Parts {
      var spec, last, mask: (UInt128, Words.Word)?
      let word: Words.Word
    }
    var parts: [Substring: Parts] = [:]
    while let name = words.peek, name.text != "/" {
      guard let size = names[name.text] else {
        if name.text == "end" || name.text == "actions" { throw words.failure("\"/\" ends an item", at: name) }
        let list = names.keys.sorted().joined(separator: ", ")
        throw words.failure("\(item.text) has no field \"\(name.text)\"" + (list.isEmpty ? " here" : "; there are \(list)"), at: name)
      }
      words.skip()
      let width = abs(size)
      let full: UInt128 = width == 128 ? .max : 1 << UInt128(width) - 1
      var part = parts[name.text] ?? Parts(word: name)
      let relation = try words.take("is, spec, last, mask or prefix")
      let word = try words.take("a value of \(name.text)")
      func value() throws(RuleError) -> UInt128 {
        let value: UInt128? =
          switch size {
          case -48: Number.ethernet(word.text)
          case -32: Number.ip(word.text, .v4)
          case -128: Number.ip(word.text, .v6)
          case 1: word.text == "on" ? 1 : word.text == "off" ? 0 : Number.parse(word.text).map { UInt128($0) }
          default: Number.parse(word.text).map { UInt128($0) }
          }
        guard let value, value <= full else {
          let kind = size == -48 ? "an Ethernet address" : size == -32 ? "an IPv4 address" : size == -128 ? "an IPv6 address" : "a number from 0 to \(full)"
          throw words.failure("\(name.text) takes \(kind), not \"\(word.text)\"", at: word)
        }
        return value
      }
      func once(_ known: (UInt128, Words.Word)?) throws(RuleError) {
        if known != nil { throw words.failure("\(name.text) \(relation.text) is given twice", at: relation) }
      }
      switch relation.text {
      case "is":
        try once(part.spec)
        (part.spec, part.mask) = ((try value(), word), (full, word))
      case "spec":
        try once(part.spec)
        part.spec = (try value(), word)
      case "last":
        try once(part.last)
        part.last = (try value(), word)
      case "mask": part.mask = (try value(), word)
      case "prefix":
        guard let length = Number.parse(word.text), length <= width else { throw words.failure("a prefix of \(name.text) has 0 to \(width) bits", at: word) }
        part.mask = (Prefix.mask(Int(length), width: width), word)
      default: throw words.failure("behind \(name.text) stands is, spec, last, mask or prefix, not \"\(relation.text)\"", at: relation)
      }
      parts[name.text] = part
    }
    var result: [Substring: Value] = [:]
    for (name, part) in parts.sorted(by: { $0.value.word.column < $1.value.word.column }) {
      let width = abs(names[name] ?? 0)
      let full: UInt128 = width == 128 ? .max : 1 << UInt128(width) - 1
      guard let spec = part.spec else { throw words.failure("\(name) has no value: is or spec", at: part.word) }
      guard let mask = part.mask?.0 ?? (part.last == nil ? nil : full) else {
        throw words.failure(
          "\(name) has a spec and no mask: testpmd would compare the fields of \(item.text) that are not named with 0 too", at: part.word,
          fit: "\(name) is ..., or a mask")
      }
      result[name] = Value(value: spec.0, mask: mask, last: part.last.map(\.0), word: spec.1)
    }
    return result
  }

  private func pair(_ value: Value, _ field: Field) throws(RuleError) -> Match.Pair {
    guard let last = value.last, last & value.mask != value.value & value.mask else {
      return Match.Pair(field, .bits(value.value & value.mask, mask: value.mask))
    }
    guard field.isPort, value.mask == field.fullMask else {
      throw words.refusal(of: field.name, "ranges are of whole ports", at: value.word, fit: "a mask")
    }
    guard value.value < last else { throw words.failure("the range from \(value.value) to \(last) is empty", at: value.word) }
    return Match.Pair(field, .range(UInt16(value.value)...UInt16(last)))
  }
  private mutating func insert(_ value: Value, _ field: Field) throws(RuleError) { try insert(try pair(value, field), at: value.word) }
  private mutating func insert(_ pair: Match.Pair, at word: Words.Word) throws(RuleError) {
    try words.insert(pair, into: &match, at: word)
  }

  // MARK: Actions

  private mutating func actions() throws(RuleError) {
    var vf: String?
    var queue: Int?
    var fate: (decision: Rule.Decision, word: Words.Word)?
    var place: Words.Word?
    while true {
      let action = try words.take("an action, or \"end\"")
      place = action
      if action.text == "end" { break }
      switch action.text {
      case "void": break
      case "count":
        rule.counts = true
        if words.takeIf("identifier") || words.takeIf("id") { _ = try words.number("a counter", to: .max) }
        if words.takeIf("shared") { _ = try words.take("off") }
      case "vf":
        guard vf == nil else {
          throw words.refusal(.actionUnsupported, of: "vf", "a frame goes to one VM", at: action, fit: "a native rule can name several")
        }
        guard words.takeIf("id") else { throw words.failure("vf takes \"id N\"", at: words.peek) }
        let number = try words.number("a VM's number", to: .max)
        vf = try context.vm(number, at: words.column(of: words.last))
      case "queue":
        guard queue == nil else { throw words.failure("queue is given twice", at: action) }
        guard words.takeIf("index") else { throw words.failure("queue takes \"index N\"", at: words.peek) }
        queue = try words.queue()
      case "drop", "pf":
        if let fate { throw words.failure("\(action.text) does not go with \"\(fate.decision)\": a frame has one fate", at: action) }
        fate = (action.text == "drop" ? .drop : .host, action)
      case "rss", "mark", "flag", "jump", "passthru", "meter", "port_id", "represented_port", "port_representor", "set_tag", "set_meta",
        "of_pop_vlan", "of_push_vlan", "dec_ttl", "security", "age", "sample", "phy_port", "raw_encap", "raw_decap", "vxlan_encap", "vxlan_decap":
        throw words.refusal(.actionUnsupported, of: String(action.text), "no rule can do this", at: action, fit: "vf, queue, drop, pf and count")
      default: throw words.failure("no action \"\(action.text)\"; there are vf, queue, drop, pf, count and void", at: action)
      }
      guard words.takeIf("/") else {
        throw words.failure("\"/\" ends an action", at: words.peek)
      }
    }
    switch (vf, queue, fate) {
    case (let vf?, let queue, nil): rule.decision = .deliver([Rule.Target(vf, queue: queue)])
    case (nil, let queue?, nil): rule.decision = .queue(queue)
    case (nil, nil, let fate?): rule.decision = fate.decision
    case (nil, nil, nil): throw words.failure("no action says where the frames go", at: place, fit: "vf, queue, drop or pf")
    case (_, _, let fate?): throw words.failure("\(fate.word.text) goes with no vf and no queue: a frame has one fate", at: fate.word)
    }
  }
}
