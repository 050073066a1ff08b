public import FlowSteering

/// The rules of a port, made into the tables of a card, and shown to do exactly what the rules say.
public struct CardProgram: Sendable {
  public private(set) var steering: Steering
  public let profile: CardProfile
  /// Nil for the ideal card, which has none.
  public private(set) var tables: CardTables?
  /// What VMs may send, and what sees to it. Nil for the ideal card.
  public private(set) var sending: SendingPlan?
  /// All that flow rules see, for one more to be held against.
  private var flows = OverlapFinder()
  private var numbers: Set<Int> = []

  /// - Throws: the first rule that the card cannot do exactly, with why, and what it could do.
  public init(_ steering: Steering, for profile: CardProfile) throws(RuleError) {
    self.steering = steering
    self.profile = profile
    for rule in steering.rules where rule.origin == .user {
      numbers.insert(rule.id)
      if rule.step == .flow { for cube in rule.match.cubes { flows.add(cube, of: rule.id) } }
    }
    if profile.isIdeal {
      (tables, sending) = (nil, nil)
      return
    }
    let queues = steering.receivers.map(\.queueCount).max() ?? 1
    guard let plan = PoolPlan(profile, vmCount: steering.receivers.count, queuesEach: queues) else {
      let most = profile.pools.filter { $0.queuesEach >= queues }.map { $0.count - 3 }.max() ?? 0
      throw RuleError(
        .tableFull, "\(steering.receivers.count) VMs, with up to \(queues) queues: the \(profile.name) keeps \(most) with so many apart",
        fit: "use fewer VMs or queues")
    }
    let keepsUnclaimed = steering.rules.contains { $0.step == .flow && $0.owner == nil }
    let map = try AddressMap(steering, of: profile)
    var tables = try AddressCompiler(steering: steering, profile: profile, plan: plan, map: map, keepsUnclaimed: keepsUnclaimed).compile()
    let usesHost = map.rules.contains { steering.rules[$0].decision == .host }
    var pools = Array(0..<steering.receivers.count)
    if usesHost { pools.append(plan.host) }
    if keepsUnclaimed { pools.append(plan.nowhere) }
    try FlowCompiler(steering: steering, profile: profile, plan: plan, pools: pools).compile(into: &tables)
    try AddressProof(steering: steering, profile: profile, tables: tables, map: map, keepsUnclaimed: keepsUnclaimed).check()
    try FlowProof(steering: steering, tables: tables, pools: pools).check()
    let sending = try SendingPlan(steering, tables, profile)
    tables.sending = sending.card
    self.sending = sending
    tables.number(by: steering)
    self.tables = tables
    makeRoom()
  }

  /// For rules that are added one at a time, so that none of them pays for moving all that are there.
  private mutating func makeRoom() {
    steering.reserve(CardTables.headroom)
    tables?.reserve(CardTables.headroom)
    flows.reserve(CardTables.headroom)
    numbers.reserveCapacity(numbers.count + CardTables.headroom)
  }

  /// A filter that one more rule needs, and no other change.
  public enum Addition: Hashable, Sendable {
    case fiveTuple(CardTables.FiveTuple)
    case exactFlow(CardTables.ExactFlow)
  }

  /// Adds a rule that needs one filter more and touches nothing else: a flow rule for frames that no other flow rule
  /// sees. In time that does not depend on how the others were made into tables.
  ///
  /// - Returns: the rule with its number, and the filter; nil for a rule that is not of this kind, with nothing changed.
  public mutating func add(_ rule: Rule) throws(RuleError) -> (rule: Rule, filter: Addition)? {
    guard let tables, rule.step == .flow, !FlowPart.isSYN(rule.match), rule.match.ipVersion != nil else { return nil }
    // Frames that are nobody's must be waiting for flow rules already.
    guard rule.owner != nil || tables.defaultPool == tables.plan.nowhere else { return nil }
    let end: CardTables.Queue?
    switch rule.decision {
    case .deliver(let targets):
      guard targets.count == 1, steering.hasReceiver(targets[0].vm) else { return nil }
      end = CardTables.Queue(pool: steering.number(of: targets[0].vm), number: targets[0].queue ?? 0)
    case .drop: end = nil
    case .queue, .host: return nil
    }
    if let owner = rule.owner, !steering.hasReceiver(owner) { return nil }
    let cubes = rule.match.cubes
    guard cubes.count == 1, !flows.overlaps(cubes[0]) else { return nil }
    let part = FlowPart(rule: rule.id, match: rule.match, pool: rule.owner.map { steering.number(of: $0) }, queue: end)
    guard var filter = Self.filter(part, tables, profile) else { return nil }
    let added = try steering.insert(rule) { !numbers.contains($0) }
    filter.setRule(added.id)
    switch filter {
    case .fiveTuple(let entry): self.tables?.fiveTuples.append(entry)
    case .exactFlow(let entry): self.tables?.exactFlows.append(entry)
    }
    flows.add(cubes[0], of: added.id)
    numbers.insert(added.id)
    return (added, filter)
  }

  /// The filter that fits beside those that there are. What it matches is held against the rule, as the proof does.
  private static func filter(_ part: FlowPart, _ tables: CardTables, _ profile: CardProfile) -> Addition? {
    if tables.fiveTuples.count < profile.fiveTupleFilters, tables.flowMask == nil || tables.fiveTuples.count > 0, var entry = try? part.fiveTuple(drop: tables.plan.dropQueue),
      entry.match.cubes == part.match.cubes {
      entry.priority = profile.fiveTuplePriorities
      return .fiveTuple(entry)
    }
    guard let mask = tables.flowMask, let (entry, wanted) = try? part.exactFlow(), mask.covers(entry, wanted), entry.match(under: mask).cubes == part.match.cubes,
      tables.exactFlows.count < profile.exactFlows.last?.filters ?? 0
    else { return nil }
    return .exactFlow(entry)
  }
}

extension CardProgram.Addition {
  mutating func setRule(_ number: Int) {
    switch self {
    case .fiveTuple(var entry):
      entry.rule = number
      self = .fiveTuple(entry)
    case .exactFlow(var entry):
      entry.rule = number
      self = .exactFlow(entry)
    }
  }
}

extension CardTables.FlowMask {
  /// Whether it compares of such a filter what that one wants.
  func covers(_ flow: CardTables.ExactFlow, _ wanted: Self) -> Bool {
    guard comparesVLAN == wanted.comparesVLAN, comparesPriority == wanted.comparesPriority, comparesPool == wanted.comparesPool,
      comparesTransport == wanted.comparesTransport, flexibleOffset == wanted.flexibleOffset
    else { return false }
    let isSameAddress = flow.version == .v6 ? source6 == wanted.source6 : source4 == wanted.source4 && destination4 == wanted.destination4
    return isSameAddress && (flow.transport != .tcp || tcp == wanted.tcp) && (flow.transport != .udp || udp == wanted.udp)
  }
}
