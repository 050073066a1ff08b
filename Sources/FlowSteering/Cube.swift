/// Frames as a card sees them: those whose key has these bits under this mask. What a rule matches is one of them, or
/// several if it has a range of ports.
///
/// A key is eight words, of frame and cube alike. What follows from a pair is in the cube too (TCP is IP and no
/// fragment), so two cubes have a frame in common only if they agree in every bit that both look at.
package struct Cube: Hashable, Sendable {
  package typealias Words = SIMD8<UInt64>
  package var value = Words.zero
  package var mask = Words.zero
  /// Which flexible bytes the upper 48 bits of the last word hold, 16 each.
  package var flexible: [Int] = []

  private mutating func set(_ word: Int, _ shift: UInt64, _ width: UInt64, _ bits: UInt64, _ mask: UInt64 = .max) {
    let field = width == 64 ? UInt64.max : 1 << width - 1
    value[word] = value[word] & ~(mask & field &<< shift) | (bits & mask & field) &<< shift
    self.mask[word] |= (mask & field) &<< shift
  }

  /// Bits of the first word above the address.
  private enum Flag {
    static let isIP: UInt64 = 48
    static let isIPv6: UInt64 = 49
    static let isTagged: UInt64 = 50
    static let fragment: UInt64 = 51
    static let hasProtocol: UInt64 = 53
  }

  /// - Precondition: ranges have been resolved.
  package init(_ pairs: [Match.Pair]) {
    var etherType: (UInt64, UInt64)?
    for pair in pairs {
      switch pair.pattern {
      case .bits(let value, let mask):
        // It comes last: what it implies depends on the rest.
        if pair.field == .etherType { etherType = (UInt64(value), UInt64(mask)) } else { add(pair.field, value, mask) }
      case .absent: set(0, Flag.isTagged, 1, 0)
      case .range: preconditionFailure("a range is no cube")
      }
    }
    if let (value, mask) = etherType { addEtherType(value, mask) }
  }

  private mutating func add(_ field: Field, _ value: UInt128, _ mask: UInt128) {
    let (low, lowMask) = (UInt64(truncatingIfNeeded: value), UInt64(truncatingIfNeeded: mask))
    if let version = field.ipVersion { addVersion(version) }
    if let transport = field.transport { addProtocol(UInt64(transport.number), 0xFF) }
    switch field {
    case .ethernetDestination: set(0, 0, 48, low, lowMask)
    case .ethernetSource: set(1, 0, 48, low, lowMask)
    case .etherType: break
    case .vlanID:
      set(0, Flag.isTagged, 1, 1)
      set(6, 32, 12, low, lowMask)
    case .vlanPriority:
      set(0, Flag.isTagged, 1, 1)
      set(6, 45, 3, low, lowMask)
    case .ip4Source, .ip6Source:
      set(2, 0, 64, UInt64(truncatingIfNeeded: value >> 64), UInt64(truncatingIfNeeded: mask >> 64))
      set(3, 0, 64, low, lowMask)
    case .ip4Destination, .ip6Destination:
      set(4, 0, 64, UInt64(truncatingIfNeeded: value >> 64), UInt64(truncatingIfNeeded: mask >> 64))
      set(5, 0, 64, low, lowMask)
    case .ipProtocol: addProtocol(low, lowMask)
    case .ipTOS:
      set(0, Flag.isIP, 1, 1)
      set(6, 56, 8, low, lowMask)
    case .ipFragment:
      set(0, Flag.isIP, 1, 1)
      set(0, Flag.fragment, 2, low, lowMask)
      if lowMask & low & 1 == 1 { set(0, Flag.hasProtocol, 1, 0) }
    case .tcpSource, .udpSource, .sctpSource: set(6, 0, 16, low, lowMask)
    case .tcpDestination, .udpDestination, .sctpDestination: set(6, 16, 16, low, lowMask)
    case .tcpFlags: set(7, 0, 16, low, lowMask)
    case .flexible(let offset):
      set(7, 16 + 16 * UInt64(flexible.count), 16, low, lowMask)
      flexible.append(offset)
    }
  }

  private mutating func addVersion(_ version: IPVersion) {
    set(0, Flag.isIP, 2, version == .v6 ? 3 : 1)
    set(1, 48, 16, UInt64(version.etherType))
  }
  private mutating func addProtocol(_ number: UInt64, _ mask: UInt64) {
    set(0, Flag.isIP, 1, 1)
    set(0, Flag.fragment, 3, 4)
    set(6, 48, 8, number, mask)
  }
  private mutating func addEtherType(_ type: UInt64, _ mask: UInt64) {
    set(1, 48, 16, type, mask)
    guard mask == 0xFFFF else { return }
    switch type {
    // Behind the type there may be something that is no IP after all.
    case UInt64(IPVersion.v4.etherType): set(0, Flag.isIPv6, 1, 0)
    case UInt64(IPVersion.v6.etherType):
      // Known as IP, it is IPv6.
      if self.mask[0] >> Flag.isIP & 1 == 1 { set(0, Flag.isIPv6, 1, 1) }
    default:
      set(0, Flag.isIP, 2, 0)
      set(0, Flag.hasProtocol, 1, 0)
    }
  }

  /// Whether some frame is in both, as far as their bits tell.
  package func overlaps(_ other: Cube) -> Bool {
    if flexible == other.flexible {
      let difference = (value ^ other.value) & mask & other.mask
      return difference == .zero
    }
    var difference = (value ^ other.value) & mask & other.mask
    difference[7] &= 0xFFFF
    guard difference == .zero else { return false }
    for (index, offset) in flexible.enumerated() {
      guard let place = other.flexible.firstIndex(of: offset) else { continue }
      func word(_ cube: Cube, _ place: Int) -> (UInt64, UInt64) {
        let shift = UInt64(16 + 16 * place)
        return (cube.value[7] >> shift & 0xFFFF, cube.mask[7] >> shift & 0xFFFF)
      }
      let (a, b) = (word(self, index), word(other, place))
      if (a.0 ^ b.0) & a.1 & b.1 != 0 { return false }
    }
    return true
  }

  /// Itself, or two cubes if it leaves the version of IP packets open.
  package var byVersion: [Cube] {
    guard mask[0] >> Flag.isIP & 3 == 1, value[0] >> Flag.isIP & 1 == 1 else { return [self] }
    return IPVersion.allCases.map { version in
      var cube = self
      cube.addVersion(version)
      return cube
    }
  }

  /// The key of a frame, but for its flexible bytes.
  static func key(of fields: FrameFields) -> Words {
    var key = Words.zero
    key[0] = fields.destination
    key[1] = fields.source | UInt64(fields.etherType) &<< 48
    if let tag = fields.tag {
      key[0] |= 1 &<< Flag.isTagged
      key[6] |= UInt64(tag) &<< 32
    }
    guard let version = fields.ipVersion else { return key }
    key[0] |= (version == .v6 ? 3 : 1) &<< Flag.isIP | UInt64(fields.fragment.rawValue) &<< Flag.fragment
    key[2] = UInt64(truncatingIfNeeded: fields.sourceAddress &>> 64)
    key[3] = UInt64(truncatingIfNeeded: fields.sourceAddress)
    key[4] = UInt64(truncatingIfNeeded: fields.destinationAddress &>> 64)
    key[5] = UInt64(truncatingIfNeeded: fields.destinationAddress)
    key[6] |= UInt64(fields.tos) &<< 56
    guard let number = fields.ipProtocol else { return key }
    key[0] |= 1 &<< Flag.hasProtocol
    key[6] |= UInt64(number) &<< 48 | UInt64(fields.destinationPort) &<< 16 | UInt64(fields.sourcePort)
    key[7] = UInt64(fields.tcpFlags)
    return key
  }
}

