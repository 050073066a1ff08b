internal import CLinux

/// What the filter registers say, in a form that is quick to ask: addresses in a hash table, VLANs in a table of
/// pools, filters that are off not at all. Made anew when a register has changed and a frame comes.
///
/// `@safe`: its tables have fixed lengths, and every index is masked or counted.
@safe struct CardFilters {
  private struct Slot {
    /// 48 bits of address; `.max` for an empty slot.
    var address: UInt64 = .max
    var pools: UInt64 = 0
    /// Of the first register pair (RAL, RAH) that has this address.
    var number = 0
  }
  private static let slotCount = 512
  private let slots: UnsafeMutablePointer<Slot>
  /// By VLAN: the pools in its group.
  private let vlanTable: UnsafeMutablePointer<UInt64>
  /// By VLAN: one more than the number of its first PFVLVF; 0 for none.
  private let vlanNumbers: UnsafeMutablePointer<UInt8>
  private let state: UnsafeMutablePointer<State>

  /// Decoded once, read once a frame.
  struct State {
    var isVirtualised = false
    var replicates = false
    var defaultPool: UInt64 = 0
    var enabledPools: UInt64 = 1
    var filtersVLANs = false
    var checksCFI = false
    var wantedCFI = false
    var unicastPromiscuous = false
    var multicastPromiscuous = false
    var acceptsBroadcast = false
    var usesMulticastTable = false
    /// Bits of the address below the 12 that index MTA and PFUTA.
    var tableShift: UInt64 = 36
    var acceptUntagged: UInt64 = 0
    var acceptMulticastTable: UInt64 = 0
    var acceptUnicastTable: UInt64 = 0
    var acceptBroadcast: UInt64 = 0
    var acceptMulticast: UInt64 = 0

    /// Neither VLANs nor EtherTypes choose pools, and each address may have several.
    var isPlain = false
    /// Anything of which a frame's queue depends but its pool.
    var steers = false
    /// Queue = pool << poolShift, plus what RSS or the traffic class says.
    var poolShift = 0
    var queuesInPool = 0
    var usesRSS = false
    var trafficClassShift = 0
    var usesTrafficClass = false
    var rssFields: UInt32 = 0
    var usesEtherType = false
    var usesSYN = false
    var synQueue = 0
    var synFirst = false
    var tupleCount = 0
    var usesFlowDirector = false

    /// What is sent: whether queues belong to pools, queue >> sendShift; and the pools that may send, that get their own
    /// frames back, and that are held to their own addresses.
    var sendsByPool = false
    var sendShift = 1
    var sendingPools: UInt64 = 0
    var switches = false
    var returningPools: UInt64 = 0
    var checkedPools: UInt64 = 0
    /// Those that are held to their VLANs; and whether PFVMVIR says of any what becomes of its tags.
    var checkedVLANPools: UInt64 = 0
    var hasPortTags = false
  }

  /// A 5-tuple filter. 82599 datasheet 7.1.2.5.
  struct Tuple {
    var source: UInt32 = 0
    var destination: UInt32 = 0
    var sourcePort: UInt16 = 0
    var destinationPort: UInt16 = 0
    /// As in FTQF: TCP, UDP, SCTP, other.
    var protocolNumber: UInt8 = 0
    /// FTQF's mask: what is not compared.
    var ignored: UInt8 = 0
    /// Or 255: any.
    var pool: UInt8 = 0
    var queue: UInt8 = 0
    var priority: UInt8 = 0
    /// Of its registers.
    var number: UInt8 = 0
  }
  let tuples: UnsafeMutablePointer<Tuple>

  init() {
    unsafe slots = .allocate(capacity: Self.slotCount)
    unsafe slots.initialize(repeating: Slot(), count: Self.slotCount)
    unsafe vlanTable = .allocate(capacity: 4096)
    unsafe vlanTable.initialize(repeating: 0, count: 4096)
    unsafe vlanNumbers = .allocate(capacity: 4096)
    unsafe vlanNumbers.initialize(repeating: 0, count: 4096)
    unsafe state = .allocate(capacity: 1)
    unsafe state.initialize(to: State())
    unsafe tuples = .allocate(capacity: 128)
    unsafe tuples.initialize(repeating: Tuple(), count: 128)
  }
  func deallocate() {
    unsafe slots.deallocate()
    unsafe vlanTable.deallocate()
    unsafe vlanNumbers.deallocate()
    unsafe state.deallocate()
    unsafe tuples.deallocate()
  }

