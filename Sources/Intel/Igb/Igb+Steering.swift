internal import Bus
internal import FlowSteering
public import FlowTables

// The order of every change is Ixgbe+Steering's: a frame changes from the old owner to the new one once, and is nobody's
// between rather than both's. Here an address or a VLAN is one register with its pools, so that most changes are one write.
extension Igb: AddressTables {
  /// What the filter tables hold, and where in them.
  struct State {
    /// Nil: nothing has been applied yet.
    var tables: CardTables?
    var addressSlots: [MACAddress: Int] = [:]
    var freeAddressSlots: [Int]
    var vlanSlots: [UInt16: Int] = [:]
    var freeVLANSlots: [Int]
    var typeSlots: [UInt16: Int] = [:]
    var freeTypeSlots: [Int]
    init(_ variant: Variant) {
      freeAddressSlots = Array((0..<variant.addressCount).reversed())
      freeVLANSlots = Array((0..<variant.vlanCount).reversed())
      freeTypeSlots = Array((0..<variant.profile.etherTypeFilters).reversed())
    }
  }

  public func apply(_ new: CardTables) throws(IntelError) {
    guard new.plan.count == variant.poolCount else { throw .poolCount(new.plan.count, allowed: variant.poolCount...variant.poolCount) }
    precondition(new.syn == nil && new.fiveTuples.isEmpty && new.exactFlows.isEmpty, "rules for flows are not for this card, and its profile says so")
    let old = steering.tables
    if old == nil { registers.modify(VFRE.self) { $0.rawValue &= ~(1 << UInt32(new.plan.closed)) } }
    do throws(IntelError) { try change(from: old ?? CardTables(plan: new.plan), to: new) } catch {
      guard let old else { throw error }
      do throws(IntelError) {
        try disableReceive()
        try change(from: new, to: old)
        try enableReceive()
      } catch { throw .steeringLost("\(error)") }
      throw error
    }
    steering.tables = new
  }

  private func change(from old: CardTables, to new: CardTables) throws(IntelError) {
    try addEtherTypes(new)
    try changeAddressStep(from: old, to: new)
    removeEtherTypes(notIn: new)
    setSending(new.sending)
  }

  public func add(_ filter: CardProgram.Addition) throws(IntelError) {
    throw .unavailable("the \(profile.name) has no filters for flows that work with pools")
  }

  func setDefaultPool(_ pool: Int?) {
    registers.modify(VT_CTL.self) {
      $0.defaultPool = UInt32(pool ?? 0)
      $0.dropsUnclaimed = pool == nil
    }
  }

  func setAdmitted(_ kinds: CardTables.Kinds) {
    registers.modify(RCTL.self) {
      $0.acceptsBroadcast = kinds.contains(.broadcast)
      $0.acceptsAllMulticast = kinds.contains(.multicast)
      $0.acceptsAllUnicast = kinds.contains(.unicast)
    }
  }

  // MARK: Addresses

  func setAddresses(_ tables: CardTables) throws(IntelError) {
    let wanted = Dictionary(tables.addresses.map { ($0.address, $0.pools) }, uniquingKeysWith: |)
    if wanted.keys.count(where: { steering.addressSlots[$0] == nil }) > steering.freeAddressSlots.count { removeAddresses(notIn: wanted) }
    for (address, pools) in wanted.sorted(by: { $0.key < $1.key }) {
      guard let slot = steering.addressSlots[address] ?? steering.freeAddressSlots.popLast() else {
        throw .tableFull("receive addresses", count: variant.addressCount)
      }
      let high = RAH(address, pools: pools)
      if steering.addressSlots.updateValue(slot, forKey: address) == nil { registers.write(RAL(address), slot) }
      // Address, pools and the valid bit in one.
      if registers.read(RAH.self, slot).rawValue != high.rawValue { registers.write(high, slot) }
    }
    // All groups and all other addresses are told by tables in which every bit is set: which pools take them, they say.
    if tables.multicastPools != 0 { setTable(MTA.self, .max) { MTA(rawValue: $0) } }
    if tables.unicastPools != 0 { setTable(UTA.self, .max) { UTA(rawValue: $0) } }
    for isLast in [false, true] { for pool in 0..<variant.poolCount { setAccepted(pool, tables, onlyLess: !isLast) } }
    if tables.multicastPools == 0 { setTable(MTA.self, 0) { MTA(rawValue: $0) } }
    if tables.unicastPools == 0 { setTable(UTA.self, 0) { UTA(rawValue: $0) } }
    removeAddresses(notIn: wanted)
  }

  private func setTable<R: Register32>(_ register: R.Type, _ bits: UInt32, _ make: (UInt32) -> R) {
    if registers.read(R.self).rawValue != bits { for n in 0..<128 { registers.write(make(bits), n) } }
  }

