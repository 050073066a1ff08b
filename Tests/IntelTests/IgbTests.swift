import Bus
import FlowSteering
import FlowTables
import Linux
import Simulation
import Testing

@testable import Intel

/// The driver of the 82576 and the I350 against registers alone: what it writes where. `MachineTests` has it on a card.
@Suite struct IgbTests {
  /// What the two differ in, as their datasheets' register summaries have it: written down apart from the driver's own.
  enum Card: String, CaseIterable, CustomTestStringConvertible {
    case intel82576, intelI350
    var testDescription: String { rawValue }
    var variant: Igb.Variant { self == .intel82576 ? .intel82576 : .intelI350 }
    var profile: CardProfile { self == .intel82576 ? .intel82576 : .intelI350 }
    var queues: Int { self == .intel82576 ? 16 : 8 }
    /// RAL: 16 in one place, 8 or 16 in another.
    var addresses: [Int] { (0..<(self == .intel82576 ? 24 : 32)).map { $0 < 16 ? 0x5400 + 8 * $0 : 0x54E0 + 8 * ($0 - 16) } }
    /// DTXSWC, TXSWC.
    var switchControl: Int { self == .intel82576 ? 0x3500 : 0x5ACC }
    /// How often a word of VFTA has to be written.
    var vlanWrites: Int { self == .intel82576 ? 1 : 10 }
  }

  /// Registers that remember, and answer as little as the driver needs. Offsets are the datasheet's.
  @safe private final class Registers: RegisterFile {
    private let memory: MappedRegisters
    private let mapping: Mapping
    private(set) var log: [(offset: Int, value: UInt32)] = []
    /// The PHY's control register.
    private(set) var phy: UInt32 = 0x1140
    private let port: UInt32

