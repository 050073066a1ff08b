internal import FlowSteering

/// Makes the address rules into exact addresses, VLAN filters, EtherType filters and what pools take besides.
///
/// What pools a frame goes to is, on these cards, what its destination allows and what its VLAN allows: a product. The
/// tables are made so, and whether the product is what the rules say is the proof's to find out.
struct AddressCompiler {
  let steering: Steering
  let profile: CardProfile
  let plan: PoolPlan
  let map: AddressMap
  /// Whether flow rules look at frames that are nobody's: then those wait in a pool that goes nowhere.
  let keepsUnclaimed: Bool

  private static func bit(_ pool: Int) -> UInt64 { 1 << UInt64(pool) }

  /// The pools that a rule names: the closed one for what it drops.
  func pools(of rule: Int?) -> UInt64 {
    guard let rule else { return 0 }
    switch steering.rules[rule].decision {
    case .deliver(let targets): return targets.reduce(0) { $0 | Self.bit(steering.number(of: $1.vm)) }
    case .host: return Self.bit(plan.host)
    case .drop: return Self.bit(plan.closed)
    case .queue: preconditionFailure("a rule for a queue is a flow rule")
    }
  }

  func compile() throws(RuleError) -> CardTables {
    var tables = CardTables(plan: plan)
    let other = map.etherTypes.count - 1
    // By destination and VLAN.
    let wanted = map.destinations.indices.map { d in map.tags.indices.map { v in pools(of: map.rule(d, v, other)) } }
    let byDestination = wanted.map { $0.reduce(0, |) }
    let byTag = map.tags.indices.map { v in wanted.reduce(UInt64(0)) { $0 | $1[v] } }
    tables.filtersVLANs = wanted.contains { row in row.contains { $0 != row[0] } }

    try addEtherTypes(&tables)
    let admitsAll = keepsUnclaimed || !tables.etherTypes.isEmpty
    setKinds(&tables, byDestination, admitsAll: admitsAll)
    try addAddresses(&tables, byDestination)
    if tables.filtersVLANs { try addVLANs(&tables, byTag, admitsAll: admitsAll) }
    if keepsUnclaimed { tables.defaultPool = plan.nowhere }
    return tables
  }

  private func setKinds(_ tables: inout CardTables, _ pools: [UInt64], admitsAll: Bool) {
    for (place, destination) in map.destinations.enumerated() {
      switch destination {
      case .exactly(.broadcast): tables.broadcastPools = pools[place]
      case .otherUnicast: tables.unicastPools = pools[place]
      case .otherMulticast: tables.multicastPools = pools[place]
      case .exactly: break
      }
    }
    // The closed pool takes what would otherwise wait for flow rules; where nothing waits, not to let in is enough.
    if !keepsUnclaimed {
      let open = ~Self.bit(plan.closed)
      tables.broadcastPools &= open
      tables.unicastPools &= open
      tables.multicastPools &= open
    }
    if admitsAll || tables.broadcastPools != 0 { tables.admitted.insert(.broadcast) }
    if admitsAll || tables.multicastPools != 0 { tables.admitted.insert(.multicast) }
    if admitsAll || tables.unicastPools != 0 { tables.admitted.insert(.unicast) }
  }

  private func addAddresses(_ tables: inout CardTables, _ pools: [UInt64]) throws(RuleError) {
    for (place, destination) in map.destinations.enumerated() {
      guard case .exactly(let address) = destination, !destination.isBroadcast else { continue }
      let others = destination.isGroup ? tables.multicastPools : tables.unicastPools
      if pools[place] == others { continue }
      if pools[place] == 0 && tables.admitted.intersection(destination.isGroup ? .multicast : .unicast).isEmpty { continue }
      // Of an address that nobody wants the closed pool is the end, where others of its kind have takers.
      let all = pools[place] == 0 ? Self.bit(plan.closed) : pools[place]
      if tables.addresses.count == profile.receiveAddresses {
        let rule = map.rules.first { steering.rules[$0].match[.ethernetDestination] == .exactly(address.rawValue, in: .ethernetDestination) }
        throw RuleError(
          .tableFull, "eth.dst=\(address): the \(profile.name) holds \(profile.receiveAddresses) addresses, and all are taken",
          fit: "let a VLAN decide, or remove a rule for an address", rule: rule.map { steering.rules[$0].label }, field: "eth.dst")
      }
      tables.addresses.append(CardTables.Address(address: address, pools: all))
    }
  }

