import Bus
import FlowSteering
import Testing

@testable import Intel

@Suite struct FilterTests {
  let address = MACAddress(0x0211_2233_4455)

  @Test func `an address becomes valid after its pool is set`() throws {
    let bench = try Bench { $0.poolCount = 40 }
    bench.card.log = []
    try bench.device.setAddress(address, slot: 5, pool: 33)
    // Octets 02:11:22:33 and 44:55, the first in the lowest byte.
    #expect(bench.card[0xA228] == 0x3322_1102 && bench.card[0xA22C] == 0x8000_5544)
    #expect(bench.card[0xA628] == 0 && bench.card[0xA62C] == 1 << 1)
    #expect(bench.card.position(0xA62C) < bench.card.position(0xA228))
    #expect(bench.card.position(0xA228) < bench.card.position(0xA22C))
    // Moving it to another pool: first it is invalid, and the old pool goes.
    bench.card.log = []
    try bench.device.setAddress(address, slot: 5, pool: 0)
    #expect(bench.card.log.first?.offset == 0xA22C && bench.card.log.first?.value == 0)
    #expect(bench.card[0xA628] == 1 && bench.card[0xA62C] == 0)
    try bench.device.clearAddress(slot: 5)
    #expect(bench.card[0xA22C] == 0 && bench.card[0xA628] == 0)
  }

