internal import FlowSteering

/// The way that a frame takes through a card's tables, entry by entry: found in the tables alone, not in the rules.
public struct CardPath: Hashable, Sendable {
  /// One for each copy.
  public var copies: [Copy] = []

  public struct Copy: Hashable, Sendable {
    /// The pool that addresses, VLAN and EtherType have chosen.
    public var pool: Int
    public var filter: Filter?
    /// Nil: it ends here. Without a filter RSS chooses among the pool's queues: `isSpread`.
    public var queue: CardTables.Queue?
    public var isSpread: Bool
  }
  public enum Filter: Hashable, Sendable {
    case etherType(CardTables.EtherType)
    case syn(CardTables.SYN)
    case fiveTuple(CardTables.FiveTuple)
    case flowDirector(CardTables.ExactFlow)

    /// The number of the rule that it was made for.
    public var rule: Int {
      switch self {
      case .etherType(let filter): filter.rule
      case .syn(let filter): filter.rule
      case .fiveTuple(let filter): filter.rule
      case .flowDirector(let filter): filter.rule
      }
    }
    /// What the card calls it.
    public var name: String {
      switch self {
      case .etherType: "EtherType filter"
      case .syn: "SYN filter"
      case .fiveTuple(let filter): "five-tuple filter of priority \(filter.priority)"
      case .flowDirector: "flow director"
      }
    }
  }

  /// - Parameter queues: how many each VM uses, 1, 2 or 4.
  public init(_ frame: Span<UInt8>, through tables: CardTables, of profile: CardProfile, queues: [Int]) {
    guard let fields = FrameFields(frame) else { return }
    let tag: AddressPaths.Tag = fields.tag.map { .vlan($0 & 0xFFF) } ?? .none
    let paths = AddressPaths(tables, choosesPool: profile.etherTypeChoosesPool)
    let outcome = paths.outcome(MACAddress(fields.destination), tag, fields.etherType)
    for pool in 0..<64 where outcome.pools >> UInt64(pool) & 1 == 1 {
      if outcome.queue != nil, let filter = tables.etherTypes.first(where: { $0.type == fields.etherType }) {
        copies.append(Copy(pool: pool, filter: .etherType(filter), queue: filter.queue, isSpread: false))
        continue
      }
      guard let filter = Self.filter(frame, fields, pool, tables) else {
        let isNowhere = pool == tables.plan.nowhere
        let number = queues.indices.contains(pool) ? ScalingHash.queue(of: frame, fields, among: queues[pool]) : 0
        copies.append(Copy(pool: pool, filter: nil, queue: isNowhere ? nil : CardTables.Queue(pool: pool, number: number), isSpread: !isNowhere))
        continue
      }
      let queue: CardTables.Queue? =
        switch filter {
        case .etherType(let entry): entry.queue
        case .syn(let entry): entry.queue
        case .fiveTuple(let entry): entry.queue
        case .flowDirector(let entry): entry.queue
        }
      copies.append(Copy(pool: pool, filter: filter, queue: queue?.pool == tables.plan.nowhere ? nil : queue, isSpread: false))
    }
  }

  /// 82599 datasheet 7.1.2: SYN, five-tuple, SYN again, flow director.
  private static func filter(_ frame: Span<UInt8>, _ fields: FrameFields, _ pool: Int, _ tables: CardTables) -> Filter? {
    let syn = fields.transport == .tcp && fields.tcpFlags & 2 != 0 ? tables.syn : nil
    if let syn, syn.isFirst { return .syn(syn) }
    var best: CardTables.FiveTuple?
    for filter in tables.fiveTuples where filter.pool == nil || filter.pool == pool {
      if let best, best.priority >= filter.priority { continue }
      if filter.match.matches(frame, fields) { best = filter }
    }
    if let best { return .fiveTuple(best) }
    if let syn { return .syn(syn) }
    guard let mask = tables.flowMask, fields.ipVersion != nil else { return nil }
    for flow in tables.exactFlows where !mask.comparesPool || flow.pool == pool {
      if flow.match(under: mask).matches(frame, fields) { return .flowDirector(flow) }
    }
    return nil
  }
}
