import Datapath
import GuestMemory
import Support
import Testing
import Virtio

/// A guest that breaks its ring, each rule by itself: the path stops with the rule's name, nothing but what was given to
/// it is touched, and a neighbour notices nothing.
@Suite struct HostileTests {
  private static let features: Features = [.version1, .indirectDescriptors]

  private func rig(_ features: Features, _ mode: PathMode) throws -> Rig {
    try Rig(size: 8, capacity: 8, mode: mode, features: features, random: SeededGenerator(seed: 11))
  }

  /// Posts one good buffer in two rigs; with a frame on its way if it is late. Then breaks the rule in one of them.
  private func run(
    _ features: Features, _ mode: PathMode, isLate: Bool, breakRule: (Rig) -> Void
  ) throws -> VirtqueueFault? {
    let (rig, other) = (try rig(features, mode), try rig(features, mode))
    for rig in [rig, other] {
      rig.post([1530])
      guard isLate else { continue }
      try rig.turn()
      rig.receive(rig.frame(60))
    }
    breakRule(rig)
    for _ in 0..<3 { _ = rig.path.turn() }
    guard case .virtqueue(let fault) = rig.path.stopReason else { return nil }
    // Nothing more goes out, whatever the guest offers.
    let posts = rig.card.posted.count
    if features.contains(.ringPacked) {
      if rig.packed.room > 0 { rig.packed.offer([.init(Rig.ringStart - 2000, 1530)], id: 0) }
    } else {
      rig.driver.offer(0)
    }
    for _ in 0..<3 { try check(rig.path.turn(), is: 0, "turns after the fault") }
    try check(rig.card.posted.count, is: posts, "posted")
    try rig.path.stop(.requested)
    try check(rig.path.stopReason, is: .virtqueue(fault), "reason")
    try check(rig.path.outstandingBuffers + rig.path.outstandingSlots, is: 0, "outstanding")
    let counters = rig.path.counters
    try check(counters.deliveredFrames + counters.droppedFrames, is: isLate ? 1 : 0, "frames")
    try check(counters.postedBuffers, is: 0, "posted")
    try check(rig.card.complaints, is: [], "complaints")
    // What was delivered before the fault was seen, and no other byte.
    if counters.deliveredFrames == 1 {
      rig.reference.lend()
      rig.reference.settle(shown: 1)
      rig.seeUsedRing()
    }
    if let surprise = rig.memory.firstSurprise() { throw Mismatch(surprise) }
    try check(rig.path.base, is: rig.wantedBase, "base")
    // The neighbour has noticed nothing.
    for _ in 0..<2 { try other.turn() }
    if isLate { try check(other.path.counters.deliveredFrames, is: 1, "the neighbour's frames") }
    try other.checkMemory()
    return fault
  }

  // MARK: Split. virtio 1.3, 2.7

  enum SplitRule: String, CaseIterable {
    case readOnly, readOnlyLater, outside, wrap, edge, small, empty
    case loop, loopOfTwo, nextOutOfRange, headOutOfRange, headOutstanding, ranAhead, ranBack
    case tableLength, tableEmpty, tableOutside, tableWithNext, tableInTable, tableNotAgreed, loopInTable
  }

