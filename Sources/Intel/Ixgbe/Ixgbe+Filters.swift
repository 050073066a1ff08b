internal import Bus
public import FlowSteering

/// Frames that a pool takes besides those for its addresses.
public struct IxgbeAccepted: OptionSet, Hashable, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  public static let broadcast = IxgbeAccepted(rawValue: 1)
  /// Groups that were listed by `addMulticast`: the card looks at 12 bits of the address, so others may come too.
  public static let listedMulticast = IxgbeAccepted(rawValue: 2)
  public static let allMulticast = IxgbeAccepted(rawValue: 4)
  /// Frames without a VLAN tag. Has no effect without pools: there they are always taken.
  public static let untagged = IxgbeAccepted(rawValue: 8)
}

/// A flow as the card's filters compare it: IPv4, TCP or UDP or something else. Numbers, not bytes on the wire.
public struct IxgbeFlow: Hashable, Sendable {
  public enum Transport: UInt32, Hashable, Sendable { case tcp, udp, other }
  /// Nil is not compared (flow director's filters compare every field, and refuse nil).
  public var source: UInt32?
  public var destination: UInt32?
  public var sourcePort: UInt16?
  public var destinationPort: UInt16?
  public var transport: Transport?

  public init(
    source: UInt32? = nil, destination: UInt32? = nil, sourcePort: UInt16? = nil, destinationPort: UInt16? = nil,
    transport: Transport? = nil
  ) {
    self.source = source
    self.destination = destination
    self.sourcePort = sourcePort
    self.destinationPort = destinationPort
    self.transport = transport
  }
}

// MARK: Addresses and pools

extension Ixgbe {
  /// Sends frames for an address to a pool. 7.10.3.3, 8.2.3.7.8 to .10.
  ///
  /// - Parameter slot: one of the card's 128 exact addresses; what was there is replaced.
  public func setAddress(_ address: MACAddress, slot: Int, pool: Int) throws(IntelError) {
    try check(pool: pool)
    try clearAddress(slot: slot)
    // The pool before the address: at no moment does an address lead to the wrong guest. Software rewrites RAL and
    // RAH after MPSAR (4.6.10.1.1); the valid bit comes with the last of them.
    registers.modify(MPSAR.self, 2 * slot + pool / 32) { $0[bit: pool % 32] = true }
    registers.write(RAL(address), slot)
    registers.write(RAH(address), slot)
  }

  /// Frees a slot: frames for its address are not taken any more.
  public func clearAddress(slot: Int) throws(IntelError) {
    try Self.check(slot, of: "receive addresses", count: 128)
    registers.write(RAH(rawValue: 0), slot)
    registers.write(RAL(rawValue: 0), slot)
    registers.write(MPSAR(rawValue: 0), 2 * slot)
    registers.write(MPSAR(rawValue: 0), 2 * slot + 1)
  }

  /// Says what a pool takes besides its addresses.
  public func setAccepted(_ accepted: IxgbeAccepted, pool: Int) throws(IntelError) {
    try check(pool: pool)
    if accepted.contains(.listedMulticast) { registers.modify(MCSTCTRL.self) { $0.filters = true } }
    if configuration.isVirtualized {
      var filter = PFVML2FLT(rawValue: 0)
      filter.acceptsBroadcast = accepted.contains(.broadcast)
      filter.acceptsListedMulticast = accepted.contains(.listedMulticast)
      filter.acceptsAllMulticast = accepted.contains(.allMulticast)
      filter.acceptsUntagged = accepted.contains(.untagged)
      registers.write(filter, pool)
      // MPE of a pool chooses among what the filter in front lets in.
      if accepted.contains(.allMulticast) { registers.modify(FCTRL.self) { $0.acceptsAllMulticast = true } }
    } else {
      registers.modify(MCSTCTRL.self) { $0.filters = accepted.contains(.listedMulticast) }
      registers.modify(FCTRL.self) {
        $0.acceptsBroadcast = accepted.contains(.broadcast)
        $0.acceptsAllMulticast = accepted.contains(.allMulticast)
      }
    }
  }

  /// Takes every frame on the wire. Only without pools: a wall between guests has no such door.
  public func setPromiscuous(_ isPromiscuous: Bool) throws(IntelError) {
    guard !configuration.isVirtualized else { throw .unavailable("promiscuous mode with more than one pool") }
    registers.modify(FCTRL.self) {
      $0.acceptsAllUnicast = isPromiscuous
      $0.acceptsAllMulticast = isPromiscuous
      if isPromiscuous { $0.acceptsBroadcast = true }
    }
  }

