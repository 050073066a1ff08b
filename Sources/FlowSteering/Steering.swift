/// The VMs of a port and the rules between them: all that decides where a frame goes.
public struct Steering: Sendable {
  public let receivers: [Receiver]
  /// In the order in which they are asked; those that follow from the VMs come last.
  public private(set) var rules: [Rule]
  private let numbers: [String: Int]
  /// The number that a rule without one gets.
  private var nextNumber: Int

  /// Takes rules that have been checked.
  ///
  /// Precondition: every VM that a rule names is there.
  public init(unchecked rules: [Rule], for receivers: [Receiver]) {
    self.receivers = receivers
    numbers = Dictionary(uniqueKeysWithValues: receivers.enumerated().map { ($1.name, $0) })
    nextNumber = (rules.map(\.id).max() ?? 0) + 1
    // Stable: by number where all else is equal.
    self.rules = (rules + Receiver.rules(for: receivers)).sorted { ($0.precedence, $0.id) < ($1.precedence, $1.id) }
  }

  /// Gives numbers to the rules that have none.
  ///
  /// - Throws: the first thing that is wrong with the rules: a VM or a queue that is not there, two rules alike, two
  ///   that overlap, with nothing to say which comes first.
  public init(_ rules: [Rule], for receivers: [Receiver]) throws(RuleError) {
    for rule in rules { try Self.checkNames(rule, receivers) }
    self.init(unchecked: Self.numbered(rules), for: receivers)
    var seen: Set<Int> = []
    for rule in rules where rule.id != 0 && !seen.insert(rule.id).inserted {
      throw RuleError(.duplicate, "there are two rules with this number", fit: "leave the number out, and the next free one is given", rule: rule.label)
    }
    try checkOrder()
  }

  /// Makes room for so many more rules.
  package mutating func reserve(_ count: Int) { rules.reserveCapacity(rules.count + count) }

  /// Puts one more rule in its place, with a number if it has none.
  ///
  /// - Parameter isFree: whether a number is nobody's.
  /// - Throws: what is wrong with its names and number. Whether it has an order with all others is not looked at.
  package mutating func insert(_ rule: Rule, isFree: (Int) -> Bool) throws(RuleError) -> Rule {
    var rule = rule
    if rule.id == 0 { rule.id = nextNumber }
    try Self.checkNames(rule, receivers)
    guard isFree(rule.id) else {
      throw RuleError(.duplicate, "there is a rule with this number", fit: "leave the number out, and the next free one is given", rule: rule.label)
    }
    nextNumber = max(nextNumber, rule.id + 1)
    var (low, high) = (0, rules.count)
    while low < high {
      let middle = (low + high) / 2
      if (rules[middle].precedence, rules[middle].id) < (rule.precedence, rule.id) { low = middle + 1 } else { high = middle }
    }
    rules.insert(rule, at: low)
    return rule
  }

  /// The number of a VM.
  public func number(of vm: String) -> Int {
    guard let number = numbers[vm] else { preconditionFailure("no VM \(vm)") }
    return number
  }
  public func hasReceiver(_ name: String) -> Bool { numbers[name] != nil }

  /// The rules that people wrote.
  public var userRules: [Rule] { rules.filter { $0.origin == .user } }

  /// Gives every rule without a number the next one after the highest.
  public static func numbered(_ rules: [Rule]) -> [Rule] {
    var next = (rules.map(\.id).max() ?? 0) + 1
    return rules.map { rule in
      guard rule.id == 0 else { return rule }
      var rule = rule
      rule.id = next
      next += 1
      return rule
    }
  }

  private static func checkNames(_ rule: Rule, _ receivers: [Receiver]) throws(RuleError) {
    func receiver(_ name: String) throws(RuleError) -> Receiver {
      if let receiver = receivers.first(where: { $0.name == name }) { return receiver }
      let names = receivers.map(\.name)
      let near = names.min { distance($0, name) < distance($1, name) }
      let list = names.isEmpty ? "there is none" : "there are \(names.joined(separator: ", "))"
      let fit = near.flatMap { distance($0, name) <= 2 ? "did you mean \($0)?" : nil }
      throw RuleError(.noSuchVM, "no VM is called \(name); \(list)", fit: fit, rule: rule.label)
    }
    func check(_ queue: Int, of receiver: Receiver) throws(RuleError) {
      if queue < receiver.queueCount { return }
      let last = receiver.queueCount - 1
      throw RuleError(
        .noSuchQueue, "VM \(receiver.name) has no queue \(queue): it has \(receiver.queueCount), " + (last == 0 ? "queue 0" : "0 to \(last)"),
        fit: "start it with more queues, or name another", rule: rule.label)
    }
    let owner: Receiver? = if let name = rule.owner { try receiver(name) } else { nil }
    switch rule.decision {
    case .deliver(let targets):
      for target in targets {
        let receiver = try receiver(target.vm)
        if let queue = target.queue { try check(queue, of: receiver) }
      }
    case .queue(let queue):
      for receiver in owner.map({ [$0] }) ?? receivers { try check(queue, of: receiver) }
    case .drop, .host: break
    }
  }

  /// Edit distance, for "did you mean".
  private static func distance(_ a: String, _ b: String) -> Int {
    let (a, b) = (Array(a.utf8), Array(b.utf8))
    var row = Array(0...b.count)
    for i in a.indices {
      var (diagonal, last) = (row[0], i + 1)
      row[0] = last
      for j in b.indices {
        let best = min(last + 1, row[j + 1] + 1, diagonal + (a[i] == b[j] ? 0 : 1))
        (diagonal, row[j + 1], last) = (row[j + 1], best, best)
      }
    }
    return row[b.count]
  }