  private func setAccepted(_ pool: Int, _ tables: CardTables, onlyLess: Bool) {
    func contains(_ pools: UInt64) -> Bool { pools >> UInt64(pool) & 1 == 1 }
    let now = registers.read(VMOLR.self, pool)
    var wanted = now
    wanted.acceptsBroadcast = contains(tables.broadcastPools)
    wanted.acceptsListedMulticast = contains(tables.multicastPools)
    wanted.acceptsListedUnicast = contains(tables.unicastPools)
    if onlyLess { wanted.rawValue &= now.rawValue }
    if now.rawValue != wanted.rawValue { registers.write(wanted, pool) }
  }

  private func removeAddresses(notIn wanted: [MACAddress: UInt64]) {
    for (address, slot) in steering.addressSlots where wanted[address] == nil {
      registers.write(RAH(rawValue: 0), slot)
      registers.write(RAL(rawValue: 0), slot)
      steering.addressSlots[address] = nil
      steering.freeAddressSlots.append(slot)
    }
  }

  // MARK: VLANs

  func setVLANs(_ tables: CardTables) throws(IntelError) {
    if !tables.filtersVLANs { registers.modify(RCTL.self) { $0.filtersVLANs = false } }
    let wanted = Dictionary(tables.vlans.map { ($0.identifier, $0.pools) }, uniquingKeysWith: |)
    func bits(_ n: Int) -> UInt32 {
      tables.admitsEveryVLAN ? .max : (0..<32).reduce(0) { wanted[UInt16(32 * n + $1)] == nil ? $0 : $0 | 1 << UInt32($1) }
    }
    // What comes in at all: more of it before its pools are said, less of it after.
    for n in 0..<128 { setVFTA(n, registers.read(VFTA.self, n).rawValue | bits(n)) }
    if wanted.keys.count(where: { steering.vlanSlots[$0] == nil }) > steering.freeVLANSlots.count { removeVLANs(notIn: wanted) }
    for (identifier, pools) in wanted.sorted(by: { $0.key < $1.key }) {
      guard let slot = steering.vlanSlots[identifier] ?? steering.freeVLANSlots.popLast() else {
        throw .tableFull("VLAN filters", count: variant.vlanCount)
      }
      steering.vlanSlots[identifier] = slot
      var filter = VLVF(rawValue: 0)
      (filter.identifier, filter.pools, filter.isEnabled) = (UInt32(identifier), UInt32(pools), true)
      if registers.read(VLVF.self, slot).rawValue != filter.rawValue { registers.write(filter, slot) }
    }
    for pool in 0..<variant.poolCount {
      let isIn = tables.untaggedPools >> UInt64(pool) & 1 == 1
      if registers.read(VMOLR.self, pool).acceptsUntagged != isIn { registers.modify(VMOLR.self, pool) { $0.acceptsUntagged = isIn } }
    }
    if tables.filtersVLANs { registers.modify(RCTL.self) { $0.filtersVLANs = true } }
    removeVLANs(notIn: wanted)
    for n in 0..<128 { setVFTA(n, bits(n)) }
  }

  private func setVFTA(_ n: Int, _ bits: UInt32) {
    if registers.read(VFTA.self, n).rawValue != bits { writeVFTA(n, bits) }
  }
  private func removeVLANs(notIn wanted: [UInt16: UInt64]) {
    for (identifier, slot) in steering.vlanSlots where wanted[identifier] == nil {
      registers.write(VLVF(rawValue: 0), slot)
      steering.vlanSlots[identifier] = nil
      steering.freeVLANSlots.append(slot)
    }
  }

  // MARK: EtherTypes. 7.1.1.4

  private func addEtherTypes(_ new: CardTables) throws(IntelError) {
    if new.etherTypes.count(where: { steering.typeSlots[$0.type] == nil }) > steering.freeTypeSlots.count { removeEtherTypes(notIn: new) }
    for entry in new.etherTypes {
      guard let slot = steering.typeSlots[entry.type] ?? steering.freeTypeSlots.popLast() else {
        throw .tableFull("EtherType filters", count: profile.etherTypeFilters)
      }
      steering.typeSlots[entry.type] = slot
      var filter = ETQF(rawValue: 0)
      filter.etherType = UInt32(entry.type)
      filter.queue = UInt32(queueIndex(pool: entry.queue.pool, queue: entry.queue.number))
      (filter.isEnabled, filter.choosesQueue) = (true, true)
      // Type and queue in one.
      if registers.read(ETQF.self, slot).rawValue != filter.rawValue { registers.write(filter, slot) }
    }
  }

