import Bus
import FlowSteering
import NIC
import Simulation
import Testing

@testable import Intel

@Suite struct TransmitQueueTests {
  @Test func `a frame is one advanced data descriptor`() throws {
    let bench = try Bench()
    var queue = try bench.device.makeTransmitQueue(2, ringSize: 8)
    try bench.device.start(&queue)
    #expect(bench.card[0x6088] == 128 && bench.card[0x60A8] == 0x0200_0420)
    queue.post(IOVA(0x12_3456_7000), byteCount: 1000)
    queue.ring()
    #expect(bench.card[0x6098] == 1)
    // DTALEN 1000, DTYP 3, EOP, IFCS, RS, DEXT, PAYLEN 1000.
    let word: UInt64 = 1000 | 0x2B30_0000 | 1000 << 46
    #expect(bench.descriptor(0, base: 0x6080) == (0x12_3456_7000, word))
    try queue.quiesce()
  }

  @Test func `buffers come back in order, several at once`() throws {
    let bench = try Bench()
    var queue = try bench.device.makeTransmitQueue(0, ringSize: 8)
    try bench.device.start(&queue)
    for _ in 0..<7 { queue.post(IOVA(0), byteCount: 60) }
    queue.ring()
    #expect(queue.room == 0 && queue.reap() == 0)
    bench.completeTransmit(1)
    #expect(queue.reap() == 0, "the second is done, the first is not")
    bench.completeTransmit(0)
    #expect(queue.reap() == 2 && queue.room == 2)
    queue.post(IOVA(0), byteCount: 60)
    queue.post(IOVA(0), byteCount: 60)
    queue.ring()
    #expect(bench.card[0x6018] == 1)
    for n in [2, 3, 4, 5, 6, 7, 0] { bench.completeTransmit(n) }
    #expect(queue.reap() == 7 && queue.room == 7 && queue.reap() == 0)
  }

  @Test func `a stop waits for what was rung, but not for ever`() throws {
    let bench = try Bench()
    var queue = try bench.device.makeTransmitQueue(0, ringSize: 8)
    try bench.device.start(&queue)
    queue.post(IOVA(0), byteCount: 60)
    queue.ring()
    let before = bench.clock.now
    try queue.quiesce()
    #expect((10_000_000..<20_000_000).contains(bench.clock.now - before))
    #expect(bench.card[0x6028] & 1 << 25 == 0)
  }

  @_noLocks static func turn(_ queue: inout IntelTransmitQueue) -> Int {
    let done = queue.reap()
    while queue.room > 0 { queue.post(IOVA(0), byteCount: 64) }
    queue.ring()
    return done
  }

  @Test func `a turn compiles without locks`() throws {
    let bench = try Bench()
    var queue = try bench.device.makeTransmitQueue(0, ringSize: 8)
    try bench.device.start(&queue)
    #expect(Self.turn(&queue) == 0)
    bench.completeTransmit(0)
    #expect(Self.turn(&queue) == 1)
  }

  @Test func `a frame in pieces is reported at its end, and comes back whole`() throws {
    let bench = try Bench()
    var queue = try bench.device.makeTransmitQueue(0, ringSize: 8)
    try bench.device.start(&queue)
    queue.post(IOVA(0x1000), byteCount: 14, of: 900, isLast: false)
    queue.post(IOVA(0x2000), byteCount: 86, of: 900, isLast: false)
    queue.ring()
    #expect(bench.card[0x6018] == 0, "the frame is not whole")
    queue.post(IOVA(0x3000), byteCount: 800, of: 900, isLast: true)
    queue.post(IOVA(0x4000), byteCount: 60)
    #expect(queue.room == 3)
    queue.ring()
    #expect(bench.card[0x6018] == 4)
    // DTYP 3, IFCS, DEXT, DTALEN, PAYLEN of the whole; EOP and RS at the end.
    let plain: UInt64 = 1 << 29 | 1 << 25 | 3 << 20 | 900 << 46
    #expect(bench.descriptor(0, base: 0x6000) == (0x1000, plain | 14))
    #expect(bench.descriptor(1, base: 0x6000) == (0x2000, plain | 86))
    let end: UInt64 = plain | 800 | 1 << 24 | 1 << 27
    #expect(bench.descriptor(2, base: 0x6000) == (0x3000, end))
    // A card that reports where it was not asked to: a frame's end decides.
    bench.completeTransmit(0)
    bench.completeTransmit(1)
    bench.completeTransmit(3)
    #expect(queue.reap() == 0 && queue.room == 3)
    bench.completeTransmit(2)
    #expect(queue.reap() == 2 && queue.room == 7)
    try queue.quiesce()
  }

