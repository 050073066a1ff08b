import FlowSteering
import FlowTables
import Simulation
import Testing

@testable import Intel
@testable import Replay

/// Rules are added, removed and replaced while frames come, and after each change every guest's whole memory is searched
/// for frames that are not its own.
@Suite struct SteeringOracleTests {
  /// A frame with a tag that no other has, of a kind that rules tell apart.
  private static func frame(_ number: UInt64, run: UInt64, using seed: inout Seed) -> [UInt8] {
    let destination = [MACAddress.local(1), .local(2), .local(9), .broadcast, MACAddress(0x0100_5E00_0001)].randomElement(using: &seed)!
    let port = [UInt16(53), 80, 443].randomElement(using: &seed)!
    let host = UInt8.random(in: 1...3, using: &seed)
    let isTCP = Bool.random(using: &seed)
    let tag = withUnsafeBytes(of: (run ^ 0xA5C3_96E1_7B2D_4F08).bigEndian, Array.init) + withUnsafeBytes(of: number.bigEndian, Array.init)
    let header = isTCP ? 20 : 8
    let total = 20 + header + tag.count
    var bytes = (0..<6).map { destination.octet($0) } + [2, 0, 0, 0, 1, 0]
    if Int.random(in: 0..<4, using: &seed) == 0 { bytes += [0x81, 0, 0, [0, 5, 7].randomElement(using: &seed)!] }
    bytes += [0x08, 0, 0x45, 0, UInt8(total >> 8), UInt8(total & 255), 0, 0, 0, 0, 64, isTCP ? 6 : 17, 0, 0, 10, 0, 0, host, 10, 0, 1, 1]
    bytes += [0x20, 0, UInt8(port >> 8), UInt8(port & 255)]
    bytes += isTCP ? [0, 0, 0, 0, 0, 0, 0, 0, 0x50, [2, 0x10].randomElement(using: &seed)!, 0, 0, 0, 0, 0, 0] : [0, UInt8(8 + tag.count), 0, 0]
    return bytes + tag
  }

  /// What people write: a few rules out of these, in some order.
  private static let texts = [
    "match eth.type=ip udp.dst=53 then vm c", "match eth.type=ip tcp.dst=80 then vm b", "match ip.src=10.0.0.1 ip.frag=no then drop",
    "match ip.src=10.0.0.2 udp.dst=443 then vm a", "match tcp.flags=syn/syn then vm c", "match eth.dst=02:00:00:00:00:09 then vm c",
    "match eth.dst=01:00:5e:00:00:01 then vm a, vm b, vm c", "for a match eth.type=ip udp.dst=80 then drop", "match vlan.id=5 then vm c",
    "match eth.dst=02:00:00:00:00:01 then vm b", "for b match ip.src=10.0.0.3 ip.frag=no then vm a", "match ip.src=10.0.0.0/30 then vm c",
    "match any then vm c",
  ]

  @Test func `no guest's memory ever holds a frame that neither the old rules nor the new ones give it`() throws {
    let run = testSeed
    var seed = Seed(run)
    let vms = [ReplayOptions.VM(name: "a", address: .local(1)), .init(name: "b", address: .local(2)), .init(name: "c")]
    let receivers = vms.map { Receiver(name: $0.name, address: $0.address) }
    func program() -> CardProgram {
      while true {
        let rules = Self.texts.shuffled(using: &seed).prefix(.random(in: 0...5, using: &seed)).enumerated().map { place, text in
          var rule = try! Rule(parsing: text)
          rule.priority = place
          return rule
        }
        if let program = try? CardProgram(Steering(rules, for: receivers), for: .intel82599) { return program }
      }
    }
    var options = ReplayOptions(files: [])
    options.ringSize = 256
    // With rules, so that flow director has its memory.
    options.rules = [try Rule(parsing: "match ip.src=10.0.0.0/30 ip.dst=10.0.1.1 then vm c")]
    let rig = try Rig(options, vms: vms, hashes: false, sinks: [:])
    var old = try CardProgram(Steering(options.rules, for: receivers), for: .intel82599)
    var allowed = Array(repeating: Set<UInt64>(), count: 3)
    var (number, delivered) = (UInt64(0), 0)

    func send(_ count: Int, by programs: [CardProgram]) {
      for _ in 0..<count {
        let bytes = Self.frame(number, run: run, using: &seed)
        for program in programs {
          let vms = RuleIndex(program.steering).receivers(of: bytes.span)
          for vm in 0..<3 where vms >> UInt64(vm) & 1 == 1 { allowed[vm].insert(number) }
        }
        bytes.withUnsafeBytes { _ = rig.card.receive(WireFrame(bytes: $0.baseAddress!, count: $0.count)) }
        number += 1
        if number % 16 == 0 { settle() }
      }
    }
    func settle() {
      for lane in rig.lanes.indices { rig.worker.withPath(lane) { _ = turnPath(&$0) } }
      for machine in rig.machines { delivered += machine.guest.step(queue: 0) }
    }
    for change in 0..<40 {
      let new = program()
      send(40, by: [old])
      // Frames that are in the card's queues stay where they are: they came by the old rules.
      try rig.driver.apply(try #require(new.tables))
      send(40, by: [new])
      settle()
      for vm in 0..<3 {
        let strangers = IsolationTests.tags(in: rig, machine: vm, run: run).subtracting(allowed[vm])
        #expect(
          strangers.isEmpty,
          "SEED=\(run) change \(change): VM \(vms[vm].name) holds \(strangers.sorted().prefix(5))\n\(old.steering.rules.map(\.text))\n\(new.steering.rules.map(\.text))")
      }
      old = new
    }
    for machine in rig.machines { #expect(machine.guest.violations.lines.isEmpty) }
    #expect(delivered > 500 && rig.iommu.faultCount == 0)
  }
}
