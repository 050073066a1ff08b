public import FlowSteering

/// What a card's filter tables hold: the same for the driver that writes them and for the proof that reads them.
///
/// A pool is a group of queues; a set of pools is a mask, bit p for pool p. An entry has the number of its rule, which
/// the card does not know.
public struct CardTables: Hashable, Sendable {
  public var plan: PoolPlan
  public var addresses: [Address] = []
  public var vlans: [VLAN] = []
  /// Tagged frames go to pools of their VLAN only, untagged ones to pools that accept them.
  public var filtersVLANs = false
  /// Frames of VLANs that are nobody's come in too, for filters behind.
  public var admitsEveryVLAN = false
  /// What comes in at all besides exact addresses.
  public var admitted: Kinds = []
  /// Pools that take all of a kind.
  public var broadcastPools: UInt64 = 0
  public var multicastPools: UInt64 = 0
  public var unicastPools: UInt64 = 0
  public var untaggedPools: UInt64 = 0
  /// Where frames go that no pool claims; nil: nowhere.
  public var defaultPool: Int?
  public var etherTypes: [EtherType] = []
  public var syn: SYN?
  public var fiveTuples: [FiveTuple] = []
  /// Nil: flow director is off.
  public var flowMask: FlowMask?
  public var exactFlows: [ExactFlow] = []
  /// What of pools' sending the card checks and changes.
  public var sending = Sending()

  public init(plan: PoolPlan) { self.plan = plan }

  /// For how many more filters room is kept.
  public static let headroom = 1024
  /// Makes room for so many more filters that are added one at a time.
  public mutating func reserve(_ count: Int) {
    exactFlows.reserveCapacity(exactFlows.count + count)
    fiveTuples.reserveCapacity(128)
  }

  /// Names rules by their numbers, where compilers name them by their places.
  mutating func number(by steering: Steering) {
    for index in etherTypes.indices { etherTypes[index].rule = steering.rules[etherTypes[index].rule].id }
    if let rule = syn?.rule { syn?.rule = steering.rules[rule].id }
    for index in fiveTuples.indices { fiveTuples[index].rule = steering.rules[fiveTuples[index].rule].id }
    for index in exactFlows.indices { exactFlows[index].rule = steering.rules[exactFlows[index].rule].id }
  }

