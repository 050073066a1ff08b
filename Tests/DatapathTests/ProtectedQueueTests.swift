import Bus
import GuestMemory
import Linux
import NIC
import Support
import Testing

@testable import Datapath

/// What a card can reach at each moment, where pages are on the bus only while something in them is lent.
@Suite struct ProtectedQueueTests {
  private static let start: UInt64 = 1 << 30
  private let space = FakeAddressSpace()
  private let window: DMAWindow
  private let pages: LentPages

  init() throws {
    let region = MemoryRegion(at: GuestAddress(Self.start), mapping: try Mapping(anonymousBytes: 64 * 4096))
    window = try DMAWindow(number: 1, map: try MemoryMap([region]), in: space, isStrict: true)
    pages = try #require(window.pages)
  }
  private func address(_ offset: Int) -> IOVA { window.base + (Self.start + UInt64(offset)) }
  private var mapped: [UInt64] { space.entries.map { ($0.start - window.base.rawValue - Self.start) / 4096 }.sorted() }

  @Test func `a window maps nothing by itself`() {
    #expect(space.entries.isEmpty && pages.count == 0)
    #expect(!space.write([1], at: address(0)))
  }

  @Test func `a buffer's pages are mapped from its posting until it is handed out`() throws {
    let card = FakeCard(space: space, capacity: 16)
    var queue = ProtectedReceiveQueue(FakeQueue(card), pages)
    // In one page; over an edge; the same page as the first.
    for offset in [0, 4096 * 3 - 100, 2048] { queue.post(address(offset)) }
    queue.ring()
    #expect(mapped == [0, 2, 3])
    #expect(card.receive(Array(repeating: 7, count: 1518)) && card.receive(Array(repeating: 8, count: 60)))
    var room = queue.room
    #expect(room == 13)
    let first = queue.reap()
    // Both are back, and neither can be written any more but by the third, which shares the first one's page.
    #expect(first?.byteCount == 1518 && mapped == [0])
    #expect(!space.write([1], at: address(4096 * 3 - 100)))
    room = queue.room
    #expect(room == 14, "one is taken back, and not handed out")
    let (second, none) = (queue.reap(), queue.reap())
    room = queue.room
    #expect(second?.byteCount == 60 && none == nil && room == 15)
    #expect(card.receive([1, 2, 3]))
    let third = queue.reap()
    #expect(third?.byteCount == 3 && mapped == [])
    #expect(card.complaints.isEmpty && space.wrongUnmaps == 0)
  }

  @Test func `a page that is lent again before it was taken off stays`() {
    pages.lend(address(0), byteCount: 100)
    pages.giveBack(address(0), byteCount: 100)
    pages.lend(address(50), byteCount: 100)
    pages.flush()
    #expect(mapped == [0] && space.mapCalls == 1)
    pages.giveBack(address(50), byteCount: 100)
    #expect(mapped == [0], "until the flush")
    pages.flush()
    #expect(mapped == [])
  }

  @Test func `a queue that is stopped has nothing on the bus, and what had come is still handed out`() throws {
    for isGone in [false, true] {
      let card = FakeCard(space: space, capacity: 16)
      var queue = ProtectedReceiveQueue(FakeQueue(card), pages)
      for slot in 0..<8 { queue.post(address(4096 * slot)) }
      queue.ring()
      #expect(mapped == Array(0..<8))
      for count in 1...3 { #expect(card.receive(Array(repeating: 1, count: 100 + count))) }
      if isGone { queue.abandon() } else { try queue.quiesce() }
      #expect(mapped == [])
      var counts: [UInt32] = []
      while let completion = queue.reap() { counts.append(completion.byteCount) }
      #expect(counts == [101, 102, 103])
    }
  }

  @Test func `a frame that is sent is on the bus until the card has done with it`() throws {
    let card = FakeTransmitCard(space: space, capacity: 16)
    var queue = ProtectedTransmitQueue(FakeTransmitQueue(card), pages)
    queue.post(address(0), byteCount: 100, of: 200, isLast: false)
    queue.post(address(4096 * 5 + 4000), byteCount: 100, of: 200, isLast: true)
    queue.post(address(4096 * 9), byteCount: 60)
    queue.ring()
    #expect(mapped == [0, 5, 6, 9])
    card.send(1)
    let sent = queue.reap()
    #expect(sent == 1 && mapped == [9])
    try queue.quiesce()
    #expect(mapped == [])
  }

  @Test func `a page that cannot be mapped stays out of reach, and is asked for again`() {
    space.failingMap = space.mapCalls + 1
    pages.lend(address(0), byteCount: 10)
    #expect(mapped == [])
    pages.giveBack(address(0), byteCount: 10)
    pages.flush()
    pages.lend(address(0), byteCount: 10)
    #expect(mapped == [0])
  }

  @Test func `one that could not be mapped does not take the page from another that could`() {
    space.failingMap = space.mapCalls + 1
    pages.lend(address(0), byteCount: 10)
    pages.lend(address(100), byteCount: 10)
    #expect(mapped == [0])
    pages.giveBack(address(0), byteCount: 10)
    pages.flush()
    #expect(mapped == [0], "the second is lent still")
    pages.giveBack(address(100), byteCount: 10)
    pages.flush()
    #expect(mapped == [])
  }

  @Test func `what lies outside the guest's memory is never mapped`() {
    pages.lend(address(64 * 4096), byteCount: 4096)
    pages.lend(IOVA(0x10_0000), byteCount: 4096)
    pages.lend(address(63 * 4096 + 4000), byteCount: 200)
    #expect(mapped == [63])
    window.close()
    #expect(space.entries.isEmpty)
  }
}
