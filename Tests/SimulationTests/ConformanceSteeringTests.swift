import Testing

@testable import Simulation

/// Which queue, by the filters of 82599 datasheet 7.1.2.
@Suite struct ConformanceSteeringTests {
  // MARK: EtherType

  private func setEtherType(_ bench: ConformanceBench, _ slot: Int, _ type: UInt16, queue: UInt32) {
    bench.card.write(1 << 31 | UInt32(type), 0x5128 + 4 * slot)
    bench.card.write(1 << 31 | queue << 16, 0xEC00 + 4 * slot)
  }
  private func setTuple(
    _ bench: ConformanceBench, _ slot: Int, queue: UInt32, priority: UInt32 = 1, ignored: UInt32 = 0, number: UInt32 = 1,
    from: UInt32 = 0x0A00_0001, to: UInt32 = 0x0A00_0002, ports: (UInt16, UInt16) = (1000, 2000)
  ) {
    bench.card.write(from.byteSwapped, 0xE000 + 4 * slot)
    bench.card.write(to.byteSwapped, 0xE200 + 4 * slot)
    bench.card.write(UInt32(ports.0.byteSwapped) | UInt32(ports.1.byteSwapped) << 16, 0xE400 + 4 * slot)
    bench.card.write(queue << 21 | 1 << 19 | 1 << 12, 0xE800 + 4 * slot)
    bench.card.write(1 << 31 | 1 << 30 | ignored << 25 | priority << 2 | number, 0xE600 + 4 * slot)
  }