  @inline(__always) var current: UnsafeMutablePointer<State> { unsafe state }
  /// The pools in a VLAN's group.
  func vlanPools(_ identifier: Int) -> UInt64 { unsafe vlanTable[identifier & 0xFFF] }

  /// Whether a register is one that the tables are made of.
  static func decides(_ at: Int) -> Bool {
    switch at {
    case Offset.FCTRL, Offset.VLNCTRL, Offset.MCSTCTRL, Offset.MRQC, Offset.SYNQF, Offset.PFVTCTL, Offset.RTRUP2TC: true
    case Offset.PFVFRE..<Offset.PFVFRE + 8, Offset.ETQF..<Offset.ETQF + 32, Offset.ETQS..<Offset.ETQS + 32: true
    case Offset.MTA..<Offset.MTA + 0x200, Offset.RSSRK..<Offset.RSSRK + 40, Offset.VFTA..<Offset.VFTA + 0x200: true
    case Offset.RAL..<Offset.MPSAR + 0x400: true
    case Offset.SAQF..<Offset.L34TIMIR + 0x200: true
    case Offset.PFVML2FLT..<Offset.PFUTA + 0x200: true
    case Offset.MTQC, Offset.PFVFTE..<Offset.PFVFTE + 8, Offset.PFVMTXSW..<Offset.PFVMTXSW + 8: true
    case Offset.PFVFSPOOF...Offset.PFDTXGSWC, Offset.PFVMVIR..<Offset.PFVMVIR + 0x100: true
    default: false
    }
  }
}

// MARK: which pools

extension CardFilters {
  /// Where a frame goes before queues are looked at.
  struct Choice {
    /// Bit p: pool p. 0: nowhere. Without virtualisation pool 0 stands for the port.
    var pools: UInt64
    /// Not by its exact address: PIF.
    var isInexact: Bool
    /// What has chosen them, as `FilterCounters` counts it.
    var place: Int
  }

  /// The pools of an exact address, or nil.
  func exact(_ address: UInt64) -> UInt64? { find(address)?.pools }

  @inline(__always) private func find(_ address: UInt64) -> Slot? {
    var index = Self.slot(of: address)
    while true {
      let slot = unsafe slots[index]
      if slot.address == address { return slot }
      if slot.address == .max { return nil }
      index = (index &+ 1) & (Self.slotCount - 1)
    }
  }
  @inline(__always) private static func slot(of address: UInt64) -> Int {
    Int(truncatingIfNeeded: (address &* 0x9E37_79B9_7F4A_7C15) >> 55)
  }

  /// The L2 filters, in the datasheet's order: address, VLAN, pools. 82599 datasheet 7.1.1 and 7.10.3.3.
  @inline(__always) func pools(_ headers: FrameHeaders, _ registers: RegisterCells) -> Choice {
    let slot = find(headers.destination)
    // The usual: its own unicast address, and no filter that looks at more than that and the VLAN.
    if let slot, unsafe !headers.flags.contains(.multicast) && state.pointee.isPlain {
      if unsafe !state.pointee.isVirtualised { return Choice(pools: 1, isInexact: false, place: 0) }
      let chosen = unsafe slot.pools == 0 ? state.pointee.defaultPool : slot.pools
      let place = slot.number &* FilterCounters.destinationStride
      return unsafe Choice(pools: chosen & state.pointee.enabledPools, isInexact: false, place: place)
    }
    return poolsByAllFilters(headers, slot, registers)
  }

