import Bus
import NIC
import Simulation
import Testing

@testable import Intel

/// Queues that are stopped in two steps: what each reads and writes, and how long it lets pass.
@Suite struct QuiesceTests {
  /// Counts what is read, and passes all on.
  private final class Counted: RegisterFile {
    let card: FakeCard
    var reads = 0
    init(_ card: FakeCard) { self.card = card }
    func read(_ offset: Int) -> UInt32 {
      reads += 1
      return card.read(offset)
    }
    func write(_ value: UInt32, _ offset: Int) { card.write(value, offset) }
    func doorbell(_ offset: Int) -> Doorbell { card.doorbell(offset) }
  }
  private let card: FakeCard
  private let registers: Counted
  private let iommu = SimulatedIOMMU()
  private let clock = SimulatedClock()
  private let allocator = IOVAAllocator()

  init() throws {
    card = try FakeCard()
    registers = Counted(card)
  }
  private func receiver() throws -> IntelReceiveQueue {
    var queue = IntelReceiveQueue(
      .ixgbe, number: 2, size: 8, largestFrame: 1518, descriptors: try DMABuffer(byteCount: 128, access: [.read, .write], in: iommu, allocator: allocator),
      reportsChecksum: true, dropsWhenEmpty: true, registers: registers, clock: clock)
    try queue.start()
    return queue
  }
  private func sender() throws -> IntelTransmitQueue {
    var queue = IntelTransmitQueue(
      .ixgbe, number: 2, size: 8, largestFrame: 1518, descriptors: try DMABuffer(byteCount: 128, access: [.read, .write], in: iommu, allocator: allocator),
      registers: registers, clock: clock)
    try queue.start()
    return queue
  }
  private var receiveControl: Int { FakeCard.receive(RXDCTL.self, 2) }
  private var transmitControl: Int { FakeCard.transmit(TXDCTL.self, 2) }
  private static let enable: UInt32 = 1 << 25

  @Test func `to begin is one write and no read, and a poll is one read at most`() throws {
    var queue = try receiver()
    let time = clock.now
    (registers.reads, card.log) = (0, [])
    queue.beginQuiesce()
    queue.beginQuiesce()
    #expect(registers.reads == 0 && card.log.map(\.offset) == [receiveControl] && card.log[0].value & Self.enable == 0)
    // ENABLE reads 0 at once here; buffers may be written for 100 µs more.
    var polls = 0
    while try !queue.pollQuiesce() {
      polls += 1
      #expect(registers.reads <= polls)
      clock.advance(by: 20_000)
    }
    #expect(polls >= 5 && clock.now - time >= 100_000 && registers.reads == 1 && card.log.count == 1)
    let isQuiet = try queue.pollQuiesce()
    #expect(isQuiet && registers.reads == 1)
    try queue.start()
    try queue.quiesce()
  }

  @Test func `what a queue was started with is left as it is but for ENABLE`() throws {
    card.write(1 << 30 | 5, receiveControl)
    var queue = try receiver()
    let started = card[receiveControl]
    queue.beginQuiesce()
    #expect(card[receiveControl] == started & ~Self.enable)
    try queue.quiesce()
  }

  @Test func `a queue that does not stop throws when its time is over, and is not waited for when it is let go`() throws {
    do {
      var queue = try receiver()
      card.stuck = [receiveControl]
      queue.beginQuiesce()
      for _ in 0..<100 {
        let isQuiet = try queue.pollQuiesce()
        #expect(!isQuiet)
        clock.advance(by: 999_999)
      }
      clock.advance(by: 1000)
      #expect(throws: RegisterError.self) { _ = try queue.pollQuiesce() }
      (registers.reads, card.log) = (0, [])
    }
    #expect(registers.reads == 0 && card.log.isEmpty, "it was asked again")
    do {
      card.stuck = []
      card.write(0, transmitControl)
      var queue = try sender()
      card.stuck = [transmitControl]
      #expect(throws: RegisterError.self) { try queue.quiesce() }
      (registers.reads, card.log) = (0, [])
    }
    #expect(registers.reads == 0 && card.log.isEmpty, "it was asked again")
  }

  @Test func `one that failed to stop can be stopped again, or be abandoned`() throws {
    var queue = try receiver()
    card.stuck = [receiveControl]
    #expect(throws: RegisterError.self) { try queue.quiesce() }
    queue.beginQuiesce()
    card.stuck = []
    card.write(0, receiveControl)
    try queue.quiesce()
    try queue.start()
    card.stuck = [receiveControl]
    #expect(throws: RegisterError.self) { try queue.quiesce() }
    queue.abandon()
    let isQuiet = try queue.pollQuiesce()
    #expect(isQuiet)
  }

  @Test func `a card that is gone has not stopped, whatever its registers say`() throws {
    var queue = try receiver()
    card.isGone = true
    queue.beginQuiesce()
    for _ in 0..<10 {
      let isQuiet = try queue.pollQuiesce()
      #expect(!isQuiet)
    }
    clock.advance(by: 100_000_000)
    #expect(throws: RegisterError.self) { _ = try queue.pollQuiesce() }
  }

  @Test func `a transmit queue is given 10 ms to send what was posted, and then disabled`() throws {
    for isSent in [true, false] {
      var queue = try sender()
      let (head, tail) = (FakeCard.transmit(TDH.self, 2), FakeCard.transmit(TDT.self, 2))
      card.write(isSent ? 3 : 0, head)
      card.write(3, tail)
      let time = clock.now
      (registers.reads, card.log) = (0, [])
      queue.beginQuiesce()
      #expect(registers.reads == 0 && card.log.isEmpty)
      var polls = 0
      while try !queue.pollQuiesce() {
        polls += 1
        #expect(registers.reads <= polls)
        clock.advance(by: 20_000)
      }
      #expect(card.log.map(\.offset) == [transmitControl])
      #expect(isSent ? clock.now - time < 1_000_000 : clock.now - time >= 10_000_000)
    }
  }
}

/// The mailbox of a virtual function, whose other side may be slow on purpose.
@Suite struct MailboxLimitTests {
  /// Grants the words, after so many looks; answers nothing more.
  private final class Slow: RegisterFile {
    let clock: SimulatedClock
    let acknowledges: Bool
    init(_ clock: SimulatedClock, acknowledges: Bool) { (self.clock, self.acknowledges) = (clock, acknowledges) }
    func read(_ offset: Int) -> UInt32 {
      guard offset == 0x00C40 else { return 0 }
      // Ours after 400 ms; an acknowledgement after 450 ms.
      return (clock.now >= 400_000_000 ? 1 << 2 : 0) | (acknowledges && clock.now >= 450_000_000 ? 1 << 5 : 0)
    }
    func write(_ value: UInt32, _ offset: Int) {}
    func doorbell(_ offset: Int) -> Doorbell { preconditionFailure("none here") }
  }

  @Test(arguments: [false, true]) func `an exchange ends within its limit, however its waits are spread`(acknowledges: Bool) {
    let clock = SimulatedClock()
    let mailbox = IgbMailbox(Slow(clock, acknowledges: acknowledges), clock)
    #expect(throws: IntelError.self) { try mailbox.ask(.setLargestFrame(1518)) }
    #expect(clock.now >= IgbMailbox.exchangeLimit && clock.now <= IgbMailbox.exchangeLimit + 1_000_000)
  }
}
