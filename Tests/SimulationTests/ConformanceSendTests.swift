import Bus
import Testing

@testable import Simulation

/// Transmission, 82599 datasheet 7.2, and interrupts, 7.3.
@Suite struct ConformanceSendTests {
  // MARK: transmit

  @Test func `a frame in one descriptor goes out as it is, and RS has it written back`() throws {
    let bench = try ConformanceBench()
    bench.startTransmit()
    let wire = TransmitWire(.capture)
    let frame = WirePacket.udp4(data: [UInt8](repeating: 9, count: 300))
    bench.postTransmit(pieces: [frame])
    // Not before the tail says so.
    #expect(bench.card.transmit(budget: 8, to: wire) == 0)
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: wire) == 1)
    #expect(wire.frames == [frame])
    #expect(bench.transmitWord(0) >> 32 & 1 == 1)
    #expect(bench.card.read(0x6010) == 1)
    #expect(bench.card.read(0x4080) == 1)
    #expect(bench.card.read(0x4090) == UInt32(frame.count + 4))
    #expect(bench.card.read(0x4080) == 0)
  }

  @Test func `a frame in several descriptors waits for its end, and only those with RS are written back`() throws {
    let bench = try ConformanceBench()
    bench.startTransmit()
    let wire = TransmitWire(.capture)
    let frame = (0..<900).map { UInt8(truncatingIfNeeded: $0 * 7) }
    bench.postTransmit(pieces: [Array(frame[..<14]), Array(frame[14..<54]), Array(frame[54...])])
    bench.card.doorbell(0x6018).ring(2)
    let before = bench.snapshot()
    #expect(bench.card.transmit(budget: 8, to: wire) == 0)
    #expect(bench.card.read(0x6010) == 0)
    #expect(bench.snapshot() == before)
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: wire) == 1)
    #expect(wire.frames == [frame])
    #expect((0..<3).map { bench.transmitWord($0) >> 32 & 1 } == [0, 0, 1])
    // Without RS nothing is written at all; the head tells.
    bench.postTransmit(pieces: [frame], reports: false)
    bench.ringTransmit()
    let untouched = bench.snapshot()
    #expect(bench.card.transmit(budget: 8, to: wire) == 1)
    #expect(bench.snapshot() == untouched)
    #expect(bench.card.read(0x6010) == 4)
  }

  @Test func `the head is written back to memory where TDWBAL says so, and not to the descriptor`() throws {
    let bench = try ConformanceBench()
    bench.startTransmit()
    bench.card.write(UInt32(ConformanceBench.iova) + 0x48000 | 1, 0x6038)
    bench.postTransmit(pieces: [[UInt8](repeating: 1, count: 60), [UInt8](repeating: 2, count: 60)])
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: TransmitWire(.drop)) == 1)
    #expect(bench.load(0x48000) & 0xFFFF_FFFF == 2)
    #expect(bench.transmitWord(1) & 1 << 29 != 0)
  }

  @Test func `a ring is sent round its end, in order`() throws {
    let bench = try ConformanceBench()
    bench.startTransmit()
    let wire = TransmitWire(.capture)
    var sent: [[UInt8]] = []
    for n in 0..<5 {
      for _ in 0..<20 {
        sent.append([UInt8](repeating: UInt8(sent.count), count: 60 + n))
        bench.postTransmit(pieces: [sent[sent.count - 1]])
      }
      bench.ringTransmit()
      #expect(bench.card.transmit(budget: 100, to: wire) == 20)
    }
    #expect(wire.frames == sent)
    #expect(bench.card.read(0x6010) == 100 % 32)
  }

  @Test func `a short frame is padded with zeroes to 60 bytes, unless HLREG0 says not`() throws {
    let bench = try ConformanceBench()
    bench.startTransmit()
    let wire = TransmitWire(.capture)
    let long = [UInt8](repeating: 0xEE, count: 200)
    let short = [UInt8](repeating: 5, count: 20)
    for pieces in [[long], [short]] { bench.postTransmit(pieces: pieces) }
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: wire) == 2)
    #expect(wire.frames.last == short + [UInt8](repeating: 0, count: 40))
    bench.clear(0x4240, 1 << 10)
    bench.postTransmit(pieces: [short])
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: wire) == 1)
    #expect(wire.frames.last == short)
  }

  /// A context: VLAN tag, MACLEN 14, IPLEN 20; IPv4, and TCP or UDP; and its place, 0 or 1.
  private func postContext(_ bench: ConformanceBench, tcp: Bool, tag: UInt64 = 0, place: UInt64 = 0) {
    bench.postTransmit(tag << 16 | 14 << 9 | 20, 1 << 29 | 2 << 20 | 1 << 10 | (tcp ? 1 << 11 : 0) | place << 36)
  }
  /// The sums taken out; in the transport's place that of the pseudo header.
  private func unsummed(_ frame: [UInt8], tcp: Bool, length: Int) -> [UInt8] {
    var frame = frame
    frame[24] = 0
    frame[25] = 0
    let pseudo = WirePacket.sum(Array(frame[26..<34]) + [0, tcp ? 6 : 17] + WirePacket.word(UInt16(length)))
    frame.replaceSubrange((tcp ? 50..<52 : 40..<42), with: WirePacket.word(pseudo))
    return frame
  }
  private static let insertBoth: UInt64 = 1 << 40 | 1 << 41 | 1 << 39

  @Test(arguments: [false, true])
  func `a context descriptor and POPTS insert the IP and the transport checksum`(isTCP: Bool) throws {
    let bench = try ConformanceBench()
    bench.startTransmit()
    let wire = TransmitWire(.capture)
    let addresses = WirePacket.long(0x0A00_0001) + WirePacket.long(0x0A00_0002)
    let data = (0..<51).map { UInt8($0) }
    let right =
      isTCP
      ? WirePacket.ethernet(WirePacket.ipv4(WirePacket.tcp(addresses, (1, 2), data: data), number: 6))
      : WirePacket.udp4(ports: (1, 2), data: data)
    let wrong = unsummed(right, tcp: isTCP, length: right.count - 34)
    postContext(bench, tcp: isTCP)
    bench.postTransmit(pieces: [Array(wrong[..<40]), Array(wrong[40...])], options: Self.insertBoth)
    // Without POPTS nothing is changed.
    bench.postTransmit(pieces: [wrong])
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: wire) == 2)
    #expect(wire.frames == [right, wrong])
  }

  @Test func `a queue has two contexts, and a frame says which is its`() throws {
    let bench = try ConformanceBench()
    bench.startTransmit()
    let wire = TransmitWire(.capture)
    let addresses = WirePacket.long(0x0A00_0001) + WirePacket.long(0x0A00_0002)
    let udp = WirePacket.udp4(ports: (1, 2), data: [UInt8](repeating: 3, count: 40))
    let tcp = WirePacket.ethernet(
      WirePacket.ipv4(WirePacket.tcp(addresses, (1, 2), data: [UInt8](repeating: 4, count: 40)), number: 6))
    postContext(bench, tcp: false, place: 0)
    postContext(bench, tcp: true, place: 1)
    bench.postTransmit(pieces: [unsummed(udp, tcp: false, length: udp.count - 34)], options: Self.insertBoth)
    bench.postTransmit(pieces: [unsummed(tcp, tcp: true, length: tcp.count - 34)], options: Self.insertBoth | 1 << 36)
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: wire) == 2)
    #expect(wire.frames == [udp, tcp])
  }

  @Test func `a UDP sum that comes out as 0 is sent as ones`() throws {
    let bench = try ConformanceBench()
    bench.startTransmit()
    let wire = TransmitWire(.capture)
    var data: [UInt8] = [0, 0] + [UInt8](repeating: 0, count: 20)
    // Two bytes that bring the sum to 0.
    let addresses = WirePacket.long(0x0A00_0001) + WirePacket.long(0x0A00_0002)
    let without = WirePacket.sum(addresses + [0, 17, 0, 30] + [0, 1, 0, 2, 0, 30])
    data.replaceSubrange(0..<2, with: WirePacket.word(~without))
    let right = WirePacket.udp4(ports: (1, 2), data: data)
    #expect(Array(right[40..<42]) == [0xFF, 0xFF])
    postContext(bench, tcp: false)
    bench.postTransmit(pieces: [unsummed(right, tcp: false, length: 30)], options: Self.insertBoth)
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: wire) == 1)
    #expect(wire.frames == [right])
  }

  @Test func `VLE inserts the context's tag`() throws {
    let bench = try ConformanceBench()
    bench.startTransmit()
    let wire = TransmitWire(.capture)
    let data = [UInt8](repeating: 6, count: 40)
    postContext(bench, tcp: false, tag: 0x6064)
    bench.postTransmit(pieces: [WirePacket.udp4(data: data)], options: 1 << 30)
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: wire) == 1)
    #expect(wire.frames == [WirePacket.udp4(data: data, tag: 0x6064)])
  }

  @Test func `what is sent comes back through the loop into its pool`() throws {
    let bench = try ConformanceBench(queues: [0, 6])
    bench.startPools()
    bench.setAddress(0, 1, pools: 1)
    bench.setAddress(1, 3, pools: 1 << 3)
    bench.startTransmit()
    let wire = TransmitWire(.loopback)
    let frame = WirePacket.udp4(data: [UInt8](repeating: 8, count: 77), mac: [2, 0, 0, 0, 0, 3])
    bench.postTransmit(pieces: [frame])
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: wire) == 1)
    #expect(wire.arrivals == [.delivered(queue: 6)])
    #expect(bench.take(6).bytes == frame)
    // The MAC's own loop, HLREG0.LPBK: the wire sees nothing.
    bench.set(0x4240, 1 << 15)
    bench.postTransmit(pieces: [frame])
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: wire) == 1)
    #expect(wire.arrivals.count == 1)
    #expect(bench.take(6).bytes == frame)
  }

  @Test func `a buffer outside the map sends nothing, and its queue stands still`() throws {
    let bench = try ConformanceBench()
    bench.startTransmit()
    let wire = TransmitWire(.capture)
    bench.postTransmit(0xDEAD_0000, 1 << 29 | 1 << 27 | 1 << 25 | 1 << 24 | 3 << 20 | 60)
    bench.postTransmit(pieces: [WirePacket.udp4()])
    bench.ringTransmit()
    let before = bench.snapshot()
    #expect(bench.card.transmit(budget: 8, to: wire) == 0)
    #expect(bench.card.transmitQueueFault(0) == .bufferRead(address: 0xDEAD_0000, count: 60))
    #expect(bench.card.transmit(budget: 8, to: wire) == 0)
    #expect(wire.frames.isEmpty)
    #expect(bench.dma.faultCount == 1)
    #expect(bench.snapshot() == before)
  }

  // MARK: interrupts

  private final class Vectors { var raised: [Int] = [] }
  private func watch(_ bench: ConformanceBench) -> Vectors {
    let vectors = Vectors()
    bench.card.onInterrupt = { vectors.raised.append($0) }
    return vectors
  }

  @Test func `IVAR maps each queue's receive and transmit cause to a vector`() throws {
    let bench = try ConformanceBench(queues: [0, 2, 6])
    bench.startPools()
    for (slot, pool) in [0, 1, 3].enumerated() { bench.setAddress(slot, UInt8(pool + 1), pools: 1 << UInt64(pool)) }
    bench.startTransmit()
    let vectors = watch(bench)
    // IVAR 0: queue 0 receives on 5 and sends on 40; IVAR 1: queue 2 on 6; IVAR 3: queue 6, not valid.
    bench.card.write(0x80 | 5 | (0x80 | 40) << 8, 0x900)
    bench.card.write(0x80 | 6, 0x904)
    bench.card.write(7, 0x90C)
    bench.card.write(.max, 0xAA0)
    bench.card.write(.max, 0xAA4)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
    #expect(vectors.raised == [5])
    #expect(bench.receive(WirePacket.udp4(mac: [2, 0, 0, 0, 0, 2])) == .delivered(queue: 2))
    #expect(vectors.raised == [5, 6])
    #expect(bench.receive(WirePacket.udp4(mac: [2, 0, 0, 0, 0, 4])) == .delivered(queue: 6))
    #expect(vectors.raised == [5, 6])
    bench.postTransmit(pieces: [WirePacket.udp4()])
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: TransmitWire(.drop)) == 1)
    #expect(vectors.raised == [5, 6, 40])
    // Without RS there is no cause.
    bench.postTransmit(pieces: [WirePacket.udp4()], reports: false)
    bench.ringTransmit()
    #expect(bench.card.transmit(budget: 8, to: TransmitWire(.drop)) == 1)
    #expect(vectors.raised == [5, 6, 40])
  }

  @Test func `the odd queue of a pair has the upper half of its IVAR`() throws {
    let bench = try ConformanceBench(queues: [0, 1])
    let vectors = watch(bench)
    bench.card.write((0x80 | 9) << 16, 0x900)
    bench.card.write(.max, 0xAA0)
    bench.card.write(1 << 31 | 0x88CC, 0x5128)
    bench.card.write(1 << 31 | 1 << 16, 0xEC00)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
    #expect(vectors.raised.isEmpty)
    #expect(bench.receive(WirePacket.ethernet([1], type: 0x88CC)) == .delivered(queue: 1))
    #expect(vectors.raised == [9])
  }

  @Test func `EIMC masks, a masked cause is kept, EIMS lets it out, and reading EICR clears it`() throws {
    let bench = try ConformanceBench()
    let vectors = watch(bench)
    bench.card.write(0x80 | 2, 0x900)
    bench.card.write(1 << 2, 0x880)
    #expect(bench.card.read(0x880) == 4)
    bench.card.write(1 << 2, 0x888)
    #expect(bench.card.read(0x880) == 0)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
    #expect(vectors.raised.isEmpty)
    bench.card.write(1 << 2, 0x880)
    #expect(vectors.raised == [2])
    #expect(bench.card.read(0x800) == 4)
    #expect(bench.card.read(0x800) == 0)
    // Masked, and cleared by writing a one: nothing is left to let out.
    bench.card.write(1 << 2, 0x888)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
    bench.card.write(1 << 2, 0x800)
    bench.card.write(1 << 2, 0x880)
    #expect(vectors.raised == [2])
    // EICS raises by software.
    bench.card.write(1 << 2, 0x808)
    #expect(vectors.raised == [2, 2])
  }

  @Test func `EIAC clears the cause with the message, and EIAM masks it with GPIE.EIAME`() throws {
    let bench = try ConformanceBench()
    let vectors = watch(bench)
    bench.card.write(0x80 | 2, 0x900)
    bench.card.write(1 << 2, 0x810)
    bench.card.write(1 << 2, 0x880)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
    #expect(vectors.raised == [2])
    #expect(bench.card.read(0x800) == 0)
    bench.card.write(1 << 2, 0x890)
    bench.set(0x898, 1 << 30 | 1 << 4)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
    #expect(vectors.raised == [2, 2])
    #expect(bench.card.read(0x880) & 4 == 0)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
    #expect(vectors.raised == [2, 2])
    bench.card.write(1 << 2, 0x880)
    #expect(vectors.raised == [2, 2, 2])
  }

  @Test func `EITR keeps a vector quiet, and then it comes once`() throws {
    let bench = try ConformanceBench()
    let vectors = watch(bench)
    bench.card.write(0x80 | 2, 0x900)
    bench.card.write(1 << 2, 0x810)
    // 25 units of 2 µs.
    bench.card.write(25 << 3, 0x820 + 4 * 2)
    bench.card.write(1 << 2, 0x880)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
    #expect(vectors.raised == [2])
    for _ in 0..<4 { #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0)) }
    bench.clock.pause(nanoseconds: 49_999)
    #expect(vectors.raised == [2])
    bench.clock.pause(nanoseconds: 1)
    #expect(vectors.raised == [2, 2])
    bench.clock.pause(nanoseconds: 1_000_000)
    #expect(vectors.raised == [2, 2])
    // After the quiet time the next is there at once.
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
    #expect(vectors.raised == [2, 2, 2])
  }

  @Test func `a change of the link and a missed frame are other causes, by the second entry of IVAR_MISC`() throws {
    var faults = CardFaults.none
    faults.linkDownAt = 20_000_000
    faults.linkDownFor = 1_000
    let bench = try ConformanceBench(faults: faults, drops: false)
    let vectors = watch(bench)
    bench.card.write((0x80 | 1) << 8, 0xA00)
    _ = bench.card.read(0x800)
    bench.card.write(1 << 20 | 1 << 17, 0x880)
    bench.card.doorbell(0x1018).ring(0)
    #expect(bench.receive(WirePacket.udp4()) == .dropped(.missed, queue: 0))
    #expect(vectors.raised == [1])
    #expect(bench.card.read(0x800) == 1 << 17)
    bench.clock.pause(nanoseconds: 11_000_000)
    #expect(bench.card.read(0x800) == 1 << 20)
    #expect(vectors.raised == [1, 1, 1])
  }
}
