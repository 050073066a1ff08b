import Bus
import Testing

@testable import Simulation

/// The switch between pools, 82599 datasheet 7.10.3.4. Pool p has queue 2 p and the address 02:00:00:00:00:p+1.
@Suite struct ConformanceSwitchTests {
  private static let pools = [0, 1, 3]

  private func bench(_ configure: (ConformanceBench) -> Void = { _ in }) throws -> ConformanceBench {
    let bench = try ConformanceBench(queues: Self.pools.map { 2 * $0 })
    bench.startPools()
    for (slot, pool) in Self.pools.enumerated() {
      bench.setAddress(slot, UInt8(pool + 1), pools: 1 << UInt64(pool))
      // BAM and AUPE.
      bench.card.write(1 << 27 | 1 << 24, 0xF000 + 4 * pool)
    }
    // 64 pools of two queues; PFVFTE; LBE.
    bench.card.write(2 | 1 << 2, 0x8120)
    bench.card.write(.max, 0x8110)
    bench.card.write(.max, 0x8114)
    bench.card.write(1, 0x8220)
    configure(bench)
    bench.startTransmit()
    return bench
  }
  private func frame(
    to last: UInt8, from source: UInt8 = 1, tag: UInt16? = nil, count: Int = 100
  ) -> [UInt8] {
    address([2, 0, 0, 0, 0, last], from: source, count: count, tag: tag)
  }
  private func address(_ to: [UInt8], from source: UInt8 = 1, count: Int = 100, tag: UInt16? = nil) -> [UInt8] {
    var bytes = to + [2, 0, 0, 0, 0, source] + (tag.map { WirePacket.word(0x8100) + WirePacket.word($0) } ?? []) + [0x88, 0xB5]
    while bytes.count < count { bytes.append(UInt8(truncatingIfNeeded: bytes.count &* 3)) }
    return bytes
  }
  private static let broadcast = [UInt8](repeating: 0xFF, count: 6)

