public import FlowSteering

/// Which address rule decides on frames that a card's tables tell apart: by it a card's counts become the rules'.
public struct AddressDecisions: Sendable {
  public enum Destination: Hashable, Sendable {
    /// It has a receive address of its own.
    case entry(MACAddress)
    case broadcast, multicast, unicast
  }
  public enum Tag: Hashable, Sendable {
    /// Also where VLANs are not filtered.
    case none
    /// It has a VLAN filter.
    case entry(UInt16)
    case other
  }
  public struct Key: Hashable, Sendable {
    public var destination: Destination
    public var tag: Tag
    /// Of an EtherType filter; nil: of none.
    public var etherType: UInt16?
    public init(_ destination: Destination, _ tag: Tag, _ etherType: UInt16?) {
      (self.destination, self.tag, self.etherType) = (destination, tag, etherType)
    }
  }
  private var rules: [Key: Rule?] = [:]
  /// Rules with frames that the tables do not tell from another rule's, for which the same is done.
  public private(set) var mixed: Set<Rule> = []

  /// Precondition: the program's card has tables.
  public init(_ program: CardProgram) {
    guard let tables = program.tables else { preconditionFailure("no tables") }
    let steering = program.steering
    // What was made into tables can be told apart.
    guard let map = try? AddressMap(steering, of: program.profile) else { preconditionFailure("rules that no tables can be made of") }
    let (addresses, vlans) = (Set(tables.addresses.map(\.address)), Set(tables.vlans.map(\.identifier)))
    let types = Set(tables.etherTypes.map(\.type))
    for (d, destination) in map.destinations.enumerated() {
      let place: Destination =
        switch destination {
        case .exactly(let address) where addresses.contains(address): .entry(address)
        case .exactly(.broadcast): .broadcast
        case .exactly(let address): address.isGroup ? .multicast : .unicast
        case .otherUnicast: .unicast
        case .otherMulticast: .multicast
        }
      for (t, tag) in map.tags.enumerated() {
        let tagPlace: Tag =
          switch tag {
          case .none: .none
          case _ where !tables.filtersVLANs: .none
          case .exactly(let identifier) where vlans.contains(identifier): .entry(identifier)
          case .exactly, .other: .other
          }
        for (e, type) in map.etherTypes.enumerated() {
          var typePlace: UInt16?
          if case .exactly(let value) = type, types.contains(value) { typePlace = value }
          add(map.rule(d, t, e).map { steering.rules[$0] }, at: Key(place, tagPlace, typePlace))
        }
      }
    }
  }

  private mutating func add(_ rule: Rule?, at key: Key) {
    guard let known = rules.updateValue(rule, forKey: key), known != rule else { return }
    if let known { mixed.insert(known) }
    if let rule { mixed.insert(rule) }
  }

  /// The rule that decides on such frames; nil: they are nobody's.
  public func rule(_ key: Key) -> Rule? { rules[key] ?? nil }
}

extension CardProgram {
  /// Refuses rules that ask to be counted where their frames cannot be told from another rule's.
  public func checkCounts() throws(RuleError) {
    guard tables != nil, steering.rules.contains(where: { $0.counts && $0.step == .address }) else { return }
    let mixed = AddressDecisions(self).mixed
    guard let rule = steering.rules.first(where: { $0.counts && mixed.contains($0) }) else { return }
    throw RuleError(
      .actionUnsupported, "count: the \(profile.name) needs no entry for it, and so cannot tell its frames from others that go the same way",
      fit: "leave count out; sluice rules test counts on traces", rule: rule.label)
  }
}