  /// Lists a group for the pools that accept `.listedMulticast`. 8.2.3.7.7.
  public func addMulticast(_ address: MACAddress) {
    let (register, bit) = Self.multicastBit(address)
    registers.modify(MTA.self, register) { $0[bit: bit] = true }
  }

  /// MTA's bit for an address: with MCSTCTRL.MO 0, the last octet and the upper half of the one before.
  static func multicastBit(_ address: MACAddress) -> (register: Int, bit: Int) {
    let index = Int(address.octet(4)) >> 4 | Int(address.octet(5)) << 4
    return (index >> 5, index & 31)
  }

  func check(pool: Int) throws(IntelError) { try Self.check(pool, of: "pools", count: configuration.poolCount) }
  static func check(_ index: Int, of table: String, count: Int) throws(IntelError) {
    guard index >= 0 && index < count else { throw .index(index, table: table, count: count) }
  }
}

// MARK: VLANs

/// Which of the card's 64 VLAN filters is whose.
struct VLANTable {
  private var identifiers: [UInt16?] = Array(repeating: nil, count: 64)
  /// The filter of an identifier, or a free one.
  func slot(_ identifier: UInt16) -> Int? {
    identifiers.firstIndex(of: identifier) ?? identifiers.firstIndex(of: nil)
  }
  var all: [UInt16] { identifiers.compactMap { $0 } }
  func contains(_ identifier: UInt16) -> Bool { identifiers.contains(identifier) }
  mutating func set(_ slot: Int, _ identifier: UInt16?) { identifiers[slot] = identifier }
}

extension Ixgbe {
  /// Lets tagged frames of a VLAN in, with pools to those in `pools` (one bit each) only; no pool at all removes it.
  ///
  /// From the first VLAN on, tagged frames of any other are dropped, and a pool in none of them gets untagged
  /// frames only. 7.1.1.2, 7.10.3.3.
  public func setVLAN(_ identifier: UInt16, pools: UInt64) throws(IntelError) {
    try Self.check(Int(identifier), of: "VLANs", count: 4096)
    let allowed: UInt64 = configuration.poolCount == 64 ? .max : 1 << UInt64(configuration.poolCount) - 1
    guard pools & ~allowed == 0 else {
      throw .index(63 - pools.leadingZeroBitCount, table: "pools", count: configuration.poolCount)
    }
    if pools == 0 && !vlans.contains(identifier) { return }
    guard let slot = vlans.slot(identifier) else { throw .tableFull("VLAN filters", count: 64) }
    try setVLAN(identifier, pools: pools, slot: slot)
    if pools != 0 { registers.modify(VLNCTRL.self) { $0.filters = true } }
  }

  private func setVLAN(_ identifier: UInt16, pools: UInt64, slot: Int) throws(IntelError) {
    let (register, bit) = (Int(identifier) / 32, Int(identifier) % 32)
    if pools == 0 {
      registers.modify(VFTA.self, register) { $0[bit: bit] = false }
      registers.write(PFVLVF(rawValue: 0), slot)
    }
    // The pools before the filter that uses them.
    for n in 0..<2 { registers.write(PFVLVFB(rawValue: Self.half(n, of: pools)), 2 * slot + n) }
    if pools != 0 {
      var filter = PFVLVF(rawValue: 0)
      filter.identifier = UInt32(identifier)
      filter.isEnabled = true
      registers.write(filter, slot)
      registers.modify(VFTA.self, register) { $0[bit: bit] = true }
    }
    vlans.set(slot, pools == 0 ? nil : identifier)
  }
}

// MARK: Queues by rule

extension Ixgbe {
  /// Sends frames of an EtherType to a queue. One of eight filters. 7.1.2.3.
  public func setEtherType(_ etherType: UInt16, slot: Int, pool: Int, queue: Int) throws(IntelError) {
    try clearEtherType(slot: slot)
    try check(pool: pool)
    try check(queue: queue, of: pool)
    var select = ETQS(rawValue: 0)
    select.queue = UInt32(queueIndex(pool: pool, queue: queue))
    select.isEnabled = true
    registers.write(select, slot)
    var filter = ETQF(rawValue: 0)
    filter.etherType = UInt32(etherType)
    filter.pool = configuration.isVirtualized ? UInt32(pool) : 0
    filter.choosesPool = configuration.isVirtualized
    filter.isEnabled = true
    registers.write(filter, slot)
  }
  public func clearEtherType(slot: Int) throws(IntelError) {
    try Self.check(slot, of: "EtherType filters", count: 8)
    registers.write(ETQF(rawValue: 0), slot)
    registers.write(ETQS(rawValue: 0), slot)
  }

