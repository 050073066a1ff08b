import Bus
import Linux
import Testing

@testable import Simulation

/// From the wire into memory: limits, checksums, descriptors, statistics, reset. 82599 datasheet 7.1, 4.6.7, 8.2.3.
@Suite struct ConformanceReceiveTests {
  private static let canary = UInt8(0xC7)
  private func frame(_ count: Int, tag: UInt16? = nil) -> [UInt8] {
    WirePacket.udp4(data: (0..<count - 42 - (tag == nil ? 0 : 4)).map { UInt8(truncatingIfNeeded: $0) }, tag: tag)
  }

  // MARK: lengths

  @Test func `without jumbo frames 1518 bytes are the limit, and 1522 with a tag, check sequence included`() throws {
    let bench = try ConformanceBench()
    // MAXFRS without JUMBOEN says nothing.
    bench.card.write(9000 << 16, 0x4268)
    #expect(bench.receive(frame(1514)) == .delivered(queue: 0))
    #expect(bench.receive(frame(1515)) == .dropped(.oversize, queue: nil))
    #expect(bench.receive(frame(1518, tag: 1)) == .delivered(queue: 0))
    #expect(bench.receive(frame(1519, tag: 1)) == .dropped(.oversize, queue: nil))
    #expect(bench.card.read(0x40AC) == 2)
    #expect(bench.card.read(0x4074) == 2)
  }

  @Test func `with jumbo frames MAXFRS is the limit to the byte, and a tag is four bytes more`() throws {
    let bench = try ConformanceBench()
    bench.set(0x4240, 4)
    bench.card.write(1200 << 16, 0x4268)
    #expect(bench.receive(frame(1196)) == .delivered(queue: 0))
    #expect(bench.receive(frame(1197)) == .dropped(.oversize, queue: nil))
    #expect(bench.receive(frame(1200, tag: 1)) == .delivered(queue: 0))
    #expect(bench.receive(frame(1201, tag: 1)) == .dropped(.oversize, queue: nil))
    bench.card.write(9728 << 16, 0x4268)
    #expect(bench.receive(frame(9724)) == .delivered(queue: 0))
    #expect(bench.receive(frame(9725)) == .dropped(.oversize, queue: nil))
  }

  @Test func `with the check sequence left on, a descriptor has four bytes more, and they are the sequence`() throws {
    let bench = try ConformanceBench()
    #expect(bench.receive(frame(100)) == .delivered(queue: 0))
    #expect(bench.take(0).length == 100)
    bench.clear(0x4240, 2)
    bench.clear(0x2F00, 2)
    #expect(bench.receive(frame(100)) == .delivered(queue: 0))
    let seen = bench.take(0)
    #expect(seen.length == 104)
    #expect(Array(seen.bytes.prefix(100)) == frame(100))
    // The sequence of a whole frame with its own has a fixed residue.
    var remainder: UInt32 = .max
    for byte in seen.bytes {
      remainder ^= UInt32(byte)
      for _ in 0..<8 { remainder = remainder & 1 == 1 ? remainder >> 1 ^ 0xEDB8_8320 : remainder >> 1 }
    }
    #expect(remainder == 0xDEBB_20E3)
  }

  @Test func `the check sequence counts for the spill: 1020 bytes and it fit a buffer of 1 KiB, 1021 do not`() throws {
    let bench = try ConformanceBench(bufferKiB: 1)
    bench.clear(0x4240, 2)
    bench.clear(0x2F00, 2)
    #expect(bench.receive(frame(1020)) == .delivered(queue: 0))
    let whole = bench.take(0)
    #expect(whole.length == 1024 && whole.isEnd)
    #expect(bench.receive(frame(1021)) == .delivered(queue: 0))
    let (first, last) = (bench.take(0), bench.take(0))
    #expect(first.length == 1024 && !first.isEnd)
    #expect(last.length == 1 && last.isEnd)
  }

