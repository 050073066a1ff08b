/// The registers of transmit queues. 82599 datasheet 8.2.3.9.
extension SimulatedCard {
  static func transmitRegister(_ at: Int) -> (queue: Int, register: Int)? {
    guard at >= Offset.transmit && at < Offset.transmit + 0x2000 else { return nil }
    return ((at - Offset.transmit) / 0x40, at & 0x3F)
  }

  func writeTransmitQueue(_ value: UInt32, _ at: Int) -> Bool {
    guard let (n, register) = Self.transmitRegister(at) else { return false }
    let queue = unsafe transmitQueues + n
    let isOff = unsafe queue.pointee.phase == .off
    switch register {
    case Offset.TDBAL, Offset.TDBAH, Offset.TDLEN, Offset.TDH:
      guard isOff else {
        note(.ringChangedWhileEnabled(queue: n))
        return true
      }
      registers[at] =
        register == Offset.TDBAL ? value & ~127 : register == Offset.TDLEN ? value & 0xFFF80 : value
      if registers[at] != value { note(.badTransmitRing(queue: n)) }
      if register == Offset.TDH { unsafe queue.pointee.head = value & 0xFFFF }
      decodeTransmitQueue(n)
    case Offset.TDT: registers[at] = value & 0xFFFF
    case Offset.TXDCTL: writeTransmitControl(n, value, at)
    default: registers[at] = value
    }
    return true
  }

  private func writeTransmitControl(_ n: Int, _ value: UInt32, _ at: Int) {
    let queue = unsafe transmitQueues + n
    let wanted = value & RXDCTL.enable != 0
    registers[at] = value & ~RXDCTL.enable | registers[at] & RXDCTL.enable
    switch unsafe (queue.pointee.phase, wanted) {
    case (.off, true):
      unsafe queue.pointee.phase = .enabling
      if !faults.neverEnables { schedule(.transmitEnabled(n), after: faults.enableLatency) }
    case (.enabling, false):
      forget(.transmitEnabled(n))
      unsafe queue.pointee.phase = .off
    case (.running, false):
      unsafe queue.pointee.phase = .disabling
      setRunning(n, false)
      if !faults.neverDisables { schedule(.transmitDisabled(n), after: faults.disableLatency) }
    default: break
    }
  }

  func transmitIsEnabled(_ n: Int) {
    let queue = unsafe transmitQueues + n
    registers[Offset.transmit(Offset.TXDCTL, n)] |= RXDCTL.enable
    unsafe queue.pointee.phase = .running
    decodeTransmitQueue(n)
    if unsafe queue.pointee.count == 0 || queue.pointee.head >= queue.pointee.count {
      note(.badTransmitRing(queue: n))
      _ = failTransmit(n, .misuse(.badTransmitRing(queue: n)))
    } else {
      setRunning(n, unsafe !queue.pointee.hasFault)
    }
  }

  func transmitIsDisabled(_ n: Int) {
    registers[Offset.transmit(Offset.TXDCTL, n)] &= ~RXDCTL.enable
    unsafe transmitQueues[n].phase = .off
  }

  /// Whether it sends, in both places that say so.
  func setRunning(_ n: Int, _ isRunning: Bool) {
    unsafe transmitQueues[n].isRunning = isRunning
    line.senders.set(n, isRunning)
  }

  func decodeTransmitQueue(_ n: Int) {
    let queue = unsafe transmitQueues + n
    unsafe queue.pointee.base =
      UInt64(registers[Offset.transmit(Offset.TDBAH, n)]) << 32 | UInt64(registers[Offset.transmit(Offset.TDBAL, n)])
    unsafe queue.pointee.count = registers[Offset.transmit(Offset.TDLEN, n)] / 16
  }
}