  public struct Kinds: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    public static let broadcast = Kinds(rawValue: 1)
    public static let multicast = Kinds(rawValue: 2)
    public static let unicast = Kinds(rawValue: 4)
  }

  /// What a pool may send, as far as the card sees to it. PFVFSPOOF, PFVMVIR; DTXSWC, VMVIR.
  public struct Sending: Hashable, Sendable {
    /// Pools whose frames must have a source that is one of the pool's receive addresses.
    public var addressPools: UInt64 = 0
    /// Pools whose frames must be of a VLAN whose filter names the pool.
    public var vlanPools: UInt64 = 0
    /// By pool: the VLAN whose tag the card puts into every frame that is sent, and takes off those that are received.
    public var portVLANs: [Int: UInt16] = [:]
    public init() {}
  }

  /// A queue of a pool.
  public struct Queue: Hashable, Sendable {
    public var pool: Int
    /// Inside the pool.
    public var number: Int
    public init(pool: Int, number: Int = 0) {
      self.pool = pool
      self.number = number
    }
  }

  /// RAL, RAH, MPSAR.
  public struct Address: Hashable, Sendable {
    public var address: MACAddress
    public var pools: UInt64
    public init(address: MACAddress, pools: UInt64) {
      self.address = address
      self.pools = pools
    }
  }
  /// PFVLVF, PFVLVFB.
  public struct VLAN: Hashable, Sendable {
    public var identifier: UInt16
    public var pools: UInt64
    public init(identifier: UInt16, pools: UInt64) {
      self.identifier = identifier
      self.pools = pools
    }
  }
  /// ETQF, ETQS.
  public struct EtherType: Hashable, Sendable {
    public var type: UInt16
    public var queue: Queue
    public var rule: Int
    public init(type: UInt16, queue: Queue, rule: Int) {
      (self.type, self.queue, self.rule) = (type, queue, rule)
    }
  }
  /// SYNQF.
  public struct SYN: Hashable, Sendable {
    public var queue: Queue
    /// Before the five-tuple filters, or behind.
    public var isFirst: Bool
    public var rule: Int
    public init(queue: Queue, isFirst: Bool, rule: Int) {
      (self.queue, self.isFirst, self.rule) = (queue, isFirst, rule)
    }
  }

  /// SAQF, DAQF, SDPQF, FTQF, L34TIMIR. IPv4, no fragments; nil is not compared.
  public struct FiveTuple: Hashable, Sendable {
    public var source: UInt32?
    public var destination: UInt32?
    public var sourcePort: UInt16?
    public var destinationPort: UInt16?
    public var transport: Transport?
    /// The pool that the frame is for.
    public var pool: Int?
    public var queue: Queue
    /// 1, the lowest, to 7.
    public var priority: Int
    public var rule: Int
    public init(pool: Int?, queue: Queue, priority: Int, rule: Int) {
      (self.pool, self.queue, self.priority, self.rule) = (pool, queue, priority, rule)
    }
  }

  /// FDIRM and the masks of addresses and ports: one for the port. Bits that are set are compared.
  public struct FlowMask: Hashable, Sendable {
    public var source4: UInt32 = 0
    public var destination4: UInt32 = 0
    /// Bit n: the n-th byte on the wire.
    public var source6: UInt16 = 0
    /// TCP's and UDP's ports.
    public var tcp = Ports()
    public var udp = Ports()
    public var comparesTransport = false
    public var comparesVLAN = false
    public var comparesPriority = false
    public var comparesPool = false
    /// Bytes behind the start of the frame; nil: not compared.
    public var flexibleOffset: Int?
    public init() {}
    public struct Ports: Hashable, Sendable {
      public var source: UInt16 = 0
      public var destination: UInt16 = 0
      public init(source: UInt16 = 0, destination: UInt16 = 0) {
        self.source = source
        self.destination = destination
      }
    }
  }

  /// A flow director filter: what the mask leaves out is zero.
  public struct ExactFlow: Hashable, Sendable {
    public var key: Key { Key(flow: self) }
    public var version: IPVersion
    /// IPv6's source address, or IPv4's in the low bits.
    public var source: UInt128 = 0
    /// IPv4 only.
    public var destination: UInt32 = 0
    public var sourcePort: UInt16 = 0
    public var destinationPort: UInt16 = 0
    /// Nil: not one of these, or not compared.
    public var transport: Transport?
    /// VLAN and priority, where they stand in a tag.
    public var tag: UInt16 = 0
    public var flexible: UInt16 = 0
    public var pool: Int?
    /// Nil drops.
    public var queue: Queue?
    public var rule: Int
    public init(version: IPVersion, rule: Int) {
      self.version = version
      self.rule = rule
    }
  }
}

extension CardTables.FiveTuple {
  /// Whether some frame matches both.
  public func overlaps(_ other: Self) -> Bool {
    func differ<T: Equatable>(_ a: T?, _ b: T?) -> Bool { if let a, let b { a != b } else { false } }
    return !(differ(source, other.source) || differ(destination, other.destination) || differ(sourcePort, other.sourcePort)
      || differ(destinationPort, other.destinationPort) || differ(transport, other.transport) || differ(pool, other.pool))
  }
  /// All but where its frames go, and before whom.
  public struct Key: Hashable, Sendable {
    let source, destination: UInt32?
    let sourcePort, destinationPort: UInt16?
    let transport: Transport?
    let pool: Int?
  }
  public var key: Key {
    Key(source: source, destination: destination, sourcePort: sourcePort, destinationPort: destinationPort, transport: transport, pool: pool)
  }
}

extension CardTables.ExactFlow {
  /// All but where its frames go.
  public struct Key: Hashable, Sendable {
    let source: UInt128
    let destination: UInt32
    let ports: UInt32
    let tagAndFlexible: UInt32
    /// Pool, version, transport.
    let kind: UInt32
    fileprivate init(flow: CardTables.ExactFlow) {
      (source, destination) = (flow.source, flow.destination)
      ports = UInt32(flow.sourcePort) << 16 | UInt32(flow.destinationPort)
      tagAndFlexible = UInt32(flow.tag) << 16 | UInt32(flow.flexible)
      let transport = flow.transport.map { UInt32($0.number) } ?? 0
      kind = UInt32(flow.pool ?? 255) << 16 | transport << 8 | (flow.version == .v6 ? 1 : 0)
    }
  }
}

