import Testing

@testable import Intel

@Suite struct StatisticsTests {
  @Test func `counters that are cleared by reading add up`() throws {
    let bench = try Bench()
    bench.card.counters = [0x4074: 10, 0x3FA0: 1, 0x3FBC: 2, 0x40AC: 4, 0x1430: 5, 0x1030 + 0x40 * 15: 9]
    let first = bench.device.readStatistics()
    #expect(first.receivedFrames == 10 && first.missedFrames == 3 && first.oversized == 4)
    #expect(first.queues[0].droppedFrames == 5 && first.queues[15].receivedFrames == 9)
    #expect(bench.device.readStatistics() == first, "read once, counted once")
    bench.card.counters = [0x4074: .max]
    #expect(bench.device.readStatistics().receivedFrames == 10 + 0xFFFF_FFFF)
  }

  @Test func `byte counters have 36 bits`() throws {
    let bench = try Bench()
    bench.card.counters = [0x4088: 0xFFFF_FFFF, 0x408C: 0xFFFF_FFF3, 0x1034: 1, 0x1038: 1]
    let statistics = bench.device.readStatistics()
    #expect(statistics.receivedBytes == 0x3_FFFF_FFFF)
    #expect(statistics.queues[0].receivedBytes == 0x1_0000_0001)
  }

  @Test func `what was counted before the reset is not`() throws {
    let card = try FakeCard()
    card.counters = [0x4074: 99, 0x1430: 7]
    let bench = try Bench(card)
    #expect(bench.device.readStatistics() == IxgbeStatistics())
  }

  @Test func `queues are mapped to counters by their pool`() throws {
    let plain = try Bench().card
    #expect(plain[0x2300] == 0x0302_0100 && plain[0x230C] == 0x0F0E_0D0C && plain[0x2310] == 0x0302_0100)
    let pools = try Bench { $0.poolCount = 20 }.card
    #expect(pools[0x2300] == 0x0101_0000 && pools[0x8600] == 0x0101_0000)
    #expect(pools[0x231C] == 0x0F0F_0E0E && pools[0x2320] == 0x0101_0000)
    let four = try Bench { $0.poolCount = 20; $0.queuesPerPool = 4 }.card
    #expect(four[0x2300] == 0 && four[0x2304] == 0x0101_0101)
  }

  @Test func `the link tells its speed while it is up`() throws {
    let bench = try Bench()
    #expect(bench.device.link == CardLink(isUp: false, megabits: 0))
    bench.card.write(1 << 30 | 3 << 28, 0x42A4)
    #expect(bench.device.link == CardLink(isUp: true, megabits: 10_000))
    bench.card.write(3 << 28, 0x42A4)
    #expect(bench.device.link.megabits == 0)
    #expect(throws: IntelError.self) { try bench.device.waitForLink(within: .milliseconds(1)) }
  }
}
