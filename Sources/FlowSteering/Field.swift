/// A part of a frame that a rule can look at.
///
/// Addresses of the two IP versions are two fields with one name: the literal says which is meant.
public enum Field: Hashable, Sendable {
  case ethernetDestination, ethernetSource
  /// The type behind the tag, if there is one.
  case etherType
  case vlanID, vlanPriority
  case ip4Source, ip4Destination, ip6Source, ip6Destination
  /// Of a packet that is no fragment: TCP, UDP and SCTP only where their whole header is there.
  case ipProtocol
  /// IPv4's type of service, IPv6's traffic class: DSCP and ECN.
  case ipTOS
  case ipFragment
  case tcpSource, tcpDestination
  /// The 12 bits beside the data offset: FIN is 0x001, SYN 0x002.
  case tcpFlags
  case udpSource, udpDestination, sctpSource, sctpDestination
  /// The two bytes so many bytes behind the start of the frame.
  case flexible(offset: Int)

  /// As it is typed.
  public var name: String {
    switch self {
    case .ethernetDestination: "eth.dst"
    case .ethernetSource: "eth.src"
    case .etherType: "eth.type"
    case .vlanID: "vlan.id"
    case .vlanPriority: "vlan.pcp"
    case .ip4Source, .ip6Source: "ip.src"
    case .ip4Destination, .ip6Destination: "ip.dst"
    case .ipProtocol: "ip.proto"
    case .ipTOS: "ip.tos"
    case .ipFragment: "ip.frag"
    case .tcpSource: "tcp.src"
    case .tcpDestination: "tcp.dst"
    case .tcpFlags: "tcp.flags"
    case .udpSource: "udp.src"
    case .udpDestination: "udp.dst"
    case .sctpSource: "sctp.src"
    case .sctpDestination: "sctp.dst"
    case .flexible(let offset): "flex@\(offset)"
    }
  }

  /// Bits of its value.
  public var width: Int {
    switch self {
    case .ethernetDestination, .ethernetSource: 48
    case .ip4Source, .ip4Destination: 32
    case .ip6Source, .ip6Destination: 128
    case .vlanID, .tcpFlags: 12
    case .vlanPriority: 3
    case .ipProtocol, .ipTOS: 8
    case .ipFragment: 2
    default: 16
    }
  }
  /// Every bit of its value.
  public var fullMask: UInt128 { width == 128 ? .max : 1 << UInt128(width) - 1 }

  public var isPort: Bool {
    switch self {
    case .tcpSource, .tcpDestination, .udpSource, .udpDestination, .sctpSource, .sctpDestination: true
    default: false
    }
  }
  /// Of the Ethernet header and its tag.
  public var isLayer2: Bool { order < 5 }
  /// Whose header it is in.
  public var transport: Transport? {
    switch self {
    case .tcpSource, .tcpDestination, .tcpFlags: .tcp
    case .udpSource, .udpDestination: .udp
    case .sctpSource, .sctpDestination: .sctp
    default: nil
    }
  }
  public var ipVersion: IPVersion? {
    switch self {
    case .ip4Source, .ip4Destination: .v4
    case .ip6Source, .ip6Destination: .v6
    default: nil
    }
  }

  /// Flexible bytes lie in an Ethernet frame of any length that cards compare.
  static let flexibleOffsets = 0...254

  /// Its place among the fields of a rule as it is printed.
  var order: Int {
    switch self {
    case .ethernetDestination: 0
    case .ethernetSource: 1
    case .etherType: 2
    case .vlanID: 3
    case .vlanPriority: 4
    case .ip4Source: 5
    case .ip6Source: 6
    case .ip4Destination: 7
    case .ip6Destination: 8
    case .ipProtocol: 9
    case .ipTOS: 10
    case .ipFragment: 11
    case .tcpSource: 12
    case .tcpDestination: 13
    case .tcpFlags: 14
    case .udpSource: 15
    case .udpDestination: 16
    case .sctpSource: 17
    case .sctpDestination: 18
    case .flexible(let offset): 19 + offset
    }
  }

  /// All names but the flexible bytes', as they are printed in lists.
  public static let names = [
    "eth.dst", "eth.src", "eth.type", "vlan.id", "vlan.pcp", "ip.src", "ip.dst", "ip.proto", "ip.tos", "ip.frag",
    "tcp.src", "tcp.dst", "tcp.flags", "udp.src", "udp.dst", "sctp.src", "sctp.dst",
  ]
}

extension Field: Comparable {
  public static func < (a: Self, b: Self) -> Bool { a.order < b.order }
}

public enum IPVersion: Hashable, Sendable, CaseIterable {
  case v4, v6
  public var etherType: UInt16 { self == .v4 ? 0x0800 : 0x86DD }
}

/// A protocol with ports.
public enum Transport: Hashable, Sendable, CaseIterable {
  case tcp, udp, sctp
  /// IANA protocol number.
  public var number: UInt8 {
    switch self {
    case .tcp: 6
    case .udp: 17
    case .sctp: 132
    }
  }
  public init?(number: UInt8) {
    switch number {
    case 6: self = .tcp
    case 17: self = .udp
    case 132: self = .sctp
    default: return nil
    }
  }
  public var source: Field {
    switch self {
    case .tcp: .tcpSource
    case .udp: .udpSource
    case .sctp: .sctpSource
    }
  }
  public var destination: Field {
    switch self {
    case .tcp: .tcpDestination
    case .udp: .udpDestination
    case .sctp: .sctpDestination
    }
  }
}

/// What a field must be.
public enum Pattern: Hashable, Sendable {
  /// The bits in the mask are as in the value; the value has no others. An empty mask: the field is there.
  case bits(UInt128, mask: UInt128)
  case range(ClosedRange<UInt16>)
  /// The field is not there: no VLAN tag.
  case absent

  public static func exactly(_ value: some FixedWidthInteger, in field: Field) -> Pattern {
    .bits(UInt128(value), mask: field.fullMask)
  }

  public func matches(_ value: UInt128?) -> Bool {
    switch self {
    case .bits(let wanted, let mask): value.map { $0 & mask == wanted } ?? false
    case .range(let range): value.map { range.contains(UInt16(truncatingIfNeeded: $0)) } ?? false
    case .absent: value == nil
    }
  }
}

/// IP fragments, as `ip.frag` tells them apart: bit 0 says that it is one, bit 1 that it is not the first.
public enum Fragment: UInt8, Hashable, Sendable {
  case none = 0
  case first = 1
  case later = 3
}