  @Test(arguments: [(1024, [1024]), (1025, [1024, 1]), (2048, [1024, 1024]), (2049, [1024, 1024, 1]), (4096, [1024, 1024, 1024, 1024])])
  func `a frame spills over buffers of BSIZEPACKET, with EOP on the last alone`(count: Int, lengths: [Int]) throws {
    let bench = try ConformanceBench(bufferKiB: 1)
    bench.set(0x4240, 4)
    bench.card.write(9728 << 16, 0x4268)
    let sent = frame(count)
    #expect(bench.receive(sent) == .delivered(queue: 0))
    var got: [UInt8] = []
    for (index, length) in lengths.enumerated() {
      let piece = bench.take(0)
      #expect(piece.isDone)
      #expect(piece.length == length)
      #expect(piece.isEnd == (index == lengths.count - 1))
      // Checksum status belongs to the last.
      #expect(piece.status == (piece.isEnd ? 0x70 : 0))
      got += piece.bytes
    }
    #expect(got == sent)
    #expect(!bench.take(0).isDone)
    #expect(bench.card.read(0x1010) == UInt32(lengths.count))
    // Nothing behind the last byte.
    #expect(bench.bytes(bench.buffer(lengths.count - 1, 0) + lengths.last!, 64) == [UInt8](repeating: 0, count: 64))
  }

  @Test func `a frame that spills needs all its descriptors, and does not run past the tail`() throws {
    let bench = try ConformanceBench(bufferKiB: 1)
    bench.card.doorbell(0x1018).ring(1)
    #expect(bench.receive(frame(1025)) == .dropped(.noDescriptors, queue: 0))
    #expect(bench.receive(frame(1024 - 4)) == .delivered(queue: 0))
    bench.card.doorbell(0x1018).ring(3)
    #expect(bench.receive(frame(1025)) == .delivered(queue: 0))
    #expect(bench.card.read(0x1010) == 3)
  }

  // MARK: no descriptors

  @Test func `with DROP_EN an empty queue loses its own frames, and the port goes on`() throws {
    let bench = try ConformanceBench(queues: [0, 2], drops: true)
    bench.startPools()
    bench.setAddress(0, 1, pools: 1)
    bench.setAddress(1, 3, pools: 2)
    bench.card.doorbell(0x1018).ring(0)
    let other = WirePacket.udp4(mac: [2, 0, 0, 0, 0, 3])
    for _ in 0..<3 {
      #expect(bench.receive(WirePacket.udp4()) == .dropped(.noDescriptors, queue: 0))
      #expect(bench.receive(other) == .delivered(queue: 2))
    }
    #expect(bench.card.read(0x1430) == 3)
    #expect(bench.card.read(0x3FA0) == 0)
  }