  @Test(arguments: SplitRule.allCases, [(PathMode.auto, false), (.auto, true), (.copy, false), (.copy, true)])
  func `a guest that breaks its split ring stops its path with the fault's name, and no other`(
    rule: SplitRule, how: (mode: PathMode, isLate: Bool)
  ) throws {
    var features = Self.features
    if rule == .tableNotAgreed { features.remove(.indirectDescriptors) }
    var wanted: VirtqueueFault?
    let fault = try run(features, how.mode, isLate: how.isLate) { rig in
      let driver = rig.driver
      let free = (0..<8).filter { $0 != Int(driver.memory.load16(driver.available + 4)) }
      let (head, second) = (free[0], free[1])
      let (id, cell) = (UInt16(head), rig.cell(head))
      var offers = [id]
      typealias D = PlainDriver
      driver.describe(head, cell, 1530)
      switch rule {
      case .readOnly:
        driver.describe(head, cell, 1530, flags: 0)
        wanted = .readOnlyBuffer(head: id)
      case .readOnlyLater:
        driver.describe(head, cell, 1530, flags: D.write | D.next, next: UInt16(second))
        driver.describe(second, cell, 100, flags: 0)
        wanted = .readOnlyBuffer(head: id)
      case .outside:
        driver.describe(head, 0x8000_0000, 1530)
        wanted = .outsideMemory(.init(.init(0x8000_0000), count: 1530))
      case .wrap:
        driver.describe(head, .max - 100, 1530)
        wanted = .outsideMemory(.init(.init(.max - 100), count: 1530))
      case .edge:
        driver.describe(head, Rig.ringStart - 1, 1530)
        wanted = .outsideMemory(.init(.init(Rig.ringStart - 1), count: 1530))
      case .small:
        driver.describe(head, cell, 11)
        wanted = .bufferTooSmall(head: id, byteCount: 11)
      case .empty:
        driver.describe(head, cell, 0)
        wanted = .bufferTooSmall(head: id, byteCount: 0)
      case .loop:
        driver.describe(head, cell, 1530, flags: D.write | D.next, next: id)
        wanted = .malformedChain(head: id)
      case .loopOfTwo:
        driver.describe(head, cell, 1530, flags: D.write | D.next, next: UInt16(second))
        driver.describe(second, cell, 1530, flags: D.write | D.next, next: id)
        wanted = .malformedChain(head: id)
      case .nextOutOfRange:
        driver.describe(head, cell, 1530, flags: D.write | D.next, next: 8)
        wanted = .malformedChain(head: id)
      case .headOutOfRange:
        offers = [8]
        wanted = .headOutOfRange(8)
      case .headOutstanding:
        offers = [id, id]
        wanted = .headOutstanding(id)
      case .ranAhead:
        driver.availableIndex &+= 8
        offers = [id]
        wanted = .indexRanAhead(from: how.isLate ? 1 : 0, to: 10)
      case .ranBack:
        driver.availableIndex &-= 2
        offers = []
        wanted = .indexRanAhead(from: how.isLate ? 1 : 0, to: .max)
      case .tableLength:
        driver.describe(head, cell, 17, flags: D.indirect)
        wanted = .badIndirectTable(head: id)
      case .tableEmpty:
        driver.describe(head, cell, 0, flags: D.indirect)
        wanted = .badIndirectTable(head: id)
      case .tableOutside:
        driver.describe(head, Rig.ringStart - 16, 32, flags: D.indirect)
        wanted = .outsideMemory(.init(.init(Rig.ringStart - 16), count: 32))
      case .tableWithNext:
        driver.describe(head, rig.table(head), 16, flags: D.indirect | D.next, next: UInt16(second))
        driver.describe(0, cell, 1530, table: rig.table(head))
        wanted = .badIndirectTable(head: id)
      case .tableInTable:
        driver.describe(head, rig.table(head), 16, flags: D.indirect)
        driver.describe(0, rig.table(head), 16, flags: D.indirect, table: rig.table(head))
        wanted = .badIndirectTable(head: id)
      case .tableNotAgreed:
        driver.describe(head, rig.table(head), 16, flags: D.indirect)
        driver.describe(0, cell, 1530, table: rig.table(head))
        wanted = .badIndirectTable(head: id)
      case .loopInTable:
        driver.describe(head, rig.table(head), 32, flags: D.indirect)
        driver.describe(0, cell, 100, flags: D.write | D.next, next: 1, table: rig.table(head))
        driver.describe(1, cell, 100, flags: D.write | D.next, next: 0, table: rig.table(head))
        wanted = .malformedChain(head: id)
      }
      for offer in offers { driver.enter(offer) }
      driver.publish()
    }
    #expect(fault == wanted)
  }

  // MARK: Packed. virtio 1.3, 2.8

  enum PackedRule: String, CaseIterable {
    case readOnly, readOnlyLater, outside, wrap, edge, small, empty
    case endless, intoWhatIsOut
    case tableLength, tableEmpty, tableOutside, tableBefore, tableBehind, tableNotAgreed, readOnlyInTable
  }

