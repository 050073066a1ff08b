/// Values as they are typed and printed: `80`, `10.0.0.0/8`, `52:54:00:00:00:01`, `syn/syn`, `1000-2000`, `none`.
enum PatternText {
  /// Why a value cannot be read; `offset` is in UTF-8 from its start.
  struct Failure: Error {
    let reason: String
    var offset = 0
  }

  // MARK: Reading

  /// - Parameter name: the field's, as it is typed.
  static func parse(_ text: Substring, of name: Substring) throws(Failure) -> Match.Pair {
    switch name {
    case "eth.dst": try address(text, .ethernetDestination)
    case "eth.src": try address(text, .ethernetSource)
    case "ip.src": try ip(text, .ip4Source, .ip6Source)
    case "ip.dst": try ip(text, .ip4Destination, .ip6Destination)
    case "ip.frag": Match.Pair(.ipFragment, try fragment(text))
    case "tcp.flags": try named(text, .tcpFlags, flags)
    case "eth.type": try named(text, .etherType) { etherTypes[String($0)] }
    case "ip.proto": try named(text, .ipProtocol) { protocols[String($0)] }
    case "vlan.id" where text == "none": Match.Pair(.vlanID, .absent)
    default: try number(text, try field(name))
    }
  }

  private static func field(_ name: Substring) throws(Failure) -> Field {
    switch name {
    case "vlan.id": return .vlanID
    case "vlan.pcp": return .vlanPriority
    case "ip.tos": return .ipTOS
    case "tcp.src": return .tcpSource
    case "tcp.dst": return .tcpDestination
    case "udp.src": return .udpSource
    case "udp.dst": return .udpDestination
    case "sctp.src": return .sctpSource
    case "sctp.dst": return .sctpDestination
    default: break
    }
    guard name.hasPrefix("flex@") else { throw Failure(reason: "no such field") }
    guard let offset = IPAddressText.decimal(name.dropFirst(5)), Field.flexibleOffsets.contains(offset) else {
      throw Failure(reason: "flex@ takes an offset in bytes, 0 to \(Field.flexibleOffsets.upperBound)", offset: -name.utf8.count - 1)
    }
    return .flexible(offset: offset)
  }

  /// Splits at the first "/".
  private static func halves(_ text: Substring) -> (value: Substring, mask: Substring?, maskOffset: Int) {
    guard let slash = text.firstIndex(of: "/") else { return (text, nil, 0) }
    let value = text[..<slash]
    return (value, text[text.index(after: slash)...], value.utf8.count + 1)
  }

  private static func bits(_ value: UInt128, _ mask: UInt128, of field: Field) throws(Failure) -> Match.Pair {
    if value & ~mask != 0 {
      throw Failure(reason: "the value has bits outside its mask; write \(text(of: Match.Pair(field, .bits(value & mask, mask: mask))))")
    }
    return Match.Pair(field, .bits(value, mask: mask))
  }

  private static func prefix(_ text: Substring, width: Int, at offset: Int) throws(Failure) -> UInt128? {
    guard let length = IPAddressText.decimal(text) else { return nil }
    guard length <= width else { throw Failure(reason: "a prefix of this field has 0 to \(width) bits", offset: offset) }
    return Prefix.mask(length, width: width)
  }

  private static func address(_ text: Substring, _ field: Field) throws(Failure) -> Match.Pair {
    switch text {
    case "broadcast": return Match.Pair(field, .exactly(MACAddress.broadcast.rawValue, in: field))
    case "multicast": return Match.Pair(field, .bits(1 << 40, mask: 1 << 40))
    default: break
    }
    let (value, mask, offset) = halves(text)
    let number = try octets(value, at: 0)
    guard let mask else { return Match.Pair(field, .bits(number, mask: field.fullMask)) }
    if let prefix = try prefix(mask, width: 48, at: offset) { return try bits(number, prefix, of: field) }
    return try bits(number, try octets(mask, at: offset), of: field)
  }
  private static func octets(_ text: Substring, at offset: Int) throws(Failure) -> UInt128 {
    do throws(MACAddress.ParseError) { return UInt128(try MACAddress(parsing: text).rawValue) } catch {
      throw Failure(reason: "\(error)", offset: offset)
    }
  }

  private static func ip(_ text: Substring, _ field4: Field, _ field6: Field) throws(Failure) -> Match.Pair {
    let (value, mask, offset) = halves(text)
    let is6 = value.contains(":")
    let field = is6 ? field6 : field4
    func parse(_ text: Substring) -> UInt128? {
      is6 ? IPAddressText.parse6(text) : IPAddressText.parse4(text).map { UInt128($0) }
    }
    guard let number = parse(value) else {
      throw Failure(reason: "\"\(value)\" is no \(is6 ? "IPv6" : "IPv4") address")
    }
    guard let mask else { return Match.Pair(field, .bits(number, mask: field.fullMask)) }
    if let prefix = try prefix(mask, width: field.width, at: offset) { return try bits(number, prefix, of: field) }
    guard let whole = parse(mask) else {
      throw Failure(reason: "behind \"/\" stands a number of bits or a mask", offset: offset)
    }
    return try bits(number, whole, of: field)
  }

  private static func fragment(_ text: Substring) throws(Failure) -> Pattern {
    switch text {
    case "no": return .bits(0, mask: 3)
    case "yes": return .bits(1, mask: 1)
    case "first": return .bits(1, mask: 3)
    case "later": return .bits(3, mask: 3)
    default: throw Failure(reason: "ip.frag is no, yes, first or later")
    }
  }

  private static func number(_ text: Substring, _ field: Field) throws(Failure) -> Match.Pair {
    try named(text, field) { _ in nil }
  }

