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
// - Where whose a frame is and what becomes of it change at once, no such order exists. If it is addresses that get
//   other owners, theirs are the frames that are lost for the moment that the change takes; if it is more than that,
//   nothing is received.
extension Ixgbe {
  /// Brings the filter tables to what the rules of a port were made into. If the card refuses half way, it is brought
  /// back to what it had.
  ///
  /// - Throws: `steeringLost` if it refuses that too: then it receives nothing any more, which is better than to receive
  ///   by half a set of rules.
  /// Precondition: the card has the pools of the plan.
  public func apply(_ new: CardTables) throws(IntelError) {
    guard new.plan.count == configuration.poolCount else { throw .poolCount(new.plan.count, allowed: configuration.poolCount...configuration.poolCount) }
    if !new.exactFlows.isEmpty && configuration.flowDirector.filterCount < new.exactFlows.count {
      throw .tableFull("flow director", count: configuration.flowDirector.filterCount)
    }
    let old = steering.tables
    do {
      try change(from: old ?? CardTables(plan: new.plan), to: new)
      steering.tables = new
      // A copy of its own, for what `add` brings.
      steering.tables?.reserve(CardTables.headroom)
      steering.flows.reserveCapacity(steering.flows.count + CardTables.headroom)
    } catch {
      guard let old else { throw error }
      do throws(IntelError) { try restore(old) } catch { throw .steeringLost("\(error)") }
      throw error
    }
  }

  /// Makes all filters anew while nothing is received.
  private func restore(_ tables: CardTables) throws(IntelError) {
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
    setSending(tables.sending)
    try enableReceive()
  }

  /// Puts one filter in that touches no other. If the card refuses, it is as it was.
  public func add(_ filter: CardProgram.Addition) throws(IntelError) {
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
      do throws(IntelError) { try add(entry) } catch {
        try? removeExactFlows { $0.key == entry.key }
        throw error
      }
      steering.tables?.exactFlows.append(entry)
    }
  }

  private func change(from old: CardTables, to new: CardTables) throws(IntelError) {
    if steering.tables == nil { closePool(new.plan.closed) }
    let changesBoth = !old.hasSameAddressStep(as: new) && !old.hasSameFlows(as: new)
    let changesMask = new.flowMask != nil && new.flowMask != old.flowMask && !old.exactFlows.isEmpty
    let movesSYN = old.syn != nil && new.syn != nil && (old.syn?.queue != new.syn?.queue || old.syn?.isFirst != new.syn?.isFirst)
    let sharesAddresses = changesBoth && old.differsInAddressesOnly(from: new)
    let isHeld = (changesBoth && !sharesAddresses || changesMask || movesSYN || !hasRoomForBoth(old, new)) && registers.read(RXCTRL.self).isEnabled
    if isHeld { try disableReceive() }
    var start = old
    if sharesAddresses && !isHeld {
      start = old.intersection(with: new)
      try setAddresses(start)
    }
    try changeFlowMask(from: old, to: new)
    if new.syn?.isFirst == true || new.syn != nil && old.syn != nil { setSYN(new.syn) }
    try addTuples(from: old, to: new)
    if let syn = new.syn, !syn.isFirst, old.syn == nil { setSYN(syn) }
    try addExactFlows(new)
    try addEtherTypes(new)
    try changeAddressStep(from: start, to: new)
    try removeEtherTypes(notIn: new)
    try removeExactFlows(notIn: new)
    if new.syn == nil, old.syn?.isFirst == false { setSYN(nil) }
    try removeTuples(from: old, to: new)
    if new.syn == nil { setSYN(nil) }
    // A check that goes has nobody behind it any more, and one that comes finds what it compares with.
    setSending(new.sending)
    if isHeld { try enableReceive() }
  }

  /// A pool that takes part in nothing: what is for it ends.
  private func closePool(_ pool: Int) {
    registers.modify(PFVFRE.self, pool / 32) { $0[bit: pool % 32] = false }
  }

  /// Also of queues that a pool has and no guest uses: frames end there.
  func number(of queue: CardTables.Queue) -> UInt32 {
    precondition(queue.number >= 0 && queue.number < configuration.queueStride)
    return UInt32(queue.pool * configuration.queueStride + queue.number)
  }
}
