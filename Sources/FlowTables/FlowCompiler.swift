internal import FlowSteering

/// Makes the flow rules into SYN, five-tuple and flow director filters: the cheapest that says exactly what a rule says.
struct FlowCompiler {
  let steering: Steering
  let profile: CardProfile
  let plan: PoolPlan
  /// Pools whose frames a rule for everybody's may see: the VMs', and the host's and nobody's if there are any.
  let pools: [Int]

  /// The frames that a part sees.
  private struct Sight: Hashable {
    let cubes: [Cube]
    let pool: Int?
  }
  /// Where a part went.
  private enum Place { case fiveTuple, flowDirector }
  private struct Candidate {
    let part: FlowPart
    let fiveTuple: CardTables.FiveTuple?
    let exact: (flow: CardTables.ExactFlow, mask: CardTables.FlowMask)?
    let shortfalls: [Shortfall]
    var place = Place.fiveTuple
  }

  func compile(into tables: inout CardTables) throws(RuleError) {
    var candidates: [Candidate] = []
    // What an earlier rule has taken whole needs no filter, and two alike would be one to the card.
    var seen: Set<Sight> = []
    for index in steering.rules.indices where steering.rules[index].step == .flow {
      let rule = steering.rules[index]
      guard profile.hasFlowFilters else { throw noFilters(rule) }
      if profile.hasSYNFilter && rule.owner == nil && FlowPart.isSYN(rule.match) && tables.syn == nil, let queue = try queueForAll(rule) {
        tables.syn = CardTables.SYN(queue: queue, isFirst: true, rule: index)
        continue
      }
      for part in try parts(of: index) where seen.insert(Sight(cubes: part.match.cubes, pool: part.pool)).inserted {
        candidates.append(try candidate(part))
      }
    }
    try place(&candidates)
    try order(&candidates, &tables)
    for candidate in candidates where candidate.place == .fiveTuple { if let filter = candidate.fiveTuple { tables.fiveTuples.append(filter) } }
    var book = MaskBook()
    for candidate in candidates where candidate.place == .flowDirector {
      guard let exact = candidate.exact else { continue }
      do throws(MaskBook.Conflict) { try book.add(exact.flow, exact.mask) } catch { throw maskConflict(error, candidate) }
      tables.exactFlows.append(exact.flow)
    }
    tables.flowMask = book.mask
    if let most = profile.exactFlows.last, tables.exactFlows.count > most.filters {
      throw RuleError(
        .tableFull, "\(tables.exactFlows.count) exact flows: flow director of the \(profile.name) holds \(most.filters)",
        fit: "remove \(tables.exactFlows.count - most.filters), or let an address or VLAN decide for many", rule: steering.rules[tables.exactFlows[most.filters].rule].label)
    }
  }

  // MARK: Parts

  private func target(_ rule: Rule) throws(RuleError) -> CardTables.Queue? {
    switch rule.decision {
    case .deliver(let targets):
      guard targets.count == 1 else {
        throw RuleError(
          .actionUnsupported, "\"\(rule.decision)\": a filter of the \(profile.name) names one queue",
          fit: "copies come by address only: match eth.dst=ADDRESS then \(rule.decision)", rule: rule.label)
      }
      return CardTables.Queue(pool: steering.number(of: targets[0].vm), number: targets[0].queue ?? 0)
    case .host: return CardTables.Queue(pool: plan.host)
    case .drop, .queue: return nil
    }
  }

  /// A rule's one queue, whatever pool a frame is for; nil if it has none.
  private func queueForAll(_ rule: Rule) throws(RuleError) -> CardTables.Queue? {
    if case .queue = rule.decision { return nil }
    return try target(rule) ?? plan.dropQueue
  }