  private static func named(_ text: Substring, _ field: Field, _ name: (Substring) -> UInt128?) throws(Failure) -> Match.Pair {
    if field.isPort, let dash = text.firstIndex(of: "-") {
      let low = try integer(text[..<dash], field, name, at: 0)
      let high = try integer(text[text.index(after: dash)...], field, name, at: text[...dash].utf8.count)
      guard low <= high else { throw Failure(reason: "the range \(text) is empty") }
      return low == high ? Match.Pair(field, .bits(low, mask: field.fullMask)) : Match.Pair(field, .range(UInt16(low)...UInt16(high)))
    }
    let (value, mask, offset) = halves(text)
    let number = try integer(value, field, name, at: 0)
    guard let mask else { return Match.Pair(field, .bits(number, mask: field.fullMask)) }
    return try bits(number, try integer(mask, field, name, at: offset), of: field)
  }

  private static func integer(_ text: Substring, _ field: Field, _ name: (Substring) -> UInt128?, at offset: Int) throws(Failure) -> UInt128 {
    if let value = name(text) { return value }
    let isHexadecimal = text.hasPrefix("0x") || text.hasPrefix("0X")
    let digits = isHexadecimal ? text.dropFirst(2) : text
    let value: UInt128? =
      if isHexadecimal {
        (1...32).contains(digits.utf8.count) && digits.utf8.allSatisfy(IPAddressText.isHexadecimal) ? UInt128(digits, radix: 16) : nil
      } else {
        IPAddressText.decimal(digits).map { UInt128($0) }
      }
    guard let value else { throw Failure(reason: text.isEmpty ? "a value is missing" : "\"\(text)\" is no value of \(field.name)", offset: offset) }
    guard value <= field.fullMask else {
      throw Failure(reason: "\(text) is too large: \(field.name) has \(field.width) bits, 0 to \(field.fullMask)", offset: offset)
    }
    return value
  }

  // MARK: Names

  static let etherTypes: [String: UInt128] = [
    "ip": 0x0800, "ip4": 0x0800, "arp": 0x0806, "rarp": 0x8035, "vlan": 0x8100, "ip6": 0x86DD, "lacp": 0x8809,
    "mpls": 0x8847, "pppoe": 0x8864, "eapol": 0x888E, "qinq": 0x88A8, "lldp": 0x88CC, "ptp": 0x88F7, "fcoe": 0x8906,
    "fip": 0x8914,
  ]
  static let protocols: [String: UInt128] = [
    "icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmp6": 58, "ospf": 89, "sctp": 132,
  ]
  static let flagNames = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ae"]

  private static func flags(_ text: Substring) -> UInt128? {
    var value: UInt128 = 0
    for name in text.split(separator: "+", omittingEmptySubsequences: false) {
      guard let bit = flagNames.firstIndex(of: String(name)) else { return nil }
      value |= 1 << UInt128(bit)
    }
    return value
  }

  // MARK: Printing

  static func text(of pair: Match.Pair) -> String {
    switch pair.pattern {
    case .absent: "none"
    case .range(let range): "\(range.lowerBound)-\(range.upperBound)"
    case .bits(let value, let mask): text(of: value, mask, in: pair.field)
    }
  }

  private static func text(of value: UInt128, _ mask: UInt128, in field: Field) -> String {
    switch field {
    case .ethernetDestination, .ethernetSource:
      if mask == field.fullMask { return value == field.fullMask ? "broadcast" : word(value, field) }
      if value == 1 << 40 && mask == 1 << 40 { return "multicast" }
      return word(value, field) + "/" + (Prefix.length(mask, width: 48).map(String.init) ?? word(mask, field))
    case .ip4Source, .ip4Destination, .ip6Source, .ip6Destination:
      if mask == field.fullMask { return word(value, field) }
      return word(value, field) + "/" + (Prefix.length(mask, width: field.width).map(String.init) ?? word(mask, field))
    case .ipFragment:
      switch (value, mask) {
      case (0, 3): return "no"
      case (1, 3): return "first"
      case (3, 3): return "later"
      default: return "yes"
      }
    default:
      return mask == field.fullMask ? word(value, field) : word(value, field) + "/" + maskWord(mask, field)
    }
  }

  private static func word(_ value: UInt128, _ field: Field) -> String {
    switch field {
    case .ethernetDestination, .ethernetSource: return MACAddress(UInt64(value)).description
    case .ip4Source, .ip4Destination: return IPAddressText.text4(UInt32(value))
    case .ip6Source, .ip6Destination: return IPAddressText.text6(value)
    case .etherType: return etherTypeNames[value] ?? hexadecimal(value)
    case .ipProtocol: return protocolNames[value] ?? String(value)
    case .flexible: return hexadecimal(value)
    case .tcpFlags: return flagsText(value)
    default: return String(value)
    }
  }
  private static func maskWord(_ mask: UInt128, _ field: Field) -> String { field == .tcpFlags ? flagsText(mask) : hexadecimal(mask) }
  private static func flagsText(_ value: UInt128) -> String {
    guard value != 0, value >> UInt128(flagNames.count) == 0 else { return value == 0 ? "0" : hexadecimal(value) }
    return flagNames.enumerated().filter { value >> UInt128($0.offset) & 1 == 1 }.map(\.element).joined(separator: "+")
  }
  static func hexadecimal(_ value: UInt128) -> String { "0x" + String(value, radix: 16) }

  private static let etherTypeNames: [UInt128: String] = Dictionary(
    etherTypes.map { ($0.value, $0.key) }, uniquingKeysWith: { min($0, $1) })
  private static let protocolNames: [UInt128: String] = Dictionary(uniqueKeysWithValues: protocols.map { ($0.value, $0.key) })
}
