import FlowSteering
import FlowTables
import Simulation
import Testing

@testable import Intel

/// A card that has more in its tables than its rules: each such entry is found before a queue is lent anything.
@Suite struct ExclusivityTests {
  typealias Bench = SteeringAgreementTests.Bench

  private func program() throws -> CardProgram {
    let receivers = [Receiver(name: "a", queueCount: 2, address: .local(1)), Receiver(name: "b", address: .local(2), vlan: 100)]
    let rules = [
      "match eth.type=ptp then vm a", "match eth.type=ip udp.dst=53 then vm b", "for a match eth.type=ip tcp.dst=80 then queue 1",
      "match ip.src=2001:db8::1 then vm a",
    ]
    return try CardProgram(Steering(try rules.map { try Rule(parsing: $0) }, for: receivers), for: .intel82599)
  }

  private func state(_ bench: Bench) -> CardState { bench.device.readSteering(bench.plan) }

  @Test func `what the driver has written is read back as it was made`() throws {
    let program = try program()
    let bench = try Bench(program.steering)
    var wanted = try #require(program.tables)
    try bench.device.apply(wanted)
    let state = state(bench)
    for index in wanted.fiveTuples.indices { wanted.fiveTuples[index].rule = 0 }
    for index in wanted.etherTypes.indices { wanted.etherTypes[index].rule = 0 }
    #expect(Set(state.tables.fiveTuples) == Set(wanted.fiveTuples))
    #expect(Set(state.tables.addresses) == Set(wanted.addresses) && Set(state.tables.vlans) == Set(wanted.vlans))
    #expect(state.tables.etherTypes == wanted.etherTypes && state.exactFlowCount == wanted.exactFlows.count)
    #expect(state.tables.defaultPool == wanted.defaultPool && state.tables.untaggedPools == wanted.untaggedPools)
    for pool in 0..<2 { #expect(throws: Never.self) { try Exclusivity(program).check(pool: pool, in: state) } }
  }

  /// What a stray hand writes, and the word by which the error names the way.
  static let strays: [(name: String, pool: Int, write: @Sendable (Bench) throws -> Void)] = [
    ("receive address", 0, { try $0.device.setAddress(.local(9), slot: 77, pool: 0) }),
    ("VLAN filter", 1, { try $0.device.setVLAN(200, pools: 2) }),
    ("broadcast", 1, { bench in bench.set(0x0F004, 1 << 27) }),
    ("all multicast", 1, { bench in bench.set(0x0F004, 1 << 28) }),
    ("all unicast", 0, { bench in
      bench.set(0x0F000, 1 << 26)
      bench.set(0x0F400, 1)
    }),
    ("without a VLAN tag", 1, { bench in bench.set(0x0F004, 1 << 24) }),
    ("EtherType filter", 1, { try $0.device.setEtherType(0x88CC, slot: 7, pool: 1, queue: 0) }),
    ("SYN filter", 1, { bench in bench.card.write(1 | 2 << 1, 0x0EC30) }),
    ("five-tuple filter", 0, { try $0.device.setFlow(IxgbeFlow(destinationPort: 22, transport: .tcp), slot: 99, pool: 0, queue: 1) }),
    ("DEF_PL", 0, { bench in bench.card.write(bench.card.read(0x051B0) & ~(1 << 29 | 0x3F << 7), 0x051B0) }),
    ("VFE", 0, { bench in bench.card.write(bench.card.read(0x05088) & ~(1 << 30), 0x05088) }),
    ("Rpl_En", 0, { bench in bench.card.write(bench.card.read(0x051B0) & ~(1 << 30), 0x051B0) }),
    ("mirror", 0, { bench in bench.card.write(1, 0x0F600) }),
    ("hashes", 0, { bench in bench.card.write(bench.card.read(0x0EE00) & ~(1 << 4), 0x0EE00) }),
    ("RQPL", 0, { bench in bench.card.write(3 << 29, 0x0EA00) }),
    ("PFVFRE", 0, { bench in bench.card.write(.max, 0x051E4) }),
    ("FDIRFREE", 0, { try $0.device.add(ExactInput(source: 1, destination: 2, sourcePort: 0, destinationPort: 0, transport: 0, pool: 0), number: 4000, queue: 0) }),
  ]

  @Test(arguments: strays.indices) func `a leftover is named, and the queue is not lent`(_ index: Int) throws {
    let stray = Self.strays[index]
    // Of groups' frames VM b has its share by its rules; one without an address has none.
    let bare = try CardProgram(Steering([], for: [Receiver(name: "a", address: .local(1)), Receiver(name: "b")]), for: .intel82599)
    let program = ["broadcast", "all multicast"].contains(stray.name) ? bare : try program()
    let bench = try Bench(program.steering)
    try bench.device.apply(try #require(program.tables))
    try stray.write(bench)
    #expect { try Exclusivity(program).check(pool: stray.pool, in: state(bench)) } throws: {
      ($0 as? RuleError)?.code == .notExclusive && "\($0)".contains(stray.name)
    }
  }
}

extension SteeringAgreementTests.Bench {
  /// Sets bits of a register.
  func set(_ offset: Int, _ bits: UInt32) { card.write(card.read(offset) | bits, offset) }
}
