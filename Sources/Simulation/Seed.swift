/// Everything that a simulation draws comes from one of these: the same number, the same run.
///
/// The generator is xoshiro256** (Blackman and Vigna), its state filled by SplitMix64. Not for secrets.
public struct Seed: RandomNumberGenerator, Hashable, Sendable, CustomStringConvertible {
  /// What it was made from.
  public let value: UInt64
  private var state: (UInt64, UInt64, UInt64, UInt64) {
    get { (s0, s1, s2, s3) }
    set { (s0, s1, s2, s3) = newValue }
  }
  private var s0, s1, s2, s3: UInt64

  public init(_ value: UInt64) {
    self.value = value
    var mixer = value
    s0 = Self.mix(&mixer)
    s1 = Self.mix(&mixer)
    s2 = Self.mix(&mixer)
    s3 = Self.mix(&mixer)
  }

  /// Reads what `description` writes, or a decimal number.
  public init?(_ text: String) {
    let value = text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
    guard let value else { return nil }
    self.init(value)
  }

  public var description: String { "0x" + String(value, radix: 16) }

  public mutating func next() -> UInt64 {
    var (a, b, c, d) = state
    let result = Self.rotate(b &* 5, 7) &* 9
    let t = b << 17
    c ^= a
    d ^= b
    b ^= c
    a ^= d
    c ^= t
    d = Self.rotate(d, 45)
    state = (a, b, c, d)
    return result
  }

  /// A generator of its own for one actor. It depends on this seed's value and the name, not on what was drawn
  /// already: an actor that draws more does not disturb another.
  public func stream(_ name: String) -> Seed {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325  // FNV-1a
    for byte in name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
    var mixer = value ^ Self.rotate(hash, 32)
    return Seed(Self.mix(&mixer) ^ hash)
  }

  private static func mix(_ state: inout UInt64) -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }
  private static func rotate(_ value: UInt64, _ by: UInt64) -> UInt64 { value << by | value >> (64 - by) }
}
