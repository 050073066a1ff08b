internal import FlowSteering

/// A flow rule, or a part of one, in the shapes that a card's filters have.
///
/// A part has one IP version and no ranges; a rule is as many parts as it needs.
struct FlowPart {
  let rule: Int
  let match: Match
  /// The pool that the frame is for; nil: any.
  let pool: Int?
  /// Nil drops.
  let queue: CardTables.Queue?
}

/// Why a kind of filter cannot say it.
struct Shortfall: Error, Hashable {
  let field: Field?
  let reason: String
}

extension FlowPart {
  /// As a five-tuple filter: IPv4, no fragments, each field whole or not at all. 82599 datasheet 7.1.2.5.
  func fiveTuple(drop: CardTables.Queue) throws(Shortfall) -> CardTables.FiveTuple {
    guard match.ipVersion == .v4 else {
      throw Shortfall(field: match.pairs.first { $0.field.ipVersion == .v6 }?.field, reason: "a five-tuple filter compares IPv4 only")
    }
    var filter = CardTables.FiveTuple(pool: pool, queue: queue ?? drop, priority: 1, rule: rule)
    var isWhole = false
    for pair in match.pairs {
      func exactly() throws(Shortfall) -> UInt128 {
        guard case .bits(let value, let mask) = pair.pattern, mask == pair.field.fullMask else {
          throw Shortfall(field: pair.field, reason: "a five-tuple filter compares \(pair.field.name) whole, or not at all")
        }
        return value
      }
      switch pair.field {
      case .etherType: _ = try exactly()
      case .ip4Source:
        // All of IPv4 is no condition here.
        if pair.pattern != .bits(0, mask: 0) { filter.source = UInt32(try exactly()) }
      case .ip4Destination: if pair.pattern != .bits(0, mask: 0) { filter.destination = UInt32(try exactly()) }
      case .ipProtocol:
        guard let transport = Transport(number: UInt8(try exactly())) else {
          throw Shortfall(field: pair.field, reason: "a five-tuple filter knows TCP, UDP and SCTP")
        }
        filter.transport = transport
        isWhole = true
      case .ipFragment:
        guard try exactly() == 0 else { throw Shortfall(field: pair.field, reason: "a five-tuple filter takes no fragments") }
        isWhole = true
      case .tcpSource, .udpSource, .sctpSource:
        (filter.sourcePort, filter.transport, isWhole) = (UInt16(try exactly()), pair.field.transport, true)
      case .tcpDestination, .udpDestination, .sctpDestination:
        (filter.destinationPort, filter.transport, isWhole) = (UInt16(try exactly()), pair.field.transport, true)
      default: throw Shortfall(field: pair.field, reason: "a five-tuple filter does not compare \(pair.field.name)")
      }
    }
    guard isWhole else { throw Shortfall(field: .ipFragment, reason: "a five-tuple filter takes no fragments: ip.frag=no must say so") }
    return filter
  }

  /// As a flow director filter, and the mask that it needs. 82599 datasheet 7.1.2.7. Readings "flow director".
  func exactFlow() throws(Shortfall) -> (flow: CardTables.ExactFlow, mask: CardTables.FlowMask) {
    guard let version = match.ipVersion else { throw Shortfall(field: nil, reason: "flow director compares IP packets only") }
    var flow = CardTables.ExactFlow(version: version, rule: rule)
    var mask = CardTables.FlowMask()
    (flow.pool, flow.queue, mask.comparesPool) = (pool, queue, pool != nil)
    for pair in match.pairs {
      guard case .bits(let value, let bits) = pair.pattern else {
        throw Shortfall(field: pair.field, reason: "flow director cannot ask for frames without a tag")
      }
      let isWhole = bits == pair.field.fullMask
      func whole() throws(Shortfall) {
        if !isWhole { throw Shortfall(field: pair.field, reason: "flow director compares \(pair.field.name) whole, or not at all") }
      }
      switch pair.field {
      case .etherType: try whole()
      case .vlanID:
        try whole()
        if value == 0 { throw Shortfall(field: pair.field, reason: "to flow director a frame without a tag looks as one of VLAN 0") }
        (flow.tag, mask.comparesVLAN) = (flow.tag | UInt16(value), true)
      case .vlanPriority:
        try whole()
        if value == 0 && match[.vlanID] == nil { throw Shortfall(field: pair.field, reason: "to flow director a frame without a tag looks as one of priority 0") }
        (flow.tag, mask.comparesPriority) = (flow.tag | UInt16(value) << 13, true)
      case .ip4Source: (flow.source, mask.source4) = (value, UInt32(bits))
      case .ip4Destination: (flow.destination, mask.destination4) = (UInt32(value), UInt32(bits))
      case .ip6Source:
        guard let bytes = CardTables.FlowMask.bytes(of: bits) else {
          throw Shortfall(field: pair.field, reason: "flow director compares IPv6 addresses in whole bytes")
        }
        (flow.source, mask.source6) = (value, bytes)
      case .ip6Destination:
        if bits != 0 { throw Shortfall(field: pair.field, reason: "flow director compares an IPv6 destination with the card's own address only") }
      case .ipProtocol:
        try whole()
        guard let transport = Transport(number: UInt8(value)) else { throw Shortfall(field: pair.field, reason: "flow director knows TCP, UDP and SCTP") }
        (flow.transport, mask.comparesTransport) = (transport, true)
      case .tcpSource, .udpSource: (flow.sourcePort, flow.transport, mask.comparesTransport) = (UInt16(value), pair.field.transport, true)
        if pair.field == .tcpSource { mask.tcp.source = UInt16(bits) } else { mask.udp.source = UInt16(bits) }
      case .tcpDestination, .udpDestination: (flow.destinationPort, flow.transport, mask.comparesTransport) = (UInt16(value), pair.field.transport, true)
        if pair.field == .tcpDestination { mask.tcp.destination = UInt16(bits) } else { mask.udp.destination = UInt16(bits) }
      case .flexible(let offset):
        try whole()
        guard version == .v4, offset % 2 == 0, offset <= Self.lastFlexible else {
          throw Shortfall(field: pair.field, reason: "flow director looks at two bytes of IPv4 frames at an even offset up to \(Self.lastFlexible)")
        }
        guard mask.flexibleOffset == nil else { throw Shortfall(field: pair.field, reason: "flow director looks at flexible bytes in one place") }
        (flow.flexible, mask.flexibleOffset) = (UInt16(value), offset)
      default: throw Shortfall(field: pair.field, reason: "flow director does not compare \(pair.field.name)")
      }
    }
    return (flow, mask)
  }
  /// The last that is in the headers of every IPv4 packet, tag or not.
  private static let lastFlexible = 32

