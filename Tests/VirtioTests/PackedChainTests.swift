import GuestMemory
import Support
import Testing
import Virtio

/// What a buffer of a packed virtqueue may be. virtio 1.3, 2.8.5 to 2.8.7, 5.1.6.2, 5.1.6.3.
@Suite struct PackedChainTests {
  typealias Piece = PlainPackedDriver.Piece

  /// Reads what `prepare` offered.
  private func read(
    size: Int = 16, first: Int = 0, _ features: Features = PackedBench.usual, _ direction: BufferDirection = .writable,
    _ prepare: (PlainPackedDriver) -> Void
  ) throws -> (pieces: [GuestRange]?, fault: VirtqueueFault?) {
    let bench = try PackedBench(size: size, first: first)
    var device = try bench.queue(features)
    prepare(bench.driver)
    let pieces = device.next(direction)
    // Whatever was offered: the guest's memory is as the guest left it.
    if let surprise = bench.memory.firstSurprise() { throw Mismatch(surprise) }
    return (pieces, device.fault)
  }
  private func expectFault(
    _ wanted: VirtqueueFault, size: Int = 16, first: Int = 0, _ features: Features = PackedBench.usual,
    _ direction: BufferDirection = .writable, at location: SourceLocation = #_sourceLocation,
    _ prepare: (PlainPackedDriver) -> Void
  ) throws {
    let (pieces, fault) = try read(size: size, first: first, features, direction, prepare)
    #expect(pieces == nil, sourceLocation: location)
    #expect(fault == wanted, sourceLocation: location)
  }
  private let table = Bench.first + 0x4000

  // MARK: What is allowed

  @Test func `a list as long as its ring is allowed, and its header may be in twelve pieces`() throws {
    for (size, first) in [(1, 0), (2, 1), (13, 20), (16, 31)] {
      let (pieces, fault) = try read(size: size, first: first) { driver in
        driver.offer((0..<size).map { Piece(Bench.first + UInt64($0) * 16, size == 1 ? 12 : 6) }, id: 9)
      }
      #expect(fault == nil)
      #expect(pieces?.count == size)
    }
  }

  @Test func `an indirect table is read to its end, in order, and its IDs and other flags mean nothing`() throws {
    for flags in [PlainDriver.indirect, PlainDriver.indirect | PlainDriver.write] {
      let (pieces, fault) = try read { driver in
        driver.describe(table: table, 0, Piece(Bench.first, 12, flags: 2 | 1 | 4 | 0x8080 | 0x7F78), id: 3)
        driver.describe(table: table, 1, Piece(0xDEAD_0000, 0, flags: 2), id: 4)
        driver.describe(table: table, 2, Piece(Bench.first + 0x1000, 100), id: 5)
        driver.offer([Piece(table, 48, flags: flags)], id: 1)
      }
      #expect(fault == nil)
      #expect(pieces == [range(Bench.first, 12), range(Bench.first + 0x1000, 100)])
    }
  }

  @Test func `flags that nothing is said of are not looked at`() throws {
    let (pieces, fault) = try read { driver in driver.offer([Piece(Bench.first, 64, flags: 2 | 0x7F78)], id: 1) }
    #expect(fault == nil)
    #expect(pieces == [range(Bench.first, 64)])
  }

  @Test func `transmit buffers are read only, and receive buffers written only`() throws {
    for isPacked in [false, true] {
      for direction in [BufferDirection.writable, .readable] {
        for flags in [[0], [2], [0, 0], [2, 2], [0, 2], [2, 0]] as [[UInt16]] {
          let wanted: UInt16 = direction == .writable ? 2 : 0
          let isRight = flags.allSatisfy { $0 == wanted }
          let found: (pieces: [GuestRange]?, fault: VirtqueueFault?)
          if isPacked {
            found = try read(PackedBench.usual, direction) { driver in
              driver.offer(flags.map { Piece(Bench.first, 64, flags: $0) }, id: 3)
            }
          } else {
            let bench = try Bench(size: 4)
            var view = MemoryView(bench.memory.map)
            var queue = try Virtqueue(bench.layout.generic, features: [], base: RingBase(split: 0), in: &view)
            var chain = DescriptorChain(queueSize: 4)
            for (n, flags) in flags.enumerated() { bench.driver.describe(n, Bench.first, 64, flags: flags) }
            if flags.count == 2 { bench.driver.describe(0, Bench.first, 64, flags: flags[0] | 1, next: 1) }
            bench.driver.offer(0)
            var id: UInt16?
            if queue.pending() > 0, let first = queue.next() { id = queue.takeChain(first, direction, into: &chain, in: &view) }
            found = (id == nil ? nil : [], queue.fault)
          }
          #expect((found.pieces != nil) == isRight)
          #expect(found.fault == (isRight ? nil : direction == .writable ? .readOnlyBuffer(head: 0) : .writableBuffer(head: 0)))
        }
      }
    }
  }

