import FlowDialects
import FlowSteering
import Testing

@Suite struct RoundTripTests {
  static let seed: UInt64 = 0x51_0C_E5
  /// How many of random rules a dialect must be able to say, in hundredths.
  static let least: [Dialect: Int] = [.native: 100, .ethtool: 10, .testpmd: 40, .tc: 25]

  @Test(arguments: Dialect.allCases) func `sets of rules written in a dialect read back as they were`(_ dialect: Dialect) throws {
    var generator = RuleGenerator(random: SplitMix64(state: Self.seed))
    var (written, refused) = (0, 0)
    var codes: [String: Int] = [:]
    for _ in 0..<10_000 {
      var wanted: [RuleCommand] = []
      var file = "# \(dialect)\n"
      for _ in 0..<Int.random(in: 1...2, using: &generator.random) {
        let rule = generator.rule()
        do throws(RuleError) {
          let text = try rule.text(in: dialect, context: context)
          file += text + "\n"
          wanted.append(.add(dialect == .native ? rule : rule.canonical))
          written += 1
        } catch {
          refused += 1
          codes["\(error.code.rawValue) \(error.field ?? "?")", default: 0] += 1
          if ![.fieldUnsupported, .actionUnsupported, .priority].contains(error.code) || error.rule != rule.label
            || !(error.field.map { error.reason.contains($0) } ?? false)
          {
            Issue.record("\(rule.text): \(error)")
          }
        }
      }
      do throws(RuleError) {
        let read = try RuleCommand.commands(in: file, context: context)
        // Each line tells its dialect by itself.
        if read.map(\.command) != wanted || read.map(\.line) != Array(wanted.indices.map { $0 + 2 }) { Issue.record("\(file) became \(read)") }
      } catch { Issue.record("\(file): \(error)") }
    }
    let share = written * 100 / (written + refused)
    let list = codes.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
    print("\(dialect), seed \(Self.seed): \(written) rules written and read back, \(refused) refused (\(100 - share) of 100): \(list)")
    #expect(share >= Self.least[dialect] ?? 0)
  }

  @Test func `the canonical form is one, and reads back from native text`() throws {
    var generator = RuleGenerator(random: SplitMix64(state: Self.seed &+ 1))
    for _ in 0..<5000 {
      let rule = generator.rule().canonical
      #expect(rule.canonical == rule)
      #expect(try Rule(parsing: rule.text) == rule)
    }
  }

  /// The classifier is asked, with frames that are near the rule's.
  @Test func `the canonical form matches the same frames`() throws {
    var generator = RuleGenerator(random: SplitMix64(state: Self.seed &+ 2))
    var matching = 0
    for _ in 0..<3000 {
      let match = generator.rule().match
      let canonical = match.canonical
      for _ in 0..<4 {
        let frame = Self.frame(near: match, &generator.random)
        let bytes = frame.span
        guard let fields = FrameFields(bytes) else { continue }
        let isMatch = match.matches(bytes, fields)
        if isMatch { matching += 1 }
        #expect(isMatch == canonical.matches(bytes, fields), "\(match) became \(canonical)")
      }
    }
    print("frames that match: \(matching) of 12000")
    #expect(matching > 2000)
  }

  /// A frame that has most of what a match asks for.
  static func frame(near match: Match, _ random: inout SplitMix64) -> [UInt8] {
    func bits(_ field: Field, _ random: inout SplitMix64) -> UInt128 {
      let noise = (UInt128(random.next()) << 64 | UInt128(random.next())) & field.fullMask
      switch match[field] {
      case .bits(let value, let mask)?: return random.chance(5) ? noise : value | noise & ~mask
      case .range(let range)?: return UInt128(random.pick([range.lowerBound, range.upperBound]))
      case .absent?, nil: return noise
      }
    }
    var frame: [UInt8] = []
    func put(_ value: UInt128, _ count: Int) { for index in 0..<count { frame.append(UInt8(truncatingIfNeeded: value >> UInt128(8 * (count - 1 - index)))) } }
    put(bits(.ethernetDestination, &random), 6)
    put(bits(.ethernetSource, &random), 6)
    let wantsTag = match[.vlanID].map { $0 != .absent } ?? (match[.vlanPriority] != nil)
    if wantsTag != random.chance(5) {
      put(0x8100, 2)
      put(bits(.vlanPriority, &random) << 13 | bits(.vlanID, &random), 2)
    }
    let version: IPVersion? = match.ipVersion ?? (match.looksAtIP ? random.pick(IPVersion.allCases) : nil)
    put(version.map { UInt128($0.etherType) } ?? bits(.etherType, &random), 2)
    guard let version else { return frame + Array(repeating: 0, count: 60) }
    var number: UInt128 = match.transport.map { UInt128($0.number) } ?? bits(.ipProtocol, &random)
    if [0, 43, 44, 60].contains(number) { number = 1 }
    if version == .v4 {
      let fragment = bits(.ipFragment, &random)
      put(0x45, 1)
      put(bits(.ipTOS, &random), 1)
      put(60, 2)
      put(0, 2)
      put(fragment == 0 || random.chance(50) && match[.ipFragment] == nil ? 0 : fragment == 1 ? 0x2000 : 0x0100, 2)
      put(64, 1)
      put(number, 1)
      put(0, 2)
      put(bits(.ip4Source, &random), 4)
      put(bits(.ip4Destination, &random), 4)
    } else {
      put(0x6000_0000 | bits(.ipTOS, &random) << 20, 4)
      put(40, 2)
      put(number, 1)
      put(64, 1)
      put(bits(.ip6Source, &random), 16)
      put(bits(.ip6Destination, &random), 16)
    }
    let transport = Transport(number: UInt8(number)) ?? .udp
    put(bits(transport.source, &random), 2)
    put(bits(transport.destination, &random), 2)
    put(0, 8)
    put(0x5000 | bits(.tcpFlags, &random), 2)
    return frame + Array(repeating: 0, count: 40)
  }
}
