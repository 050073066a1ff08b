@testable import Datapath
import Bus
import GuestMemory
import Linux
import NIC
import Support
import Testing
import Virtio

/// Single things that a path must do, each by itself.
@Suite struct PathTests {
  private let merging: Features = [.version1, .indirectDescriptors, .mergeableBuffers]
  private func rig(
    size: Int = 8, capacity: Int = 8, mode: PathMode = .auto, _ features: Features = [.version1, .indirectDescriptors],
    base: UInt16 = 0, hostBuffers: Int = 64
  ) throws -> Rig {
    try Rig(
      size: size, capacity: capacity, mode: mode, features: features, base: base, hostBuffers: hostBuffers,
      random: SeededGenerator(seed: 11))
  }

  // MARK: Lending

  @Test(arguments: [(1529, false), (1530, true), (1531, true), (4096, true)])
  func `a buffer is lent exactly when header and largest frame fit`(byteCount: Int, isLent: Bool) throws {
    let rig = try rig()
    rig.post([byteCount])
    try rig.turn()
    #expect(rig.card.posted == [isLent ? IOVA(1 << 40 + rig.cell(Int(rig.reference.places[0].id)) + 12) : rig.card.posted[0]])
    #expect((rig.card.posted[0].rawValue >= 1 << 40) == isLent)
    rig.receive(rig.frame(byteCount == 1529 ? 1517 : 1518))
    try rig.turn()
    try rig.checkMemory()
    #expect(rig.path.counters.deliveredFrames == 1)
    #expect(rig.path.counters.lentFrames == (isLent ? 1 : 0))
  }

  @Test func `one doorbell tells of all that one turn posted`() throws {
    let rig = try rig(size: 64, capacity: 64)
    for _ in 0..<40 { rig.post([1530]) }
    try rig.turn()
    try rig.turn()
    #expect(rig.card.rings == 1 && rig.card.known == 40)
  }

  @Test func `a header says that checksums are right only where that was agreed on`() throws {
    for features in [Features.version1, [.version1, .guestChecksum]] {
      for mode in [PathMode.auto, .copy] {
        let rig = try rig(mode: mode, features)
        rig.post([1530])
        rig.post([1530])
        let heads = rig.reference.available.map { Int($0.id) }
        try rig.turn()
        rig.receive(rig.frame(60), flags: [.isEnd, .isChecksumValid])
        rig.receive(rig.frame(60))
        try rig.turn()
        let wanted: UInt8 = features.contains(.guestChecksum) ? 2 : 0
        #expect(rig.memory.read(rig.cell(heads[0]), 12) == [wanted, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0])
        #expect(rig.memory.read(rig.cell(heads[1]), 12) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0])
      }
    }
  }

  // MARK: Merging

  @Test func `a merged frame fills every buffer but its last, and only the first has a header`() throws {
    let rig = try rig(merging)
    for _ in 0..<4 { rig.post([500]) }
    let cells = rig.reference.available.map { rig.cell(Int($0.id)) }
    try rig.turn()
    let frame = rig.frame(1200)
    rig.receive(frame)
    try rig.turn()
    #expect(rig.reference.used.map(\.byteCount) == [500, 500, 212])
    #expect(rig.memory.read(cells[0], 12) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0])
    let found = rig.memory.read(cells[0] + 12, 488) + rig.memory.read(cells[1], 500) + rig.memory.read(cells[2], 212)
    #expect(found == frame)
    try rig.checkMemory()
  }

  @Test func `all buffers of a frame become visible at once`() throws {
    let rig = try rig(merging)
    for _ in 0..<4 { rig.post([400]) }
    try rig.turn()
    rig.receive(rig.frame(1500))
    let before = rig.driver.usedIndex
    try rig.turn()
    #expect(before == 0 && rig.driver.usedIndex == 4)
    #expect(rig.path.counters.signals == 1)
  }

  @Test(arguments: [12, 13, 64, 200], [1, 2, 8])
  func `a guest with small buffers loses no frame while it has enough of them`(byteCount: Int, capacity: Int) throws {
    // 1530 bytes, and a turn takes 128 buffers at most.
    let rig = try rig(size: 256, capacity: capacity, merging, hostBuffers: 8)
    var delivered: UInt64 = 0
    for _ in 0..<20 {
      while rig.freeHeads > 0 { rig.post([byteCount]) }
      for _ in 0..<5 { try rig.turn() }
      #expect(rig.card.free > 0, "a slot is out")
      while rig.card.free > 0 { rig.receive(rig.frame(1518)) }
      for _ in 0..<3 { try rig.turn() }
      try rig.checkMemory()
      #expect(rig.path.counters.droppedFrames == 0)
      #expect(rig.path.counters.deliveredFrames > delivered)
      delivered = rig.path.counters.deliveredFrames
    }
  }

