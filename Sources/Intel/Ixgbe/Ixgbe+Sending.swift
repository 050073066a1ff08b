internal import Bus
public import FlowTables

// What leaves a pool is its own. 82599 datasheet 7.10.3.9, 8.2.3.27.11, 8.2.3.27.13.
extension Ixgbe {
  /// Sets which pools the card holds to their addresses and VLANs, and whose frames get a tag. Off after a reset.
  func setSending(_ sending: CardTables.Sending) {
    for pool in 0..<configuration.poolCount {
      var insert = PFVMVIR(rawValue: 0)
      if let vlan = sending.portVLANs[pool] { (insert.tag, insert.action) = (UInt32(vlan), 1) }
      if registers.read(PFVMVIR.self, pool).rawValue != insert.rawValue { registers.write(insert, pool) }
    }
    for n in 0..<8 {
      var check = PFVFSPOOF(rawValue: 0)
      check.checksSource = UInt32(truncatingIfNeeded: sending.addressPools >> UInt64(8 * n)) & 0xFF
      check.checksVLAN = UInt32(truncatingIfNeeded: sending.vlanPools >> UInt64(8 * n)) & 0xFF
      if registers.read(PFVFSPOOF.self, n).rawValue != check.rawValue { registers.write(check, n) }
    }
  }

  /// Whether the tag is taken off what a queue receives: its pool is an access port. RXDCTL.VME.
  func stripsTag(queue n: Int) -> Bool {
    guard configuration.isVirtualized else { return false }
    return steering.tables?.sending.portVLANs[n / configuration.queueStride] != nil
  }

  func readSending(_ sending: inout CardTables.Sending) {
    for n in 0..<8 {
      let check = registers.read(PFVFSPOOF.self, n)
      sending.addressPools |= UInt64(check.checksSource) << UInt64(8 * n)
      sending.vlanPools |= UInt64(check.checksVLAN) << UInt64(8 * n)
    }
    for pool in 0..<64 {
      let insert = registers.read(PFVMVIR.self, pool)
      // Also one that never puts a tag in is none that was set.
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
