public import FlowSteering
public import FlowTables

/// Where a card's tables stand in its registers: what a number of a filter means.
public struct FilterSlots: Sendable {
  /// By number of RAL and RAH, PFVLVF, ETQF.
  public let addresses: [Int: MACAddress]
  public let vlans: [Int: UInt16]
  public let etherTypes: [Int: UInt16]
  /// The numbers of rules, by number of FTQF and by flow director's software index.
  public let fiveTuples: [Int: Int]
  public let exactFlows: [Int: Int]
}

extension Ixgbe {
  /// - Parameter tables: those that were applied last.
  public func filterSlots(of tables: CardTables) -> FilterSlots {
    var (vlans, tuples, flows) = ([Int: UInt16](), [Int: Int](), [Int: Int]())
    for entry in tables.vlans { if let slot = self.vlans.slot(entry.identifier) { vlans[slot] = entry.identifier } }
    for entry in tables.fiveTuples { if let slot = steering.tupleSlots[entry.key] { tuples[slot] = entry.rule } }
    flows.reserveCapacity(steering.flows.count)
    for flow in steering.flows.values { flows[flow.number] = flow.entry.rule }
    func inverse<Key, Value: Hashable>(_ slots: [Key: Value]) -> [Value: Key] { Dictionary(uniqueKeysWithValues: slots.map { ($1, $0) }) }
    return FilterSlots(
      addresses: inverse(steering.addressSlots), vlans: vlans, etherTypes: inverse(steering.typeSlots), fiveTuples: tuples, exactFlows: flows)
  }
}