  /// The card has nothing until the guest has had its time.
  private func waitForHope(_ rig: Rig) throws {
    for _ in 0..<ReferencePath.patience {
      try rig.turn()
      #expect(rig.card.free == 0)
    }
    try rig.turn()
    #expect(rig.card.free == 1)
  }

  @Test func `with too few bytes for a large frame, a small one still comes, after some patience`() throws {
    let rig = try rig(merging)
    rig.post([100])
    try waitForHope(rig)
    rig.receive(rig.frame(1000))
    try rig.turn()
    #expect(rig.path.counters.dropped(.insufficientBuffers) == 1)
    try waitForHope(rig)
    rig.receive(rig.frame(88))
    try rig.turn()
    #expect(rig.reference.used.map(\.byteCount) == [100])
    try rig.checkMemory()
  }

  @Test func `patience begins anew with every buffer, and is not needed once there are enough`() throws {
    let rig = try rig(merging)
    for _ in 0..<3 {
      rig.post([100])
      for _ in 0..<ReferencePath.patience {
        try rig.turn()
        #expect(rig.card.free == 0)
      }
    }
    rig.post([1400])
    try rig.turn()
    #expect(rig.card.free == 1)
    rig.receive(rig.frame(1518))
    try rig.turn()
    #expect(rig.path.counters.deliveredFrames == 1)
    try rig.checkMemory()
  }

  @Test func `a ring that holds too few bytes when it is full is not waited for`() throws {
    let rig = try rig(size: 2, merging)
    rig.post([100])
    rig.post([100])
    try rig.turn()
    #expect(rig.card.free == 1)
    rig.receive(rig.frame(188))
    try rig.turn()
    #expect(rig.path.counters.deliveredFrames == 1)
    try rig.checkMemory()
  }

  @Test func `a path does not sleep while the card has nothing for want of patience`() throws {
    let rig = try rig(merging)
    rig.post([100])
    try rig.turn()
    #expect(rig.card.free == 0)
    let early = rig.path.prepareToSleep()
    #expect(!early)
    _ = rig.path.turn()
    #expect(rig.card.free == 1)
    let late = rig.path.prepareToSleep()
    #expect(late)
  }

  @Test func `buffers that arrive after the slot for a small frame are there for a large one`() throws {
    let rig = try rig(size: 256, capacity: 1, merging)
    rig.post([12])
    try waitForHope(rig)
    for _ in 0..<200 { rig.post([12]) }
    rig.receive(rig.frame(1518))
    try rig.turn()
    #expect(rig.path.counters.deliveredFrames == 1)
    try rig.checkMemory()
  }

  // MARK: Frames that do not fit, or are not whole

  @Test func `a frame too long for an unmerged buffer is dropped whole, and the next one comes`() throws {
    let rig = try rig()
    rig.post([1000])
    try rig.turn()
    rig.receive(rig.frame(989))
    try rig.turn()
    try rig.turn()
    rig.receive(rig.frame(988))
    try rig.turn()
    try rig.checkMemory()
    #expect(rig.path.counters.dropped(.tooLong) == 1)
    #expect(rig.reference.used.map(\.byteCount) == [1000])
  }

  @Test func `the rest of a frame in pieces is not a new frame`() throws {
    for mode in [PathMode.auto, .copy] {
      let rig = try rig(mode: mode)
      for _ in 0..<5 { rig.post([1530]) }
      try rig.turn()
      rig.receive(rig.frame(1518), flags: [])
      rig.receive(rig.frame(1518), flags: [])
      try rig.turn()
      rig.receive(rig.frame(100))
      rig.receive(rig.frame(100))
      try rig.turn()
      try rig.checkMemory()
      #expect(rig.path.counters.dropped(.damaged) == 1)
      #expect(rig.path.counters.deliveredFrames == 1)
    }
  }

  @Test(arguments: [1519, 4084, 4085, 0x8000_0000, 0xFFFF_FFF3, 0xFFFF_FFF4, 0xFFFF_FFFF] as [UInt32], PathMode.allCases)
  func `a length that the card cannot have written never reaches the guest`(claim: UInt32, mode: PathMode) throws {
    let rig = try rig(mode: mode)
    rig.post([4096])
    rig.post([4096])
    try rig.turn()
    rig.receive(rig.frame(1518), claiming: claim)
    rig.receive(rig.frame(64))
    try rig.turn()
    try rig.checkMemory()
    #expect(rig.path.counters.dropped(.badLength) == 1)
    #expect(rig.path.counters.deliveredBytes == 64)
  }

