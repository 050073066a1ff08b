/// An Ethernet address.
@frozen public struct MACAddress: Hashable, Sendable, CustomStringConvertible {
  /// The six bytes as one number, the first byte in the highest place: 02:00:00:00:00:01 is 0x0200_0000_0001.
  public let bits: UInt64

  /// - Parameter bits: the upper 16 are left out.
  @inlinable public init(bits: UInt64) { self.bits = bits & 0xFFFF_FFFF_FFFF }

  /// Reads six bytes of two hexadecimal digits with `:` or `-` between them.
  public init(parsing text: String) throws(MACAddressError) {
    let separator: Character = text.contains("-") ? "-" : ":"
    let parts = text.split(separator: separator, omittingEmptySubsequences: false)
    guard parts.count == 6 else { throw .wrongLength(text, bytes: parts.count) }
    var bits: UInt64 = 0
    for part in parts {
      guard part.utf8.count == 2, part.allSatisfy(\.isHexDigit), let byte = UInt8(part, radix: 16) else {
        throw .notAByte(text, part: String(part))
      }
      bits = bits << 8 | UInt64(byte)
    }
    self.bits = bits
  }

  /// The n-th of the addresses that stand for nobody's hardware: 02:00:00:00:00:01 for 1.
  public static func local(_ n: Int) -> MACAddress { MACAddress(bits: 0x0200_0000_0000 + UInt64(n)) }

  /// The byte at a place, 0 to 5 as on the wire.
  @inlinable public subscript(_ place: Int) -> UInt8 { UInt8(truncatingIfNeeded: bits >> UInt64(8 * (5 - place))) }

  /// Multicast or broadcast: not one receiver's own.
  @inlinable public var isGroup: Bool { self[0] & 1 == 1 }

  public var description: String {
    (0..<6).map { place in
      let digits = String(self[place], radix: 16)
      return digits.count == 1 ? "0" + digits : digits
    }.joined(separator: ":")
  }
}

/// Why a text is no Ethernet address.
public enum MACAddressError: Error, Hashable, Sendable, CustomStringConvertible {
  case wrongLength(String, bytes: Int)
  case notAByte(String, part: String)

  public var description: String {
    switch self {
    case .wrongLength(let text, let bytes): "'\(text)' is no Ethernet address: it has \(bytes) parts, not six, as in 02:00:00:00:00:01"
    case .notAByte(let text, let part): "'\(text)' is no Ethernet address: '\(part)' is not a byte of two hexadecimal digits"
    }
  }
}