  // MARK: Each rule, broken

  @Test func `a list that is longer than what is left of its ring is a fault`() throws {
    // As long as it likes: every descriptor says that there is another one.
    for (size, first) in [(1, 0), (5, 0), (5, 8), (16, 3)] {
      try expectFault(.malformedChain(head: UInt16(first % size)), size: size, first: first) { driver in
        for n in 0..<size { driver.describe(first + n, Piece(Bench.first, 64), id: 0, flags: 3) }
      }
    }
    // Into a buffer that is out.
    let bench = try PackedBench(size: 5, first: 3)
    var device = try bench.queue()
    bench.driver.offer([Piece(Bench.first, 64), Piece(Bench.first, 64)], id: 1)
    #expect(device.next()?.count == 2)
    for n in 5..<8 { bench.driver.describe(n, Piece(Bench.first, 64), id: 0, flags: 3) }
    #expect(device.next() == nil)
    #expect(device.fault == .malformedChain(head: 0))
  }

  @Test func `a list that is longer by one than what is left of its ring is a fault, as long as that it is not`() throws {
    for (first, isLonger) in [(0, false), (0, true), (3, false), (7, true)] {
      let bench = try PackedBench(size: 5, first: first)
      var device = try bench.queue()
      bench.driver.offer([Piece(Bench.first, 64)], id: 1)
      #expect(device.next()?.count == 1)
      // The last of them may be the one that is out, which ends there.
      for n in 1..<5 { bench.driver.describe(first + n, Piece(Bench.first, 64), id: 0, flags: n < 4 || isLonger ? 3 : 2) }
      #expect(device.next()?.count == (isLonger ? nil : 4))
      #expect(device.fault == (isLonger ? .malformedChain(head: UInt16((first + 1) % 5)) : nil))
    }
  }

  @Test func `a buffer that is offered again while it is out is a fault, or not looked at`() throws {
    let bench = try PackedBench(size: 3)
    var device = try bench.queue()
    for id: UInt16 in 0..<3 { bench.driver.offer([Piece(Bench.first, 64)], id: id) }
    for _ in 0..<3 { _ = device.next() }
    // As if the driver had had them back.
    bench.driver.describe(3, Piece(Bench.first, 64), id: 0, flags: 2)
    #expect(device.pending() == 0)
    guard let buffer = device.queue.next() else { return }
    let id = device.queue.takeChain(buffer, .writable, into: &device.chain, in: &device.view)
    #expect(id == nil)
    #expect(device.fault == .malformedChain(head: 0))
  }

  @Test func `a table beside other descriptors, in a table's place or not agreed on is a fault`() throws {
    let fault = VirtqueueFault.badIndirectTable(head: 0)
    func describe(_ driver: PlainPackedDriver) { driver.describe(table: table, 0, Piece(Bench.first, 64)) }
    try expectFault(fault, [.version1, .ringPacked]) { driver in
      describe(driver)
      driver.offer([Piece(table, 16, flags: PlainDriver.indirect)], id: 0)
    }
    try expectFault(fault) { driver in
      describe(driver)
      driver.offer([Piece(table, 16, flags: PlainDriver.indirect), Piece(Bench.first, 64)], id: 0)
    }
    try expectFault(fault) { driver in
      describe(driver)
      driver.offer([Piece(Bench.first, 64), Piece(table, 16, flags: PlainDriver.indirect)], id: 0)
    }
  }

  @Test(arguments: [0, 1, 8, 15, 17, 24, 16 * 17, 1 << 20, 0xFFFF_FFF0, 0xFFFF_FFFF] as [UInt32])
  func `a table of impossible length is a fault`(byteCount: UInt32) throws {
    try expectFault(.badIndirectTable(head: 0)) { driver in
      driver.describe(table: table, 0, Piece(Bench.first, 64))
      driver.offer([Piece(table, byteCount, flags: PlainDriver.indirect)], id: 0)
    }
  }

  @Test(arguments: [0, Bench.third - 16, Bench.second - 16, Bench.second + 0x1_0000 - 16, UInt64.max - 15] as [UInt64])
  func `a table that is not in one region is a fault`(table: UInt64) throws {
    try expectFault(.outsideMemory(range(table, 32))) { $0.offer([Piece(table, 32, flags: PlainDriver.indirect)], id: 0) }
  }

