import Bus
import Testing

@testable import Simulation

/// Which pools, by the filters of 82599 datasheet 7.1.1 and 7.10.3.
@Suite struct ConformancePoolTests {
  private static let broadcast = [UInt8](repeating: 0xFF, count: 6)
  /// Pool p has queues 2 p and 2 p + 1.
  private func pools(_ numbers: [Int], control: UInt32 = 1 | 1 << 30 | 1 << 29) throws -> ConformanceBench {
    let bench = try ConformanceBench(queues: numbers.map { $0 * 2 })
    bench.startPools(control: control)
    for (slot, pool) in numbers.enumerated() { bench.setAddress(slot, UInt8(pool), pools: 1 << UInt64(pool)) }
    return bench
  }
  private func station(_ pool: UInt8) -> [UInt8] { [2, 0, 0, 0, 0, pool] }

  // MARK: VLAN

  @Test func `a VLAN group admits its two pools, and no third`() throws {
    let bench = try pools([1, 2, 33])
    // Filtering on; VLAN 100 in the table; its group: pools 1 and 33.
    bench.set(0x5088, 1 << 30)
    bench.card.write(1 << 4, 0xA000 + 4 * 3)
    bench.card.write(1 << 31 | 100, 0xF100 + 4 * 7)
    bench.card.write(1 << 1, 0xF200 + 8 * 7)
    bench.card.write(1 << 1, 0xF204 + 8 * 7)
    #expect(bench.receive(WirePacket.udp4(mac: station(1), tag: 100)) == .delivered(queue: 2))
    #expect(bench.receive(WirePacket.udp4(mac: station(33), tag: 100)) == .delivered(queue: 66))
    #expect(bench.receive(WirePacket.udp4(mac: station(2), tag: 100)) == .dropped(.noPool, queue: nil))
    // Priority and CFI are no part of the identifier.
    #expect(bench.receive(WirePacket.udp4(mac: station(1), tag: 0xF064)) == .delivered(queue: 2))
    // A VLAN in no table, and one in VFTA without a group.
    #expect(bench.receive(WirePacket.udp4(mac: station(1), tag: 101)) == .dropped(.noPool, queue: nil))
    bench.set(0xA000 + 4 * 3, 1 << 5)
    #expect(bench.receive(WirePacket.udp4(mac: station(1), tag: 101)) == .dropped(.noPool, queue: nil))
    // Two entries for one VLAN add up; an entry that is not valid does not count.
    bench.card.write(1 << 31 | 100, 0xF100)
    bench.card.write(1 << 2, 0xF200)
    #expect(bench.receive(WirePacket.udp4(mac: station(2), tag: 100)) == .delivered(queue: 4))
    bench.card.write(100, 0xF100)
    #expect(bench.receive(WirePacket.udp4(mac: station(2), tag: 100)) == .dropped(.noPool, queue: nil))
  }

  @Test func `an untagged frame needs AUPE where VLANs are filtered`() throws {
    let bench = try pools([1])
    bench.set(0x5088, 1 << 30)
    #expect(bench.receive(WirePacket.udp4(mac: station(1))) == .dropped(.noPool, queue: nil))
    bench.card.write(1 << 24, 0xF004)
    #expect(bench.receive(WirePacket.udp4(mac: station(1))) == .delivered(queue: 2))
  }

  @Test func `with VLNCTRL.VFE clear neither VFTA nor the groups are looked at`() throws {
    let bench = try pools([1, 2])
    bench.card.write(1 << 31 | 100, 0xF100)
    bench.card.write(1 << 1, 0xF200)
    for tag: UInt16 in [100, 101] {
      #expect(bench.receive(WirePacket.udp4(mac: station(1), tag: tag)) == .delivered(queue: 2))
      #expect(bench.receive(WirePacket.udp4(mac: station(2), tag: tag)) == .delivered(queue: 4))
    }
  }