  /// Whether it is what a SYN filter matches: the flag, in packets of either IP version. 82599 datasheet 7.1.2.4.
  static func isSYN(_ match: Match) -> Bool { match.pairs == [Match.Pair(.tcpFlags, .bits(2, mask: 2))] }
}

/// The mask of flow director as rules have asked for it: of each part of it, the rule that did so first.
struct MaskBook {
  private(set) var mask: CardTables.FlowMask?
  /// By part of the mask.
  private var holders: [String: Int] = [:]

  /// A part on which two rules do not agree.
  struct Conflict: Error, Hashable {
    let part: String
    let wanted: String
    let held: String
    let holder: Int
  }

  /// The parts that a filter has a say in, as text.
  private static func parts(_ flow: CardTables.ExactFlow, _ mask: CardTables.FlowMask) -> [(name: String, text: String)] {
    func address(_ mask: UInt32) -> String {
      mask == .max ? "whole" : mask == 0 ? "not compared" : "/" + (Match.Pair(.ip4Source, .bits(0, mask: UInt128(mask))).text.split(separator: "/").last.map(String.init) ?? "")
    }
    func port(_ mask: UInt16) -> String { mask == .max ? "whole" : mask == 0 ? "not compared" : "mask 0x" + String(mask, radix: 16) }
    func flag(_ isCompared: Bool) -> String { isCompared ? "whole" : "not compared" }
    var parts: [(String, String)] = [
      ("vlan.id", flag(mask.comparesVLAN)), ("vlan.pcp", flag(mask.comparesPriority)), ("for", flag(mask.comparesPool)),
      ("ip.proto", flag(mask.comparesTransport)), ("flex", mask.flexibleOffset.map { "at \($0)" } ?? "not compared"),
    ]
    switch flow.version {
    case .v4: parts += [("ip.src", address(mask.source4)), ("ip.dst", address(mask.destination4))]
    case .v6: parts.append(("ip.src of IPv6", mask.source6 == .max ? "whole" : mask.source6 == 0 ? "not compared" : "bytes 0x" + String(mask.source6, radix: 16)))
    }
    switch flow.transport {
    case .tcp: parts += [("tcp.src", port(mask.tcp.source)), ("tcp.dst", port(mask.tcp.destination))]
    case .udp: parts += [("udp.src", port(mask.udp.source)), ("udp.dst", port(mask.udp.destination))]
    case .sctp, nil: break
    }
    return parts
  }

  private var texts: [String: String] = [:]
  private struct Kind: Hashable {
    let mask: CardTables.FlowMask
    let version: IPVersion
    let transport: Transport?
  }
  /// What has been found to fit: most filters of a port are alike.
  private var fits: Set<Kind> = []

  func conflict(_ flow: CardTables.ExactFlow, _ wanted: CardTables.FlowMask) -> Conflict? {
    if fits.contains(Kind(mask: wanted, version: flow.version, transport: flow.transport)) { return nil }
    for (name, text) in Self.parts(flow, wanted) {
      if let held = texts[name], held != text, let holder = holders[name] {
        return Conflict(part: name, wanted: text, held: held, holder: holder)
      }
    }
    return nil
  }

  mutating func add(_ flow: CardTables.ExactFlow, _ wanted: CardTables.FlowMask) throws(Conflict) {
    let kind = Kind(mask: wanted, version: flow.version, transport: flow.transport)
    if fits.contains(kind) { return }
    if let conflict = conflict(flow, wanted) { throw conflict }
    for (name, text) in Self.parts(flow, wanted) where texts[name] == nil {
      texts[name] = text
      holders[name] = flow.rule
    }
    fits.insert(kind)
    var new = mask ?? CardTables.FlowMask()
    (new.comparesVLAN, new.comparesPriority, new.comparesPool) = (wanted.comparesVLAN, wanted.comparesPriority, wanted.comparesPool)
    (new.comparesTransport, new.flexibleOffset) = (wanted.comparesTransport, wanted.flexibleOffset)
    switch flow.version {
    case .v4: (new.source4, new.destination4) = (wanted.source4, wanted.destination4)
    case .v6: new.source6 = wanted.source6
    }
    switch flow.transport {
    case .tcp: new.tcp = wanted.tcp
    case .udp: new.udp = wanted.udp
    case .sctp, nil: break
    }
    mask = new
  }
}
