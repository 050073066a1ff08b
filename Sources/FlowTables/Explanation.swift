public import FlowSteering

/// Why a frame goes where it goes, for people: what it is, which rule and which entry of the card takes it, and why
/// every other rule does not.
public struct Explanation: Hashable, Sendable {
  /// What rules can see of the frame, as they would write it.
  public var fields: [String] = []
  public var copies: [Copy] = []
  public var others: [Other] = []
  /// Whether card and rules come to the same; always, or there is a defect of ours.
  public var agrees = true

  public struct Copy: Hashable, Sendable {
    /// The address rule, and the flow rule, by number; 0 for one that follows from a VM.
    public var addressRule: Int?
    public var addressText: String?
    public var flowRule: Int?
    public var flowText: String?
    /// What takes it in the card.
    public var stage: String
    public var vm: String?
    /// Nil: none, or the ideal card's to choose.
    public var queue: Int?
    /// RSS has chosen the queue, among those that the VM has.
    public var is_spread = false
    /// "delivered", "host", "dropped", "unclaimed"
    public var fate: String
  }
  public struct Other: Hashable, Sendable {
    public var rule: Int
    public var text: String
    public var why: String
  }

  /// Nil for fewer bytes than an Ethernet header has.
  public init?(_ frame: Span<UInt8>, by program: CardProgram) {
    guard let found = FrameFields(frame) else { return nil }
    let steering = program.steering
    fields = found.description
    let verdict = Classifier(steering).verdict(on: frame)
    let path = program.tables.map { CardPath(frame, through: $0, of: program.profile, queues: steering.receivers.map(\.queueCount)) }
    if let path, let tables = program.tables { agrees = path.agrees(with: verdict, tables.plan) }
    for copy in verdict.copies {
      let pool = program.tables.map { copy.pool($0.plan) }
      let entry = path?.copies.first { $0.pool == pool }
      self.copies.append(Self.copy(copy, verdict.addressRule, entry, program))
    }
    if verdict.copies.isEmpty { return }
    let deciding = Set(verdict.copies.compactMap(\.flowRule) + [verdict.addressRule].compactMap { $0 })
    for index in steering.rules.indices where !deciding.contains(index) {
      let rule = steering.rules[index]
      others.append(Other(rule: rule.id, text: rule.text, why: why(rule, index, frame, found, verdict, steering)))
    }
  }

  private static func copy(_ copy: Verdict.Copy, _ addressRule: Int?, _ entry: CardPath.Copy?, _ program: CardProgram) -> Copy {
    let rules = program.steering.rules
    func text(_ index: Int?) -> String? { index.map { rules[$0].text } }
    var result = Copy(
      addressRule: addressRule.map { rules[$0].id }, addressText: text(addressRule), flowRule: copy.flowRule.map { rules[$0].id },
      flowText: text(copy.flowRule), stage: "", fate: "")
    result.stage = entry?.filter?.name ?? addressStage(addressRule, program)
    switch copy.fate {
    case .deliver(let vm, let queue):
      (result.fate, result.vm, result.queue) = ("delivered", program.steering.receivers[vm].name, queue ?? entry?.queue?.number)
      result.is_spread = entry?.isSpread == true
    case .host: result.fate = "host"
    case .drop: result.fate = "dropped"
    case .unclaimed: result.fate = "unclaimed"
    }
    return result
  }

  private static func addressStage(_ index: Int?, _ program: CardProgram) -> String {
    guard program.tables != nil else { return "rules alone: the ideal card has no tables" }
    guard let index else { return "no entry: nobody's" }
    let rule = program.steering.rules[index]
    var names: [String] = []
    if let pattern = rule.match[.ethernetDestination] {
      let isOne = if case .bits(_, let mask) = pattern { mask == Field.ethernetDestination.fullMask } else { false }
      names.append(isOne && pattern != .exactly(MACAddress.broadcast.rawValue, in: .ethernetDestination) ? "receive address" : "what its pool takes besides addresses")
    }
    if rule.match[.vlanID] != nil { names.append("VLAN filter") }
    return names.isEmpty ? "what its pool takes besides addresses" : names.joined(separator: " and ")
  }

  /// Why a rule does not decide.
  private func why(_ rule: Rule, _ index: Int, _ frame: Span<UInt8>, _ fields: FrameFields, _ verdict: Verdict, _ steering: Steering) -> String {
    for pair in rule.match.pairs {
      let value = fields.value(of: pair.field, in: frame)
      if pair.pattern.matches(value) { continue }
      guard let value else { return "the frame has no \(pair.field.name)" }
      if pair.pattern == .absent { return "the frame has a VLAN tag" }
      return "\(pair.field.name) is \(Match.Pair(pair.field, .bits(value, mask: pair.field.fullMask)).text)"
    }
    switch rule.step {
    case .address:
      guard let first = verdict.addressRule else { return "it is asked after the address step" }
      return "it matches, but \(steering.rules[first].label) comes first"
    case .flow:
      if let first = verdict.addressRule, verdict.copies.allSatisfy({ $0.flowRule == nil }), steering.rules[first].hasLastWord {
        return "it matches, but \(steering.rules[first].label) has the last word"
      }
      if let owner = rule.owner, !verdict.copies.contains(where: { $0.holder == .vm(steering.number(of: owner)) }) {
        return "it matches, but the frame is not for VM \(owner)"
      }
      let before = verdict.copies.lazy.compactMap(\.flowRule).first { $0 < index }
      return before.map { "it matches, but \(steering.rules[$0].label) comes first" } ?? "it matches"
    }
  }
}

extension Rule {
  /// Whether flow rules are not asked after it.
  var hasLastWord: Bool {
    switch decision {
    case .drop: true
    case .deliver(let targets): targets.allSatisfy { $0.queue != nil }
    case .host, .queue: false
    }
  }
}

extension Verdict.Copy {
  func pool(_ plan: PoolPlan) -> Int {
    switch holder {
    case .vm(let number): number
    case .host: plan.host
    case .nobody: plan.nowhere
    }
  }
}

extension CardPath {
  /// Whether each copy ends where rules say.
  public func agrees(with verdict: Verdict, _ plan: PoolPlan) -> Bool {
    var ends = copies.filter { $0.queue != nil }
    for copy in verdict.copies {
      let index: Int?
      switch copy.fate {
      case .drop, .unclaimed: continue
      case .host: index = ends.firstIndex { $0.queue?.pool == plan.host }
      case .deliver(let vm, let queue?): index = ends.firstIndex { $0.queue == CardTables.Queue(pool: vm, number: queue) && !$0.isSpread }
      case .deliver(let vm, nil): index = ends.firstIndex { $0.queue?.pool == vm && ($0.isSpread || $0.queue?.number == 0) }
      }
      guard let index else { return false }
      ends.remove(at: index)
    }
    return ends.isEmpty
  }
}
