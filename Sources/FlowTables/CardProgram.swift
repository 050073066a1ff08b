public import FlowSteering

/// The rules of a port, made into the tables of a card, and shown to do exactly what the rules say.
public struct CardProgram: Sendable {
  public let steering: Steering
  public let profile: CardProfile
  /// Nil for the ideal card, which has none.
  public let tables: CardTables?

  /// - Throws: the first rule that the card cannot do exactly, with why, and what it could do.
  public init(_ steering: Steering, for profile: CardProfile) throws(RuleError) {
    self.steering = steering
    self.profile = profile
    if profile.isIdeal {
      tables = nil
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
    tables.number(by: steering)
    self.tables = tables
  }
}
