import Bus
import Testing

@testable import Simulation

/// What a driver meets rarely.
@Suite struct ConformanceCornerTests {
  @Test func `a queue for which the port waits gives it free when it is disabled`() throws {
    let bench = try ConformanceBench(queues: [0, 2], drops: false)
    bench.startPools()
    bench.setAddress(0, 1, pools: 1)
    bench.setAddress(1, 3, pools: 2)
    bench.card.doorbell(0x1018).ring(0)
    let other = WirePacket.udp4(mac: [2, 0, 0, 0, 0, 3])
    #expect(bench.receive(WirePacket.udp4()) == .dropped(.missed, queue: 0))
    #expect(bench.receive(other) == .dropped(.portStalled, queue: 0))
    bench.clear(0x1028, 1 << 25)
    bench.clock.pause(nanoseconds: 10_000)
    #expect(bench.receive(other) == .delivered(queue: 2))
  }

  @Test func `a stripped tag and a kept check sequence count when a buffer is filled to the byte`() throws {
    let bench = try ConformanceBench(bufferKiB: 1)
    bench.card.write(1 << 25 | 1 << 30, 0x1028)
    let frame = WirePacket.udp4(data: [UInt8](repeating: 3, count: 1028 - 46), tag: 7)
    #expect(frame.count == 1028)
    bench.card.doorbell(0x1018).ring(1)
    #expect(bench.receive(frame) == .delivered(queue: 0))
    let seen = bench.take(0)
    #expect(seen.length == 1024 && seen.isEnd)
    bench.card.doorbell(0x1018).ring(2)
    #expect(bench.receive(frame + [0]) == .dropped(.noDescriptors, queue: 0))
    bench.clear(0x4240, 2)
    bench.clear(0x2F00, 2)
    #expect(bench.receive(frame) == .dropped(.noDescriptors, queue: 0))
    #expect(bench.receive(Array(frame.dropLast(4))) == .delivered(queue: 0))
    #expect(bench.take(0).length == 1024)
  }

  @Test func `a damaged frame is counted by its length, and stored and marked with FCTRL.SBP alone`() throws {
    let bench = try ConformanceBench()
    func receiveDamaged(_ frame: [UInt8]) -> Arrival {
      unsafe frame.withUnsafeBytes {
        unsafe bench.card.receive(WireFrame(bytes: $0.baseAddress!, count: $0.count, badCRC: true))
      }
    }
    let frame = WirePacket.udp4(data: [UInt8](repeating: 2, count: 100))
    let before = bench.snapshot()
    #expect(receiveDamaged(frame) == .dropped(.crcError, queue: nil))
    #expect(receiveDamaged(Array(frame.prefix(40))) == .dropped(.crcError, queue: nil))
    #expect(receiveDamaged(frame + [UInt8](repeating: 0, count: 2000)) == .dropped(.crcError, queue: nil))
    #expect(bench.snapshot() == before)
    // CRCERRS, RFC, RJC; none of them good.
    for at in [0x4000, 0x40A8, 0x40B0] {
      #expect(bench.card.read(at) == 1)
      #expect(bench.card.read(at) == 0)
    }
    #expect(bench.card.read(0x4074) == 0)
    bench.set(0x5080, 2)
    #expect(receiveDamaged(frame) == .delivered(queue: 0))
    let stored = bench.take(0)
    #expect(stored.bytes == frame)
    #expect(stored.second & 1 << 29 != 0)
  }

  @Test func `RSS of an IPv6 fragment takes its addresses alone`() throws {
    let bench = try ConformanceBench(queues: Array(0..<16))
    bench.startScaling(fields: 1 << 20 | 1 << 21 | 1 << 23)
    let from = [0x3FFE, 0x2501, 0x200, 0x1FFF, 0, 0, 0, 7].flatMap { WirePacket.word($0) }
    let to = [0x3FFE, 0x2501, 0x200, 3, 0, 0, 0, 1].flatMap { WirePacket.word($0) }
    let segment = WirePacket.tcp(from + to, (2794, 1766))
    let packet = WirePacket.ipv6([6, 0, 0, 1, 0, 0, 0, 9] + segment, number: 44, from: from, to: to)
    #expect(bench.receive(WirePacket.ethernet(packet, type: 0x86DD)) == .delivered(queue: 5))
    let seen = bench.take(5)
    #expect(seen.hash == 0x2CC1_8CD5)
    #expect(seen.hashType == 5)
    // Neither TCP nor a checksum of it.
    #expect(seen.first >> 4 & 0x70 == 0)
    #expect(seen.status == 0)
  }

  // MARK: flow director