extension Match {
  /// The cubes whose frames it matches, none of them in two. Empty if it matches none.
  package var cubes: [Cube] {
    withoutRanges.map { Cube($0) }
  }

  /// Its pairs with each range as a prefix of it, in all combinations.
  package var withoutRanges: [[Pair]] {
    guard pairs.contains(where: { if case .range = $0.pattern { true } else { false } }) else { return [pairs] }
    var lists: [[Pair]] = [[]]
    for pair in pairs {
      if case .range(let range) = pair.pattern {
        let parts = Self.prefixes(of: range).map { Pair(pair.field, $0) }
        lists = lists.flatMap { list in parts.map { list + [$0] } }
      } else {
        for index in lists.indices { lists[index].append(pair) }
      }
    }
    return lists
  }

  /// A range of ports as values under masks, as few as can be.
  public static func prefixes(of range: ClosedRange<UInt16>) -> [Pattern] {
    var result: [Pattern] = []
    var low = Int(range.lowerBound)
    let high = Int(range.upperBound)
    while low <= high {
      var size = low == 0 ? 65_536 : low & -low
      while low + size - 1 > high { size /= 2 }
      result.append(.bits(UInt128(low), mask: UInt128(0xFFFF & ~(size - 1))))
      low += size
    }
    return result
  }
}