  @Test(arguments: PackedRule.allCases, [(PathMode.auto, false), (.auto, true), (.copy, false), (.copy, true)])
  func `a guest that breaks its packed ring stops its path with the fault's name, and no other`(
    rule: PackedRule, how: (mode: PathMode, isLate: Bool)
  ) throws {
    var features = Self.features.union(.ringPacked)
    if rule == .tableNotAgreed { features.remove(.indirectDescriptors) }
    var wanted: VirtqueueFault?
    let fault = try run(features, how.mode, isLate: how.isLate) { rig in
      let driver = rig.packed
      let cell = rig.cell(0)
      typealias Piece = PlainPackedDriver.Piece
      let table = rig.table(0)
      switch rule {
      case .readOnly:
        driver.offer([Piece(cell, 1530, flags: 0)], id: 9)
        wanted = .readOnlyBuffer(head: 1)
      case .readOnlyLater:
        driver.offer([Piece(cell, 1530), Piece(cell, 100, flags: 0)], id: 9)
        wanted = .readOnlyBuffer(head: 1)
      case .outside:
        driver.offer([Piece(0x8000_0000, 1530)], id: 9)
        wanted = .outsideMemory(.init(.init(0x8000_0000), count: 1530))
      case .wrap:
        driver.offer([Piece(.max - 100, 1530)], id: 9)
        wanted = .outsideMemory(.init(.init(.max - 100), count: 1530))
      case .edge:
        driver.offer([Piece(Rig.ringStart - 1, 1530)], id: 9)
        wanted = .outsideMemory(.init(.init(Rig.ringStart - 1), count: 1530))
      case .small:
        driver.offer([Piece(cell, 11)], id: 9)
        wanted = .bufferTooSmall(head: 1, byteCount: 11)
      case .empty:
        driver.offer([Piece(cell, 0)], id: 9)
        wanted = .bufferTooSmall(head: 1, byteCount: 0)
      case .endless:
        for n in 1..<8 { driver.describe(n, Piece(cell, 1530), id: 9, flags: 3) }
        wanted = .malformedChain(head: 1)
      case .intoWhatIsOut:
        // Eight descriptors, of which the first is out if it was taken before: the chain goes round into it.
        for n in 1..<(how.isLate ? 9 : 8) { driver.describe(n, Piece(cell, 100), id: 9, flags: 3) }
        wanted = .malformedChain(head: 1)
      case .tableLength:
        driver.offer([Piece(table, 17, flags: PlainDriver.indirect)], id: 9)
        wanted = .badIndirectTable(head: 1)
      case .tableEmpty:
        driver.offer([Piece(table, 0, flags: PlainDriver.indirect)], id: 9)
        wanted = .badIndirectTable(head: 1)
      case .tableOutside:
        driver.offer([Piece(Rig.ringStart - 16, 32, flags: PlainDriver.indirect)], id: 9)
        wanted = .outsideMemory(.init(.init(Rig.ringStart - 16), count: 32))
      case .tableBefore:
        driver.describe(table: table, 0, Piece(cell, 1530))
        driver.offer([Piece(table, 16, flags: PlainDriver.indirect), Piece(cell, 1530)], id: 9)
        wanted = .badIndirectTable(head: 1)
      case .tableBehind:
        driver.describe(table: table, 0, Piece(cell, 1530))
        driver.offer([Piece(cell, 1530), Piece(table, 16, flags: PlainDriver.indirect)], id: 9)
        wanted = .badIndirectTable(head: 1)
      case .tableNotAgreed:
        driver.describe(table: table, 0, Piece(cell, 1530))
        driver.offer([Piece(table, 16, flags: PlainDriver.indirect)], id: 9)
        wanted = .badIndirectTable(head: 1)
      case .readOnlyInTable:
        driver.describe(table: table, 0, Piece(cell, 1530))
        driver.describe(table: table, 1, Piece(cell, 100, flags: 0))
        driver.offer([Piece(table, 32, flags: PlainDriver.indirect)], id: 9)
        wanted = .readOnlyBuffer(head: 1)
      }
    }
    #expect(fault == wanted)
  }

  @Test func `IDs are given back as they came, however wild they are`() throws {
    let rig = try rig(Self.features.union(.ringPacked), .auto)
    for id in [0xFFFF, 8, 0xFFFF, 0x8000, 0, 8] as [UInt16] {
      rig.packed.offer([.init(rig.cell(0), 1530)], id: id)
    }
    _ = rig.path.turn()
    for _ in 0..<6 { _ = rig.card.receive(rig.frame(60)) }
    _ = rig.path.turn()
    for id in [0xFFFF, 8, 0xFFFF, 0x8000, 0, 8] as [UInt16] {
      #expect(rig.packed.takeUsed() == .init(id: id, byteCount: 72, isWritten: true))
    }
    #expect(rig.path.stopReason == nil)
  }

  /// A chain that is to be copied into is read again when its frame comes: it may have become anything by then.
  @Test func `a waiting packed chain that was rewritten is refused, or written to as checked`() throws {
    try withSeeds(200) { random in
      var features = Self.features.union(.ringPacked)
      if random.once(in: 2) { features.insert(.mergeableBuffers) }
      let rig = try Rig(size: 8, capacity: 4, features: features, first: random.int(0...15), random: SeededGenerator(seed: random.next()))
      let isIndirect = random.once(in: 2)
      let first = rig.packed.offered
      for _ in 0..<2 { rig.post([700, 400, 700], gaps: [0, 5, 5], indirect: isIndirect) }
      let ids = rig.reference.available.map(\.id)
      _ = rig.path.turn()
      try check(rig.card.free, is: 2, "slots")
      let count = UInt32(random.pick([700, 700, 400, 11, 0, 1 << 20, Int(UInt32.max)]))
      let place = random.pick([rig.cell(7), Rig.ringStart - 20, 0, UInt64.max - 300, rig.cell(of: ids[1])])
      let flags: UInt16 = random.pick([2, 3, 3, 0, 4])
      if isIndirect {
        let cell = Int((rig.cell(of: ids[0]) - rig.cell(0)) / UInt64(Rig.cellBytes))
        rig.packed.describe(table: rig.table(cell), random.int(0...2), .init(place, count, flags: flags))
      } else {
        rig.packed.describe(first + random.int(0...2), .init(place, count), id: ids[0], flags: flags)
      }
      let frame = rig.frame(random.int(14...1518))
      _ = rig.card.receive(frame)
      _ = rig.path.turn()
      try check(rig.card.complaints, is: [], "complaints")
      let counters = rig.path.counters
      try check(counters.deliveredFrames + counters.droppedFrames, is: 1, "frames")
      if rig.path.stopReason != nil {
        try check(counters.dropped(.ringViolation), is: 1, "violations")
        try check(rig.packed.isUsed(first), is: false, "a refused chain is used")
      } else {
        try check(
          rig.packed.takeUsed(), is: .init(id: ids[0], byteCount: UInt32(12 + frame.count), isWritten: true), "used")
      }
      try rig.path.stop(.requested)
    }
  }
}
