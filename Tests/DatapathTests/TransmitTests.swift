import Bus
import Datapath
import GuestMemory
import Linux
import NIC
import Support
import Testing
import Virtio

/// What becomes of a guest's frames. virtio 1.3, 5.1.6.2 "Packet Transmission".
@Suite struct TransmitTests {
  private func rig(
    _ format: Features = [], size: Int = 32, capacity: Int = 64, copies: Bool = false, base: UInt16 = 0,
    hostBuffers: Int = 16, pieceLimit: Int = 40, frameByteCounts: ClosedRange<UInt32> = 17...1518
  ) throws -> TransmitRig {
    try TransmitRig(
      size: size, capacity: capacity, features: format.union([.version1, .indirectDescriptors]), copies: copies,
      base: base, hostBuffers: hostBuffers, pieceLimit: pieceLimit, frameByteCounts: frameByteCounts,
      random: SeededGenerator(seed: 5))
  }
  private func drain(_ rig: TransmitRig) throws {
    for _ in 0..<100 where rig.returned < rig.expected.count {
      try rig.turn()
      rig.card.send()
      try rig.turn()
    }
    try rig.checkMemory()
    #expect(rig.returned == rig.expected.count)
  }
  private func fate(_ rig: TransmitRig) throws -> TransmitRig.Fate {
    try drain(rig)
    return rig.expected.last!.fate
  }
  static let formats: [Features] = [[], [.ringPacked]]

  // MARK: Pieces

  @Test(arguments: formats, [false, true])
  func `a frame is lent piece by piece, however its header is split from it`(format: Features, indirect: Bool) throws {
    let splits: [[Int]] = [
      [], [12], [12, 100, 30], [13], [11], [11, 1], [6, 7], [1, 11, 700], [0, 12, 0, 50],
      [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 5],
    ]
    for split in splits {
      for gap in [0, 3] {
        let rig = try rig(format)
        rig.send(rig.frame(900), split: split, gap: gap, indirect: indirect)
        #expect(try fate(rig) == .lent, "\(split)")
      }
    }
  }

  @Test(arguments: formats, [4, 16, 40])
  func `a frame in more pieces than the card takes is copied`(format: Features, limit: Int) throws {
    let rig = try rig(format, size: 64, pieceLimit: limit)
    let most = min(limit, 16)
    for count in [most - 1, most, most + 1, 40] {
      // The header apart; then as many pieces.
      rig.send(rig.frame(1000), split: [12] + [Int](repeating: 20, count: count - 1))
      #expect(try fate(rig) == (count <= most ? .lent : .copied(.fragmented)), "\(count) pieces")
    }
  }

  @Test(arguments: formats)
  func `a frame across two regions is copied, and arrives whole`(format: Features) throws {
    let rig = try rig(format, size: 8)
    // The cell in the middle lies across.
    for _ in 0..<8 { rig.send(rig.frame(1500)) }
    try drain(rig)
    #expect(rig.path.counters.copied(.crossesRegions) == 1)
    #expect(rig.path.counters.lentFrames == 7)
  }

  // MARK: Lengths