  private func startFlowDirector(_ bench: ConformanceBench, ignored: UInt32, control: UInt32 = 0x7F31) {
    bench.card.write(0x3DAD_14E2, 0xEE68)
    bench.card.write(ignored, 0xEE70)
    bench.card.write(control, 0xEE00)
    bench.clock.pause(nanoseconds: 1_000_000)
  }
  private func add(_ bench: ConformanceBench, _ key: FlowKey, index: UInt32, queue: UInt32) {
    bench.card.write(key.source, 0xEE18)
    bench.card.write(key.destination, 0xEE1C)
    bench.card.write(key.ports, 0xEE20)
    bench.card.write(key.tagAndFlexible, 0xEE24)
    bench.card.write(index << 16 | bench.card.flowDirector.bucket(of: key), 0xEE28)
    // Add, update, last, queue enable.
    let command: UInt32 = 0x8809
    let place: UInt32 = UInt32(key.pool) << 24 | queue << 16
    bench.card.write(command | place | UInt32(key.type) << 5, 0xEE2C)
  }
  private static let udp = FlowKey(source: 0x0100_000A, destination: 0x0200_000A, ports: 2000 << 16 | 1000, type: 1)

  @Test func `a flow director filter can ask for the VLAN, and for its priority apart`() throws {
    let bench = try ConformanceBench(queues: [0, 1])
    // Priority, pool and flexible bytes are not compared.
    startFlowDirector(bench, ignored: 0x36)
    var key = Self.udp
    key.tagAndFlexible = 100
    add(bench, key, index: 1, queue: 1)
    #expect(bench.receive(WirePacket.udp4(tag: 100)) == .delivered(queue: 1))
    #expect(bench.receive(WirePacket.udp4(tag: 0xE064)) == .delivered(queue: 1))
    #expect(bench.receive(WirePacket.udp4(tag: 101)) == .delivered(queue: 0))
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
  }

  @Test func `a flow director filter can ask for the pool`() throws {
    let bench = try ConformanceBench(queues: [0, 2, 9])
    bench.startPools()
    bench.setAddress(0, 1, pools: 1)
    bench.setAddress(1, 3, pools: 2)
    startFlowDirector(bench, ignored: 0x33)
    var key = Self.udp
    key.pool = 1
    add(bench, key, index: 1, queue: 9)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
    #expect(bench.receive(WirePacket.udp4(mac: [2, 0, 0, 0, 0, 3])) == .delivered(queue: 9))
  }

