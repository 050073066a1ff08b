/// An Ethernet address: six octets, the first one on the wire in the highest of 48 bits.
public struct MACAddress: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// 0x0200_0000_0001 is 02:00:00:00:00:01.
  public let rawValue: UInt64

  /// Precondition: the value has 48 bits.
  public init(_ rawValue: UInt64) {
    precondition(rawValue >> 48 == 0, "an Ethernet address has 48 bits")
    self.rawValue = rawValue
  }

  /// Reads six pairs of hexadecimal digits between colons.
  public init(parsing text: some StringProtocol) throws(ParseError) {
    let octets = text.split(separator: ":", omittingEmptySubsequences: false)
    guard octets.count == 6 else { throw .octetCount(octets.count) }
    var value: UInt64 = 0
    for (index, octet) in octets.enumerated() {
      guard octet.utf8.count == 2, octet.first != "+", let number = UInt8(octet, radix: 16) else {
        throw .notAnOctet(String(octet), at: index)
      }
      value = value << 8 | UInt64(number)
    }
    rawValue = value
  }

  public enum ParseError: Error, Hashable, Sendable, CustomStringConvertible {
    case octetCount(Int)
    case notAnOctet(String, at: Int)
    public var description: String {
      switch self {
      case .octetCount(let count): "an Ethernet address has 6 octets between colons, not \(count)"
      case .notAnOctet(let text, let index): "octet \(index + 1) of an Ethernet address is \"\(text)\", not two hexadecimal digits"
      }
    }
  }

  /// The n-th of the addresses that stand for nobody's hardware: 02:00:00:00:00:01 for 1.
  public static func local(_ n: Int) -> MACAddress { MACAddress(0x0200_0000_0000 + UInt64(n)) }

  public static let broadcast = MACAddress(0xFFFF_FFFF_FFFF)

  /// The n-th octet on the wire, from 0.
  public func octet(_ n: Int) -> UInt8 { UInt8(truncatingIfNeeded: rawValue >> UInt64(40 - 8 * n)) }
  /// Whether it names a group; broadcast is one.
  public var isGroup: Bool { octet(0) & 1 == 1 }

  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
  public var description: String {
    (0..<6).map { n in
      let digits = String(octet(n), radix: 16)
      return digits.utf8.count == 1 ? "0" + digits : digits
    }.joined(separator: ":")
  }
}
