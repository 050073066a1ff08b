internal import Bus
internal import FlowSteering
public import FlowTables

/// What the filter tables hold, and where in them.
struct SteeringState {
  /// Nil: nothing has been applied yet, and everything in the tables is as after a reset.
  var tables: CardTables?
  var addressSlots: [MACAddress: Int] = [:]
  var freeAddressSlots = Array((0..<128).reversed())
  var tupleSlots: [CardTables.FiveTuple.Key: Int] = [:]
  /// Of filters that are about to go.
  var oldTupleSlots: [CardTables.FiveTuple.Key: Int] = [:]
  var freeTupleSlots = Array((0..<128).reversed())
  var typeSlots: [UInt16: Int] = [:]
  var freeTypeSlots = Array((0..<8).reversed())
  /// Flow director's filters, and the numbers that name them.
  var flows: [CardTables.ExactFlow.Key: (number: Int, entry: CardTables.ExactFlow)] = [:]
  var freeFlowNumbers: [Int] = []
  var nextFlowNumber = 0
}

// The order of every change. At no moment does a frame reach a VM to which neither the old rules nor the new ones send
// it, and a frame that both send the same way goes that way all the time. Each frame changes from the old rules to the
// new ones once:
//
// - New filters stand above the old ones and come in from the top down: a frame changes when the one that is to decide
//   for it comes. Old filters then go from the bottom up.
// - What nobody claims is let in after the filters that wait for it, and shut out before they go.
// - Addresses and VLANs are a product: where both change, first what both have in common. A frame that gets another
//   owner may be lost between; it never reaches both.
// - Where whose a frame is and what becomes of it change at once, no such order exists, and nothing is received for the
//   moment that the change takes.
extension Ixgbe {
  /// Brings the filter tables to what the rules of a port were made into. If the card refuses half way, it is brought
  /// back to what it had.
  ///
  /// - Throws: `steeringLost` if it refuses that too: then it receives nothing any more, which is better than to receive
  ///   by half a set of rules.
  /// Precondition: the card has the pools of the plan.
  public func apply(_ new: CardTables) throws(IxgbeError) {
    guard new.plan.count == configuration.poolCount else { throw .poolCount(new.plan.count, allowed: configuration.poolCount...configuration.poolCount) }
    if !new.exactFlows.isEmpty && configuration.flowDirector.filterCount < new.exactFlows.count {
      throw .tableFull("flow director", count: configuration.flowDirector.filterCount)
    }
    let old = steering.tables
    do {
      try change(from: old ?? CardTables(plan: new.plan), to: new)
      steering.tables = new
    } catch {
      guard let old else { throw error }
      do throws(IxgbeError) { try restore(old) } catch { throw .steeringLost("\(error)") }
      throw error
    }
  }

  /// Makes all filters anew while nothing is received.
  private func restore(_ tables: CardTables) throws(IxgbeError) {
    try disableReceive()
    for n in 0..<128 { registers.write(FTQF(rawValue: 0), n) }
    let fresh = SteeringState()
    (steering.tupleSlots, steering.oldTupleSlots, steering.freeTupleSlots) = ([:], [:], fresh.freeTupleSlots)
    if configuration.flowDirector != .off { try makeFlowDirector(tables.flowMask, tables.exactFlows) }
    for entry in tables.fiveTuples { try addTuple(entry) }
    setSYN(tables.syn)
    try addEtherTypes(tables)
    try removeEtherTypes(notIn: tables)
    try setVLANs(tables)
    try setAddresses(tables)
    setDefaultPool(tables.defaultPool)
    setAdmitted(tables.admitted)
    try enableReceive()
  }

  /// Puts one filter in that touches no other. If the card refuses, it is as it was.
  public func add(_ filter: CardProgram.Addition) throws(IxgbeError) {
    switch filter {
    case .fiveTuple(let entry):
      guard let slot = steering.freeTupleSlots.popLast() else { throw .tableFull("five-tuple filters", count: 128) }
      write(entry, slot: slot)
      steering.tupleSlots[entry.key] = slot
      steering.tables?.fiveTuples.append(entry)
    case .exactFlow(let entry):
      guard steering.flows.count < configuration.flowDirector.filterCount else {
        throw .tableFull("flow director", count: configuration.flowDirector.filterCount)
      }
      do throws(IxgbeError) { try add(entry) } catch {
        try? removeExactFlows { $0.key == entry.key }
        throw error
      }
      steering.tables?.exactFlows.append(entry)
    }
  }

