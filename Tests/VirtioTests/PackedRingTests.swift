import GuestMemory
import Support
import Testing
import Virtio

/// What a driver may do with a packed ring, and what the device does with it. virtio 1.3, 2.8.
@Suite struct PackedRingTests {
  typealias Piece = PlainPackedDriver.Piece

  // MARK: 2.8.10.1: sizes, places

  @Test(arguments: [0, -1, 32769, 65536, Int.max, Int.min])
  func `a size that is not from 1 to 32768 is refused`(size: Int) throws {
    let bench = try PackedBench(size: 4)
    var layout = bench.layout
    layout.size = size
    var view = MemoryView(bench.memory.map)
    #expect(throws: VirtqueueError.badSize(size)) { _ = try PackedVirtqueue(layout, features: [], in: &view) }
  }

  private let good = RingLayout(
    size: 5, descriptorArea: GuestAddress(0x10_0000), driverArea: GuestAddress(0x10_1000),
    deviceArea: GuestAddress(0x10_2000))
  private let areas: [(WritableKeyPath<RingLayout, GuestAddress>, bytes: Int, alignment: Int)] = [
    (\.descriptorArea, 80, 16), (\.driverArea, 4, 4), (\.deviceArea, 4, 4),
  ]

  @Test func `each area must have its alignment`() throws {
    let bench = try PackedBench(size: 4)
    var view = MemoryView(bench.memory.map)
    for (area, _, alignment) in areas {
      for off in 1..<alignment {
        var layout = good
        layout[keyPath: area] = GuestAddress(layout[keyPath: area].rawValue + UInt64(off))
        let wanted = VirtqueueError.misaligned(layout[keyPath: area], alignment: alignment)
        #expect(throws: wanted) { _ = try PackedVirtqueue(layout, features: [], in: &view) }
      }
    }
  }

