internal import Bus
internal import FlowSteering
public import FlowTables

extension Ixgbe {
  /// Reads back everything by which a frame can come to a queue. Some 1,300 registers.
  public func readSteering(_ plan: PoolPlan) -> CardState {
    var state = CardState(plan: plan)
    readGates(&state)
    readAddresses(&state.tables)
    readPools(&state)
    readFilters(&state.tables)
    readFlowDirector(&state)
    readSending(&state.tables.sending)
    return state
  }

  private func readGates(_ state: inout CardState) {
    let (filter, control) = (registers.read(FCTRL.self), registers.read(PFVTCTL.self))
    if filter.acceptsBroadcast { state.tables.admitted.insert(.broadcast) }
    if filter.acceptsAllMulticast { state.tables.admitted.insert(.multicast) }
    if filter.acceptsAllUnicast { state.tables.admitted.insert(.unicast) }
    state.tables.filtersVLANs = registers.read(VLNCTRL.self).filters
    state.tables.defaultPool = control.dropsUnclaimed ? nil : Int(control.defaultPool)
    state.replicates = control.replicates
    state.mirrors = (0..<4).contains { registers.read(PFMRCTL.self, $0).isEnabled }
  }

  private func pair<R: Register32>(_ register: R.Type, _ n: Int) -> UInt64 {
    UInt64(registers.read(R.self, 2 * n).rawValue) | UInt64(registers.read(R.self, 2 * n + 1).rawValue) << 32
  }

  func readAddresses(_ tables: inout CardTables) {
    for n in 0..<128 {
      let high = registers.read(RAH.self, n)
      guard high.isValid else { continue }
      let low = UInt64(registers.read(RAL.self, n).rawValue.byteSwapped)
      let last = UInt64(UInt16(truncatingIfNeeded: high.rawValue).byteSwapped)
      tables.addresses.append(CardTables.Address(address: MACAddress(low << 16 | last), pools: pair(MPSAR.self, n)))
    }
    for n in 0..<64 {
      let filter = registers.read(PFVLVF.self, n)
      if filter.isEnabled { tables.vlans.append(CardTables.VLAN(identifier: UInt16(filter.identifier), pools: pair(PFVLVFB.self, n))) }
    }
    tables.admitsEveryVLAN = (0..<128).allSatisfy { registers.read(VFTA.self, $0).rawValue == .max }
  }

  private func readPools(_ state: inout CardState) {
    state.enabledPools = pair(PFVFRE.self, 0)
    let hasUnicastTable = (0..<128).contains { registers.read(PFUTA.self, $0).rawValue != 0 }
    for pool in 0..<64 {
      let (filter, bit) = (registers.read(PFVML2FLT.self, pool), UInt64(1) << UInt64(pool))
      if filter.acceptsBroadcast { state.tables.broadcastPools |= bit }
      if filter.acceptsAllMulticast { state.tables.multicastPools |= bit }
      if filter.acceptsListedUnicast && hasUnicastTable { state.tables.unicastPools |= bit }
      if filter.acceptsUntagged { state.tables.untaggedPools |= bit }
      state.spread.append(1 << Int(registers.read(PSRTYPE.self, pool).queueBits))
    }
  }

  private func queue(_ number: UInt32) -> CardTables.Queue {
    CardTables.Queue(pool: Int(number) / configuration.queueStride, number: Int(number) % configuration.queueStride)
  }

  private func readFilters(_ tables: inout CardTables) {
    for n in 0..<8 {
      let (filter, select) = (registers.read(ETQF.self, n), registers.read(ETQS.self, n))
      if filter.isEnabled { tables.etherTypes.append(CardTables.EtherType(type: UInt16(filter.etherType), queue: queue(select.queue), rule: 0)) }
    }
    let syn = registers.read(SYNQF.self)
    if syn.isEnabled { tables.syn = CardTables.SYN(queue: queue(syn.queue), isFirst: syn.isFirst, rule: 0) }
    for n in 0..<128 {
      let filter = registers.read(FTQF.self, n)
      guard filter.isEnabled else { continue }
      let ports = registers.read(SDPQF.self, n).rawValue
      func kept<T>(_ bit: UInt32, _ value: T) -> T? { filter.ignores >> bit & 1 == 1 ? nil : value }
      var entry = CardTables.FiveTuple(
        pool: filter.ignoresPool ? nil : Int(filter.pool), queue: queue(registers.read(L34TIMIR.self, n).queue), priority: Int(filter.priority), rule: 0)
      entry.source = kept(0, registers.read(SAQF.self, n).rawValue.byteSwapped)
      entry.destination = kept(1, registers.read(DAQF.self, n).rawValue.byteSwapped)
      entry.sourcePort = kept(2, UInt16(truncatingIfNeeded: ports).byteSwapped)
      entry.destinationPort = kept(3, UInt16(truncatingIfNeeded: ports >> 16).byteSwapped)
      entry.transport = kept(4, [Transport.tcp, .udp, .sctp][min(Int(filter.transport), 2)])
      tables.fiveTuples.append(entry)
    }
  }

  private func readFlowDirector(_ state: inout CardState) {
    let control = registers.read(FDIRCTRL.self)
    guard control.allocation != 0 else { return }
    state.matchesHashes = !control.matchesExactly
    state.exactFlowCount = configuration.flowDirector.filterCount - Int(registers.read(FDIRFREE.self).free)
  }
}
