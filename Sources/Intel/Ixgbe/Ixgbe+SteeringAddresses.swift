internal import Bus
internal import FlowSteering
internal import FlowTables

// The order of the steps is told in Ixgbe+Steering.
extension Ixgbe: AddressTables {
  func setAdmitted(_ kinds: CardTables.Kinds) {
    registers.modify(FCTRL.self) {
      $0.acceptsBroadcast = kinds.contains(.broadcast)
      $0.acceptsAllMulticast = kinds.contains(.multicast)
      $0.acceptsAllUnicast = kinds.contains(.unicast)
    }
  }

  func setDefaultPool(_ pool: Int?) {
    registers.modify(PFVTCTL.self) {
      $0.defaultPool = UInt32(pool ?? 0)
      $0.dropsUnclaimed = pool == nil
    }
  }

  /// Each destination changes once: by its own entry if it comes or stays, with all others if it goes.
  func setAddresses(_ tables: CardTables) throws(IntelError) {
    let wanted = Dictionary(tables.addresses.map { ($0.address, $0.pools) }, uniquingKeysWith: |)
    let fresh = wanted.keys.count { steering.addressSlots[$0] == nil }
    if fresh > steering.freeAddressSlots.count { try removeAddresses(notIn: wanted) }
    for (address, pools) in wanted.sorted(by: { $0.key < $1.key }) {
      let known = steering.addressSlots[address]
      guard let slot = known ?? steering.freeAddressSlots.popLast() else { throw .tableFull("receive addresses", count: 128) }
      setPools(pools, ofAddress: slot)
      guard known == nil else { continue }
      // The valid bit comes with the last of them.
      registers.write(RAL(address), slot)
      registers.write(RAH(address), slot)
      steering.addressSlots[address] = slot
    }
    if tables.unicastPools != 0 { setUnicastTable(.max) }
    for isLast in [false, true] {
      for pool in 0..<configuration.poolCount { setAccepted(pool, tables, onlyLess: !isLast) }
    }
    if tables.unicastPools == 0 { setUnicastTable(0) }
    try removeAddresses(notIn: wanted)
  }

  /// One write where one half of the pools changes: every frame is the old pools' or the new ones'. Where both do, frames
  /// that move between them are nobody's for a moment, rather than both's.
  private func setPools(_ pools: UInt64, ofAddress slot: Int) {
    let changed = (0..<2).filter { registers.read(MPSAR.self, 2 * slot + $0).rawValue != Self.half($0, of: pools) }
    if changed.count == 2 {
      for n in changed { registers.modify(MPSAR.self, 2 * slot + n) { $0.rawValue &= Self.half(n, of: pools) } }
    }
    for n in changed { registers.write(MPSAR(rawValue: Self.half(n, of: pools)), 2 * slot + n) }
  }

  private func removeAddresses(notIn wanted: [MACAddress: UInt64]) throws(IntelError) {
    for (address, slot) in steering.addressSlots where wanted[address] == nil {
      try clearAddress(slot: slot)
      steering.addressSlots[address] = nil
      steering.freeAddressSlots.append(slot)
    }
  }

  /// Every unicast address, or none: which pools take them, they say themselves.
  private func setUnicastTable(_ bits: UInt32) {
    if registers.read(PFUTA.self).rawValue != bits { for n in 0..<128 { registers.write(PFUTA(rawValue: bits), n) } }
  }

  /// What a pool takes besides its addresses. Whether it takes frames without a tag is said with the VLANs.
  ///
  /// - Parameter onlyLess: leaves away what it takes no more, and adds nothing.
  private func setAccepted(_ pool: Int, _ tables: CardTables, onlyLess: Bool) {
    func has(_ pools: UInt64) -> Bool { pools >> UInt64(pool) & 1 == 1 }
    let now = registers.read(PFVML2FLT.self, pool)
    var filter = PFVML2FLT(rawValue: 0)
    filter.acceptsUntagged = now.acceptsUntagged
    filter.acceptsBroadcast = has(tables.broadcastPools)
    filter.acceptsAllMulticast = has(tables.multicastPools)
    filter.acceptsListedUnicast = has(tables.unicastPools)
    if onlyLess { filter.rawValue &= now.rawValue }
    if now.rawValue != filter.rawValue { registers.write(filter, pool) }
  }