  @Test(arguments: formats, [false, true])
  func `what is shorter than an Ethernet header or longer than the card takes is not sent`(format: Features, copies: Bool) throws {
    for count in [0, 1, 13, 14, 16, 17, 59, 60, 1517, 1518, 1519, 3000] {
      for split in [[], [12], [12, 13]] {
        let rig = try rig(format, copies: copies)
        rig.send(rig.frame(count), split: split)
        let wanted: TransmitRig.Fate =
          count < 14 ? .dropped(.runt)
          : count > 1518 ? .dropped(.tooLong) : copies ? .copied(.copyMode) : count < 17 ? .copied(.padded) : .lent
        #expect(try fate(rig) == wanted, "\(count)")
        // Zeroes behind what is too short, whatever lay in the host buffer.
        if count >= 14 && count < 17 { #expect(rig.card.sent.last!.count == 60) }
      }
    }
  }

  @Test func `padding is zeroes where another frame lay`() throws {
    let rig = try rig(copies: true, hostBuffers: 1)
    for count in [1518, 14, 1000, 16] {
      rig.send(rig.frame(count))
      try drain(rig)
    }
    #expect(rig.card.sent[1][14...].allSatisfy { $0 == 0 } && rig.card.sent[3][16...].allSatisfy { $0 == 0 })
  }

  @Test(arguments: formats)
  func `a chain with more bytes than a length can say is too long, not short`(format: Features) throws {
    // 1024 pieces of 4 MiB: 2³² bytes, of which twelve are the header.
    var random = SeededGenerator(seed: 1)
    let memory = try PlainMemory([(0x10_0000, 0x40_1000), (0x100_0000, 0x10_0000)], &random)
    let size = 1024
    let isPacked = format.contains(.ringPacked)
    for extra in [0, 1] as [UInt32] {
      let layout = RingLayout(
        size: size, descriptorArea: GuestAddress(0x100_0000), driverArea: GuestAddress(0x108_0000),
        deviceArea: GuestAddress(0x109_1000))
      if isPacked {
        let driver = PlainPackedDriver(layout, in: memory)
        driver.offer((0..<size).map { .init(0x10_0000, 0x40_0000 + ($0 == 9 ? extra : 0), flags: 0) }, id: 1)
      } else {
        let driver = PlainDriver(SplitRingLayout(layout), in: memory)
        for n in 0..<size {
          driver.describe(n, 0x10_0000, 0x40_0000 + (n == 9 ? extra : 0), flags: n + 1 < size ? 1 : 0, next: UInt16((n + 1) % size))
        }
        driver.offer(0)
      }
      let space = FakeAddressSpace()
      let card = FakeTransmitCard(space: space, capacity: 32)
      let window = try DMAWindow(number: 1, map: memory.map, in: space)
      var view = MemoryView(memory.map)
      let queue = try Virtqueue(
        layout, features: format, base: isPacked ? .packedStart : RingBase(split: 0), in: &view)
      var path = TransmitPath(
        virtqueue: queue, window: window,
        parts: try TransmitParts(queue: FakeTransmitQueue(card), space: space, allocator: IOVAAllocator()))
      _ = path.turn()
      #expect(path.counters.dropped(.tooLong) == (extra == 0 ? 1 : 0))
      #expect(path.stopReason == (extra == 0 ? nil : .virtqueue(.malformedChain(head: 0))))
    }
  }

  // MARK: The header

  @Test(arguments: formats, [[], [12], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]])
  func `a header that asks for what was not agreed on is refused, wherever it is split`(format: Features, split: [Int]) throws {
    // flags, gso_type; the other fields mean nothing then.
    for (flags, type, wanted) in [
      (0, 0, .lent), (1, 0, .dropped(.offload)), (2, 0, .lent), (3, 0, .dropped(.offload)), (0, 1, .dropped(.offload)),
      (0, 3, .dropped(.offload)), (0, 4, .dropped(.offload)), (0, 5, .dropped(.offload)), (0, 0x80, .dropped(.offload)),
      (0xFE, 0, .lent),
    ] as [(UInt8, UInt8, TransmitRig.Fate)] {
      let rig = try rig(format)
      rig.send(rig.frame(500), header: [flags, type] + [UInt8](repeating: 0xEE, count: 10), split: split)
      #expect(try fate(rig) == wanted, "flags \(flags) type \(type)")
    }
  }

  // MARK: Order, room, disabled rings

  @Test(arguments: formats)
  func `everything goes back in order, what was not sent too`(format: Features) throws {
    let rig = try rig(format)
    rig.send(rig.frame(100))
    rig.send(rig.frame(5))
    rig.send(rig.frame(15))
    rig.send(rig.frame(2000))
    rig.send(rig.frame(100))
    try rig.turn()
    #expect(rig.returned == 0 && rig.path.postedFrames == 3 && rig.path.outstandingBuffers == 5)
    #expect(rig.card.rings == 1)
    rig.card.send(1)
    try rig.turn()
    #expect(rig.returned == 2)
    rig.card.send(1)
    try rig.turn()
    #expect(rig.returned == 4)
    rig.card.send()
    try rig.turn()
    #expect(rig.returned == 5 && rig.path.outstandingBuffers == 0)
    // With nothing before it, what is not sent goes back at once.
    rig.send(rig.frame(5))
    try rig.turn()
    #expect(rig.returned == 6 && rig.card.rings == 1)
    try rig.checkMemory()
  }

