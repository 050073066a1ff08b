import Bus
import Linux
import Testing

@testable import Simulation

/// A card, its IOMMU and memory, brought up by hand: what a driver would do, in few lines.
private final class Bench {
  static let ringBytes = 4096
  let clock = SimulatedClock()
  let dma: SimulatedIOMMU
  let card: SimulatedCard
  let memory: Mapping
  let base: UInt64 = 0x10_0000
  var tail: UInt32 = 0

  init(faults: CardFaults = .none, buffers: Int = 64, bufferKiB: Int = 2, dropEnable: Bool = true) throws {
    dma = SimulatedIOMMU(clock: clock)
    card = SimulatedCard(dma: dma, clock: clock, faults: faults, macAddress: [2, 0, 0, 0, 0, 1])
    memory = try Mapping(anonymousBytes: 1 << 20)
    try unsafe dma.map(HostMemory(base: memory.base, byteCount: 1 << 20), at: IOVA(base), access: [.read, .write])
    card.write(1 << 26, 0)
    clock.pause(nanoseconds: 10_000_000)
    card.write(card.read(0x2F00) | 2, 0x2F00)
    try start(queue: 0, bufferKiB: bufferKiB, dropEnable: dropEnable)
    card.write(1, 0x3000)
    post(buffers, queue: 0)
  }

  func start(queue n: Int, bufferKiB: Int = 2, dropEnable: Bool = true) throws {
    let at = n < 64 ? 0x1000 + 0x40 * n : 0xD000 + 0x40 * (n - 64)
    card.write(UInt32(base) + UInt32(n * Self.ringBytes), at)
    card.write(UInt32(Self.ringBytes), at + 8)
    card.write(UInt32(bufferKiB) | 1 << 25 | (dropEnable ? 1 << 28 : 0), at + 0x14)
    card.write(1 << 25, at + 0x28)
    clock.pause(nanoseconds: 20_000)
    #expect(card.read(at + 0x28) & 1 << 25 != 0)
  }

  func buffer(_ slot: Int, queue n: Int) -> Int { 0x40000 + n * 0x20000 + slot * 2048 }
  func post(_ count: Int, queue n: Int) {
    for slot in 0..<count {
      unsafe memory.base.storeBytes(
        of: base + UInt64(buffer(slot, queue: n)), toByteOffset: n * Self.ringBytes + slot * 16, as: UInt64.self)
      unsafe memory.base.storeBytes(of: 0, toByteOffset: n * Self.ringBytes + slot * 16 + 8, as: UInt64.self)
    }
    card.doorbell((n < 64 ? 0x1000 + 0x40 * n : 0xD000 + 0x40 * (n - 64)) + 0x18).ring(UInt32(count))
  }
  func word(_ slot: Int, _ n: Int, queue: Int = 0) -> UInt64 {
    unsafe memory.base.load(fromByteOffset: queue * Self.ringBytes + slot * 16 + n * 8, as: UInt64.self)
  }
  func bytes(_ slot: Int, _ count: Int, queue: Int = 0) -> [UInt8] {
    unsafe Array(unsafe UnsafeRawBufferPointer(start: memory.base + buffer(slot, queue: queue), count: count))
  }
  func receive(_ frame: [UInt8], flowControl: Bool = false) -> Arrival {
    unsafe frame.withUnsafeBytes {
      unsafe card.receive(WireFrame(bytes: $0.baseAddress!, count: $0.count), flowControl: flowControl)
    }
  }
}

