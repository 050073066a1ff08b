import GuestMemory
import Support
import Testing
import Virtio

/// What a driver may do with the rings, and each thing that it may not. virtio 1.3, 2.7.
@Suite struct RingRuleTests {
  // MARK: 2.7: sizes, places

  @Test(arguments: [0, -1, 3, 5, 255, 257, 32769, 65536, Int.max, Int.min])
  func `a size that is no power of two up to 32768 is refused`(size: Int) throws {
    let bench = try Bench(size: 4)
    var layout = bench.layout
    layout.size = size
    var view = MemoryView(bench.memory.map)
    #expect(throws: VirtqueueError.badSize(size)) { _ = try SplitVirtqueue(layout, features: [], in: &view) }
  }

  @Test func `each part must have its alignment`() throws {
    let bench = try Bench(size: 4)
    var view = MemoryView(bench.memory.map)
    for (part, alignment) in [(\SplitRingLayout.descriptorTable, 16), (\.availableRing, 2), (\.usedRing, 4)] {
      for off in 1..<alignment {
        var layout = SplitRingLayout(
          size: 4, descriptorTable: GuestAddress(0x10_0000), availableRing: GuestAddress(0x10_1000),
          usedRing: GuestAddress(0x10_2000))
        layout[keyPath: part] = GuestAddress(layout[keyPath: part].rawValue + UInt64(off))
        let wanted = VirtqueueError.misaligned(layout[keyPath: part], alignment: alignment)
        #expect(throws: wanted) { _ = try SplitVirtqueue(layout, features: [], in: &view) }
      }
    }
  }