  @Test(arguments: formats)
  func `frames wait while the card, or the host buffers, are full`(format: Features) throws {
    let full = try rig(format, capacity: 7)
    for _ in 0..<5 { full.send(full.frame(100), split: [12, 30]) }
    try full.turn()
    // Room for any frame is what a frame needs: as many descriptors as it may have pieces.
    #expect(full.path.postedFrames == 1)
    try drain(full)

    let copying = try rig(format, copies: true, hostBuffers: 2)
    for _ in 0..<5 { copying.send(copying.frame(100)) }
    try copying.turn()
    #expect(copying.path.postedFrames == 2)
    try copying.turn()
    #expect(copying.path.postedFrames == 2)
    try drain(copying)
  }

  @Test(arguments: formats)
  func `one turn takes a batch, and gives a batch back`(format: Features) throws {
    let rig = try rig(format, size: 256, capacity: 256)
    for _ in 0..<150 { rig.send(rig.frame(60)) }
    try rig.turn()
    #expect(rig.path.postedFrames == 64)
    try rig.turn()
    try rig.turn()
    #expect(rig.path.postedFrames == 150 && rig.card.rings == 3)
    rig.card.send()
    try rig.turn()
    #expect(rig.returned == 64)
    try rig.turn()
    try rig.turn()
    #expect(rig.returned == 150)
  }

  @Test(arguments: formats)
  func `a disabled ring's frames are taken and go back unsent, even with the card full`(format: Features) throws {
    let rig = try rig(format, capacity: 16)
    rig.send(rig.frame(100))
    try rig.turn()
    rig.discards = true
    for count in [100, 5, 2000, 1000] { rig.send(rig.frame(count), split: [12]) }
    try rig.turn()
    #expect(rig.returned == 0 && rig.path.outstandingBuffers == 5)
    rig.card.send()
    try rig.turn()
    #expect(rig.returned == 5 && rig.path.counters.dropped(.ringDisabled) == 4)
    rig.discards = false
    rig.send(rig.frame(100))
    #expect(try fate(rig) == .lent)
    #expect(rig.card.sent.count == 2)
  }

  // MARK: Sleep, log, end

  @Test(arguments: formats)
  func `a path sleeps when there is nothing to take, or no room to take it`(format: Features) throws {
    let rig = try rig(format, capacity: 16)
    func kicks() -> Bool { format.isEmpty ? rig.driver.usedFlags == 0 : rig.packed.deviceFlags == 0 }
    #expect(!kicks())
    var path = try PathBox(rig)
    #expect(path.sleep() && kicks())
    path.wake()
    #expect(!kicks())
    rig.send(rig.frame(100))
    #expect(!path.sleep() && !kicks())
    rig.send(rig.frame(100))
    let before = rig.path.progress
    try rig.turn()
    #expect(rig.path.progress != before)
    // One is with the card, which takes another only when it has room for sixteen pieces.
    #expect(rig.path.postedFrames == 1)
    #expect(path.sleep() && !kicks())
    rig.card.send()
    try rig.turn()
    try rig.turn()
    #expect(rig.path.postedFrames == 1 && rig.returned == 1)
  }

  /// A rig's path, for calls that expectations cannot make by themselves.
  private struct PathBox {
    let rig: TransmitRig
    init(_ rig: TransmitRig) throws { self.rig = rig }
    func sleep() -> Bool { rig.withPath { $0.prepareToSleep() } }
    mutating func wake() { rig.withPath { $0.wake() } }
  }

