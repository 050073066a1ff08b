/// What becomes of a frame, from the rules alone: the reference that every card's tables are held against.
///
/// Two steps, as cards and virtio's own flow filter take them. First the address rules say whose the frame is: the first
/// that matches decides; without one it is nobody's. Then, for each VM that it is for, or once if it is nobody's, the
/// first flow rule that matches decides; without one the VM gets it, and what is nobody's is dropped. An address rule
/// that names a queue, drops, or takes the frame for the host has the last word.
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
    func decideFlow(for vm: Int?) {
      let index = first(.flow, for: vm.map { steering.receivers[$0].name })
      let fates: [Verdict.Fate] =
        switch index.map({ steering.rules[$0].decision }) {
        case .deliver(let targets)?: targets.map { .deliver(vm: steering.number(of: $0.vm), queue: $0.queue) }
        case .queue(let queue)?: [vm.map { .deliver(vm: $0, queue: queue) } ?? .unclaimed]
        case .drop?: [.drop]
        case .host?: [.host]
        case nil: [vm.map { .deliver(vm: $0, queue: nil) } ?? .unclaimed]
        }
      copies += fates.map { Verdict.Copy(vm: vm, flowRule: index, fate: $0) }
    }
    switch addressRule.map({ steering.rules[$0].decision }) {
    case .deliver(let targets)?:
      for target in targets {
        let vm = steering.number(of: target.vm)
        if let queue = target.queue {
          copies.append(Verdict.Copy(vm: vm, flowRule: nil, fate: .deliver(vm: vm, queue: queue)))
        } else {
          decideFlow(for: vm)
        }
      }
    case .drop?: copies.append(Verdict.Copy(vm: nil, flowRule: nil, fate: .drop))
    case .host?: copies.append(Verdict.Copy(vm: nil, flowRule: nil, fate: .host))
    case .queue?, nil: decideFlow(for: nil)
    }
    return Verdict(addressRule: addressRule, copies: copies)
  }
}

/// What becomes of a frame, and by which rules: indices into the steering's.
public struct Verdict: Hashable, Sendable {
  public var addressRule: Int?
  public var copies: [Copy]

  public struct Copy: Hashable, Sendable {
    /// For whom it was before flow rules; nil: nobody.
    public var vm: Int?
    public var flowRule: Int?
    public var fate: Fate
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
