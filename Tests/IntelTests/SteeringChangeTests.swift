import FlowSteering
import FlowTables
import Foundation
import Simulation
import Testing

@testable import Intel

/// Rules change while frames come: between any two writes to the card's registers.
extension SteeringAgreementTests {
  /// Frames come between any two register writes of a change: none goes to a VM to which neither the old rules nor the
  /// new ones send it, and one that both send the same way goes that way, but for a moment when nothing is received.
  @Test func `while rules change, every frame goes by the old ones or by the new ones`() throws {
    let start = ProcessInfo.processInfo.environment["SLUICE_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 0 ... .max)
    print("SLUICE_SEED=\(start)")
    let rounds = ProcessInfo.processInfo.environment["SLUICE_STEERING_CHANGES"].flatMap { Int($0) } ?? 150
    var generator = SteeringGenerator(seed: Seed(start))
    var (looks, held, changes) = (0, 0, 0)
    var fault: String?
    while changes < rounds && fault == nil {
      let receivers = generator.receivers()
      let bench = try Bench(Steering([], for: receivers))
      var old = try CardProgram(Steering([], for: receivers), for: .intel82599)
      try bench.device.apply(try #require(old.tables))
      for _ in 0..<6 {
        // Often a few rules more, fewer or other: what people change.
        var rules = generator.rules(for: receivers)
        if generator.chance(2) { rules = Steering.numbered(Array((old.steering.userRules + rules).shuffled(using: &generator.seed).prefix(6)).map { rule in
          var rule = rule
          rule.id = 0
          return rule
        }) }
        guard let new = try? CardProgram(Steering(rules, for: receivers), for: .intel82599) else { continue }
        changes += 1
        let found = try Self.change(bench, from: old, to: new, under: (0..<40).map { _ in generator.frame() })
        looks += found.looks
        held += found.held
        fault = found.fault.map { "change \(changes): \($0)" }
        old = new
        if fault != nil { break }
      }
    }
    print("\(looks) looks between register writes of \(changes) changes, \(held) of them while nothing was received")
    #expect(fault == nil, "SLUICE_SEED=\(start) \(fault ?? "")")
    #expect(fault != nil || looks > 20 * rounds)
  }

  /// Changes rules while frames come, and says what went wrong.
  private static func change(
    _ bench: Bench, from old: CardProgram, to new: CardProgram, under frames: [[UInt8]]
  ) throws -> (looks: Int, held: Int, fault: String?) {
    let (before, after) = (Classifier(old.steering), Classifier(new.steering))
    let verdicts = frames.map { (before.verdict(on: $0.span), after.verdict(on: $0.span)) }
    var result: (looks: Int, held: Int, fault: String?) = (0, 0, nil)
    var next = 0
    bench.registers.between = {
      guard result.fault == nil else { return }
      for _ in 0..<min(3, frames.count) {
        next = (next + 1) % frames.count
        let (was, will) = verdicts[next]
        result.looks += 1
        guard let places = bench.receive(frames[next]) else {
          result.held += 1
          continue
        }
        if agrees(was, places, old.steering) || agrees(will, places, new.steering) { continue }
        // A frame that gets another owner may be lost on the way: pools are said in two registers, and VLANs apart.
        if places.isEmpty && Set(was.copies.map(\.holder)) != Set(will.copies.map(\.holder)) { continue }
        // Copies may have changed one by one; each must be one that was or will be, and what is both must be there.
        if isBetween(places, was, will, old.steering, isGroup: (frames[next].first ?? 0) & 1 == 1) { continue }
        result.fault = "\(places), neither \(was) nor \(will)\nold\n\(old.steering.rules.map(\.text).joined(separator: "\n"))\nnew\n\(new.steering.rules.map(\.text).joined(separator: "\n"))\n\(old.steering.receivers)\n\(frames[next])"
      }
    }
    try bench.device.apply(try #require(new.tables))
    bench.registers.between = {}
    return result
  }

  /// Two rules that overlap go at once: what the first dropped must not reach the second's VM on the way.
  @Test func `of rules that go together the last one goes first`() throws {
    let receivers = [Receiver(name: "a", address: .local(1)), Receiver(name: "b", address: .local(2))]
    func program(_ texts: [String]) throws -> CardProgram { try CardProgram(Steering(try texts.map { try Rule(parsing: $0) }, for: receivers), for: .intel82599) }
    let old = try program(["prio 1 match eth.type=ip udp.dst=53 then drop", "prio 2 match eth.type=ip ip.frag=no then vm b", "prio 3 for a match eth.type=ip tcp.dst=80 then drop"])
    let new = try program([])
    let frame: [UInt8] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 238, 8, 0, 69, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 9, 0, 53, 0, 8, 0, 0]
    // The order of a dictionary is another each time.
    for _ in 0..<20 {
      let bench = try Bench(old.steering)
      try bench.device.apply(try #require(old.tables))
      let found = try Self.change(bench, from: old, to: new, under: [frame])
      #expect(found.fault == nil && found.looks > 0, "\(found.fault ?? "")")
    }
  }

  /// Changes that go wrong if a guard is missing, which random ones seldom meet.
  struct HardChange: Sendable, CustomTestStringConvertible {
    let testDescription: String
    var vms = 3
    let old, new: [String]
    let frame: [UInt8]
  }
  /// A UDP datagram to port 53.
  private static func datagram(to last: UInt8, vlan: UInt8? = nil) -> [UInt8] {
    [2, 0, 0, 0, 0, last, 2, 0, 0, 0, 0, 238] + (vlan.map { [0x81, 0, 0, $0] } ?? [])
      + [8, 0, 69, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 9, 0, 53, 0, 8, 0, 0]
  }
  static let hardChanges: [HardChange] = [
    // By the old addresses and the new filters it would be v2's.
    HardChange(
      testDescription: "an address gets another owner, and the old one's frames another rule", old: ["match eth.dst=02:00:00:00:00:77 then vm v0"],
      new: ["match eth.dst=02:00:00:00:00:77 then vm v1", "for v0 match eth.type=ip udp.dst=53 then vm v2"], frame: datagram(to: 0x77)),
    // The pools of an address are in two registers: with the first one written it would be both's.
    HardChange(
      testDescription: "an address moves from the upper half of the pools to the lower", vms: 36, old: ["match eth.dst=02:00:00:00:00:77 then vm v35"],
      new: ["match eth.dst=02:00:00:00:00:77 then vm v0"], frame: datagram(to: 0x77)),
    // What pools take besides addresses is said pool by pool, the first first.
    HardChange(
      testDescription: "everything goes to a VM with a lower number", old: ["match any then vm v1"], new: ["match any then vm v0"], frame: datagram(to: 0x55)),
    // By the old addresses and the new VLANs it would be v0's, and is nobody's before and after.
    HardChange(
      testDescription: "two addresses and their VLANs change owners", old: ["match eth.dst=02:00:00:00:00:77 vlan.id=6 then vm v0", "match eth.dst=02:00:00:00:00:78 vlan.id=5 then vm v1"],
      new: ["match eth.dst=02:00:00:00:00:77 vlan.id=6 then vm v1", "match eth.dst=02:00:00:00:00:78 vlan.id=5 then vm v0"], frame: datagram(to: 0x77, vlan: 5)),
    // By the old VLANs and the new filters it would be v2's.
    HardChange(
      testDescription: "a VLAN gets another owner, and the old one's frames another rule", old: ["match vlan.id=5 then vm v0"],
      new: ["match vlan.id=5 then vm v1", "for v0 match eth.type=ip udp.dst=53 then vm v2"], frame: datagram(to: 0x77, vlan: 5)),
    // Without its filter it would be v0's, and neither set says so.
    HardChange(
      testDescription: "flow director gets another mask", old: ["match any then vm v0", "match ip.src=10.0.0.0/8 then vm v1"],
      new: ["match any then vm v0", "match ip.src=10.0.0.0/16 then vm v1"], frame: datagram(to: 0x77)),
    HardChange(
      testDescription: "an address and what is dropped of it come together", old: [],
      new: ["match eth.dst=02:00:00:00:00:77 then vm v0", "for v0 match ip.src=10.0.0.0/8 then drop"], frame: datagram(to: 0x77)),
    HardChange(
      testDescription: "two filters that overlap go together", old: ["match any then vm v0", "prio 1 match eth.type=ip udp.dst=53 then vm v1", "prio 2 match ip.src=10.0.0.1 ip.frag=no then vm v2"],
      new: ["match any then vm v0"], frame: datagram(to: 0x77)),
  ]

  @Test(arguments: hardChanges) func `no hard change sends a frame where neither set of rules does`(_ change: HardChange) throws {
    let receivers = (0..<change.vms).map { Receiver(name: "v\($0)") }
    func program(_ texts: [String]) throws -> CardProgram { try CardProgram(Steering(try texts.map { try Rule(parsing: $0) }, for: receivers), for: .intel82599) }
    let (old, new) = (try program(change.old), try program(change.new))
    // The order of a dictionary is another each time.
    for _ in 0..<10 {
      let bench = try Bench(old.steering)
      try bench.device.apply(try #require(old.tables))
      let found = try Self.change(bench, from: old, to: new, under: [change.frame])
      #expect(found.fault == nil && found.looks > 0, "\(found.fault ?? "")")
    }
  }

  /// VMs that get a frame by a verdict, and their queues.
  private static func places(_ verdict: Verdict, _ steering: Steering) -> [(vm: Int, queues: Range<Int>)] {
    verdict.copies.compactMap { copy in
      switch copy.fate {
      case .deliver(let vm, let queue?): (vm, queue..<queue + 1)
      case .deliver(let vm, nil): (vm, 0..<steering.receivers[vm].queueCount)
      case .host: (-1, 0..<1)
      case .drop, .unclaimed: nil
      }
    }
  }

  /// Whether each place is one of the old verdict's or of the new one's.
  static func isBetween(_ found: [Bench.Place], _ was: Verdict, _ will: Verdict, _ steering: Steering, isGroup: Bool) -> Bool {
    let (old, new) = (places(was, steering), places(will, steering))
    func count(_ list: [(vm: Int, queues: Range<Int>)], _ vm: Int, _ queue: Int) -> Int { list.count { $0.vm == vm && $0.queues.contains(queue) } }
    for place in found {
      let (vm, queue): (Int, Int) = if case .vm(let vm, let queue) = place { (vm, queue) } else { (-1, 0) }
      // Of several copies each is on its own: one may be there by the old rules and another by the new ones.
      let most = count(old, vm, queue) + count(new, vm, queue)
      if found.count(where: { $0 == place }) > most { return false }
    }
    // A frame for one address has no "one by one"; who takes groups is said pool by pool.
    return isGroup || was.copies.count > 1 || will.copies.count > 1
  }

  /// The card stops answering half way: it is brought back to the rules that it had.
  @Test(arguments: [1, 2, 3, 5]) func `a change that the card refuses half way leaves the old rules`(_ command: Int) throws {
    let receivers = [Receiver(name: "a", address: .local(1)), Receiver(name: "b", address: .local(2))]
    func program(_ texts: [String]) throws -> CardProgram { try CardProgram(Steering(try texts.map { try Rule(parsing: $0) }, for: receivers), for: .intel82599) }
    let old = try program(["match ip.src=2001:db8::1 then vm a", "prio 1 match eth.type=ip udp.dst=53 then vm b", "prio 2 match eth.type=ip ip.frag=no then drop"])
    let more = (1...6).map { "match ip.src=2001:db8::\($0) then vm b" }
    let new = try program(more + ["match eth.type=ip tcp.dst=80 then vm a", "match eth.dst=02:00:00:00:00:03 then vm b"])
    let bench = try Bench(old.steering)
    try bench.device.apply(try #require(old.tables))
    bench.registers.commandsLeft = command
    // What ends the refusal is the driver's way back: it clears the filters.
    #expect(throws: IntelError.self) { try bench.device.apply(try #require(new.tables)) }
    bench.registers.commandsLeft = nil
    var generator = SteeringGenerator(seed: Seed(7))
    let classifier = Classifier(old.steering)
    for _ in 0..<300 {
      let frame = generator.frame()
      let places = try #require(bench.receive(frame))
      #expect(Self.agrees(classifier.verdict(on: frame.span), places, old.steering), "\(frame) \(places)")
    }
    // And the next change is as any other.
    try bench.device.apply(try #require(new.tables))
    let next = Classifier(new.steering)
    for _ in 0..<300 {
      let frame = generator.frame()
      #expect(Self.agrees(next.verdict(on: frame.span), try #require(bench.receive(frame)), new.steering))
    }
  }
}
