internal import Bus

/// Whose queue it is: what differs between cards, and a card's turn never asks.
enum QueueKind {
  /// The 82599.
  case ixgbe
  /// The 82576, and the I350.
  case igb
  /// A virtual function of the 82576: its two queues lie elsewhere.
  case igbVF

  /// Where the registers of receive queue n begin.
  func receiveBlock(_ n: Int) -> Int {
    switch self {
    case .ixgbe: n < 64 ? 0x01000 + 0x40 * n : 0x0D000 + 0x40 * (n - 64)
    case .igb: 0x0C000 + 0x40 * n
    case .igbVF: 0x02800 + 0x100 * n
    }
  }
  /// Where the registers of transmit queue n begin.
  func transmitBlock(_ n: Int) -> Int {
    switch self {
    case .ixgbe: 0x06000 + 0x40 * n
    case .igb: 0x0E000 + 0x40 * n
    case .igbVF: 0x03800 + 0x100 * n
    }
  }

  /// Of the status of a descriptor that was written back: the MAC found the frame damaged.
  var receiveDamage: UInt64 { self == .ixgbe ? 1 << 29 : 1 << 31 }
  /// L4I, "the transport checksum was checked", and that it, or the header's, was wrong: L4E, IPE. IPv6 has no header
  /// checksum, so IPCS is not asked for: an IPv4 header is checked whenever its transport is.
  var checksumFields: UInt64 { self == .ixgbe ? 1 << 5 | 1 << 30 | 1 << 31 : 1 << 5 | 1 << 29 | 1 << 30 }
  /// What a data descriptor asks for a transport checksum with: POPTS.TXSM, and the 82599's CC.
  var finishesChecksum: UInt64 { self == .ixgbe ? 1 << 41 | 1 << 39 : 1 << 41 }
}

extension QueueKind {
  /// Stops the first `count` queues of either kind, those that still run. Answers a receive queue that did not stop, or nil.
  /// 82599 datasheet 4.6.7.1.2.
  func stopAll(_ count: Int, of registers: any RegisterFile, on clock: any Timekeeper) -> Int? {
    var stuck: Int?
    for n in 0..<count {
      let queue = ReceiveRegisters(self, n, of: registers)
      guard queue.isEnabled else { continue }
      do throws(RegisterError) { try queue.disable(on: clock) } catch { stuck = n }
    }
    for n in 0..<count {
      let queue = TransmitRegisters(self, n, of: registers)
      // It writes to no buffer, only to its own ring, until the reset ends it.
      if queue.isEnabled { try? queue.disable(on: clock) }
    }
    return stuck
  }
}

/// The registers of one receive queue, in the order in which a queue is started.
struct ReceiveRegisters {
  let kind: QueueKind
  /// The card's number of it: for words.
  let number: Int
  let block: RegisterBlock

  init(_ kind: QueueKind, _ number: Int, of registers: any RegisterFile) {
    (self.kind, self.number) = (kind, number)
    block = RegisterBlock(registers, from: kind.receiveBlock(number))
  }

  var isEnabled: Bool { block.read(RXDCTL.self, number).isEnabled }

  func setRing(at address: IOVA, byteCount: Int) {
    block.write(RDBAL(rawValue: UInt32(truncatingIfNeeded: address.rawValue)), number)
    block.write(RDBAH(rawValue: UInt32(address.rawValue >> 32)), number)
    block.write(RDLEN(rawValue: UInt32(byteCount)), number)
    // Both, and before ENABLE: with the tail of an earlier run the card would fetch descriptors that nobody posted.
    block.write(RDH(rawValue: 0), number)
    block.write(RDT(rawValue: 0), number)
  }

  /// - Parameter kibibytes: at or above the frame limit, so that every frame is one descriptor: what protects the byte
  ///   after a smaller buffer is the frame limit.
  func setBuffers(kibibytes: UInt32, dropsWhenEmpty: Bool) {
    if kind == .ixgbe {
      var split = SRRCTL(rawValue: 0)
      split.bufferKibibytes = kibibytes
      split.headerUnits = 4
      split.descriptorType = 1
      split.dropsWhenEmpty = dropsWhenEmpty
      block.write(split, number)
      block.write(RSCCTL(rawValue: 0), number)
      block.modify(DCA_RXCTRL.self, number) { $0.reserved12 = false }
    } else {
      var split = IgbSRRCTL(rawValue: 0)
      split.bufferKibibytes = kibibytes
      split.headerUnits = 4
      split.descriptorType = 1
      split.dropsWhenEmpty = dropsWhenEmpty
      block.write(split, number)
    }
  }