  @Test func `each part must lie in one region, to its last byte`() throws {
    let bench = try Bench(size: 4)
    var view = MemoryView(bench.memory.map)
    let good = SplitRingLayout(
      size: 4, descriptorTable: GuestAddress(0x10_0000), availableRing: GuestAddress(0x10_1000),
      usedRing: GuestAddress(0x10_2000))
    let end = Bench.third + 4096
    for (part, bytes, alignment) in [(\SplitRingLayout.descriptorTable, 64, 16), (\.availableRing, 14, 2), (\.usedRing, 38, 4)] {
      let last = (end - UInt64(bytes)) & ~UInt64(alignment - 1)
      var layout = good
      layout[keyPath: part] = GuestAddress(last)
      _ = try SplitVirtqueue(layout, features: [], in: &view)
      for start in [last + UInt64(alignment), 0, 0x1F_FFF0, Bench.second - UInt64(alignment), UInt64.max & ~15] {
        layout[keyPath: part] = GuestAddress(start)
        #expect(throws: VirtqueueError.outsideMemory(range(start, UInt32(bytes)))) {
          _ = try SplitVirtqueue(layout, features: [], in: &view)
        }
      }
    }
  }

  @Test func `parts that share a byte are refused`() throws {
    let bench = try Bench(size: 4)
    var view = MemoryView(bench.memory.map)
    func layout(_ table: UInt64, _ available: UInt64, _ used: UInt64) -> SplitRingLayout {
      SplitRingLayout(
        size: 4, descriptorTable: GuestAddress(table), availableRing: GuestAddress(available),
        usedRing: GuestAddress(used))
    }
    // 64, 14 and 38 bytes.
    _ = try SplitVirtqueue(layout(0x10_0000, 0x10_0040, 0x10_0050), features: [], in: &view)
    for bad in [
      layout(0x10_0000, 0x10_003E, 0x10_0100), layout(0x10_0000, 0x10_0100, 0x10_003C),
      layout(0x10_0000, 0x10_0040, 0x10_004C), layout(0x10_0100, 0x10_00F4, 0x10_0000),
      layout(0x10_0000, 0x10_0200, 0x10_0000),
    ] {
      #expect(throws: VirtqueueError.self) { _ = try SplitVirtqueue(bad, features: [], in: &view) }
    }
  }

  @Test(arguments: (0...15).map { 1 << $0 })
  func `every size goes round, across the wrap of the index`(size: Int) throws {
    let base: UInt16 = 65500
    let bench = try Bench(size: size, base: base)
    var device = try bench.queue(base: base)
    for n in 0..<size { bench.driver.describe(n, Bench.first, 64) }
    var (given, taken, wrong): (UInt16, UInt16, Int) = (base, base, 0)
    for round in 0..<(size < 64 ? 80 / size + 2 : 2) {
      for n in 0..<size { bench.driver.enter(UInt16(size - 1 - n)) }
      bench.driver.publish()
      try check(device.pending(), is: UInt32(size), "pending")
      for n in 0..<size {
        let head = device.take()
        try check(head, is: UInt16(size - 1 - n), "head \(n) of round \(round)")
        device.queue.put(head!, byteCount: UInt32(n), at: UInt16(n))
      }
      taken &+= UInt16(truncatingIfNeeded: size)
      if bench.driver.usedIndex != given { wrong += 1 }
      _ = device.queue.publish(UInt16(truncatingIfNeeded: size))
      given &+= UInt16(truncatingIfNeeded: size)
      try check(bench.driver.usedIndex, is: given, "used index")
      for n in 0..<size where size < 4096 || n % 97 == 0 {
        let used = bench.driver.usedElement(given &- UInt16(truncatingIfNeeded: size) &+ UInt16(n))
        try check(used.id, is: UInt32(size - 1 - n), "id")
        try check(used.byteCount, is: UInt32(n), "length")
      }
    }
    #expect(wrong == 0, "nothing is visible before the index is published")
    let out = device.queue.outstandingCount
    #expect(out == 0)
  }

  // MARK: 2.7.6: the available ring

  @Test(arguments: [UInt16(0), 65533, 65535, 32767])
  func `an index that ran ahead by more than the size is a fault, up to the size it is not`(base: UInt16) throws {
    for jump: UInt16 in [0, 1, 8, 9, 0x7FFF, 0x8000, 0x8001, 0xFFFF] {
      let bench = try Bench(size: 8, base: base)
      var device = try bench.queue(base: base)
      bench.memory.store16(base &+ jump, bench.driver.available + 2)
      let pending = device.pending()
      #expect(pending == (jump <= 8 ? UInt32(jump) : 0))
      let fault = device.fault
      #expect(fault == (jump <= 8 ? nil : .indexRanAhead(from: base, to: base &+ jump)))
    }
  }

  @Test(arguments: [UInt16(4), 5, 0x7FFF, 0xFFFF])
  func `a head that is no entry of the table is a fault`(head: UInt16) throws {
    let bench = try Bench(size: 4)
    var device = try bench.queue()
    bench.driver.offer(head)
    let taken = device.pending() > 0 ? device.take() : 99
    let fault = device.fault
    #expect(taken == nil)
    #expect(fault == .headOutOfRange(head))
  }

  @Test func `a head is a fault while it is out, and welcome again when it is back`() throws {
    let bench = try Bench(size: 4)
    var device = try bench.queue()
    bench.driver.describe(2, Bench.first, 64)
    bench.driver.offer(2)
    let first = device.pending() > 0 ? device.take() : nil
    #expect(first == 2)
    device.queue.put(2, byteCount: 12, at: 0)
    _ = device.queue.publish(1)
    bench.driver.offer(2, 2)
    let pending = device.pending()
    #expect(pending == 2)
    let second = device.take()
    #expect(second == 2)
    let third = device.take()
    let fault = device.fault
    #expect(third == nil)
    #expect(fault == .headOutstanding(2))
  }

  // MARK: The fault

  @Test func `the first fault stays, and nothing is taken after it`() throws {
    let bench = try Bench(size: 4)
    var device = try bench.queue()
    for n in 0..<4 { bench.driver.describe(n, Bench.first, 64) }
    bench.driver.offer(9)
    _ = device.pending()
    _ = device.take()
    // The driver mends its ways: too late.
    bench.driver.availableIndex &-= 1
    bench.driver.offer(1)
    let pending = device.pending()
    let first = device.fault
    bench.memory.store16(0x9000, bench.driver.available + 2)
    _ = device.pending()
    let second = device.fault
    #expect(pending == 0)
    #expect(first == .headOutOfRange(9))
    #expect(second == .headOutOfRange(9))
  }

  @Test func `a fault is one queue's, not its neighbour's`() throws {
    let bad = try Bench(size: 4)
    var first = try bad.queue()
    var view = MemoryView(bad.memory.map)
    let layout = Bench.layout(4, at: Bench.first + 0x8000)
    let neighbour = PlainDriver(layout, in: bad.memory)
    var second = try SplitVirtqueue(layout, features: Bench.usual, in: &view)
    neighbour.describe(0, Bench.first, 64)
    bad.driver.offer(7)
    neighbour.offer(0)
    _ = first.pending()
    _ = first.take()
    let (fault, other, pending) = (first.fault, second.fault, second.pending())
    let head = second.take()
    #expect(fault != nil)
    #expect(other == nil)
    #expect(pending == 1)
    #expect(head == 0)
  }

  // MARK: 2.7.8: the used ring

  @Test func `used elements lie before the old index until one store shows them all`() throws {
    let bench = try Bench(size: 8, base: 65533)
    var device = try bench.queue(base: 65533)
    for n in 0..<5 { bench.driver.describe(n, Bench.first, 64) }
    bench.driver.offer(0, 1, 2, 3, 4)
    _ = device.pending()
    for n in 0..<5 {
      let head = device.take()!
      device.queue.put(head, byteCount: 100 + UInt32(n), at: UInt16(n))
      // The element is complete now, and not yet shown.
      let element = bench.driver.usedElement(65533 &+ UInt16(n))
      #expect(element.id == UInt32(n) && element.byteCount == 100 + UInt32(n))
      #expect(bench.driver.usedIndex == 65533)
    }
    _ = device.queue.publish(5)
    #expect(bench.driver.usedIndex == 2)
  }

  @Test func `the device writes its used ring and nothing else`() throws {
    try withSeeds(20) { random in
      let size = 1 << random.int(0...4)
      let bench = try Bench(size: size)
      var device = try bench.queue(random.once(in: 2) ? [.eventIndex, .indirectDescriptors] : Bench.usual)
      device.queue.disableNotifications()
      for n in 0..<size { bench.driver.describe(n, Bench.first + UInt64(n) * 64, 64) }
      for _ in 0..<20 {
        let count = random.int(1...size)
        for n in 0..<count { bench.driver.enter(UInt16(n)) }
        bench.driver.publish()
        for n in 0..<count {
          try check(device.next()?.count, is: 1, "pieces")
          device.queue.put(UInt16(n), byteCount: 12, at: UInt16(n))
        }
        _ = device.queue.publish(UInt16(count))
        _ = device.queue.enableNotifications()
      }
      let used = bench.driver.used
      bench.memory.foresee(used, bench.memory.read(used, 6 + 8 * size))
      if let surprise = bench.memory.firstSurprise() { throw Mismatch(surprise) }
    }
  }
}