  /// Sends a flow's frames, of those that come to the pool anyway, to one of the pool's queues. One of 128 filters; of
  /// several that match, the highest priority wins. 7.1.2.5.
  ///
  /// - Parameter priority: 1, the lowest, to 7.
  public func setFlow(_ flow: IxgbeFlow, slot: Int, pool: Int, queue: Int, priority: Int = 1) throws(IntelError) {
    try Self.check(slot, of: "five-tuple filters", count: 128)
    try check(pool: pool)
    try check(queue: queue, of: pool)
    guard (1...7).contains(priority) else { throw .index(priority, table: "priorities", count: 8) }
    registers.write(FTQF(rawValue: 0), slot)
    registers.write(SAQF(rawValue: (flow.source ?? 0).byteSwapped), slot)
    registers.write(DAQF(rawValue: (flow.destination ?? 0).byteSwapped), slot)
    let ports = (UInt32((flow.sourcePort ?? 0).byteSwapped), UInt32((flow.destinationPort ?? 0).byteSwapped))
    registers.write(SDPQF(rawValue: ports.1 << 16 | ports.0), slot)
    var target = L34TIMIR(rawValue: 0)
    target.ignoresSize = true
    target.reserved = 0b1000000
    target.queue = UInt32(queueIndex(pool: pool, queue: queue))
    registers.write(target, slot)
    registers.write(Self.flowFilter(flow, pool: configuration.isVirtualized ? pool : nil, priority: priority), slot)
  }
  public func clearFlow(slot: Int) throws(IntelError) {
    try Self.check(slot, of: "five-tuple filters", count: 128)
    registers.write(FTQF(rawValue: 0), slot)
  }

  static func flowFilter(_ flow: IxgbeFlow, pool: Int?, priority: Int) -> FTQF {
    var filter = FTQF(rawValue: 0)
    filter.transport =
      switch flow.transport {
      case .tcp, nil: 0
      case .udp: 1
      case .other: 3
      }
    filter.priority = UInt32(priority)
    filter.pool = UInt32(pool ?? 0)
    filter.ignoresPool = pool == nil
    let ignored: [Bool] = [
      flow.source == nil, flow.destination == nil, flow.sourcePort == nil, flow.destinationPort == nil,
      flow.transport == nil,
    ]
    filter.ignores = ignored.enumerated().reduce(0) { $1.element ? $0 | 1 << UInt32($1.offset) : $0 }
    filter.isEnabled = true
    return filter
  }

  func check(queue: Int, of pool: Int) throws(IntelError) {
    guard queue >= 0 && queue < configuration.queuesPerPool else { throw .queue(queue, count: configuration.queuesPerPool) }
  }
}

// MARK: RSS

extension Ixgbe {
  /// Precondition: 40 bytes. The first byte of the key is the lowest of RSSRK[0]. 7.1.2.8.
  public func setScalingKey(_ key: [UInt8]) {
    precondition(key.count == 40)
    for n in 0..<10 {
      let word = (0..<4).reduce(UInt32(0)) { $0 | UInt32(key[4 * n + $1]) << UInt32(8 * $1) }
      registers.write(RSSRK(rawValue: word), n)
    }
  }

  /// Spreads a pool's frames over the first queues that its guest uses. May be called while frames come: a frame on its
  /// way goes by the old number or the new one. Start a queue before it is used, and stop it when it is not any more.
  ///
  /// With pools the card looks at one bit, or two, of the common table (8.2.3.7.4, RQPL): of three queues it uses two.
  /// - Parameter count: 1 to `queuesPerPool`.
  /// - Returns: how many get frames.
  @discardableResult public func setUsedQueues(pool: Int, count: Int) throws(IntelError) -> Int {
    try check(pool: pool)
    guard count >= 1 && count <= configuration.queuesPerPool else { throw .queue(count, count: configuration.queuesPerPool) }
    guard configuration.isVirtualized else {
      setRedirection { $0 % count }
      return count
    }
    let bits = count >= 4 ? 2 : count >= 2 ? 1 : 0
    registers.modify(PSRTYPE.self, pool) { $0.queueBits = UInt32(bits) }
    return 1 << bits
  }

  /// Fills the redirection table: the queue, inside its pool, for each of 128 values of the hash's lowest bits.
  public func setRedirection(_ queue: (_ entry: Int) -> Int) {
    for n in 0..<32 {
      let word = (0..<4).reduce(UInt32(0)) { word, byte in
        let queue = queue(4 * n + byte)
        precondition(queue >= 0 && queue < configuration.queuesPerPool)
        return word | UInt32(queue) << UInt32(8 * byte)
      }
      registers.write(RETA(rawValue: word), n)
    }
  }
}