  private func change(from old: CardTables, to new: CardTables) throws(IxgbeError) {
    if steering.tables == nil { closePool(new.plan.closed) }
    let changesBoth = !old.hasSameAddressStep(as: new) && !old.hasSameFlows(as: new)
    let changesMask = new.flowMask != nil && new.flowMask != old.flowMask && !old.exactFlows.isEmpty
    let movesSYN = old.syn != nil && new.syn != nil && (old.syn?.queue != new.syn?.queue || old.syn?.isFirst != new.syn?.isFirst)
    let isHeld = (changesBoth || changesMask || movesSYN || !hasRoomForBoth(old, new)) && registers.read(RXCTRL.self).isEnabled
    if isHeld { try disableReceive() }
    try changeFlowMask(from: old, to: new)
    if new.syn?.isFirst == true || new.syn != nil && old.syn != nil { setSYN(new.syn) }
    try addTuples(from: old, to: new)
    if let syn = new.syn, !syn.isFirst, old.syn == nil { setSYN(syn) }
    try addExactFlows(new)
    try addEtherTypes(new)
    try changeAddressStep(from: old, to: new)
    try removeEtherTypes(notIn: new)
    try removeExactFlows(notIn: new)
    if new.syn == nil, old.syn?.isFirst == false { setSYN(nil) }
    try removeTuples(from: old, to: new)
    if new.syn == nil { setSYN(nil) }
    if isHeld { try enableReceive() }
  }

  /// A pool that takes part in nothing: what is for it ends.
  private func closePool(_ pool: Int) {
    registers.modify(PFVFRE.self, pool / 32) { $0[bit: pool % 32] = false }
  }

  // MARK: Addresses, VLANs, and what pools take besides

  private func changeAddressStep(from old: CardTables, to new: CardTables) throws(IxgbeError) {
    if !old.hasSameVLANs(as: new) && !old.hasSameAddresses(as: new) {
      // Both change: first what both have, for the product of old addresses and new VLANs is neither.
      let common = old.intersection(with: new)
      try setVLANs(common)
      try setAddresses(common)
    }
    // What nobody claims has no place to wait any more.
    if new.defaultPool == nil { setDefaultPool(nil) }
    // The gates that open come first, those that close come last: behind them the pools decide.
    setAdmitted(old.admitted.union(new.admitted))
    if new.filtersVLANs { try setVLANs(new) }
    try setAddresses(new)
    if !new.filtersVLANs { try setVLANs(new) }
    setDefaultPool(new.defaultPool)
    setAdmitted(new.admitted)
  }

  private func setAdmitted(_ kinds: CardTables.Kinds) {
    registers.modify(FCTRL.self) {
      $0.acceptsBroadcast = kinds.contains(.broadcast)
      $0.acceptsAllMulticast = kinds.contains(.multicast)
      $0.acceptsAllUnicast = kinds.contains(.unicast)
    }
  }

  private func setDefaultPool(_ pool: Int?) {
    registers.modify(PFVTCTL.self) {
      $0.defaultPool = UInt32(pool ?? 0)
      $0.dropsUnclaimed = pool == nil
    }
  }