    init(port: Int = 0, linkMode: UInt32 = 0) throws {
      self.port = UInt32(port) << 2
      mapping = try Mapping(anonymousBytes: 0x20000)
      memory = unsafe MappedRegisters(unsafe: mapping.base, byteCount: mapping.byteCount)
      memory.write(1 << 9, 0x10)
      memory.write(1 << 19 | self.port, 0x8)
      memory.write(linkMode << 22, 0x18)
      memory.write(1 << 5, 0xE14)
    }
    subscript(offset: Int) -> UInt32 { memory.read(offset) }
    func read(_ offset: Int) -> UInt32 { memory.read(offset) }
    func write(_ value: UInt32, _ offset: Int) {
      log.append((offset, value))
      switch offset {
      case 0x0:
        memory.write(value & ~(1 << 26), 0)
        memory.write((value & 4 == 0 ? 1 << 19 : 0) | port, 0x8)
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
    init(_ card: Card, _ registers: Registers? = nil, _ configure: (inout Igb.Configuration) -> Void = { _ in }) throws {
      self.registers = try registers ?? Registers()
      var configuration = Igb.Configuration()
      configure(&configuration)
      device = try Igb(
        card.variant, registers: self.registers, space: iommu, allocator: IOVAAllocator(), clock: SimulatedClock(), configuration: configuration)
    }
  }

  private func tables(_ rules: [String] = [], _ vms: [Receiver], _ card: Card) throws -> CardTables {
    try #require(try CardProgram(Steering(rules.map { try Rule(parsing: $0) }, for: vms), for: card.profile).tables)
  }
  private let a = Receiver(name: "a", address: MACAddress(0x5254_0012_3456))
  private let b = Receiver(name: "b", address: MACAddress(0x5254_0012_3457))

  @Test(arguments: Card.allCases) func `after its start nothing is let in, and pools are told apart`(_ kind: Card) throws {
    let bench = try Bench(kind)
    let card = bench.registers
    #expect(card[0x100] & 2 == 0, "RCTL.RXEN")
    #expect(card[0x5818] == 3, "MRQC: pools by address and VLAN")
    #expect(card[0x581C] == 1 << 29 | 1 << 30, "VT_CTL: no default pool, copies")
    for pool in 0..<8 {
      let strips: UInt32 = kind == .intel82576 ? 1 << 31 : 0
      #expect(card[0x5AD0 + 4 * pool] == strips | 1 << 16 | 1522, "VMOLR: the limit, the check sequence taken off, and nothing accepted")
      #expect(card[0xC038 + 0x40 * pool] == (kind == .intelI350 ? 1 << 31 : 0), "DVMOLR: the check sequence taken off by the I350")
    }
    #expect(card[0x5AF0] == (kind == .intel82576 ? 1 << 31 : 0), "RPLOLR: and off copies")
    #expect(card[kind.switchControl] == 1 << 31, "DTXSWC, TXSWC: pools reach each other")
    #expect(!card.log.contains { $0.offset == (kind == .intel82576 ? 0x5ACC : 0x3500) }, "the other's is let alone")
    #expect(card[0x5004] == 1522 && card[0x100] & 1 << 5 != 0, "RLPML, RCTL.LPE")
    #expect(card[0x2408] == (1 << UInt32(kind.queues) - 1), "QDE")
    #expect(card.log.contains { $0 == (0xC028, 0) } && card.log.contains { $0 == (0xE028, 0) }, "queues that a reset turns on are off")
    #expect(!card.log.contains { (0xC000..<0xF000).contains($0.offset) && $0.offset & 0xFFF >= 0x40 * kind.queues }, "a queue that it has not is let alone")
    #expect(card[0xE14] == (kind == .intelI350 ? 0 : 1 << 5), "PHPM: the PHY may reach the wire")
    #expect(card.phy & 0x1200 == 0x1200, "the PHY negotiates anew")
    #expect(card[0x5B5C] == 0 && card[0x5B50] & 3 == 0, "the PHY's semaphores are given back")
    #expect(card[0x1514] == 1 | 1 << 4 | 1 << 30 | 1 << 31, "GPIE")
    #expect(card.log.filter { $0.offset == 0x5600 + 4 * 127 }.count == kind.vlanWrites, "VFTA")
    #expect(Set(card.log.filter { $0.offset & 0xFFFC0 == 0x1700 }.map(\.offset)) == Set((0..<kind.queues / 2).map { 0x1700 + 4 * $0 }), "IVAR")
    for address in kind.addresses { #expect(card.log.contains { $0 == (address, 0) } && card.log.contains { $0 == (address + 4, 0) }, "RAL, RAH") }
  }

  @Test(arguments: [(Card.intel82576, 0, 1), (.intel82576, 1, 2), (.intelI350, 0, 1), (.intelI350, 1, 2), (.intelI350, 2, 5), (.intelI350, 3, 6)])
  func `the PHY of a port has its own semaphore`(_ kind: Card, _ port: Int, _ bit: UInt32) throws {
    let card = try Bench(kind, Registers(port: port)).registers
    let held = try #require(card.log.firstIndex { $0 == (0x5B5C, 1 << bit) })
    let commands = card.log.indices.filter { card.log[$0].offset == 0x20 }
    #expect(commands.count == 2 && held < commands[0] && commands[1] < card.last(0x5B5C) && card[0x5B5C] == 0)
  }

  @Test(arguments: Card.allCases, [1, 2, 3] as [UInt32]) func `a link that is no copper is refused in words`(_ kind: Card, _ mode: UInt32) throws {
    let registers = try Registers(linkMode: mode)
    let error = #expect(throws: IntelError.self) { try Bench(kind, registers) }
    #expect(error.map { "\($0)".contains("no copper wire") } == true)
  }

  @Test func `the cards are known by their numbers on the bus`() {
    for device in 0x1521...0x1524 { #expect(IntelModel(vendor: 0x8086, device: UInt16(device)) == .intelI350) }
    #expect(IntelModel(vendor: 0x8086, device: 0x10C9) == .intel82576 && IntelModel(vendor: 0x8087, device: 0x1521) == nil)
    #expect(Igb.Variant(.intelI350) == .intelI350 && Igb.Variant(.intel82576) == .intel82576)
    for model in [IntelModel.intel82576, .intelI350] { #expect(Igb.Variant(model).profile == model.profile) }
  }

  @Test func `a pool of the I350 has one queue`() throws {
    #expect(throws: IntelError.queuesPerPool(2)) { try Bench(.intelI350) { $0.queuesPerPool = 2 } }
    let device = try Bench(.intelI350).device
    #expect(device.queueIndex(pool: 7, queue: 0) == 7)
    #expect(throws: IntelError.index(8, table: "queues", count: 8)) { try device.assign(vector: 0, receiveQueue: 8) }
    #expect(throws: IntelError.queue(2, count: 1)) { try device.setUsedQueues(pool: 0, count: 2) }
  }

  @Test(arguments: Card.allCases) func `an address is written low first, and its pools come with its valid bit`(_ kind: Card) throws {
    let bench = try Bench(kind)
    try bench.device.apply(tables([], [a, b], kind))
    let card = bench.registers
    let used = kind.addresses.filter { card[$0 + 4] >> 31 == 1 }
    #expect(used.count == 2)
    #expect(card[used[0]] == 0x1200_5452 && card[used[0] + 4] == 1 << 31 | 1 << 18 | 0x5634)
    #expect(card[used[1] + 4] == 1 << 31 | 1 << 19 | 0x5734)
    for slot in used { #expect(card.last(slot) < card.last(slot + 4)) }
    #expect(card[0xC8C] == 0xFF & ~(1 << 7), "VFRE: the closed pool takes part in nothing")
  }

  @Test(arguments: Card.allCases) func `every address that the card holds is used, and one more is refused`(_ kind: Card) throws {
    let bench = try Bench(kind)
    let rules = (1...(kind.addresses.count - 2)).map { "match eth.dst=02:00:00:00:01:\(String($0 + 16, radix: 16)) then vm b" }
    let wanted = try tables(rules, [a, b], kind)
    try bench.device.apply(wanted)
    for slot in kind.addresses { #expect(bench.registers[slot + 4] >> 31 == 1) }
    #expect(Set(bench.device.readSteering(wanted.plan).tables.addresses) == Set(wanted.addresses))
    let error = #expect(throws: RuleError.self) { try tables(rules + ["match eth.dst=02:00:00:00:02:01 then vm b"], [a, b], kind) }
    #expect(error?.code == .tableFull)
  }

  @Test(arguments: Card.allCases) func `what was applied is what is read back, before and after a change`(_ kind: Card) throws {
    let bench = try Bench(kind)
    var vms = [a, b]
    let sets: [[String]] = [
      [], ["match eth.dst=02:00:00:00:00:09 then vm b"], ["prio 1 match eth.dst=broadcast then vm a", "match eth.dst=multicast then vm b"],
      ["match eth.dst=02:00:00:00:00:09 then vm a, vm b", "match eth.dst=broadcast then drop"],
    ]
    for (rules, vlans) in sets.map({ ($0, [UInt16?]([nil, nil])) }) + [([], [7, 8]), ([], [nil, nil]), ([], [9, 7])] {
      vms = zip([a, b], vlans).map { Receiver(name: $0.name, address: $0.address, vlan: $1) }
      let program = try CardProgram(Steering(rules.map { try Rule(parsing: $0) }, for: vms), for: kind.profile)
      let wanted = try #require(program.tables)
      try bench.device.apply(wanted)
      let found = bench.device.readSteering(wanted.plan).tables
      #expect(Set(found.addresses) == Set(wanted.addresses))
      #expect(Set(found.vlans) == Set(wanted.vlans) && found.filtersVLANs == wanted.filtersVLANs)
      #expect([found.broadcastPools, found.multicastPools, found.unicastPools] == [wanted.broadcastPools, wanted.multicastPools, wanted.unicastPools])
      #expect(found.untaggedPools == wanted.untaggedPools && found.admitted == wanted.admitted && found.defaultPool == wanted.defaultPool)
      for pool in 0..<2 { try Exclusivity(program).check(pool: pool, in: bench.device.readSteering(wanted.plan)) }
    }
    // VFTA: each word that is written is written so often, one write behind the other.
    let log = bench.registers.log
    let writes = log.indices.filter { (0x5600..<0x5800).contains(log[$0].offset) }
    for start in stride(from: 0, to: writes.count, by: kind.vlanWrites) {
      let run = writes[start..<min(start + kind.vlanWrites, writes.count)]
      #expect(run.count == kind.vlanWrites && run.allSatisfy { log[$0] == log[run.first!] } && run.last! - run.first! == kind.vlanWrites - 1)
    }
  }

  @Test(arguments: Card.allCases) func `an entry that nobody made is found before a queue is lent`(_ kind: Card) throws {
    let bench = try Bench(kind)
    let program = try CardProgram(Steering([], for: [a, b]), for: kind.profile)
    try bench.device.apply(try #require(program.tables))
    func way(_ offset: Int, _ value: UInt32) -> String {
      let before = bench.registers[offset]
      bench.registers.write(value, offset)
      defer { bench.registers.write(before, offset) }
      do throws(RuleError) { try Exclusivity(program).check(pool: 0, in: bench.device.readSteering(program.tables!.plan)) } catch { return "\(error.code)" }
      return ""
    }
    #expect(way(kind.addresses.last! + 4, 1 << 31 | 1 << 18) == "\(RuleError.Code.notExclusive)", "a receive address for its pool")
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

  @Test(arguments: Card.allCases) func `what leaves a pool is checked, and gets its port's tag`(_ kind: Card) throws {
    let bench = try Bench(kind)
    let card = bench.registers
    var vms = [a, b]
    for index in vms.indices { (vms[index].checksSource, vms[index].vlan, vms[index].port) = (true, UInt16(100 * (index + 1)), .access) }
    let program = try CardProgram(Steering([], for: vms), for: kind.profile)
    let wanted = try #require(program.tables)
    try bench.device.apply(wanted)
    #expect(card[kind.switchControl] == 1 << 31 | 0b11 << 8 | 0b11, "DTXSWC, TXSWC: VLANAS, MACAS")
    for pool in 0..<8 {
      #expect(card[0x3700 + 4 * pool] == (pool < 2 ? 1 << 30 | UInt32(100 * (pool + 1)) : 0), "VMVIR")
      let strips: UInt32 = pool < 2 ? 1 << 30 : 0
      #expect((kind == .intel82576 ? card[0x5AD0 + 4 * pool] : card[0xC038 + 0x40 * pool]) & 1 << 30 == strips, "VMOLR, DVMOLR: STRVLAN")
    }
    #expect(card[0x5AF0] >> 30 & 1 == (kind == .intel82576 ? 1 : 0), "RPLOLR: and of copies")
    #expect(card[0] >> 30 & 1 == 1, "CTRL.VME: or no tag goes in")
    let state = bench.device.readSending(wanted.plan)
    #expect(state.tables.sending == wanted.sending && bench.device.readSteering(wanted.plan).tables.sending == wanted.sending)
    for pool in 0..<2 { try Exclusivity(program).checkSending(pool: pool, in: state) }
    func fails(_ offset: Int, _ value: UInt32) -> Bool {
      let before = card[offset]
      card.write(value, offset)
      defer { card.write(before, offset) }
      do throws(RuleError) { try Exclusivity(program).checkSending(pool: 0, in: bench.device.readSending(wanted.plan)) } catch { return error.code == .notExclusive }
      return false
    }
    #expect(fails(kind.switchControl, 1 << 31 | 0b11 << 8 | 0b10) && fails(kind.switchControl, 1 << 31 | 0b10 << 8 | 0b11))
    #expect(fails(0x3700, 0) && fails(0x3700, 1 << 30 | 200) && fails(kind.addresses.last! + 4, 1 << 31 | 1 << 18))
    #expect(fails(0x5D7C, 1 << 31 | 1 << 12 | 5), "another VLAN filter")
    for index in vms.indices { (vms[index].checksSource, vms[index].vlan) = (false, nil) }
    try bench.device.apply(tables([], vms, kind))
    #expect(card[kind.switchControl] == 1 << 31 && card[0x3700] == 0 && card[0] >> 30 & 1 == 0 && card[0x5AF0] >> 30 & 1 == 0)
  }

  /// VM a gets what nobody else does, so that every frame is one VM's and an EtherType can take it from there.
  private let catchAll = ["match eth.dst=broadcast then vm a", "match eth.dst=multicast then vm a", "match eth.dst=00:00:00:00:00:00/01:00:00:00:00:00 then vm a"]

  @Test func `an EtherType is one register, written before addresses that come with it and cleared behind those that go`() throws {
    let bench = try Bench(.intelI350)
    let card = bench.registers
    let filters = (0..<8).map { 0x5CB0 + 4 * $0 }
    let plain = try tables(catchAll, [a, b], .intelI350)
    try bench.device.apply(plain)
    var start = card.log.count
    func changes() -> [(offset: Int, value: UInt32)] { defer { start = card.log.count }; return Array(card.log[start...]) }

    let more = ["prio 50 match eth.dst=02:00:00:00:00:09 then vm b"]
    let wanted = try tables(catchAll + more + ["prio 1 match eth.type=lldp then vm b"], [a, b], .intelI350)
    try bench.device.apply(wanted)
    var writes = changes()
    let made = try #require(writes.first { filters.contains($0.offset) })
    #expect(made.value == 1 << 31 | 1 << 26 | 1 << 16 | 0x88CC, "Queue Enable, Filter Enable, the queue of pool 1, the type")
    #expect(writes.filter { filters.contains($0.offset) }.count == 1)
    let address = try #require(writes.firstIndex { $0.value == 1 << 31 | 1 << 19 | 0x0900 })
    #expect(try #require(writes.firstIndex { $0 == made }) < address)
    let found = bench.device.readSteering(wanted.plan).tables.etherTypes
    #expect(found.map(\.type) == [0x88CC] && found.map(\.queue) == wanted.etherTypes.map(\.queue))
    #expect(bench.device.filterSlots(of: wanted).etherTypes == [(made.offset - 0x5CB0) / 4: 0x88CC])

    // To another's queue by one write, of nothing else.
    try bench.device.apply(tables(catchAll + more + ["prio 1 match eth.type=lldp then drop"], [a, b], .intelI350))
    writes = changes()
    #expect(writes.filter { $0.offset != 0x100 && $0.offset != 0x581C }.map(\.offset) == [made.offset])
    #expect(card[made.offset] == 1 << 31 | 1 << 26 | 7 << 16 | 0x88CC, "the closed pool's")

    try bench.device.apply(plain)
    writes = changes()
    let gone = try #require(writes.firstIndex { $0 == (made.offset, 0) })
    #expect(try #require(writes.lastIndex { (0x5400..<0x5600).contains($0.offset) }) < gone)
    #expect(bench.device.readSteering(plain.plan).tables.etherTypes.isEmpty && bench.device.filterSlots(of: plain).etherTypes.isEmpty)
  }

  @Test func `eight EtherTypes change for eight others, and a ninth is refused`() throws {
    let bench = try Bench(.intelI350)
    func rules(_ types: Range<Int>) -> [String] { catchAll + types.map { "prio 1 match eth.type=0x\(String($0, radix: 16)) then vm b" } }
    for types in [0x88B0..<0x88B8, 0x88C0..<0x88C8, 0x88C4..<0x88CC] {
      let program = try CardProgram(Steering(rules(types).map { try Rule(parsing: $0) }, for: [a, b]), for: .intelI350)
      let wanted = try #require(program.tables)
      try bench.device.apply(wanted)
      #expect(Set((0..<8).map { bench.registers[0x5CB0 + 4 * $0] }) == Set(types.map { 1 << 31 | 1 << 26 | 1 << 16 | UInt32($0) }))
      for pool in 0..<2 { try Exclusivity(program).check(pool: pool, in: bench.device.readSteering(wanted.plan)) }
    }
    let error = #expect(throws: RuleError.self) { try tables(rules(0x88B0..<0x88B9), [a, b], .intelI350) }
    #expect(error?.code == .tableFull)
  }

  @Test(arguments: Card.allCases) func `a filter that nobody made is found, whatever kind it is`(_ kind: Card) throws {
    let bench = try Bench(kind)
    let program = try CardProgram(Steering([], for: [a, b]), for: kind.profile)
    try bench.device.apply(try #require(program.tables))
    let filters: [(String, Int, UInt32)] = [
      ("SYNQF", 0x55FC, 1 | 1 << 1), ("FTQF", 0x59E0 + 4 * 5, 1 << 8 | 1 << 16), ("ETQF", 0x5CB0 + 4 * 7, 1 << 31 | 1 << 26 | 1 << 16),
    ]
    for (name, offset, value) in filters {
      bench.registers.write(value, offset)
      try Exclusivity(program).check(pool: 0, in: bench.device.readSteering(program.tables!.plan))
      let error = #expect(throws: RuleError.self) { try Exclusivity(program).check(pool: 1, in: bench.device.readSteering(program.tables!.plan)) }
      #expect(error?.code == .notExclusive && "\(error!)".contains(name))
      bench.registers.write(0, offset)
    }
  }

  @Test func `a queue's registers lie where the datasheet has them, and its interrupt where IVAR says`() throws {
    let bench = try Bench(.intel82576) { $0.queuesPerPool = 2 }
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

  @Test func `the I350's queues have an interrupt two by two`() throws {
    let bench = try Bench(.intelI350)
    let card = bench.registers
    var receive = try bench.device.makeReceiveQueue(7, ringSize: 256, bufferByteCount: 2048)
    try receive.start()
    #expect(card[0xC1C0 + 8] == 4096 && card[0xC1C0 + 0xC] == 1 << 31 | 1 << 25 | 4 << 8 | 2 && card[0xC1C0 + 0x28] >> 25 & 1 == 1)
    #expect(card[0xC1C0 + 0x38] == 1 << 31, "DVMOLR is among a queue's registers, and is left as it was")
    for n in 0..<8 {
      try bench.device.assign(vector: n, receiveQueue: n)
      try bench.device.assign(vector: 9 - n, transmitQueue: n)
    }
    for n in 0..<4 {
      let bytes = [2 * n, 9 - 2 * n, 2 * n + 1, 8 - 2 * n].map { UInt32($0) | 0x80 }
      #expect(card[0x1700 + 4 * n] == bytes[0] | bytes[1] << 8 | bytes[2] << 16 | bytes[3] << 24)
    }
    try bench.device.assign(vector: nil, receiveQueue: 3)
    #expect(card[0x1704] == 0x82 | 0x87 << 8 | 0x86 << 24)
    try receive.quiesce()
  }

  @Test(arguments: Card.allCases) func `what a pool lacked buffers for is counted over the queues that it has`(_ kind: Card) throws {
    let bench = try Bench(kind)
    bench.registers.write(3, 0xC030 + 0x40 * 2)
    if kind.queues == 16 { bench.registers.write(4, 0xC030 + 0x40 * 10) }
    bench.registers.write(100, 0x10010 + 0x100 * 2)
    let counted = bench.device.readStatistics()
    #expect(counted.pools[2].droppedFrames == (kind.queues == 16 ? 7 : 3) && counted.pools[2].receivedFrames == 100)
  }

  @Test(arguments: Card.allCases) func `an overrun that the NIC signals is counted once for each reading that finds it`(_ kind: Card) throws {
    let bench = try Bench(kind)
    #expect(bench.device.readCounters().overruns == 0)
    // RXDW and RXO; then RXDW alone.
    for cause: UInt32 in [1 << 7 | 1 << 6, 1 << 6, 1 << 7] {
      bench.registers.write(cause, 0xC0)
      _ = bench.device.readStatistics()
    }
    bench.registers.write(0, 0xC0)
    #expect(bench.device.readCounters().overruns == 2)
  }

  @Test(arguments: Card.allCases) func `moderation is in microseconds, of the vector's own register, and off after a reset`(_ kind: Card) throws {
    let bench = try Bench(kind)
    let card = bench.registers
    for vector in 0..<10 { #expect(card[0x1680 + 4 * vector] == 0) }
    try bench.device.setModeration(microseconds: 20, vector: 4)
    #expect(card[0x1690] == 1 << 31 | 20 << 2)
    try bench.device.setModeration(microseconds: 8191, vector: 9)
    #expect(card[0x16A4] == 1 << 31 | 8191 << 2 && card[0x1680] == 0)
    #expect(throws: IntelError.self) { try bench.device.setModeration(microseconds: 8192, vector: 0) }
    #expect(throws: IntelError.self) { try bench.device.setModeration(microseconds: -1, vector: 0) }
    #expect(throws: IntelError.index(10, table: "interrupt vectors", count: 10)) { try bench.device.setModeration(microseconds: 0, vector: 10) }
  }

  /// The registers of a virtual function whose physical one grants everything at once, or as long as it `grants`. 82576 datasheet 8.27, 8.28.
  @safe private final class GrantingRegisters: RegisterFile {
    private let memory: MappedRegisters
    private let mapping: Mapping
    init() throws {
      mapping = try Mapping(anonymousBytes: 0x4000)
      memory = unsafe MappedRegisters(unsafe: mapping.base, byteCount: mapping.byteCount)
    }
    /// V2PMAILBOX: ours, with an acknowledgement and an answer.
    private var answers: UInt32 = 0
    var grants = true
    func read(_ offset: Int) -> UInt32 { offset == 0xC40 ? answers : memory.read(offset) }
    func write(_ value: UInt32, _ offset: Int) {
      switch offset {
      case 0xC40: answers = value & 1 == 1 ? 1 << 2 | 1 << 4 | 1 << 5 : 1 << 2
      case 0x800: memory.write(value | 1 << (grants ? 31 : 30), offset)
      default: memory.write(value, offset)
      }
    }
    func doorbell(_ offset: Int) -> Doorbell { memory.doorbell(offset) }
  }

  @Test func `a virtual function moderates its own vectors`() throws {
    let card = try GrantingRegisters()
    let device = try IgbVF(registers: card, space: SimulatedIOMMU(), allocator: IOVAAllocator(), clock: SimulatedClock())
    #expect(card.read(0x1680) == 0)
    try device.setModeration(microseconds: 20, vector: 1)
    #expect(card.read(0x1684) == 1 << 31 | 20 << 2 && card.read(0x1680) == 0)
    #expect(throws: IntelError.self) { try device.setModeration(microseconds: 20, vector: 3) }
  }

  @Test func `a virtual function sees that it was reset by a queue that stands still`() throws {
    let card = try GrantingRegisters()
    let device = try IgbVF(registers: card, space: SimulatedIOMMU(), allocator: IOVAAllocator(), clock: SimulatedClock())
    var receive = try device.makeReceiveQueue(0, ringSize: 64, bufferByteCount: 2048)
    #expect(device.isOurs)
    try receive.start()
    var transmit = try device.makeTransmitQueue(0, ringSize: 64)
    try transmit.start()
    #expect(device.isOurs)
    // RXDCTL and TXDCTL, ENABLE.
    for offset in [0x2828, 0x3828] {
      let value = card.read(offset)
      card.write(value & ~(1 << 25), offset)
      #expect(!device.isOurs)
      card.write(value, offset)
      #expect(device.isOurs)
    }
    try receive.quiesce()
    try transmit.quiesce()
    #expect(device.isOurs && card.read(0x2828) & 1 << 25 == 0)
  }

  @Test func `a virtual function without a queue that runs sees it by its physical one's answer, when a queue is made`() throws {
    let card = try GrantingRegisters()
    let device = try IgbVF(registers: card, space: SimulatedIOMMU(), allocator: IOVAAllocator(), clock: SimulatedClock())
    do {
      var receive = try device.makeReceiveQueue(0, ringSize: 64, bufferByteCount: 2048)
      try receive.start()
      card.grants = false
      // One that runs answers for itself.
      _ = try device.makeTransmitQueue(0, ringSize: 64)
      #expect(device.isOurs)
    }
    #expect(device.isOurs)
    _ = try device.makeTransmitQueue(0, ringSize: 64)
    #expect(!device.isOurs)
  }
}
