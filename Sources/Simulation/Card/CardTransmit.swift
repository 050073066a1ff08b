internal import Bus
internal import CLinux

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
  /// - Parameter budget: frames, each with its copies for other pools: a broadcast to 31 of them is as much work as 32 frames.
  /// - Returns: frames that have left their queues.
  public func transmit(budget: Int, to wire: any Wire) -> Int {
    let stopped = LineState.Block.removed.rawValue | LineState.Block.resetting.rawValue
      | LineState.Block.masterDisabled.rawValue | LineState.Block.linkDown.rawValue | LineState.Block.busMasterOff.rawValue
    guard line.blocked & stopped == 0, !line.senders.isEmpty, registers[Offset.DMATXCTL] & 1 != 0 else { return 0 }
    if line.filtersAreStale { rebuildFilters() }
    var sent = 0
    var left = budget
    // Turns since the last frame: when every queue has had one, nothing waits.
    var idle = 0
    while left > 0, line.blocked & stopped == 0, let n = line.senders.next(after: line.lastSender) {
      line.lastSender = n
      if maySend(n) && sendFrame(n, to: wire) {
        left -= 1 + line.lastCopyCount
        sent += 1
        idle = 0
      } else {
        idle += 1
        if idle >= line.senders.count { break }
      }
    }
    return sent
  }

  /// One frame of a queue. False: none is complete.
  private func sendFrame(_ n: Int, to wire: any Wire) -> Bool {
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
        descriptor.byteCount == 0 || (unsafe dma.read(words.0, into: outgoing + length, count: descriptor.byteCount))
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

  private func finish(_ n: Int, _ descriptor: TransmitDescriptor, _ length: Int, _ wire: any Wire) {
    var length = length
    if descriptor.insertsIPChecksum || descriptor.insertsTransportChecksum { insertChecksums(n, descriptor, length) }
    var tag: UInt16?
    if descriptor.insertsTag {
      // The tag of an advanced descriptor is its context's.
      tag = descriptor.isExtended ? unsafe UInt16(truncatingIfNeeded: transmitQueues[n].contexts[descriptor.place].0 >> 16) : descriptor.tag
    }
    tag = outgoingTag(n, descriptor: tag)
    if let tag, length >= 12 {
      unsafe sl_move(outgoing + 16, outgoing + 12, length - 12)
      unsafe (outgoing + 12).storeBytes(of: UInt16(registers[Offset.DMATXCTL] >> 16).bigEndian, as: UInt16.self)
      unsafe (outgoing + 14).storeBytes(of: tag.bigEndian, as: UInt16.self)
      length += 4
    }
    if length < 60 && registers[Offset.HLREG0] & HLREG0.padTransmit != 0 {
      unsafe sl_fill(outgoing + length, 0, 60 - length)
      length = 60
    }
    guard length > 0 else { return }
    // Not one of what it sends is looked at again if nothing is switched and nobody is held to its addresses.
    let route = switchFrame(n, length)
    counters.left(length, statistic: Int(unsafe transmitQueues[n].statistic), isRefused: route.isRefused)
    if route.isForWire { put(length, on: wire) }
    if interrupts.isUsed && descriptor.reports { raiseTransmit(n) }
    line.lastCopyCount = route.copyCount
    wire.left(
      Departure(
        queue: n, byteCount: length, isOnWire: route.isForWire, copyCount: route.copyCount, isRefused: route.isRefused),
      from: self)
  }

  private func put(_ length: Int, on wire: any Wire) {
    let isBroadcast = unsafe length >= 6 && load48(outgoing) == 0xFFFF_FFFF_FFFF
    unsafe counters.sent(length, outgoing.load(as: UInt8.self), isBroadcast: isBroadcast)
    if registers[Offset.HLREG0] & HLREG0.loopback != 0 {
      // The MAC's own loop: nothing reaches the cable.
      _ = unsafe receive(WireFrame(bytes: outgoing, count: length))
    } else {
      unsafe wire.take(outgoing, length, from: self)
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

  func failTransmit(_ n: Int, _ fault: CardQueueFault) -> Bool {
    queueFaults[n + Self.queueCount] = fault
    unsafe transmitQueues[n].hasFault = true
    setRunning(n, false)
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
      unsafe (outgoing + network + 10).storeBytes(of: 0, as: UInt16.self)
      let sum = unsafe OnesComplement.fold(OnesComplement.sum(outgoing + network, networkBytes))
      unsafe (outgoing + network + 10).storeBytes(of: ~sum, as: UInt16.self)
    }
    let transport = network + networkBytes
    let isTCP = context.1 >> 11 & 3 == 1
    guard descriptor.insertsTransportChecksum, context.1 >> 11 & 3 < 2, transport + (isTCP ? 18 : 8) <= length else { return }
    let sum = unsafe ~OnesComplement.fold(OnesComplement.sum(outgoing + transport, length - transport))
    // A UDP checksum of 0 means that there is none.
    unsafe (outgoing + transport + (isTCP ? 16 : 6)).storeBytes(of: !isTCP && sum == 0 ? .max : sum, as: UInt16.self)
  }
}
