internal import Bus
internal import CLinux

// Receive queues as software sees them: their registers, and how they start and stop.

extension SimulatedCard {
  /// The queue and the register that an offset means, or nil.
  static func receiveRegister(_ at: Int) -> (queue: Int, register: Int)? {
    switch at {
    case Offset.receiveLow..<Offset.receiveLow + 0x1000: ((at - Offset.receiveLow) / 0x40, at & 0x3F)
    case Offset.receiveHigh..<Offset.receiveHigh + 0x1000: (64 + (at - Offset.receiveHigh) / 0x40, at & 0x3F)
    default: nil
    }
  }

  func writeReceiveQueue(_ value: UInt32, _ at: Int) -> Bool {
    guard let (n, register) = Self.receiveRegister(at), !isStatistic(at) else { return false }
    let queue = unsafe receiveQueues + n
    let isOff = unsafe queue.pointee.phase == .off
    switch register {
    case Offset.RDBAL, Offset.RDBAH, Offset.RDLEN:
      guard isOff else {
        note(.ringChangedWhileEnabled(queue: n))
        return true
      }
      registers[at] = register == Offset.RDBAL ? value & ~127 : register == Offset.RDLEN ? value & 0xFFF80 : value
      if registers[at] != value { note(.badReceiveRing(queue: n)) }
    case Offset.RDH:
      guard isOff else {
        note(.ringChangedWhileEnabled(queue: n))
        return true
      }
      unsafe queue.pointee.head = value & 0xFFFF
      registers[at] = value & 0xFFFF
      return true
    case Offset.RDT:
      registers[at] = value & 0xFFFF
      if unsafe value != queue.pointee.head && (isOff || queue.pointee.phase == .enabling) { note(.tailBeforeEnable(queue: n)) }
      return true
    case Offset.RXDCTL:
      writeReceiveControl(n, value, at)
    default:
      registers[at] = value
    }
    decodeReceiveQueue(n)
    return true
  }

  /// RXDCTL.ENABLE becomes what was written only when it is so. 82599 datasheet 4.6.7.1.
  private func writeReceiveControl(_ n: Int, _ value: UInt32, _ at: Int) {
    let queue = unsafe receiveQueues + n
    let wanted = value & RXDCTL.enable != 0
    let shown = registers[at] & RXDCTL.enable
    registers[at] = value & ~RXDCTL.enable | shown
    switch unsafe (queue.pointee.phase, wanted) {
    case (.off, true):
      unsafe queue.pointee.phase = .enabling
      if !faults.neverEnables { schedule(.receiveEnabled(n), after: faults.enableLatency) }
    case (.enabling, false):
      forget(.receiveEnabled(n))
      unsafe queue.pointee.phase = .off
    case (.running, false):
      unsafe queue.pointee.phase = .disabling
      if !faults.deliversWhileDisabling { unsafe queue.pointee.isRunning = false }
      if !faults.neverDisables { schedule(.receiveDisabled(n), after: faults.disableLatency) }
      holdLateDMA(n)
    default: break
    }
  }

  func receiveIsEnabled(_ n: Int) {
    let queue = unsafe receiveQueues + n
    registers[Offset.receive(Offset.RXDCTL, n)] |= RXDCTL.enable
    unsafe queue.pointee.phase = .running
    decodeReceiveQueue(n)
    // A doorbell is a plain store: only now is it seen that it came too early.
    if unsafe sl_load32_acquire(queue.pointee.tail.unsafelyUnwrapped) != queue.pointee.head
      && !misuses.contains(.tailBeforeEnable(queue: n))
    {
      note(.tailBeforeEnable(queue: n))
    }
    let type = registers[Offset.receive(Offset.SRRCTL, n)] >> 25 & 7
    if type > 1 || (unsafe queue.pointee.bufferBytes) == 0 {
      note(.badDescriptorType(queue: n))
      failReceiveQueue(n, .misuse(.badDescriptorType(queue: n)))
    } else if unsafe queue.pointee.count == 0 || queue.pointee.head >= queue.pointee.count {
      note(.badReceiveRing(queue: n))
      failReceiveQueue(n, .misuse(.badReceiveRing(queue: n)))
    } else {
      unsafe queue.pointee.isRunning = !queue.pointee.hasFault
    }
    if (registers[Offset.HLREG0] & HLREG0.stripCheckSequence != 0)
      != (registers[Offset.RDRXCTL] & RDRXCTL.stripCheckSequence != 0)
    {
      note(.checkSequenceStripDisagrees)
    }
  }

  func receiveIsDisabled(_ n: Int) {
    flushWriteBack(n)
    registers[Offset.receive(Offset.RXDCTL, n)] &= ~RXDCTL.enable
    unsafe receiveQueues[n].phase = .off
    unsafe receiveQueues[n].isRunning = false
    if line.stalledQueue == Int32(n) { line.stalledQueue = -1 }
  }

  func decodeReceiveQueue(_ n: Int) {
    let queue = unsafe receiveQueues + n
    unsafe queue.pointee.base =
      UInt64(registers[Offset.receive(Offset.RDBAH, n)]) << 32 | UInt64(registers[Offset.receive(Offset.RDBAL, n)])
    unsafe queue.pointee.count = registers[Offset.receive(Offset.RDLEN, n)] / 16
    unsafe queue.pointee.generation = .max
    let srrctl = registers[Offset.receive(Offset.SRRCTL, n)]
    unsafe queue.pointee.bufferBytes = Int(srrctl & 0x1F) * 1024
    unsafe queue.pointee.isLegacy = srrctl >> 25 & 7 == 0
    unsafe queue.pointee.dropsWhenEmpty = srrctl & (1 << 28) != 0 || queue.pointee.isDropForced
    unsafe queue.pointee.stripsTag = registers[Offset.receive(Offset.RXDCTL, n)] & RXDCTL.vlanStrip != 0
    unsafe queue.pointee.isSpecial = queue.pointee.isLegacy || queue.pointee.stripsTag
  }

  /// Each receive queue's vector, from IVAR.
  func decodeReceiveVectors() {
    for n in 0..<Self.queueCount {
      let entry = registers[Offset.IVAR + n / 2 * 4] >> UInt32(n % 2 * 16)
      unsafe receiveQueues[n].vector = entry & 0x80 != 0 ? 1 << UInt64(entry & 0x3F) : 0
    }
  }

  func readQueueRegister(_ at: Int) -> UInt32? {
    if let (n, register) = Self.receiveRegister(at), register == Offset.RDH { return unsafe receiveQueues[n].head }
    if let (n, register) = Self.transmitRegister(at), register == Offset.TDH { return unsafe transmitQueues[n].head }
    return nil
  }
}
