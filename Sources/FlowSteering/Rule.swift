/// Which frames, and what becomes of them.
public struct Rule: Hashable, Sendable {
  /// Names it while it lives, from 1; 0: not given yet.
  public var id = 0
  /// Groups come one after the other, the lowest first; inside one, the lowest priority first.
  public var group = 0
  public var priority = Self.usualPriority
  /// The VM whose frames alone it sees; nil: everybody's, and those that are nobody's.
  public var owner: String?
  public var match = Match()
  public var decision: Decision
  /// Whether its frames are counted.
  public var counts = false
  /// Where it comes from.
  public var origin = Origin.user

  public enum Decision: Hashable, Sendable {
    /// To VMs, a copy each.
    case deliver([Target])
    /// To that queue of the VM that would get it anyway.
    case queue(Int)
    case drop
    /// To the back-end itself.
    case host
  }

  public struct Target: Hashable, Sendable {
    public var vm: String
    /// From 0; nil: the card chooses among the VM's queues.
    public var queue: Int?
    public init(_ vm: String, queue: Int? = nil) {
      self.vm = vm
      self.queue = queue
    }
  }

  public enum Origin: Hashable, Sendable {
    case user
    /// It follows from a VM's address or VLAN, and comes after every other rule.
    case vm
  }

  public static let usualPriority = 100
  public static let priorities = 0...65_535
  public static let groups = 0...255
  public static let ids = 1...1_000_000

  public init(id: Int = 0, group: Int = 0, priority: Int = Self.usualPriority, owner: String? = nil, match: Match, decision: Decision, counts: Bool = false) {
    self.id = id
    self.group = group
    self.priority = priority
    self.owner = owner
    self.match = match
    self.decision = decision
    self.counts = counts
  }

  /// Which of the two steps of steering it belongs to.
  public enum Step: Hashable, Sendable, CaseIterable {
    /// Whose a frame is, by its Ethernet header: once a frame.
    case address
    /// What becomes of it then: once for each VM that it is for, or once if it is nobody's.
    case flow
  }

  public var step: Step {
    if owner != nil || match.pairs.contains(where: { !$0.field.isLayer2 }) { return .flow }
    if case .queue = decision { return .flow }
    return .address
  }

  /// Its place in its step: the lowest comes first.
  public var precedence: Precedence { Precedence(isLast: origin == .vm, group: group, priority: priority) }

  public struct Precedence: Hashable, Comparable, Sendable {
    let isLast: Bool
    public let group: Int
    public let priority: Int
    public static func < (a: Self, b: Self) -> Bool {
      (a.isLast ? 1 : 0, a.group, a.priority) < (b.isLast ? 1 : 0, b.group, b.priority)
    }
  }

  /// What messages call it.
  public var label: String {
    if origin == .vm { return "the rule of VM \(vms.joined(separator: ", "))" }
    return id == 0 ? "the rule" : "rule \(id)"
  }

  /// The VMs that it names.
  public var vms: [String] {
    var names = owner.map { [$0] } ?? []
    if case .deliver(let targets) = decision { names += targets.map(\.vm) }
    return names
  }
}
