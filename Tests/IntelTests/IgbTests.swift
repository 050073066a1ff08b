import Bus
import FlowSteering
import FlowTables
import Linux
import Simulation
import Testing

@testable import Intel

/// The 82576's driver against its registers alone: what it writes where. `MachineTests` has it on a card.
@Suite struct IgbTests {
  /// Registers that remember, and answer as little as the driver needs. Offsets are the datasheet's.
  @safe private final class Registers: RegisterFile {
    private let memory: MappedRegisters
    private let mapping: Mapping
    private(set) var log: [(offset: Int, value: UInt32)] = []
    /// The PHY's control register.
    private(set) var phy: UInt32 = 0x1140

    init() throws {
      mapping = try Mapping(anonymousBytes: 0x20000)
      memory = unsafe MappedRegisters(unsafe: mapping.base, byteCount: mapping.byteCount)
      memory.write(1 << 9, 0x10)
      memory.write(1 << 19, 0x8)
    }
    subscript(offset: Int) -> UInt32 { memory.read(offset) }
    func read(_ offset: Int) -> UInt32 { memory.read(offset) }
    func write(_ value: UInt32, _ offset: Int) {
      log.append((offset, value))
      switch offset {
      case 0x0:
        memory.write(value & ~(1 << 26), 0)
        memory.write(value & 4 == 0 ? 1 << 19 : 0, 0x8)
        // Queue 0 is on after a reset, both ways.
        if value & 1 << 26 != 0 { for at in [0xC028, 0xE028] { memory.write(1 << 25, at) } }
      case 0x20:
        if value >> 26 & 3 == 1 { phy = value & 0xFFFF }
        memory.write(value & ~0xFFFF | phy | 1 << 28, 0x20)
      default: memory.write(value, offset)
      }
    }
    func doorbell(_ offset: Int) -> Doorbell { memory.doorbell(offset) }
    func last(_ offset: Int) -> Int { log.lastIndex { $0.offset == offset } ?? -1 }
  }

  private struct Bench {
    let registers: Registers
    let iommu = SimulatedIOMMU()
    let device: Igb
    init(_ configure: (inout Igb.Configuration) -> Void = { _ in }) throws {
      registers = try Registers()
      var configuration = Igb.Configuration()
      configure(&configuration)
      device = try Igb(registers: registers, space: iommu, allocator: IOVAAllocator(), clock: SimulatedClock(), configuration: configuration)
    }
  }

  private func tables(_ rules: [String] = [], _ vms: [Receiver]) throws -> CardTables {
    try #require(try CardProgram(Steering(rules.map { try Rule(parsing: $0) }, for: vms), for: .intel82576).tables)
  }
  private let a = Receiver(name: "a", address: MACAddress(0x5254_0012_3456))
  private let b = Receiver(name: "b", address: MACAddress(0x5254_0012_3457))

