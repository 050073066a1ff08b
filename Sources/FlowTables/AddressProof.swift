internal import FlowSteering

/// Shows that a card's tables send every frame to the VMs that the address rules say, kind by kind.
struct AddressProof {
  let steering: Steering
  let profile: CardProfile
  let tables: CardTables
  let map: AddressMap
  let keepsUnclaimed: Bool

  /// Where a frame comes to before flow filters: pools, or one queue.
  struct Outcome: Hashable {
    var pools: UInt64
    var queue: Int?
  }

  func check() throws(RuleError) {
    let paths = AddressPaths(tables, choosesPool: profile.etherTypeChoosesPool)
    let known = Set(map.destinations.compactMap { if case .exactly(let address) = $0 { address } else { nil } })
    for (d, destination) in map.destinations.enumerated() {
      let address = destination.sample(avoiding: known)
      for (v, tag) in map.tags.enumerated() {
        let value: AddressPaths.Tag =
          switch tag {
          case .none: .none
          case .exactly(let value): .vlan(value)
          case .other: .unknown
          }
        for (e, etherType) in map.etherTypes.enumerated() {
          let index = map.rule(d, v, e)
          let type: UInt16? = if case .exactly(let value) = etherType { value } else { nil }
          let found = paths.outcome(address, value, type)
          let wanted = try wanted(index)
          if found.pools != wanted.pools || found.pools.nonzeroBitCount == 1 && found.queue ?? 0 != wanted.queue ?? 0 {
            throw mismatch(index, found, (d, v, e))
          }
          // A queue that a rule names is the end; without a filter that says so, flow rules come after.
          if wanted.queue != nil && found.queue == nil { throw mismatch(index, found, (d, v, e)) }
        }
      }
    }
  }

  private func wanted(_ index: Int?) throws(RuleError) -> Outcome {
    guard let index else { return Outcome(pools: keepsUnclaimed ? 1 << UInt64(tables.plan.nowhere) : 0) }
    switch steering.rules[index].decision {
    case .deliver(let targets):
      let pools = targets.reduce(UInt64(0)) { $0 | 1 << UInt64(steering.number(of: $1.vm)) }
      if targets.contains(where: { $0.queue != nil }) && targets.count > 1 {
        throw RuleError(
          .actionUnsupported, "\"\(steering.rules[index].decision)\": the \(profile.name) chooses the queues of copies itself",
          fit: "leave the queues out", rule: steering.rules[index].label)
      }
      return Outcome(pools: pools, queue: targets[0].queue)
    case .host: return Outcome(pools: 1 << UInt64(tables.plan.host))
    case .drop, .queue: return Outcome(pools: 0)
    }
  }

  private func mismatch(_ index: Int?, _ found: Outcome, _ place: (Int, Int, Int)) -> RuleError {
    let frames = map.text(place.0, place.1, place.2)
    let names = tables.names(of: found.pools, steering)
    let where_ = found.pools == 0 ? "nowhere" : "to \(names)"
    if let index {
      let rule = steering.rules[index]
      if let type = tables.etherTypes.first(where: { map.etherTypes[place.2] == .exactly($0.type) }), type.rule != index {
        return RuleError(
          .priority, "\(frames) would go \(where_): on the \(profile.name) a filter for an EtherType comes before addresses and VLANs",
          fit: "give \(steering.rules[type.rule].label) a priority before \(rule.precedence.priority)", rule: rule.label, holder: steering.rules[type.rule].label)
      }
      if case .deliver(let targets) = rule.decision, targets.contains(where: { $0.queue != nil }) {
        return RuleError(
          .actionUnsupported, "\"\(rule.decision)\": the \(profile.name) lets an address or a VLAN name a VM, not a queue",
          fit: "leave the queue out; \"for \(targets[0].vm) match … then queue \(targets[0].queue ?? 0)\" names it by IP address or port", rule: rule.label)
      }
      return RuleError(
        .fieldUnsupported,
        "\(frames) would go \(where_), not to \"\(rule.decision)\": the \(profile.name) decides by address and by VLAN apart from each other",
        fit: "use either addresses or VLANs, or give each VM's rules both", rule: rule.label, field: "vlan.id")
    }
    return RuleError(
      .fieldUnsupported, "\(frames), which no rule takes, would go \(where_): the \(profile.name) decides by address and by VLAN apart from each other",
      fit: "add a rule for them, to a VM or to drop", field: "eth.dst")
  }
}

extension CardTables {
  func names(of pools: UInt64, _ steering: Steering) -> String {
    (0..<64).filter { pools >> UInt64($0) & 1 == 1 }.map { pool in
      pool < steering.receivers.count ? "VM \(steering.receivers[pool].name)" : pool == plan.host ? "the host" : "nobody"
    }.joined(separator: ", ")
  }
}

/// The address step of a card, as its datasheet has it: exact addresses, what pools take besides, VLANs, EtherType.
struct AddressPaths {
  private let tables: CardTables
  private let choosesPool: Bool
  private let addresses: [UInt64: UInt64]
  private let vlans: [UInt16: UInt64]
  private let etherTypes: [UInt16: CardTables.EtherType]

  enum Tag: Hashable {
    case none
    case vlan(UInt16)
    /// Of a VLAN that no filter names.
    case unknown
  }

  init(_ tables: CardTables, choosesPool: Bool) {
    self.tables = tables
    self.choosesPool = choosesPool
    addresses = Dictionary(tables.addresses.map { ($0.address.rawValue, $0.pools) }, uniquingKeysWith: |)
    vlans = Dictionary(tables.vlans.map { ($0.identifier, $0.pools) }, uniquingKeysWith: |)
    etherTypes = Dictionary(tables.etherTypes.map { ($0.type, $0) }, uniquingKeysWith: { first, _ in first })
  }

  func outcome(_ address: MACAddress, _ tag: Tag, _ etherType: UInt16?) -> AddressProof.Outcome {
    let exact = addresses[address.rawValue]
    let isBroadcast = address == .broadcast
    let kind: CardTables.Kinds = isBroadcast ? .broadcast : address.isGroup ? .multicast : .unicast
    guard exact != nil || !tables.admitted.intersection(kind).isEmpty else { return .init(pools: 0) }
    var pools = exact ?? 0
    if isBroadcast {
      pools |= tables.broadcastPools
    } else if address.isGroup {
      pools |= tables.multicastPools
    } else if pools == 0 {
      pools = tables.unicastPools
    }
    if tables.filtersVLANs {
      switch tag {
      case .none: pools &= tables.untaggedPools
      case .vlan(let identifier):
        guard tables.admitsEveryVLAN || vlans[identifier] != nil else { return .init(pools: 0) }
        pools &= vlans[identifier] ?? 0
      case .unknown:
        guard tables.admitsEveryVLAN else { return .init(pools: 0) }
        pools = 0
      }
    }
    if pools == 0, let pool = tables.defaultPool { pools = 1 << UInt64(pool) }
    var queue: Int?
    if let filter = etherType.flatMap({ etherTypes[$0] }) {
      if choosesPool {
        pools = 1 << UInt64(filter.queue.pool)
      } else {
        // It names a queue for each copy: that is one copy only if there was one.
        guard pools.nonzeroBitCount == 1 else { return .init(pools: pools) }
        pools = 1 << UInt64(filter.queue.pool)
      }
      queue = filter.queue.number
    }
    return .init(pools: pools & ~(1 << UInt64(tables.plan.closed)), queue: queue)
  }
}