  @Test func `slots and pools outside the card are refused`() throws {
    let device = try Bench { $0.poolCount = 2 }.device
    #expect(throws: IntelError.index(128, table: "receive addresses", count: 128)) {
      try device.setAddress(address, slot: 128, pool: 0)
    }
    #expect(throws: IntelError.index(2, table: "pools", count: 2)) { try device.setAddress(address, slot: 0, pool: 2) }
    #expect(throws: IntelError.index(2, table: "pools", count: 2)) { try device.setVLAN(5, pools: 0b110) }
    #expect(throws: IntelError.index(4096, table: "VLANs", count: 4096)) { try device.setVLAN(4096, pools: 1) }
    #expect(throws: IntelError.unavailable("promiscuous mode with more than one pool")) { try device.setPromiscuous(true) }
  }

  @Test func `a pool says what else it takes`() throws {
    let bench = try Bench { $0.poolCount = 4 }
    #expect(bench.card[0x5080] & 1 << 10 != 0)
    try bench.device.setAccepted([.broadcast, .untagged], pool: 2)
    #expect(bench.card[0xF008] == 0x0900_0000)
    try bench.device.setAccepted([.allMulticast, .listedMulticast], pool: 2)
    #expect(bench.card[0xF008] == 0x1200_0000)
    #expect(bench.card[0x5090] == 4)
    #expect(bench.card[0xF000] == 0 && bench.card[0xF004] == 0)
  }

  @Test func `without pools broadcast and promiscuous are the filter's`() throws {
    let bench = try Bench()
    #expect(bench.card[0x5080] == 0)
    try bench.device.setAccepted(.broadcast, pool: 0)
    #expect(bench.card[0x5080] == 1 << 10)
    try bench.device.setPromiscuous(true)
    #expect(bench.card[0x5080] == 0x700)
    try bench.device.setPromiscuous(false)
    #expect(bench.card[0x5080] == 1 << 10)
  }

  @Test func `a group is one bit of 4096`() {
    // The last octet, then the upper half of the one before: 0x5FB for …:B5:5F.
    let (register, bit) = Ixgbe.multicastBit(MACAddress(0x0100_5E00_B55F))
    #expect(register == 0x5FB >> 5 && bit == 0x5FB & 31)
  }

  @Test func `a VLAN is let in for its pools only, and taken out whole`() throws {
    let bench = try Bench { $0.poolCount = 64 }
    try bench.device.setVLAN(100, pools: 1 << 40 | 1)
    #expect(bench.card[0xA00C] == 1 << 4, "VFTA: 100 is bit 4 of register 3")
    #expect(bench.card[0xF100] == 1 << 31 | 100)
    #expect(bench.card[0xF200] == 1 && bench.card[0xF204] == 1 << 8)
    #expect(bench.card[0x5088] == 1 << 30 | 0x8100)
    try bench.device.setVLAN(4095, pools: 2)
    #expect(bench.card[0xF104] == 1 << 31 | 4095 && bench.card[0xA1FC] == 1 << 31)
    try bench.device.setVLAN(100, pools: 2)
    #expect(bench.card[0xF200] == 2 && bench.card[0xF204] == 0)
    try bench.device.setVLAN(100, pools: 0)
    #expect(bench.card[0xA00C] == 0 && bench.card[0xF100] == 0 && bench.card[0xF200] == 0)
    // The 64 filters, then none.
    for id in 1...63 { try bench.device.setVLAN(UInt16(id), pools: 1) }
    #expect(throws: IntelError.tableFull("VLAN filters", count: 64)) { try bench.device.setVLAN(500, pools: 1) }
  }

  @Test func `an EtherType goes to a queue of its pool`() throws {
    let bench = try Bench { $0.poolCount = 8; $0.queuesPerPool = 2 }
    try bench.device.setEtherType(0x88F7, slot: 3, pool: 5, queue: 1)
    #expect(bench.card[0x5134] == 0x8450_88F7)
    #expect(bench.card[0xEC0C] == 0x800B_0000)
    try bench.device.clearEtherType(slot: 3)
    #expect(bench.card[0x5134] == 0)
  }

  @Test func `a five-tuple filter has its fields as on the wire`() throws {
    let bench = try Bench { $0.poolCount = 8; $0.queuesPerPool = 4 }
    let flow = IxgbeFlow(source: 0xC0A8_0001, destination: 0x0A00_0002, sourcePort: 0x1234, destinationPort: 80, transport: .udp)
    try bench.device.setFlow(flow, slot: 7, pool: 3, queue: 2, priority: 5)
    #expect(bench.card[0xE01C] == 0x0100_A8C0 && bench.card[0xE21C] == 0x0200_000A)
    #expect(bench.card[0xE41C] == 0x5000_3412)
    #expect(bench.card[0xE61C] == 0x8000_0315)
    // Size_BP, the reserved pattern, queue 3 * 4 + 2.
    #expect(bench.card[0xE81C] == 0x01C8_1000)
    #expect(bench.card.position(0xE61C) > bench.card.position(0xE81C))
    try bench.device.clearFlow(slot: 7)
    #expect(bench.card[0xE61C] == 0)
    // Nothing compared, no pools: every mask bit.
    #expect(Ixgbe.flowFilter(IxgbeFlow(), pool: nil, priority: 1).rawValue == 0xFE00_0004)
  }

  @Test func `the RSS key and table are laid out byte by byte`() throws {
    let bench = try Bench { $0.queuesPerPool = 4 }
    // RSS alone; TCP/IPv4 16, IPv4 17, IPv6 20, TCP/IPv6 21, UDP/IPv4 22, UDP/IPv6 23.
    #expect(bench.card[0xEC80] == 0x00F3_0001)
    #expect(bench.card[0xEB80] == 0xDA56_5A6D && bench.card[0xEBA4] == 0xFA01_ACBE)
    #expect(bench.card[0xEB00] == 0x0302_0100 && bench.card[0xEB7C] == 0x0302_0100)
    bench.device.setRedirection { _ in 3 }
    #expect(bench.card[0xEB00] == 0x0303_0303)
  }
}

@Suite struct FlowDirectorTests {
  let flow = IxgbeFlow(source: 0xC0A8_0001, destination: 0x0A00_0002, sourcePort: 0x1234, destinationPort: 80, transport: .tcp)

  @Test func `it takes its memory from the packet buffer`() throws {
    let bench = try Bench { $0.flowDirector = .filters2046 }
    #expect(bench.card[0x3C00] == 448 << 10 && bench.card[0x3260] == 0x6A000)
    #expect(bench.card[0xEE00] & 0x33 == 0x31)
    // No VLAN, no pool, no flexible bytes, no IPv6.
    #expect(bench.card[0xEE70] == 0b110111)
    #expect(try Bench { $0.flowDirector = .filters2046; $0.poolCount = 2 }.card[0xEE70] == 0b110011)
  }

