internal import FlowTables

/// A card's tables for whose a frame is: what differs between cards is how each is written.
protocol AddressTables: AnyObject {
  func setVLANs(_ tables: CardTables) throws(IntelError)
  func setAddresses(_ tables: CardTables) throws(IntelError)
  /// What the first filter lets in at all.
  func setAdmitted(_ kinds: CardTables.Kinds)
  /// Where frames go that no pool claims; nil: nowhere.
  func setDefaultPool(_ pool: Int?)
}

// The order of the steps is told in Ixgbe+Steering.
extension AddressTables {
  func changeAddressStep(from old: CardTables, to new: CardTables) throws(IntelError) {
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
}
