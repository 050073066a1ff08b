import Bus
import Testing

@testable import Simulation

/// Each knob of `CardFaults` has the effect that it names, and no other.
@Suite struct ConformanceFaultTests {
  private func faults(_ change: (inout CardFaults) -> Void) -> CardFaults {
    var faults = CardFaults.none
    change(&faults)
    return faults
  }
  private let frame = WirePacket.udp4(data: [UInt8](repeating: 0x31, count: 100))

  @Test func `the times are those that were asked for, to the nanosecond`() throws {
    let clock = SimulatedClock()
    let card = SimulatedCard(
      dma: SimulatedIOMMU(), clock: clock,
      faults: faults {
        $0.resetTime = 7_000
        $0.initialisationTime = 90_000
        $0.linkUpDelay = 300_000
        $0.masterDisableLatency = 4_000
        $0.enableLatency = 2_000
        $0.disableLatency = 3_000
        $0.flowDirectorInitialisationTime = 5_000
      })
    func happens(after time: UInt64, _ isSo: () -> Bool, line: Int = #line) {
      clock.pause(nanoseconds: time - 1)
      #expect(!isSo(), "line \(line)")
      clock.pause(nanoseconds: 1)
      #expect(isSo(), "line \(line)")
    }
    card.write(1 << 26, 0)
    happens(after: 7_000) { card.read(0) & 1 << 26 == 0 }
    happens(after: 83_000) { card.read(0x10010) & 1 << 9 != 0 && card.read(0x2F00) & 8 != 0 }
    happens(after: 210_000) { card.read(0x42A4) & 1 << 30 != 0 }
    card.write(128, 0x1008)
    card.write(2 | 1 << 25, 0x1014)
    card.write(1 << 25, 0x1028)
    happens(after: 2_000) { card.read(0x1028) & 1 << 25 != 0 }
    card.write(0, 0x1028)
    happens(after: 3_000) { card.read(0x1028) & 1 << 25 == 0 }
    card.write(0x7F31, 0xEE00)
    happens(after: 5_000) { card.read(0xEE00) & 8 != 0 }
    card.write(4, 0)
    happens(after: 4_000) { card.read(8) & 1 << 19 == 0 }
  }

  @Test func `a reset that never completes keeps CTRL.RST`() throws {
    let clock = SimulatedClock()
    let card = SimulatedCard(dma: SimulatedIOMMU(), clock: clock, faults: faults { $0.resetNeverCompletes = true })
    card.write(1 << 26, 0)
    clock.pause(nanoseconds: 60_000_000_000)
    #expect(card.read(0) & 1 << 26 != 0)
  }

  @Test func `a queue that never enables, and one that never disables`() throws {
    let never = try ConformanceBench(faults: faults { $0.neverEnables = true })
    never.clock.pause(nanoseconds: 60_000_000_000)
    #expect(never.card.read(0x1028) & 1 << 25 == 0)
    #expect(never.receive(frame) == .dropped(.queueDisabled, queue: 0))
    never.startTransmit()
    #expect(never.card.read(0x6028) & 1 << 25 == 0)
    let always = try ConformanceBench(faults: faults { $0.neverDisables = true })
    always.startTransmit()
    for at in [0x1028, 0x6028] {
      always.clear(at, 1 << 25)
      always.clock.pause(nanoseconds: 60_000_000_000)
      #expect(always.card.read(at) & 1 << 25 != 0)
    }
  }

  @Test func `a link that never comes, and one that goes and returns`() throws {
    let never = try ConformanceBench(faults: faults { $0.linkNeverComes = true })
    never.clock.pause(nanoseconds: 60_000_000_000)
    #expect(never.card.read(0x42A4) & 1 << 30 == 0)
    #expect(never.receive(frame) == .dropped(.linkDown, queue: nil))
    let flapping = try ConformanceBench(
      faults: faults {
        $0.linkDownAt = 20_000_000
        $0.linkDownFor = 5_000
      })
    #expect(flapping.receive(frame) == .delivered(queue: 0))
    flapping.clock.now = 19_999_999
    #expect(flapping.receive(frame) == .delivered(queue: 0))
    flapping.clock.now = 20_000_000
    #expect(flapping.card.read(0x42A4) & 1 << 30 == 0)
    #expect(flapping.receive(frame) == .dropped(.linkDown, queue: nil))
    flapping.clock.now = 20_005_000
    #expect(flapping.card.read(0x42A4) & 1 << 30 != 0)
    #expect(flapping.receive(frame) == .delivered(queue: 0))
    let gone = try ConformanceBench(faults: faults { $0.linkDownAt = 20_000_000 })
    gone.clock.now = 60_000_000_000
    // Not even the link's restart brings it back.
    gone.set(0x42A0, 1 << 12)
    gone.clock.pause(nanoseconds: 10_000_000)
    #expect(!gone.card.isLinkUp)
  }

