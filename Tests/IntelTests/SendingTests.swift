import FlowSteering
import FlowTables
import Simulation
import Testing

@testable import Intel

/// What a VM may send, and what sees to it: the card's registers where they say exactly that, else the processor.
@Suite struct SendingTests {
  typealias Bench = SteeringAgreementTests.Bench

  private static func vm(_ name: String, _ number: Int, vlan: UInt16? = nil, port: VLANPort = .access) -> Receiver {
    var receiver = Receiver(name: name, address: .local(number), vlan: vlan)
    (receiver.checksSource, receiver.port) = (true, port)
    return receiver
  }
  private func program(_ receivers: [Receiver], _ rules: [String] = [], _ profile: CardProfile = .intel82599) throws -> CardProgram {
    try CardProgram(Steering(try rules.map { try Rule(parsing: $0) }, for: receivers), for: profile)
  }
  private func bench(_ program: CardProgram) throws -> Bench {
    let bench = try Bench(program.steering)
    try bench.device.apply(try #require(program.tables))
    return bench
  }

  // MARK: The plan

  @Test func `the 82599 checks what is exactly a VM's own`() throws {
    let program = try program([Self.vm("a", 1, vlan: 100), Self.vm("b", 2, vlan: 200, port: .tagged), Self.vm("c", 3), Receiver(name: "d", address: .local(4))])
    let sending = try #require(program.sending)
    #expect(sending.card.addressPools == 0b0111 && sending.card.vlanPools == 0b0011 && sending.card.portVLANs == [0: 100])
    #expect(sending.processor.map(\.isEmpty) == [false, true, true, true])
    // Of the access port a tag of the guest's own is left to the processor.
    #expect(sending.processor[0].address == nil && sending.processor[0].vlan == 100 && sending.processor[0].portVLAN == 100)
    #expect(program.tables?.sending == sending.card)
  }

  @Test func `rules that give a VM more addresses, or fewer, leave its source to the processor`() throws {
    let vms = [Self.vm("a", 1), Self.vm("b", 2)]
    for rule in [
      "match eth.dst=02:00:00:00:00:09 then vm a", "match eth.dst=02:00:00:00:00:02 then vm b, vm a", "match eth.dst=02:00:00:00:00:01 then vm b",
      "match any then vm b",
    ] {
      let sending = try #require(try program(vms, [rule]).sending)
      #expect(sending.card.addressPools & 1 == 0 && sending.processor[0].address == .local(1), "\(rule)")
    }
    let sending = try #require(try program(vms, ["match eth.dst=02:00:00:00:00:09 then drop"]).sending)
    #expect(sending.card.addressPools == 0b11 && sending.processor.allSatisfy(\.isEmpty))
  }

  @Test func `rules that put a VM into another VLAN leave its tags to the processor`() throws {
    let vms = [Self.vm("a", 1, vlan: 100, port: .tagged), Self.vm("b", 2, vlan: 200, port: .tagged)]
    let sending = try #require(try program(vms, ["match eth.dst=02:00:00:00:00:01 vlan.id=300 then vm a", "match eth.dst=multicast vlan.id=300 then vm a"]).sending)
    #expect(sending.card.vlanPools == 0b10 && sending.processor[0].vlan == 100 && sending.processor[1].vlan == nil)
  }

  @Test(arguments: [CardProfile.intel82576, .intelI350]) func `on a card that has not been seen to check, the processor does it too`(_ profile: CardProfile) throws {
    let sending = try #require(try program([Self.vm("a", 1, vlan: 100, port: .tagged), Self.vm("b", 2)], [], profile).sending)
    #expect(sending.card.addressPools == 0b11 && sending.card.vlanPools == 0b01)
    #expect(sending.processor[0].address == .local(1) && sending.processor[0].vlan == 100 && sending.processor[1].address == .local(2))
  }

  @Test func `an access port that the card cannot make is refused`() throws {
    let mixed = [Self.vm("a", 1, vlan: 100), Self.vm("b", 2)]
    let error = #expect(throws: RuleError.self) { try program(mixed, [], .intel82576) }
    #expect(error?.code == .actionUnsupported && "\(error!)".contains("vlan-port: tagged"))
    _ = try program(mixed, [], .intelI350)
    _ = try program([Self.vm("a", 1, vlan: 100), Self.vm("b", 2, vlan: 200)], [], .intel82576)
  }

  // MARK: The 82599's registers

  @Test func `each pool has its bits in PFVFSPOOF, and its tag in PFVMVIR`() throws {
    let program = try program((0..<61).map { Self.vm("v\($0)", $0 + 1, vlan: UInt16(10 + $0), port: $0 % 3 == 0 ? .access : .tagged) })
    let bench = try bench(program)
    for n in 0..<8 {
      let pools: UInt32 = n < 7 ? 0xFF : 0x1F
      #expect(bench.card.read(0x8200 + 4 * n) == pools | pools << 8)
    }
    for pool in 0..<64 { #expect(bench.card.read(0x8000 + 4 * pool) == (pool < 61 && pool % 3 == 0 ? 1 << 30 | UInt32(10 + pool) : 0)) }
    let state = bench.device.readSending(bench.plan)
    #expect(state.tables.sending == program.tables?.sending)
    #expect(bench.device.readSteering(bench.plan).tables.sending == program.tables?.sending)
    for pool in 0..<61 { #expect(throws: Never.self) { try Exclusivity(program).checkSending(pool: pool, in: state) } }
    // Other rules: what is not asked for any more goes.
    try bench.device.apply(CardTables(plan: bench.plan))
    for n in 0..<8 { #expect(bench.card.read(0x8200 + 4 * n) == 0) }
    for pool in 0..<64 { #expect(bench.card.read(0x8000 + 4 * pool) == 0) }
  }

  @Test func `a queue of an access port takes tags off, another does not`() throws {
    let bench = try bench(try program([Self.vm("a", 1, vlan: 100), Self.vm("b", 2, vlan: 200, port: .tagged)]))
    for pool in 0..<2 {
      let number = bench.device.queueIndex(pool: pool, queue: 0)
      var queue = try bench.device.makeReceiveQueue(number, ringSize: 64, bufferByteCount: bench.device.largestFrame)
      try queue.start()
      #expect(bench.card.read(0x1028 + 0x40 * number) >> 30 & 1 == (pool == 0 ? 1 : 0))
      try queue.quiesce()
    }
  }

  /// What another hand leaves, and the word by which the error names it.
  static let strays: [(name: String, pool: Int, write: @Sendable (Bench) throws -> Void)] = [
    ("MACAS", 0, { $0.card.write($0.card.read(0x8200) & ~1, 0x8200) }),
    ("VLANAS", 1, { $0.card.write($0.card.read(0x8200) & ~(1 << 9), 0x8200) }),
    ("MACAS", 2, { $0.card.write($0.card.read(0x8200) | 1 << 2, 0x8200) }),
    ("PFVMVIR", 0, { $0.card.write(0, 0x8000) }),
    ("PFVMVIR", 0, { $0.card.write(1 << 30 | 200, 0x8000) }),
    ("PFVMVIR", 1, { $0.card.write(2 << 30, 0x8004) }),
    ("receive addresses", 0, { try $0.device.setAddress(.local(2), slot: 77, pool: 0) }),
    ("VLAN filters", 1, { try $0.device.setVLAN(300, pools: 2) }),
  ]

  @Test(arguments: strays.indices) func `a check that is not as configured is named, and the queue does not send`(_ index: Int) throws {
    let stray = Self.strays[index]
    let program = try program([Self.vm("a", 1, vlan: 100), Self.vm("b", 2, vlan: 200, port: .tagged), Receiver(name: "c", address: .local(3))])
    let bench = try bench(program)
    for pool in 0..<3 { #expect(throws: Never.self) { try Exclusivity(program).checkSending(pool: pool, in: bench.device.readSending(bench.plan)) } }
    try stray.write(bench)
    #expect { try Exclusivity(program).checkSending(pool: stray.pool, in: bench.device.readSending(bench.plan)) } throws: {
      ($0 as? RuleError)?.code == .notExclusive && "\($0)".contains(stray.name)
    }
  }
}
