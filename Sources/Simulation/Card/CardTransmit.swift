internal import Bus
internal import CLinux

/// The far end of the cable, as a card sees it that sends.
public final class TransmitWire {
  public enum Kind: Hashable, Sendable {
    /// Counts frames and forgets them.
    case drop
    /// Keeps them.
    case capture
    /// Gives each back to the card that sent it.
    case loopback
  }
  public let kind: Kind
  public private(set) var frameCount = 0
  /// Without check sequences.
  public private(set) var byteCount = 0
  /// What was sent, in order; empty unless it captures.
  public private(set) var frames: [[UInt8]] = []
  /// What became of the frames that were given back, in order.
  public private(set) var arrivals: [Arrival] = []

  public init(_ kind: Kind) { self.kind = kind }

  func take(_ bytes: UnsafeRawPointer, _ count: Int, from card: SimulatedCard) {
    frameCount += 1
    byteCount += count
    switch kind {
    case .drop: break
    case .capture: unsafe frames.append(Array(unsafe UnsafeRawBufferPointer(start: bytes, count: count)))
    case .loopback: arrivals.append(unsafe card.receive(WireFrame(bytes: bytes, count: count)))
    }
  }
}

/// A transmit queue as the engine sees it.
///
/// `@safe`: its pointer is unsafe to use, and says so at each use.
@safe struct TransmitQueueState {
  enum Phase: UInt8 { case off, enabling, running, disabling }
  var phase = Phase.off
  var isRunning = false
  var hasFault = false
  var statistic: UInt8 = 0
  var count: UInt32 = 0
  var head: UInt32 = 0
  var base: UInt64 = 0
  var tail: UnsafeMutablePointer<UInt32>?
  /// The last context descriptor of each of the two places: VLAN and header lengths, offload types.
  var contexts = InlineArray<2, (UInt64, UInt64)>(repeating: (0, 0))

  mutating func reset() {
    let cell = unsafe tail
    self = TransmitQueueState()
    unsafe tail = cell
  }
}

/// A transmit descriptor's second word. 82599 datasheet 7.2.3.2.
private struct TransmitDescriptor {
  let word: UInt64
  var isExtended: Bool { word >> 29 & 1 != 0 }
  var isContext: Bool { isExtended && word >> 20 & 15 == 2 }
  var byteCount: Int { Int(word & 0xFFFF) }
  var isLast: Bool { word >> 24 & 1 != 0 }
  var reports: Bool { word >> 27 & 1 != 0 }
  var insertsTag: Bool { word >> 30 & 1 != 0 }
  var segments: Bool { isExtended && word >> 31 & 1 != 0 }
  var insertsIPChecksum: Bool { isExtended && word >> 40 & 1 != 0 }
  var insertsTransportChecksum: Bool { isExtended && word >> 41 & 1 != 0 }
  /// IDX: which of the queue's two contexts this sets or uses.
  var place: Int { Int(word >> 36 & 1) }
  /// Of the legacy format.
  var tag: UInt16 { UInt16(word >> 48) }
}

extension SimulatedCard {
  /// Sends what is waiting, one frame a queue in turn, until nothing is or the budget is used up.
  ///
  /// - Parameter budget: frames.
  /// - Returns: frames sent.
  public func transmit(budget: Int, to wire: TransmitWire) -> Int {
    let stopped = LineState.Block.removed.rawValue | LineState.Block.resetting.rawValue
      | LineState.Block.masterDisabled.rawValue | LineState.Block.linkDown.rawValue
    guard line.blocked & stopped == 0, registers[Offset.DMATXCTL] & 1 != 0 else { return 0 }
    var sent = 0
    var isIdle = false
    while !isIdle {
      isIdle = true
      for n in 0..<Self.queueCount where unsafe transmitQueues[n].isRunning {
        guard sent < budget else { return sent }
        if line.blocked & stopped != 0 { return sent }
        if sendFrame(n, to: wire) {
          sent += 1
          isIdle = false
        }
      }
    }
    return sent
  }