  @Test(arguments: formats)
  func `only the used ring is marked in a log`(format: Features) throws {
    let rig = try rig(format)
    let file = try MemoryFile(name: "log", byteCount: 4096)
    let log = DirtyLog(mapping: try Mapping(of: file.descriptor, byteCount: 4096), byteCount: 4096)
    let view = try Mapping(of: file.descriptor, byteCount: 4096)
    rig.withPath { $0.setLog(log) }
    for count in [100, 15, 5] { rig.send(rig.frame(count)) }
    try drain(rig)
    let marked = (0..<4096 * 8).filter { unsafe view.base.load(fromByteOffset: $0 / 8, as: UInt8.self) >> UInt8($0 % 8) & 1 == 1 }
    #expect(marked == [Int(TransmitRig.ringStart / 4096)])
    #expect(rig.path.counters.dirtyPages == 1)
  }

  @Test(arguments: formats, [0, 1, 3])
  func `a stopped path gives back what was sent, and its successor sends the rest`(format: Features, sent: Int) throws {
    let rig = try rig(format)
    rig.send(rig.frame(100))
    rig.send(rig.frame(5))
    rig.send(rig.frame(15))
    rig.send(rig.frame(200), split: [12])
    try rig.turn()
    rig.card.send(sent)
    try rig.withPath { try $0.stop(.requested) }
    try rig.check()
    #expect(rig.returned == [0, 2, 4][min(sent, 2)])
    #expect(rig.path.outstandingBuffers == 0 && rig.path.postedFrames == 0)
    for _ in 0..<3 { #expect(rig.withPath { $0.turn() } == 0) }
    guard sent < 3 else { return }
    let before = rig.card.sent.count
    let counted = rig.path.counters.sentFrames
    try rig.follow()
    _ = rig.withPath { $0.turn() }
    rig.card.send()
    _ = rig.withPath { $0.turn() }
    #expect(rig.card.sent.count - before == 3 - sent)
    #expect(rig.path.counters.sentFrames + counted == 3)
    #expect(rig.card.complaints.isEmpty)
  }

  @Test func `a card that does not stop is reported, and nothing is said to be free`() throws {
    let rig = try rig()
    rig.send(rig.frame(100))
    try rig.turn()
    rig.card.willNotStop = true
    #expect(throws: RegisterError.self) { try rig.withPath { try $0.stop(.requested) } }
    #expect(rig.path.outstandingBuffers == 1)
    #expect(rig.withPath { $0.turn() } == 0)
  }

  // MARK: Faults

  enum Wrong: String, CaseIterable {
    case writable, writableLater, outside, small, loop, table, headTwice, ranAhead
  }

  @Test(arguments: Wrong.allCases, [([], false), ([], true), ([.ringPacked], false), ([.ringPacked], true)] as [(Features, Bool)])
  func `a guest that breaks its ring stops its path with the fault's name`(wrong: Wrong, how: (format: Features, copies: Bool)) throws {
    let format = how.format
    let rig = try rig(format, copies: how.copies)
    rig.send(rig.frame(100))
    try rig.turn()
    rig.card.send()
    let isPacked = !format.isEmpty
    // Some place in the guest's memory that is no buffer's now.
    let place = rig.cell(1) + 2500
    let wanted: VirtqueueFault
    func offer(_ pieces: [PlainPackedDriver.Piece]) -> UInt16 {
      if isPacked {
        rig.packed.offer(pieces, id: 99)
        return 1
      }
      let heads = (0..<32).filter { UInt16($0) != rig.expected[0].id }
      for (n, piece) in pieces.enumerated() {
        rig.driver.describe(heads[n], piece.address, piece.count, flags: piece.flags | (n + 1 < pieces.count ? 1 : 0), next: UInt16(heads[n + 1]))
      }
      rig.driver.offer(UInt16(heads[0]))
      return UInt16(heads[0])
    }
    switch wrong {
    case .writable: wanted = .writableBuffer(head: offer([.init(place, 100)]))
    case .writableLater: wanted = .writableBuffer(head: offer([.init(place, 12, flags: 0), .init(place, 100, flags: 2)]))
    case .outside:
      _ = offer([.init(0x8000_0000, 100, flags: 0)])
      wanted = .outsideMemory(GuestRange(GuestAddress(0x8000_0000), count: 100))
    case .small: wanted = .bufferTooSmall(head: offer([.init(place, 11, flags: 0)]), byteCount: 11)
    case .loop:
      if isPacked {
        for n in 1..<33 { rig.packed.describe(n, .init(place, 100), id: 1, flags: 1) }
        wanted = .malformedChain(head: 1)
      } else {
        rig.driver.describe(7, place, 100, flags: 1, next: 7)
        rig.driver.offer(7)
        wanted = .malformedChain(head: 7)
      }
    case .table: wanted = .badIndirectTable(head: offer([.init(place, 24, flags: 4)]))
    case .headTwice:
      guard !isPacked else { return }
      rig.driver.offer(rig.expected[0].id)
      wanted = .headOutstanding(rig.expected[0].id)
    case .ranAhead:
      guard !isPacked else { return }
      rig.driver.availableIndex &+= 33
      rig.driver.publish()
      wanted = .indexRanAhead(from: 1, to: 34)
    }
    for _ in 0..<3 { _ = rig.withPath { $0.turn() } }
    #expect(rig.path.stopReason == .virtqueue(wanted))
    try rig.withPath { try $0.stop(.requested) }
    #expect(rig.path.counters.sentFrames == 1 && rig.path.outstandingBuffers == 0)
    #expect(rig.card.sent.count == 1 && rig.card.complaints.isEmpty)
  }

  @Test func `a frame is where it was when it was taken, whatever its descriptor says later`() throws {
    for format in Self.formats {
      let rig = try rig(format)
      let frame = rig.frame(300)
      rig.send(frame, split: [12])
      try rig.turn()
      // Both of its descriptors.
      for n in 0..<32 {
        if format.isEmpty { rig.driver.describe(n, 0x8000_0000, 5, flags: 3) } else if n < 2 { rig.packed.describe(n, .init(0x8000_0000, 5), id: 3, flags: 3) }
      }
      rig.card.send()
      try rig.check()
      _ = rig.withPath { $0.turn() }
      #expect(rig.card.sent == [frame] && rig.path.stopReason == nil)
    }
  }

  // MARK: All of it

  @Test(arguments: formats, [1, 2, 8, 64, 256])
  func `whatever a guest sends is sent whole and in order, or refused with its reason`(format: Features, size: Int) throws {
    try withSeeds(size > 64 ? 15 : 40) { random in
      var features = format.union([.version1, .indirectDescriptors])
      if random.once(in: 2) { features.insert(.eventIndex) }
      let rig = try TransmitRig(
        size: size, capacity: random.pick([1, 3, 20, 256]), features: features, copies: random.once(in: 4),
        base: random.pick([0, 65530]), first: random.pick([0, size - 1, 2 * size - 1]),
        hostBuffers: random.pick([1, 4, 64]), pieceLimit: random.pick([1, 3, 40]), random: SeededGenerator(seed: random.next()))
      if random.once(in: 3) {
        let salt = random.next()
        rig.refuse { ($0 >> 12 ^ salt) % 3 == 0 }
      }
      for turn in 0..<40 {
        // What was offered before and not taken would be another ring's.
        if random.once(in: 6), rig.path.outstandingBuffers + rig.returned == rig.expected.count { rig.discards.toggle() }
        for _ in 0..<random.pick([0, 1, 3, size]) {
          let count = random.pick([0, 13, 14, 16, 17, 60, 100, 1000, 1517, 1518, 1519, 2000, random.int(0...1600)])
          let split = (0..<random.pick([0, 0, 1, 2, 20])).map { _ in random.pick([0, 1, 3, 11, 12, 13, 60, 200]) }
          var header = TransmitRig.plainHeader
          if random.once(in: 8) { header[random.int(0...11)] = UInt8(random.int(0...255)) }
          if !rig.send(rig.frame(count), header: header, split: split, gap: random.pick([0, 1]), indirect: random.once(in: 3)) { break }
        }
        try rig.turn()
        rig.card.send(random.pick([0, 1, 5, .max]))
        if turn % 8 == 7 { try rig.checkMemory() }
      }
      // With one host buffer a frame takes two turns.
      for _ in 0..<2 * rig.expected.count + 2 where rig.returned < rig.expected.count {
        rig.card.send()
        try rig.turn()
      }
      try rig.check()
      try rig.checkMemory()
      try check(rig.returned, is: rig.expected.count, "frames back")
    }
  }
}
