public import FlowSteering
public import FlowTables
public import Intel
public import Simulation

/// Frames by rule, from what the filters of a card have counted: also while rules come and go.
///
/// An entry's frames are its rule's. Where an entry has become another rule's, frames that came while the card was
/// changed count for the new one; none is lost or counted twice.
public struct RuleCounter: Sendable {
  private var totals: [Rule: FilterCount] = [:]
  /// What was counted of each place already.
  private var seen: [FilterPlace: FilterCount] = [:]

  public init() {}

  /// The card's own counts begin at 0 again: it is another one, or was reset.
  public mutating func beginAnew() { seen = [:] }

  /// Whose the places of a card are.
  public struct Owners: Sendable {
    let slots: FilterSlots
    let decisions: AddressDecisions
    let syn: Rule?
    let rules: [Int: Rule]

    public init(_ program: CardProgram, slots: FilterSlots) {
      self.slots = slots
      decisions = AddressDecisions(program)
      rules = Dictionary(program.steering.rules.lazy.filter { $0.origin == .user }.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
      syn = (program.tables?.syn?.rule).flatMap { [rules] in rules[$0] }
    }

    /// Nil: no entry is there, or what it finds is nobody's.
    func rule(of place: FilterPlace) -> Rule? {
      switch place {
      case .address(let place): key(of: place).flatMap(decisions.rule)
      case .syn: syn
      case .fiveTuple(let number): slots.fiveTuples[number].flatMap { rules[$0] }
      case .exactFlow(let number): slots.exactFlows[number].flatMap { rules[$0] }
      }
    }

    /// Nil: such an entry is not there.
    private func key(of place: AddressPlace) -> AddressDecisions.Key? {
      var (destination, tag) = (AddressDecisions.Destination.unicast, AddressDecisions.Tag.none)
      var type: UInt16?
      switch place.destination {
      case .entry(let number):
        guard let address = slots.addresses[number] else { return nil }
        destination = .entry(address)
      case .broadcast: destination = .broadcast
      case .multicast: destination = .multicast
      case .unicast: break
      }
      switch place.tag {
      case .none: break
      case .entry(let number):
        guard let identifier = slots.vlans[number] else { return nil }
        tag = .entry(identifier)
      case .other: tag = .other
      }
      if let number = place.etherType {
        guard let found = slots.etherTypes[number] else { return nil }
        type = found
      }
      return AddressDecisions.Key(destination, tag, type)
    }
  }

  /// Takes up what was counted since the last time.
  public mutating func collect(_ counts: [FilterPlace: FilterCount], by owners: Owners) {
    collect(counts) { owners.rule(of: $0) }
  }

  /// After a change, takes up what entries have counted that are there no more.
  public mutating func collect(_ counts: [FilterPlace: FilterCount], left old: Owners, for new: Owners) {
    collect(counts) { new.rule(of: $0) == nil ? old.rule(of: $0) : nil }
    // A rule that is gone, and comes back, begins anew.
    let stays = Set(new.rules.values)
    totals = totals.filter { $0.key.origin == .vm || stays.contains($0.key) }
  }

  private mutating func collect(_ counts: [FilterPlace: FilterCount], _ rule: (FilterPlace) -> Rule?) {
    for (place, count) in counts {
      let before = seen[place] ?? FilterCount()
      guard count != before, let rule = rule(place) else { continue }
      totals[rule, default: FilterCount()].frames += count.frames - before.frames
      totals[rule, default: FilterCount()].bytes += count.bytes - before.bytes
      seen[place] = count
    }
  }

  /// Nil: its frames cannot be told from another rule's.
  public func count(of rule: Rule, by owners: Owners) -> FilterCount? {
    owners.decisions.mixed.contains(rule) ? nil : totals[rule] ?? FilterCount()
  }
}