  @inline(never) private func poolsByAllFilters(
    _ headers: FrameHeaders, _ slot: Slot?, _ registers: RegisterCells
  ) -> Choice {
    let exactPools = slot?.pools
    let place = self.place(of: headers, slot, registers)
    let nowhere = Choice(pools: 0, isInexact: false, place: place)
    let flags = headers.flags
    let isMulticast = flags.contains(.multicast) && !flags.contains(.broadcast)
    let index = unsafe Int(headers.destination >> state.pointee.tableShift & 0xFFF)
    func isSet(_ table: Int) -> Bool { registers[table + index / 32 * 4] >> UInt32(index % 32) & 1 != 0 }
    var inMulticastTable = false
    var inUnicastTable = false
    if isMulticast {
      inMulticastTable = unsafe state.pointee.usesMulticastTable && isSet(Offset.MTA)
    } else if unsafe !flags.contains(.multicast) && state.pointee.isVirtualised && state.pointee.acceptUnicastTable != 0 {
      inUnicastTable = isSet(Offset.PFUTA)
    }
    // Address.
    let passes =
      if exactPools != nil { true } else if flags.contains(.broadcast) {
        unsafe state.pointee.acceptsBroadcast || state.pointee.multicastPromiscuous
      } else if isMulticast {
        unsafe state.pointee.multicastPromiscuous || inMulticastTable
      } else {
        unsafe state.pointee.unicastPromiscuous || inUnicastTable
      }
    guard passes else { return nowhere }
    // VLAN.
    let vlan = Int(headers.tag & 0xFFF)
    let isTagged = flags.contains(.tagged)
    if unsafe isTagged && state.pointee.filtersVLANs {
      guard registers[Offset.VFTA + vlan / 32 * 4] >> UInt32(vlan % 32) & 1 != 0 else { return nowhere }
      if unsafe state.pointee.checksCFI && (headers.tag & 0x1000 != 0) != state.pointee.wantedCFI { return nowhere }
    }
    let isInexact = exactPools == nil && !flags.contains(.broadcast)
    guard unsafe state.pointee.isVirtualised else { return Choice(pools: 1, isInexact: isInexact, place: place) }
    // Pools.
    var pools = exactPools ?? 0
    if unsafe state.pointee.replicates {
      if flags.contains(.broadcast) { pools |= unsafe state.pointee.acceptBroadcast }
      if pools == 0 && inUnicastTable { pools = unsafe state.pointee.acceptUnicastTable }
      if pools == 0 && inMulticastTable { pools = unsafe state.pointee.acceptMulticastTable }
      if isMulticast { pools |= unsafe state.pointee.acceptMulticast }
    } else if pools == 0 && inUnicastTable {
      pools = unsafe state.pointee.acceptUnicastTable
    }
    if unsafe state.pointee.filtersVLANs {
      pools &= unsafe isTagged ? vlanTable[vlan] : state.pointee.acceptUntagged
    }
    if unsafe !state.pointee.replicates {
      // One pool at most: the lowest. Reading "replication off".
      pools &= ~(pools &- 1)
    }
    if pools == 0 { pools = unsafe state.pointee.defaultPool }
    if unsafe state.pointee.usesEtherType, let filter = etherTypeFilter(headers, registers), filter & (1 << 26) != 0 {
      pools = 1 << UInt64(filter >> 20 & 0x3F)
    }
    return unsafe Choice(pools: pools & state.pointee.enabledPools, isInexact: isInexact, place: place)
  }

  /// What the filters can tell of a frame, as a place in `FilterCounters`.
  private func place(of headers: FrameHeaders, _ slot: Slot?, _ registers: RegisterCells) -> Int {
    let flags = headers.flags
    let destination = slot?.number ?? (flags.contains(.broadcast) ? 128 : flags.contains(.multicast) ? 129 : 130)
    var tag = 0
    if unsafe flags.contains(.tagged) && state.pointee.filtersVLANs {
      let number = unsafe Int(vlanNumbers[Int(headers.tag & 0xFFF)])
      tag = number == 0 ? FilterCounters.otherTag : number
    }
    var type = 0
    if unsafe state.pointee.usesEtherType, let filter = etherTypeFilter(headers, registers) { type = Int(filter >> 16 & 7) + 1 }
    return FilterCounters.place(destination: destination, tag: tag, etherType: type)
  }