  @Test func `a checksum is a context before its frame, and the same one is not said twice`() throws {
    let bench = try Bench()
    var queue = try bench.device.makeTransmitQueue(0, ringSize: 16)
    try bench.device.start(&queue)
    let tcp = try #require(TransmitChecksum(start: 34, offset: 16))
    let udp = try #require(TransmitChecksum(start: 54, offset: 6))
    let marked: UInt64 = 1 << 41 | 1 << 39
    func isMarked(_ index: Int) -> Bool { bench.descriptor(index, base: 0x6000).1 & marked == marked }
    for checksum in [tcp, tcp, nil, udp, tcp] {
      if let checksum { queue.post(checksum) }
      queue.post(IOVA(0x1000), byteCount: 40, of: 60, isLast: false)
      queue.post(IOVA(0x2000), byteCount: 20, of: 60, isLast: true)
    }
    queue.ring()
    #expect(bench.card[0x6018] == 13)
    // DTYP 2, DEXT, L4T 01b for TCP; MACLEN 14, IPLEN 20 and 40.
    let lengths: (UInt64, UInt64) = (14 << 9 | 20, 14 << 9 | 40)
    let context: UInt64 = 1 << 29 | 2 << 20
    #expect(bench.descriptor(0, base: 0x6000) == (lengths.0, context | 1 << 11))
    #expect(bench.descriptor(7, base: 0x6000) == (lengths.1, context))
    #expect(bench.descriptor(10, base: 0x6000).0 == lengths.0)
    #expect([1, 2, 3, 4, 8, 9, 11, 12].allSatisfy(isMarked))
    #expect(![5, 6].contains(where: isMarked))
    for index in [2, 4, 6] { bench.completeTransmit(index) }
    #expect(queue.reap() == 3 && queue.room == 15 - 6)
    bench.completeTransmit(9)
    #expect(queue.reap() == 1 && queue.room == 15 - 3, "the context comes back with its frame")
    // After a stop the card knows no context.
    try queue.quiesce()
    try bench.device.start(&queue)
    queue.post(tcp)
    #expect(queue.room == 14)
  }

  @Test func `checksums that no descriptor can say are refused`() {
    #expect(TransmitChecksum(start: 34, offset: 16) == TransmitChecksum(networkByteCount: 20, transport: .tcp))
    #expect(TransmitChecksum(start: 34, offset: 6) == TransmitChecksum(networkByteCount: 20, transport: .udp))
    for start: UInt16 in [0, 13, 14, 33, 526, .max] { #expect(TransmitChecksum(start: start, offset: 16) == nil) }
    for offset: UInt16 in [0, 2, 8, 10, 15, 17, .max] { #expect(TransmitChecksum(start: 34, offset: offset) == nil) }
    #expect(TransmitChecksum(macByteCount: 13, networkByteCount: 20, transport: .tcp) == nil)
    #expect(TransmitChecksum(macByteCount: 128, networkByteCount: 20, transport: .tcp) == nil)
    #expect(TransmitChecksum(macByteCount: 18, networkByteCount: 511, transport: .tcp) != nil)
  }

  @Test func `frames too short or too long for the card are told by their number of bytes`() throws {
    let bench = try Bench { $0.mtu = 9000 }
    let queue = try bench.device.makeTransmitQueue(0, ringSize: 8)
    #expect(queue.frameByteCounts == 17...9018)
    #expect(queue.pieceLimit == 40)
  }

  /// The posted frames come out as they went in, whatever their pieces, and are given back in order, around the ring.
  @Test func `random frames in random pieces leave the model as they were posted`() throws {
    var seed = Seed(0x5EED_0001)
    let clock = SimulatedClock()
    let iommu = SimulatedIOMMU(clock: clock)
    let card = SimulatedCard(dma: iommu, clock: clock)
    let allocator = IOVAAllocator()
    let device = try Ixgbe(registers: card, space: iommu, allocator: allocator, clock: clock)
    var queue = try device.makeTransmitQueue(0, ringSize: 64)
    try device.start(&queue)
    try device.waitForLink()
    let memory = try DMABuffer(byteCount: 1 << 20, access: .read, in: iommu, allocator: allocator)
    let wire = TransmitWire(.capture)
    var (posted, returned, cursor) = ([[UInt8]](), 0, 0)
    for _ in 0..<400 {
      for _ in 0..<Int.random(in: 0...6, using: &seed) {
        let count = Int.random(in: 17...1518, using: &seed)
        let cuts = Set((0..<Int.random(in: 0...5, using: &seed)).map { _ in Int.random(in: 1..<count, using: &seed) }).sorted()
        let bounds = [0] + cuts + [count]
        guard queue.room >= bounds.count - 1 else { break }
        let frame = (0..<count).map { _ in UInt8.random(in: 0...255, using: &seed) }
        for (start, end) in zip(bounds, bounds.dropFirst()) {
          cursor = (cursor + 2048) % (1 << 20 - 11)
          unsafe memory.bytes(cursor, end - start).copyBytes(from: frame[start..<end])
          queue.post(
            memory.address + UInt64(cursor), byteCount: UInt32(end - start), of: UInt32(count), isLast: end == count)
        }
        posted.append(frame + [UInt8](repeating: 0, count: max(0, 60 - count)))
      }
      queue.ring()
      _ = card.transmit(budget: Int.random(in: 0...4, using: &seed), to: wire)
      returned += queue.reap()
      #expect(returned == wire.frames.count, "SEED=\(seed)")
    }
    while card.transmit(budget: 64, to: wire) > 0 {}
    returned += queue.reap()
    #expect(returned == posted.count && queue.room == 63, "SEED=\(seed)")
    #expect(wire.frames == posted, "SEED=\(seed)")
    #expect(posted.count > 300 && card.misuses.isEmpty && iommu.faultCount == 0)
    try queue.quiesce()
  }
}
