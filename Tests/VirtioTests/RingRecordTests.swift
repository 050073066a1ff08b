import GuestMemory
import Linux
import Support
import Testing
import Virtio

/// What a packed virtqueue's successor finds out from its record: no buffer is given back twice, none is lost.
@Suite struct RingRecordTests {
  typealias Piece = PlainPackedDriver.Piece

  /// The front-end knows nothing: what it says is far from the truth.
  private let stale = RingBase.packedStart

  private func offer(_ bench: PackedBench, _ random: inout SeededGenerator, _ ids: inout [UInt16]) {
    while bench.driver.room > 0, !random.once(in: 6) {
      let count = random.int(1...min(3, bench.driver.room))
      let id = UInt16.random(in: 0...(.max), using: &random)
      bench.driver.offer((0..<count).map { Piece(Bench.first + UInt64($0) * 64, 40 + UInt32($0)) }, id: id)
      ids.append(id)
    }
  }

  // MARK: A death between any two stores

  /// Every state of ring and record that the stores of one publication go through, in their order: entry by entry, the
  /// state, the descriptors behind the first, the first. From each, a successor must find the truth and make it whole.
  @Test(arguments: RecordStore.Kind.allCases)
  func `a successor goes on where the ring stands, wherever its predecessor died`(kind: RecordStore.Kind) throws {
    try withSeeds(60) { random in
      let size = random.pick([1, 2, 3, 5, 8, 13])
      let bench = try PackedBench(size: size, first: random.pick([0, 0, size - 1, size, 2 * size - 1]))
      let file = try RecordStore(kind, ringSize: size)
      var device = try bench.queue(record: file.open())
      var ids: [UInt16] = []
      for round in 0..<12 {
        offer(bench, &random, &ids)
        while !random.once(in: 8), device.next() != nil {}
        // A whole batch, so that the driver's FIFO has no doubt.
        let count = random.int(0...device.ids.count)
        let before = (ring: bench.memory.read(bench.driver.ring, 16 * size), record: file.bytes, base: device.queue.base)
        var lengths: [UInt32] = []
        for n in 0..<count {
          lengths.append(UInt32(100 * round + n) * UInt32(random.int(0...1)))
          device.put(lengths[n])
        }
        try check(bench.memory.read(bench.driver.ring, 16 * size), is: before.ring, "ring before publication")
        let put = file.bytes
        _ = device.queue.publish(UInt16(count))
        let after = (ring: bench.memory.read(bench.driver.ring, 16 * size), record: file.bytes, base: device.queue.base)
        if count == 0 { continue }

        // The state is one word, and what comes last.
        var staged = after.record
        staged.replaceSubrange(24..<32, with: before.record[24..<32])
        // Where others can write, nothing lies that is yet to be published.
        try check(put, is: kind == .region ? before.record : staged, "record before publication")
        try check(after.record != staged, "the record's state")
        var stages: [(name: String, ring: [UInt8], record: [UInt8], isPublished: Bool)] = []
        let changed = staged.indices.filter { staged[$0] != before.record[$0] }
        for n in 0...changed.count where n == changed.count || random.once(in: 3) {
          var record = before.record
          for index in changed.prefix(n) { record[index] = staged[index] }
          stages.append(("\(n) bytes of entries", before.ring, record, false))
        }
        let places = after.ring.indices.filter { after.ring[$0] != before.ring[$0] }.map { $0 / 16 }
        let first = Int(before.base.used)
        let others = Set(places).filter { $0 != first }.sorted { ($0 + size - first) % size < ($1 + size - first) % size }
        for n in 0...others.count {
          var ring = before.ring
          for place in others.prefix(n) {
            ring.replaceSubrange(16 * place..<16 * place + 16, with: after.ring[16 * place..<16 * place + 16])
          }
          stages.append(("\(n) of the others", ring, after.record, true))
        }
        stages.append(("all", after.ring, after.record, true))

        for stage in stages {
          bench.memory.write(bench.driver.ring, stage.ring)
          file.set(stage.record)
          let next = try PackedDevice(bench, PackedBench.usual, base: stale, record: file.open())
          // With nothing used in sight, the ring may as well be one that the driver has just made: its batch is not
          // finished, and comes again.
          let isAtStart = before.base == .packedStart && stage.ring == before.ring
            && !before.ring.indices.contains { $0 % 16 == 15 && before.ring[$0] & 0x80 != 0 }
          let wanted = stage.isPublished && !isAtStart ? after : before
          try check(next.queue.base, is: wanted.base, "base after \(stage.name), of \(count) in a ring of \(size)")
          try check(bench.memory.read(bench.driver.ring, 16 * size), is: wanted.ring, "ring after \(stage.name)")
        }
        bench.memory.write(bench.driver.ring, after.ring)
        for n in 0..<count {
          try check(
            bench.driver.takeUsed(), is: .init(id: ids.removeFirst(), byteCount: lengths[n], isWritten: lengths[n] > 0),
            "used buffer \(n)")
        }
        // A successor takes what is out, each once and in order, and goes on from here.
        if random.once(in: 2) {
          device = try PackedDevice(bench, PackedBench.usual, base: stale, record: file.open())
          try check(device.queue.base, is: after.base, "base of the successor")
        }
      }
      // Whatever is out is given back by the last of them.
      device = try PackedDevice(bench, PackedBench.usual, base: stale, record: file.open())
      while device.next() != nil {}
      try check(device.ids, is: ids, "what was out")
    }
  }

