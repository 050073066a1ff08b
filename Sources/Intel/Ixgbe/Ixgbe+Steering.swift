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
  var freeTupleSlots = Array((0..<128).reversed())
  var typeSlots: [UInt16: Int] = [:]
  var freeTypeSlots = Array((0..<8).reversed())
  /// Names of flow director's filters.
  var flowNumbers: [CardTables.ExactFlow.Key: Int] = [:]
  var freeFlowNumbers: [Int] = []
  var nextFlowNumber = 0
}

// The order of every change: at no moment does a frame reach a queue to which neither the old rules nor the new ones
// send it, and a frame that both send to a queue reaches it all the time. Entries are written whole before they are
// enabled; what narrows comes before what widens; a flow filter goes in before its rule counts, and out first.
extension Ixgbe {
  /// Brings the filter tables to what the rules of a port were made into. If the card refuses half way, it is brought
  /// back to what it had.
  ///
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
      // The card has refused; if it refuses to go back too, what stands is the narrower of both.
      if let old { try? change(from: new, to: old) }
      throw error
    }
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
      guard steering.flowNumbers.count < configuration.flowDirector.filterCount else {
        throw .tableFull("flow director", count: configuration.flowDirector.filterCount)
      }
      do throws(IxgbeError) { try add(entry) } catch {
        try? remove(entry)
        throw error
      }
      steering.tables?.exactFlows.append(entry)
    }
  }

  private func change(from old: CardTables, to new: CardTables) throws(IxgbeError) {
    if steering.tables == nil { closePool(new.plan.closed) }
    try lowerPriorities(new)
    try changeFlowMask(from: old, to: new)
    try addFlows(new)
    try changeAddressStep(from: old, to: new)
    try changeEtherTypes(to: new)
    changeSYN(to: new)
    try removeFlows(notIn: new)
    try raisePriorities(new)
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

  private func setAddresses(_ tables: CardTables) throws(IxgbeError) {
    let wanted = Dictionary(tables.addresses.map { ($0.address, $0.pools) }, uniquingKeysWith: |)
    for (address, slot) in steering.addressSlots where wanted[address] == nil {
      try clearAddress(slot: slot)
      steering.addressSlots[address] = nil
      steering.freeAddressSlots.append(slot)
    }
    for (address, pools) in wanted.sorted(by: { $0.key < $1.key }) {
      let known = steering.addressSlots[address]
      guard let slot = known ?? steering.freeAddressSlots.popLast() else { throw .tableFull("receive addresses", count: 128) }
      for n in 0..<2 {
        let half = MPSAR(rawValue: Self.half(n, of: pools))
        if registers.read(MPSAR.self, 2 * slot + n).rawValue != half.rawValue { registers.write(half, 2 * slot + n) }
      }
      guard known == nil else { continue }
      // The valid bit comes with the last of them.
      registers.write(RAL(address), slot)
      registers.write(RAH(address), slot)
      steering.addressSlots[address] = slot
    }
    let all: UInt32 = tables.unicastPools == 0 ? 0 : .max
    if registers.read(PFUTA.self).rawValue != all { for n in 0..<128 { registers.write(PFUTA(rawValue: all), n) } }
    for pool in 0..<configuration.poolCount { setAccepted(pool, tables) }
  }

  /// What a pool takes besides its addresses.
  private func setAccepted(_ pool: Int, _ tables: CardTables) {
    func has(_ pools: UInt64) -> Bool { pools >> UInt64(pool) & 1 == 1 }
    var filter = PFVML2FLT(rawValue: 0)
    filter.acceptsBroadcast = has(tables.broadcastPools)
    filter.acceptsAllMulticast = has(tables.multicastPools)
    filter.acceptsListedUnicast = has(tables.unicastPools)
    filter.acceptsUntagged = has(tables.untaggedPools)
    if registers.read(PFVML2FLT.self, pool).rawValue != filter.rawValue { registers.write(filter, pool) }
  }

  private func setVLANs(_ tables: CardTables) throws(IxgbeError) {
    let wanted = Dictionary(tables.vlans.map { ($0.identifier, $0.pools) }, uniquingKeysWith: |)
    for identifier in vlans.all where wanted[identifier] == nil { try setVLAN(identifier, pools: 0) }
    for (identifier, pools) in wanted.sorted(by: { $0.key < $1.key }) { try setVLAN(identifier, pools: pools) }
    for pool in 0..<configuration.poolCount { registers.modify(PFVML2FLT.self, pool) { $0.acceptsUntagged = tables.untaggedPools >> UInt64(pool) & 1 == 1 } }
    for n in 0..<128 {
      let bits: UInt32 = tables.admitsEveryVLAN ? .max : (0..<32).reduce(0) { wanted[UInt16(32 * n + $1)] == nil ? $0 : $0 | 1 << UInt32($1) }
      if registers.read(VFTA.self, n).rawValue != bits { registers.write(VFTA(rawValue: bits), n) }
    }
    registers.modify(VLNCTRL.self) { $0.filters = tables.filtersVLANs }
  }

  // MARK: EtherType and SYN

  /// Also of queues that a pool has and no guest uses: frames end there.
  private func number(of queue: CardTables.Queue) -> UInt32 {
    precondition(queue.number >= 0 && queue.number < configuration.queueStride)
    return UInt32(queue.pool * configuration.queueStride + queue.number)
  }

  private func changeEtherTypes(to new: CardTables) throws(IxgbeError) {
    let wanted = Set(new.etherTypes.map(\.type))
    for (type, slot) in steering.typeSlots where !wanted.contains(type) {
      try clearEtherType(slot: slot)
      steering.typeSlots[type] = nil
      steering.freeTypeSlots.append(slot)
    }
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

  private func changeSYN(to new: CardTables) {
    var filter = SYNQF(rawValue: 0)
    if let syn = new.syn {
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

  /// Priorities of filters that stay: those that fall do so before new ones come, the lowest first, so that two that
  /// have an order before and after have it between.
  private func lowerPriorities(_ new: CardTables) throws(IxgbeError) {
    for filter in new.fiveTuples.sorted(by: { $0.priority < $1.priority }) {
      guard let slot = steering.tupleSlots[filter.key] else { continue }
      if filter.priority < Int(registers.read(FTQF.self, slot).priority) { registers.write(Self.flowFilter(filter), slot) }
    }
  }
  private func raisePriorities(_ new: CardTables) throws(IxgbeError) {
    for filter in new.fiveTuples.sorted(by: { $0.priority > $1.priority }) {
      guard let slot = steering.tupleSlots[filter.key] else { continue }
      if filter.priority > Int(registers.read(FTQF.self, slot).priority) { registers.write(Self.flowFilter(filter), slot) }
    }
  }

  private func addFlows(_ new: CardTables) throws(IxgbeError) {
    for filter in new.fiveTuples {
      if let slot = steering.tupleSlots[filter.key] {
        // One write moves it from queue to queue.
        writeTarget(filter, slot: slot)
      } else {
        // In a full table room must be made first.
        if steering.freeTupleSlots.isEmpty { removeTuples(notIn: new) }
        guard let slot = steering.freeTupleSlots.popLast() else { throw .tableFull("five-tuple filters", count: 128) }
        write(filter, slot: slot)
        steering.tupleSlots[filter.key] = slot
      }
    }
    let before = Dictionary(steering.tables?.exactFlows.map { ($0.key, $0.queue) } ?? [], uniquingKeysWith: { first, _ in first })
    for flow in new.exactFlows {
      if let number = steering.flowNumbers[flow.key] {
        if before[flow.key] != .some(flow.queue) { try add(input(of: flow), number: number, queue: queue(of: flow)) }
      } else {
        if steering.flowNumbers.count == configuration.flowDirector.filterCount { try removeExactFlows(notIn: new) }
        try add(flow)
      }
    }
  }

  private func removeFlows(notIn new: CardTables) throws(IxgbeError) {
    removeTuples(notIn: new)
    try removeExactFlows(notIn: new)
  }
  private func removeTuples(notIn new: CardTables) {
    let wanted = Set(new.fiveTuples.map(\.key))
    for (key, slot) in steering.tupleSlots where !wanted.contains(key) {
      registers.write(FTQF(rawValue: 0), slot)
      steering.tupleSlots[key] = nil
      steering.freeTupleSlots.append(slot)
    }
  }
  private func removeExactFlows(notIn new: CardTables) throws(IxgbeError) {
    guard let old = steering.tables?.exactFlows, !old.isEmpty else { return }
    let wanted = Set(new.exactFlows.map(\.key))
    for flow in old where !wanted.contains(flow.key) { try remove(flow) }
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
    steering.flowNumbers[flow.key] = number
    try add(input(of: flow), number: number, queue: queue(of: flow))
  }
  private func remove(_ flow: CardTables.ExactFlow) throws(IxgbeError) {
    guard let number = steering.flowNumbers.removeValue(forKey: flow.key) else { return }
    steering.freeFlowNumbers.append(number)
    try remove(input(of: flow), number: number)
  }

  /// The mask is one for all filters, so they go and come back with it; nothing is received meanwhile, for no filter
  /// must not mean another queue.
  private func changeFlowMask(from old: CardTables, to new: CardTables) throws(IxgbeError) {
    guard let mask = new.flowMask, mask != old.flowMask else { return }
    guard configuration.flowDirector != .off else { throw .unavailable("flow director, which has no memory") }
    let isReceiving = registers.read(RXCTRL.self).isEnabled
    if isReceiving && !steering.flowNumbers.isEmpty { try disableReceive() }
    var command = FDIRCMD(rawValue: 0)
    command.clears = true
    registers.write(command)
    (steering.flowNumbers, steering.freeFlowNumbers, steering.nextFlowNumber) = ([:], [], 0)
    try initializeFlowDirector(comparing: mask)
    for flow in new.exactFlows { try add(flow) }
    if isReceiving { try enableReceive() }
  }
}

extension CardTables {
  fileprivate func hasSameVLANs(as other: CardTables) -> Bool {
    filtersVLANs == other.filtersVLANs && vlans == other.vlans && untaggedPools == other.untaggedPools && admitsEveryVLAN == other.admitsEveryVLAN
  }
  fileprivate func hasSameAddresses(as other: CardTables) -> Bool {
    addresses == other.addresses && broadcastPools == other.broadcastPools && multicastPools == other.multicastPools && unicastPools == other.unicastPools
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