  /// One frame of a queue. False: none is complete.
  private func sendFrame(_ n: Int, to wire: TransmitWire) -> Bool {
    let queue = unsafe transmitQueues + n
    let tail = unsafe sl_load32_acquire(queue.pointee.tail.unsafelyUnwrapped)
    guard unsafe tail < queue.pointee.count || tail == queue.pointee.head else {
      note(.badTransmitTail(queue: n))
      return failTransmit(n, .misuse(.badTransmitTail(queue: n)))
    }
    var head = unsafe queue.pointee.head
    var length = 0
    while head != tail {
      var words: (UInt64, UInt64) = (0, 0)
      let address = unsafe queue.pointee.base &+ UInt64(head) &* 16
      guard unsafe dma.read(address, into: &words, count: 16) else {
        return failTransmit(n, .descriptorRead(address: address))
      }
      let descriptor = TransmitDescriptor(word: words.1)
      head = unsafe head &+ 1 == queue.pointee.count ? 0 : head &+ 1
      if descriptor.isContext {
        unsafe queue.pointee.contexts[descriptor.place] = words
        // Nothing of it is needed again: a context alone is done at once.
        if length == 0 && !complete(n, from: unsafe queue.pointee.head, to: head) { return false }
        continue
      }
      if descriptor.segments {
        note(.segmentation(queue: n))
        return failTransmit(n, .misuse(.segmentation(queue: n)))
      }
      // 16 000 is past the largest frame, and the tag and the padding still fit behind it.
      guard descriptor.byteCount + length <= 16_000,
        descriptor.byteCount == 0 || (unsafe dma.read(words.0, into: scratch + length, count: descriptor.byteCount))
      else { return failTransmit(n, .bufferRead(address: words.0, count: descriptor.byteCount)) }
      length += descriptor.byteCount
      guard descriptor.isLast else { continue }
      guard complete(n, from: unsafe queue.pointee.head, to: head) else { return false }
      finish(n, descriptor, length, wire)
      return true
    }
    // Not complete yet: it is fetched again when its end has come.
    return false
  }

  private func finish(_ n: Int, _ descriptor: TransmitDescriptor, _ length: Int, _ wire: TransmitWire) {
    var length = length
    if descriptor.insertsIPChecksum || descriptor.insertsTransportChecksum { insertChecksums(n, descriptor, length) }
    if descriptor.insertsTag && length >= 12 {
      // The tag of an advanced descriptor is its context's.
      let tag = descriptor.isExtended ? unsafe UInt16(truncatingIfNeeded: transmitQueues[n].contexts[descriptor.place].0 >> 16) : descriptor.tag
      unsafe sl_move(scratch + 16, scratch + 12, length - 12)
      unsafe (scratch + 12).storeBytes(of: UInt16(registers[Offset.DMATXCTL] >> 16).bigEndian, as: UInt16.self)
      unsafe (scratch + 14).storeBytes(of: tag.bigEndian, as: UInt16.self)
      length += 4
    }
    if length < 60 && registers[Offset.HLREG0] & HLREG0.padTransmit != 0 {
      unsafe sl_fill(scratch + length, 0, 60 - length)
      length = 60
    }
    guard length > 0 else { return }
    let isBroadcast = unsafe length >= 6 && load48(scratch) == 0xFFFF_FFFF_FFFF
    unsafe counters.sent(
      length, scratch.load(as: UInt8.self), isBroadcast: isBroadcast, statistic: Int(transmitQueues[n].statistic))
    if interrupts.isUsed && descriptor.reports { raiseTransmit(n) }
    // What comes back is put together in the same room: it needs bytes of its own.
    if wire.kind == .loopback || registers[Offset.HLREG0] & HLREG0.loopback != 0 {
      let copy = UnsafeMutableRawPointer.allocate(byteCount: length, alignment: 8)
      defer { unsafe copy.deallocate() }
      unsafe sl_copy(copy, scratch, length)
      if registers[Offset.HLREG0] & HLREG0.loopback != 0 {
        // The MAC's own loop: nothing reaches the cable.
        _ = unsafe receive(WireFrame(bytes: copy, count: length))
      } else {
        unsafe wire.take(copy, length, from: self)
      }
    } else {
      unsafe wire.take(scratch, length, from: self)
    }
  }