  private func parts(of index: Int) throws(RuleError) -> [FlowPart] {
    let rule = steering.rules[index]
    if let pair = rule.match.pairs.first(where: { [.ethernetDestination, .ethernetSource].contains($0.field) }) {
      let owner = steering.receivers.first { pair.pattern.matches($0.address.map { UInt128($0.rawValue) }) }?.name ?? "NAME"
      throw RuleError(
        .fieldUnsupported, "\(pair.field.name) beside \(rule.owner != nil ? "for" : "IP fields"): the filters of the \(profile.name) compare no Ethernet addresses, but whose the frame is",
        fit: pair.field == .ethernetDestination ? "write \"for \(owner)\" instead, which sees all that is for that VM" : "name ip.src", rule: rule.label,
        field: pair.field.name)
    }
    let target = try target(rule)
    let owner = rule.owner.map { steering.number(of: $0) }
    var ends: [(pool: Int?, queue: CardTables.Queue?)] = [(owner, target)]
    if case .queue(let queue) = rule.decision {
      ends = (owner.map { [$0] } ?? pools).map { ($0, CardTables.Queue(pool: $0, number: $0 < plan.vmCount ? queue : 0)) }
    }
    var matches: [Match] = []
    for pairs in rule.match.withoutRanges {
      let match = Match(ordered: pairs)
      guard match.ipVersion == nil else {
        matches.append(match)
        continue
      }
      // Of both versions: one part for each.
      guard match.looksAtIP else { throw notIP(rule) }
      for version in IPVersion.allCases {
        var copy = match
        do throws(Match.Conflict) {
          try copy.insert(Match.Pair(.etherType, .exactly(version.etherType, in: .etherType)))
          matches.append(copy)
        } catch { continue }
      }
    }
    return matches.flatMap { match in ends.map { FlowPart(rule: index, match: match, pool: $0.pool, queue: $0.queue) } }
  }

  private func notIP(_ rule: Rule) -> RuleError {
    let field = rule.match.pairs.first?.field.name
    return RuleError(
      .fieldUnsupported, "\(field.map { "\($0) alone" } ?? "every frame") with \"\(rule.owner.map { "for \($0) … " } ?? "")\(rule.decision)\": behind addresses the \(profile.name) looks at IP packets only",
      fit: "add ip.src, ip.dst or a port", rule: rule.label, field: field)
  }

  private func candidate(_ part: FlowPart) throws(RuleError) -> Candidate {
    var shortfalls: [Shortfall] = []
    var fiveTuple: CardTables.FiveTuple?
    var exact: (flow: CardTables.ExactFlow, mask: CardTables.FlowMask)?
    if profile.fiveTupleFilters > 0 {
      do throws(Shortfall) { fiveTuple = try part.fiveTuple(drop: plan.dropQueue) } catch { shortfalls.append(error) }
    }
    if !profile.exactFlows.isEmpty {
      do throws(Shortfall) { exact = try part.exactFlow() } catch { shortfalls.append(error) }
    }
    guard fiveTuple != nil || exact != nil else { throw unsupported(part, shortfalls) }
    return Candidate(part: part, fiveTuple: fiveTuple, exact: exact, shortfalls: shortfalls)
  }

  private func noFilters(_ rule: Rule) -> RuleError {
    RuleError(
      .fieldUnsupported, "match \(rule.match): the \(profile.name) has no filters for IP addresses, ports or flags that work with pools",
      fit: profile.etherTypeFilters > 0 ? "steer by eth.dst, vlan.id or eth.type" : "steer by eth.dst or vlan.id", rule: rule.label,
      field: rule.match.pairs.first { !$0.field.isLayer2 }?.field.name)
  }

  private func unsupported(_ part: FlowPart, _ shortfalls: [Shortfall]) -> RuleError {
    let rule = steering.rules[part.rule]
    if shortfalls.isEmpty { return noFilters(rule) }
    let isHalf = rule.match.ipVersion == nil && part.match.ipVersion == .v6
    let reasons = shortfalls.map(\.reason).joined(separator: ", and ")
    let what = isHalf ? "\(rule.match) takes IPv6 too, and of that" : "match \(rule.match):"
    let field = shortfalls.last?.field ?? shortfalls.first?.field
    return RuleError(
      .fieldUnsupported, "\(what) \(reasons)", fit: isHalf ? "add eth.type=ip if IPv4 is meant" : Self.fit(for: field), rule: rule.label, field: field?.name)
  }

  private static func fit(for field: Field?) -> String? {
    switch field {
    case .ipTOS?, .tcpFlags?: "leave \(field?.name ?? "") out"
    case .ipProtocol?: "name tcp, udp or sctp"
    case .ipFragment?: "leave ip.frag out, or write ip.frag=no"
    case .ip6Destination?: "name ip.src, or steer by eth.dst"
    case .sctpSource?, .sctpDestination?: "add eth.type=ip: SCTP over IPv4 fits a five-tuple filter"
    case .vlanID?, .vlanPriority?: "name a VLAN from 1 to 4095, or leave it out"
    case .flexible?: "choose an even offset"
    default: nil
    }
  }

  // MARK: Which table