  /// Each destination changes once: by its own entry if it comes or stays, with all others if it goes.
  private func setAddresses(_ tables: CardTables) throws(IxgbeError) {
    let wanted = Dictionary(tables.addresses.map { ($0.address, $0.pools) }, uniquingKeysWith: |)
    let fresh = wanted.keys.count { steering.addressSlots[$0] == nil }
    if fresh > steering.freeAddressSlots.count { try removeAddresses(notIn: wanted) }
    for (address, pools) in wanted.sorted(by: { $0.key < $1.key }) {
      let known = steering.addressSlots[address]
      guard let slot = known ?? steering.freeAddressSlots.popLast() else { throw .tableFull("receive addresses", count: 128) }
      // Of a frame that moves between the halves nobody gets it for a moment, rather than both.
      for isLast in [false, true] {
        for n in 0..<2 {
          let now = registers.read(MPSAR.self, 2 * slot + n).rawValue
          let half = isLast ? Self.half(n, of: pools) : Self.half(n, of: pools) & now
          if now != half { registers.write(MPSAR(rawValue: half), 2 * slot + n) }
        }
      }
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

  private func removeAddresses(notIn wanted: [MACAddress: UInt64]) throws(IxgbeError) {
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

  private func setVLANs(_ tables: CardTables) throws(IxgbeError) {
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

  /// Also of queues that a pool has and no guest uses: frames end there.
  private func number(of queue: CardTables.Queue) -> UInt32 {
    precondition(queue.number >= 0 && queue.number < configuration.queueStride)
    return UInt32(queue.pool * configuration.queueStride + queue.number)
  }

  private func removeEtherTypes(notIn new: CardTables) throws(IxgbeError) {
    let wanted = Set(new.etherTypes.map(\.type))
    for (type, slot) in steering.typeSlots where !wanted.contains(type) {
      try clearEtherType(slot: slot)
      steering.typeSlots[type] = nil
      steering.freeTypeSlots.append(slot)
    }
  }

  private func addEtherTypes(_ new: CardTables) throws(IxgbeError) {
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

  private func setSYN(_ syn: CardTables.SYN?) {
    var filter = SYNQF(rawValue: 0)
    if let syn {
      filter.isEnabled = true
      filter.queue = number(of: syn.queue)
      filter.isFirst = syn.isFirst
    }
    registers.write(filter)
  }

  // MARK: Flows

  private func write(_ filter: CardTables.FiveTuple, slot: Int) {
    registers.write(SAQF(rawValue: (filter.source ?? 0).byteSwapped), slot)
    registers.write(DAQF(rawValue: (filter.destination ?? 0).byteSwapped), slot)
    let ports = (UInt32((filter.sourcePort ?? 0).byteSwapped), UInt32((filter.destinationPort ?? 0).byteSwapped))
    registers.write(SDPQF(rawValue: ports.1 << 16 | ports.0), slot)
    writeTarget(filter, slot: slot)
    registers.write(Self.flowFilter(filter), slot)
  }
  private func writeTarget(_ filter: CardTables.FiveTuple, slot: Int) {
    var target = L34TIMIR(rawValue: 0)
    target.ignoresSize = true
    target.reserved = 0b1000000
    target.queue = number(of: filter.queue)
    if registers.read(L34TIMIR.self, slot).rawValue != target.rawValue { registers.write(target, slot) }
  }
  private static func flowFilter(_ entry: CardTables.FiveTuple) -> FTQF {
    var filter = FTQF(rawValue: 0)
    filter.transport =
      switch entry.transport {
      case .tcp, nil: 0
      case .udp: 1
      case .sctp: 2
      }
    filter.priority = UInt32(entry.priority)
    filter.pool = UInt32(entry.pool ?? 0)
    filter.ignoresPool = entry.pool == nil
    let ignored = [entry.source == nil, entry.destination == nil, entry.sourcePort == nil, entry.destinationPort == nil, entry.transport == nil]
    filter.ignores = ignored.enumerated().reduce(0) { $1.element ? $0 | 1 << UInt32($1.offset) : $0 }
    filter.isEnabled = true
    return filter
  }

  private func priority(_ slot: Int) -> Int { Int(registers.read(FTQF.self, slot).priority) }
  private func setPriority(_ priority: Int, _ slot: Int) {
    registers.modify(FTQF.self, slot) { $0.priority = UInt32(priority) }
  }

  /// Whether new filters can stand above the old ones for a while.
  private func hasRoomForBoth(_ old: CardTables, _ new: CardTables) -> Bool {
    if canChangeInPlace(old, new) { return true }
    return old.fiveTuples.count + new.fiveTuples.count <= 128 && Self.levels(old) + Self.levels(new) <= 7
  }
  private static func levels(_ tables: CardTables) -> Int { Set(tables.fiveTuples.map(\.priority)).count }

  /// Whether what comes, goes, or changes its queue shares frames with nothing else, and the rest stays as it is.
  private func canChangeInPlace(_ old: CardTables, _ new: CardTables) -> Bool {
    let before = Dictionary(old.fiveTuples.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
    let after = Dictionary(new.fiveTuples.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
    var changed: [CardTables.FiveTuple] = []
    var kept: [CardTables.FiveTuple] = []
    for entry in new.fiveTuples {
      guard let known = before[entry.key] else {
        changed.append(entry)
        continue
      }
      if known.priority != entry.priority { return false }
      if known.queue == entry.queue { kept.append(entry) } else { changed.append(entry) }
    }
    changed += old.fiveTuples.filter { after[$0.key] == nil }
    let fresh = new.fiveTuples.count(where: { before[$0.key] == nil })
    guard changed.count <= 32, fresh <= 128 - old.fiveTuples.count else { return changed.isEmpty }
    for (index, entry) in changed.enumerated() {
      for other in kept + changed[(index + 1)...] where entry.overlaps(other) { return false }
    }
    return true
  }

  /// New filters come in above the old ones, the highest first.
  private func addTuples(from old: CardTables, to new: CardTables) throws(IxgbeError) {
    if canChangeInPlace(old, new) {
      for entry in new.fiveTuples {
        if let slot = steering.tupleSlots[entry.key] { writeTarget(entry, slot: slot) } else { try addTuple(entry) }
      }
      return
    }
    // Nothing is received if they cannot stand side by side: then the old ones go at once.
    if !hasRoomForBoth(old, new) {
      for slot in steering.tupleSlots.values { clearTuple(slot) }
      steering.tupleSlots = [:]
      for entry in new.fiveTuples { try addTuple(entry) }
      return
    }
    // The old ones step down, the lowest first: their order stays.
    var next = 0
    var last = 0
    for slot in steering.tupleSlots.values.sorted(by: { priority($0) < priority($1) }) {
      let now = priority(slot)
      if now != last { (last, next) = (now, next + 1) }
      setPriority(next, slot)
    }
    steering.oldTupleSlots = steering.tupleSlots
    steering.tupleSlots = [:]
    let distinct = Set(new.fiveTuples.map(\.priority)).sorted()
    for entry in new.fiveTuples.sorted(by: { $0.priority > $1.priority }) {
      var placed = entry
      placed.priority = next + 1 + (distinct.firstIndex(of: entry.priority) ?? 0)
      try addTuple(placed)
    }
  }

  private func addTuple(_ entry: CardTables.FiveTuple) throws(IxgbeError) {
    guard let slot = steering.freeTupleSlots.popLast() else { throw .tableFull("five-tuple filters", count: 128) }
    write(entry, slot: slot)
    steering.tupleSlots[entry.key] = slot
  }
  private func clearTuple(_ slot: Int) {
    registers.write(FTQF(rawValue: 0), slot)
    steering.freeTupleSlots.append(slot)
  }

  /// Old filters go, the lowest first; what is left rises to where it belongs, the highest first.
  private func removeTuples(from old: CardTables, to new: CardTables) throws(IxgbeError) {
    for slot in steering.oldTupleSlots.values.sorted(by: { priority($0) < priority($1) }) { clearTuple(slot) }
    steering.oldTupleSlots = [:]
    let wanted = Dictionary(new.fiveTuples.map { ($0.key, $0.priority) }, uniquingKeysWith: { first, _ in first })
    for (key, slot) in steering.tupleSlots where wanted[key] == nil {
      clearTuple(slot)
      steering.tupleSlots[key] = nil
    }
    for (key, slot) in steering.tupleSlots.sorted(by: { priority($0.value) > priority($1.value) }) {
      if let priority = wanted[key], priority != self.priority(slot) { setPriority(priority, slot) }
    }
  }

  private func addExactFlows(_ new: CardTables) throws(IxgbeError) {
    for flow in new.exactFlows {
      guard let known = steering.flows[flow.key] else {
        // In a full table room must be made first.
        if steering.flows.count == configuration.flowDirector.filterCount { try removeExactFlows(notIn: new) }
        try add(flow)
        continue
      }
      // One command moves it from queue to queue.
      if known.entry.queue != flow.queue {
        steering.flows[flow.key] = (known.number, flow)
        try add(input(of: flow), number: known.number, queue: queue(of: flow))
      }
    }
  }

  private func removeExactFlows(notIn new: CardTables) throws(IxgbeError) {
    let wanted = Set(new.exactFlows.map(\.key))
    try removeExactFlows { !wanted.contains($0.key) }
  }
  private func removeExactFlows(where isUnwanted: (CardTables.ExactFlow) -> Bool) throws(IxgbeError) {
    for (key, flow) in steering.flows where isUnwanted(flow.entry) {
      steering.flows[key] = nil
      steering.freeFlowNumbers.append(flow.number)
      try remove(input(of: flow.entry), number: flow.number)
    }
  }

  // MARK: Flow director

  private func input(of flow: CardTables.ExactFlow) -> ExactInput {
    let transport: UInt32 =
      switch flow.transport {
      case .udp: 1
      case .tcp: 2
      case .sctp: 3
      case nil: 0
      }
    return ExactInput(
      source: flow.source, destination: flow.destination, sourcePort: flow.sourcePort, destinationPort: flow.destinationPort,
      transport: transport, pool: UInt32(flow.pool ?? 0), isIPv6: flow.version == .v6, tag: flow.tag, flexible: flow.flexible)
  }
  private func queue(of flow: CardTables.ExactFlow) -> Int? { flow.queue.map { Int(number(of: $0)) } }

  private func add(_ flow: CardTables.ExactFlow) throws(IxgbeError) {
    let number = steering.freeFlowNumbers.popLast() ?? steering.nextFlowNumber
    if number == steering.nextFlowNumber { steering.nextFlowNumber += 1 }
    steering.flows[flow.key] = (number, flow)
    try add(input(of: flow), number: number, queue: queue(of: flow))
  }

  /// The mask is one for all filters, so they go and come back with it. Nothing is received meanwhile if there are any:
  /// no filter must not mean another queue.
  private func changeFlowMask(from old: CardTables, to new: CardTables) throws(IxgbeError) {
    guard let mask = new.flowMask, mask != old.flowMask else { return }
    guard configuration.flowDirector != .off else { throw .unavailable("flow director, which has no memory") }
    try makeFlowDirector(mask, old.exactFlows.isEmpty ? [] : new.exactFlows)
  }

  /// Forgets all of flow director's filters, and makes these.
  private func makeFlowDirector(_ mask: CardTables.FlowMask?, _ flows: [CardTables.ExactFlow]) throws(IxgbeError) {
    var command = FDIRCMD(rawValue: 0)
    command.clears = true
    registers.write(command)
    (steering.flows, steering.freeFlowNumbers, steering.nextFlowNumber) = ([:], [], 0)
    try initializeFlowDirector(comparing: mask)
    for flow in flows { try add(flow) }
  }
}

extension CardTables {
  fileprivate func hasSameVLANs(as other: CardTables) -> Bool {
    filtersVLANs == other.filtersVLANs && vlans == other.vlans && untaggedPools == other.untaggedPools && admitsEveryVLAN == other.admitsEveryVLAN
  }
  fileprivate func hasSameAddresses(as other: CardTables) -> Bool {
    addresses == other.addresses && broadcastPools == other.broadcastPools && multicastPools == other.multicastPools && unicastPools == other.unicastPools
  }

  /// Whose frames are, apart from where those wait that nobody claims.
  fileprivate func hasSameAddressStep(as other: CardTables) -> Bool {
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

  fileprivate func hasSameFlows(as other: CardTables) -> Bool {
    func tuples(_ tables: CardTables) -> [FiveTuple.Key: [Int]] {
      Dictionary(tables.fiveTuples.map { ($0.key, [$0.queue.pool, $0.queue.number, $0.priority]) }, uniquingKeysWith: { first, _ in first })
    }
    func flows(_ tables: CardTables) -> [ExactFlow.Key: Queue?] { Dictionary(tables.exactFlows.map { ($0.key, $0.queue) }, uniquingKeysWith: { first, _ in first }) }
    return syn?.queue == other.syn?.queue && syn?.isFirst == other.syn?.isFirst && tuples(self) == tuples(other)
      && (exactFlows.isEmpty || flowMask == other.flowMask) && flows(self) == flows(other)
  }

  /// What both let through.
  fileprivate func intersection(with other: CardTables) -> CardTables {
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
