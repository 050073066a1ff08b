/// What becomes of a frame, from the rules alone: the reference that every card's tables are held against.
///
/// Two steps, as cards and virtio's own flow filter take them. First the address rules say whose the frame is: the first
/// that matches decides; without one it is nobody's. Then, for each VM that it is for, or once if it is the host's or
/// nobody's, the first flow rule that matches decides; without one it stays where it was, and what is nobody's is
/// dropped. An address rule that names a queue or drops has the last word.
///
/// Written for reading: it looks at one rule after the other. `RuleIndex` is the quick one.
public struct Classifier: Sendable {
  public let steering: Steering

  public init(_ steering: Steering) { self.steering = steering }

  public func verdict(on frame: Span<UInt8>) -> Verdict {
    guard let fields = FrameFields(frame) else { return Verdict(addressRule: nil, copies: []) }
    func first(_ step: Rule.Step, for vm: String?) -> Int? {
      steering.rules.indices.first { index in
        let rule = steering.rules[index]
        return rule.step == step && (rule.owner == nil || rule.owner == vm) && rule.match.matches(frame, fields)
      }
    }
    let addressRule = first(.address, for: nil)
    var copies: [Verdict.Copy] = []
    func decideFlow(for holder: Verdict.Holder) {
      var vm: String?
      if case .vm(let number) = holder { vm = steering.receivers[number].name }
      let index = first(.flow, for: vm)
      let fates: [Verdict.Fate] =
        switch index.map({ steering.rules[$0].decision }) {
        case .deliver(let targets)?: targets.map { .deliver(vm: steering.number(of: $0.vm), queue: $0.queue) }
        case .queue(let queue)?: [holder.fate(queue: queue)]
        case .drop?: [.drop]
        case .host?: [.host]
        case nil: [holder.fate(queue: nil)]
        }
      copies += fates.map { Verdict.Copy(holder: holder, flowRule: index, fate: $0) }
    }
    switch addressRule.map({ steering.rules[$0].decision }) {
    case .deliver(let targets)?:
      for target in targets {
        let vm = steering.number(of: target.vm)
        if let queue = target.queue {
          copies.append(Verdict.Copy(holder: .vm(vm), flowRule: nil, fate: .deliver(vm: vm, queue: queue)))
        } else {
          decideFlow(for: .vm(vm))
        }
      }
    case .drop?: copies.append(Verdict.Copy(holder: .nobody, flowRule: nil, fate: .drop))
    case .host?: decideFlow(for: .host)
    case .queue?, nil: decideFlow(for: .nobody)
    }
    return Verdict(addressRule: addressRule, copies: copies)
  }
}

/// What becomes of a frame, and by which rules: indices into the steering's.
public struct Verdict: Hashable, Sendable {
  public var addressRule: Int?
  public var copies: [Copy]

  public struct Copy: Hashable, Sendable {
    public var holder: Holder
    public var flowRule: Int?
    public var fate: Fate
  }

  /// For whom a copy is before flow rules see it.
  public enum Holder: Hashable, Sendable {
    case vm(Int), host, nobody

    func fate(queue: Int?) -> Fate {
      switch self {
      case .vm(let number): .deliver(vm: number, queue: queue)
      case .host: .host
      case .nobody: .unclaimed
      }
    }
  }

  public enum Fate: Hashable, Sendable {
    /// Without a queue the card chooses among the VM's.
    case deliver(vm: Int, queue: Int?)
    case host
    case drop
    /// Nobody's, and no rule took it: dropped.
    case unclaimed
  }
}

extension Match {
  /// Whether a frame is as it says.
  public func matches(_ frame: Span<UInt8>, _ fields: FrameFields) -> Bool {
    for pair in pairs where !pair.pattern.matches(fields.value(of: pair.field, in: frame)) { return false }
    return true
  }
}
