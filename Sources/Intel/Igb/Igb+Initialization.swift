internal import Bus

extension Igb {
  private func maskInterrupts() {
    registers.write(IMC(rawValue: .max))
    registers.write(EIMC(rawValue: .max))
    _ = registers.read(ICR.self)
    registers.write(EICR(rawValue: .max))
  }

  /// 4.6.3.1 "Software Reset", with what 5.2 "Master Disable" asks for before.
  func reset() throws(IntelError) {
    maskInterrupts()
    let stuck = QueueKind.igb.stopAll(variant.queueCount, of: registers, on: clock)
    registers.modify(RCTL.self) { $0.isEnabled = false }
    registers.modify(TCTL.self) { $0.isEnabled = false }
    clock.pause(nanoseconds: 10_000_000)
    let isIdle = disableMaster()
    try resetOnce()
    // A master that did not stop gets a second reset: answers to its requests may have come in after the first.
    if !isIdle { try resetOnce() }
    // A queue that would not stop is stopped by the reset, or nothing can be said about what it writes.
    if let stuck {
      do { try ReceiveRegisters(.igb, stuck, of: registers).waitUntilDisabled(within: .zero, on: clock) } catch { throw .register(error) }
    }
    maskInterrupts()
    // Queues 0 are on after a reset.
    if let stuck = QueueKind.igb.stopAll(variant.queueCount, of: registers, on: clock) { throw .queueInUse(stuck) }
  }

  private func resetOnce() throws(IntelError) {
    registers.modify(CTRL.self) { $0.isReset = true }
    // 1 ms after it nothing may be read; PCI's own rules want more.
    clock.pause(nanoseconds: 20_000_000)
    try wait(for: CTRL.self, within: .milliseconds(100)) { !$0.isReset }
    // Without an EEPROM it is never done, and the card's own defaults are as good.
    try? wait(for: EEC.self, within: .milliseconds(100)) { $0.isAutoReadDone }
    registers.modify(CTRL.self) { $0.isMasterDisabled = false }
  }

  private func disableMaster() -> Bool {
    registers.modify(CTRL.self) { $0.isMasterDisabled = true }
    do throws(IntelError) {
      try wait(for: STATUS.self, within: .milliseconds(100)) { !$0.isMasterEnabled }
      return true
    } catch { return false }
  }

  // MARK: Link

  /// The PHY begins to talk to its partner; nobody waits for the answer. 4.6.7 "Link Setup".
  func initializeLink() throws(IntelError) {
    let mode = registers.read(CTRL_EXT.self).linkMode
    guard mode == 0 else {
      throw .unavailable("the card's link is no copper wire (CTRL_EXT.LINK_MODE \(mode): SGMII or SerDes); only copper is known here")
    }
    registers.modify(CTRL.self) {
      $0.setsLinkUp = true
      $0.forcesSpeed = false
      $0.forcesDuplex = false
      $0.obeysPause = false
      $0.sendsPause = false
    }
    if variant.hasPowerManagement { registers.modify(PHPM.self) { $0.staysDisconnected = false } }
    try withPHY { () throws(IntelError) in
      let control = try readPHY(PHYRegister.control) & ~PHYRegister.isPoweredDown
      try writePHY(control | PHYRegister.enablesNegotiation | PHYRegister.restartsNegotiation, PHYRegister.control)
    }
  }

  /// The PHY is firmware's too: whoever has the semaphore may use it. 4.7.
  private func withPHY(_ body: () throws(IntelError) -> Void) throws(IntelError) {
    // SMBI: between drivers. Ours is the only one, so that one that is taken was left by another that is gone.
    _ = registers.read(SWSM.self)
    registers.modify(SWSM.self) { $0.isSoftwares = true }
    try wait(for: SWSM.self, within: .milliseconds(50)) {
      if !$0.isSoftwares { registers.modify(SWSM.self) { $0.isSoftwares = true } }
      return $0.isSoftwares
    }
    let bit = SW_FW_SYNC.phy(of: registers.read(STATUS.self).port)
    registers.modify(SW_FW_SYNC.self) { $0.rawValue |= bit }
    defer {
      registers.modify(SW_FW_SYNC.self) { $0.rawValue &= ~bit }
      registers.modify(SWSM.self) { ($0.isSoftwares, $0.isTaken) = (false, false) }
    }
    try body()
  }

