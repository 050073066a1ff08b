/// What a frame must look like: every one of its pairs. Without any, every frame does.
public struct Match: Hashable, Sendable {
  public struct Pair: Hashable, Sendable {
    public var field: Field
    public var pattern: Pattern
    public init(_ field: Field, _ pattern: Pattern) {
      self.field = field
      self.pattern = pattern
    }
  }

  /// In the order of the fields, each field at most once.
  public private(set) var pairs: [Pair] = []

  /// How many flexible fields a rule may have.
  public static let mostFlexible = 3

  public init() {}
  /// Precondition: no field twice, and no contradiction.
  public init(_ pairs: [Pair]) {
    for pair in pairs {
      do throws(Conflict) { try insert(pair) } catch { preconditionFailure("\(pair.field.name) contradicts \(error.field.name)") }
    }
  }

  /// Takes pairs that are known to go together, in the order of the fields.
  package init(ordered pairs: [Pair]) { self.pairs = pairs }

  /// The field that a new pair cannot go with.
  public struct Conflict: Error, Hashable, Sendable {
    public let field: Field
    public let isTwice: Bool
  }

  /// Adds a pair, unless no frame could match it along with the others.
  public mutating func insert(_ pair: Pair) throws(Conflict) {
    if let other = pairs.first(where: { $0.field.name == pair.field.name }) {
      throw Conflict(field: other.field, isTwice: true)
    }
    let claims = Self.claims(of: pair)
    for other in pairs {
      let others = Self.claims(of: other)
      if let version = claims.version, let second = others.version, version != second { throw Conflict(field: other.field, isTwice: false) }
      if let transport = claims.transport, let second = others.transport, transport != second {
        throw Conflict(field: other.field, isTwice: false)
      }
      if !Self.areCompatible(pair, other) || !Self.areCompatible(other, pair) { throw Conflict(field: other.field, isTwice: false) }
    }
    let place = pairs.firstIndex { pair.field < $0.field } ?? pairs.endIndex
    pairs.insert(pair, at: place)
  }

  public subscript(_ field: Field) -> Pattern? { pairs.first { $0.field == field }?.pattern }

  /// The IP version that all matching frames have.
  public var ipVersion: IPVersion? { pairs.lazy.compactMap { Self.claims(of: $0).version }.first }
  /// The transport protocol that all matching frames have.
  public var transport: Transport? { pairs.lazy.compactMap { Self.claims(of: $0).transport }.first }
  /// Whether it says anything of what is behind the Ethernet header.
  public var looksAtIP: Bool { pairs.contains { !$0.field.isLayer2 && !$0.field.isFlexible } }

  // MARK: What follows from a pair

  private static func claims(of pair: Pair) -> (version: IPVersion?, transport: Transport?) {
    var version = pair.field.ipVersion
    var transport = pair.field.transport
    if case .bits(let value, let mask) = pair.pattern {
      switch pair.field {
      case .etherType where mask == 0xFFFF: version = IPVersion.allCases.first { UInt128($0.etherType) == value }
      case .ipProtocol where mask == 0xFF: transport = Transport(number: UInt8(value))
      default: break
      }
    }
    return (version, transport)
  }

  /// Whether some frame has both, as far as one alone says something of the other.
  private static func areCompatible(_ a: Pair, _ b: Pair) -> Bool {
    switch (a.field, a.pattern) {
    case (.etherType, .bits(let value, let mask)):
      // IP fields are there in IP packets only.
      guard !b.field.isLayer2, !b.field.isFlexible else { return true }
      let versions = b.field.ipVersion.map { [$0] } ?? IPVersion.allCases
      return versions.contains { UInt128($0.etherType) & mask == value }
    case (.ipProtocol, .bits(let value, let mask)):
      if let transport = b.field.transport { return UInt128(transport.number) & mask == value }
      return true
    case (.ipFragment, let pattern):
      // A fragment has neither protocol nor ports.
      let needsWhole = b.field == .ipProtocol || b.field.transport != nil
      return !needsWhole || pattern.matches(UInt128(Fragment.none.rawValue))
    case (.vlanID, .absent): return b.field != .vlanPriority
    default: return true
    }
  }
}

extension Field {
  package var isFlexible: Bool { if case .flexible = self { true } else { false } }
}