  @Test func `each area must lie in one region, to its last byte, and share no byte with another`() throws {
    let bench = try PackedBench(size: 4)
    var view = MemoryView(bench.memory.map)
    for (area, bytes, alignment) in areas {
      let last = (Bench.third + 4096 - UInt64(bytes)) & ~UInt64(alignment - 1)
      var layout = good
      layout[keyPath: area] = GuestAddress(last)
      _ = try PackedVirtqueue(layout, features: [], in: &view)
      // An area of one alignment cannot lie across two regions.
      for start in [last + UInt64(alignment), 0, UInt64.max & ~15] {
        layout[keyPath: area] = GuestAddress(start)
        #expect(throws: VirtqueueError.outsideMemory(range(start, UInt32(bytes)))) {
          _ = try PackedVirtqueue(layout, features: [], in: &view)
        }
      }
    }
    var (first, second) = (good, good)
    first.driverArea = GuestAddress(0x10_004C)
    second.deviceArea = second.driverArea
    for layout in [first, second] {
      #expect(throws: VirtqueueError.self) { _ = try PackedVirtqueue(layout, features: [], in: &view) }
    }
  }

  @Test func `a base is a place of the ring, and what it calls used counts`() throws {
    let bench = try PackedBench(size: 5)
    var view = MemoryView(bench.memory.map)
    func start(_ base: RingBase) throws -> RingPosition {
      try PackedVirtqueue(bench.layout, features: [], base: base, in: &view).usedPosition
    }
    #expect(try start(.packedStart) == .start)
    #expect(try start(RingBase(available: 4, availableWrap: true, used: 2, usedWrap: true)) == RingPosition(place: 2, wrap: true))
    #expect(try start(RingBase(available: 1, availableWrap: true, used: 3, usedWrap: false)) == RingPosition(place: 3, wrap: false))
    // What DPDK's virtio-user sends: nothing of the used half.
    #expect(try start(RingBase(available: 0, availableWrap: true, used: 0, usedWrap: false)) == .start)
    for (available, used) in [(5, 0), (0, 5), (0x7FFF, 0)] as [(UInt16, UInt16)] {
      #expect(throws: VirtqueueError.baseOutsideRing(5 > max(available, used) ? 0 : max(available, used), size: 5)) {
        _ = try start(RingBase(available: available, availableWrap: true, used: used, usedWrap: true))
      }
    }
  }

  // MARK: 2.8.1, 2.8.15: the wrap counters

  @Test(arguments: [1, 2, 3, 255, 256, 257, 32768], [0, 1])
  func `every size goes round, from any place, with every ID given back as it came`(size: Int, late: Int) throws {
    // From the beginning, and from the last place of a lap whose wrap counter is 0.
    let bench = try PackedBench(size: size, first: late * (2 * size - 1))
    var device = try bench.queue()
    var random = SeededGenerator(seed: UInt64(size))
    for round in 0..<(size < 1000 ? 7 : 3) {
      let count = round % 2 == 0 ? size : (size + 1) / 2
      var wanted: [UInt16] = []
      for _ in 0..<count {
        // Any 16 bits, some of them the same.
        let id = random.once(in: 4) ? 0xFFFF : UInt16.random(in: 0...(.max), using: &random)
        bench.driver.offer([Piece(Bench.first, 64)], id: id)
        wanted.append(id)
      }
      for n in 0..<count {
        try check(device.pending(), is: UInt32(size - n), "pending before buffer \(n) of round \(round)")
        guard let buffer = device.queue.next() else { throw Mismatch("buffer \(n) of round \(round) is not there") }
        try check(buffer, is: AvailableBuffer(range: range(Bench.first, 64), flags: 2, id: wanted[n]), "buffer")
        device.queue.take(buffer)
      }
      try check(device.pending(), is: 0, "pending when all is taken")
      for n in 0..<count { device.queue.put(wanted[n], byteCount: UInt32(n)) }
      try check(bench.driver.takeUsed(), is: nil, "used before it was published")
      _ = device.queue.publish(UInt16(count))
      for n in 0..<count {
        try check(
          bench.driver.takeUsed(), is: .init(id: wanted[n], byteCount: UInt32(n), isWritten: n > 0), "used \(n)")
      }
      try check(device.queue.base, is: RingBase(packed: bench.driver.position(bench.driver.seen)), "base")
    }
    #expect(device.fault == nil)
  }

  @Test func `a descriptor of another lap is not there`() throws {
    for first in [0, 3, 4, 7] {
      let bench = try PackedBench(size: 4, first: first)
      var device = try bench.queue()
      // Of the lap before, available and used; of this lap, used. 2.8.1: available is AVAIL = wrap, USED = not.
      let wrap = bench.driver.both(first)
      for (flags, isThere) in [(0x0080, wrap), (0x8000, !wrap), (0x8080, false), (0, false)] as [(UInt16, Bool)] {
        bench.memory.store16(flags | 2, bench.driver.place(first) + 14)
        #expect((device.pending() > 0) == isThere, "first \(first) flags \(flags)")
        #expect((device.queue.next() != nil) == isThere)
      }
    }
  }

  @Test func `chains are skipped whole, across the end of the ring, and put where they began`() throws {
    for first in 0..<14 {
      let bench = try PackedBench(size: 7, first: first)
      var device = try bench.queue()
      bench.driver.offer([Piece(Bench.first, 12), Piece(Bench.first + 64, 100), Piece(Bench.first + 256, 9)], id: 77)
      bench.driver.offer([Piece(Bench.second, 50)], id: 78)
      bench.driver.offer([Piece(Bench.second + 64, 3), Piece(Bench.second + 128, 33)], id: 79)
      let pending = device.pending()
      #expect(pending == 7)
      #expect(device.next() == [range(Bench.first, 12), range(Bench.first + 64, 100), range(Bench.first + 256, 9)])
      #expect(device.next() == [range(Bench.second, 50)])
      #expect(device.next() == [range(Bench.second + 64, 3), range(Bench.second + 128, 33)])
      #expect(device.next() == nil)
      #expect(device.ids == [77, 78, 79])
      let before = bench.memory.read(bench.driver.ring, 16 * 7)
      device.put(20)
      device.put(0)
      _ = device.queue.publish(2)
      #expect(bench.driver.takeUsed() == .init(id: 77, byteCount: 20, isWritten: true))
      #expect(bench.driver.takeUsed() == .init(id: 78, byteCount: 0, isWritten: false))
      #expect(bench.driver.takeUsed() == nil)
      #expect(device.queue.base == RingBase(packed: bench.driver.position(first + 4)))
      device.put(36)
      _ = device.queue.publish(1)
      #expect(bench.driver.takeUsed() == .init(id: 79, byteCount: 36, isWritten: true))
      // Nothing was written but length, ID and flags of each buffer's first descriptor. 2.8.4.
      let after = bench.memory.read(bench.driver.ring, 16 * 7)
      let written = Set([0, 3, 4].flatMap { n in (8..<16).map { (first + n) % 7 * 16 + $0 } })
      for byte in before.indices where !written.contains(byte) { #expect(before[byte] == after[byte]) }
    }
  }

  @Test func `what is put beyond what is published is forgotten, and can be put again`() throws {
    for first in [0, 5, 6, 13] {
      let bench = try PackedBench(size: 7, first: first)
      var device = try bench.queue()
      for id: UInt16 in 1...3 { bench.driver.offer([Piece(Bench.first, 12), Piece(Bench.first + 64, 100)], id: id) }
      for _ in 0..<3 { _ = device.next() }
      device.put(1)
      device.put(2)
      device.put(3)
      _ = device.queue.publish(1)
      #expect(bench.driver.takeUsed() == .init(id: 1, byteCount: 1, isWritten: true))
      #expect(bench.driver.takeUsed() == nil)
      #expect(device.queue.base == RingBase(packed: bench.driver.position(first + 2)))
      device.queue.put(2, byteCount: 5)
      device.queue.put(3, byteCount: 6)
      _ = device.queue.publish(2)
      #expect(bench.driver.takeUsed() == .init(id: 2, byteCount: 5, isWritten: true))
      #expect(bench.driver.takeUsed() == .init(id: 3, byteCount: 6, isWritten: true))
    }
  }

  @Test func `the device writes used descriptors and its event area, and nothing else`() throws {
    try withSeeds(20) { random in
      let size = random.int(1...9)
      let bench = try PackedBench(size: size, first: random.int(0...2 * size - 1))
      var device = try bench.queue(random.once(in: 2) ? [.eventIndex] : [])
      for _ in 0..<30 {
        let first = bench.driver.offered
        let count = random.int(1...size)
        for n in 0..<count { bench.driver.offer([Piece(Bench.first + UInt64(n) * 64, 64)], id: UInt16(n)) }
        for n in 0..<count {
          try check(device.next()?.count, is: 1, "pieces")
          device.put(12)
          let both: UInt64 = bench.driver.both(first + n) ? 0x8080 : 0
          bench.memory.foresee(
            bench.driver.place(first + n) + 8,
            littleEndian(12, 4) + littleEndian(UInt64(n), 2) + littleEndian(both | 2, 2))
        }
        _ = device.queue.publish(UInt16(count))
        while bench.driver.takeUsed() != nil {}
        if random.once(in: 2) { _ = device.queue.enableNotifications() } else { device.queue.disableNotifications() }
        let event = bench.layout.deviceArea.rawValue
        bench.memory.foresee(event, bench.memory.read(event, 4))
        if let surprise = bench.memory.firstSurprise() { throw Mismatch(surprise) }
      }
    }
  }

  @Test func `the first fault stays, and nothing is taken after it`() throws {
    let bench = try PackedBench(size: 4)
    var device = try bench.queue()
    bench.driver.offer([Piece(Bench.first, 11)], id: 0)
    bench.driver.offer([Piece(Bench.first, 64)], id: 1)
    #expect(device.next() == nil)
    #expect(device.fault == .bufferTooSmall(head: 0, byteCount: 11))
    bench.driver.describe(0, Piece(Bench.first, 64), id: 0, flags: 2)
    #expect(device.next() == nil)
    #expect(device.pending() == 0)
    device.queue.poison(.outsideMemory(range(0, 1)))
    #expect(device.fault == .bufferTooSmall(head: 0, byteCount: 11))
  }

  @Test func `a map with the ring where it was is held, and any other refused`() throws {
    for features in [[.version1], [.version1, .ringPacked]] as [Features] {
      let bench = try PackedBench(size: 4)
      var view = MemoryView(bench.memory.map)
      let layout = features.contains(.ringPacked)
        ? bench.layout
        : RingLayout(
          size: 4, descriptorArea: GuestAddress(Bench.third), driverArea: GuestAddress(Bench.third + 64),
          deviceArea: GuestAddress(Bench.third + 128))
      var queue = try Virtqueue(layout, features: features, base: .packedStart, in: &view)
      var random = SeededGenerator(seed: 3)
      let more = try PlainMemory([(0x30_0000, 0x4000)], &random)
      let other = try PlainMemory([(Bench.third, 0x4000)], &random)
      try queue.hold(MemoryMap(bench.memory.map.regions + more.map.regions))
      let rings = bench.memory.map.regions.filter { $0.guestStart.rawValue == Bench.third }
      try queue.hold(MemoryMap(rings))
      #expect(throws: VirtqueueError.moved(layout.descriptorArea)) { try queue.hold(more.map) }
      #expect(throws: VirtqueueError.moved(layout.descriptorArea)) { try queue.hold(other.map) }
    }
  }
}
