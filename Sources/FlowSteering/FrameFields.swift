/// What rules can see of a frame, found byte by byte.
///
/// - Only a tag of type 0x8100 is a VLAN's, and only the outer one is looked at: behind it a second tag is an EtherType.
/// - IP is there if version and header length are right and the header is whole. Nothing is looked for inside tunnels.
/// - IPv6's hop-by-hop, routing and destination options are skipped; a fragment header makes it a fragment.
/// - A fragment has no protocol and no ports. TCP, UDP and SCTP are there if the frame, and the packet by its own
///   length, have their whole header (20, 8 and 12 bytes).
public struct FrameFields: Hashable, Sendable {
  public var destination: UInt64 = 0
  public var source: UInt64 = 0
  /// The type behind the tag.
  public var etherType: UInt16 = 0
  /// Tag control information; nil without a tag.
  public var tag: UInt16?
  public var ipVersion: IPVersion?
  public var sourceAddress: UInt128 = 0
  public var destinationAddress: UInt128 = 0
  public var tos: UInt8 = 0
  public var fragment = Fragment.none
  public var ipProtocol: UInt8?
  public var sourcePort: UInt16 = 0
  public var destinationPort: UInt16 = 0
  public var tcpFlags: UInt16 = 0

  /// Nil for fewer bytes than an Ethernet header has: no rule matches them, not even `any`.
  public init?(_ frame: Span<UInt8>) {
    guard frame.count >= 14 else { return nil }
    destination = Self.number(frame, 0, 6)
    source = Self.number(frame, 6, 6)
    etherType = Self.short(frame, 12)
    var offset = 14
    if etherType == 0x8100 && frame.count >= 18 {
      tag = Self.short(frame, 14)
      etherType = Self.short(frame, 16)
      offset = 18
    }
    switch etherType {
    case IPVersion.v4.etherType: readIPv4(frame, offset)
    case IPVersion.v6.etherType: readIPv6(frame, offset)
    default: break
    }
  }

  private mutating func readIPv4(_ frame: Span<UInt8>, _ start: Int) {
    guard frame.count >= start + 20, frame[start] >> 4 == 4 else { return }
    let headerBytes = Int(frame[start] & 15) * 4
    guard headerBytes >= 20, frame.count >= start + headerBytes else { return }
    ipVersion = .v4
    tos = frame[start + 1]
    sourceAddress = UInt128(Self.number(frame, start + 12, 4))
    destinationAddress = UInt128(Self.number(frame, start + 16, 4))
    let position = Self.short(frame, start + 6)
    if position & 0x3FFF != 0 {
      fragment = position & 0x1FFF == 0 ? .first : .later
      return
    }
    let total = Int(Self.short(frame, start + 2))
    readTransport(frame, start + headerBytes, frame[start + 9], stated: total - headerBytes)
  }

  private mutating func readIPv6(_ frame: Span<UInt8>, _ start: Int) {
    guard frame.count >= start + 40, frame[start] >> 4 == 6 else { return }
    ipVersion = .v6
    tos = UInt8(truncatingIfNeeded: Self.short(frame, start) >> 4)
    sourceAddress = UInt128(Self.number(frame, start + 8, 8)) << 64 | UInt128(Self.number(frame, start + 16, 8))
    destinationAddress = UInt128(Self.number(frame, start + 24, 8)) << 64 | UInt128(Self.number(frame, start + 32, 8))
    let payload = Int(Self.short(frame, start + 4))
    var next = frame[start + 6]
    var place = start + 40
    while true {
      switch next {
      case 0, 43, 60:
        guard frame.count >= place + 8 else { return }
        next = frame[place]
        place += 8 + 8 * Int(frame[place + 1])
        guard frame.count >= place else { return }
      case 44:
        guard frame.count >= place + 8 else { return }
        fragment = Self.short(frame, place + 2) & 0xFFF8 == 0 ? .first : .later
        return
      default:
        readTransport(frame, place, next, stated: payload - (place - start - 40))
        return
      }
    }
  }

  private mutating func readTransport(_ frame: Span<UInt8>, _ start: Int, _ number: UInt8, stated: Int) {
    guard let transport = Transport(number: number) else {
      ipProtocol = number
      return
    }
    let least =
      switch transport {
      case .tcp: 20
      case .udp: 8
      case .sctp: 12
      }
    guard frame.count >= start + least, stated >= least else { return }
    ipProtocol = number
    sourcePort = Self.short(frame, start)
    destinationPort = Self.short(frame, start + 2)
    if transport == .tcp { tcpFlags = Self.short(frame, start + 12) & 0xFFF }
  }

  private static func short(_ frame: Span<UInt8>, _ at: Int) -> UInt16 { UInt16(frame[at]) << 8 | UInt16(frame[at + 1]) }
  private static func number(_ frame: Span<UInt8>, _ at: Int, _ count: Int) -> UInt64 {
    var value: UInt64 = 0
    for index in at..<at + count { value = value << 8 | UInt64(frame[index]) }
    return value
  }

  /// The two bytes so many bytes behind the start of the frame.
  public static func flexible(_ frame: Span<UInt8>, at offset: Int) -> UInt16? {
    offset + 2 <= frame.count ? short(frame, offset) : nil
  }
}

extension FrameFields {
  public var transport: Transport? { ipProtocol.flatMap { Transport(number: $0) } }

  /// A field's value; nil where the frame has none.
  public func value(of field: Field, in frame: Span<UInt8>) -> UInt128? {
    if let version = field.ipVersion, version != ipVersion { return nil }
    if let wanted = field.transport, wanted != transport { return nil }
    switch field {
    case .ethernetDestination: return UInt128(destination)
    case .ethernetSource: return UInt128(source)
    case .etherType: return UInt128(etherType)
    case .vlanID: return tag.map { UInt128($0 & 0xFFF) }
    case .vlanPriority: return tag.map { UInt128($0 >> 13) }
    case .ip4Source, .ip6Source: return sourceAddress
    case .ip4Destination, .ip6Destination: return destinationAddress
    case .ipProtocol: return ipProtocol.map { UInt128($0) }
    case .ipTOS: return ipVersion == nil ? nil : UInt128(tos)
    case .ipFragment: return ipVersion == nil ? nil : UInt128(fragment.rawValue)
    case .tcpSource, .udpSource, .sctpSource: return UInt128(sourcePort)
    case .tcpDestination, .udpDestination, .sctpDestination: return UInt128(destinationPort)
    case .tcpFlags: return UInt128(tcpFlags)
    case .flexible(let offset): return Self.flexible(frame, at: offset).map { UInt128($0) }
    }
  }
}

extension FrameFields {
  /// What rules can see, as they would write it: one word a field.
  public var description: [String] {
    var fields: [Field] = [.ethernetDestination, .ethernetSource, .etherType, .vlanID, .vlanPriority]
    fields += [.ip4Source, .ip6Source, .ip4Destination, .ip6Destination, .ipProtocol, .ipTOS, .ipFragment]
    if let transport { fields += [transport.source, transport.destination] }
    if transport == .tcp { fields.append(.tcpFlags) }
    return fields.compactMap { field in
      value(of: field, in: Span()).map { "\(field.name)=\(Match.Pair(field, .bits($0, mask: field.fullMask)).text)" }
    }
  }
}
