import FlowDialects
import FlowSteering

/// VM n is `vm<n>`; the last is called as a device might be.
let context = DialectContext(vms: ["web", "db", "vm2", "vm3", "vm4", "vm5", "vm6", "ens1f0_5"])

func rule(_ line: String) throws(RuleError) -> Rule? {
  guard case .add(let rule)? = try RuleCommand(parsing: line, in: context) else { return nil }
  return rule
}

/// Vigna's SplitMix64.
struct SplitMix64: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }
  mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &self) < percent }
  mutating func pick<C: Collection>(_ items: C) -> C.Element { items.randomElement(using: &self)! }
}

/// Random rules, as many of them plain as people write.
struct RuleGenerator {
  var random: SplitMix64

  mutating func rule() -> Rule {
    var rule = Rule(match: match(), decision: decision())
    if random.chance(50) { rule.id = Int.random(in: Rule.ids, using: &random) }
    if random.chance(15) { rule.group = Int.random(in: Rule.groups, using: &random) }
    if random.chance(35) { rule.priority = random.chance(5) ? 0 : Int.random(in: Rule.priorities, using: &random) }
    if random.chance(12) { rule.owner = random.pick(context.vms) }
    if random.chance(15) { rule.counts = true }
    return rule
  }

  private mutating func decision() -> Rule.Decision {
    switch Int.random(in: 0..<10, using: &random) {
    case 0, 1: return .drop
    case 2, 3, 4: return .queue(Int.random(in: 0...127, using: &random))
    case 5: return .host
    default:
      let names = context.vms.shuffled(using: &random).prefix(random.chance(80) ? 1 : Int.random(in: 2...3, using: &random))
      var targets: [Rule.Target] = []
      for name in names { targets.append(Rule.Target(name, queue: random.chance(50) ? Int.random(in: 0...127, using: &random) : nil)) }
      return .deliver(targets)
    }
  }

  private mutating func match() -> Match {
    var fields: [Field] = []
    if random.chance(20) { fields.append(.ethernetDestination) }
    if random.chance(10) { fields.append(.ethernetSource) }
    if random.chance(40) { fields.append(.etherType) }
    if random.chance(20) { fields.append(.vlanID) }
    if random.chance(10) { fields.append(.vlanPriority) }
    if random.chance(60) {
      let is6 = random.chance(40)
      if random.chance(50) { fields.append(is6 ? .ip6Source : .ip4Source) }
      if random.chance(50) { fields.append(is6 ? .ip6Destination : .ip4Destination) }
    }
    if random.chance(25) { fields.append(.ipProtocol) }
    if random.chance(10) { fields.append(.ipTOS) }
    if random.chance(8) { fields.append(.ipFragment) }
    if random.chance(50) {
      let transport = random.pick(Transport.allCases)
      if random.chance(50) { fields.append(transport.source) }
      if random.chance(60) { fields.append(transport.destination) }
      if transport == .tcp && random.chance(20) { fields.append(.tcpFlags) }
    }
    if random.chance(6) { for _ in 0..<Int.random(in: 1...3, using: &random) { fields.append(.flexible(offset: Int.random(in: 0...254, using: &random))) } }
    var match = Match()
    // What contradicts the rest is left out.
    for field in fields { try? match.insert(Match.Pair(field, pattern(field))) }
    return match
  }

  private mutating func pattern(_ field: Field) -> Pattern {
    switch field {
    case .ipFragment: return random.pick([.bits(0, mask: 3), .bits(1, mask: 1), .bits(1, mask: 3), .bits(3, mask: 3)])
    case .vlanID where random.chance(10): return .absent
    case .etherType where random.chance(80): return .exactly(random.pick([0x0800, 0x0800, 0x86DD, 0x86DD, 0x0806, 0x8100, 0x88CC, 0x1234] as [UInt16]), in: field)
    case .ipProtocol where random.chance(80): return .exactly(random.pick([1, 6, 17, 47, 50, 58, 132] as [UInt8]), in: field)
    case _ where field.isPort && random.chance(15):
      let (a, b) = (UInt16.random(in: 0...65_535, using: &random), UInt16.random(in: 0...65_535, using: &random))
      if a != b { return random.chance(5) ? .range(0...65_535) : .range(min(a, b)...max(a, b)) }
      return .exactly(a, in: field)
    default: break
    }
    let value = UInt128(random.next()) << 64 | UInt128(random.next())
    var mask = field.fullMask
    switch Int.random(in: 0..<10, using: &random) {
    case 0: mask = 0
    case 1: mask = (UInt128(random.next()) << 64 | UInt128(random.next())) & field.fullMask
    case 2, 3, 4: mask = field.fullMask << UInt128(Int.random(in: 0..<field.width, using: &random)) & field.fullMask
    default: break
    }
    return .bits(value & mask, mask: mask)
  }
}