  /// Two rules of one place that some frame matches both, and that do not do the same with it, have no order.
  private func checkOrder() throws(RuleError) {
    var finder = OverlapFinder()
    for (index, rule) in rules.enumerated() where rule.origin == .user {
      for cube in rule.match.cubes { finder.add(cube, of: index) }
    }
    let found = finder.first { a, b in
      let (first, second) = (rules[a], rules[b])
      return first.step == second.step && first.precedence == second.precedence
        && (first.owner == nil || second.owner == nil || first.owner == second.owner)
        && (first.decision != second.decision || first.match.canonical == second.match.canonical && first.owner == second.owner)
    }
    guard let (a, b) = found else { return }
    let (first, second) = rules[a].id <= rules[b].id ? (rules[a], rules[b]) : (rules[b], rules[a])
    if first.match.canonical == second.match.canonical && first.owner == second.owner {
      throw RuleError(
        .duplicate, "it matches what \(first.label) matches, at the same priority \(first.priority)",
        fit: "delete one of them, or give it another priority", rule: second.label, holder: first.label)
    }
    let lower = second.priority > Rule.priorities.lowerBound ? second.priority - 1 : second.priority + 1
    throw RuleError(
      .overlap,
      "frames that match it and \(first.label) (match \(first.match)) would go two ways, \"\(second.decision)\" and \"\(first.decision)\": both have priority \(second.priority)",
      fit: "prio \(lower) would put it \(lower < second.priority ? "before" : "behind")", rule: second.label, holder: first.label)
  }
}

/// Finds cubes that have a frame in common, without looking at every pair: cubes with the same mask are looked up.
package struct OverlapFinder {
  private struct Shape: Hashable {
    let mask: Cube.Words
    let flexible: [Int]
  }
  private struct Entry {
    let value: Cube.Words
    let rule: Int
  }
  package init() {}
  private var shapes: [(shape: Shape, entries: [Entry])] = []
  private var numbers: [Shape: Int] = [:]

  package mutating func add(_ cube: Cube, of rule: Int) {
    let shape = Shape(mask: cube.mask, flexible: cube.flexible)
    let number: Int
    if let known = numbers[shape] { number = known } else {
      number = shapes.count
      numbers[shape] = number
      shapes.append((shape, []))
    }
    shapes[number].entries.append(Entry(value: cube.value, rule: rule))
  }

  /// Makes room for so many more cubes of each shape that there is.
  package mutating func reserve(_ count: Int) {
    for index in shapes.indices where shapes[index].entries.count >= count { shapes[index].entries.reserveCapacity(shapes[index].entries.count + count) }
  }

  /// Whether a cube has a frame in common with any that was added.
  package func overlaps(_ cube: Cube) -> Bool {
    for (shape, entries) in shapes {
      if shape.flexible == cube.flexible {
        let common = shape.mask & cube.mask
        let value = cube.value & common
        for entry in entries where entry.value & common == value { return true }
      } else {
        for entry in entries where cube.overlaps(Cube(entry.value, shape.mask, shape.flexible)) { return true }
      }
    }
    return false
  }

  /// The first pair of rules that overlap and fulfil a condition.
  package func first(where condition: (Int, Int) -> Bool) -> (Int, Int)? {
    var result: (Int, Int)?
    forEach { a, b in
      if condition(a, b) { result = (a, b) }
      return result == nil
    }
    return result
  }

  /// Every two rules that overlap, until the body answers false. A pair may come more than once.
  package func forEach(_ body: (Int, Int) -> Bool) {
    for i in shapes.indices {
      for j in i..<shapes.count where !compare(shapes[i], shapes[j], isSame: i == j, body) { return }
    }
  }

  private func compare(
    _ a: (shape: Shape, entries: [Entry]), _ b: (shape: Shape, entries: [Entry]), isSame: Bool, _ body: (Int, Int) -> Bool
  ) -> Bool {
    if a.shape.flexible != b.shape.flexible || a.entries.count * b.entries.count <= 256 {
      for (index, first) in a.entries.enumerated() {
        let one = Cube(first.value, a.shape.mask, a.shape.flexible)
        for second in isSame ? b.entries[(index + 1)...] : b.entries[...] where first.rule != second.rule {
          if one.overlaps(Cube(second.value, b.shape.mask, b.shape.flexible)), !body(first.rule, second.rule) { return false }
        }
      }
      return true
    }
    let common = a.shape.mask & b.shape.mask
    let (few, many) = a.entries.count < b.entries.count ? (a.entries, b.entries) : (b.entries, a.entries)
    var table: [Cube.Words: [Int]] = [:]
    table.reserveCapacity(few.count)
    if isSame {
      for entry in few {
        for other in table[entry.value & common, default: []] where other != entry.rule && !body(other, entry.rule) { return false }
        table[entry.value & common, default: []].append(entry.rule)
      }
      return true
    }
    for entry in few { table[entry.value & common, default: []].append(entry.rule) }
    for entry in many {
      guard let others = table[entry.value & common] else { continue }
      for other in others where other != entry.rule && !body(other, entry.rule) { return false }
    }
    return true
  }
}

extension Cube {
  fileprivate init(_ value: Words, _ mask: Words, _ flexible: [Int]) {
    self.value = value
    self.mask = mask
    self.flexible = flexible
  }
}
