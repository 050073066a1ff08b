import Bus
import GuestMemory
import Linux
import NIC
import Support
import Testing

@testable import Datapath

private final class Counter: Sendable {
  private let count = Mutex(0)
  func add() { count.withLock { $0 += 1 } }
  var value: Int { count.withLock { $0 } }
}

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
    for offset in [0, 4096 * 3 - 100, 2048] {
      let isPosted = queue.post(address(offset))
      #expect(isPosted)
    }
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
    #expect(pages.lend(address(0), byteCount: 100))
    pages.giveBack(address(0), byteCount: 100)
    #expect(pages.lend(address(50), byteCount: 100))
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
      for slot in 0..<8 { _ = queue.post(address(4096 * slot)) }
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
    _ = queue.post(address(0), byteCount: 100, of: 200, isLast: false)
    #expect(card.posted.isEmpty, "the card has nothing of a frame that is not whole")
    _ = queue.post(address(4096 * 5 + 4000), byteCount: 100, of: 200, isLast: true)
    _ = queue.post(address(4096 * 9), byteCount: 60)
    queue.ring()
    #expect(mapped == [0, 5, 6, 9])
    card.send(1)
    let sent = queue.reap()
    #expect(sent == 1 && mapped == [9])
    try queue.quiesce()
    #expect(mapped == [])
  }

  // MARK: A page that cannot be mapped

  @Test func `a page that cannot be mapped is not lent, and is asked for again`() {
    space.failingMap = space.mapCalls + 1
    #expect(!pages.lend(address(0), byteCount: 10))
    #expect(mapped == [])
    #expect(pages.lend(address(0), byteCount: 10))
    #expect(mapped == [0])
  }

  @Test(arguments: 1...4) func `all pages of a buffer are mapped, or none but what others have`(n: Int) {
    #expect(pages.lend(address(4096 + 100), byteCount: 10))
    space.failingMap = space.mapCalls + n
    let isLent = pages.lend(address(100), byteCount: 3 * 4096)
    #expect(isLent == (n == 4) && mapped == (isLent ? [0, 1, 2, 3] : [1]))
    pages.giveBack(address(4096 + 100), byteCount: 10)
    pages.flush()
    #expect(mapped == (isLent ? [0, 1, 2, 3] : []))
  }

  @Test func `what lies outside the guest's memory is never mapped`() throws {
    #expect(!pages.lend(address(64 * 4096), byteCount: 4096))
    #expect(!pages.lend(address(63 * 4096 + 4000), byteCount: 200))
    #expect(pages.lend(IOVA(0x10_0000), byteCount: 4096), "our own is reached anyway")
    #expect(mapped == [])
    #expect(pages.lend(address(63 * 4096 + 4000), byteCount: 96))
    #expect(mapped == [63])
    pages.close()
    try window.close()
    #expect(space.entries.isEmpty)
    #expect(!pages.lend(address(0), byteCount: 1))
  }

  @Test func `a buffer that is refused takes no slot, and those behind it are posted`() throws {
    for many in [false, true] {
      let card = FakeCard(space: space, capacity: 8)
      var queue = ProtectedReceiveQueue(FakeQueue(card), pages)
      space.failingMap = space.mapCalls + 2
      var answers: [Bool] = []
      for slot in 0..<3 {
        if many {
          let run = queue.posting(1)
          let isPosted = run.post(address(4096 * slot), at: 0)
          queue.advance(posted: isPosted ? 1 : 0)
          answers.append(isPosted)
        } else {
          answers.append(queue.post(address(4096 * slot)))
        }
      }
      queue.ring()
      let room = queue.room
      #expect(answers == [true, false, true] && room == 6)
      #expect(card.posted == [address(0), address(8192)] && mapped == [0, 2])
      #expect(card.receive([1, 2, 3]) && card.receive([1, 2]))
      let counts = [queue.reap()?.byteCount, queue.reap()?.byteCount, queue.reap()?.byteCount]
      #expect(counts == [3, 2, nil] && mapped == [])
    }
  }

  @Test(arguments: 1...3) func `a frame with a piece that is refused is not posted at all`(n: Int) throws {
    let card = FakeTransmitCard(space: space, capacity: 8)
    var queue = ProtectedTransmitQueue(FakeTransmitQueue(card), pages)
    space.failingMap = space.mapCalls + n
    var answers: [Bool] = []
    for piece in 0..<3 where answers.last != false {
      answers.append(queue.post(address(4096 * piece), byteCount: 100, of: 300, isLast: piece == 2))
    }
    let room = queue.room
    #expect(answers.count == n && answers.last == false && room == 8 && mapped == [] && card.posted.isEmpty)
    let isPosted = queue.post(address(4096), byteCount: 60)
    queue.ring()
    card.send()
    let sent = queue.reap()
    #expect(isPosted && sent == 1 && mapped == [] && card.complaints.isEmpty)
  }

  // MARK: A page that cannot be unmapped

  @Test func `what the card may still write to is not handed out, and its memory is kept`() throws {
    for way in ["reap", "many", "quiesce", "abandon"] {
      let space = FakeAddressSpace()
      var stops = 0
      let counter = Counter()
      space.unmapFailures.onFirst { counter.add() }
      weak var region: MemoryRegion?
      do {
        let memory = MemoryRegion(at: GuestAddress(Self.start), mapping: try Mapping(anonymousBytes: 64 * 4096))
        region = memory
        let window = try DMAWindow(number: 1, map: try MemoryMap([memory]), in: space, isStrict: true)
        let pages = try #require(window.pages)
        let card = FakeCard(space: space, capacity: 16)
        var queue = ProtectedReceiveQueue(FakeQueue(card), pages)
        for slot in 0..<4 { _ = queue.post(address(4096 * slot)) }
        queue.ring()
        for count in 1...3 { #expect(card.receive(Array(repeating: 1, count: 100 + count))) }
        space.failingUnmap = 2
        switch way {
        case "reap":
          let none = (queue.reap(), queue.reap())
          #expect(none == (nil, nil), "\(way)")
        case "many":
          let count = queue.reaping(16).count
          #expect(count == 0, "\(way)")
        case "quiesce": try queue.quiesce()
        default: queue.abandon()
        }
        let (place, isPosted) = (queue.unmapFailure, queue.post(address(4096 * 9)))
        #expect(place.map { $0 >= address(0) && $0 < address(4 * 4096) } == true && !isPosted, "\(way)")
        stops = counter.value
        if way == "reap" || way == "many" { try queue.quiesce() }
        // Now they can be counted.
        var counts: [UInt32] = []
        while let completion = queue.reap() { counts.append(completion.byteCount) }
        #expect(counts == [101, 102, 103], "\(way)")
        #expect(pages.count == 1 && space.entries.count == 1 && space.unmapFailures.count == 1, "\(way)")
        pages.close()
        #expect(throws: IOAddressSpaceError.self, "\(way)") { try window.close() }
      }
      #expect(stops == 1 && region != nil && space.entries.count == 1, "\(way)")
    }
  }

  @Test func `what the card may still read is not given back, and is counted when it has stopped`() throws {
    let card = FakeTransmitCard(space: space, capacity: 16)
    var queue = ProtectedTransmitQueue(FakeTransmitQueue(card), pages)
    for slot in 0..<3 { _ = queue.post(address(4096 * slot), byteCount: 60) }
    queue.ring()
    card.send(2)
    space.failingUnmap = space.unmapCalls + 1
    let (first, second) = (queue.reap(), queue.reap())
    #expect(first == 0 && second == 0 && queue.unmapFailure != nil)
    try queue.quiesce()
    let (third, fourth) = (queue.reap(), queue.reap())
    #expect(third == 2 && fourth == 0)
    #expect(pages.count == 1 && space.unmapFailures.count == 1)
  }
}