  @Test func `required stops at the first buffer that cannot be lent, and says why`() throws {
    let rig = try rig(mode: .required)
    rig.post([1530])
    rig.post([1529])
    rig.post([1530])
    try rig.turn()
    #expect(rig.path.stopReason == .cannotLend(.tooSmall))
    #expect(rig.card.posted.count == 1)
  }

  // MARK: A guest that rewrites what it gave

  @Test func `a lent buffer is where it was when it was taken, whatever its entry says later`() throws {
    let rig = try rig()
    for _ in 0..<4 { rig.post([1530]) }
    let heads = rig.reference.available.map { Int($0.id) }
    rig.card.onPost = { [unowned rig] _ in
      for head in heads { rig.driver.describe(head, Rig.ringStart, 0xFFFF_FFFF, flags: 0) }
    }
    // Only those taken before the first post escape: the others are read-only by now.
    _ = rig.path.turn()
    #expect(rig.card.posted == [IOVA(1 << 40 + rig.cell(heads[0]) + 12)])
    #expect(rig.path.stopReason == .virtqueue(.readOnlyBuffer(head: UInt16(heads[1]))))

    let second = try self.rig()
    second.post([1530])
    try second.turn()
    let head = Int(second.reference.places[0].id)
    second.driver.describe(head, second.cell(head) + 2000, 14, flags: 0)
    second.receive(second.frame(1518))
    try second.turn()
    try second.checkMemory()
    #expect(second.path.counters.lentFrames == 1)
  }

  /// A chain that is to be copied into is read again when its frame comes: it may have become anything by then.
  @Test func `a waiting chain that was rewritten is refused or written to as checked, and nothing else is touched`() throws {
    try withSeeds(200) { random in
      let rig = try Rig(
        size: 8, capacity: 4, features: random.once(in: 2) ? merging : [.version1, .indirectDescriptors],
        random: SeededGenerator(seed: random.next()))
      // Chains in pieces, too scattered to be lent.
      let isIndirect = random.once(in: 2)
      for _ in 0..<2 { rig.post([700, 400, 700], gaps: [0, 5, 5], indirect: isIndirect) }
      let heads = rig.reference.available.map { Int($0.id) }
      rig.reference.lend()
      _ = rig.path.turn()
      try check(rig.card.free, is: 2, "slots")
      let table = isIndirect ? Rig.ringStart + 0x1000 + UInt64(8 * 48 + heads[0] * 512) : nil
      let entry = isIndirect ? random.int(0...2) : heads[0]
      let count = UInt32(random.pick([700, 700, 400, 11, 0, 1 << 20, Int(UInt32.max)]))
      let place = random.pick([rig.cell(7), Rig.ringStart - 20, 0, UInt64.max - 300, rig.cell(heads[1])])
      rig.driver.describe(entry, place, count, flags: random.pick([2, 3, 3, 0, 4]), next: UInt16(random.int(0...8)), table: table)
      let frame = rig.frame(random.int(14...1518))
      _ = rig.card.receive(frame)
      // Anything of the guest's memory but the rings' other bytes may be written where the new chain says so.
      _ = rig.path.turn()
      try check(rig.card.complaints, is: [], "complaints")
      let counters = rig.path.counters
      try check(counters.deliveredFrames + counters.droppedFrames, is: 1, "frames")
      let before = rig.driver.usedIndex
      if rig.path.stopReason != nil {
        try check(counters.dropped(.ringViolation), is: 1, "violations")
        try check(before, is: 0, "used elements of a refused chain")
      } else {
        try check(before, is: 1, "used elements")
        try check(rig.driver.usedElement(0).id, is: UInt32(heads[0]), "id")
        try check(rig.driver.usedElement(0).byteCount, is: UInt32(12 + frame.count), "bytes")
      }
      // The other buffer's chain, and the tables, are as the guest left them.
      let size = 16 * 8
      try check(rig.driver.memory.read(rig.driver.table, size).count, is: size, "table")
      try rig.path.stop(.requested)
      try check(rig.path.base, is: RingBase(split: rig.driver.usedIndex), "base")
    }
  }