  /// Sends from pool 0 and answers what the wire got, and which queues of `pools` got a frame.
  private func send(_ frame: [UInt8], _ bench: ConformanceBench) -> (wire: [[UInt8]], queues: [Int]) {
    let wire = TransmitWire(.capture)
    bench.postTransmit(pieces: [frame])
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: wire) == 1)
    let heads = Self.pools.map { 2 * $0 }.filter { bench.card.read(ConformanceBench.receive($0, 0x10)) != seen[$0] }
    for queue in heads { seen[queue] = bench.card.read(ConformanceBench.receive(queue, 0x10)) }
    return (wire.frames, heads)
  }
  private var seen: [Int: UInt32] {
    get { heads.values }
    nonmutating set { heads.values = newValue }
  }
  private let heads = Heads()
  private final class Heads { var values: [Int: UInt32] = [0: 0, 2: 0, 6: 0] }

  @Test func `a frame for another pool's address goes there, and not to the wire`() throws {
    let bench = try bench()
    let sent = frame(to: 4)
    let result = send(sent, bench)
    #expect(result.wire.isEmpty && result.queues == [6])
    let got = bench.take(6)
    #expect(got.bytes == sent && got.isDone && got.isEnd)
    // LB says so.
    #expect(got.second & 1 << 18 != 0)
    #expect(bench.card.copies.map(\.queue) == [6] && bench.card.copies.allSatisfy { $0.drop == nil })
    // Not through the MAC: GPTC, GPRC. Through the queues' counters: QPTC, QPRC. Looped: RXLPBKPC, RXLPBKBCL.
    #expect(bench.card.read(0x4080) == 0 && bench.card.read(0x4074) == 0)
    #expect(bench.card.read(0x8680) == 1 && bench.card.read(0x1030) == 1)
    #expect(bench.card.read(0x2F68) == 1 && bench.card.read(0x2F6C) == 104 && bench.card.read(0x2F74) == 0)
    #expect(bench.card.read(0x2F68) == 0)
  }

  @Test func `an address that is nobody's goes to the wire`() throws {
    let bench = try bench()
    let sent = frame(to: 9)
    let result = send(sent, bench)
    #expect(result.wire == [sent] && result.queues.isEmpty)
  }

  @Test func `a broadcast goes to the wire and to every other pool that takes it, never back`() throws {
    let bench = try bench()
    let sent = address(Self.broadcast)
    var result = send(sent, bench)
    #expect(result.wire == [sent] && result.queues == [2, 6])
    #expect(bench.take(2).bytes == sent && bench.take(6).bytes == sent)
    // RXLPBKPC and its duplicates.
    #expect(bench.card.read(0x2F68) == 1 && bench.card.read(0x2F74) == 1)
    bench.card.write(1 << 24, 0xF004)
    result = send(sent, bench)
    #expect(result.wire == [sent] && result.queues == [6])
    // PFVMTXSW of pool 0: its own comes back, too.
    bench.card.write(1, 0x5180)
    result = send(sent, bench)
    #expect(result.wire == [sent] && result.queues == [0, 6])
  }

  @Test func `its own address goes nowhere, unless PFVMTXSW brings it back`() throws {
    let bench = try bench()
    var result = send(frame(to: 1), bench)
    #expect(result.wire.isEmpty && result.queues.isEmpty)
    bench.card.write(1, 0x5180)
    result = send(frame(to: 1), bench)
    #expect(result.wire.isEmpty && result.queues == [0])
  }

  @Test func `a group goes to the wire, and to the pools that list it or take all`() throws {
    let bench = try bench()
    let group: [UInt8] = [1, 0, 0x5E, 0, 0, 0x55]
    #expect(send(address(group), bench).queues.isEmpty)
    // ROMPE of pool 1, the bit of MTA that 12 bits of the address name, and MFE.
    bench.card.write(1 << 25 | 1 << 24, 0xF004)
    #expect(send(address(group), bench).queues.isEmpty)
    let index = Int(group[4]) >> 4 | Int(group[5]) << 4
    bench.card.write(1 << UInt32(index % 32), 0x5200 + index / 32 * 4)
    bench.card.write(4, 0x5090)
    #expect(send(address(group), bench).queues == [2])
    // MPE of pool 3.
    bench.card.write(1 << 28 | 1 << 24, 0xF00C)
    let result = send(address(group), bench)
    #expect(result.wire == [address(group)] && result.queues == [2, 6])
  }

  @Test func `with LBE clear the wire gets all of it, and so it does with RXEN clear`() throws {
    let bench = try bench()
    bench.card.write(0, 0x8220)
    var result = send(frame(to: 4), bench)
    #expect(result.wire == [frame(to: 4)] && result.queues.isEmpty)
    bench.card.write(1, 0x8220)
    bench.card.write(0, 0x3000)
    result = send(frame(to: 4), bench)
    #expect(result.wire == [frame(to: 4)] && result.queues.isEmpty)
    bench.card.write(1, 0x3000)
    result = send(frame(to: 4), bench)
    #expect(result.wire.isEmpty && result.queues == [6])
  }

  @Test func `a pool whose reception is off does not claim its address, and PFVFTE keeps a pool from sending`() throws {
    let bench = try bench()
    bench.card.write(.max & ~(1 << 3), 0x51E0)
    let result = send(frame(to: 4), bench)
    #expect(result.wire == [frame(to: 4)] && result.queues.isEmpty)
    bench.card.write(.max & ~1, 0x8110)
    bench.postTransmit(pieces: [frame(to: 9)])
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: TransmitWire(.drop)) == 0)
    bench.card.write(.max, 0x8110)
    #expect(bench.card.transmit(budget: 8, to: TransmitWire(.drop)) == 1)
  }

  @Test func `a VLAN that the other pool is not in is a wall, inside the card too`() throws {
    let bench = try bench()
    // VFE; VLAN 7 is pool 0's and pool 1's.
    bench.set(0x5088, 1 << 30)
    bench.card.write(1 << 31 | 7, 0xF100)
    bench.card.write(0b11, 0xF200)
    var result = send(frame(to: 2, tag: 7), bench)
    #expect(result.wire.isEmpty && result.queues == [2])
    // An exact address keeps it from the wire, also where the VLAN keeps it from the pool.
    result = send(frame(to: 4, tag: 7), bench)
    #expect(result.wire.isEmpty && result.queues.isEmpty)
    result = send(address(Self.broadcast, tag: 7), bench)
    #expect(result.wire.count == 1 && result.queues == [2])
    // Untagged: AUPE decides.
    bench.card.write(1 << 27, 0xF00C)
    result = send(address(Self.broadcast), bench)
    #expect(result.wire.count == 1 && result.queues == [2])
  }

  @Test func `a switched frame without a buffer is lost and counted, as one from the wire is`() throws {
    let bench = try bench()
    bench.card.doorbell(ConformanceBench.receive(6, 0x18)).ring(0)
    let result = send(frame(to: 4), bench)
    #expect(result.wire.isEmpty && result.queues.isEmpty)
    #expect(bench.card.copies.map(\.queue) == [6] && bench.card.copies[0].drop == .noDescriptors)
    #expect(bench.card.read(0x1430) == 1)
    // A queue that is off.
    bench.clear(ConformanceBench.receive(6, 0x28), 1 << 25)
    bench.clock.pause(nanoseconds: 20_000)
    _ = send(frame(to: 4), bench)
    #expect(bench.card.copies.map(\.drop) == [.queueDisabled])
    #expect(bench.card.read(0x2F68) == 0)
  }

  @Test func `a pool held to its addresses sends under no other`() throws {
    let bench = try bench()
    bench.card.write(1, 0x8200)
    let wire = TransmitWire(.capture)
    for source: UInt8 in [2, 9, 1] { bench.postTransmit(pieces: [frame(to: 9, from: source)]) }
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: wire) == 3)
    #expect(wire.frames == [frame(to: 9)])
    #expect(bench.card.read(0x8780) == 2 && bench.card.read(0x8780) == 0)
    // Neither do the other pools see what is refused.
    #expect(send(address(Self.broadcast, from: 2), bench).queues.isEmpty)
    // Also without the switch.
    bench.card.write(0, 0x8220)
    #expect(send(frame(to: 4, from: 2), bench).wire.isEmpty)
  }

  /// 8.2.3.27.11: VLANAS is bits 8 to 15 of eight registers, PFVLVF and PFVLVFB name the VLANs.
  @Test func `a pool held to its VLANs sends into no other, and without a tag only if VLAN 0 is its own`() throws {
    let bench = try bench()
    bench.card.write(1 | 1 << 8, 0x8200)
    bench.card.write(1 << 31 | 7, 0xF100)
    bench.card.write(0b11, 0xF200)
    bench.card.write(1 << 31 | 8, 0xF104)
    bench.card.write(0b10, 0xF208)
    func isSent(_ frame: [UInt8]) -> Bool { send(frame, bench).wire == [frame] }
    // VFE is for reception: without it the VLANs are looked at all the same.
    for isFiltering in [false, true] {
      if isFiltering { bench.set(0x5088, 1 << 30) }
      #expect(isSent(frame(to: 9, tag: 7)) && isSent(frame(to: 9, tag: 0xE007)))
      #expect(!isSent(frame(to: 9, tag: 8)) && !isSent(frame(to: 9, tag: 9)))
      #expect(!isSent(frame(to: 9)) && !isSent(frame(to: 9, tag: 0)) && !isSent(frame(to: 9, tag: 0x2000)))
      // Only the outer tag: 8 behind 7 is of 7, 7 behind 8 is of 8.
      var nested = frame(to: 9, tag: 7)
      nested.replaceSubrange(16..<20, with: [0x81, 0, 0, 8])
      #expect(isSent(nested))
      nested.replaceSubrange(14..<20, with: [0, 8, 0x81, 0, 0, 7])
      #expect(!isSent(nested))
      #expect(!isSent(frame(to: 9, from: 2, tag: 7)))
    }
    #expect(bench.card.read(0x8780) == 14)
    #expect(send(frame(to: 2, tag: 8), bench).queues.isEmpty)
    // VLAN 0 of its own; then the check is off.
    bench.card.write(1 << 31 | 0, 0xF108)
    bench.card.write(1, 0xF210)
    #expect(isSent(frame(to: 9)) && isSent(frame(to: 9, tag: 0x2000)) && !isSent(frame(to: 9, tag: 8)))
    bench.card.write(1, 0x8200)
    #expect(isSent(frame(to: 9, tag: 8)))
  }

  @Test(arguments: 0..<64) func `each pool has its own bits in the eight registers`(_ pool: Int) throws {
    let bench = try bench()
    for (bits, isMAC) in [(UInt32(1) << UInt32(pool % 8), true), (UInt32(1) << UInt32(8 + pool % 8), false)] {
      bench.card.write(bits, 0x8200 + 4 * (pool / 8))
      bench.card.rebuildFilters()
      let state = unsafe bench.card.filters.current.pointee
      #expect(state.checkedPools == (isMAC ? 1 << UInt64(pool) : 0) && state.checkedVLANPools == (isMAC ? 0 : 1 << UInt64(pool)))
    }
  }

  /// 8.2.3.27.13: VLANA in bits 30 and 31, the port's VLAN in bits 0 to 15.
  @Test func `a port's tag goes into every frame of its pool, in front of one that is there`() throws {
    let bench = try bench()
    bench.card.write(1 << 30 | 0xA007, 0x8000)
    func tagged(_ frame: [UInt8]) -> [UInt8] { Array(frame[..<12]) + [0x81, 0, 0xA0, 7] + Array(frame[12...]) }
    for sent in [frame(to: 9), frame(to: 9, tag: 8)] { #expect(send(sent, bench).wire == [tagged(sent)]) }
    // The descriptor's VLE does not count; nor does it where no tag is to go in. 16 bits of VLAN_MACIP_LENS.
    func withDescriptorTag() -> [[UInt8]] {
      let wire = TransmitWire(.capture)
      bench.postTransmit(5 << 16 | 14 << 9 | 20, 1 << 29 | 2 << 20)
      bench.postTransmit(pieces: [frame(to: 9)], options: 1 << 30)
      bench.ringTransmit()
      #expect(bench.card.transmit(budget: 8, to: wire) == 1)
      return wire.frames
    }
    #expect(withDescriptorTag() == [tagged(frame(to: 9))])
    bench.card.write(2 << 30 | 7, 0x8000)
    #expect(withDescriptorTag() == [frame(to: 9)])
    bench.card.write(0, 0x8000)
    #expect(withDescriptorTag() == [Array(frame(to: 9)[..<12]) + [0x81, 0, 0, 5] + Array(frame(to: 9)[12...])])
    // Another pool's is not this one's.
    bench.card.write(1 << 30 | 7, 0x8004)
    #expect(send(frame(to: 9), bench).wire == [frame(to: 9)])
  }

  @Test func `a port's tag is looked at by the VLAN check and by the other pools' filters, and taken off by their queues`() throws {
    let bench = try bench()
    bench.set(0x5088, 1 << 30)
    bench.card.write(1 << 31 | 7, 0xF100)
    bench.card.write(0b11, 0xF200)
    bench.card.write(1 << 31 | 8, 0xF104)
    bench.card.write(0b1000, 0xF208)
    bench.card.write(1 << 30 | 7, 0x8000)
    bench.card.write(1 | 1 << 8, 0x8200)
    bench.set(ConformanceBench.receive(2, 0x28), 1 << 30)
    let sent = frame(to: 2)
    #expect(send(sent, bench).queues == [2] && bench.take(2).bytes == sent)
    // Into VLAN 8 by a tag of its own: it is behind the port's, and pool 3 is not in VLAN 7.
    #expect(send(frame(to: 4, tag: 8), bench).queues.isEmpty)
    #expect(bench.card.read(0x8780) == 0)
    bench.card.write(1 << 30 | 8, 0x8000)
    #expect(send(sent, bench).wire.isEmpty && bench.card.read(0x8780) == 1)
  }

  @Test func `sums put in on the way out are right for the other pool`() throws {
    let bench = try bench()
    let sum = WirePacket.udp4(data: [UInt8](repeating: 7, count: 50), mac: [2, 0, 0, 0, 0, 4])
    var unsummed = sum
    let pseudo = WirePacket.sum(Array(sum[26..<34]) + [0, 17] + WirePacket.word(UInt16(58)))
    unsummed.replaceSubrange(40..<42, with: WirePacket.word(pseudo))
    // A context of UDP, MACLEN 14 and IPLEN 20; TXSM.
    bench.postTransmit(14 << 9 | 20, 1 << 29 | 2 << 20)
    bench.postTransmit(pieces: [unsummed], options: 1 << 41 | 1 << 39)
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: TransmitWire(.drop)) == 1)
    let got = bench.take(6)
    #expect(got.bytes == sum)
    // L4I, and no L4E.
    #expect(got.second & 1 << 5 != 0 && got.second & 3 << 30 == 0)
  }

  @Test func `a tag that a queue strips is stripped from each copy, and the wire's copy keeps it`() throws {
    let bench = try bench()
    bench.set(ConformanceBench.receive(2, 0x28), 1 << 30)
    let sent = address(Self.broadcast, tag: 5)
    let result = send(sent, bench)
    #expect(result.wire == [sent] && result.queues == [2, 6])
    let stripped = bench.take(2)
    #expect(stripped.bytes == Array(sent[..<12]) + Array(sent[16...]) && stripped.tag == 5)
    #expect(bench.take(6).bytes == sent)
  }

  @Test func `queues have their turns, whatever the budget`() throws {
    let bench = try bench()
    // Queue 2, of pool 1, has a ring of its own.
    bench.card.write(UInt32(ConformanceBench.iova) + 0x48000, 0x6080)
    bench.card.write(UInt32(ConformanceBench.ringCount * 16), 0x6088)
    bench.card.write(1 << 25, 0x60A8)
    bench.clock.pause(nanoseconds: 20_000)
    let offset = 0x49000
    bench.fill(offset, frame(to: 9, from: 2))
    for slot in 0..<8 {
      bench.store(ConformanceBench.iova + UInt64(offset), 0x48000 + slot * 16)
      bench.store(100 | 1 << 29 | 1 << 27 | 1 << 25 | 1 << 24 | 3 << 20 | 100 << 46, 0x48000 + slot * 16 + 8)
    }
    for _ in 0..<8 { bench.postTransmit(pieces: [frame(to: 9)]) }
    bench.ringTransmit()
    bench.card.doorbell(0x6098).ring(8)
    let wire = TransmitWire(.capture)
    for _ in 0..<16 { #expect(bench.card.transmit(budget: 1, to: wire) == 1) }
    #expect(wire.frames.map { $0[11] } == (0..<16).map { UInt8($0 % 2 + 1) })
    #expect(bench.card.transmit(budget: 1, to: wire) == 0)
  }
}
