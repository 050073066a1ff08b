import Bus
import NIC
import Simulation
import Testing

@testable import Intel

@Suite struct InitializationTests {
  @Test func `interrupts are masked before the reset and after it`() throws {
    let card = try Bench().card
    let reset = try #require(card.log.firstIndex { $0.offset == 0 && $0.value & 1 << 26 != 0 })
    #expect(card.log[reset].value & 0xC == 0xC, "a global reset, with the master disabled")
    let masks = card.positions(0x888)
    #expect(masks.first! < reset && masks.last! > reset)
    #expect(card.last(0x888) == 0x7FFF_FFFF && card.last(0xAB0) == .max && card.last(0xAB4) == .max)
  }

  @Test func `after a reset the driver waits ten milliseconds`() throws {
    // Nothing else in an undisturbed start waits.
    #expect(try Bench().clock.now >= 10_000_000)
  }

  @Test func `reception is not enabled by initialisation, and is enabled last`() throws {
    let bench = try Bench()
    #expect(bench.card.positions(0x3000).allSatisfy { bench.card.log[$0].value & 1 == 0 })
    var queue = try bench.device.makeReceiveQueue(0, ringSize: 64, bufferByteCount: 2048)
    try bench.device.start(&queue)
    try bench.device.enableReceive()
    let enable = bench.card.position(0x3000)
    #expect(bench.card.log[enable].value & 1 == 1)
    let halt = bench.card.positions(0x8D00)
    #expect(halt.count == 2 && halt[0] < enable && halt[1] > enable)
    #expect(bench.card.log[halt[0]].value == 2 && bench.card.log[halt[1]].value == 0)
    // After it only the data path's release and no-snoop.
    #expect(Set(bench.card.log[(enable + 1)...].map(\.offset)) == [0x8D00, 0x18])
    #expect(bench.card[0x18] & 1 << 16 != 0)
    try queue.quiesce()
  }

  @Test func `a queue is enabled with an empty ring, and its tail moves only afterwards`() throws {
    let bench = try Bench()
    var queue = try bench.device.makeReceiveQueue(3, ringSize: 64, bufferByteCount: 2048)
    // What an earlier run left: with it the card would fetch seven descriptors that nobody posted.
    bench.card.write(7, 0x10D8)
    bench.card.log = []
    try bench.device.start(&queue)
    let order = [0x10C0, 0x10C4, 0x10C8, 0x10D0, 0x10D8, 0x10D4, 0x10E8].map(bench.card.position)
    #expect(order == order.sorted() && order[0] >= 0)
    #expect(bench.card[0x10D0] == 0 && bench.card[0x10D8] == 0)
    queue.post(IOVA(0x1000))
    #expect(bench.card[0x10D8] == 0)
    queue.ring()
    #expect(bench.card[0x10D8] == 1)
    #expect(bench.card[0x10C8] == 64 * 16)
    // BSIZEPACKET 2 KiB, BSIZEHEADER 256 bytes, one-buffer advanced descriptors, Drop_En.
    #expect(bench.card[0x10D4] == 0x1200_0402)
    #expect(bench.card[0x10CC] == 0, "DCA_RXCTRL bit 12 is cleared")
    try queue.quiesce()
    #expect(bench.card[0x10E8] & 1 << 25 == 0)
  }