// MARK: What entries match, for the proof and for people

extension CardTables.FiveTuple {
  /// The frames that it takes of those for its pool.
  public var match: Match {
    var pairs: [Match.Pair] = []
    func add(_ field: Field, _ value: (some FixedWidthInteger)?) {
      if let value { pairs.append(Match.Pair(field, .exactly(value, in: field))) }
    }
    if source == nil && destination == nil { add(.etherType, IPVersion.v4.etherType) }
    add(.ip4Source, source)
    add(.ip4Destination, destination)
    if let transport {
      if sourcePort == nil && destinationPort == nil { add(.ipProtocol, transport.number) }
      add(transport.source, sourcePort)
      add(transport.destination, destinationPort)
    } else {
      add(.ipFragment, UInt8(0))
    }
    return Match(ordered: pairs)
  }
}

extension CardTables.ExactFlow {
  /// The frames that it takes of those for its pool.
  public func match(under mask: CardTables.FlowMask) -> Match {
    var pairs: [Match.Pair] = []
    pairs.reserveCapacity(6)
    func add(_ field: Field, _ value: UInt128, _ mask: UInt128) { pairs.append(Match.Pair(field, .bits(value & mask, mask: mask))) }
    if mask.comparesVLAN { add(.vlanID, UInt128(tag & 0xFFF), 0xFFF) }
    if mask.comparesPriority { add(.vlanPriority, UInt128(tag >> 13), 7) }
    switch version {
    case .v4:
      // An empty mask still says IPv4.
      add(.ip4Source, source, UInt128(mask.source4))
      if mask.destination4 != 0 { add(.ip4Destination, UInt128(destination), UInt128(mask.destination4)) }
    case .v6: add(.ip6Source, source, CardTables.FlowMask.bytes(mask.source6))
    }
    if mask.comparesTransport, let transport {
      let ports = transport == .tcp ? mask.tcp : transport == .udp ? mask.udp : CardTables.FlowMask.Ports()
      if ports == CardTables.FlowMask.Ports() { add(.ipProtocol, UInt128(transport.number), 0xFF) }
      if ports.source != 0 { add(transport.source, UInt128(sourcePort), UInt128(ports.source)) }
      if ports.destination != 0 { add(transport.destination, UInt128(destinationPort), UInt128(ports.destination)) }
    }
    if let offset = mask.flexibleOffset { add(.flexible(offset: offset), UInt128(flexible), 0xFFFF) }
    return Match(ordered: pairs)
  }
}

extension CardTables.FlowMask {
  /// The bits of the bytes that are compared.
  static func bytes(_ mask: UInt16) -> UInt128 {
    (0..<16).reduce(UInt128(0)) { mask >> UInt16($1) & 1 == 1 ? $0 | 0xFF << UInt128(120 - 8 * $1) : $0 }
  }
  /// The other way; nil if a byte is compared in part.
  static func bytes(of mask: UInt128) -> UInt16? {
    var result: UInt16 = 0
    for index in 0..<16 {
      switch UInt8(truncatingIfNeeded: mask >> UInt128(120 - 8 * index)) {
      case 0: break
      case 0xFF: result |= 1 << UInt16(index)
      default: return nil
      }
    }
    return result
  }
}

// MARK: How full they are

extension CardTables {
  public struct Fill: Hashable, Sendable {
    public let name: String
    public let used: Int
    public let size: Int
  }

  /// What is taken of each table that a card has.
  public func fill(of profile: CardProfile) -> [Fill] {
    let flows = profile.exactFlows.first { $0.filters >= exactFlows.count }?.filters ?? 0
    return [
      Fill(name: "receive addresses", used: addresses.count, size: profile.receiveAddresses),
      Fill(name: "VLAN filters", used: vlans.count, size: profile.vlanFilters),
      Fill(name: "EtherType filters", used: etherTypes.count, size: profile.etherTypeFilters),
      Fill(name: "SYN filter", used: syn == nil ? 0 : 1, size: profile.hasSYNFilter ? 1 : 0),
      Fill(name: "five-tuple filters", used: fiveTuples.count, size: profile.fiveTupleFilters),
      Fill(name: "flow director", used: exactFlows.count, size: flows),
    ].filter { $0.size > 0 }
  }
}
