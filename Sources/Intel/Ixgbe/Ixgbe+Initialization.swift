internal import Bus

// The long functions here walk the datasheet in its order.
extension Ixgbe {
  private static let queueCount = 128
  /// KiB of packet buffer for receiving and for sending. 8.2.3.8.9, 8.2.3.9.13.
  private static let receiveKibibytes: UInt32 = 512
  private static let transmitKibibytes: UInt32 = 160

  private func maskInterrupts() {
    for n in 0..<3 { registers.write(EIMC.all(n), n) }
    registers.write(EICR(rawValue: .max))
  }

  /// Global reset: 4.6.3.1, 4.6.3.2, with what 4.2.1.6.1 asks for before.
  func reset() throws(IntelError) {
    maskInterrupts()
    let stuck = QueueKind.ixgbe.stopAll(Self.queueCount, of: registers, on: clock)
    let isIdle = disableMaster()
    try resetOnce()
    // A master that did not stop gets a second reset: answers to its requests may have come in after the first.
    if !isIdle { try resetOnce() }
    // A queue that would not stop is stopped by the reset, or nothing can be said about what it writes.
    if let stuck {
      do { try ReceiveRegisters(.ixgbe, stuck, of: registers).waitUntilDisabled(within: .zero, on: clock) } catch { throw .register(error) }
    }
    maskInterrupts()
    // No flow control: 4.6.3.2 wants all of it zero, but for the threshold of the one packet buffer in use.
    for n in 0..<4 { registers.write(FCTTV(rawValue: 0), n) }
    for n in 0..<8 { registers.write(FCRTL(rawValue: 0), n) }
    for n in 0..<8 { registers.write(flowControlThreshold(n), n) }
    registers.write(FCRTV(rawValue: 0))
    registers.modify(FCCFG.self) { $0.transmitFlowControl = 0 }
    registers.modify(MFLCN.self) {
      $0.obeysPriorityPause = false
      $0.obeysPause = false
    }
  }

  private func resetOnce() throws(IntelError) {
    registers.modify(CTRL.self) {
      $0.isReset = true
      $0.isLinkReset = true
    }
    clock.pause(nanoseconds: 10_000_000)
    try wait(for: CTRL.self, within: .milliseconds(100)) { !$0.isReset }
    registers.modify(CTRL.self) {
      $0.isLinkReset = false
      $0.isMasterDisabled = false
    }
  }

  /// Master disable, 5.2.5.3.2: no new requests on the bus, and wait for those under way. False if they did not
  /// end: then what waits in the card was thrown away.
  private func disableMaster() -> Bool {
    registers.modify(CTRL.self) { $0.isMasterDisabled = true }
    do throws(IntelError) {
      try wait(for: STATUS.self, within: .milliseconds(100)) { !$0.isMasterEnabled }
      return true
    } catch {
      registers.modify(HLREG0.self) { $0.isLoopback = true }
      registers.modify(RXCTRL.self) { $0.isEnabled = false }
      clock.pause(nanoseconds: 1_000_000)
      registers.modify(GCR_EXT.self) { $0.clearsBuffers = true }
      clock.pause(nanoseconds: 20_000)
      registers.modify(HLREG0.self) { $0.isLoopback = false }
      registers.modify(GCR_EXT.self) { $0.clearsBuffers = false }
      return false
    }
  }

  private var packetBufferKibibytes: UInt32 { Self.receiveKibibytes - UInt32(configuration.flowDirector.kibibytes) }

  private func flowControlThreshold(_ n: Int) -> FCRTH {
    var value = FCRTH(rawValue: 0)
    if n == 0 { value.threshold = (packetBufferKibibytes * 1024 - 0x6000) / 32 }
    return value
  }