  @Test func `a filter is written whole before its command`() throws {
    let bench = try Bench { $0.flowDirector = .filters2046; $0.poolCount = 8 }
    bench.card.log = []
    try bench.device.addExactFlow(flow, number: 77, pool: 3, queue: 0)
    #expect(bench.card[0xEE18] == 0x0100_A8C0 && bench.card[0xEE1C] == 0x0200_000A)
    #expect(bench.card[0xEE20] == 80 << 16 | 0x1234)
    #expect(bench.card[0xEE28] >> 16 == 77)
    // Add, update, TCP, last, queue 6, pool 3.
    #expect(bench.card.last(0xEE2C) == 0x0306_8849)
    #expect(bench.card.position(0xEE2C) == bench.card.log.count - 1)
    bench.card.log = []
    try bench.device.removeExactFlow(flow, number: 77, pool: 3)
    #expect(bench.card.positions(0xEE2C).map { bench.card.log[$0].value & 3 } == [3, 2])
  }

  @Test func `a field left open and a card without it are refused`() throws {
    let device = try Bench { $0.flowDirector = .filters2046 }.device
    #expect(throws: IntelError.self) { try device.addExactFlow(IxgbeFlow(source: 1), number: 0, pool: 0, queue: 0) }
    #expect(throws: IntelError.index(32768, table: "exact flows", count: 32768)) {
      try device.addExactFlow(flow, number: 32768, pool: 0, queue: 0)
    }
    let plain = try Bench().device
    #expect(throws: IntelError.self) { try plain.addExactFlow(flow, number: 0, pool: 0, queue: 0) }
  }

  @Test func `a command that the card does not finish is named`() throws {
    let bench = try Bench { $0.flowDirector = .filters2046 }
    let device = try Ixgbe(
      registers: BusyCard(bench.card), space: bench.iommu, allocator: IOVAAllocator(), clock: bench.clock,
      configuration: bench.device.configuration)
    let error = #expect(throws: IntelError.self) { try device.addExactFlow(flow, number: 0, pool: 0, queue: 0) }
    #expect(error?.description == "register FDIRCMD[0] at 0xee2c still reads 0x1 after 1000 µs")
  }

  @Test func `the hash is linear, and each bit has the place that the shifts give it`() {
    let key: UInt32 = 0x8001_0003
    func hash(_ change: (inout ExactInput) -> Void) -> UInt32 {
      var input = ExactInput(source: 0, destination: 0, sourcePort: 0, destinationPort: 0, transport: 0, pool: 0)
      change(&input)
      return input.hash(key: key)
    }
    #expect(hash { _ in } == 0)
    // Key bits 0, 1, 16 and 31: the tuple swapped, the low word >> 1, the high word, and the high word >> 15.
    let value: UInt32 = 0x0001_8000
    let swapped: UInt32 = 0x8000_0001
    let wanted: UInt32 = swapped ^ (swapped >> 1) ^ value ^ (value >> 15)
    #expect(hash { $0.source = UInt128(value) } == wanted)
    #expect(hash { $0.destination = value } == hash { $0.source = UInt128(value) })
    #expect(hash { $0.sourcePort = 1; $0.destinationPort = 0x8000 } == hash { $0.source = UInt128(value) })
    // A head of pool 1: in the low word only from the second bit on.
    let head: UInt32 = 1 << 24
    let high: UInt32 = head ^ (head >> 16)
    let pool: UInt32 = (head >> 1) ^ high ^ (high >> 15)
    #expect(hash { $0.pool = 1 } == pool)
    let both = hash { $0.source = 0xDEAD_BEEF; $0.pool = 9; $0.transport = 2 }
    #expect(both == hash { $0.source = 0xDEAD_BEEF } ^ hash { $0.pool = 9 } ^ hash { $0.transport = 2 })
  }
}

/// A card whose flow director never finishes a command.
final class BusyCard: RegisterFile {
  let card: FakeCard
  init(_ card: FakeCard) { self.card = card }
  func read(_ offset: Int) -> UInt32 { offset == FDIRCMD.offset(0) ? 1 : card.read(offset) }
  func write(_ value: UInt32, _ offset: Int) { card.write(value, offset) }
  func doorbell(_ offset: Int) -> Doorbell { card.doorbell(offset) }
}
