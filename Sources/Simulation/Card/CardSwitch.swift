/// The card's own switch: a frame that one pool sends may be for other pools. 82599 datasheet 7.10.3.4, PFDTXGSWC.LBE.
///
/// A frame for an exact address of some pool goes to that pool and not to the wire; a broadcast or multicast goes to the
/// wire and to every pool that takes it; none goes back to the pool it came from, unless PFVMTXSW says so. Readings
/// "switched frames" and "sent with RXEN clear".
struct SwitchRoute {
  var isForWire = true
  var copyCount = 0
  var isRefused = false
}

/// What became of the copies of the last frame that was copied. Its room is as many pools as there are.
struct CopyRecord {
  private(set) var count = 0
  private var queues = InlineArray<64, UInt8>(repeating: 0)
  private var drops = InlineArray<64, CardDrop?>(repeating: nil)

  mutating func clear() { count = 0 }
  mutating func add(queue: Int, drop: CardDrop?) {
    queues[count & 63] = UInt8(truncatingIfNeeded: queue)
    drops[count & 63] = drop
    count += 1
  }
  subscript(_ index: Int) -> (queue: Int, drop: CardDrop?) { (Int(queues[index]), drops[index]) }
}

extension SimulatedCard {
  /// The copies of the last frame of which there were several, or that went from one pool to another: the queue that each
  /// was for, and why it is not there; nil where it is.
  public var copies: [(queue: Int, drop: CardDrop?)] { (0..<copyRecord.count).map { copyRecord[$0] } }

  public var copyCount: Int { copyRecord.count }
  public func copy(_ index: Int) -> (queue: Int, drop: CardDrop?) { copyRecord[index] }

  /// Whether a queue's pool may send: PFVFTE, in virtualisation mode.
  func maySend(_ n: Int) -> Bool {
    let state = unsafe filters.current
    guard unsafe state.pointee.sendsByPool else { return true }
    return unsafe state.pointee.sendingPools >> UInt64(n >> state.pointee.sendShift) & 1 != 0
  }

  /// Whether a frame's source, and the VLAN that it has when all tags are in, are its pool's. Reading "anti-spoofing".
  private func isOwn(_ headers: FrameHeaders, of sender: UInt64) -> Bool {
    let state = unsafe filters.current
    if unsafe state.pointee.checkedPools & sender != 0, (filters.exact(headers.source) ?? 0) & sender == 0 { return false }
    guard unsafe state.pointee.checkedVLANPools & sender != 0 else { return true }
    let identifier = headers.flags.contains(.tagged) ? Int(headers.tag & 0xFFF) : 0
    return filters.vlanPools(identifier) & sender != 0
  }

  /// The tag that PFVMVIR puts into a pool's frames, or the descriptor's where that decides. 82599 datasheet 8.2.3.27.13.
  func outgoingTag(_ n: Int, descriptor tag: UInt16?) -> UInt16? {
    let state = unsafe filters.current
    guard unsafe state.pointee.sendsByPool && state.pointee.hasPortTags else { return tag }
    let action = registers[Offset.PFVMVIR + 4 * (n >> (unsafe state.pointee.sendShift))]
    switch action >> 30 {
    case 1: return UInt16(truncatingIfNeeded: action)
    case 2: return nil
    default: return tag
    }
  }

  /// Where a frame in `outgoing` goes; its copies for other pools are made here.
  func switchFrame(_ n: Int, _ count: Int) -> SwitchRoute {
    var route = SwitchRoute()
    let state = unsafe filters.current
    guard unsafe state.pointee.sendsByPool else { return route }
    let checked = unsafe state.pointee.checkedPools | state.pointee.checkedVLANPools
    guard unsafe state.pointee.switches || checked != 0 else { return route }
    let sender: UInt64 = 1 << UInt64(n >> (unsafe state.pointee.sendShift))
    guard count >= 14 else { return checked & sender == 0 ? route : SwitchRoute(isForWire: false, copyCount: 0, isRefused: true) }
    let addresses = unsafe FrameHeaders(addressing: outgoing, count: count)
    if checked & sender != 0 && !isOwn(addresses, of: sender) {
      return SwitchRoute(isForWire: false, copyCount: 0, isRefused: true)
    }
    guard unsafe state.pointee.switches, !line.isBlocked(.receiveDisabled) else { return route }
    let choice = filters.poolsInside(addresses, sender, registers)
    route.isForWire = choice.isForWire
    guard choice.pools != 0 else { return route }
    copyRecord.clear()
    if line.stalledQueue >= 0, waitForStalledQueue(addresses, count, false) != nil {
      // They wait behind the frame that the port waits for, as those from the wire do.
      var pools = choice.pools
      while pools != 0 {
        copyRecord.add(queue: pools.trailingZeroBitCount << (unsafe state.pointee.poolShift), drop: .portStalled)
        pools &= pools &- 1
      }
    } else {
      let headers = unsafe FrameHeaders(parsing: outgoing, count: count)
      let done = unsafe deliver(outgoing, count, headers, to: choice.pools, inexact: choice.isInexact, switched: true)
      counters.switched(count, copies: done.delivered.nonzeroBitCount)
    }
    route.copyCount = copyRecord.count
    return route
  }
}