  /// 4.6.7 "Receive Initialization", all but the queues and RXEN.
  func initializeReceive() throws(IntelError) {
    clearFilterTables()
    registers.modify(FCTRL.self) {
      $0.storesBadFrames = false
      $0.acceptsAllMulticast = false
      $0.acceptsAllUnicast = false
      // With pools, each says for itself whether it takes broadcasts; without, `setAccepted` does.
      $0.acceptsBroadcast = configuration.isVirtualized
    }
    registers.modify(VLNCTRL.self) {
      $0.etherType = 0x8100
      $0.filtersByCFI = false
      $0.filters = false
    }
    registers.modify(MCSTCTRL.self) {
      $0.bitOffset = 0
      $0.filters = false
    }
    registers.modify(RFCTL.self) { $0.disablesCoalescing = true }
    registers.modify(RXCSUM.self) { $0.reportsHash = true }

    // The FCS is checked and not stored: two registers that must agree. Coalescing's defaults must go.
    registers.modify(HLREG0.self) {
      $0.stripsCRC = true
      // Also below 1518 bytes, so that the limit is the one that we state.
      $0.obeysFrameLimit = true
    }
    registers.modify(RDRXCTL.self) {
      $0.stripsCRC = true
      $0.firstCoalescedSize = 0
      $0.coalescesAcknowledgements = true
      $0.fixesFCoEWrites = true
    }
    registers.modify(CTRL_EXT.self) { $0.expectsOuterTag = false }
    // Header and FCS; a tag's four bytes the card allows by itself.
    registers.modify(MAXFRS.self) { $0.largestFrame = UInt32(configuration.mtu + 18) }

    // One packet buffer for all.
    for n in 0..<8 {
      registers.modify(RXPBSIZE.self, n) { $0.kibibytes = n == 0 ? packetBufferKibibytes : 0 }
    }
    initializeQueueSelection()
    if configuration.flowDirector != .off { try initializeFlowDirector() }
  }

  /// Everything that could let a frame in, or to the wrong pool: memory of the filters is not cleared by a reset.
  private func clearFilterTables() {
    for n in 0..<128 {
      registers.write(RAH(rawValue: 0), n)
      registers.write(RAL(rawValue: 0), n)
    }
    // Also of address 0: a reset leaves it in every pool.
    for n in 0..<256 { registers.write(MPSAR(rawValue: 0), n) }
    for n in 0..<128 { registers.write(PFUTA(rawValue: 0), n) }
    for n in 0..<128 { registers.write(MTA(rawValue: 0), n) }
    for n in 0..<128 { registers.write(VFTA(rawValue: 0), n) }
    for n in 0..<64 { registers.write(PFVLVF(rawValue: 0), n) }
    for n in 0..<128 { registers.write(PFVLVFB(rawValue: 0), n) }
    for n in 0..<64 { registers.write(PFVML2FLT(rawValue: 0), n) }
    for n in 0..<128 { registers.write(FTQF(rawValue: 0), n) }
    for n in 0..<8 {
      registers.write(ETQF(rawValue: 0), n)
      registers.write(ETQS(rawValue: 0), n)
    }
    registers.write(SYNQF(rawValue: 0))
    for n in 0..<4 { registers.write(PFMRCTL(rawValue: 0), n) }
  }

  /// Pools and RSS. 4.6.10.1, 7.1.2.
  private func initializeQueueSelection() {
    let (pools, queues) = (configuration.poolCount, configuration.queuesPerPool)
    var control = PFVTCTL(rawValue: 0)
    control.isEnabled = configuration.isVirtualized
    control.dropsUnclaimed = configuration.isVirtualized
    control.replicates = configuration.isVirtualized
    registers.write(control)
    for n in 0..<64 {
      var split = PSRTYPE(rawValue: 0)
      if configuration.isVirtualized && n < pools {
        // A pool that uses fewer queues looks at fewer bits of the common table. 8.2.3.7.4, RQPL.
        let used = configuration.usedQueues.isEmpty ? queues : configuration.usedQueues[n]
        split.queueBits = used >= 4 ? 2 : used >= 2 ? 1 : 0
      }
      registers.write(split, n)
    }
    setScalingKey(configuration.scalingKey)
    setRedirection { $0 % queues }
    let mode: MRQC.Mode =
      switch (configuration.isVirtualized, queues) {
      case (false, 1): .single
      case (false, _): .scaling
      case (true, 1): .pools64
      case (true, 2): .pools64Scaling
      case (true, _): .pools32Scaling
      }
    var command = MRQC(rawValue: queues > 1 ? MRQC.hashedFields : 0)
    command.mode = mode.rawValue
    registers.write(command)
    for n in 0..<2 {
      registers.write(PFVFRE(rawValue: configuration.isVirtualized ? Self.half(n, of: poolMask) : 0), n)
    }
  }