  @Test func `frames are delivered while a queue is being disabled, and not a nanosecond longer`() throws {
    let bench = try ConformanceBench(faults: faults { $0.deliversWhileDisabling = true })
    bench.clear(0x1028, 1 << 25)
    bench.clock.pause(nanoseconds: 9_999)
    #expect(bench.receive(frame) == .delivered(queue: 0))
    #expect(bench.take(0).bytes == frame)
    bench.clock.pause(nanoseconds: 1)
    #expect(bench.card.read(0x1028) & 1 << 25 == 0)
    #expect(bench.receive(frame) == .dropped(.queueDisabled, queue: 0))
  }

  @Test func `late DMA comes at its time after ENABLE reads 0, once, into the next buffer and its descriptor`() throws {
    let bench = try ConformanceBench(faults: faults { $0.lateDMAAfterDisable = 90_000 })
    #expect(bench.receive(frame) == .delivered(queue: 0))
    let before = bench.snapshot()
    bench.clear(0x1028, 1 << 25)
    bench.clock.pause(nanoseconds: 10_000 + 90_000 - 1)
    #expect(bench.card.read(0x1028) & 1 << 25 == 0)
    #expect(bench.snapshot() == before)
    bench.clock.pause(nanoseconds: 1)
    _ = bench.take(0)
    let late = bench.take(0)
    #expect(late.isDone && late.isEnd)
    #expect(late.bytes == [UInt8](repeating: 0xA5, count: 60))
    let after = bench.snapshot()
    bench.clock.pause(nanoseconds: 10_000_000)
    #expect(bench.snapshot() == after)
  }

  @Test func `late DMA into memory that is no longer mapped is a fault, and writes nothing`() throws {
    let bench = try ConformanceBench(faults: faults { $0.lateDMAAfterDisable = 90_000 })
    bench.clear(0x1028, 1 << 25)
    bench.clock.pause(nanoseconds: 50_000)
    try bench.dma.unmap(IOVA(ConformanceBench.iova), byteCount: ConformanceBench.byteCount)
    let before = bench.snapshot()
    bench.clock.pause(nanoseconds: 60_000)
    #expect(bench.snapshot() == before)
    #expect(bench.dma.faults.map(\.address) == [IOVA(ConformanceBench.iova + UInt64(bench.buffer(0, 0)))])
  }