extension CardFilters {
  /// The pools that get a frame from another, in the datasheet's order, and whether the wire gets it. What FCTRL keeps
  /// out is from the wire only. 82599 datasheet 7.10.3.4.1, and .2 for replication off.
  func poolsInside(
    _ headers: FrameHeaders, _ sender: UInt64, _ registers: RegisterCells
  ) -> (pools: UInt64, isForWire: Bool, isInexact: Bool) {
    let isBroadcast = headers.flags.contains(.broadcast)
    let isGroup = headers.flags.contains(.multicast)
    let index = unsafe Int(headers.destination >> current.pointee.tableShift & 0xFFF)
    func isSet(_ table: Int) -> Bool { registers[table + index / 32 * 4] >> UInt32(index % 32) & 1 != 0 }
    let enabled = unsafe current.pointee.enabledPools
    // A match that leads only to pools that are off is none.
    let exactPools = (exact(headers.destination) ?? 0) & enabled
    var pools = exactPools
    if unsafe current.pointee.replicates {
      if isBroadcast { pools |= unsafe current.pointee.acceptBroadcast }
      if pools == 0 && !isGroup && isSet(Offset.PFUTA) { pools = unsafe current.pointee.acceptUnicastTable }
      if pools == 0 && isGroup && !isBroadcast, unsafe current.pointee.usesMulticastTable, isSet(Offset.MTA) {
        pools = unsafe current.pointee.acceptMulticastTable
      }
      if isGroup && !isBroadcast { pools |= unsafe current.pointee.acceptMulticast }
    } else if pools == 0 && !isGroup && isSet(Offset.PFUTA) {
      pools = unsafe current.pointee.acceptUnicastTable
    }
    let others = unsafe ~sender | current.pointee.returningPools
    pools &= others
    if unsafe current.pointee.filtersVLANs {
      let isTagged = headers.flags.contains(.tagged)
      pools &= unsafe isTagged ? vlanPools(Int(headers.tag & 0xFFF)) : current.pointee.acceptUntagged
    }
    // The default pool is for groups only, here.
    if pools == 0 && isGroup { pools = unsafe current.pointee.defaultPool & others }
    if unsafe !current.pointee.replicates { pools &= ~(pools &- 1) }
    return (pools & enabled, isGroup || exactPools == 0, exactPools == 0 && !isBroadcast)
  }

  /// PFDTXGSWC, PFVMTXSW, PFVFSPOOF, PFVMVIR, PFVFTE, and the layout of the transmit queues, MTQC. 82599 datasheet 8.2.3.9.15.
  func decodeSwitch(_ new: inout State, _ registers: RegisterCells) {
    let layout = registers[Offset.MTQC]
    new.sendsByPool = layout & 2 != 0
    new.sendShift = layout >> 2 & 3 == 2 ? 2 : 1
    new.sendingPools = Self.pair(registers, Offset.PFVFTE)
    new.switches = registers[Offset.PFDTXGSWC] & 1 != 0 && new.isVirtualised
    new.returningPools = Self.pair(registers, Offset.PFVMTXSW)
    // MACAS and VLANAS, eight pools a register.
    for n in 0..<8 {
      let spoof = registers[Offset.PFVFSPOOF + 4 * n]
      new.checkedPools |= UInt64(spoof & 0xFF) << UInt64(8 * n)
      new.checkedVLANPools |= UInt64(spoof >> 8 & 0xFF) << UInt64(8 * n)
    }
    new.hasPortTags = (0..<64).contains { registers[Offset.PFVMVIR + 4 * $0] >> 30 != 0 }
  }
}