  @Test func `every table that lets frames in is cleared`() throws {
    let card = try Bench().card
    let tables: [(Int, Int, Int)] = [
      (0xA200, 8, 128), (0xA204, 8, 128), (0xA600, 4, 256), (0xF400, 4, 128), (0x5200, 4, 128), (0xA000, 4, 128),
      (0xF100, 4, 64), (0xF200, 4, 128), (0xF000, 4, 64), (0xE600, 4, 128), (0x5128, 4, 8), (0xEC00, 4, 8),
    ]
    for (base, stride, count) in tables {
      for n in 0..<count { #expect(card.last(base + stride * n) == 0, "0x\(String(base + stride * n, radix: 16))") }
    }
  }

  @Test func `the FCS is stripped in both places, and the frame limit holds for every MTU`() throws {
    for (mtu, kibibytes) in [(68, 1), (1006, 1), (1007, 2), (1500, 2), (2030, 2), (2031, 3), (9000, 9), (9710, 10)] {
      let bench = try Bench { $0.mtu = mtu }
      #expect(bench.card[0x4240] & 7 == 7, "TXCRCEN, RXCRCSTRP, JUMBOEN")
      #expect(bench.card[0x2F00] & 1 << 1 != 0)
      #expect(bench.card[0x4268] == UInt32(mtu + 18) << 16)
      #expect(bench.device.largestFrame == mtu + 18)
      var queue = try bench.device.makeReceiveQueue(0, ringSize: 8, bufferByteCount: mtu + 18)
      #expect(queue.requirements.largestFrame == mtu + 18)
      try bench.device.start(&queue)
      #expect(bench.card[0x1014] & 31 == UInt32(kibibytes), "MTU \(mtu)")
      try queue.quiesce()
    }
  }

  @Test func `receive DMA loses the defaults of coalescing`() throws {
    // DMAIDONE, CRCStrip, RSCACKC, FCOE_WRFIX; RSCFRSTSIZE was 8.
    #expect(try Bench().card[0x2F00] == 0x0600_000A)
  }

  @Test func `one guest is not virtualized`() throws {
    let card = try Bench().card
    #expect(card[0x51B0] == 0 && card[0xEC80] == 0 && card[0x8120] == 0)
    #expect(card[0x3C00] == 512 << 10 && card[0x3C04] == 0)
    #expect(card[0x3260] == 0x7A000, "512 KiB less 0x6000, in units of 32 bytes from bit 5")
    #expect(card[0xCC00] == 160 << 10 && card[0x4950] == 158)
    #expect(card[0x4A80] == 1 && card[0x8100] == 0xFFF)
  }

  @Test(arguments: [(2, 1, 0x8, 0x6), (64, 1, 0x8, 0x6), (40, 2, 0xB, 0x6), (32, 4, 0xA, 0xA)] as [(Int, Int, UInt32, UInt32)])
  func `guests get pools, and what nobody asked for is dropped`(pools: Int, queues: Int, mode: UInt32, transmit: UInt32) throws {
    let bench = try Bench {
      $0.poolCount = pools
      $0.queuesPerPool = queues
    }
    let card = bench.card
    // VT_Ena, Dis_Def_Pool, Rpl_En.
    #expect(card[0x51B0] == 0x6000_0001)
    #expect(card[0xEC80] & 0xF == mode && card[0x8120] == transmit)
    let mask: UInt64 = pools == 64 ? .max : 1 << UInt64(pools) - 1
    let halves = [UInt32(truncatingIfNeeded: mask), UInt32(mask >> 32)]
    #expect([card[0x51E0], card[0x51E4]] == halves && [card[0x8110], card[0x8114]] == halves)
    #expect(card[0xEA00] >> 29 == (queues == 4 ? 2 : queues == 2 ? 1 : 0))
    let last = (pools - 1) * (queues == 4 ? 4 : 2) + queues - 1
    #expect(bench.device.queueIndex(pool: pools - 1, queue: queues - 1) == last)
  }

  @Test func `the arbiter is held while transmit queues are laid out`() throws {
    let card = try Bench { $0.poolCount = 2 }.card
    let hold = card.positions(0x4900)
    let layout = card.position(0x8120)
    #expect(hold.count == 2 && hold[0] < layout && layout < hold[1])
    #expect(card.log[hold[0]].value == 1 << 6 && card.log[hold[1]].value == 0)
    #expect(card.position(0x4A80) > hold[1])
  }

  @Test func `queues left running by an earlier driver are stopped before the reset`() throws {
    let card = try FakeCard()
    card.write(1 << 25, 0x1028 + 0x40 * 5)
    card.write(1 << 25, 0xD028)
    card.write(1 << 25, 0x6028)
    card.log = []
    _ = try Bench(card)
    let reset = try #require(card.log.firstIndex { $0.offset == 0 && $0.value & 1 << 26 != 0 })
    for offset in [0x1028 + 0x40 * 5, 0xD028, 0x6028] {
      #expect(card.positions(offset).first.map { $0 < reset && card.log[$0].value == 0 } == true)
    }
  }

  @Test func `a master that does not stop is flushed and reset twice`() throws {
    let card = try FakeCard()
    card.stuck = [STATUS.offset(0)]
    _ = try Bench(card)
    #expect(card.log.count { $0.offset == 0 && $0.value & 1 << 26 != 0 } == 2)
    #expect(card.positions(0x11050).map { card.log[$0].value >> 30 & 1 } == [1, 0])
    #expect(card[0x4240] & 1 << 15 == 0)
  }

  @Test func `wrong configurations are refused with the numbers`() throws {
    func error(_ configure: (inout Ixgbe.Configuration) -> Void) -> IntelError? {
      do { _ = try Bench(nil, configure) } catch { return error as? IntelError }
      return nil
    }
    #expect(error { $0.mtu = 67 } == .mtu(67, allowed: 68...9710))
    #expect(error { $0.mtu = 9711 } == .mtu(9711, allowed: 68...9710))
    #expect(error { $0.poolCount = 65 } == .poolCount(65, allowed: 1...64))
    #expect(error { $0.poolCount = 33; $0.queuesPerPool = 4 } == .poolCount(33, allowed: 1...32))
    #expect(error { $0.poolCount = 2; $0.queuesPerPool = 3 } == .queuesPerPool(3))
    #expect(error { $0.queuesPerPool = 17 } == .queuesPerPool(17))
    #expect(error { $0.scalingKey = [1] } == .keyByteCount(1))
  }

  @Test func `queues are refused outside the card and for buffers that are too small`() throws {
    let bench = try Bench()
    func error(_ n: Int, _ size: Int, _ bytes: Int) -> IntelError? {
      do throws(IntelError) { _ = try bench.device.makeReceiveQueue(n, ringSize: size, bufferByteCount: bytes) } catch { return error }
      return nil
    }
    #expect(error(16, 64, 2048) == .queue(16, count: 16))
    #expect(error(0, 0, 2048) == .ringSize(0, allowed: 8...8192))
    #expect(error(0, 12, 2048) == .ringSize(12, allowed: 8...8192))
    #expect(error(0, 8200, 2048) == .ringSize(8200, allowed: 8...8192))
    #expect(error(0, 64, 1517) == .bufferTooSmall(needed: 1518, found: 1517))
    #expect(error(0, 64, 1518) == nil)
    #expect(bench.iommu.mappingCount == 0, "a ring leaves the bus with its queue")
  }

  @Test func `a register that sticks is named`() throws {
    func stuck(_ offset: Int, at value: UInt32 = 0) -> IntelError? {
      do {
        let card = try FakeCard()
        card.write(value, offset)
        card.stuck = [offset]
        _ = try Bench(card)
      } catch { return error as? IntelError }
      return nil
    }
    func name(_ error: IntelError?) -> String? {
      if case .register(let error) = error { "\(error.name) \(error.number)" } else { nil }
    }
    #expect(name(stuck(0x10010)) == "EEC 0")
    #expect(name(stuck(0xD028 + 0x40, at: 1 << 25)) == "RXDCTL 65")
    #expect(name(stuck(0x6028, at: 1 << 25)) == nil, "a transmit queue that does not stop is reset")

    let bench = try Bench()
    var queue = try bench.device.makeReceiveQueue(1, ringSize: 8, bufferByteCount: 2048)
    bench.card.stuck = [0x1068]
    let error = #expect(throws: IntelError.self) { try bench.device.start(&queue) }
    #expect(error?.description == "register RXDCTL[1] at 0x1068 still reads 0x0 after 10000 µs")
    bench.card.stuck = []
    try bench.device.start(&queue)
    bench.card.stuck = [0x1068]
    #expect(throws: RegisterError.self) { try queue.quiesce() }
    bench.card.stuck = []
    try queue.quiesce()
    bench.card.stuck = [SECRXSTAT.offset(0)]
    #expect(throws: IntelError.self) { try bench.device.enableReceive() }
  }

  @Test func `a card that is gone is said to be gone`() throws {
    let card = try FakeCard()
    card.isGone = true
    #expect(throws: IntelError.deviceGone) { try Bench(card) }
  }

  @Test func `a queue that the card runs already is not started again`() throws {
    let bench = try Bench()
    var first = try bench.device.makeReceiveQueue(0, ringSize: 8, bufferByteCount: 2048)
    var second = try bench.device.makeReceiveQueue(0, ringSize: 8, bufferByteCount: 2048)
    try bench.device.start(&first)
    #expect(throws: IntelError.queueInUse(0)) { try bench.device.start(&second) }
    try first.quiesce()
    try bench.device.start(&second)
    try second.quiesce()
  }

  @Test func `shutting down stops queues, the master and the card`() throws {
    let bench = try Bench()
    var queue = try bench.device.makeReceiveQueue(0, ringSize: 8, bufferByteCount: 2048)
    try bench.device.start(&queue)
    try bench.device.enableReceive()
    bench.card.log = []
    try bench.device.shutDown()
    let reset = try #require(bench.card.log.firstIndex { $0.offset == 0 && $0.value & 1 << 26 != 0 })
    #expect(bench.card.position(0x3000) < reset && bench.card.last(0x3000) == 0)
    #expect(bench.card.position(0x1028) < reset && bench.card.position(0x1028) >= 0)
    #expect(bench.card[0x18] & 1 << 28 == 0)
    try queue.quiesce()
  }

  @Test func `shutting down resets also where the data path does not empty`() throws {
    let bench = try Bench()
    bench.card.stuck = [SECRXSTAT.offset(0)]
    bench.card.log = []
    try bench.device.shutDown()
    #expect(bench.card.log.contains { $0.offset == 0 && $0.value & 1 << 26 != 0 })
  }
}