  @Test func `a buffer with a byte that is no memory, or too short for the header, is a fault`() throws {
    for stray in [range(0, 64), range(0x0F_FFFF, 64), range(0x11_FFC1, 64), range(.max, 64), range(0x10_0000, .max)] {
      let (start, count) = (stray.start.rawValue, stray.count)
      try expectFault(.outsideMemory(stray)) { $0.offer([Piece(start, count)], id: 0) }
      try expectFault(.outsideMemory(stray)) { $0.offer([Piece(Bench.first, 12), Piece(start, count)], id: 0) }
      try expectFault(.outsideMemory(stray)) { driver in
        driver.describe(table: table, 0, Piece(start, count))
        driver.offer([Piece(table, 16, flags: PlainDriver.indirect)], id: 0)
      }
    }
    for count: UInt32 in [0, 1, 11] {
      try expectFault(.bufferTooSmall(head: 0, byteCount: count)) { $0.offer([Piece(Bench.first, count)], id: 0) }
    }
  }

  // MARK: Reading again

  @Test func `a waiting buffer is read again where it is, and refused if it is longer, shorter or worse`() throws {
    for isIndirect in [false, true] {
      for change in 0..<6 {
        let bench = try PackedBench(size: 5, first: 4)
        var device = try bench.queue()
        bench.driver.offer([Piece(Bench.first, 64)], id: 1)
        if isIndirect {
          bench.driver.describe(table: table, 0, Piece(Bench.first, 12))
          bench.driver.describe(table: table, 1, Piece(Bench.first + 64, 12))
          bench.driver.offer([Piece(table, 32, flags: PlainDriver.indirect)], id: 2)
        } else {
          bench.driver.offer([Piece(Bench.first, 12), Piece(Bench.first + 64, 12)], id: 2)
        }
        _ = device.next()
        _ = device.next()
        device.put(0)
        // Number 5 is the second buffer's first descriptor, number 6 another one.
        switch change {
        case 0: break
        case 1: bench.driver.describe(5, Piece(Bench.second, 30), id: 2, flags: isIndirect ? 2 : 3)
        case 2: bench.driver.describe(5, Piece(Bench.first, 12), id: 2, flags: isIndirect ? 3 : 2)
        case 3: bench.driver.describe(5, Piece(Bench.first, 12), id: 2, flags: 0)
        case 4: bench.driver.describe(5, Piece(.max, 12), id: 2, flags: 2)
        default: bench.driver.describe(6, Piece(Bench.first, 12), id: 2, flags: 3)
        }
        let isRead = device.queue.readOldest(2, .writable, into: &device.chain, in: &device.view)
        let isStillRight = change == 0 || change == 1 || (change == 5 && isIndirect)
        #expect(isRead == isStillRight, "\(isIndirect) \(change)")
        #expect((device.fault == nil) == isStillRight)
        if change == 1 && isRead { #expect(device.pieces[0] == range(Bench.second, 30)) }
      }
    }
  }

  @Test func `a random ring never makes the device read or write what is not the guest's, nor go on for ever`() throws {
    try withSeeds(400) { random in
      let bench = try PackedBench(size: random.int(1...9), first: random.int(0...20))
      var device = try bench.queue(random.once(in: 4) ? [.version1] : PackedBench.usual)
      let first = bench.driver.offered
      for n in 0..<bench.driver.size {
        let address = random.pick([Bench.first, Bench.first + 0x800, Bench.second - 64, Bench.third, 0, random.next()])
        let count = UInt32(random.pick([0, 1, 12, 16, 32, 64, 1530, 65536, Int(UInt32.max)]))
        bench.driver.describe(
          first + n, Piece(address, count), id: UInt16.random(in: 0...(.max), using: &random),
          flags: random.pick([2, 2, 3, 3, 4, 1, 0, 6, 5, 7, 0xFFFF & ~0x8080]))
      }
      for table in [Bench.first + 0x800, Bench.second - 64] {
        for n in 0..<4 { bench.driver.describe(table: table, n, Piece(Bench.first + UInt64(n), 20, flags: random.pick([2, 2, 2, 0, 7]))) }
      }
      var taken = 0
      while let pieces = device.next(), taken < 100 {
        taken += 1
        for piece in pieces {
          try check(bench.memory.pieces(piece.start.rawValue, Int(piece.count))?.count, is: 1, "regions of \(piece)")
        }
        try check(pieces.reduce(0) { $0 + Int($1.count) } >= 12, "too small")
      }
      try check(taken <= bench.driver.size, "more buffers than descriptors")
      if let surprise = bench.memory.firstSurprise() { throw Mismatch(surprise) }
    }
  }
}
