import GuestMemory
import Support
import Testing
import Virtio

/// What a chain may be. virtio 1.3, 2.7.4, 2.7.5, 5.1.6.3.
@Suite struct ChainTests {
  typealias D = PlainDriver

  /// Offers head 0 of what `prepare` described; answers the pieces, and the fault.
  private func read(
    size: Int = 16, _ features: Features = Bench.usual, _ prepare: (D) -> Void
  ) throws -> (pieces: [GuestRange]?, fault: VirtqueueFault?) {
    let bench = try Bench(size: size)
    var device = try bench.queue(features)
    prepare(bench.driver)
    bench.driver.offer(0)
    let pieces = device.next()
    let fault = device.fault
    // Whatever was offered: the guest's memory is as the guest left it.
    if let surprise = bench.memory.firstSurprise() { throw Mismatch(surprise) }
    return (pieces, fault)
  }
  private func expectFault(
    _ wanted: VirtqueueFault, size: Int = 16, _ features: Features = Bench.usual,
    at location: SourceLocation = #_sourceLocation, _ prepare: (D) -> Void
  ) throws {
    let (pieces, fault) = try read(size: size, features, prepare)
    #expect(pieces == nil, sourceLocation: location)
    #expect(fault == wanted, sourceLocation: location)
  }

  // MARK: What is allowed

  @Test func `a chain is read in its order, wherever its entries lie`() throws {
    let (pieces, fault) = try read { driver in
      driver.describe(0, 0x10_0100, 5, flags: D.write | D.next, next: 15)
      driver.describe(15, 0x10_0000, 7, flags: D.write | D.next, next: 3)
      driver.describe(3, 0x10_0400, 1500)
    }
    #expect(fault == nil)
    #expect(pieces == [range(0x10_0100, 5), range(0x10_0000, 7), range(0x10_0400, 1500)])
  }

  @Test func `a chain as long as its queue is allowed, and its header may be in twelve pieces`() throws {
    let (pieces, fault) = try read { driver in
      for n in 0..<16 {
        driver.describe(n, 0x10_0000 + UInt64(n), 1, flags: n < 15 ? D.write | D.next : D.write, next: UInt16(n + 1))
      }
    }
    #expect(fault == nil)
    #expect(pieces?.count == 16)
  }

  @Test func `pieces without bytes count as entries, not as bytes`() throws {
    let (pieces, fault) = try read { driver in
      driver.describe(0, 0xDEAD_0000, 0, flags: D.write | D.next, next: 1)
      driver.describe(1, 0x10_0000, 12, flags: D.write | D.next, next: 2)
      driver.describe(2, 0, 0)
    }
    #expect(fault == nil)
    #expect(pieces == [range(0x10_0000, 12)])
    try expectFault(.malformedChain(head: 0)) { driver in
      driver.describe(0, 0x10_0000, 0, flags: D.write | D.next, next: 0)
    }
  }

  @Test func `an indirect table may stand alone or end a chain, and its own writable flag says nothing`() throws {
    for flags in [D.indirect, D.indirect | D.write] {
      let (alone, fault) = try read { driver in
        driver.describe(0, 0x10_4000, 32, flags: flags)
        driver.describe(0, 0x10_0000, 12, flags: D.write | D.next, next: 1, table: 0x10_4000)
        driver.describe(1, 0x10_1000, 100, table: 0x10_4000)
      }
      #expect(fault == nil)
      #expect(alone == [range(0x10_0000, 12), range(0x10_1000, 100)])
      let (after, other) = try read { driver in
        driver.describe(0, 0x10_0000, 12, flags: D.write | D.next, next: 5)
        driver.describe(5, 0x10_4000, 16, flags: flags)
        driver.describe(0, 0x10_1000, 100, table: 0x10_4000)
      }
      #expect(other == nil)
      #expect(after == [range(0x10_0000, 12), range(0x10_1000, 100)])
    }
  }

  @Test func `a buffer across two regions that touch is cut where they meet`() throws {
    let (pieces, fault) = try read { $0.describe(0, Bench.second - 100, 300) }
    #expect(fault == nil)
    #expect(pieces == [range(Bench.second - 100, 100), range(Bench.second, 200)])
  }