private func hex(_ text: String) -> [UInt8] {
  let digits = text.filter { !$0.isWhitespace }.map { UInt8($0.hexDigitValue!) }
  return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

/// UDP from 10.0.0.1:1000 to 10.0.0.2:2000, 18 bytes, both checksums right.
private let datagram = hex(
  """
  020000000001 020000000002 0800
  4500002e000000004011 66bd 0a000001 0a000002
  03e8 07d0 001a 97ae 000102030405060708090a0b0c0d0e0f1011
  """)

@Suite struct CardTests {
  @Test func `a frame lands in the first buffer, and its descriptor says what it is`() throws {
    let bench = try Bench()
    #expect(bench.receive(datagram) == .delivered(queue: 0))
    #expect(bench.bytes(0, 61) == datagram + [0])
    // DD, EOP, UDPCS, L4I, IPCS; no error; 60 bytes.
    #expect(bench.word(0, 1) == 60 << 32 | 0x73)
    // IPv4 and UDP.
    #expect(bench.word(0, 0) == 0x210)
    #expect(bench.card.read(0x1010) == 1)
    #expect(bench.card.read(0x4074) == 1)
    #expect(bench.card.read(0x4074) == 0)
    #expect(bench.dma.faultCount == 0)
    #expect(bench.card.misuses.isEmpty)
  }

  /// What the card has noted of a frame saves it work, and changes nothing that can be seen.
  @Test func `a frame that comes again is treated as before, until a register is written`() throws {
    let (bench, other) = (try Bench(), try Bench())
    let notes = UnsafeMutablePointer<FrameNotes>.allocate(capacity: 1)
    defer { unsafe notes.deallocate() }
    unsafe datagram.withUnsafeBytes { unsafe notes.initialize(to: FrameNotes(FrameHeaders(parsing: $0.baseAddress!, count: $0.count))) }
    func receive() -> Arrival {
      unsafe datagram.withUnsafeBytes { unsafe bench.card.receive(WireFrame(bytes: $0.baseAddress!, count: $0.count, notes: notes)) }
    }
    for slot in 0..<3 {
      #expect(receive() == .delivered(queue: 0))
      #expect(other.receive(datagram) == .delivered(queue: 0))
      #expect(bench.bytes(slot, 60) == datagram)
      #expect(bench.word(slot, 0) == other.word(slot, 0) && bench.word(slot, 1) == other.word(slot, 1))
    }
    // Good frames received, and their octets; QPRC and QBRC of queue 0; descriptors written back.
    for register in [0x4074, 0x4088, 0x1030, 0x1034] { #expect(bench.card.read(register) == other.card.read(register)) }
    #expect(bench.card.descriptorsWrittenBack == 3)
    // RAH0 loses its valid bit: nobody's address any more.
    bench.card.write(bench.card.read(0xA204) & ~(1 << 31), 0xA204)
    #expect(receive() == .dropped(.noPool, queue: nil))
  }

  @Test(arguments: [false, true]) func `without payloads everything is done but the bytes`(isKnown: Bool) throws {
    let bench = try Bench()
    bench.card.faults.leavesPayload = true
    let notes = UnsafeMutablePointer<FrameNotes>.allocate(capacity: 1)
    defer { unsafe notes.deallocate() }
    unsafe datagram.withUnsafeBytes { unsafe notes.initialize(to: FrameNotes(FrameHeaders(parsing: $0.baseAddress!, count: $0.count))) }
    for slot in 0..<2 {
      let arrival = unsafe datagram.withUnsafeBytes {
        unsafe bench.card.receive(WireFrame(bytes: $0.baseAddress!, count: $0.count, notes: isKnown ? notes : nil))
      }
      #expect(arrival == .delivered(queue: 0))
      #expect(bench.word(slot, 1) == 60 << 32 | 0x73 && bench.bytes(slot, 60) != datagram)
    }
    #expect(bench.card.read(0x4074) == 2)
  }

  @Test func `a wrong checksum sets the error bits`() throws {
    let bench = try Bench()
    var frame = datagram
    frame[59] ^= 1
    frame[24] ^= 1
    #expect(bench.receive(frame) == .delivered(queue: 0))
    #expect(bench.word(0, 1) & 0xFFFF_FFFF == 0xC000_0073)
  }

  @Test func `a frame for another address is dropped`() throws {
    let bench = try Bench()
    #expect(bench.receive([2, 0, 0, 0, 0, 9] + datagram.dropFirst(6)) == .dropped(.noPool, queue: nil))
    #expect(bench.card.read(0x40D0) == 1)
  }

  @Test func `one byte past the largest frame is oversize`() throws {
    let bench = try Bench()
    let largest = datagram + [UInt8](repeating: 0, count: 1514 - 60)
    #expect(bench.receive(largest) == .delivered(queue: 0))
    #expect(bench.receive(largest + [0]) == .dropped(.oversize, queue: nil))
    #expect(bench.card.read(0x40AC) == 1)
  }

  @Test func `a frame longer than a buffer spills to the next descriptor`() throws {
    let bench = try Bench(bufferKiB: 1)
    let frame = datagram + [UInt8](repeating: 7, count: 1100 - 60)
    #expect(bench.receive(frame) == .delivered(queue: 0))
    #expect(bench.word(0, 1) == 1024 << 32 | 1)
    #expect(bench.word(1, 1) & 3 == 3)
    #expect(bench.word(1, 1) >> 32 == 76)
    #expect(bench.bytes(0, 1024) + bench.bytes(1, 76) == frame)
  }

  @Test func `an empty queue drops with DROP_EN, stalls the port without, and holds with flow control`() throws {
    let dropping = try Bench(buffers: 1)
    #expect(dropping.receive(datagram) == .delivered(queue: 0))
    #expect(dropping.receive(datagram, flowControl: true) == .held(queue: 0))
    #expect(dropping.receive(datagram) == .dropped(.noDescriptors, queue: 0))
    #expect(dropping.card.read(0x1430) == 1)
    let stalling = try Bench(buffers: 1, dropEnable: false)
    #expect(stalling.receive(datagram) == .delivered(queue: 0))
    #expect(stalling.receive(datagram) == .dropped(.missed, queue: 0))
    #expect(stalling.receive(datagram) == .dropped(.portStalled, queue: 0))
    #expect(stalling.card.read(0x3FA0) == 2)
    stalling.post(2, queue: 0)
    #expect(stalling.receive(datagram) == .delivered(queue: 0))
  }

  @Test func `a buffer that is not mapped stops its queue, and nothing is written`() throws {
    let bench = try Bench()
    unsafe bench.memory.base.storeBytes(of: 0xDEAD_0000, as: UInt64.self)
    #expect(bench.receive(datagram) == .dropped(.dmaFault, queue: 0))
    #expect(bench.card.queueFault(0) == .bufferWrite(address: 0xDEAD_0000, count: 60))
    #expect(bench.receive(datagram) == .dropped(.queueFaulted, queue: 0))
    #expect(bench.dma.faultCount == 1)
    #expect(bench.word(0, 1) == 0)
  }

  @Test func `after ENABLE reads 0 nothing is written, but for a fault that says so`() throws {
    var faults = CardFaults.none
    faults.lateDMAAfterDisable = 50_000
    let bench = try Bench(faults: faults)
    bench.card.write(0, 0x1028)
    #expect(bench.card.read(0x1028) & 1 << 25 != 0)
    bench.clock.pause(nanoseconds: 10_000)
    #expect(bench.card.read(0x1028) & 1 << 25 == 0)
    #expect(bench.receive(datagram) == .dropped(.queueDisabled, queue: 0))
    #expect(bench.word(0, 1) == 0)
    bench.clock.pause(nanoseconds: 50_000)
    #expect(bench.bytes(0, 60) == [UInt8](repeating: 0xA5, count: 60))
  }

  @Test func `a removed card reads all ones and takes nothing`() throws {
    var faults = CardFaults.none
    faults.removedAfterDescriptors = 2
    let bench = try Bench(faults: faults)
    #expect(bench.receive(datagram) == .delivered(queue: 0))
    #expect(bench.receive(datagram) == .delivered(queue: 0))
    #expect(bench.card.read(8) == .max)
    #expect(bench.receive(datagram) == .dropped(.removed, queue: nil))
  }

  @Test(arguments: [
    (hex("420995bb a18e6450 0aea 06e6"), UInt32(0x323e_8fc2), UInt32(0x51cc_c178)),
    (hex("c75c6f02 41458c53 3796 1283"), 0xd718_262a, 0xc626_b0ea),
    (
      hex("3ffe250102001fff 0000000000000007 3ffe250102000003 0000000000000001 0aea 06e6"), 0x2cc1_8cd5, 0x4020_7d3d
    ),
  ])
  func `the Toeplitz hash is that of the published verification suite`(input: [UInt8], short: UInt32, long: UInt32) {
    let rss = ToeplitzHash()
    defer { rss.deallocate() }
    rss.setKey(hex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"))
    unsafe input.withUnsafeBytes {
      #expect(unsafe rss.hash($0.baseAddress!, input.count - 4) == short)
      #expect(unsafe rss.hash($0.baseAddress!, input.count) == long)
    }
  }

  @Test func `pools get their own addresses, and a broadcast goes to those that want it`() throws {
    let bench = try Bench()
    let card = bench.card
    try bench.start(queue: 2)
    bench.post(4, queue: 2)
    card.write(1 | 1 << 30 | 1 << 29, 0x51B0)
    card.write(0xB, 0x5818)
    card.write(.max, 0x51E0)
    card.write(1, 0xA208)
    card.write(0x0000_0002, 0xA208)
    card.write(0x8000_0300, 0xA20C)
    card.write(1, 0xA600)
    card.write(2, 0xA608)
    card.write(1 << 27, 0xF000)
    card.write(1 << 27, 0xF004)
    card.write(1 << 10, 0x5080)
    #expect(bench.receive(datagram) == .delivered(queue: 0))
    #expect(bench.receive([2, 0, 0, 0, 0, 3] + datagram.dropFirst(6)) == .delivered(queue: 2))
    #expect(
      bench.receive([UInt8](repeating: 0xFF, count: 6) + datagram.dropFirst(6)) == .replicated(delivered: 3, dropped: 0, queueInPool: 0))
  }

  @Test func `a flow director filter steers its flow, and no other, by the bucket that the fields hash to`() throws {
    let bench = try Bench()
    let card = bench.card
    try bench.start(queue: 1)
    bench.post(4, queue: 1)
    card.write(0x3DAD_14E2, 0xEE68)
    // 64 KiB, perfect match, report, drop queue 127.
    card.write(0x7F31, 0xEE00)
    bench.clock.pause(nanoseconds: 100_000)
    #expect(card.read(0xEE00) & 8 != 0)
    // Tag, pool and flexible bytes are not compared.
    card.write(0x37, 0xEE70)
    let key = FlowKey(source: 0x0100_000A, destination: 0x0200_000A, ports: 2000 << 16 | 1000, type: 1)
    card.write(key.source, 0xEE18)
    card.write(key.destination, 0xEE1C)
    card.write(key.ports, 0xEE20)
    card.write(card.flowDirector.bucket(of: key) | 5 << 16, 0xEE28)
    // Add, update, UDP, last, queue enable, queue 1.
    card.write(0x0001_8829, 0xEE2C)
    #expect(card.read(0xEE2C) & 3 == 0)
    #expect(bench.receive(datagram) == .delivered(queue: 1))
    #expect(bench.word(0, 1, queue: 1) & 4 != 0)
    var other = datagram
    other[35] ^= 1
    #expect(bench.receive(other) == .delivered(queue: 0))
    card.write(2, 0xEE2C)
    #expect(bench.receive(datagram) == .delivered(queue: 0))
  }

  // By the algorithm of Intel's base driver, computed apart from this code.
  @Test(arguments: [
    (FlowKey(source: 0x0100_000A, destination: 0x0200_000A, ports: 2000 << 16 | 1000, type: 1), UInt32(0x710)),
    (FlowKey(source: 0x1701_A8C0, destination: 0x0808_0808, ports: 443 << 16 | 51234, type: 2), 0x1062),
    (
      FlowKey(
        source: 0x1701_A8C0, destination: 0x0808_0808, ports: 443 << 16 | 51234, tagAndFlexible: 0x0008_6064, type: 2,
        pool: 5), 0x1A3B
    ),
  ] as [(FlowKey, UInt32)])
  func `the bucket of a flow is the one that a driver computes`(key: FlowKey, bucket: UInt32) {
    let table = FlowDirectorTable()
    defer { table.deallocate() }
    table.setKey(0x3DAD_14E2)
    table.settings.bucketMask = 0x1FFF
    #expect(table.bucket(of: key) == bucket)
  }

  @Test func `a frame sent and looped back is received`() throws {
    let bench = try Bench()
    let card = bench.card
    let ring = 0x8000
    unsafe bench.memory.base.advanced(by: 0x9000).copyMemory(from: datagram, byteCount: 60)
    unsafe bench.memory.base.storeBytes(of: bench.base + 0x9000, toByteOffset: ring, as: UInt64.self)
    // An advanced data descriptor: 60 bytes, EOP, IFCS, RS, DEXT.
    let length: UInt64 = 60
    let command: UInt64 = 0x2B30_0000
    unsafe bench.memory.base.storeBytes(
      of: length | command | length << 46, toByteOffset: ring + 8, as: UInt64.self)
    card.write(UInt32(bench.base) + UInt32(ring), 0x6000)
    card.write(128, 0x6008)
    card.write(1, 0x4A80)
    card.write(1 << 25, 0x6028)
    bench.clock.pause(nanoseconds: 20_000)
    card.doorbell(0x6018).ring(1)
    let wire = TransmitWire(.loopback)
    #expect(card.transmit(budget: 10, to: wire) == 1)
    #expect(wire.arrivals == [.delivered(queue: 0)])
    #expect(unsafe bench.memory.base.load(fromByteOffset: ring + 8, as: UInt64.self) == 1 << 32)
    #expect(bench.bytes(0, 60) == datagram)
    #expect(card.read(0x6010) == 1)
  }

  @Test func `a vector is raised when unmasked, and remembered while it is masked`() throws {
    let bench = try Bench()
    var raised: [Int] = []
    bench.card.onInterrupt = { raised.append($0) }
    bench.card.write(0x83, 0x900)
    #expect(bench.receive(datagram) == .delivered(queue: 0))
    #expect(raised.isEmpty)
    bench.card.write(1 << 3, 0x880)
    #expect(raised == [3])
    #expect(bench.card.read(0x800) & 8 != 0)
    #expect(bench.receive(datagram) == .delivered(queue: 0))
    #expect(raised == [3, 3])
  }
}