  // MARK: When the record is not believed

  @Test(arguments: RecordStore.Kind.allCases)
  func `a ring that the driver has made anew begins at its beginning`(kind: RecordStore.Kind) throws {
    for size in [1, 2, 5] {
      for laps in [0, 1, 2, 3] {
        for count in 0...size {
          let bench = try PackedBench(size: size)
          let file = try RecordStore(kind, ringSize: size)
          do {
            var device = try bench.queue(record: file.open())
            for n in 0..<laps * size + size / 2 {
              bench.driver.offer([Piece(Bench.first, 64)], id: UInt16(n))
              _ = device.next()
              device.put(12)
              _ = device.queue.publish(1)
              _ = bench.driver.takeUsed()
            }
          }
          // The guest starts again while nobody is there, and has offered some.
          let driver = PlainPackedDriver(bench.layout, in: bench.memory)
          for n in 0..<count { driver.offer([Piece(Bench.first, 64)], id: UInt16(n)) }
          let device = try PackedDevice(bench, PackedBench.usual, base: .packedStart, record: file.open())
          #expect(device.queue.base == .packedStart, "size \(size), after \(laps) laps, \(count) offered")
        }
      }
    }
  }

  @Test(arguments: RecordStore.Kind.allCases)
  func `a record that was cleared, or is another ring's, or has nothing in it, is not believed`(kind: RecordStore.Kind) throws {
    let bench = try PackedBench(size: 5, first: 7)
    let base = RingBase(packed: RingPosition(place: 3, wrap: false))
    func start(_ file: borrowing RecordStore, _ layout: RingLayout? = nil) throws -> RingBase {
      var view = MemoryView(bench.memory.map)
      return try Virtqueue(
        layout ?? bench.layout, features: [.ringPacked], base: base, record: file.open(), in: &view).base
    }
    let empty = try RecordStore(kind, ringSize: 5)
    #expect(try start(empty) == base)

    let kept = try RecordStore(kind, ringSize: 6)
    let record = try kept.open()
    #expect(!record.isLive)
    do { _ = try bench.queue(record: record) }
    #expect(record.isLive)
    let live = kept.bytes
    #expect(try start(kept) == RingBase(packed: bench.driver.position(7)), "a record that is live is believed")
    kept.set(live)
    record.clear()
    #expect(!record.isLive)
    #expect(try start(kept) == base)
    kept.set(live)
    var other = bench.layout
    other.size = 4
    #expect(try start(kept, other) == base)
    kept.set(live)
    other = PackedBench.layout(5, at: Bench.first)
    #expect(try start(kept, other) == base)
  }