  @Test func `a broadcast in a VLAN goes to the group's two pools`() throws {
    let bench = try pools([1, 2, 3])
    bench.set(0x5080, 1 << 10)
    for pool in 1...3 { bench.card.write(1 << 27, 0xF000 + 4 * pool) }
    bench.set(0x5088, 1 << 30)
    bench.card.write(1 << 4, 0xA000 + 4 * 3)
    bench.card.write(1 << 31 | 100, 0xF100)
    bench.card.write(1 << 1 | 1 << 3, 0xF200)
    #expect(
      bench.receive(WirePacket.udp4(mac: Self.broadcast, tag: 100))
        == .replicated(delivered: 0b1010, dropped: 0, queueInPool: 0))
  }

  @Test func `without pools VFTA alone decides about tagged frames, and untagged ones pass`() throws {
    let bench = try ConformanceBench()
    bench.set(0x5088, 1 << 30)
    #expect(bench.receive(WirePacket.udp4(tag: 4095)) == .dropped(.noPool, queue: nil))
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
    bench.card.write(1 << 31, 0xA000 + 4 * 127)
    #expect(bench.receive(WirePacket.udp4(tag: 4095)) == .delivered(queue: 0))
    #expect(bench.receive(WirePacket.udp4(tag: 4094)) == .dropped(.noPool, queue: nil))
  }

  @Test func `a tag is stripped where RXDCTL.VME is set, and the descriptor has it`() throws {
    let bench = try ConformanceBench(queues: [0, 1])
    let tagged = WirePacket.udp4(data: [UInt8](repeating: 7, count: 40), tag: 0x6064)
    #expect(bench.receive(tagged) == .delivered(queue: 0))
    let kept = bench.take(0)
    #expect(kept.bytes == tagged)
    #expect(kept.second & 8 == 0)
    bench.set(0x1028, 1 << 30)
    #expect(bench.receive(tagged) == .delivered(queue: 0))
    let stripped = bench.take(0)
    #expect(stripped.bytes == Array(tagged[..<12] + tagged[16...]))
    #expect(stripped.tag == 0x6064)
    #expect(stripped.second & 8 != 0)
    #expect(stripped.status == kept.status)
  }

  // MARK: default pool

  @Test func `a frame that passed and that no pool claims goes to the default pool, unless that is disabled`() throws {
    let bench = try pools([1, 9], control: 1 | 1 << 30 | 9 << 7)
    // Address 5 passes by its filter, which names no pool.
    bench.setAddress(5, 5, pools: 0)
    #expect(bench.receive(WirePacket.udp4(mac: station(5))) == .delivered(queue: 18))
    #expect(bench.receive(WirePacket.udp4(mac: station(1))) == .delivered(queue: 2))
    // Not passed at all: no default pool either.
    #expect(bench.receive(WirePacket.udp4(mac: station(77))) == .dropped(.noPool, queue: nil))
    // Promiscuous: passed.
    bench.set(0x5080, 1 << 9)
    #expect(bench.receive(WirePacket.udp4(mac: station(77))) == .delivered(queue: 18))
    bench.set(0x51B0, 1 << 29)
    #expect(bench.receive(WirePacket.udp4(mac: station(77))) == .dropped(.noPool, queue: nil))
    #expect(bench.receive(WirePacket.udp4(mac: station(5))) == .dropped(.noPool, queue: nil))
  }

  @Test func `a pool whose PFVFRE bit is clear gets nothing`() throws {
    let bench = try pools([1, 40])
    bench.clear(0x51E4, 1 << 8)
    #expect(bench.receive(WirePacket.udp4(mac: station(40))) == .dropped(.noPool, queue: nil))
    #expect(bench.receive(WirePacket.udp4(mac: station(1))) == .delivered(queue: 2))
  }

  // MARK: multicast

  /// MO 0: bits 47:36 of the address, its last byte the highest.
  @Test(arguments: [
    ([0x01, 0x00, 0x5E, 0x00, 0x00, 0xFB] as [UInt8], 0xFB0), ([0x01, 0x00, 0x5E, 0x7F, 0xFF, 0xFA], 0xFAF),
    ([0x33, 0x33, 0xFF, 0x12, 0x34, 0x56], 0x563),
  ])
  func `the multicast table is indexed by bits 47 to 36`(address: [UInt8], index: Int) throws {
    let bench = try ConformanceBench()
    let frame = WirePacket.udp4(mac: address)
    #expect(bench.receive(frame) == .dropped(.noPool, queue: nil))
    bench.card.write(1 << UInt32(index % 32), 0x5200 + index / 32 * 4)
    // MCSTCTRL.MFE is what turns the table on.
    #expect(bench.receive(frame) == .dropped(.noPool, queue: nil))
    bench.card.write(4, 0x5090)
    #expect(bench.receive(frame) == .delivered(queue: 0))
    // PIF: not by an exact address.
    #expect(bench.take(0).second & 1 << 7 != 0)
    bench.card.write(~(1 << UInt32(index % 32)), 0x5200 + index / 32 * 4)
    #expect(bench.receive(frame) == .dropped(.noPool, queue: nil))
    // Every other bit of the table set does not help.
    for n in 0..<128 where n != index / 32 { bench.card.write(.max, 0x5200 + 4 * n) }
    #expect(bench.receive(frame) == .dropped(.noPool, queue: nil))
    bench.set(0x5080, 1 << 8)
    #expect(bench.receive(frame) == .delivered(queue: 0))
  }

  @Test(arguments: [(UInt32(1), 0xF60), (2, 0xEC1), (3, 0xB04)])
  func `MCSTCTRL.MO chooses other bits of the address`(offset: UInt32, index: Int) throws {
    // 0xFB04_5E01 00 01: bits 47:32 are FB, 04 with the last byte first.
    let address: [UInt8] = [1, 0, 0x5E, 1, 0x04, 0xFB]
    let bench = try ConformanceBench()
    bench.card.write(4 | offset, 0x5090)
    #expect(bench.receive(WirePacket.udp4(mac: address)) == .dropped(.noPool, queue: nil))
    bench.card.write(1 << UInt32(index % 32), 0x5200 + index / 32 * 4)
    #expect(bench.receive(WirePacket.udp4(mac: address)) == .delivered(queue: 0))
  }

  @Test func `a multicast in the table goes to the pools with ROMPE, one beside it to those with MPE`() throws {
    let bench = try pools([1, 2, 3])
    bench.card.write(4, 0x5090)
    bench.card.write(1 << 16, 0x5200 + 4 * 125)
    bench.card.write(1 << 25, 0xF004)
    bench.card.write(1 << 25, 0xF008)
    let frame = WirePacket.udp4(mac: [1, 0, 0x5E, 0, 0, 0xFB])
    #expect(bench.receive(frame) == .replicated(delivered: 0b110, dropped: 0, queueInPool: 0))
    let other = WirePacket.udp4(mac: [1, 0, 0x5E, 0, 0, 0xFC])
    #expect(bench.receive(other) == .dropped(.noPool, queue: nil))
    bench.set(0x5080, 1 << 8)
    bench.card.write(1 << 28, 0xF00C)
    #expect(bench.receive(other) == .delivered(queue: 6))
    #expect(bench.receive(frame) == .replicated(delivered: 0b1110, dropped: 0, queueInPool: 0))
  }

  // MARK: broadcast

  @Test func `a broadcast is copied to each pool with BAM, byte for byte, and to no other`() throws {
    let bench = try pools([0, 1, 5, 63])
    for pool in [0, 5, 63] { bench.card.write(1 << 27, 0xF000 + 4 * pool) }
    let frame = WirePacket.udp4(mac: Self.broadcast)
    // FCTRL.BAM is the port's.
    #expect(bench.receive(frame) == .dropped(.noPool, queue: nil))
    bench.set(0x5080, 1 << 10)
    let expected: UInt64 = 1 | 1 << 5 | 1 << 63
    #expect(bench.receive(frame) == .replicated(delivered: expected, dropped: 0, queueInPool: 0))
    for pool in [0, 5, 63] {
      let copy = bench.take(2 * pool)
      #expect(copy.bytes == frame)
      #expect(copy.second & 3 == 3)
    }
    #expect(!bench.take(2).isDone)
    // One counted on the wire, three stored.
    #expect(bench.card.read(0x4078) == 1)
    #expect(bench.card.read(0x2F50) == 3)
  }

  @Test func `one pool without descriptors loses its copy alone`() throws {
    let bench = try pools([1, 2])
    bench.set(0x5080, 1 << 10)
    for pool in 1...2 { bench.card.write(1 << 27, 0xF000 + 4 * pool) }
    bench.card.doorbell(0x1018 + 0x40 * 2).ring(1)
    let frame = WirePacket.udp4(mac: Self.broadcast)
    #expect(bench.receive(frame) == .replicated(delivered: 0b110, dropped: 0, queueInPool: 0))
    #expect(bench.receive(frame) == .replicated(delivered: 0b100, dropped: 0b10, queueInPool: 0))
  }

  @Test func `with replication off a broadcast goes to one place`() throws {
    let bench = try pools([1, 2, 9], control: 1 | 9 << 7)
    bench.set(0x5080, 1 << 10)
    for pool in 1...2 { bench.card.write(1 << 27, 0xF000 + 4 * pool) }
    #expect(bench.receive(WirePacket.udp4(mac: Self.broadcast)) == .delivered(queue: 18))
  }
}
