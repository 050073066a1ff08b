/// The rules of a port, quick to ask: a hash table for each mask that they use. Decides as `Classifier` does.
public struct RuleIndex: Sendable {
  public let steering: Steering
  private let addresses: Step
  /// For frames that are nobody's, and for each VM's.
  private let unclaimed: Step
  private let flows: [Step]
  /// Targets by rule, as numbers.
  private let targets: [[(vm: Int, queue: Int?)]]

  public init(_ steering: Steering) {
    self.steering = steering
    func step(_ which: Rule.Step, for owner: String?) -> Step {
      Step(steering.rules) { $0.step == which && ($0.owner == nil || $0.owner == owner) }
    }
    addresses = step(.address, for: nil)
    unclaimed = step(.flow, for: nil)
    flows = steering.receivers.map { step(.flow, for: $0.name) }
    targets = steering.rules.map { rule in
      guard case .deliver(let targets) = rule.decision else { return [] }
      return targets.map { (steering.number(of: $0.vm), $0.queue) }
    }
  }

  /// What is told of each copy of a frame.
  public typealias Visit = (_ addressRule: Int?, _ copy: Verdict.Copy) -> Void

  /// Tells what becomes of each copy of a frame. Not called for what is too short to be a frame.
  @inline(__always) public func decide(_ frame: Span<UInt8>, _ visit: Visit) {
    guard let fields = FrameFields(frame) else { return }
    let key = Cube.key(of: fields)
    guard let index = addresses.first(key, frame) else { return decideFlow(nil, .nobody, key, frame, visit) }
    switch steering.rules[index].decision {
    case .deliver:
      for (vm, queue) in targets[index] {
        if let queue {
          visit(index, Verdict.Copy(holder: .vm(vm), flowRule: nil, fate: .deliver(vm: vm, queue: queue)))
        } else {
          decideFlow(index, .vm(vm), key, frame, visit)
        }
      }
    case .drop: visit(index, Verdict.Copy(holder: .nobody, flowRule: nil, fate: .drop))
    case .host: decideFlow(index, .host, key, frame, visit)
    case .queue: preconditionFailure("a rule for a queue is a flow rule")
    }
  }

  private func decideFlow(_ addressRule: Int?, _ holder: Verdict.Holder, _ key: Cube.Words, _ frame: Span<UInt8>, _ visit: Visit) {
    let step = if case .vm(let number) = holder { flows[number] } else { unclaimed }
    guard let index = step.first(key, frame) else {
      return visit(addressRule, Verdict.Copy(holder: holder, flowRule: nil, fate: holder.fate(queue: nil)))
    }
    func tell(_ fate: Verdict.Fate) { visit(addressRule, Verdict.Copy(holder: holder, flowRule: index, fate: fate)) }
    switch steering.rules[index].decision {
    case .deliver: for (target, queue) in targets[index] { tell(.deliver(vm: target, queue: queue)) }
    case .queue(let queue): tell(holder.fate(queue: queue))
    case .drop: tell(.drop)
    case .host: tell(.host)
    }
  }

  public func verdict(on frame: Span<UInt8>) -> Verdict {
    var verdict = Verdict(addressRule: nil, copies: [])
    decide(frame) { rule, copy in
      verdict.addressRule = rule
      verdict.copies.append(copy)
    }
    return verdict
  }

  /// The VMs that get a frame: bit n is the n-th of the first 64.
  public func receivers(of frame: Span<UInt8>) -> UInt64 {
    var result: UInt64 = 0
    decide(frame) { _, copy in if case .deliver(let vm, _) = copy.fate { result |= 1 << UInt64(vm) } }
    return result
  }
}

/// The rules of one step.
private struct Step: Sendable {
  /// Those with one mask.
  fileprivate struct Table: Sendable {
    let mask: Cube.Words
    let flexible: [Int]
    /// Its first rule; tables are asked in this order.
    var first: Int
    var rules: [Cube.Words: Int] = [:]
    /// Slots of the open table, by hash.
    var slots: [Int32] = []
    var values: [Cube.Words] = []
    var numbers: [Int32] = []
  }
  private var tables: [Table] = []

  init(_ rules: [Rule], where isMember: (Rule) -> Bool) {
    var found: [[Int]: [Cube.Words: Int]] = [:]
    for (index, rule) in rules.enumerated() where isMember(rule) {
      for cube in rule.match.cubes {
        let place = found[cube.flexible]?[cube.mask] ?? tables.count
        if place == tables.count {
          found[cube.flexible, default: [:]][cube.mask] = place
          tables.append(Table(mask: cube.mask, flexible: cube.flexible, first: index))
        }
        // Of two rules alike the first decides.
        if tables[place].rules[cube.value] == nil { tables[place].rules[cube.value] = index }
      }
    }
    for index in tables.indices { tables[index].close() }
  }

  /// The first rule that matches.
  @inline(__always) func first(_ key: Cube.Words, _ frame: Span<UInt8>) -> Int? {
    var best = Int32.max
    for table in tables {
      if table.first > Int(best) { break }
      if let rule = table.rule(key, frame), rule < best { best = rule }
    }
    return best == .max ? nil : Int(best)
  }
}

extension Step.Table {
  /// Makes the open table from the dictionary: at most half full, a power of two.
  mutating func close() {
    var size = 2
    while size < rules.count * 2 { size *= 2 }
    slots = Array(repeating: -1, count: size)
    for (value, rule) in rules {
      var slot = Self.hash(value) & (size - 1)
      while slots[slot] >= 0 { slot = (slot + 1) & (size - 1) }
      slots[slot] = Int32(values.count)
      values.append(value)
      numbers.append(Int32(rule))
    }
    rules = [:]
  }

  private static func hash(_ value: Cube.Words) -> Int {
    let multipliers = Cube.Words(
      0x9E37_79B9_7F4A_7C15, 0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB, 0xD6E8_FEB8_6659_FD93,
      0xA076_1D64_78BD_642F, 0xE703_7ED1_A0B4_28DB, 0x8EBC_6AF0_9C88_C6E3, 0x5899_65CC_7537_4CC3)
    let mixed = (value ^ (value &>> 29)) &* multipliers
    let sum = mixed.wrappedSum()
    return Int(truncatingIfNeeded: sum ^ sum &>> 32)
  }

  @inline(__always) func rule(_ key: Cube.Words, _ frame: Span<UInt8>) -> Int32? {
    var key = key
    if !flexible.isEmpty {
      var place: UInt64 = 16
      for offset in flexible {
        guard let value = FrameFields.flexible(frame, at: offset) else { return nil }
        key[7] |= UInt64(value) &<< place
        place += 16
      }
    }
    key &= mask
    let last = slots.count - 1
    var slot = Self.hash(key) & last
    while slots[slot] >= 0 {
      let entry = Int(slots[slot])
      if values[entry] == key { return numbers[entry] }
      slot = (slot + 1) & last
    }
    return nil
  }
}
