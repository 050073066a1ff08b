/// MSI-X: causes, masks, the map from queues to vectors, and moderation. 82599 datasheet 7.3.
struct InterruptState {
  /// Some entry of IVAR is valid: only then does a frame that is sent look for its vector.
  var isUsed = false
  /// Causes of queue vectors; EICR shows the lowest 16 of them.
  var causes: UInt64 = 0
  var mask: UInt64 = 0
  /// Causes 16 to 30.
  var otherCauses: UInt32 = 0
  var otherMask: UInt32 = 0
  /// A vector stays quiet until then; nanoseconds.
  var quietUntil = InlineArray<64, UInt64>(repeating: 0)
  /// Vectors that wait for it.
  var waiting: UInt64 = 0
}

/// Causes that are no queue's. 82599 datasheet 8.2.3.5.1.
enum OtherCause: UInt32 {
  case receiveMiss = 0x2_0000
  case linkChange = 0x10_0000
  case descriptorHandler = 0x2000_0000
}

/// GPIE. 82599 datasheet 8.2.3.5.18.
private enum GPIE {
  static let otherClearDisable: UInt32 = 1 << 5
  static let autoMask: UInt32 = 1 << 30
}
private let queueCauses: UInt32 = 0xFFFF
private let otherCausesMask: UInt32 = 0x7FFF_0000

extension SimulatedCard {
  func writeInterrupt(_ value: UInt32, _ at: Int) -> Bool {
    switch at {
    case Offset.EICR:
      interrupts.causes &= ~UInt64(value & queueCauses)
      interrupts.otherCauses &= ~value
    case Offset.EICS:
      raise(vectors: UInt64(value & queueCauses))
      raise(other: value & otherCausesMask)
    case Offset.EIMS:
      interrupts.mask |= UInt64(value & queueCauses)
      interrupts.otherMask |= value & otherCausesMask
      raise(vectors: interrupts.causes)
      raise(other: interrupts.otherCauses)
    case Offset.EIMC:
      interrupts.mask &= ~UInt64(value & queueCauses)
      interrupts.otherMask &= ~value
    case Offset.EICS_EX, Offset.EICS_EX + 4: raise(vectors: UInt64(value) << (at == Offset.EICS_EX ? 0 : 32))
    case Offset.EIMS_EX, Offset.EIMS_EX + 4:
      interrupts.mask |= UInt64(value) << (at == Offset.EIMS_EX ? 0 : 32)
      raise(vectors: interrupts.causes)
    case Offset.EIMC_EX, Offset.EIMC_EX + 4: interrupts.mask &= ~(UInt64(value) << (at == Offset.EIMC_EX ? 0 : 32))
    case Offset.IVAR..<Offset.IVAR + 256, Offset.IVAR_MISC:
      registers[at] = value
      interrupts.isUsed = (0..<64).contains { registers[Offset.IVAR + 4 * $0] & 0x8080_8080 != 0 }
      decodeReceiveVectors()
    default: return false
    }
    return true
  }

  func readInterrupt(_ at: Int) -> UInt32? {
    switch at {
    case Offset.EICR:
      let value = UInt32(truncatingIfNeeded: interrupts.causes) & queueCauses | interrupts.otherCauses
      // Reading clears; with GPIE.OCD only the causes that are no queue's.
      if registers[Offset.GPIE] & GPIE.otherClearDisable == 0 { interrupts.causes &= ~UInt64(queueCauses) }
      interrupts.otherCauses = 0
      return value
    case Offset.EIMS, Offset.EIMC: return UInt32(truncatingIfNeeded: interrupts.mask) & queueCauses | interrupts.otherMask
    case Offset.EICS: return 0
    case Offset.EIMS_EX, Offset.EIMC_EX: return UInt32(truncatingIfNeeded: interrupts.mask)
    case Offset.EIMS_EX + 4, Offset.EIMC_EX + 4: return UInt32(truncatingIfNeeded: interrupts.mask >> 32)
    default: return nil
    }
  }

  /// A queue has written back a descriptor. IVAR n holds queues 2 n and 2 n + 1, receive before transmit.
  /// 82599 datasheet 7.3.4.
  func raiseReceive(_ n: Int) { raise(entry: registers[Offset.IVAR + n / 2 * 4] >> UInt32(n % 2 * 16)) }
  func raiseTransmit(_ n: Int) { raise(entry: registers[Offset.IVAR + n / 2 * 4] >> UInt32(n % 2 * 16 + 8)) }

  private func raise(entry: UInt32) {
    if entry & 0x80 != 0 { raise(vectors: 1 << UInt64(entry & 0x3F)) }
  }

  func raiseOther(_ cause: OtherCause) { raise(other: cause.rawValue) }

  private func raise(other causes: UInt32) {
    guard causes != 0 else { return }
    interrupts.otherCauses |= causes
    guard interrupts.otherCauses & interrupts.otherMask != 0 else { return }
    // The second entry of IVAR_MISC is for all of them.
    let entry = registers[Offset.IVAR_MISC] >> 8
    guard entry & 0x80 != 0 else { return }
    if registers[Offset.GPIE] & GPIE.autoMask != 0 { interrupts.otherMask &= ~(registers[Offset.EIAM] & causes) }
    interrupts.otherCauses &= ~(registers[Offset.EIAC] & causes)
    onInterrupt?(Int(entry & 0x3F))
  }

  /// Latches causes, and sends the messages of those that are not masked and not moderated.
  private func raise(vectors: UInt64) {
    interrupts.causes |= vectors
    var ready = vectors & interrupts.mask
    while ready != 0 {
      let vector = ready.trailingZeroBitCount
      ready &= ready &- 1
      if clock.now < interrupts.quietUntil[vector] {
        if interrupts.waiting >> UInt64(vector) & 1 == 0 {
          interrupts.waiting |= 1 << UInt64(vector)
          schedule(.vector(vector), after: interrupts.quietUntil[vector] - clock.now)
        }
      } else {
        send(vector)
      }
    }
  }

  private func send(_ vector: Int) {
    let bit: UInt64 = 1 << UInt64(vector)
    // EITR: bits 11 to 3, in units of 2 µs at 10 Gbit/s. 82599 datasheet 8.2.3.5.12.
    let eitr = registers[vector < 24 ? Offset.EITR + 4 * vector : Offset.EITRHigh + 4 * (vector - 24)]
    interrupts.quietUntil[vector] = clock.now + UInt64(eitr >> 3 & 0x1FF) * 2_000
    let autoMask =
      UInt64(registers[Offset.EIAM] & queueCauses) | UInt64(registers[Offset.EIAM_EX])
      | UInt64(registers[Offset.EIAM_EX + 4]) << 32
    if registers[Offset.GPIE] & GPIE.autoMask != 0 { interrupts.mask &= ~(autoMask & bit) }
    // EIAC: the cause goes with the message. Vectors past 15 have no other way.
    if vector > 15 || registers[Offset.EIAC] >> UInt32(vector) & 1 != 0 { interrupts.causes &= ~bit }
    onInterrupt?(vector)
  }

  func moderationIsOver(_ vector: Int) {
    interrupts.waiting &= ~(1 << UInt64(vector))
    let bit: UInt64 = 1 << UInt64(vector)
    if interrupts.causes & interrupts.mask & bit != 0 { send(vector) }
  }
}
