internal import Bus
public import FlowTables

// What leaves a pool is its own. 82576 datasheet 7.10.3.7, 7.10.3.8; DTXSWC, VMVIR, VMOLR, RPLOLR.
extension Igb {
  /// Sets which pools the card holds to their addresses and VLANs, and which are access ports. Off after a reset.
  func setSending(_ sending: CardTables.Sending) {
    for pool in 0..<variant.poolCount {
      var insert = VMVIR(rawValue: 0)
      if let vlan = sending.portVLANs[pool] { (insert.tag, insert.action) = (UInt32(vlan), 1) }
      if registers.read(VMVIR.self, pool).rawValue != insert.rawValue { registers.write(insert, pool) }
      let strips = sending.portVLANs[pool] != nil
      if variant.stripsAtQueue {
        if registers.read(DVMOLR.self, pool).stripsVLAN != strips { registers.modify(DVMOLR.self, pool) { $0.stripsVLAN = strips } }
      } else if registers.read(VMOLR.self, pool).stripsVLAN != strips {
        registers.modify(VMOLR.self, pool) { $0.stripsVLAN = strips }
      }
    }
    let hasPorts = !sending.portVLANs.isEmpty
    // Of copies for several pools: for all of them or none, and the rules were refused where that is not right.
    if !variant.stripsAtQueue, registers.read(RPLOLR.self).stripsVLAN != hasPorts { registers.modify(RPLOLR.self) { $0.stripsVLAN = hasPorts } }
    // VME: without it no tag is put in. With pools it takes none off: 7.10.3.8.
    if registers.read(CTRL.self).stripsVLAN != hasPorts { registers.modify(CTRL.self) { $0.stripsVLAN = hasPorts } }
    let now = registers.read(DTXSWC.self, variant.switchControl)
    var checks = now
    checks.checksSource = UInt32(truncatingIfNeeded: sending.addressPools & 0xFF)
    checks.checksVLAN = UInt32(truncatingIfNeeded: sending.vlanPools & 0xFF)
    if checks.rawValue != now.rawValue { registers.write(checks, variant.switchControl) }
  }

  func readSending(_ sending: inout CardTables.Sending) {
    let control = registers.read(DTXSWC.self, variant.switchControl)
    (sending.addressPools, sending.vlanPools) = (UInt64(control.checksSource), UInt64(control.checksVLAN))
    for pool in 0..<variant.poolCount {
      let insert = registers.read(VMVIR.self, pool)
      if insert.action != 0 { sending.portVLANs[pool] = insert.action == 1 ? UInt16(insert.tag) : .max }
    }
  }

  public func readSending(_ plan: PoolPlan) -> CardState {
    var state = CardState(plan: plan)
    readAddresses(&state.tables)
    readSending(&state.tables.sending)
    return state
  }
}