  @Test func `write-backs come by the batch, or when the delay is over`() throws {
    let bench = try ConformanceBench(
      faults: faults {
        $0.writeBackBatch = 4
        $0.writeBackDelay = 30_000
      })
    func done() -> [Bool] { (0..<6).map { bench.load(bench.ring(0) + $0 * 16 + 8) & 1 != 0 } }
    for _ in 0..<3 { #expect(bench.receive(frame) == .delivered(queue: 0)) }
    #expect(done() == [false, false, false, false, false, false])
    #expect(bench.receive(frame) == .delivered(queue: 0))
    #expect(done() == [true, true, true, true, false, false])
    #expect(bench.receive(frame) == .delivered(queue: 0))
    bench.clock.pause(nanoseconds: 29_999)
    #expect(done() == [true, true, true, true, false, false])
    bench.clock.pause(nanoseconds: 1)
    #expect(done() == [true, true, true, true, true, false])
    // A queue that is disabled writes back what it holds first.
    #expect(bench.receive(frame) == .delivered(queue: 0))
    bench.clear(0x1028, 1 << 25)
    bench.clock.pause(nanoseconds: 10_000)
    #expect(done() == [true, true, true, true, true, true])
  }

  @Test func `out of order: the second of a pair is there while the first is not, until the delay is over`() throws {
    let bench = try ConformanceBench(faults: faults { $0.writesBackOutOfOrder = true })
    func done() -> [Bool] { (0..<5).map { bench.load(bench.ring(0) + $0 * 16 + 8) & 1 != 0 } }
    #expect(bench.receive(frame) == .delivered(queue: 0))
    #expect(done() == [false, false, false, false, false])
    #expect(bench.receive(frame) == .delivered(queue: 0))
    #expect(done() == [false, true, false, false, false])
    bench.clock.pause(nanoseconds: 10_000)
    #expect(done() == [true, true, false, false, false])
    // The next pair brings the first of the one before.
    for _ in 0..<2 { #expect(bench.receive(frame) == .delivered(queue: 0)) }
    #expect(done() == [true, true, false, true, false])
    #expect(bench.receive(frame) == .delivered(queue: 0))
    bench.clock.pause(nanoseconds: 20_000)
    #expect(done() == [true, true, true, true, true])
    for _ in 0..<5 { #expect(bench.take(0).bytes == frame) }
  }

  @Test func `a wrong length is wrong by as much as was asked, every so often, and the bytes are right`() throws {
    let bench = try ConformanceBench(
      faults: faults {
        $0.lengthError = -3
        $0.lengthErrorEvery = 3
      })
    let lengths = try (0..<6).map { _ in
      try #require(bench.receive(frame) == .delivered(queue: 0))
      return bench.take(0).length
    }
    #expect(lengths == [0, 0, -3, 0, 0, -3].map { frame.count + $0 })
    #expect(bench.bytes(bench.buffer(2, 0), frame.count) == frame)
  }

  @Test func `a card that has left the bus reads all ones everywhere, and neither reads nor writes memory`() throws {
    let bench = try ConformanceBench(faults: faults { $0.lateDMAAfterDisable = 1_000 })
    bench.startTransmit()
    #expect(bench.receive(frame) == .delivered(queue: 0))
    bench.postTransmit(pieces: [frame])
    bench.ringTransmit()
    bench.clear(0x1028, 1 << 25)
    let vectors = Counter()
    bench.card.onInterrupt = { _ in vectors.count += 1 }
    let before = bench.snapshot()
    let (hits, misses) = (bench.dma.hits, bench.dma.misses)
    bench.card.remove()
    for at in stride(from: 0, to: SimulatedCard.barByteCount, by: 4) {
      if bench.card.read(at) != .max { Issue.record("register \(at)") }
    }
    bench.card.write(1 << 26, 0)
    bench.card.doorbell(0x1018).ring(3)
    for _ in 0..<3 {
      #expect(bench.receive(frame) == .dropped(.removed, queue: nil))
      bench.clock.pause(nanoseconds: 1_000_000)
    }
    #expect(bench.card.transmit(budget: 8, to: TransmitWire(.drop)) == 0)
    #expect(bench.snapshot() == before)
    #expect(bench.dma.hits == hits && bench.dma.misses == misses)
    #expect(vectors.count == 0)
    #expect(bench.card.isRemoved)
  }
  private final class Counter { var count = 0 }

  @Test func `a card that leaves in the middle of a frame writes no further piece of it, and no further copy`() throws {
    let bench = try ConformanceBench(faults: faults { $0.removedAfterDescriptors = 2 }, bufferKiB: 1)
    bench.set(0x4240, 4)
    bench.card.write(9728 << 16, 0x4268)
    #expect(bench.receive(WirePacket.udp4(data: [UInt8](repeating: 1, count: 3000))) == .dropped(.removed, queue: 0))
    #expect(bench.take(0).isDone)
    #expect(bench.take(0).isDone)
    #expect(!bench.take(0).isDone)
    #expect(bench.bytes(bench.buffer(2, 0), 64) == [UInt8](repeating: 0, count: 64))
    let pools = try ConformanceBench(faults: faults { $0.removedAfterDescriptors = 2 }, queues: [0, 2, 4])
    pools.startPools()
    pools.set(0x5080, 1 << 10)
    for pool in 0..<3 { pools.card.write(1 << 27, 0xF000 + 4 * pool) }
    let broadcast = WirePacket.udp4(mac: [UInt8](repeating: 0xFF, count: 6))
    #expect(pools.receive(broadcast) == .replicated(delivered: 0b11, dropped: 0b100, queueInPool: 0))
    #expect(!pools.take(4).isDone)
    #expect(pools.card.read(8) == .max)
  }
}
