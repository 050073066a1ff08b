extension Match {
  /// The same frames, said without what follows from the rest: of rules that dialects share, equal ones are equal values.
  ///
  /// - `eth.type` goes where an address says the IP version, `ip.proto` where ports or flags say the transport.
  /// - A port or flags of which nothing is looked at become `ip.proto`; in other words 0-65535 does.
  /// - What every frame has goes if nothing of it is looked at; of a tag that must only be there, `vlan.id=0/0` stays.
  public var canonical: Match {
    var list = pairs.map { Pair($0.field, $0.pattern.canonical(in: $0.field)) }
    func isOpen(_ pair: Pair) -> Bool { if case .bits(_, mask: 0) = pair.pattern { true } else { false } }
    list.removeAll { isOpen($0) && ($0.field == .etherType || $0.field == .ethernetSource || $0.field == .ethernetDestination) }
    let tag = list.filter { $0.field == .vlanID || $0.field == .vlanPriority }
    if !tag.isEmpty {
      list.removeAll { isOpen($0) && tag.contains($0) }
      if tag.allSatisfy(isOpen) { list.append(Pair(.vlanID, .bits(0, mask: 0))) }
    }
    if let transport = list.lazy.compactMap(\.field.transport).first {
      list.removeAll { isOpen($0) && $0.field.transport != nil || $0.field == .ipProtocol }
      if !list.contains(where: { $0.field.transport != nil }) { list.append(Pair(.ipProtocol, .exactly(transport.number, in: .ipProtocol))) }
    }
    if list.contains(where: { $0.field.ipVersion != nil }) { list.removeAll { $0.field == .etherType } }
    return Match(list)
  }
}

extension Pattern {
  func canonical(in field: Field) -> Pattern {
    switch self {
    case .range(0...65_535): return .bits(0, mask: 0)
    case .range(let range) where range.lowerBound == range.upperBound: return .exactly(range.lowerBound, in: field)
    // One bit says it all: what is no fragment is no later one.
    case .bits(0, mask: 1) where field == .ipFragment: return .bits(0, mask: 3)
    case .bits(2, mask: 2) where field == .ipFragment: return .bits(3, mask: 3)
    default: return self
    }
  }
}

extension Rule {
  /// The same rule with the canonical match.
  public var canonical: Rule {
    var rule = self
    rule.match = match.canonical
    return rule
  }
}