  @Test func `exactly the header is enough`() throws {
    let (pieces, _) = try read { $0.describe(0, Bench.first, 12) }
    #expect(pieces == [range(Bench.first, 12)])
  }

  // MARK: 2.7.5.2: loops and lengths

  @Test func `a chain that comes back to itself is a fault`() throws {
    try expectFault(.malformedChain(head: 0)) { $0.describe(0, Bench.first, 64, flags: D.write | D.next, next: 0) }
    try expectFault(.malformedChain(head: 0)) { driver in
      driver.describe(0, Bench.first, 64, flags: D.write | D.next, next: 1)
      driver.describe(1, Bench.first, 64, flags: D.write | D.next, next: 0)
    }
    try expectFault(.malformedChain(head: 0)) { driver in
      driver.describe(0, Bench.first + 0x800, 48, flags: D.indirect)
      driver.describe(0, Bench.first, 64, flags: D.write | D.next, next: 2, table: Bench.first + 0x800)
      driver.describe(2, Bench.first, 64, flags: D.write | D.next, next: 0, table: Bench.first + 0x800)
    }
  }

  @Test(arguments: [1, 2, 16])
  func `a chain one longer than its queue is a fault, with or without a table`(size: Int) throws {
    try expectFault(.malformedChain(head: 0), size: size) { driver in
      for n in 0..<size { driver.describe(n, Bench.first, 64, flags: D.write | D.next, next: UInt16((n + 1) % size)) }
    }
    if size > 1 {
      // One entry, then a table with as many as the queue has.
      try expectFault(.malformedChain(head: 0), size: size) { driver in
        driver.describe(0, Bench.first, 64, flags: D.write | D.next, next: 1)
        driver.describe(1, Bench.first + 0x800, UInt32(16 * size), flags: D.indirect)
        for n in 0..<size {
          driver.describe(
            n, Bench.first, 64, flags: n < size - 1 ? D.write | D.next : D.write, next: UInt16(n + 1), table: Bench.first + 0x800)
        }
      }
    }
  }

  @Test(arguments: [UInt16(16), 17, 0x8000, 0xFFFF])
  func `a next entry that is not there is a fault`(next: UInt16) throws {
    try expectFault(.malformedChain(head: 0)) { $0.describe(0, Bench.first, 64, flags: D.write | D.next, next: next) }
    try expectFault(.malformedChain(head: 0)) { driver in
      driver.describe(0, Bench.first + 0x800, 32, flags: D.indirect)
      driver.describe(0, Bench.first, 64, flags: D.write | D.next, next: next, table: Bench.first + 0x800)
    }
    try expectFault(.malformedChain(head: 0)) { driver in
      driver.describe(0, Bench.first + 0x800, 32, flags: D.indirect)
      driver.describe(0, Bench.first, 64, flags: D.write | D.next, next: 2, table: Bench.first + 0x800)
    }
  }

  // MARK: 2.7.5.3: indirect tables

  @Test func `an indirect table is a fault where it was not agreed on`() throws {
    try expectFault(.badIndirectTable(head: 0), [.version1]) { driver in
      driver.describe(0, Bench.first + 0x800, 16, flags: D.indirect)
      driver.describe(0, Bench.first, 64, table: Bench.first + 0x800)
    }
  }

  @Test func `an indirect table with a next entry is a fault`() throws {
    try expectFault(.badIndirectTable(head: 0)) { driver in
      driver.describe(0, Bench.first + 0x800, 16, flags: D.indirect | D.next, next: 1)
      driver.describe(0, Bench.first, 64, table: Bench.first + 0x800)
      driver.describe(1, Bench.first, 64)
    }
  }

  @Test func `a table in a table is a fault`() throws {
    try expectFault(.badIndirectTable(head: 0)) { driver in
      driver.describe(0, Bench.first + 0x800, 16, flags: D.indirect)
      driver.describe(0, Bench.first + 0x800, 16, flags: D.indirect, table: Bench.first + 0x800)
    }
  }

  @Test(arguments: [0, 1, 8, 15, 17, 24, 16 * 17, 1 << 20, 0xFFFF_FFF0, 0xFFFF_FFFF] as [UInt32])
  func `a table of impossible length is a fault`(byteCount: UInt32) throws {
    try expectFault(.badIndirectTable(head: 0)) { driver in
      driver.describe(0, Bench.first + 0x800, byteCount, flags: D.indirect)
      driver.describe(0, Bench.first, 64, table: Bench.first + 0x800)
    }
  }

