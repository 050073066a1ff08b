import Bus
import NIC
import Simulation
import Testing

@testable import Intel

@Suite struct ReceiveQueueTests {
  @Test func `a ring takes one buffer less than it has descriptors`() throws {
    let bench = try Bench()
    var queue = try bench.device.makeReceiveQueue(0, ringSize: 8, bufferByteCount: 2048)
    try bench.device.start(&queue)
    #expect(queue.capacity == 7 && queue.room == 7)
    #expect(queue.reap() == nil)
    for n in 0..<7 { queue.post(IOVA(0x1000 * UInt64(n + 1))) }
    #expect(queue.room == 0)
    #expect(bench.card[0x1018] == 0, "the card does not know yet")
    queue.ring()
    #expect(bench.card[0x1018] == 7, "never the head")
    #expect(bench.descriptor(6, base: 0x1000) == (0x7000, 0))
    try queue.quiesce()
  }

  @Test func `buffers come back in order around the ring`() throws {
    let bench = try Bench()
    var queue = try bench.device.makeReceiveQueue(0, ringSize: 8, bufferByteCount: 2048)
    try bench.device.start(&queue)
    var (posted, done) = (0, 0)
    for round in 0..<100 {
      while queue.room > 0 {
        queue.post(IOVA(UInt64(posted)))
        posted += 1
      }
      queue.ring()
      #expect(bench.card[0x1018] == UInt32(posted % 8))
      for _ in 0...(round % 7) {
        #expect(bench.descriptor(done % 8, base: 0x1000) == (UInt64(done), 0))
        bench.complete(done % 8, length: UInt32(60 + done))
        let completion = queue.reap()
        #expect(completion == Completion(byteCount: UInt32(60 + done), flags: .isEnd))
        done += 1
      }
      #expect(queue.reap() == nil)
    }
  }

  @Test func `a descriptor of the last round is not taken for a new one`() throws {
    let bench = try Bench()
    var queue = try bench.device.makeReceiveQueue(0, ringSize: 8, bufferByteCount: 2048)
    try bench.device.start(&queue)
    for n in 0..<7 { queue.post(IOVA(UInt64(n))) }
    for n in 0..<7 { bench.complete(n, length: 60) }
    for _ in 0..<7 { #expect(queue.reap() != nil) }
    #expect(queue.reap() == nil, "all seven still say done")
    queue.post(IOVA(0))
    queue.post(IOVA(0))
    #expect(queue.reap() == nil)
  }

  @Test func `damage, pieces and lengths past the limit are flags, never traps`() throws {
    let bench = try Bench()
    var queue = try bench.device.makeReceiveQueue(0, ringSize: 64, bufferByteCount: 2048)
    try bench.device.start(&queue)
    // Status: DD 0, EOP 1, L4I 5, IPCS 6. Errors, from bit 20: RXE 9, L4E 10, IPE 11.
    let cases: [(length: UInt32, status: UInt32, errors: UInt32, Completion)] = [
      (60, 0b11, 0, Completion(byteCount: 60, flags: .isEnd)),
      (60, 0b11, 1 << 9, Completion(byteCount: 60, flags: [.isEnd, .isDamaged])),
      (1500, 0b01, 0, Completion(byteCount: 1500, flags: [])),
      (1518, 0b11, 0, Completion(byteCount: 1518, flags: .isEnd)),
      (1519, 0b11, 0, Completion(byteCount: 1518, flags: [.isEnd, .isDamaged])),
      (2048, 0b01, 0, Completion(byteCount: 1518, flags: .isDamaged)),
      (0xFFFF, 0b11, 0, Completion(byteCount: 1518, flags: [.isEnd, .isDamaged])),
      (0, 0b11, 0, Completion(byteCount: 0, flags: .isEnd)),
      (60, 0b1100011, 0, Completion(byteCount: 60, flags: [.isEnd, .isChecksumValid])),
      (60, 0b0100011, 0, Completion(byteCount: 60, flags: [.isEnd, .isChecksumValid])),
      (60, 0b1000011, 0, Completion(byteCount: 60, flags: .isEnd)),
      (60, 0b1100011, 1 << 10, Completion(byteCount: 60, flags: .isEnd)),
      (60, 0b1100011, 1 << 11, Completion(byteCount: 60, flags: .isEnd)),
    ]
    for (index, expected) in cases.enumerated() {
      queue.post(IOVA(0))
      bench.complete(index, length: expected.length, status: expected.status, errors: expected.errors)
      let found = queue.reap()
      #expect(found == expected.3, "case \(index)")
    }
  }

  @Test func `without checksum offload none is reported`() throws {
    let bench = try Bench { $0.checksumOffload = false }
    var queue = try bench.device.makeReceiveQueue(0, ringSize: 8, bufferByteCount: 2048)
    try bench.device.start(&queue)
    queue.post(IOVA(0))
    bench.complete(0, length: 60, status: 0b1100011)
    #expect(queue.reap()?.flags == .isEnd)
  }

  @Test func `what was filled before a stop can be reaped after it, and a start forgets the rest`() throws {
    let bench = try Bench()
    var queue = try bench.device.makeReceiveQueue(0, ringSize: 8, bufferByteCount: 2048)
    try bench.device.start(&queue)
    for n in 0..<5 { queue.post(IOVA(UInt64(n))) }
    queue.ring()
    bench.complete(0, length: 64)
    let before = bench.clock.now
    try queue.quiesce()
    #expect(bench.clock.now - before >= 100_000, "the card may write for 100 µs more")
    try queue.quiesce()
    #expect(queue.reap()?.byteCount == 64)
    #expect(queue.reap() == nil && queue.room == 3)
    try bench.device.start(&queue)
    #expect(queue.room == 7 && queue.reap() == nil)
    #expect(bench.card[0x1018] == 0 && bench.descriptor(1, base: 0x1000) == (0, 0))
  }

  @Test func `a queue that goes away is off the card before its ring is off the bus`() throws {
    let bench = try Bench()
    do {
      var queue = try bench.device.makeReceiveQueue(0, ringSize: 8, bufferByteCount: 2048)
      try bench.device.start(&queue)
      #expect(bench.iommu.mappingCount == 1)
      queue.post(IOVA(0))
    }
    #expect(bench.card[0x1028] & 1 << 25 == 0)
    #expect(bench.iommu.mappingCount == 0)
  }

  /// The compiler's proof that a turn takes no lock, allocates nothing and counts no reference.
  @_noLocks static func turn(_ queue: inout IntelReceiveQueue, _ address: IOVA) -> UInt32 {
    var bytes: UInt32 = 0
    while let completion = queue.reap() {
      if completion.flags.rawValue & 1 != 0 { bytes &+= completion.byteCount }
    }
    while queue.room > 0 { queue.post(address) }
    queue.ring()
    return bytes
  }

  @Test func `a turn of the queue compiles without locks`() throws {
    let bench = try Bench()
    var queue = try bench.device.makeReceiveQueue(0, ringSize: 8, bufferByteCount: 2048)
    try bench.device.start(&queue)
    #expect(Self.turn(&queue, IOVA(0)) == 0)
    bench.complete(0, length: 100)
    bench.complete(1, length: 200)
    #expect(Self.turn(&queue, IOVA(0)) == 300)
    #expect(bench.card[0x1018] == 1)
  }
}