  /// Reports descriptors done: each that asked for it, or the head where TDWBAL says so. 82599 datasheet 7.2.3.5.
  private func complete(_ n: Int, from first: UInt32, to end: UInt32) -> Bool {
    let queue = unsafe transmitQueues + n
    let headAddress = registers[Offset.transmit(Offset.TDWBAL, n)]
    var position = first
    var reports = false
    while position != end {
      let address = unsafe queue.pointee.base &+ UInt64(position) &* 16
      var word: UInt64 = 0
      guard unsafe dma.read(address &+ 8, into: &word, count: 8) else {
        return failTransmit(n, .descriptorRead(address: address))
      }
      if TransmitDescriptor(word: word).reports {
        reports = true
        if headAddress & 1 == 0 {
          guard let cell = unsafe dma.translate(address &+ 8, count: 8, access: .write) else {
            _ = unsafe dma.write(address &+ 8, from: &word, count: 8)
            return failTransmit(n, .descriptorWrite(address: address))
          }
          unsafe sl_store64_release(cell, 1 << 32)
        }
      }
      position = unsafe position &+ 1 == queue.pointee.count ? 0 : position &+ 1
    }
    unsafe queue.pointee.head = end
    if reports && headAddress & 1 != 0 {
      let address = UInt64(registers[Offset.transmit(Offset.TDWBAH, n)]) << 32 | UInt64(headAddress & ~3)
      var value = end
      guard unsafe dma.write(address, from: &value, count: 4) else {
        return failTransmit(n, .descriptorWrite(address: address))
      }
    }
    return true
  }

  private func failTransmit(_ n: Int, _ fault: CardQueueFault) -> Bool {
    queueFaults[n + Self.queueCount] = fault
    unsafe transmitQueues[n].isRunning = false
    unsafe transmitQueues[n].hasFault = true
    raiseOther(.descriptorHandler)
    return false
  }

  /// IXSM and TXSM: the driver has put the pseudo header's sum where the transport checksum goes.
  /// 82599 datasheet 7.2.5.
  private func insertChecksums(_ n: Int, _ descriptor: TransmitDescriptor, _ length: Int) {
    let context = unsafe transmitQueues[n].contexts[descriptor.place]
    let network = Int(context.0 >> 9 & 0x7F)
    let networkBytes = Int(context.0 & 0x1FF)
    if descriptor.insertsIPChecksum && networkBytes >= 20 && network + networkBytes <= length {
      unsafe (scratch + network + 10).storeBytes(of: 0, as: UInt16.self)
      let sum = unsafe OnesComplement.fold(OnesComplement.sum(scratch + network, networkBytes))
      unsafe (scratch + network + 10).storeBytes(of: ~sum, as: UInt16.self)
    }
    let transport = network + networkBytes
    let isTCP = context.1 >> 11 & 3 == 1
    guard descriptor.insertsTransportChecksum, context.1 >> 11 & 3 < 2, transport + (isTCP ? 18 : 8) <= length else { return }
    let sum = unsafe ~OnesComplement.fold(OnesComplement.sum(scratch + transport, length - transport))
    // A UDP checksum of 0 means that there is none.
    unsafe (scratch + transport + (isTCP ? 16 : 6)).storeBytes(of: !isTCP && sum == 0 ? .max : sum, as: UInt16.self)
  }
}

// MARK: queues

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
      unsafe queue.pointee.isRunning = false
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
      unsafe queue.pointee.isRunning = !queue.pointee.hasFault
    }
  }

  func transmitIsDisabled(_ n: Int) {
    registers[Offset.transmit(Offset.TXDCTL, n)] &= ~RXDCTL.enable
    unsafe transmitQueues[n].phase = .off
  }

  func decodeTransmitQueue(_ n: Int) {
    let queue = unsafe transmitQueues + n
    unsafe queue.pointee.base =
      UInt64(registers[Offset.transmit(Offset.TDBAH, n)]) << 32 | UInt64(registers[Offset.transmit(Offset.TDBAL, n)])
    unsafe queue.pointee.count = registers[Offset.transmit(Offset.TDLEN, n)] / 16
  }
}