  func setVLANs(_ tables: CardTables) throws(IntelError) {
    if !tables.filtersVLANs { registers.modify(VLNCTRL.self) { $0.filters = false } }
    let wanted = Dictionary(tables.vlans.map { ($0.identifier, $0.pools) }, uniquingKeysWith: |)
    func bits(_ n: Int) -> UInt32 {
      tables.admitsEveryVLAN ? .max : (0..<32).reduce(0) { wanted[UInt16(32 * n + $1)] == nil ? $0 : $0 | 1 << UInt32($1) }
    }
    // What comes in at all: more of it before its pools are said, less of it after.
    for n in 0..<128 { setVFTA(n, registers.read(VFTA.self, n).rawValue | bits(n)) }
    let stale = vlans.all.filter { wanted[$0] == nil }
    if wanted.count + stale.count > 64 { for identifier in stale { setVLANPools(identifier, 0) } }
    for (identifier, pools) in wanted.sorted(by: { $0.key < $1.key }) {
      guard vlans.slot(identifier) != nil else { throw .tableFull("VLAN filters", count: 64) }
      setVLANPools(identifier, pools)
    }
    for pool in 0..<configuration.poolCount {
      let isIn = tables.untaggedPools >> UInt64(pool) & 1 == 1
      if registers.read(PFVML2FLT.self, pool).acceptsUntagged != isIn { registers.modify(PFVML2FLT.self, pool) { $0.acceptsUntagged = isIn } }
    }
    if tables.filtersVLANs { registers.modify(VLNCTRL.self) { $0.filters = true } }
    for identifier in stale { setVLANPools(identifier, 0) }
    for n in 0..<128 { setVFTA(n, bits(n)) }
  }

  private func setVFTA(_ n: Int, _ bits: UInt32) {
    if registers.read(VFTA.self, n).rawValue != bits { registers.write(VFTA(rawValue: bits), n) }
  }

  /// The pools of a VLAN, which has an entry or finds a free one; none frees it.
  private func setVLANPools(_ identifier: UInt16, _ pools: UInt64) {
    guard let slot = vlans.slot(identifier) else { return }
    if pools == 0 { registers.write(PFVLVF(rawValue: 0), slot) }
    for n in 0..<2 {
      let half = Self.half(n, of: pools)
      if registers.read(PFVLVFB.self, 2 * slot + n).rawValue != half { registers.write(PFVLVFB(rawValue: half), 2 * slot + n) }
    }
    vlans.set(slot, pools == 0 ? nil : identifier)
    if pools == 0 { return }
    var filter = PFVLVF(rawValue: 0)
    filter.identifier = UInt32(identifier)
    filter.isEnabled = true
    if registers.read(PFVLVF.self, slot).rawValue != filter.rawValue { registers.write(filter, slot) }
  }

  // MARK: EtherType and SYN

  func removeEtherTypes(notIn new: CardTables) throws(IntelError) {
    let wanted = Set(new.etherTypes.map(\.type))
    for (type, slot) in steering.typeSlots where !wanted.contains(type) {
      try clearEtherType(slot: slot)
      steering.typeSlots[type] = nil
      steering.freeTypeSlots.append(slot)
    }
  }

  func addEtherTypes(_ new: CardTables) throws(IntelError) {
    let needed = new.etherTypes.count { steering.typeSlots[$0.type] == nil }
    if needed > steering.freeTypeSlots.count { try removeEtherTypes(notIn: new) }
    for entry in new.etherTypes {
      guard let slot = steering.typeSlots[entry.type] ?? steering.freeTypeSlots.popLast() else { throw .tableFull("EtherType filters", count: 8) }
      steering.typeSlots[entry.type] = slot
      var select = ETQS(rawValue: 0)
      select.queue = number(of: entry.queue)
      select.isEnabled = true
      registers.write(select, slot)
      var filter = ETQF(rawValue: 0)
      filter.etherType = UInt32(entry.type)
      filter.pool = UInt32(entry.queue.pool)
      filter.choosesPool = true
      filter.isEnabled = true
      registers.write(filter, slot)
    }
  }

  func setSYN(_ syn: CardTables.SYN?) {
    var filter = SYNQF(rawValue: 0)
    if let syn {
      filter.isEnabled = true
      filter.queue = number(of: syn.queue)
      filter.isFirst = syn.isFirst
    }
    registers.write(filter)
  }
}