  @Test(arguments: RecordStore.Kind.allCases)
  func `a record of another guest's ring is not believed, the same guest's is`(kind: RecordStore.Kind) throws {
    let bench = try PackedBench(size: 5, first: 7)
    let file = try RecordStore(kind, ringSize: 5)
    let record = try file.open()
    record.belong(to: 77)
    do { _ = try bench.queue(record: record) }
    let next = try file.open()
    next.belong(to: 77)
    #expect(next.isLive)
    let same = try PackedDevice(bench, PackedBench.usual, base: .packedStart, record: next)
    #expect(same.queue.base == RingBase(packed: bench.driver.position(7)))
    let third = try file.open()
    third.belong(to: 78)
    #expect(!third.isLive)
    // As the stream that it came by says.
    let base = RingBase(packed: RingPosition(place: 3, wrap: true))
    let other = try PackedDevice(bench, PackedBench.usual, base: base, record: third)
    #expect(other.queue.base == base)
  }

  @Test(arguments: RecordStore.Kind.allCases)
  func `a ring that somebody else has gone on with is not believed to stand where we left it`(kind: RecordStore.Kind) throws {
    let bench = try PackedBench(size: 5, first: 6)
    let file = try RecordStore(kind, ringSize: 5)
    do { _ = try bench.queue(record: file.open()) }
    bench.driver.offer([Piece(Bench.first, 64)], id: 1)
    bench.memory.store16(bench.driver.both(6) ? 0x8080 : 0, bench.driver.place(6) + 14)
    let base = RingBase(packed: bench.driver.position(7))
    let device = try PackedDevice(bench, PackedBench.usual, base: base, record: file.open())
    #expect(device.queue.base == base)
  }

  @Test func `a record too small for its ring is refused`() throws {
    let bench = try PackedBench(size: 700)
    for kind in RecordStore.Kind.allCases {
      let record = try RecordStore(kind, ringSize: 5).open()
      #expect(record.capacity < 700)
      #expect(throws: VirtqueueError.recordTooSmall(record.capacity, size: 700)) { _ = try bench.queue(record: record) }
    }
  }

  @Test(arguments: RecordStore.Kind.allCases)
  func `whatever a record says, no byte but the ring's is written, and the ring goes on at one of its places`(kind: RecordStore.Kind) throws {
    try withSeeds(400) { random in
      let size = random.int(1...9)
      let bench = try PackedBench(size: size, first: random.int(0...20))
      let file = try RecordStore(kind, ringSize: size)
      var ids: [UInt16] = []
      do {
        var device = try bench.queue(record: file.open())
        offer(bench, &random, &ids)
        while device.next() != nil {}
        for n in 0..<device.ids.count { device.put(UInt32(n)) }
      }
      var bytes = file.bytes
      for _ in 0..<random.int(1...12) { bytes[random.int(24...min(bytes.count - 1, 64 + 10 * size))] = random.pick([0, 1, 0x80, 0xFF, UInt8.random(in: 0...255, using: &random)]) }
      // Live all the same.
      bytes[30] = random.pick([1, 3, 5, 7])
      bytes[31] = 0
      file.set(bytes)
      let ring = bench.memory.read(bench.driver.ring, 16 * size)
      var device = try PackedDevice(bench, PackedBench.usual, base: .packedStart, record: file.open())
      try check(Int(device.queue.base.used) < size, "place")
      let now = bench.memory.read(bench.driver.ring, 16 * size)
      for n in 0..<size { try check(Array(now[16 * n..<16 * n + 8]), is: Array(ring[16 * n..<16 * n + 8]), "address \(n)") }
      bench.memory.foresee(bench.driver.ring, now)
      if let surprise = bench.memory.firstSurprise() { throw Mismatch(surprise) }
      for _ in 0..<20 where device.next() != nil { device.put(1) }
      _ = device.queue.publish(0)
    }
  }
}