  private func readPHY(_ register: Int) throws(IntelError) -> UInt16 { try exchange(.read(register)).data }
  private func writePHY(_ value: UInt16, _ register: Int) throws(IntelError) { _ = try exchange(.write(value, register)) }
  private func exchange(_ command: MDIC) throws(IntelError) -> MDIC {
    registers.write(command)
    try wait(for: MDIC.self, within: .milliseconds(10)) { $0.isReady }
    let answer = registers.read(MDIC.self)
    guard !answer.hasFailed else { throw .unavailable("the PHY did not take a command (MDIC 0x\(String(answer.rawValue, radix: 16)))") }
    return answer
  }

  public var link: CardLink {
    let status = registers.read(STATUS.self)
    // A card that is gone answers all ones.
    guard status.isLinkUp, status.rawValue != .max else { return CardLink(isUp: false, megabits: 0) }
    return CardLink(isUp: true, megabits: [10, 100, 1000, 1000][status.speed])
  }
  public func waitForLink(within limit: Duration = .seconds(10)) throws(IntelError) {
    try wait(for: STATUS.self, within: limit) { $0.isLinkUp }
  }

  // MARK: Receive

  /// 4.6.9 "Receive Initialization", all but the queues and RCTL.RXEN.
  func initializeReceive() {
    clearFilterTables()
    var control = RCTL(rawValue: 0)
    control.obeysFrameLimit = true
    control.stripsCRC = true
    registers.write(control)
    // With the FCS and a tag: the largest frame that is stored is four bytes less than the limit.
    let limit = UInt32(largestFrame + 4)
    registers.write(RLPML(rawValue: limit))
    registers.modify(CTRL.self) { $0.stripsVLAN = false }
    var checksum = RXCSUM(rawValue: 0)
    (checksum.checksIP, checksum.checksTransport, checksum.reportsHash) = (true, true, true)
    registers.write(checksum)
    registers.write(RFCTL(rawValue: 0))
    registers.write(QDE(rawValue: configuration.dropsWhenEmpty ? 1 << UInt32(variant.queueCount) - 1 : 0))
    for pool in 0..<variant.poolCount {
      var offload = VMOLR(rawValue: 0)
      offload.largestFrame = limit
      offload.obeysFrameLimit = true
      offload.stripsCRC = !variant.stripsAtQueue
      registers.write(offload, pool)
    }
    if variant.stripsAtQueue {
      var offload = DVMOLR(rawValue: 0)
      offload.stripsCRC = true
      for pool in 0..<variant.poolCount { registers.write(offload, pool) }
    } else {
      var copies = RPLOLR(rawValue: 0)
      copies.stripsCRC = true
      registers.write(copies)
    }
    initializeQueueSelection()
  }

  /// Everything that could let a frame in, or to the wrong pool.
  private func clearFilterTables() {
    for n in 0..<variant.addressCount {
      registers.write(RAH(rawValue: 0), n)
      registers.write(RAL(rawValue: 0), n)
    }
    for n in 0..<128 { registers.write(MTA(rawValue: 0), n) }
    for n in 0..<128 { registers.write(UTA(rawValue: 0), n) }
    for n in 0..<128 { writeVFTA(n, 0) }
    for n in 0..<variant.vlanCount { registers.write(VLVF(rawValue: 0), n) }
    for n in 0..<8 { registers.write(ETQF(rawValue: 0), n) }
    for n in 0..<8 { registers.write(FTQF(rawValue: 0), n) }
    registers.write(SYNQF(rawValue: 0))
    for n in 0..<4 { registers.write(VMRCTL(rawValue: 0), n) }
  }

  /// A word of the VLAN table, as often as the card wants to be told.
  func writeVFTA(_ n: Int, _ bits: UInt32) { for _ in 0..<variant.vlanTableWrites { registers.write(VFTA(rawValue: bits), n) } }