  @Test func `an EtherType filter takes its type, before 5-tuple, flow director and RSS, and the descriptor names it`() throws {
    let bench = try ConformanceBench(queues: [0, 3, 5, 9])
    setEtherType(bench, 6, 0x88CC, queue: 3)
    #expect(bench.receive(WirePacket.ethernet([1, 2], type: 0x88CC)) == .delivered(queue: 3))
    // An L2 packet (bit 15), by filter 6 (bits 6:4).
    #expect(bench.take(3).first & 0x1_FFF0 == 0x8060)
    #expect(bench.receive(WirePacket.ethernet([1, 2], type: 0x88CD)) == .delivered(queue: 0))
    // Behind a tag too.
    #expect(bench.receive(WirePacket.ethernet([1, 2], type: 0x88CC, tag: 9)) == .delivered(queue: 3))
    bench.startScaling(fields: 1 << 17 | 1 << 22)
    setTuple(bench, 0, queue: 5)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 5))
    setEtherType(bench, 1, 0x0800, queue: 9)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 9))
    // Only one that is on counts; a filter without a queue (ETQS.QUEUE_EN) leaves the rest to decide.
    bench.card.write(9 << 16, 0xEC04)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 5))
    bench.card.write(0x0800, 0x512C)
    bench.card.write(1 << 31 | 9 << 16, 0xEC04)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 5))
  }

  @Test func `bits of ETQF beside the type do not change which ETQS is used`() throws {
    let bench = try ConformanceBench(queues: [0, 3])
    bench.card.write(1 << 31 | 7 << 16 | 0x88CC, 0x5128 + 4 * 2)
    bench.card.write(1 << 31 | 3 << 16, 0xEC08)
    #expect(bench.receive(WirePacket.ethernet([1], type: 0x88CC)) == .delivered(queue: 3))
    #expect(bench.take(3).first >> 4 & 7 == 2)
  }

  // MARK: SYN and 5-tuple

  @Test func `the SYN filter takes TCP SYN only, and SYNQFP puts it before or behind the 5-tuple filters`() throws {
    let bench = try ConformanceBench(queues: [0, 4, 7])
    bench.card.write(1 | 4 << 1, 0xEC30)
    let syn = WirePacket.tcp4(flags: 2)
    #expect(bench.receive(syn) == .delivered(queue: 4))
    #expect(bench.receive(WirePacket.tcp4(flags: 0x10)) == .delivered(queue: 0))
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
    setTuple(bench, 20, queue: 7, priority: 7, number: 0)
    #expect(bench.receive(syn) == .delivered(queue: 7))
    bench.card.write(1 << 31 | 1 | 4 << 1, 0xEC30)
    #expect(bench.receive(syn) == .delivered(queue: 4))
    #expect(bench.receive(WirePacket.tcp4()) == .delivered(queue: 7))
    bench.card.write(1 << 31 | 4 << 1, 0xEC30)
    #expect(bench.receive(syn) == .delivered(queue: 7))
  }

  /// The mask's bits: source and destination address, source and destination port, protocol.
  @Test(arguments: 0..<5)
  func `a 5-tuple filter compares every field that is not masked, and none that is`(field: Int) throws {
    let bench = try ConformanceBench(queues: [0, 1])
    let changed = [
      WirePacket.udp4(from: 0x0A00_0003), WirePacket.udp4(to: 0x0A01_0002), WirePacket.udp4(ports: (1001, 2000)),
      WirePacket.udp4(ports: (1000, 2001)), WirePacket.tcp4(),
    ]
    setTuple(bench, 0, queue: 1)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 1))
    #expect(bench.receive(changed[field]) == .delivered(queue: 0))
    setTuple(bench, 0, queue: 1, ignored: 1 << UInt32(field))
    for (other, frame) in changed.enumerated() {
      #expect(bench.receive(frame) == .delivered(queue: other == field ? 1 : 0), "field \(other)")
    }
  }

  @Test func `of several 5-tuple filters the highest priority wins, and the lowest number among equals`() throws {
    let bench = try ConformanceBench(queues: [0, 1, 2, 3])
    setTuple(bench, 10, queue: 1, priority: 2)
    setTuple(bench, 100, queue: 2, priority: 5, ignored: 0x1E)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 2))
    setTuple(bench, 99, queue: 3, priority: 5)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 3))
    bench.card.write(0, 0xE600 + 4 * 99)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 2))
    bench.card.write(0, 0xE600 + 4 * 100)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 1))
  }

  @Test func `all 128 5-tuple filters work at once, each to a queue of its own`() throws {
    let bench = try ConformanceBench(queues: Array(0..<128))
    for n in 0..<128 { setTuple(bench, n, queue: UInt32(127 - n), ports: (UInt16(5000 + n), 53)) }
    for n in 0..<128 {
      #expect(bench.receive(WirePacket.udp4(ports: (UInt16(5000 + n), 53))) == .delivered(queue: 127 - n))
    }
    #expect(bench.receive(WirePacket.udp4(ports: (5128, 53))) == .delivered(queue: 0))
  }

  // MARK: flow director

  /// Perfect match, 2046 filters, reports; tag, pool and flexible bytes are not compared.
  private func startFlowDirector(_ bench: ConformanceBench, ignored: UInt32 = 0x37) {
    bench.card.write(0x3DAD_14E2, 0xEE68)
    bench.card.write(ignored, 0xEE70)
    bench.card.write(0x0000_7F31, 0xEE00)
    bench.clock.pause(nanoseconds: 1_000_000)
  }
  /// As the model computes it, which `CardTests` holds against the base driver's.
  private func bucket(_ bench: ConformanceBench, from: UInt32, to: UInt32, ports: (UInt16, UInt16)) -> UInt32 {
    bench.card.flowDirector.bucket(
      of: FlowKey(
        source: from.byteSwapped, destination: to.byteSwapped, ports: UInt32(ports.1) << 16 | UInt32(ports.0), type: 1))
  }
  private func command(
    _ bench: ConformanceBench, _ command: UInt32, index: UInt32, queue: UInt32 = 0, from: UInt32 = 0x0A00_0001,
    to: UInt32 = 0x0A00_0002, ports: (UInt16, UInt16) = (1000, 2000), maskedPorts: (UInt16, UInt16)? = nil
  ) {
    bench.card.write(from.byteSwapped, 0xEE18)
    bench.card.write(to.byteSwapped, 0xEE1C)
    bench.card.write(UInt32(ports.1) << 16 | UInt32(ports.0), 0xEE20)
    bench.card.write(0, 0xEE24)
    bench.card.write(index << 16 | bucket(bench, from: from, to: to, ports: maskedPorts ?? ports), 0xEE28)
    bench.card.write(command | queue << 16, 0xEE2C)
  }
  /// Add, update, UDP, last, queue enable.
  private let add: UInt32 = 1 | 1 << 3 | 1 << 5 | 1 << 11 | 1 << 15

  @Test func `a flow director filter matches its flow until it is removed, and the counters tell`() throws {
    let bench = try ConformanceBench(queues: [0, 1])
    startFlowDirector(bench)
    #expect(bench.card.read(0xEE00) & 8 != 0)
    let free = bench.card.read(0xEE38)
    #expect(free == 2046)
    command(bench, add, index: 17, queue: 1)
    #expect(bench.card.read(0xEE2C) & 3 == 0)
    #expect(bench.card.read(0xEE38) == free - 1)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 1))
    let seen = bench.take(1)
    // FDIRS and report: the software index in the hash field.
    #expect(seen.second & 4 != 0)
    #expect(seen.first >> 32 & 0xFFFF == 17)
    #expect(bench.receive(WirePacket.udp4(ports: (1000, 2001))) == .delivered(queue: 0))
    #expect(bench.receive(WirePacket.tcp4()) == .delivered(queue: 0))
    #expect(bench.card.read(0xEE58) == 1)
    #expect(bench.card.read(0xEE5C) == 2)
    #expect(bench.card.read(0xEE58) == 0)
    // Query, then remove.
    command(bench, 3, index: 17)
    #expect(bench.card.read(0xEE2C) & 4 != 0)
    command(bench, 3, index: 18)
    #expect(bench.card.read(0xEE2C) & 4 == 0)
    command(bench, 2, index: 17)
    command(bench, 3, index: 17)
    #expect(bench.card.read(0xEE2C) & 4 == 0)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 0))
    #expect(bench.card.read(0xEE38) == free)
    #expect(bench.card.read(0xEE50) == 1 | 1 << 16)
  }

  @Test func `the drop action discards a flow, and lets others through`() throws {
    let bench = try ConformanceBench()
    startFlowDirector(bench)
    command(bench, add | 1 << 9, index: 1, queue: 0)
    #expect(bench.receive(WirePacket.udp4()) == .dropped(.filtered, queue: 127))
    #expect(!bench.take(0).isDone)
    #expect(bench.receive(WirePacket.udp4(from: 0x0A00_0009)) == .delivered(queue: 0))
  }

  @Test func `the masks hold for the whole port: a masked source port is not compared by any filter`() throws {
    let bench = try ConformanceBench(queues: [0, 1, 2])
    // UDP: the source port's bits, in reverse order; none of TCP's.
    bench.card.write(0x0000_FFFF, 0xEE48)
    startFlowDirector(bench)
    command(bench, add, index: 1, queue: 1, maskedPorts: (0, 2000))
    command(bench, add, index: 2, queue: 2, to: 0x0A00_0077, maskedPorts: (0, 2000))
    #expect(bench.receive(WirePacket.udp4(ports: (1, 2000))) == .delivered(queue: 1))
    #expect(bench.receive(WirePacket.udp4(ports: (65535, 2000))) == .delivered(queue: 1))
    #expect(bench.receive(WirePacket.udp4(to: 0x0A00_0077, ports: (7, 2000))) == .delivered(queue: 2))
    #expect(bench.receive(WirePacket.udp4(ports: (1, 2001))) == .delivered(queue: 0))
  }

  @Test func `one reversed bit of the port mask leaves that bit of the port alone`() throws {
    let bench = try ConformanceBench(queues: [0, 1])
    // Bit 31 is bit 0 of the destination port.
    bench.card.write(1 << 31, 0xEE48)
    startFlowDirector(bench)
    command(bench, add, index: 1, queue: 1, maskedPorts: (1000, 2000))
    #expect(bench.receive(WirePacket.udp4(ports: (1000, 2001))) == .delivered(queue: 1))
    #expect(bench.receive(WirePacket.udp4(ports: (1000, 2002))) == .delivered(queue: 0))
  }

  @Test func `a 5-tuple filter decides before the flow director`() throws {
    let bench = try ConformanceBench(queues: [0, 1, 2])
    startFlowDirector(bench)
    command(bench, add, index: 1, queue: 1)
    setTuple(bench, 0, queue: 2)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 2))
    bench.card.write(0, 0xE600)
    #expect(bench.receive(WirePacket.udp4()) == .delivered(queue: 1))
  }

  // MARK: RSS

  /// Microsoft's verification suite: source and destination, their ports, and the two hashes.
  struct Vector: Sendable {
    let from: UInt32, to: UInt32, fromPort: UInt16, toPort: UInt16, addresses: UInt32, all: UInt32
  }
  static let vectors = [
    Vector(from: 0x4209_95BB, to: 0xA18E_6450, fromPort: 2794, toPort: 1766, addresses: 0x323E_8FC2, all: 0x51CC_C178),
    Vector(from: 0xC75C_6F02, to: 0x4145_8C53, fromPort: 14230, toPort: 4739, addresses: 0xD718_262A, all: 0xC626_B0EA),
    Vector(from: 0x1813_C65F, to: 0x0C16_CFB8, fromPort: 12898, toPort: 38024, addresses: 0xD2D0_A5DE, all: 0x5C2B_394A),
    Vector(from: 0x261B_CD1E, to: 0xD18E_A306, fromPort: 48228, toPort: 2217, addresses: 0x8298_9176, all: 0xAFC7_327F),
    Vector(from: 0x9927_A3BF, to: 0xCABC_7F02, fromPort: 44251, toPort: 1303, addresses: 0x5D18_09C5, all: 0x10E8_28A2),
  ]

  @Test(arguments: vectors)
  func `RSS over IPv4: the published hash, its type, and the queue that RETA has for it`(vector: Vector) throws {
    let bench = try ConformanceBench(queues: Array(0..<16))
    // TCP and IPv4, no UDP.
    bench.startScaling(fields: 1 << 16 | 1 << 17)
    func check(_ frame: [UInt8], _ hash: UInt32, _ type: UInt64) {
      let queue = Int(hash % 128 % 16)
      #expect(bench.receive(frame) == .delivered(queue: queue))
      let seen = bench.take(queue)
      #expect(seen.hash == hash)
      #expect(seen.hashType == type)
    }
    let ports = (vector.fromPort, vector.toPort)
    check(WirePacket.tcp4(from: vector.from, to: vector.to, ports: ports), vector.all, 1)
    check(WirePacket.udp4(from: vector.from, to: vector.to, ports: ports), vector.addresses, 2)
    bench.set(0x5818, 1 << 22)
    check(WirePacket.udp4(from: vector.from, to: vector.to, ports: ports), vector.all, 7)
    // Fragments, the first as well as later ones, have their addresses hashed only.
    let segment = WirePacket.tcp(WirePacket.long(vector.from) + WirePacket.long(vector.to), ports)
    for fragment: UInt16 in [0x2000, 0x2003, 3] {
      let packet = WirePacket.ipv4(segment, number: 6, from: vector.from, to: vector.to, fragment: fragment)
      check(WirePacket.ethernet(packet), vector.addresses, 2)
    }
    check(WirePacket.tcp4(from: vector.from, to: vector.to, ports: ports, tag: 100), vector.all, 1)
    // Don't-fragment is no fragment.
    let whole = WirePacket.ipv4(segment, number: 6, from: vector.from, to: vector.to, fragment: 0x4000)
    check(WirePacket.ethernet(whole), vector.all, 1)
  }

  private func address(_ text: [UInt16]) -> [UInt8] { text.flatMap { WirePacket.word($0) } }

  @Test(arguments: [
    (
      [0x3FFE, 0x2501, 0x200, 0x1FFF, 0, 0, 0, 7], [0x3FFE, 0x2501, 0x200, 3, 0, 0, 0, 1], 2794, 1766, 0x2CC1_8CD5,
      0x4020_7D3D
    ),
    (
      [0x3FFE, 0x501, 8, 0, 0x260, 0x97FF, 0xFE40, 0xEFAB], [0xFF02, 0, 0, 0, 0, 0, 0, 1], 14230, 4739, 0x0F0C_461C,
      0xDDE5_1BBF
    ),
    (
      [0x3FFE, 0x1900, 0x4545, 3, 0x200, 0xF8FF, 0xFE21, 0x67CF], [0xFE80, 0, 0, 0, 0x200, 0xF8FF, 0xFE21, 0x67CF], 44251,
      38024, 0x4B61_E985, 0x02D1_FEEF
    ),
  ] as [([UInt16], [UInt16], UInt16, UInt16, UInt32, UInt32)])
  func `RSS over IPv6, with ports and without`(
    from: [UInt16], to: [UInt16], fromPort: UInt16, toPort: UInt16, short: UInt32, long: UInt32
  ) throws {
    let bench = try ConformanceBench(queues: Array(0..<16))
    bench.startScaling(fields: 1 << 20 | 1 << 21)
    let both = address(from) + address(to)
    let tcp = WirePacket.ipv6(WirePacket.tcp(both, (fromPort, toPort)), number: 6, from: address(from), to: address(to))
    let udp = WirePacket.ipv6(WirePacket.udp(both, (fromPort, toPort)), number: 17, from: address(from), to: address(to))
    func check(_ packet: [UInt8], _ hash: UInt32, _ type: UInt64) {
      let queue = Int(hash % 16)
      #expect(bench.receive(WirePacket.ethernet(packet, type: 0x86DD)) == .delivered(queue: queue))
      let seen = bench.take(queue)
      #expect(seen.hash == hash)
      #expect(seen.hashType == type)
    }
    check(tcp, long, 3)
    check(udp, short, 5)
    bench.set(0x5818, 1 << 23)
    check(udp, long, 8)
    bench.clear(0x5818, 1 << 21 | 1 << 23)
    check(tcp, short, 5)
  }

  @Test func `RETA decides by the low seven bits of the hash, entry by entry`() throws {
    let bench = try ConformanceBench(queues: [0, 11])
    bench.startScaling(fields: 1 << 16)
    for n in 0..<32 { bench.card.write(0, 0x5C00 + 4 * n) }
    let vector = Self.vectors[0]
    let frame = WirePacket.tcp4(from: vector.from, to: vector.to, ports: (vector.fromPort, vector.toPort))
    #expect(bench.receive(frame) == .delivered(queue: 0))
    let entry = Int(vector.all & 127)
    bench.card.write(11 << UInt32(entry % 4 * 8), 0x5C00 + entry / 4 * 4)
    #expect(bench.receive(frame) == .delivered(queue: 11))
    // Nothing to hash: queue 0, type 0.
    #expect(bench.receive(WirePacket.ethernet([1], type: 0x0806)) == .delivered(queue: 0))
    _ = bench.take(0)
    #expect(bench.take(0).hashType == 0)
  }

  @Test func `with pools of two queues RSS chooses within the pool`() throws {
    let bench = try ConformanceBench(queues: [4, 5])
    bench.startPools()
    bench.startScaling(mode: 11, fields: 1 << 16)
    bench.setAddress(0, 1, pools: 1 << 2)
    // RQPL of pool 2: one bit.
    bench.card.write(1 << 29, 0xEA08)
    for vector in Self.vectors {
      let frame = WirePacket.tcp4(from: vector.from, to: vector.to, ports: (vector.fromPort, vector.toPort))
      #expect(bench.receive(frame) == .delivered(queue: 4 + Int(vector.all & 1)))
    }
    bench.card.write(0, 0xEA08)
    for vector in Self.vectors {
      let frame = WirePacket.tcp4(from: vector.from, to: vector.to, ports: (vector.fromPort, vector.toPort))
      #expect(bench.receive(frame) == .delivered(queue: 4))
    }
  }
}