  @Test func `after its start nothing is let in, and pools are told apart`() throws {
    let bench = try Bench()
    let card = bench.registers
    #expect(card[0x100] & 2 == 0, "RCTL.RXEN")
    #expect(card[0x5818] == 3, "MRQC: pools by address and VLAN")
    #expect(card[0x581C] == 1 << 29 | 1 << 30, "VT_CTL: no default pool, copies")
    for pool in 0..<8 { #expect(card[0x5AD0 + 4 * pool] == 1 << 31 | 1 << 16 | 1522, "VMOLR: the limit, the check sequence taken off, and nothing accepted") }
    #expect(card[0x5004] == 1522 && card[0x100] & 1 << 5 != 0, "RLPML, RCTL.LPE")
    #expect(card[0x2408] == 0xFFFF, "QDE")
    #expect(card.log.contains { $0 == (0xC028, 0) } && card.log.contains { $0 == (0xE028, 0) }, "queues that a reset turns on are off")
    #expect(card.phy & 0x1200 == 0x1200, "the PHY negotiates anew")
    #expect(card[0x5B5C] == 0 && card[0x5B50] & 3 == 0, "the PHY's semaphores are given back")
    #expect(card[0x1514] == 1 | 1 << 4 | 1 << 30 | 1 << 31, "GPIE")
  }

  @Test func `an address is written low first, and its pools come with its valid bit`() throws {
    let bench = try Bench()
    try bench.device.apply(tables([], [a, b]))
    let card = bench.registers
    let slots = (0..<24).map { $0 < 16 ? 0x5400 + 8 * $0 : 0x54E0 + 8 * ($0 - 16) }
    let used = slots.filter { card[$0 + 4] >> 31 == 1 }
    #expect(used.count == 2)
    #expect(card[used[0]] == 0x1200_5452 && card[used[0] + 4] == 1 << 31 | 1 << 18 | 0x5634)
    #expect(card[used[1] + 4] == 1 << 31 | 1 << 19 | 0x5734)
    for slot in used { #expect(card.last(slot) < card.last(slot + 4)) }
    #expect(card[0xC8C] == 0xFF & ~(1 << 7), "VFRE: the closed pool takes part in nothing")
  }

  @Test func `what was applied is what is read back, before and after a change`() throws {
    let bench = try Bench()
    var vms = [a, b]
    let sets: [[String]] = [
      [], ["match eth.dst=02:00:00:00:00:09 then vm b"], ["prio 1 match eth.dst=broadcast then vm a", "match eth.dst=multicast then vm b"],
      ["match eth.dst=02:00:00:00:00:09 then vm a, vm b", "match eth.dst=broadcast then drop"],
    ]
    for (rules, vlans) in sets.map({ ($0, [UInt16?]([nil, nil])) }) + [([], [7, 8]), ([], [nil, nil]), ([], [9, 7])] {
      vms = zip([a, b], vlans).map { Receiver(name: $0.name, address: $0.address, vlan: $1) }
      let program = try CardProgram(Steering(rules.map { try Rule(parsing: $0) }, for: vms), for: .intel82576)
      let wanted = try #require(program.tables)
      try bench.device.apply(wanted)
      let found = bench.device.readSteering(wanted.plan).tables
      #expect(Set(found.addresses) == Set(wanted.addresses))
      #expect(Set(found.vlans) == Set(wanted.vlans) && found.filtersVLANs == wanted.filtersVLANs)
      #expect([found.broadcastPools, found.multicastPools, found.unicastPools] == [wanted.broadcastPools, wanted.multicastPools, wanted.unicastPools])
      #expect(found.untaggedPools == wanted.untaggedPools && found.admitted == wanted.admitted && found.defaultPool == wanted.defaultPool)
      for pool in 0..<2 { try Exclusivity(program).check(pool: pool, in: bench.device.readSteering(wanted.plan)) }
    }
  }

  @Test func `an entry that nobody made is found before a queue is lent`() throws {
    let bench = try Bench()
    let program = try CardProgram(Steering([], for: [a, b]), for: .intel82576)
    try bench.device.apply(try #require(program.tables))
    func way(_ offset: Int, _ value: UInt32) -> String {
      let before = bench.registers[offset]
      bench.registers.write(value, offset)
      defer { bench.registers.write(before, offset) }
      do throws(RuleError) { try Exclusivity(program).check(pool: 0, in: bench.device.readSteering(program.tables!.plan)) } catch { return "\(error.code)" }
      return ""
    }
    #expect(way(0x54E0 + 8 * 7 + 4, 1 << 31 | 1 << 18) == "\(RuleError.Code.notExclusive)", "a receive address for its pool")
    #expect(way(0x5AD0, bench.registers[0x5AD0] | 1 << 26) == "", "VMOLR.ROPE, with an empty table")
    bench.registers.write(1, 0xA000)
    #expect(way(0x5AD0, bench.registers[0x5AD0] | 1 << 26) == "\(RuleError.Code.notExclusive)", "VMOLR.ROPE")
    #expect(way(0x581C, 1 << 30) == "\(RuleError.Code.notExclusive)", "VT_CTL.DEF_PL")
    #expect(way(0x581C, 1 << 29) == "\(RuleError.Code.notExclusive)", "VT_CTL.Rpl_En")
    #expect(way(0x5D80, 1) == "\(RuleError.Code.notExclusive)", "a mirror rule")
    #expect(way(0x5D00, 1 << 31 | 1 << 12 | 5) == "\(RuleError.Code.notExclusive)", "a VLAN filter")
    #expect(way(0x5CB0, 1 << 31 | 1 << 26 | 0x88CC) == "\(RuleError.Code.notExclusive)", "an EtherType filter")
    #expect(way(0xC8C, 0xFF) == "\(RuleError.Code.notExclusive)", "VFRE of the closed pool")
  }

  @Test func `rules that are not driven are refused, and nothing is changed`() throws {
    let bench = try Bench()
    try bench.device.apply(tables([], [a, b]))
    let before = bench.registers.log.count
    let wanted = try tables(["for a match eth.type=ip ip.proto=udp udp.dst=53 then queue 1"], [Receiver(name: "a", queueCount: 2, address: a.address), b])
    #expect(throws: IntelError.self) { try bench.device.apply(wanted) }
    #expect(bench.registers.log.count == before)
  }

  @Test func `a queue's registers lie where the datasheet has them, and its interrupt where IVAR says`() throws {
    let bench = try Bench { $0.queuesPerPool = 2 }
    let number = bench.device.queueIndex(pool: 3, queue: 1)
    #expect(number == 11)
    var receive = try bench.device.makeReceiveQueue(number, ringSize: 256, bufferByteCount: 2048)
    try receive.start()
    let block = 0xC000 + 0x40 * 11
    let card = bench.registers
    #expect(card[block + 8] == 4096 && card[block + 0xC] == 1 << 31 | 1 << 25 | 4 << 8 | 2 && card[block + 0x28] >> 25 & 1 == 1)
    for register in [0, 4, 8, 0xC, 0x10, 0x18] { #expect(card.last(block + register) < card.last(block + 0x28), "before ENABLE") }
    try bench.device.assign(vector: 4, receiveQueue: number)
    try bench.device.assign(vector: 5, transmitQueue: 3)
    #expect(card[0x1700 + 4 * 3] == 0x84 << 16 | 0x85 << 8)
    try bench.device.interrupt(4).arm()
    #expect(card[0x1524] == 1 << 4)
    try receive.quiesce()
    #expect(card[block + 0x28] >> 25 & 1 == 0)
    #expect(throws: IntelError.queue(3, count: 2)) { try bench.device.setUsedQueues(pool: 0, count: 3) }
    try bench.device.setUsedQueues(pool: 2, count: 2)
    #expect(card[0x5AD0 + 8] >> 17 & 1 == 1 && card[0x5818] & 7 == 5)
  }
}