  /// Rules that only flow director can say come first: its one mask is theirs. Others go there only if the five-tuple
  /// filters do not hold them all.
  private func place(_ candidates: inout [Candidate]) throws(RuleError) {
    var book = MaskBook()
    for index in candidates.indices where candidates[index].fiveTuple == nil {
      guard let exact = candidates[index].exact else { continue }
      candidates[index].place = .flowDirector
      do throws(MaskBook.Conflict) { try book.add(exact.flow, exact.mask) } catch { throw maskConflict(error, candidates[index]) }
    }
    let rest = candidates.indices.filter { candidates[$0].fiveTuple != nil }
    var room = profile.fiveTupleFilters
    if rest.count <= room { return }
    // Where no rule has set the mask, the one that most ask for, or the next, until the five-tuple filters hold the rest.
    if book.mask == nil {
      var counts: [CardTables.FlowMask: (count: Int, first: Int)] = [:]
      for index in rest { if let mask = candidates[index].exact?.mask { counts[mask, default: (0, index)].count += 1 } }
      let masks = counts.values.sorted { ($0.count, -$0.first) > ($1.count, -$1.first) }.map(\.first)
      let fitting = masks.first { self.fit(rest, in: candidates, Self.book(of: candidates[$0])).left.count <= room }
      if let first = fitting ?? masks.first { book = Self.book(of: candidates[first]) }
    }
    let fit = fit(rest, in: candidates, book)
    for index in fit.held { candidates[index].place = .flowDirector }
    room -= fit.left.count
    if room < 0 { throw full(candidates[fit.left[profile.fiveTupleFilters]], fit.book) }
  }

  private static func book(of candidate: Candidate) -> MaskBook {
    var book = MaskBook()
    if let exact = candidate.exact { try? book.add(exact.flow, exact.mask) }
    return book
  }

  /// Which of some candidates go to flow director with a mask, and which are left.
  private func fit(_ indices: [Int], in candidates: [Candidate], _ start: MaskBook) -> (held: [Int], left: [Int], book: MaskBook) {
    var (held, left, book) = ([Int](), [Int](), start)
    for index in indices {
      if let exact = candidates[index].exact, (try? book.add(exact.flow, exact.mask)) != nil { held.append(index) } else { left.append(index) }
    }
    return (held, left, book)
  }

  private func full(_ candidate: Candidate, _ book: MaskBook) -> RuleError {
    let rule = steering.rules[candidate.part.rule]
    var why = candidate.shortfalls.first?.reason
    var holder: String?
    if let exact = candidate.exact, let conflict = book.conflict(exact.flow, exact.mask) {
      why = "flow director has one mask for the port, with \(conflict.part) \(conflict.held) since \(steering.rules[conflict.holder].label)"
      holder = steering.rules[conflict.holder].label
    }
    return RuleError(
      .tableFull, "all \(profile.fiveTupleFilters) five-tuple filters of the \(profile.name) are taken" + (why.map { ", and \($0)" } ?? ""),
      fit: profile.exactFlows.isEmpty ? "remove a rule" : "remove a rule, or make it alike to the others so that flow director can hold it", rule: rule.label, holder: holder)
  }

  private func maskConflict(_ conflict: MaskBook.Conflict, _ candidate: Candidate) -> RuleError {
    let (rule, holder) = (steering.rules[candidate.part.rule], steering.rules[conflict.holder])
    let needs = candidate.shortfalls.first.map { "; \($0.reason)" } ?? ""
    return RuleError(
      .maskConflict,
      "\(conflict.part) \(conflict.wanted): flow director of the \(profile.name) has one mask for the port, in use with \(conflict.part) \(conflict.held) by \(holder.label)\(needs)",
      fit: profile.fiveTupleFilters > 0
        ? "fits if \(holder.label) is changed, or if this one is exact (five-tuple, \(profile.fiveTupleFilters) filters)" : "fits if \(holder.label) is changed",
      rule: rule.label, holder: holder.label, field: conflict.part)
  }

  // MARK: Which first