  @Test func `without DROP_EN an empty queue stalls the port, other queues lose frames, and RXMPC counts them`() throws {
    let bench = try ConformanceBench(queues: [0, 2], drops: false)
    bench.startPools()
    bench.setAddress(0, 1, pools: 1)
    bench.setAddress(1, 3, pools: 2)
    bench.card.doorbell(0x1018).ring(0)
    let other = WirePacket.udp4(mac: [2, 0, 0, 0, 0, 3])
    #expect(bench.receive(other) == .delivered(queue: 2))
    #expect(bench.receive(WirePacket.udp4()) == .dropped(.missed, queue: 0))
    for _ in 0..<4 { #expect(bench.receive(other) == .dropped(.portStalled, queue: 0)) }
    #expect(bench.card.read(0x3FA0) == 5)
    #expect(bench.card.read(0x3FA0) == 0)
    #expect(bench.card.read(0x1430) == 0)
    bench.card.doorbell(0x1018).ring(2)
    #expect(bench.receive(other) == .delivered(queue: 2))
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
  }

  @Test func `PFQDE makes one queue drop`() throws {
    let bench = try ConformanceBench(queues: [0], drops: false)
    bench.card.doorbell(0x1018).ring(0)
    bench.card.write(1 << 16 | 5 << 8 | 1, 0x2F04)
    #expect(bench.receive(WirePacket.udp4()) == .dropped(.missed, queue: 0))
    bench.card.write(1 << 16 | 1, 0x2F04)
    #expect(bench.receive(WirePacket.udp4()) == .dropped(.noDescriptors, queue: 0))
  }

  // MARK: checksums

  private static let addresses = WirePacket.long(0x0A00_0001) + WirePacket.long(0x0A00_0002)
  private static let (l4, ip, udp, l4Bad, ipBad): (UInt64, UInt64, UInt64, UInt64, UInt64) = (
    1 << 5, 1 << 6, 1 << 4, 1 << 30, 1 << 31
  )

  @Test func `the checksum status says what was checked, and what was wrong`() throws {
    let bench = try ConformanceBench()
    func status(_ frame: [UInt8]) -> UInt64 {
      #expect(bench.receive(frame) == .delivered(queue: 0))
      return bench.take(0).status
    }
    func changed(_ frame: [UInt8], _ at: Int) -> [UInt8] {
      var frame = frame
      frame[at] ^= 0x10
      return frame
    }
    let (udp, tcp) = (WirePacket.udp4(), WirePacket.tcp4())
    #expect(status(udp) == Self.l4 | Self.ip | Self.udp)
    #expect(status(tcp) == Self.l4 | Self.ip)
    // The time to live: only the header's sum is wrong.
    #expect(status(changed(udp, 22)) == Self.l4 | Self.ip | Self.udp | Self.ipBad)
    #expect(status(changed(tcp, 22)) == Self.l4 | Self.ip | Self.ipBad)
    // A byte of data.
    #expect(status(changed(udp, 43)) == Self.l4 | Self.ip | Self.udp | Self.l4Bad)
    #expect(status(changed(tcp, 55)) == Self.l4 | Self.ip | Self.l4Bad)
    // Padding belongs to no checksum.
    #expect(status(changed(udp, 59)) == Self.l4 | Self.ip | Self.udp)
    // None there: not checked, and no error.
    #expect(status(WirePacket.udp4(sums: false)) == Self.ip)
    #expect(status(changed(WirePacket.udp4(sums: false), 43)) == Self.ip)
    // A fragment: the header only. Anything else: nothing.
    let fragment = WirePacket.ipv4(WirePacket.udp(Self.addresses, (1, 2)), number: 17, fragment: 0x2000)
    #expect(status(WirePacket.ethernet(fragment)) == Self.ip)
    #expect(status(WirePacket.ethernet([0, 1], type: 0x0806)) == 0)
    #expect(status(WirePacket.udp4(tag: 5)) == Self.l4 | Self.ip | Self.udp)
  }

  @Test func `IPv6 has no header checksum`() throws {
    let bench = try ConformanceBench()
    let (from, to) = ([UInt8](repeating: 1, count: 16), [UInt8](repeating: 2, count: 16))
    var frame = WirePacket.ethernet(
      WirePacket.ipv6(WirePacket.udp(from + to, (7, 8)), number: 17, from: from, to: to), type: 0x86DD)
    #expect(bench.receive(frame) == .delivered(queue: 0))
    #expect(bench.take(0).status == Self.l4 | Self.udp)
    frame[62] ^= 1
    #expect(bench.receive(frame) == .delivered(queue: 0))
    #expect(bench.take(0).status == Self.l4 | Self.udp | Self.l4Bad)
  }

  @Test func `a legacy descriptor has the same status, and its errors in the fifth byte`() throws {
    let bench = try ConformanceBench()
    bench.card.write(2, 0x1014)
    var frame = WirePacket.udp4()
    #expect(bench.receive(frame) == .delivered(queue: 0))
    // DD, EOP, UDPCS, L4CS, IPCS; length; no error.
    #expect(bench.take(0).second == 0x73 << 32 | UInt64(frame.count))
    frame[22] ^= 0x10
    #expect(bench.receive(frame) == .delivered(queue: 0))
    #expect(bench.take(0).second == 0x8073 << 32 | UInt64(frame.count))
    frame[43] ^= 0x10
    #expect(bench.receive(frame) == .delivered(queue: 0))
    #expect(bench.take(0).second == 0xC073 << 32 | UInt64(frame.count))
  }

  // MARK: disable

  @Test func `from the write that clears ENABLE, and after it reads 0, nothing is written anywhere`() throws {
    let bench = try ConformanceBench()
    for slot in 0..<ConformanceBench.ringCount {
      bench.fill(bench.buffer(slot, 0), [UInt8](repeating: Self.canary, count: 2048))
    }
    #expect(bench.receive(frame(200)) == .delivered(queue: 0))
    let before = bench.snapshot()
    bench.clear(0x1028, 1 << 25)
    #expect(bench.card.read(0x1028) & 1 << 25 != 0)
    for _ in 0..<20 {
      #expect(bench.receive(frame(200)) == .dropped(.queueDisabled, queue: 0))
      bench.clock.pause(nanoseconds: 1_000)
    }
    #expect(bench.card.read(0x1028) & 1 << 25 == 0)
    for _ in 0..<20 {
      #expect(bench.receive(frame(200)) == .dropped(.queueDisabled, queue: 0))
      bench.clock.pause(nanoseconds: 100_000)
    }
    #expect(bench.snapshot() == before)
    // On again with an empty ring at the same place: it goes on from the head.
    bench.set(0x1028, 1 << 25)
    bench.clock.pause(nanoseconds: 20_000)
    #expect(bench.receive(frame(200)) == .delivered(queue: 0))
    _ = bench.take(0)
    #expect(bench.take(0).length == 200)
  }

  // MARK: reset

  @Test func `a reset takes its time, and then every register is as after power-up`() throws {
    let offsets = [
      0x00018, 0x02F00, 0x03000, 0x03C00, 0x04240, 0x04268, 0x042A0, 0x05000, 0x05080, 0x05088, 0x05090, 0x05128, 0x05200,
      0x05818, 0x05C00, 0x05C80, 0x051B0, 0x051E0, 0x06000, 0x06028, 0x00880, 0x00898, 0x00900, 0x01000, 0x01008, 0x01010,
      0x01014, 0x01018, 0x01028, 0x0A000, 0x0A200, 0x0A204, 0x0A208, 0x0A20C, 0x0A600, 0x0D028, 0x0E600, 0x0EC30, 0x0EE00,
      0x0EE38, 0x0EE70, 0x0F000, 0x0F100, 0x0F200, 0x04A80,
    ]
    let fresh = SimulatedCard(
      dma: SimulatedIOMMU(), clock: SimulatedClock(), macAddress: ConformanceBench.station)
    let bench = try ConformanceBench()
    bench.startPools()
    bench.startScaling(fields: 1 << 16)
    bench.setAddress(1, 9, pools: 1)
    bench.startTransmit()
    for at in [0x4268, 0x5080, 0x5088, 0x5090, 0x5128, 0x5200, 0xA000, 0xE600, 0xEC30, 0xF000, 0xF100, 0xF200, 0x880, 0x900] {
      bench.card.write(0x8765_4321, at)
    }
    bench.card.write(0x7F31, 0xEE00)
    #expect(bench.receive(WirePacket.udp4()) != .dropped(.resetting, queue: nil))
    let before = bench.snapshot()
    bench.card.write(1 << 26, 0)
    #expect(bench.card.read(0) & 1 << 26 != 0)
    #expect(bench.receive(WirePacket.udp4()) == .dropped(.resetting, queue: nil))
    bench.clock.pause(nanoseconds: bench.card.faults.resetTime - 1)
    #expect(bench.card.read(0) & 1 << 26 != 0)
    bench.clock.pause(nanoseconds: 1)
    #expect(bench.card.read(0) & 1 << 26 == 0)
    #expect(bench.card.read(0x10010) & 1 << 9 == 0)
    for at in offsets { #expect(bench.card.read(at) == fresh.read(at), "register \(String(at, radix: 16))") }
    #expect(bench.card.read(0x5088) == 0x8100)
    #expect(bench.card.read(0x4268) == 1518 << 16)
    #expect(bench.card.read(0xA204) >> 31 == 1)
    bench.clock.pause(nanoseconds: bench.card.faults.initialisationTime)
    #expect(bench.card.read(0x10010) & 1 << 9 != 0)
    #expect(bench.card.read(0x2F00) & 8 != 0)
    bench.clock.pause(nanoseconds: 10_000_000)
    // RXCTRL.RXEN is clear again.
    #expect(bench.receive(WirePacket.udp4()) == .dropped(.receiveDisabled, queue: nil))
    #expect(bench.snapshot() == before)
  }

  // MARK: statistics

  @Test func `statistics clear when they are read`() throws {
    let bench = try ConformanceBench()
    bench.set(0x5080, 1 << 10 | 1 << 8)
    let frames = [
      frame(60), frame(61), frame(100), frame(200), frame(400), frame(900), frame(1400),
      WirePacket.udp4(mac: [UInt8](repeating: 0xFF, count: 6)), WirePacket.udp4(mac: [1, 0, 0x5E, 0, 0, 1]),
    ]
    for frame in frames { #expect(bench.receive(frame) == .delivered(queue: 0)) }
    #expect(bench.receive(WirePacket.udp4(mac: [2, 9, 9, 9, 9, 9])) == .dropped(.noPool, queue: nil))
    let octets = UInt32(frames.reduce(0) { $0 + $1.count + 4 })
    let count = UInt32(frames.count)
    // 64; 65 to 127, 255, 511, 1023, and more; GPRC, BPRC, MPRC, GORC, TOR, TPR; QPRC and QBRC.
    let expected: [(Int, UInt32)] = [
      (0x405C, 3), (0x4060, 2), (0x4064, 1), (0x4068, 1), (0x406C, 1), (0x4070, 1), (0x4074, count), (0x4078, 1),
      (0x407C, 1), (0x4088, octets), (0x408C, 0), (0x40C0, octets + 64), (0x40C4, 0), (0x40D0, count + 1), (0x1030, count),
      (0x1034, octets), (0x1038, 0),
    ]
    for (at, value) in expected { #expect(bench.card.read(at) == value, "\(String(at, radix: 16))") }
    for (at, _) in expected { #expect(bench.card.read(at) == 0, "\(String(at, radix: 16)) again") }
    // Writing changes nothing.
    #expect(bench.receive(frame(60)) == .delivered(queue: 0))
    bench.card.write(77, 0x4074)
    #expect(bench.card.read(0x4074) == 1)
  }

  @Test func `RQSMR says which counters a queue has`() throws {
    let bench = try ConformanceBench()
    bench.card.write(7, 0x2300)
    #expect(bench.receive(frame(60)) == .delivered(queue: 0))
    #expect(bench.card.read(0x1030) == 0)
    #expect(bench.card.read(0x1030 + 0x40 * 7) == 1)
    bench.card.doorbell(0x1018).ring(1)
    #expect(bench.receive(frame(60)) == .dropped(.noDescriptors, queue: 0))
    #expect(bench.card.read(0x1430 + 0x40 * 7) == 1)
  }

  // MARK: what the IOMMU refuses

  @Test func `a buffer outside the map: not a byte written, a fault recorded, its queue stands still, others go on`() throws {
    let bench = try ConformanceBench(queues: [0, 2])
    bench.startPools()
    bench.setAddress(0, 1, pools: 1)
    bench.setAddress(1, 3, pools: 2)
    // The frame begins in the map and ends outside it.
    let edge = ConformanceBench.iova + UInt64(ConformanceBench.byteCount) - 30
    bench.store(edge, bench.ring(0) + 16)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
    let before = bench.snapshot()
    #expect(bench.receive(WirePacket.udp4()) == .dropped(.dmaFault, queue: 0))
    #expect(bench.dma.faultCount == 1)
    let fault = try #require(bench.dma.faults.last)
    #expect(fault.address == IOVA(edge))
    #expect(fault.refused == IOVA(edge + 30))
    #expect(fault.access == .write)
    #expect(bench.card.queueFault(0) == .bufferWrite(address: edge, count: 60))
    for _ in 0..<3 { #expect(bench.receive(WirePacket.udp4()) == .dropped(.queueFaulted, queue: 0)) }
    #expect(bench.snapshot() == before)
    #expect(bench.card.read(0x1010) == 1)
    for _ in 0..<3 { #expect(bench.receive(WirePacket.udp4(mac: [2, 0, 0, 0, 0, 3])) == .delivered(queue: 2)) }
    #expect(bench.card.queueFault(2) == nil)
    #expect(bench.dma.faultCount == 1)
    // The queue comes back with a reset only.
    bench.clear(0x1028, 1 << 25)
    bench.clock.pause(nanoseconds: 20_000)
    bench.store(ConformanceBench.iova + UInt64(bench.buffer(1, 0)), bench.ring(0) + 16)
    bench.set(0x1028, 1 << 25)
    bench.clock.pause(nanoseconds: 20_000)
    #expect(bench.receive(WirePacket.udp4()) == .dropped(.queueFaulted, queue: 0))
  }

  @Test func `a ring outside the map stops its queue, and memory taken away stops it too`() throws {
    let bench = try ConformanceBench(queues: [0])
    try bench.dma.unmap(IOVA(ConformanceBench.iova), byteCount: ConformanceBench.byteCount)
    let before = bench.snapshot()
    #expect(bench.receive(WirePacket.udp4()) == .dropped(.dmaFault, queue: 0))
    #expect(bench.card.queueFault(0) == .descriptorRead(address: ConformanceBench.iova))
    #expect(bench.dma.faults.last?.access == .read)
    #expect(bench.snapshot() == before)
  }

  @Test func `memory mapped for reading alone is not written`() throws {
    let bench = try ConformanceBench()
    try unsafe bench.dma.map(
      HostMemory(base: bench.memory.base + 0x10_0000, byteCount: 4096), at: IOVA(0x9000_0000), access: .read)
    bench.store(0x9000_0000, bench.ring(0))
    let before = bench.snapshot()
    #expect(bench.receive(WirePacket.udp4()) == .dropped(.dmaFault, queue: 0))
    #expect(bench.snapshot() == before)
  }
}
