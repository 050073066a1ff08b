public import FlowSteering

/// Everything in a card by which a frame can come to a queue, as its registers say it.
public struct CardState: Hashable, Sendable {
  /// Rules are not known to a card: they are 0. Flow director's filters cannot be read, only counted.
  public var tables: CardTables
  /// Pools that take part at all.
  public var enabledPools: UInt64 = 0
  /// Whether frames for several pools are copied; else the lowest gets them.
  public var replicates = false
  /// Pools whose frames are copied elsewhere, or who get copies of others'.
  public var mirrors = false
  /// Flow director compares hashes, so that a stranger's frame can look like one of its own.
  public var matchesHashes = false
  public var exactFlowCount = 0
  /// Queues that RSS spreads each pool's frames over.
  public var spread: [Int] = []

  public init(plan: PoolPlan) { tables = CardTables(plan: plan) }
}

/// Before a queue is lent guest memory: nothing but its owner's rules reaches it.
///
/// The rules have been proved against the tables that were made of them; here the card itself is held against those
/// tables, register by register. What is more in it than was made is a way for a stranger's frame.
public struct Exclusivity: Sendable {
  let wanted: CardTables
  private let names: [String]

  public init(_ program: CardProgram) {
    guard let tables = program.tables else { preconditionFailure("the ideal card has no queues") }
    wanted = tables
    names = program.steering.receivers.map(\.name)
  }

  func name(of pool: Int) -> String { names.indices.contains(pool) ? names[pool] : "of pool \(pool)" }

  /// - Throws: `notExclusive`, naming the way.
  public func check(pool: Int, in state: CardState) throws(RuleError) {
    let found = state.tables
    let bit: UInt64 = 1 << UInt64(pool)
    func fail(_ way: String) throws(RuleError) {
      throw RuleError(
        .notExclusive, "frames that no rule of VM \(name(of: pool)) asks for could come to its queues: \(way)",
        fit: "the card has been changed by another than us, or forgot a change; start the back-end again")
    }
    // Whole card.
    if state.mirrors { try fail("a mirror rule copies frames between pools (PFMRCTL)") }
    if state.matchesHashes { try fail("flow director compares hashes, not fields (FDIRCTRL)") }
    if state.exactFlowCount > wanted.exactFlows.count {
      try fail("flow director has \(state.exactFlowCount) filters, and \(wanted.exactFlows.count) were made (FDIRFREE)")
    }
    if !state.replicates { try fail("of frames for several pools the lowest gets the one copy (PFVTCTL.Rpl_En)") }
    if wanted.filtersVLANs && !found.filtersVLANs { try fail("VLANs are not looked at (VLNCTRL.VFE)") }
    if let open = found.defaultPool, open == pool, wanted.defaultPool != pool { try fail("what nobody claims comes to it (PFVTCTL.DEF_PL)") }
    if state.enabledPools >> UInt64(wanted.plan.closed) & 1 == 1 { try fail("the pool that ends frames is enabled (PFVFRE)") }
    // Its pool.
    let addresses = Dictionary(wanted.addresses.map { ($0.address, $0.pools) }, uniquingKeysWith: |)
    for entry in found.addresses where entry.pools & bit != 0 && (addresses[entry.address] ?? 0) & bit == 0 {
      try fail("a receive address, \(entry.address), names its pool (RAH, MPSAR)")
    }
    let vlans = Dictionary(wanted.vlans.map { ($0.identifier, $0.pools) }, uniquingKeysWith: |)
    for entry in found.vlans where entry.pools & bit != 0 && (vlans[entry.identifier] ?? 0) & bit == 0 {
      try fail("a VLAN filter, \(entry.identifier), names its pool (PFVLVF, PFVLVFB)")
    }
    let kinds = [
      ("broadcast (PFVML2FLT.BAM)", found.broadcastPools & ~wanted.broadcastPools),
      ("all multicast (PFVML2FLT.MPE)", found.multicastPools & ~wanted.multicastPools),
      ("all unicast (PFVML2FLT.ROPE, PFUTA)", found.unicastPools & ~wanted.unicastPools),
    ]
    for (name, pools) in kinds where pools & bit != 0 { try fail("its pool takes \(name)") }
    if wanted.filtersVLANs && found.untaggedPools & ~wanted.untaggedPools & bit != 0 { try fail("its pool takes frames without a VLAN tag (PFVML2FLT.AUPE)") }
    if state.spread.indices.contains(pool), state.spread[pool] > wanted.plan.queuesEach { try fail("RSS spreads its frames over queues of the next pool (PSRTYPE.RQPL)") }
    // Filters that name its queues.
    let types = Set(wanted.etherTypes.map { [Int($0.type), $0.queue.pool, $0.queue.number] })
    for entry in found.etherTypes where entry.queue.pool == pool && !types.contains([Int(entry.type), pool, entry.queue.number]) {
      try fail("an EtherType filter, \(Match.Pair(.etherType, .exactly(entry.type, in: .etherType)).text), names a queue of it (ETQF, ETQS)")
    }
    if let syn = found.syn, syn.queue.pool == pool, wanted.syn?.queue != syn.queue { try fail("the SYN filter names a queue of it (SYNQF)") }
    var tuples = Dictionary(wanted.fiveTuples.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
    for entry in found.fiveTuples where entry.queue.pool == pool {
      guard let known = tuples.removeValue(forKey: entry.key), known.queue == entry.queue else {
        try fail("a five-tuple filter, \(entry.match), names queue \(entry.queue.number) of it (FTQF, L34TIMIR)")
        continue
      }
    }
  }
}
