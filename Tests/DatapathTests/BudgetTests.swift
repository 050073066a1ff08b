import Bus
@testable import Datapath
import GuestMemory
import NIC
import Support
import Testing
import Virtio

/// How many descriptors one poll walks, whatever frames there are: the rest is the next poll's.
@Suite struct BudgetTests {
  private static let budget = ReceiveCore.descriptorBudget
  private static let size = 4096

  private func memory() throws -> PlainMemory {
    var random = SeededGenerator(seed: 5)
    return try PlainMemory([(0x10_0000, 0x4_0000), (0x20_0000, 0x2_0000), (0x30_0000, 0x1_0000), (0x40_0000, 0x1_0000)], &random)
  }
  private var layout: RingLayout {
    RingLayout(
      size: Self.size, descriptorArea: GuestAddress(0x10_0000), driverArea: GuestAddress(0x10_0000 + 16 * UInt64(Self.size)),
      deviceArea: GuestAddress(0x10_0000 + 18 * UInt64(Self.size) + 8))
  }

  /// Offers `count` buffers, all by one table of so many entries, which lie in two regions in turn.
  private func offer(_ count: Int, descriptors: Int, bytes: UInt32, flags: UInt16, _ driver: PlainDriver) {
    let table: UInt64 = 0x20_0000
    for n in 0..<descriptors {
      driver.describe(
        n, n % 2 == 0 ? 0x30_0000 : 0x40_0000, bytes, flags: n + 1 < descriptors ? flags | PlainDriver.next : flags, next: UInt16(n + 1),
        table: table)
    }
    for head in 0..<count {
      driver.describe(head, table, UInt32(16 * descriptors), flags: PlainDriver.indirect)
      driver.offer(UInt16(head))
    }
  }

  private func transmitPath(_ memory: PlainMemory, _ card: FakeTransmitCard) throws -> TransmitPath<FakeTransmitQueue> {
    let space = card.space
    let window = try DMAWindow(number: 1, map: memory.map, in: space)
    var view = MemoryView(memory.map)
    let queue = try Virtqueue(layout, features: [.version1, .indirectDescriptors], base: RingBase(split: 0), in: &view)
    return TransmitPath(
      virtqueue: queue, window: window,
      parts: try TransmitParts(queue: FakeTransmitQueue(card), space: space, allocator: IOVAAllocator(), bounceBuffers: 512))
  }

  @Test(arguments: [1, 2, 100, 256, 257, 1024])
  func `a transmit poll walks its budget of descriptors and ends, the next goes on, and every frame is sent once`(descriptors: Int) throws {
    let memory = try memory()
    let driver = PlainDriver(SplitRingLayout(layout), in: memory)
    let count = 64
    offer(count, descriptors: descriptors, bytes: descriptors == 1 ? 112 : descriptors == 2 ? 56 : 1, flags: 0, driver)
    let card = FakeTransmitCard(space: FakeAddressSpace(), capacity: 512)
    var path = try transmitPath(memory, card)
    // Of what is copied each descriptor counts twice; of what lies in up to 16 pieces none is copied.
    let each = descriptors > 16 ? 2 * descriptors : descriptors
    var polls = 0
    while driver.usedIndex < UInt16(count), polls < 1000 {
      let before = path.core.ledger.tail
      _ = path.turn()
      card.send()
      let taken = Int(path.core.ledger.tail - before)
      // At least one frame, and none once the budget is used up.
      #expect(taken == 0 || (taken - 1) * each < Self.budget, "\(taken) frames of \(descriptors)")
      polls += 1
    }
    #expect(Int(driver.usedIndex) == count && card.sent.count + Int(path.counters.droppedFrames) == count)
    #expect(path.stopReason == nil)
    #expect(polls >= count * each / (Self.budget + each))
    #expect((path.counters.cutPolls > 0) == (count * each > Self.budget))
  }

  private func receivePath(_ memory: PlainMemory, _ card: FakeCard, _ features: Features) throws -> ReceivePath<FakeQueue> {
    let window = try DMAWindow(number: 1, map: memory.map, in: card.space)
    return try ReceivePath(
      layout: layout, features: features, base: RingBase(split: 0), window: window, queue: FakeQueue(card), space: card.space,
      allocator: IOVAAllocator())
  }

  @Test(arguments: [100, 256, 1024])
  func `a receive poll takes buffers up to its budget of descriptors, and fills them up to it`(descriptors: Int) throws {
    let memory = try memory()
    let driver = PlainDriver(SplitRingLayout(layout), in: memory)
    let count = 40
    // Each takes a frame, and none can be lent: its pieces do not follow one another.
    offer(count, descriptors: descriptors, bytes: UInt32((1530 + descriptors - 1) / descriptors), flags: PlainDriver.write, driver)
    let card = FakeCard(space: FakeAddressSpace(), capacity: 64, largestFrame: 1518)
    var path = try receivePath(memory, card, [.version1, .indirectDescriptors])
    var polls = 0
    while path.outstandingBuffers < count, polls < 1000 {
      let before = path.outstandingBuffers
      _ = path.turn()
      let taken = path.outstandingBuffers - before
      #expect(taken >= 1 && (taken - 1) * descriptors < Self.budget)
      polls += 1
    }
    #expect(path.outstandingBuffers == count && path.counters.cutPolls > 0)
    for n in 0..<count { _ = card.receive([UInt8](repeating: UInt8(n), count: 60), flags: [.isEnd]) }
    polls = 0
    while driver.usedIndex < UInt16(count), polls < 1000 {
      let before = driver.usedIndex
      _ = path.turn()
      let filled = Int(driver.usedIndex - before)
      #expect(filled >= 1 && (filled - 1) * descriptors < Self.budget)
      polls += 1
    }
    #expect(path.counters.deliveredFrames == UInt64(count) && path.stopReason == nil)
  }

  @Test func `a frame that is spread over more than 1,024 descriptors of many buffers stops its ring`() throws {
    let memory = try memory()
    let driver = PlainDriver(SplitRingLayout(layout), in: memory)
    // 12 bytes in two pieces and 18 empty ones each: the largest frame takes 128 of these, which is 2,560 descriptors.
    let table: UInt64 = 0x20_0000
    for n in 0..<20 {
      driver.describe(
        n, n % 2 == 0 ? 0x30_0000 : 0x40_0000, n < 2 ? 6 : 0, flags: n < 19 ? PlainDriver.write | PlainDriver.next : PlainDriver.write,
        next: UInt16(n + 1), table: table)
    }
    for head in 0..<256 {
      driver.describe(head, table, 320, flags: PlainDriver.indirect)
      driver.offer(UInt16(head))
    }
    let card = FakeCard(space: FakeAddressSpace(), capacity: 64, largestFrame: 1518)
    var path = try receivePath(memory, card, [.version1, .indirectDescriptors, .mergeableBuffers])
    for _ in 0..<40 { _ = path.turn() }
    #expect(card.posted.count == 2)
    // 600 bytes are 51 buffers, and 1,020 descriptors.
    _ = card.receive([UInt8](repeating: 7, count: 600), flags: [.isEnd])
    _ = path.turn()
    #expect(path.stopReason == nil && driver.usedIndex == 51 && path.counters.deliveredFrames == 1)
    _ = card.receive([UInt8](repeating: 7, count: 601), flags: [.isEnd])
    _ = path.turn()
    #expect(path.stopReason == .virtqueue(.chainTooLong(head: 51)))
    #expect(driver.usedIndex == 51 && path.counters.dropped(.ringViolation) == 1)
  }
}
