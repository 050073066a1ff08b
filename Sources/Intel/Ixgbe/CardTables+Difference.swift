internal import FlowSteering
internal import FlowTables

extension CardTables {
  func hasSameVLANs(as other: CardTables) -> Bool {
    filtersVLANs == other.filtersVLANs && vlans == other.vlans && untaggedPools == other.untaggedPools && admitsEveryVLAN == other.admitsEveryVLAN
  }
  func hasSameAddresses(as other: CardTables) -> Bool {
    addresses == other.addresses && broadcastPools == other.broadcastPools && multicastPools == other.multicastPools && unicastPools == other.unicastPools
  }

  /// Whose frames are, apart from where those wait that nobody claims.
  func hasSameAddressStep(as other: CardTables) -> Bool {
    let open: UInt64 = ~(1 << UInt64(plan.closed))
    func claims(_ tables: CardTables) -> [MACAddress: UInt64] {
      Dictionary(tables.addresses.map { ($0.address, $0.pools & open) }, uniquingKeysWith: |).filter { $0.value != 0 }
    }
    func tags(_ tables: CardTables) -> [UInt16: UInt64] {
      Dictionary(tables.vlans.map { ($0.identifier, $0.pools & open) }, uniquingKeysWith: |).filter { $0.value != 0 }
    }
    return claims(self) == claims(other) && broadcastPools & open == other.broadcastPools & open && multicastPools & open == other.multicastPools & open
      && unicastPools & open == other.unicastPools & open && filtersVLANs == other.filtersVLANs && tags(self) == tags(other)
      && untaggedPools & open == other.untaggedPools & open && etherTypes.map(\.type) == other.etherTypes.map(\.type)
      && etherTypes.map(\.queue) == other.etherTypes.map(\.queue)
  }

  /// Whether nothing of the address step differs but the pools of single addresses, and there is room for those of both.
  func differsInAddressesOnly(from other: CardTables) -> Bool {
    hasSameVLANs(as: other) && broadcastPools == other.broadcastPools && multicastPools == other.multicastPools && unicastPools == other.unicastPools
      && admitted == other.admitted && defaultPool == other.defaultPool && etherTypes.map(\.type) == other.etherTypes.map(\.type)
      && etherTypes.map(\.queue) == other.etherTypes.map(\.queue) && Set(addresses.map(\.address)).union(other.addresses.map(\.address)).count <= 128
  }

  func hasSameFlows(as other: CardTables) -> Bool {
    func tuples(_ tables: CardTables) -> [FiveTuple.Key: [Int]] {
      Dictionary(tables.fiveTuples.map { ($0.key, [$0.queue.pool, $0.queue.number, $0.priority]) }, uniquingKeysWith: { first, _ in first })
    }
    func flows(_ tables: CardTables) -> [ExactFlow.Key: Queue?] { Dictionary(tables.exactFlows.map { ($0.key, $0.queue) }, uniquingKeysWith: { first, _ in first }) }
    return syn?.queue == other.syn?.queue && syn?.isFirst == other.syn?.isFirst && tuples(self) == tuples(other)
      && (exactFlows.isEmpty || flowMask == other.flowMask) && flows(self) == flows(other)
  }

  /// What both let through.
  func intersection(with other: CardTables) -> CardTables {
    var result = other
    let pools = Dictionary(addresses.map { ($0.address, $0.pools) }, uniquingKeysWith: |)
    // Where one names an address and the other does not, what the other's pools take of its kind is what they have in common.
    func others(_ tables: CardTables, _ address: MACAddress) -> UInt64 { address.isGroup ? tables.multicastPools : tables.unicastPools }
    var all = Dictionary(other.addresses.map { ($0.address, $0.pools & (pools[$0.address] ?? others(self, $0.address))) }, uniquingKeysWith: |)
    for entry in addresses where all[entry.address] == nil { all[entry.address] = entry.pools & others(other, entry.address) }
    result.addresses = all.map { CardTables.Address(address: $0.key, pools: $0.value == 0 ? 1 << UInt64(plan.closed) : $0.value) }.sorted { $0.address < $1.address }
    result.broadcastPools &= broadcastPools
    result.multicastPools &= multicastPools
    result.unicastPools &= unicastPools
    result.filtersVLANs = filtersVLANs || other.filtersVLANs
    guard filtersVLANs, other.filtersVLANs else {
      // One of them looks at no VLAN: the other's are what both have.
      let narrow = filtersVLANs ? self : other
      (result.vlans, result.untaggedPools, result.admitsEveryVLAN) = (narrow.vlans, narrow.untaggedPools, narrow.admitsEveryVLAN)
      return result
    }
    let tags = Dictionary(vlans.map { ($0.identifier, $0.pools) }, uniquingKeysWith: |)
    result.vlans = other.vlans.compactMap { entry in
      tags[entry.identifier].map { CardTables.VLAN(identifier: entry.identifier, pools: entry.pools & $0) }
    }
    result.untaggedPools &= untaggedPools
    result.admitsEveryVLAN = admitsEveryVLAN || other.admitsEveryVLAN
    return result
  }
}