  private func removeEtherTypes(notIn new: CardTables) {
    let wanted = Set(new.etherTypes.map(\.type))
    for (type, slot) in steering.typeSlots where !wanted.contains(type) {
      registers.write(ETQF(rawValue: 0), slot)
      steering.typeSlots[type] = nil
      steering.freeTypeSlots.append(slot)
    }
  }

  // MARK: Reading back

  public func readSteering(_ plan: PoolPlan) -> CardState {
    var state = CardState(plan: plan)
    let (receive, control) = (registers.read(RCTL.self), registers.read(VT_CTL.self))
    if receive.acceptsBroadcast { state.tables.admitted.insert(.broadcast) }
    if receive.acceptsAllMulticast { state.tables.admitted.insert(.multicast) }
    if receive.acceptsAllUnicast { state.tables.admitted.insert(.unicast) }
    state.tables.filtersVLANs = receive.filtersVLANs
    state.tables.defaultPool = control.dropsUnclaimed ? nil : Int(control.defaultPool)
    state.replicates = control.replicates
    state.mirrors = (0..<4).contains { registers.read(VMRCTL.self, $0).isEnabled }
    state.enabledPools = UInt64(registers.read(VFRE.self).rawValue & 0xFF)
    readAddresses(&state.tables)
    state.tables.admitsEveryVLAN = (0..<128).allSatisfy { registers.read(VFTA.self, $0).rawValue == .max }
    readPools(&state)
    readSending(&state.tables.sending)
    return state
  }

  func readAddresses(_ tables: inout CardTables) {
    for n in 0..<variant.addressCount {
      let high = registers.read(RAH.self, n)
      guard high.isValid else { continue }
      let (first, last) = (UInt64(registers.read(RAL.self, n).rawValue.byteSwapped), UInt64(UInt16(truncatingIfNeeded: high.rawValue).byteSwapped))
      tables.addresses.append(CardTables.Address(address: MACAddress(first << 16 | last), pools: UInt64(high.pools)))
    }
    for n in 0..<variant.vlanCount {
      let filter = registers.read(VLVF.self, n)
      if filter.isEnabled { tables.vlans.append(CardTables.VLAN(identifier: UInt16(filter.identifier), pools: UInt64(filter.pools))) }
    }
  }

  private func readPools(_ state: inout CardState) {
    let hasMulticasts = (0..<128).contains { registers.read(MTA.self, $0).rawValue != 0 }
    let hasUnicasts = (0..<128).contains { registers.read(UTA.self, $0).rawValue != 0 }
    for pool in 0..<variant.poolCount {
      let (filter, bit) = (registers.read(VMOLR.self, pool), UInt64(1) << UInt64(pool))
      if filter.acceptsBroadcast { state.tables.broadcastPools |= bit }
      if filter.acceptsAllMulticast || filter.acceptsListedMulticast && hasMulticasts { state.tables.multicastPools |= bit }
      if filter.acceptsListedUnicast && hasUnicasts { state.tables.unicastPools |= bit }
      if filter.acceptsUntagged { state.tables.untaggedPools |= bit }
      state.spread.append(filter.spreads ? 2 : 1)
    }
    // Also one that is off as long as it names a queue: those of the 82576 are not ours.
    for n in 0..<8 {
      let filter = registers.read(ETQF.self, n)
      guard filter.choosesQueue else { continue }
      state.tables.etherTypes.append(
        CardTables.EtherType(type: UInt16(filter.etherType), queue: CardTables.Queue(pool: Int(filter.queue)), rule: 0))
    }
    // None of these was ever set.
    let syn = registers.read(SYNQF.self)
    if syn.isEnabled { state.tables.syn = CardTables.SYN(queue: CardTables.Queue(pool: Int(syn.queue)), isFirst: false, rule: 0) }
    for n in 0..<8 {
      let filter = registers.read(FTQF.self, n)
      guard filter.choosesQueue else { continue }
      let queue = CardTables.Queue(pool: Int(filter.queue) % variant.poolCount, number: Int(filter.queue) / variant.poolCount)
      state.tables.fiveTuples.append(CardTables.FiveTuple(pool: nil, queue: queue, priority: 1, rule: 0))
    }
  }

  public func filterSlots(of tables: CardTables) -> FilterSlots {
    func inverse<Key, Value: Hashable>(_ slots: [Key: Value]) -> [Value: Key] { Dictionary(uniqueKeysWithValues: slots.map { ($1, $0) }) }
    return FilterSlots(
      addresses: inverse(steering.addressSlots), vlans: inverse(steering.vlanSlots), etherTypes: inverse(steering.typeSlots), fiveTuples: [:],
      exactFlows: [:])
  }
}