  /// Settles what wins where filters overlap: SYN, then five-tuple by priority, then flow director.
  private func order(_ candidates: inout [Candidate], _ tables: inout CardTables) throws(RuleError) {
    var finder = OverlapFinder()
    for (index, candidate) in candidates.enumerated() { for cube in candidate.part.match.cubes { finder.add(cube, of: index) } }
    if let syn = tables.syn { for cube in steering.rules[syn.rule].match.cubes { finder.add(cube, of: -1) } }
    // Pairs with an order: the first must win.
    var pairs: [(first: Int, second: Int)] = []
    func rule(_ index: Int) -> Int { index < 0 ? tables.syn?.rule ?? 0 : candidates[index].part.rule }
    finder.forEach { a, b in
      guard rule(a) != rule(b) else { return true }
      if a >= 0, b >= 0, let one = candidates[a].part.pool, let other = candidates[b].part.pool, one != other { return true }
      let (first, second) = rule(a) < rule(b) ? (a, b) : (b, a)
      let (one, other) = (steering.rules[rule(first)], steering.rules[rule(second)])
      if one.decision != other.decision || one.counts || other.counts { pairs.append((first, second)) }
      return true
    }
    try repair(pairs, &candidates)
    try orderSYN(pairs, candidates, &tables)
    try setPriorities(pairs, &candidates)
  }

  private func orderSYN(_ pairs: [(first: Int, second: Int)], _ candidates: [Candidate], _ tables: inout CardTables) throws(RuleError) {
    guard let syn = tables.syn else { return }
    let isBeforeTuples = pairs.contains { $0.first < 0 && candidates[$0.second].place == .fiveTuple }
    let behind = pairs.filter { $0.second < 0 }.map(\.first)
    guard let other = behind.first(where: { candidates[$0].place == .flowDirector }) ?? behind.first else { return }
    if isBeforeTuples || candidates[other].place == .flowDirector {
      let label = steering.rules[candidates[other].part.rule].label
      throw RuleError(
        .priority, "the one SYN filter of the \(profile.name) comes before all five-tuple filters or behind them all, and always before flow director",
        fit: "give it a priority before \(label)", rule: steering.rules[syn.rule].label, holder: label)
    }
    tables.syn?.isFirst = false
  }

  /// A five-tuple filter comes before any of flow director's: what must not is moved.
  private func repair(_ pairs: [(first: Int, second: Int)], _ candidates: inout [Candidate]) throws(RuleError) {
    var room = profile.fiveTupleFilters - candidates.count { $0.place == .fiveTuple }
    var changed = true
    while changed {
      changed = false
      for (first, second) in pairs where first >= 0 && second >= 0 {
        guard candidates[first].place == .flowDirector else { continue }
        if candidates[first].fiveTuple != nil && room > 0 {
          candidates[first].place = .fiveTuple
          room -= 1
          changed = true
          continue
        }
        let (rule, other) = (steering.rules[candidates[first].part.rule], steering.rules[candidates[second].part.rule])
        throw RuleError(
          .priority,
          "it must win over \(other.label), with which it shares frames; on the \(profile.name) only flow director holds it, "
            + (candidates[second].place == .fiveTuple ? "and five-tuple filters come before that" : "which has no order of its own"),
          fit: candidates[first].fiveTuple == nil ? "make it exact and IPv4, or put it behind \(other.label)" : "remove a five-tuple rule, or put it behind \(other.label)",
          rule: rule.label, holder: other.label)
      }
    }
  }

  private func setPriorities(_ pairs: [(first: Int, second: Int)], _ candidates: inout [Candidate]) throws(RuleError) {
    // Rules come in order, so what must win over a filter has been settled before it.
    var depth = Array(repeating: 0, count: candidates.count)
    var before: [Int: [Int]] = [:]
    for (first, second) in pairs where first >= 0 && second >= 0 && candidates[first].place == .fiveTuple && candidates[second].place == .fiveTuple {
      before[second, default: []].append(first)
    }
    for index in candidates.indices where candidates[index].place == .fiveTuple {
      guard let others = before[index] else { continue }
      depth[index] = (others.map { depth[$0] }.max() ?? -1) + 1
      if depth[index] >= profile.fiveTuplePriorities {
        let last = others.max { depth[$0] < depth[$1] } ?? index
        throw RuleError(
          .priority, "it is the \(depth[index] + 1)th of rules that overlap one behind the other; five-tuple filters of the \(profile.name) have \(profile.fiveTuplePriorities) priorities",
          fit: "make the rules before it disjoint", rule: steering.rules[candidates[index].part.rule].label, holder: steering.rules[candidates[last].part.rule].label)
      }
    }
    for index in candidates.indices {
      guard let filter = candidates[index].fiveTuple else { continue }
      var new = filter
      new.priority = profile.fiveTuplePriorities - depth[index]
      candidates[index] = Candidate(
        part: candidates[index].part, fiveTuple: new, exact: candidates[index].exact, shortfalls: candidates[index].shortfalls, place: candidates[index].place)
    }
  }
}