  /// ETQF of the first filter for this type, or nil. 82599 datasheet 7.1.2.3.
  func etherTypeFilter(_ headers: FrameHeaders, _ registers: RegisterCells) -> UInt32? {
    for n in 0..<8 {
      let filter = registers[Offset.ETQF + 4 * n]
      if filter >> 31 != 0 && filter & 0xFFFF == UInt32(headers.etherType) {
        // Its bits 18:16 are not used: they carry its number.
        return filter & ~0x70000 | UInt32(n) << 16
      }
    }
    return nil
  }
}

// MARK: from the registers

extension SimulatedCard {
  @inline(never) func rebuildFilters() {
    line.filtersAreStale = false
    filters.rebuild(from: registers)
    var key: [UInt8] = []
    for n in 0..<10 {
      let word = registers[Offset.RSSRK + 4 * n]
      key += (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
    }
    if key != rssKey {
      rssKey = key
      rss.setKey(key)
    }
    unsafe filters.current.pointee.usesFlowDirector = flowDirector.isEnabled
    if flowDirector.isEnabled { unsafe filters.current.pointee.steers = true }
    let virtual = unsafe filters.current.pointee.isVirtualised
    if virtual && (unsafe filters.current.pointee.poolShift) == 0 { note(.poolsWithoutQueues) }
  }
}

extension CardFilters {
  func rebuild(from registers: RegisterCells) {
    var new = State()
    let control = registers[Offset.PFVTCTL]
    let fctrl = registers[Offset.FCTRL]
    let vlan = registers[Offset.VLNCTRL]
    new.isVirtualised = control & 1 != 0
    new.replicates = control >> 30 & 1 != 0
    new.defaultPool = control >> 29 & 1 != 0 ? 0 : 1 << UInt64(control >> 7 & 0x3F)
    new.enabledPools = Self.pair(registers, Offset.PFVFRE)
    new.filtersVLANs = vlan >> 30 & 1 != 0
    new.checksCFI = vlan >> 29 & 1 != 0
    new.wantedCFI = vlan >> 28 & 1 != 0
    new.multicastPromiscuous = fctrl >> 8 & 1 != 0
    new.unicastPromiscuous = fctrl >> 9 & 1 != 0
    new.acceptsBroadcast = fctrl >> 10 & 1 != 0
    new.usesMulticastTable = registers[Offset.MCSTCTRL] & 4 != 0
    new.tableShift = [36, 35, 34, 32][Int(registers[Offset.MCSTCTRL] & 3)]
    for pool in 0..<64 {
      let filter = registers[Offset.PFVML2FLT + 4 * pool]
      let bit: UInt64 = 1 << UInt64(pool)
      if filter >> 24 & 1 != 0 { new.acceptUntagged |= bit }
      if filter >> 25 & 1 != 0 { new.acceptMulticastTable |= bit }
      if filter >> 26 & 1 != 0 { new.acceptUnicastTable |= bit }
      if filter >> 27 & 1 != 0 { new.acceptBroadcast |= bit }
      if filter >> 28 & 1 != 0 { new.acceptMulticast |= bit }
    }
    decodeQueues(&new, registers)
    decodeSwitch(&new, registers)
    new.isPlain = !new.filtersVLANs && !new.usesEtherType && (new.replicates || !new.isVirtualised)
    unsafe state.pointee = new
    decodeTuples(registers)
    enterAddresses(registers)
    unsafe vlanTable.update(repeating: 0, count: 4096)
    unsafe vlanNumbers.update(repeating: 0, count: 4096)
    for n in 0..<64 {
      let entry = registers[Offset.PFVLVF + 4 * n]
      guard entry >> 31 != 0 else { continue }
      let identifier = Int(entry & 0xFFF)
      unsafe vlanTable[identifier] |= Self.pair(registers, Offset.PFVLVFB + 8 * n)
      if unsafe vlanNumbers[identifier] == 0 { unsafe vlanNumbers[identifier] = UInt8(n + 1) }
    }
  }

