import FlowSteering
import FlowTables
import Foundation
import Simulation
import Testing

@testable import Intel
@testable import Replay

/// What the card's filters count of each rule is what the rules say, frame by frame: `RuleTest` decides from the rules
/// alone.
@Suite struct RuleCountTests {
  static let sets: [[String]] = [
    ["prio 10 match eth.type=arp then host, count", "prio 10 match udp.dst=53 then host, count", "prio 20 match tcp.dst=443 then drop, count", "match any then vm a, count"],
    ["match eth.dst=ff:ff:ff:ff:ff:ff then vm a, vm b, count", "prio 5 match tcp.flags=syn/syn then drop, count", "match eth.type=ip udp.dst=53 then vm b, count", "match ip.src=0.0.0.0/1 then vm b, count"],
    ["match vlan.id=1 then vm b, count", "match vlan.id=2 then vm c, count", "match ip.src=2000::/8 then drop, count", "match vlan.id=none then vm a, count"],
    ["match eth.dst=multicast then vm a, vm b, vm c", "for b match udp.dst=5353 then vm c, count", "for a match eth.type=ip udp.dst=67 then drop, count"],
  ]

  @Test(arguments: sets) func `the card counts each rule's frames, and the host gets its own`(_ texts: [String]) throws {
    let files = Place.files(under: Place.package + "/Traces").filter { !$0.contains("flood") && !$0.contains("jumbo") }
    let rules = try texts.map { try Rule(parsing: $0) }
    var options = ReplayOptions(files: files)
    options.rules = Steering.numbered(rules)
    options.ringSize = 512
    // The card drops what is too long before it looks at anything else.
    options.mtu = 9710
    // Addresses and VLANs do not go together.
    let hasVLANs = texts.contains { $0.contains("vlan") }
    options.vms = [.init(name: "a"), .init(name: "b", address: hasVLANs ? nil : .local(2)), .init(name: "c", address: hasVLANs ? nil : .local(3))]
    let report = try Stage(options).run()
    expectSound(report, "\(texts)")
    let receivers = options.vms.map { Receiver(name: $0.name, address: $0.address) }
    let wanted = try RuleTest(files: files, filter: nil, steering: Steering(options.rules, for: receivers)).run()
    #expect(wanted.frames == report.frames.received && wanted.frames > 300)
    #expect(report.rules.count == wanted.rules.count)
    for (found, wanted) in zip(report.rules, wanted.rules) {
      #expect(found.text == wanted.text)
      // Only a rule that says so must be counted.
      if found.frames != nil || found.text.contains("count") { #expect(found.frames == wanted.frames && found.bytes == wanted.bytes, "\(found.text)") }
    }
    #expect((report.host?.frames ?? 0) == wanted.host.frames && (report.host?.bytes ?? 0) == wanted.host.bytes)
    #expect(report.rules.filter { ($0.frames ?? 0) > 0 }.count > 1)
  }

  /// Frames, and changes of the rules between them: every frame is counted once, for the rules of its time.
  @Test func `counts stay with their rules while others come and go`() throws {
    let run = testSeed
    var seed = Seed(run)
    let vms = [ReplayOptions.VM(name: "a", address: .local(1)), .init(name: "b", address: .local(2)), .init(name: "c")]
    let receivers = vms.map { Receiver(name: $0.name, address: $0.address) }
    let texts = [
      "match ip.src=10.0.0.1 ip.dst=10.0.0.2 then vm c", "match ip.src=10.0.0.1 ip.dst=10.0.0.3 then vm b", "match udp.dst=53 ip.frag=no then drop",
      "match eth.dst=02:00:00:00:00:07 then vm c", "match ip.src=10.0.0.2 ip.dst=10.0.0.2 then drop", "match eth.dst=ff:ff:ff:ff:ff:ff then vm a, vm b, vm c",
      "for a match tcp.dst=80 then vm b", "match tcp.flags=syn/syn then vm c",
    ]
    let pool = try texts.enumerated().map { place, text in
      var rule = try Rule(parsing: text + ", count")
      (rule.id, rule.priority) = (place + 1, place)
      return rule
    }
    func program(_ rules: [Rule]) -> CardProgram? { try? CardProgram(Steering(rules, for: receivers), for: .intel82599) }
    var options = ReplayOptions(files: [])
    options.rules = [pool[0]]
    let rig = try Rig(options, vms: vms, hashes: false, sinks: [:])
    var (now, counter) = (try #require(program([pool[0]])), RuleCounter())
    func owners(_ program: CardProgram) -> RuleCounter.Owners { .init(program, slots: rig.driver.filterSlots(of: program.tables!)) }
    var wanted: [Rule: UInt64] = [:]
    var total: UInt64 = 0

    func send() {
      let index = RuleIndex(now.steering)
      for _ in 0..<60 {
        let frame = Self.frame(using: &seed)
        var (address, flow) = (-1, Set<String>())
        index.decide(frame.span) { rule, copy in
          if let rule, rule != address {
            address = rule
            wanted[now.steering.rules[rule], default: 0] += 1
          }
          if let rule = copy.flowRule, flow.insert("\(rule) \(copy.holder)").inserted { wanted[now.steering.rules[rule], default: 0] += 1 }
        }
        frame.withUnsafeBytes { _ = rig.card.receive(WireFrame(bytes: $0.baseAddress!, count: $0.count)) }
      }
      for lane in rig.lanes.indices { rig.worker.withPath(lane) { _ = turnPath(&$0) } }
      for machine in rig.machines { _ = machine.guest.step(queue: 0) }
    }
    for change in 0..<60 {
      send()
      if let new = program(pool.shuffled(using: &seed).prefix(.random(in: 0...6, using: &seed)).sorted { $0.id < $1.id }) {
        let old = owners(now)
        counter.collect(rig.card.filterCounts, by: old)
        // While the card is being changed, frames go by the old rules for a while.
        let isBusy = Bool.random(using: &seed)
        if isBusy { send() }
        try rig.driver.apply(try #require(new.tables))
        counter.collect(rig.card.filterCounts, left: old, for: owners(new))
        let before = Set(now.steering.rules)
        now = new
        let stays = Set(now.steering.rules)
        if isBusy {
          // An entry that has become another rule's gives that one such frames too; what stays has just its own.
          let whose = owners(now)
          counter.collect(rig.card.filterCounts, by: whose)
          for rule in now.steering.rules where !before.contains(rule) || rule.origin == .vm { wanted[rule] = counter.count(of: rule, by: whose)?.frames }
        }
        wanted = wanted.filter { stays.contains($0.key) }
      }
      send()
      let whose = owners(now)
      counter.collect(rig.card.filterCounts, by: whose)
      for rule in now.steering.rules {
        guard let found = counter.count(of: rule, by: whose) else { continue }
        total += found.frames
        #expect(found.frames == wanted[rule] ?? 0, "SEED=\(run) change \(change): \(rule.text)\n\(now.steering.rules.map(\.text))")
      }
    }
    #expect(total > 5000)
  }

  private static func frame(using seed: inout Seed) -> [UInt8] {
    let destination = [MACAddress.local(1), .local(2), .local(7), .broadcast].randomElement(using: &seed)!
    let isTCP = Bool.random(using: &seed)
    var bytes = (0..<6).map { destination.octet($0) } + [2, 0, 0, 0, 1, 0, 8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, isTCP ? 6 : 17, 0, 0]
    bytes += [10, 0, 0, .random(in: 1...2, using: &seed), 10, 0, 0, .random(in: 2...3, using: &seed)]
    bytes += [0x20, 0, 0, [53, 80].randomElement(using: &seed)!] + (isTCP ? [0, 0, 0, 0, 0, 0, 0, 0, 0x50, [2, 0x10].randomElement(using: &seed)!] : [0, 26])
    return bytes + Array(repeating: 0, count: 60 - bytes.count)
  }
}