  /// - Parameter stripsTag: takes the VLAN tag off every frame; of the 82599, the others say it for a pool.
  /// - Returns: the control register as it was written, so that `beginDisable` needs no read.
  func enable(stripsTag: Bool, on clock: any Timekeeper) throws(RegisterError) -> RXDCTL {
    var control = block.read(RXDCTL.self, number)
    if kind == .ixgbe { control.stripsVLAN = stripsTag } else { control.reportThreshold = 1 }
    control.isEnabled = true
    block.write(control, number)
    do throws(RegisterError) {
      try block.wait(for: RXDCTL.self, number, within: .milliseconds(10), on: clock) { $0.isEnabled }
    } catch {
      control.isEnabled = false
      block.write(control, number)
      throw error
    }
    return control
  }

  /// How long the card may take to clear ENABLE, in nanoseconds.
  static let disableLimit: UInt64 = 100_000_000
  /// How long buffers may still be written after ENABLE reads 0, in nanoseconds. 82599 datasheet 4.6.7.1.2.
  static let lateWriteTime: UInt64 = 100_000

  /// - Parameter control: as `enable` returned it.
  func beginDisable(_ control: RXDCTL) {
    var control = control
    control.isEnabled = false
    block.write(control, number)
  }
  var control: RXDCTL { block.read(RXDCTL.self, number) }

  /// The card clears ENABLE when its accesses to the ring are done; buffers may be written for 100 µs more.
  func disable(on clock: any Timekeeper) throws(RegisterError) {
    block.modify(RXDCTL.self, number) { $0.isEnabled = false }
    defer { clock.pause(nanoseconds: Self.lateWriteTime) }
    try waitUntilDisabled(within: .nanoseconds(Int64(Self.disableLimit)), on: clock)
  }
  func waitUntilDisabled(within limit: Duration, on clock: any Timekeeper) throws(RegisterError) {
    try block.wait(for: RXDCTL.self, number, within: limit, on: clock) { !$0.isEnabled }
  }
}

/// The registers of one transmit queue.
struct TransmitRegisters {
  let kind: QueueKind
  let number: Int
  let block: RegisterBlock

  init(_ kind: QueueKind, _ number: Int, of registers: any RegisterFile) {
    (self.kind, self.number) = (kind, number)
    block = RegisterBlock(registers, from: kind.transmitBlock(number))
  }

  var isEnabled: Bool { block.read(TXDCTL.self, number).isEnabled }

  func setRing(at address: IOVA, byteCount: Int) {
    block.write(TDBAL(rawValue: UInt32(truncatingIfNeeded: address.rawValue)), number)
    block.write(TDBAH(rawValue: UInt32(address.rawValue >> 32)), number)
    block.write(TDLEN(rawValue: UInt32(byteCount)), number)
    block.write(TDWBAL(rawValue: 0), number)
    block.write(TDH(rawValue: 0), number)
    block.write(TDT(rawValue: 0), number)
  }

  /// Returns the control register as it was written, so that `beginDisable` needs no read.
  func enable(on clock: any Timekeeper) throws(RegisterError) -> TXDCTL {
    var control = TXDCTL(rawValue: 0)
    control.prefetchThreshold = kind == .ixgbe ? 32 : 8
    control.hostThreshold = kind == .ixgbe ? 4 : 1
    control.reportThreshold = 0
    control.isEnabled = true
    block.write(control, number)
    do throws(RegisterError) {
      try block.wait(for: TXDCTL.self, number, within: .milliseconds(10), on: clock) { $0.isEnabled }
    } catch {
      control.isEnabled = false
      block.write(control, number)
      throw error
    }
    return control
  }

  /// How long the card may take to send what it was given, in nanoseconds: a link that is down sends nothing.
  static let drainLimit: UInt64 = 10_000_000
  /// How long the card may take to clear ENABLE, and how long it may still read after that, in nanoseconds.
  static let disableLimit = ReceiveRegisters.disableLimit, lateReadTime = ReceiveRegisters.lateWriteTime

  var tail: UInt32 { block.read(TDT.self, number).rawValue }
  var head: UInt32 { block.read(TDH.self, number).rawValue }
  /// - Parameter control: as `enable` returned it.
  func beginDisable(_ control: TXDCTL) {
    var control = control
    control.isEnabled = false
    block.write(control, number)
  }
  var control: TXDCTL { block.read(TXDCTL.self, number) }

  func disable(on clock: any Timekeeper) throws(RegisterError) {
    block.modify(TXDCTL.self, number) { $0.isEnabled = false }
    try block.wait(for: TXDCTL.self, number, within: .milliseconds(100), on: clock) { !$0.isEnabled }
    clock.pause(nanoseconds: 100_000)
  }
}