  private func addVLANs(_ tables: inout CardTables, _ pools: [UInt64], admitsAll: Bool) throws(RuleError) {
    tables.admitsEveryVLAN = admitsAll
    for (place, tag) in map.tags.enumerated() {
      switch tag {
      case .none: tables.untaggedPools = pools[place]
      case .exactly(let identifier):
        if pools[place] == 0 { continue }
        if tables.vlans.count == profile.vlanFilters {
          let rule = map.rules.first { steering.rules[$0].match[.vlanID] == .exactly(identifier, in: .vlanID) }
          throw RuleError(
            .tableFull, "vlan.id=\(identifier): the \(profile.name) holds \(profile.vlanFilters) VLANs, and all are taken",
            fit: "let addresses decide, or remove a rule for a VLAN", rule: rule.map { steering.rules[$0].label }, field: "vlan.id")
        }
        tables.vlans.append(CardTables.VLAN(identifier: identifier, pools: pools[place]))
      case .other: break
      }
    }
  }

  private func addEtherTypes(_ tables: inout CardTables) throws(RuleError) {
    for (place, type) in map.etherTypes.enumerated() {
      guard case .exactly(let value) = type else { continue }
      // The first rule for this type and no other condition.
      let index = map.rules.first { steering.rules[$0].match.pairs == [Match.Pair(.etherType, .exactly(value, in: .etherType))] }
      let some = map.rules.first { steering.rules[$0].match[.etherType] == .exactly(value, in: .etherType) }
      guard let some else { preconditionFailure("a kind without a rule") }
      if profile.etherTypeFilters == 0 {
        let rule = steering.rules[some]
        throw RuleError(
          .fieldUnsupported, "match \(rule.match): the \(profile.name) has no EtherType filters that work with pools", fit: "steer by eth.dst or vlan.id",
          rule: rule.label, field: "eth.type")
      }
      guard let index else {
        let rule = steering.rules[some]
        throw RuleError(
          .fieldUnsupported, "match \(rule.match): an EtherType filter of the \(profile.name) looks at nothing else",
          fit: "leave the rest out, or the type", rule: rule.label, field: "eth.type")
      }
      let rule = steering.rules[index]
      if let version = IPVersion.allCases.first(where: { $0.etherType == value }) {
        throw RuleError(
          .fieldUnsupported, "eth.type=\(version == .v4 ? "ip" : "ip6"): the EtherType filters of the \(profile.name) are not for IP",
          fit: version == .v4 ? "write ip.frag=no beside it, for all IPv4 but fragments" : "name ip.src or a port", rule: rule.label, field: "eth.type")
      }
      if tables.etherTypes.count == profile.etherTypeFilters {
        throw RuleError(
          .tableFull, "eth.type=\(map.etherTypes[place] == type ? Match.Pair(.etherType, .exactly(value, in: .etherType)).text : ""): the \(profile.name) has \(profile.etherTypeFilters) EtherType filters, and all are taken",
          fit: "remove a rule for another type", rule: rule.label, holder: tables.etherTypes.last.map { steering.rules[$0.rule].label }, field: "eth.type")
      }
      tables.etherTypes.append(CardTables.EtherType(type: value, queue: try queue(of: index), rule: index))
    }
  }

  private func queue(of index: Int) throws(RuleError) -> CardTables.Queue {
    let rule = steering.rules[index]
    switch rule.decision {
    case .deliver(let targets):
      guard targets.count == 1 else {
        throw RuleError(
          .actionUnsupported, "\"\(rule.decision)\": an EtherType filter of the \(profile.name) names one VM",
          fit: "copies come by address only: match eth.dst=multicast then \(rule.decision)", rule: rule.label)
      }
      return CardTables.Queue(pool: steering.number(of: targets[0].vm), number: targets[0].queue ?? 0)
    case .host: return CardTables.Queue(pool: plan.host)
    case .drop: return CardTables.Queue(pool: plan.closed)
    case .queue: preconditionFailure("a rule for a queue is a flow rule")
    }
  }
}