  @Test(arguments: [0, Bench.third - 16, Bench.second - 16, Bench.second + 0x1_0000 - 16, UInt64.max - 15] as [UInt64])
  func `a table that is not in one region is a fault`(table: UInt64) throws {
    try expectFault(.outsideMemory(range(table, 32))) { $0.describe(0, table, 32, flags: D.indirect) }
  }

  // MARK: Buffers

  @Test func `a buffer that the device may not write is a fault, anywhere in the chain`() throws {
    try expectFault(.readOnlyBuffer(head: 0)) { $0.describe(0, Bench.first, 64, flags: 0) }
    try expectFault(.readOnlyBuffer(head: 0)) { driver in
      driver.describe(0, Bench.first, 64, flags: D.write | D.next, next: 1)
      driver.describe(1, Bench.first, 64, flags: 0)
    }
    try expectFault(.readOnlyBuffer(head: 0)) { driver in
      driver.describe(0, Bench.first, 64, flags: D.next, next: 1)
      driver.describe(1, Bench.first, 64)
    }
    try expectFault(.readOnlyBuffer(head: 0)) { driver in
      driver.describe(0, Bench.first + 0x800, 16, flags: D.indirect | D.write)
      driver.describe(0, Bench.first, 64, flags: 0, table: Bench.first + 0x800)
    }
  }

  private static let strays: [GuestRange] = [
    range(0, 64), range(0x0F_FFFF, 64), range(0x11_FFC1, 64), range(0x12_0000, 64), range(0x1F_FFC0, 64),
    range(0xFFFF_FFFF_FFFF_FFC1, 64), range(.max, 64), range(0x10_0000, 0x20_0000), range(0x10_0000, .max),
    range(0xFFFF_FFFF_FFF0_0000, 0x20_0000),
  ]

  @Test(arguments: strays)
  func `a buffer with a byte that is no memory is a fault`(stray: GuestRange) throws {
    let (start, count) = (stray.start.rawValue, stray.count)
    try expectFault(.outsideMemory(range(start, count))) { $0.describe(0, start, count) }
    try expectFault(.outsideMemory(range(start, count))) { driver in
      driver.describe(0, Bench.first, 12, flags: D.write | D.next, next: 1)
      driver.describe(1, start, count)
    }
  }

  @Test(arguments: [UInt32(0), 1, 10, 11])
  func `a buffer that cannot hold the header is a fault`(count: UInt32) throws {
    try expectFault(.bufferTooSmall(head: 0, byteCount: count)) { $0.describe(0, Bench.first, count) }
  }

  @Test func `a random table never makes the device read or write what is not the guest's`() throws {
    try withSeeds(300) { random in
      let bench = try Bench(size: 1 << random.int(0...4))
      var device = try bench.queue(random.once(in: 4) ? [.version1] : Bench.usual)
      let size = bench.driver.size
      for table in [nil, Bench.first + 0x800, Bench.second - 64] as [UInt64?] {
        for n in 0..<size where table == nil || n < 4 {
          bench.driver.describe(
            n, random.pick([Bench.first, Bench.first + 0x800, Bench.second - 64, Bench.third, 0, random.next()]),
            UInt32(random.pick([0, 1, 12, 16, 32, 64, 1530, 65536, Int(UInt32.max)])),
            flags: random.pick([2, 2, 3, 3, 4, 1, 0, 6, 5, 7, 0xFFFF]), next: UInt16(random.int(0...size)), table: table)
        }
      }
      for _ in 0..<4 {
        bench.driver.offer(UInt16(random.int(0...size - 1)))
        guard let pieces = device.next() else {
          try check(device.fault != nil, "refused without a fault")
          break
        }
        for piece in pieces {
          try check(bench.memory.pieces(piece.start.rawValue, Int(piece.count))?.count, is: 1, "regions of \(piece)")
        }
        try check(pieces.reduce(0) { $0 + Int($1.count) } >= 12, "too small")
      }
      if let surprise = bench.memory.firstSurprise() { throw Mismatch(surprise) }
    }
  }
}