  /// 4.6.8 "Transmit Initialization", all but the queues.
  func initializeTransmit() {
    registers.modify(HLREG0.self) {
      $0.appendsCRC = true
      $0.padsShortFrames = true
    }
    // MTQC and the buffers' sizes only while the arbiter is held.
    registers.modify(RTTDCS.self) { $0.isArbiterHeld = true }
    registers.modify(DTXMXSZRQ.self) { $0.units = 0xFFF }
    let largest = (UInt32(configuration.mtu) + 22 + 1023) / 1024
    for n in 0..<8 {
      registers.modify(TXPBSIZE.self, n) { $0.kibibytes = n == 0 ? Self.transmitKibibytes : 0 }
      registers.modify(TXPBTHRESH.self, n) { $0.kibibytes = n == 0 ? Self.transmitKibibytes - largest : 0 }
    }
    var command = MTQC(rawValue: 0)
    command.isVirtualized = configuration.isVirtualized
    command.layout = configuration.isVirtualized ? (configuration.queuesPerPool == 4 ? 2 : 1) : 0
    registers.write(command)
    registers.modify(RTTDCS.self) { $0.isArbiterHeld = false }
    for n in 0..<2 {
      registers.write(PFVFTE(rawValue: configuration.isVirtualized ? Self.half(n, of: poolMask) : 0), n)
    }
    initializeSwitch()
    registers.modify(DMATXCTL.self) { $0.isEnabled = true }
  }

  /// The switch between pools. 7.10.3.4. What it gives to a pool takes its room in the packet buffer, for which FCRTH
  /// must be set also without flow control: `reset` does.
  private func initializeSwitch() {
    // A guest does not get its own broadcasts back.
    for n in 0..<2 { registers.write(PFVMTXSW(rawValue: 0), n) }
    for n in 0..<8 { registers.write(PFVFSPOOF(rawValue: 0), n) }
    for n in 0..<64 { registers.write(PFVMVIR(rawValue: 0), n) }
    var control = PFDTXGSWC(rawValue: 0)
    control.switchesLocally = configuration.isVirtualized && configuration.switchesLocally
    registers.write(control)
  }

  /// One bit a pool of this configuration.
  private var poolMask: UInt64 { configuration.poolCount == 64 ? .max : 1 << UInt64(configuration.poolCount) - 1 }
  /// Pools 0 to 31, or 32 to 63.
  static func half(_ n: Int, of mask: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: mask >> UInt64(32 * n)) }
}

extension Ixgbe {
  /// Lets frames in: the last step of 4.6.7, after all rules and queues are in place.
  public func enableReceive() throws(IntelError) {
    try setReceive(true)
    registers.modify(CTRL_EXT.self) { $0.disablesNoSnoop = true }
  }

  /// Lets no frame in. Queues that run stay so, and what is in the packet buffer may still reach them.
  public func disableReceive() throws(IntelError) { try setReceive(false) }

  /// RXEN changes only while the receive data path is held and empty.
  private func setReceive(_ isEnabled: Bool) throws(IntelError) {
    registers.modify(SECRXCTRL.self) { $0.isHalted = true }
    try wait(for: SECRXSTAT.self, within: .milliseconds(10)) { $0.isReady }
    registers.modify(RXCTRL.self) { $0.isEnabled = isEnabled }
    registers.modify(SECRXCTRL.self) { $0.isHalted = false }
  }
}