  @Test func `a flow director filter can ask for two bytes of the frame`() throws {
    let bench = try ConformanceBench(queues: [0, 1])
    // Offset 3 words: the first two bytes of the sender's address.
    startFlowDirector(bench, ignored: 0x27, control: 0x7F31 | 3 << 16)
    var key = Self.udp
    key.tagAndFlexible = 0x0002 << 16
    add(bench, key, index: 1, queue: 1)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 1))
    var other = WirePacket.udp4()
    other[7] = 1
    #expect(bench.receive(other) == .delivered(queue: 0))
  }

  @Test func `2046 filters fit, one more fails and is counted, and a clear makes room`() throws {
    let bench = try ConformanceBench(queues: [0, 1])
    startFlowDirector(bench, ignored: 0x37)
    func key(_ n: UInt32) -> FlowKey {
      var key = Self.udp
      key.ports = 2000 << 16 | n
      return key
    }
    for n in 0..<2047 as Range<UInt32> { add(bench, key(n), index: n, queue: 1) }
    #expect(bench.card.read(0xEE38) == 0)
    #expect(bench.card.read(0xEE50) == 2046)
    #expect(bench.card.read(0xEE54) == 1)
    #expect(bench.receive(WirePacket.udp4(ports: (0, 2000))) == .delivered(queue: 1))
    #expect(bench.receive(WirePacket.udp4(ports: (2045, 2000))) == .delivered(queue: 1))
    #expect(bench.receive(WirePacket.udp4(ports: (2046, 2000))) == .delivered(queue: 0))
    bench.card.write(1 << 8, 0xEE2C)
    #expect(bench.card.read(0xEE38) == 2046)
    #expect(bench.receive(WirePacket.udp4(ports: (0, 2000))) == .delivered(queue: 0))
    add(bench, key(9), index: 9, queue: 1)
    #expect(bench.receive(WirePacket.udp4(ports: (9, 2000))) == .delivered(queue: 1))
  }

  // MARK: registers

  @Test func `an EtherType filter can name the pool`() throws {
    let bench = try ConformanceBench(queues: [0, 12])
    bench.startPools()
    bench.setAddress(0, 1, pools: 1)
    bench.card.write(1 << 31 | 1 << 26 | 6 << 20 | 0x88CC, 0x5128)
    #expect(bench.receive(WirePacket.ethernet([1], type: 0x88CC)) == .delivered(queue: 12))
    #expect(bench.receive(WirePacket.ethernet([1], type: 0x88CD)) == .delivered(queue: 0))
    // What no address filter lets in, no EtherType filter does.
    let stranger = WirePacket.ethernet([1], type: 0x88CC, to: [2, 9, 9, 9, 9, 9])
    #expect(bench.receive(stranger) == .dropped(.noPool, queue: nil))
  }

  @Test(arguments: [
    (0x5400 + 8 * 15, 0xA200 + 8 * 15), (0x5404, 0xA204), (0x5480 + 4 * 15, 0xEA00 + 4 * 15), (0xEC80, 0x5818),
    (0xEB00 + 4 * 31, 0x5C00 + 4 * 31), (0xEB80 + 4 * 9, 0x5C80 + 4 * 9), (0x2100 + 4 * 15, 0x1014 + 0x40 * 15),
    (0x2200 + 4 * 15, 0x100C + 0x40 * 15),
  ])
  func `the addresses kept from the 82598 are the same registers`(old: Int, new: Int) throws {
    let bench = try ConformanceBench()
    bench.card.write(0x0200_1234, old)
    #expect(bench.card.read(new) == 0x0200_1234)
    bench.card.write(0x0200_5678, new)
    #expect(bench.card.read(old) == 0x0200_5678)
  }

  @Test func `with the bus master disabled nothing moves, and STATUS tells when`() throws {
    let bench = try ConformanceBench()
    bench.startTransmit()
    bench.postTransmit(pieces: [WirePacket.udp4()])
    bench.ringTransmit()
    let before = bench.snapshot()
    bench.set(0, 4)
    #expect(bench.card.read(8) & 1 << 19 != 0)
    #expect(bench.receive(WirePacket.udp4()) == .dropped(.masterDisabled, queue: nil))
    bench.clock.pause(nanoseconds: 1_000)
    #expect(bench.card.read(8) & 1 << 19 == 0)
    #expect(bench.card.transmit(budget: 8, to: TransmitWire(.drop)) == 0)
    #expect(bench.snapshot() == before)
    bench.clear(0, 4)
    #expect(bench.card.read(8) & 1 << 19 != 0)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
    #expect(bench.card.transmit(budget: 8, to: TransmitWire(.drop)) == 1)
  }

  @Test func `a transmit queue that is being disabled sends nothing more`() throws {
    let bench = try ConformanceBench()
    bench.startTransmit()
    bench.postTransmit(pieces: [WirePacket.udp4()])
    bench.ringTransmit()
    bench.clear(0x6028, 1 << 25)
    let before = bench.snapshot()
    for _ in 0..<3 {
      #expect(bench.card.transmit(budget: 8, to: TransmitWire(.drop)) == 0)
      bench.clock.pause(nanoseconds: 10_000)
    }
    #expect(bench.card.read(0x6028) & 1 << 25 == 0)
    #expect(bench.snapshot() == before)
    // No descriptor ring may be moved while it is enabled, and it may after that.
    bench.card.write(0x4000_8000, 0x6000)
    #expect(bench.card.read(0x6000) == 0x4000_8000)
    #expect(bench.card.misuses.isEmpty)
  }

  @Test func `a ring register written while its queue is enabled stays as it was`() throws {
    let bench = try ConformanceBench()
    let (base, length) = (bench.card.read(0x1000), bench.card.read(0x1008))
    bench.card.write(0x5000_0000, 0x1000)
    bench.card.write(128, 0x1008)
    #expect(bench.card.read(0x1000) == base)
    #expect(bench.card.read(0x1008) == length)
    #expect(bench.card.misuses == [.ringChangedWhileEnabled(queue: 0), .ringChangedWhileEnabled(queue: 0)])
  }

  @Test func `vectors past 23 have their EITR elsewhere, and EICS_EX and EIMC_EX reach them`() throws {
    let bench = try ConformanceBench()
    var raised: [Int] = []
    bench.card.onInterrupt = { raised.append($0) }
    bench.card.write(5 << 3, 0x12300 + 4 * 6)
    bench.card.write(1 << 30, 0xAA0)
    bench.card.write(1 << 8, 0xAA4)
    bench.card.write(1 << 30, 0xA90)
    bench.card.write(1 << 8, 0xA94)
    #expect(raised == [30, 40])
    bench.card.write(1 << 30, 0xA90)
    #expect(raised == [30, 40])
    bench.clock.pause(nanoseconds: 10_000)
    #expect(raised == [30, 40, 30])
    bench.card.write(1 << 8, 0xAB4)
    bench.card.write(1 << 8, 0xA94)
    #expect(raised == [30, 40, 30])
    bench.card.write(1 << 8, 0xAA4)
    #expect(raised == [30, 40, 30, 40])
  }
}
