internal import FlowSteering
internal import FlowTables
internal import Simulation

/// What is to become of the rules of a running back-end: all of it, or nothing. Its names are those of its JSON.
public struct RuleChange: Codable, Hashable, Sendable {
  /// Takes all rules away, or those that name this VM, before the rest.
  public var flush: Bool?
  public var flush_vm: String?
  /// Numbers of rules that go.
  public var delete: [Int]?
  /// Rules that come, as text.
  public var add: [String]?
  /// Only says what would be.
  public var dry_run: Bool?

  public init(flush: Bool? = nil, flushVM: String? = nil, delete: [Int]? = nil, add: [String]? = nil, dryRun: Bool? = nil) {
    (self.flush, flush_vm, self.delete, self.add, dry_run) = (flush, flushVM, delete, add, dryRun)
  }

  /// The rules that there are then, with numbers.
  func result(of rules: [Rule]) throws(RuleError) -> [Rule] {
    var result = rules
    if flush == true { result = [] }
    if let vm = flush_vm { result.removeAll { $0.vms.contains(vm) } }
    for number in delete ?? [] {
      guard let index = result.firstIndex(where: { $0.id == number }) else {
        let numbers = result.map(\.id).sorted().map(String.init)
        throw RuleError(
          .noSuchRule, "there is no rule \(number)", fit: numbers.isEmpty ? "there are none" : "there are \(numbers.prefix(20).joined(separator: ", "))\(numbers.count > 20 ? " and others" : "")")
      }
      result.remove(at: index)
    }
    for (index, text) in (add ?? []).enumerated() {
      do throws(RuleError) { result.append(try Rule(parsing: text)) } catch {
        var error = error
        if (add ?? []).count > 1 { error.line = index + 1 }
        throw error
      }
    }
    return Steering.numbered(result)
  }
}

/// The rules of a running back-end, and what they take of its card. Its names are those of its JSON.
public struct RulesReport: Codable, Hashable, Sendable {
  public struct Rule: Codable, Hashable, Sendable {
    /// 0: it follows from a VM.
    public var id: Int
    public var text: String
    /// What the card has counted since the rule came: an address rule's frames, a flow rule's copies. Nil where it cannot
    /// tell them from another rule's, and in the answer to a change.
    public var frames: UInt64?
    public var bytes: UInt64?
    public init(id: Int, text: String) { (self.id, self.text) = (id, text) }
  }
  public struct Table: Codable, Hashable, Sendable {
    public var name: String
    public var used: Int
    public var size: Int
    public init(name: String, used: Int, size: Int) { (self.name, self.used, self.size) = (name, used, size) }
  }
  /// In the order in which they are asked. Empty in the answer to a change.
  public var rules: [Rule] = []
  public var tables: [Table] = []
  /// The VMs, in the order of their numbers.
  public var vms: [String] = []
  /// What a change has brought: rules that came, and rules that went.
  public var added: [Rule] = []
  public var removed: [Rule] = []
  public var dry_run = false
  /// For how long a change has kept the control thread.
  public var control_s = 0.0
  public init() {}
}

extension RulesReport.Rule {
  init(_ rule: FlowSteering.Rule) { self.init(id: rule.id, text: rule.text) }
}

extension RulesReport {
  /// All rules, and what was counted of them.
  init(_ program: CardProgram, _ counts: [FilterCount?]) {
    rules = zip(program.steering.rules, counts).map { rule, count in
      var entry = Rule(rule)
      (entry.frames, entry.bytes) = (count?.frames, count?.bytes)
      return entry
    }
    setTables(program)
  }

  /// What a change brings; the rules that stay are not told.
  init(_ program: CardProgram, after old: [FlowSteering.Rule], isDry: Bool) {
    setTables(program)
    dry_run = isDry
    let new = program.steering.userRules
    let (before, after) = (Set(old), Set(new))
    added = new.filter { !before.contains($0) }.map { Rule($0) }
    removed = old.filter { !after.contains($0) }.map { Rule($0) }
  }

  init(_ program: CardProgram, added rule: FlowSteering.Rule) {
    setTables(program)
    added = [Rule(rule)]
  }

  private mutating func setTables(_ program: CardProgram) {
    vms = program.steering.receivers.map(\.name)
    tables = program.tables?.fill(of: program.profile).map { Table(name: $0.name, used: $0.used, size: $0.size) } ?? []
  }
}