  /// Pools, and RSS between the two queues of each. 7.1.1.2, 7.10.3.
  private func initializeQueueSelection() {
    var control = VT_CTL(rawValue: 0)
    control.dropsUnclaimed = true
    control.replicates = true
    registers.write(control)
    for n in 0..<10 {
      let word = (0..<4).reduce(UInt32(0)) { $0 | UInt32(configuration.scalingKey[4 * n + $1]) << UInt32(8 * $1) }
      registers.write(RSSRK(rawValue: word), n)
    }
    for n in 0..<32 { registers.write(RETA(rawValue: configuration.queuesPerPool == 2 ? 0x0100_0100 : 0), n) }
    var command = MRQC(rawValue: configuration.queuesPerPool == 2 ? MRQC.hashedFields : 0)
    command.mode = configuration.queuesPerPool == 2 ? 5 : 3
    registers.write(command)
    registers.write(VFRE(rawValue: 0xFF))
  }

  /// RSS chooses between a pool's two queues, or is off for the pool.
  @discardableResult public func setUsedQueues(pool: Int, count: Int) throws(IntelError) -> Int {
    try Self.check(pool, of: "pools", count: variant.poolCount)
    guard count >= 1 && count <= configuration.queuesPerPool else { throw .queue(count, count: configuration.queuesPerPool) }
    registers.modify(VMOLR.self, pool) { $0.spreads = count == 2 }
    return count
  }

  public func enableReceive() throws(IntelError) {
    registers.modify(CTRL_EXT.self) { $0.disablesNoSnoop = true }
    registers.modify(RCTL.self) { $0.isEnabled = true }
  }
  public func disableReceive() throws(IntelError) { registers.modify(RCTL.self) { $0.isEnabled = false } }

  // MARK: Transmit

  /// 4.6.10 "Transmit Initialization", all but the queues.
  func initializeTransmit() {
    var control = DTXSWC(rawValue: 0)
    control.switchesLocally = configuration.switchesLocally
    registers.write(control, variant.switchControl)
    registers.write(VFTE(rawValue: 0xFF))
    registers.modify(TCTL.self) {
      $0.padsShortFrames = true
      $0.isEnabled = true
    }
  }

  // MARK: The end

  public func shutDown() throws(IntelError) {
    guard isThere else { throw .deviceGone }
    registers.modify(RCTL.self) { $0.isEnabled = false }
    try reset()
    registers.modify(CTRL_EXT.self) { $0.isDriverLoaded = false }
  }

  // MARK: Interrupts. 7.3

  /// One message a vector, masked and without a queue.
  func initializeInterrupts() {
    registers.write(GPIE.vectors)
    let all: UInt32 = 1 << UInt32(Self.vectorCount) - 1
    registers.write(EIAC(rawValue: all))
    registers.write(EIAM(rawValue: all))
    for n in 0..<variant.vectorRegisterCount { registers.write(IVAR(rawValue: 0), n) }
    for n in 0..<Self.vectorCount { registers.write(EITR(rawValue: 0), n) }
  }

  public func assign(vector: Int?, receiveQueue n: Int) throws(IntelError) { try setVector(vector, entry: 0, of: n) }
  public func assign(vector: Int?, transmitQueue n: Int) throws(IntelError) { try setVector(vector, entry: 1, of: n) }
  private func setVector(_ vector: Int?, entry: Int, of n: Int) throws(IntelError) {
    try Self.check(n, of: "queues", count: variant.queueCount)
    if let vector { try Self.check(vector, of: "interrupt vectors", count: Self.vectorCount) }
    let (register, half) = variant.vectorPlace(ofQueue: n)
    registers.modify(IVAR.self, register) { $0.set(2 * half + entry, vector: vector) }
  }

  public func interrupt(_ vector: Int) throws(IntelError) -> IntelInterrupt {
    try Self.check(vector, of: "interrupt vectors", count: Self.vectorCount)
    return IntelInterrupt(
      vector: vector, bit: 1 << UInt32(vector), cause: EICR.offset(0), set: EIMS.offset(0), clear: EIMC.offset(0), registers: registers)
  }

  /// How long a vector is quiet after a message: 0 to 8191 µs. 0, the default, does not hold it back.
  public func setModeration(microseconds: Int, vector: Int) throws(IntelError) {
    try Self.check(vector, of: "interrupt vectors", count: Self.vectorCount)
    try Self.check(microseconds, of: "moderation intervals (µs)", count: 8192)
    registers.write(EITR(microseconds: microseconds), vector)
  }
}