  static func pair(_ registers: RegisterCells, _ offset: Int) -> UInt64 {
    UInt64(registers[offset + 4]) << 32 | UInt64(registers[offset])
  }

  private func enterAddresses(_ registers: RegisterCells) {
    unsafe slots.update(repeating: Slot(), count: Self.slotCount)
    for n in 0..<128 {
      let high = registers[Offset.RAL + 8 * n + 4]
      guard high >> 31 != 0 else { continue }
      let address = UInt64(high & 0xFFFF) << 32 | UInt64(registers[Offset.RAL + 8 * n])
      var index = Self.slot(of: address)
      while unsafe slots[index].address != .max && slots[index].address != address {
        index = (index + 1) & (Self.slotCount - 1)
      }
      if unsafe slots[index].address == .max { unsafe slots[index].number = n }
      unsafe slots[index].address = address
      unsafe slots[index].pools |= Self.pair(registers, Offset.MPSAR + 8 * n)
    }
  }

  /// MRQC.MRQE. 82599 datasheet 8.2.3.7.12.
  private func decodeQueues(_ new: inout State, _ registers: RegisterCells) {
    let mrqc = registers[Offset.MRQC]
    new.rssFields = mrqc & 0xFFFF_0000
    switch mrqc & 15 {
    case 1: new.usesRSS = true
    case 2, 4: (new.usesTrafficClass, new.trafficClassShift, new.usesRSS) = (true, 4, mrqc & 15 == 4)
    case 3, 5: (new.usesTrafficClass, new.trafficClassShift, new.usesRSS) = (true, 5, mrqc & 15 == 5)
    case 8: new.poolShift = 1
    case 10: (new.poolShift, new.usesRSS) = (2, true)
    case 11: (new.poolShift, new.usesRSS) = (1, true)
    case 12: (new.poolShift, new.usesTrafficClass) = (3, true)
    case 13: (new.poolShift, new.usesTrafficClass) = (2, true)
    default: break
    }
    new.queuesInPool = 1 << new.poolShift
    // With no field selected nothing is hashed, and the index is 0.
    new.usesRSS = new.usesRSS && new.rssFields != 0
    let etherTypes = (0..<8).contains { registers[Offset.ETQF + 4 * $0] >> 31 != 0 }
    new.usesEtherType = etherTypes
    let syn = registers[Offset.SYNQF]
    (new.usesSYN, new.synQueue, new.synFirst) = (syn & 1 != 0, Int(syn >> 1 & 0x7F), syn >> 31 != 0)
    new.steers = new.usesRSS || new.usesTrafficClass || new.usesEtherType || new.usesSYN
  }

  /// The filters that are on, the highest priority first, the lowest number first among equals.
  private func decodeTuples(_ registers: RegisterCells) {
    var all: [Tuple] = []
    for n in 0..<128 {
      let filter = registers[Offset.FTQF + 4 * n]
      guard filter >> 31 != 0 else { continue }
      let ports = registers[Offset.SDPQF + 4 * n]
      all.append(
        Tuple(
          source: registers[Offset.SAQF + 4 * n], destination: registers[Offset.DAQF + 4 * n],
          // The ports are in network order, the source in the lower half. Reading "SDPQF".
          sourcePort: UInt16(truncatingIfNeeded: ports).byteSwapped,
          destinationPort: UInt16(truncatingIfNeeded: ports >> 16).byteSwapped,
          protocolNumber: UInt8(filter & 3), ignored: UInt8(filter >> 25 & 31),
          pool: filter >> 30 & 1 != 0 ? 255 : UInt8(filter >> 8 & 0x3F),
          queue: UInt8(registers[Offset.L34TIMIR + 4 * n] >> 21 & 0x7F), priority: UInt8(filter >> 2 & 7), number: UInt8(n)))
    }
    // Stable: equals keep their order.
    var count = 0
    for priority in (0...7).reversed() {
      for tuple in all where tuple.priority == UInt8(priority) {
        unsafe tuples[count] = tuple
        count += 1
      }
    }
    unsafe state.pointee.tupleCount = count
    if count > 0 { unsafe state.pointee.steers = true }
  }
}