  @Test func `a frame over several buffers of which one was broken leaves the used ring as it was`() throws {
    let rig = try rig(size: 8, capacity: 8, merging)
    rig.post([700])
    rig.post([300, 300], gaps: [0, 9], indirect: true)
    rig.post([700])
    rig.post([1530])
    let heads = rig.reference.available.map { Int($0.id) }
    _ = rig.path.turn()
    #expect(rig.card.free == 2)
    rig.driver.describe(0, 0, 300, table: Rig.ringStart + 0x1000 + UInt64(8 * 48 + heads[1] * 512))
    _ = rig.card.receive(rig.frame(1400))
    _ = rig.card.receive(rig.frame(60))
    _ = rig.path.turn()
    #expect(rig.driver.usedIndex == 0)
    #expect(rig.path.base == RingBase(split: 0))
    try rig.path.stop(.requested)
    #expect(rig.driver.usedIndex == 0)
    #expect(rig.path.counters.dropped(.ringViolation) == 2)
  }

  // MARK: The end

  @Test(arguments: PathMode.allCases, [0, 1, 3, 6])
  func `a stopped path has delivered what came, forgets the rest, and says where to go on`(mode: PathMode, came: Int) throws {
    let rig = try rig(mode: mode, base: 65533)
    for _ in 0..<6 { rig.post([1536]) }
    try rig.turn()
    for _ in 0..<came { rig.receive(rig.frame(100)) }
    try rig.path.stop(.requested)
    #expect(rig.path.stopReason == .requested)
    #expect(rig.path.base == RingBase(split: 65533 &+ UInt16(came)))
    #expect(RingBase(split: rig.driver.usedIndex) == rig.path.base)
    #expect(rig.path.counters.deliveredFrames == UInt64(came))
    #expect(rig.path.outstandingBuffers == 0 && rig.path.outstandingSlots == 0)
    for _ in 0..<3 { #expect(rig.path.turn() == 0) }
    #expect(rig.card.complaints.isEmpty)
    // A successor finds the others, each once and in order.
    let heads = rig.reference.places.dropFirst(came).map(\.id)
    var view = MemoryView(rig.memory.map)
    var next = try SplitVirtqueue(rig.driver.layout, features: rig.features, base: rig.path.base.available, in: &view)
    let pending = next.pending()
    #expect(pending == UInt32(6 - came))
    for head in heads {
      let taken = next.take()
      #expect(taken == head)
    }
  }

  @Test func `frames that land while the card is being stopped are delivered`() throws {
    let rig = try rig()
    for _ in 0..<4 { rig.post([1530]) }
    try rig.turn()
    rig.card.onQuiesce = { [unowned rig] in
      rig.receive(rig.frame(60))
      rig.receive(rig.frame(61))
    }
    try rig.path.stop(.requested)
    #expect(rig.path.counters.deliveredFrames == 2)
    #expect(rig.path.base == RingBase(split: 2))
  }

  @Test func `a batch of damaged frames does not keep the good ones behind it from being delivered`() throws {
    let rig = try rig(size: 256, capacity: 256, mode: .copy, hostBuffers: 256)
    for _ in 0..<200 { rig.post([1530]) }
    try rig.turn()
    try rig.turn()
    #expect(rig.card.free == 200)
    for _ in 0..<140 { rig.receive(rig.frame(60), flags: [.isEnd, .isDamaged]) }
    for _ in 0..<20 { rig.receive(rig.frame(60)) }
    try rig.path.stop(.requested)
    #expect(rig.path.counters.deliveredFrames == 20)
    #expect(rig.path.counters.dropped(.damaged) == 140)
    #expect(rig.path.counters.dropped(.stopped) == 0)
  }

  @Test func `a card that does not stop is reported, and nothing is said to be free`() throws {
    let rig = try rig()
    rig.post([1530])
    try rig.turn()
    rig.card.willNotStop = true
    #expect(throws: RegisterError.self) { try rig.path.stop(.requested) }
    #expect(rig.path.outstandingBuffers == 1)
    #expect(rig.path.turn() == 0)
  }

  @Test func `a path that is being stopped delivers what comes until its queue has stopped, a batch a step, and posts nothing`() throws {
    let rig = try rig(size: 256, capacity: 255)
    for _ in 0..<200 { rig.post([1530]) }
    try rig.turn()
    try rig.turn()
    #expect(rig.card.free == 200)
    rig.path.beginStop(.requested)
    rig.path.beginStop(.requested)
    rig.card.pollsUntilQuiet = 3
    for poll in 0..<3 {
      rig.receive(rig.frame(60 + poll))
      // Others go on meanwhile: a poll of this one does nothing.
      #expect(try !rig.path.pollStop() && rig.path.turn() == 0)
      #expect(rig.card.quiescePolls == poll + 1)
    }
    for _ in 0..<150 { rig.receive(rig.frame(90)) }
    var steps = 0
    while try !rig.path.pollStop() { steps += 1 }
    #expect(steps == 2, "\(steps) steps for 153 frames")
    #expect(rig.path.counters.deliveredFrames == 153 && rig.path.counters.droppedFrames == 0)
    #expect(rig.path.outstandingBuffers == 0 && rig.card.complaints.isEmpty)
  }

  @Test func `a path whose queue does not stop is taken apart, with what had come counted, and its buffers not given back`() throws {
    let rig = try rig()
    for _ in 0..<3 { rig.post([1530]) }
    try rig.turn()
    rig.receive(rig.frame(60))
    rig.card.willNotStop = true
    rig.path.beginStop(.requested)
    #expect(throws: RegisterError.self) { _ = try rig.path.pollStop() }
    let base = rig.path.base
    rig.path.forsake()
    #expect(rig.path.base == base && rig.path.outstandingBuffers == 0 && rig.path.outstandingSlots == 0)
    #expect(rig.path.counters.dropped(.stopped) == 1 && rig.path.counters.deliveredFrames == 0)
  }

  // MARK: Long lives

  @Test func `a path that only copies goes on after two and four thousand million frames`() throws {
    let rig = try rig(mode: .copy)
    for age in [0, 0x7FFF_FFE0, 0xFFFF_FFC0] as [UInt32] {
      rig.path.core.ledger.age(to: age)
      for _ in 0..<100 {
        rig.post([1530])
        try rig.turn()
        #expect(rig.card.free == 1)
        rig.receive(rig.frame(60))
        try rig.turn()
      }
    }
    try rig.checkMemory()
    #expect(rig.path.counters.bouncedFrames == 300)
    #expect(rig.path.core.ledger.runSlots == 0)
  }

  // MARK: Set-up that fails

  @Test func `a path whose host buffers cannot be had leaves nothing behind`() throws {
    var random = SeededGenerator(seed: 1)
    let memory = try PlainMemory([(0x10_0000, 0x4000)], &random)
    let space = FakeAddressSpace()
    let window = try DMAWindow(number: 1, map: memory.map, in: space)
    let before = (space.entries, addressSpaceBytes())
    let good = SplitRingLayout(
      size: 4, descriptorTable: GuestAddress(0x10_0000), availableRing: GuestAddress(0x10_1000),
      usedRing: GuestAddress(0x10_2000))
    func join(_ layout: SplitRingLayout, hostBuffers: Int = 64, end: UInt64 = 1 << 62) -> AttachmentError? {
      do {
        _ = try ReceivePath(
          layout: layout.generic, features: [], base: RingBase(split: 0), window: window, queue: FakeQueue(FakeCard(space: space, capacity: 4)),
          space: space, allocator: IOVAAllocator(to: IOVA(end)), bounceBuffers: hostBuffers)
        return nil
      } catch { return error }
    }
    // The n-th mapping on the bus, until there is none left that could fail.
    var failures = 0
    while true {
      space.failingMap = space.mapCalls + failures + 1
      guard let error = join(good) else { break }
      #expect(error == .memory(.bus(.limitReached)))
      #expect(space.entries == before.0)
      failures += 1
    }
    #expect(failures == 1)
    space.failingMap = 0
    // Bus addresses; the reservation; the pages.
    #expect(join(good, end: 0x10_1000) == .memory(.noAddresses(byteCount: 64 * 1600)))
    guard case .memory(.system(let first)) = join(good, hostBuffers: 1 << 37) else { throw Mismatch("no failure") }
    #expect(first.call == .mmap)
    var bad = good
    bad.usedRing = GuestAddress(0x10_1004)
    #expect(join(bad) == .virtqueue(.overlap(GuestAddress(0x10_1000), GuestAddress(0x10_1004))))
    #expect(space.entries == before.0)
    #expect(space.wrongUnmaps == 0)
    #expect(addressSpaceBytes() - before.1 < 1 << 36)
    #expect(space.pagesAtUnmap.allSatisfy { $0 })
  }
}

extension Ledger {
  /// As if so many slots and buffers had come and gone, none of them lent.
  fileprivate mutating func age(to count: UInt32) {
    runStart = count
    front = count
    tail = count
    slotFront = count
    slotTail = count
    runIsStale = true
  }
}
