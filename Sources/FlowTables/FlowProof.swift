internal import FlowSteering

/// Shows that a card's filters do what the flow rules say: each rule's filters match its frames and no others, and where
/// filters of two rules overlap the card asks the right one first.
///
/// It reads the tables as the card does, and knows nothing of how they came about.
struct FlowProof {
  let steering: Steering
  let tables: CardTables
  /// The pools that frames come to before flow filters.
  let pools: [Int]

  private struct Filter {
    let rule: Int
    let cubes: [Cube]
    let pool: Int?
    /// Nil: the frame ends there.
    let end: CardTables.Queue?
    /// The higher is asked first.
    let rank: Int
  }

  func check() throws(RuleError) {
    let filters = filters()
    try checkCover(filters)
    try checkOrder(filters)
  }

  private func filters() -> [Filter] {
    func end(_ queue: CardTables.Queue?) -> CardTables.Queue? { queue.flatMap { $0.pool == tables.plan.nowhere ? nil : $0 } }
    var filters: [Filter] = []
    if let syn = tables.syn {
      let match = Match([Match.Pair(.tcpFlags, .bits(2, mask: 2))])
      filters.append(Filter(rule: syn.rule, cubes: match.cubes, pool: nil, end: end(syn.queue), rank: syn.isFirst ? 100 : 2))
    }
    for filter in tables.fiveTuples {
      filters.append(Filter(rule: filter.rule, cubes: filter.match.cubes, pool: filter.pool, end: end(filter.queue), rank: 2 + filter.priority))
    }
    if let mask = tables.flowMask {
      for flow in tables.exactFlows {
        filters.append(Filter(rule: flow.rule, cubes: flow.match(under: mask).cubes, pool: mask.comparesPool ? flow.pool : nil, end: end(flow.queue), rank: 1))
      }
    }
    return filters
  }

  private func fault(_ rule: Int, _ text: String) -> RuleError {
    RuleError(.fieldUnsupported, "the filters made for it are not the rule: \(text)", fit: "this is a defect of ours, please report it", rule: steering.rules[rule].label)
  }

  /// Every rule's frames, for every pool that it sees, have a filter that ends where it says, or have all been taken by
  /// an earlier rule; and no filter is more.
  private func checkCover(_ filters: [Filter]) throws(RuleError) {
    let byRule = Dictionary(grouping: filters.indices, by: { filters[$0].rule })
    var taken: Set<Cube> = []
    var takenOfPool: [Int: Set<Cube>] = [:]
    for index in steering.rules.indices where steering.rules[index].step == .flow {
      let rule = steering.rules[index]
      let wanted = Set(rule.match.cubes.flatMap(Self.byVersion))
      let own = byRule[index] ?? []
      let seen = rule.owner.map { [steering.number(of: $0)] } ?? pools
      for pool in seen {
        var found: Set<Cube> = []
        for filter in own.map({ filters[$0] }) where filter.pool == nil || filter.pool == pool {
          guard filter.end == end(of: rule, in: pool) else { throw fault(index, "frames for pool \(pool) end elsewhere") }
          found.formUnion(filter.cubes.flatMap(Self.byVersion))
        }
        guard found.isSubset(of: wanted) else { throw fault(index, "it would see more") }
        for cube in wanted where !found.contains(cube) && !taken.contains(cube) && takenOfPool[pool]?.contains(cube) != true {
          throw fault(index, "it would see less")
        }
      }
      for filter in own.map({ filters[$0] }) {
        guard filter.pool.map(seen.contains) ?? (rule.owner == nil) else { throw fault(index, "a filter for a pool that it does not see") }
        let cubes = filter.cubes.flatMap(Self.byVersion)
        if let pool = filter.pool { takenOfPool[pool, default: []].formUnion(cubes) } else { taken.formUnion(cubes) }
      }
    }
  }

  /// Two cubes for one that leaves the IP version open, so that sets of them can be compared.
  private static func byVersion(_ cube: Cube) -> [Cube] { cube.byVersion }

  private func end(of rule: Rule, in pool: Int) -> CardTables.Queue? {
    switch rule.decision {
    case .deliver(let targets): CardTables.Queue(pool: steering.number(of: targets[0].vm), number: targets[0].queue ?? 0)
    case .queue(let queue):
      pool == tables.plan.nowhere ? nil : CardTables.Queue(pool: pool, number: pool < tables.plan.vmCount ? queue : 0)
    case .host: CardTables.Queue(pool: tables.plan.host)
    case .drop: nil
    }
  }

  private func checkOrder(_ filters: [Filter]) throws(RuleError) {
    var finder = OverlapFinder()
    for (index, filter) in filters.enumerated() { for cube in filter.cubes { finder.add(cube, of: index) } }
    let wrong = finder.first { a, b in
      let (one, other) = filters[a].rule < filters[b].rule ? (filters[a], filters[b]) : (filters[b], filters[a])
      guard one.rule != other.rule else { return false }
      if let first = one.pool, let second = other.pool, first != second { return false }
      let (first, second) = (steering.rules[one.rule], steering.rules[other.rule])
      return (first.decision != second.decision || first.counts || second.counts) && one.rank <= other.rank
    }
    guard let (a, b) = wrong else { return }
    throw fault(max(filters[a].rule, filters[b].rule), "it would win over \(steering.rules[min(filters[a].rule, filters[b].rule)].label)")
  }
}
