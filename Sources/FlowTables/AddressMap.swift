internal import FlowSteering

/// All that the address rules of a port can tell apart: kinds of destination, of VLAN, and of EtherType. Two frames of
/// the same kinds go the same way, so what holds for each combination of kinds holds for every frame.
struct AddressMap {
  enum Destination: Hashable {
    case exactly(MACAddress)
    case otherUnicast, otherMulticast
    /// One such address.
    func sample(avoiding known: Set<MACAddress>) -> MACAddress {
      switch self {
      case .exactly(let address): address
      case .otherUnicast: Self.free(from: 0x0200_5E00_0000, known)
      case .otherMulticast: Self.free(from: 0x0300_5E00_0000, known)
      }
    }
    private static func free(from first: UInt64, _ known: Set<MACAddress>) -> MACAddress {
      var value = first
      while known.contains(MACAddress(value)) { value += 1 }
      return MACAddress(value)
    }
    var isGroup: Bool {
      switch self {
      case .exactly(let address): address.isGroup
      case .otherUnicast: false
      case .otherMulticast: true
      }
    }
    var isBroadcast: Bool { self == .exactly(.broadcast) }
  }
  enum Tag: Hashable {
    case none
    case exactly(UInt16)
    case other
  }
  enum EtherType: Hashable {
    case exactly(UInt16)
    case other
  }

  let destinations: [Destination]
  let tags: [Tag]
  let etherTypes: [EtherType]
  /// The rules of the address step, as indices into the steering's, first first.
  let rules: [Int]
  /// By place in the lists above: which rules such a frame matches, bit n the n-th of `rules`.
  private let byDestination: [Bits]
  private let byTag: [Bits]
  private let byEtherType: [Bits]

  struct Bits: Hashable {
    var words: [UInt64]
    init(count: Int) { words = Array(repeating: 0, count: (count + 63) / 64) }
    mutating func insert(_ n: Int) { words[n / 64] |= 1 << UInt64(n % 64) }
    func first(_ b: Bits, _ c: Bits) -> Int? {
      for index in words.indices {
        let common = words[index] & b.words[index] & c.words[index]
        if common != 0 { return index * 64 + common.trailingZeroBitCount }
      }
      return nil
    }
  }

  /// - Throws: for a rule that tells more apart than a card can: the sender, a priority, part of an address.
  init(_ steering: Steering, of profile: CardProfile) throws(RuleError) {
    var destinations: [Destination] = [.exactly(.broadcast)]
    var tags: [Tag] = [.none, .exactly(0)]
    var etherTypes: [EtherType] = []
    let rules = steering.rules.indices.filter { steering.rules[$0].step == .address }
    var seen = Set<UInt64>([MACAddress.broadcast.rawValue])
    var seenTags = Set<UInt16>([0])
    for index in rules {
      let rule = steering.rules[index]
      for pair in rule.match.pairs {
        switch (pair.field, pair.pattern) {
        case (.ethernetDestination, .bits(let value, mask: 0xFFFF_FFFF_FFFF)):
          if seen.insert(UInt64(value)).inserted { destinations.append(.exactly(MACAddress(UInt64(value)))) }
        case (.ethernetDestination, .bits(_, mask: 0x0100_0000_0000)), (.ethernetDestination, .bits(_, mask: 0)): break
        case (.ethernetDestination, _):
          throw RuleError(
            .fieldUnsupported, "eth.dst=\(pair.text): the \(profile.name) compares an address whole, or by its group bit",
            fit: "name each address (\(profile.receiveAddresses) can be held), or write eth.dst=multicast", rule: rule.label, field: "eth.dst")
        case (.vlanID, .absent), (.vlanID, .bits(_, mask: 0)): break
        case (.vlanID, .bits(let value, mask: 0xFFF)): if seenTags.insert(UInt16(value)).inserted { tags.append(.exactly(UInt16(value))) }
        case (.etherType, .bits(let value, mask: 0xFFFF)):
          if !etherTypes.contains(.exactly(UInt16(value))) { etherTypes.append(.exactly(UInt16(value))) }
        case (.ethernetSource, _):
          throw RuleError(
            .fieldUnsupported, "eth.src: the \(profile.name) does not look at a sender's address", fit: "name the destination, or ip.src",
            rule: rule.label, field: "eth.src")
        case (.vlanPriority, _):
          throw RuleError(
            .fieldUnsupported, "vlan.pcp: the \(profile.name) looks at a priority together with IP addresses only",
            fit: profile.exactFlows.isEmpty ? "name the VLAN" : "add vlan.id and ip.src or ip.dst", rule: rule.label, field: "vlan.pcp")
        default:
          throw RuleError(
            .fieldUnsupported, "\(pair.field.name)=\(pair.text): the \(profile.name) compares \(pair.field.name) whole",
            fit: "name each value", rule: rule.label, field: pair.field.name)
        }
      }
    }
    self.destinations = destinations + [.otherUnicast, .otherMulticast]
    self.tags = tags + [.other]
    self.etherTypes = etherTypes + [.other]
    self.rules = rules

    // A frame for each kind, held against each rule as the reference would.
    let known = Set(seen.map { MACAddress($0) })
    let freeTag = (1...4095).first { !seenTags.contains(UInt16($0)) } ?? 4095
    let usedTypes = Set(etherTypes)
    let freeType = (0x0600...0xFFFF).first { !usedTypes.contains(.exactly(UInt16($0))) && $0 != 0x8100 } ?? 0x0600
    func bits(_ field: Field, _ value: UInt128?) -> Bits {
      var bits = Bits(count: rules.count)
      for (place, index) in rules.enumerated() {
        let pattern = steering.rules[index].match[field]
        if pattern.map({ $0.matches(value) }) ?? true { bits.insert(place) }
      }
      return bits
    }
    byDestination = self.destinations.map { bits(.ethernetDestination, UInt128($0.sample(avoiding: known).rawValue)) }
    byTag = self.tags.map { tag in
      switch tag {
      case .none: bits(.vlanID, nil)
      case .exactly(let value): bits(.vlanID, UInt128(value))
      case .other: bits(.vlanID, UInt128(freeTag))
      }
    }
    byEtherType = self.etherTypes.map { type in
      switch type {
      case .exactly(let value): bits(.etherType, UInt128(value))
      case .other: bits(.etherType, UInt128(freeType))
      }
    }
  }

  /// The rule that decides, by the places of the kinds; an index into the steering's rules.
  func rule(_ destination: Int, _ tag: Int, _ etherType: Int) -> Int? {
    byDestination[destination].first(byTag[tag], byEtherType[etherType]).map { rules[$0] }
  }

  /// Such frames, in words.
  func text(_ destination: Int, _ tag: Int, _ etherType: Int) -> String {
    var words: [String] = []
    switch destinations[destination] {
    case .exactly(.broadcast): words.append("broadcast frames")
    case .exactly(let address): words.append("frames for \(address)")
    case .otherUnicast: words.append("frames for addresses that no rule names")
    case .otherMulticast: words.append("multicast frames")
    }
    switch tags[tag] {
    case .none: words.append("without a VLAN tag")
    case .exactly(let value): words.append("on VLAN \(value)")
    case .other: words.append("on VLANs that no rule names")
    }
    if case .exactly(let type) = etherTypes[etherType] { words.append("of type \(Match.Pair(.etherType, .exactly(type, in: .etherType)).text)") }
    return words.joined(separator: " ")
  }
}
