import Bus
import Datapath
import GuestMemory
import NIC
import Support
import Virtio

/// A guest that sends, a card, the path between them, and what should become of every frame: worked out from the
/// guest's side, byte by byte.
final class TransmitRig {
  static let ringStart: UInt64 = 0x40_0000
  static let cellBytes = 4700

  enum Fate: Hashable {
    case lent
    case copied(CopyReason)
    case dropped(TransmitDrop)
  }
  struct Expected {
    var id: UInt16
    var fate: Fate
    /// As the guest gave it, and as it is sent.
    var byteCount: Int
    var wire: [UInt8]
    /// Where its pieces lie on the bus if it is lent.
    var pieces: [(address: UInt64, count: Int)]
    /// Its first 64 bytes are in a host buffer.
    var hasHead = false
  }

  let memory: PlainMemory
  let space = FakeAddressSpace()
  let card: FakeTransmitCard
  let window: DMAWindow
  let features: Features
  let layout: RingLayout
  let copies: Bool
  let sourceCheck: SourceCheck
  private(set) var path: TransmitPath<FakeTransmitQueue>
  private let size: Int
  private let pieceLimit: Int
  private let base: UInt16
  private let first: Int
  private let split: PlainDriver?
  private let packedDriver: PlainPackedDriver?
  var driver: PlainDriver { split! }
  var packed: PlainPackedDriver { packedDriver! }
  private var isPacked: Bool { features.contains(.ringPacked) }
  private let arena: UInt64
  private var freeEntries: [Int]
  private var entriesOf: [Int: [Int]] = [:]
  private var numbers: [(first: Int, end: Int)] = []
  private var seenUsed: UInt16
  var random: SeededGenerator

  /// Every frame that was offered, in order; how many went back, and how many of those sent the card's list has.
  private(set) var expected: [Expected] = []
  private(set) var returned = 0
  private var checkedSent = 0
  var discards = false {
    didSet { path.discards = discards }
  }

  init(
    size: Int, capacity: Int, features: Features = [.version1, .indirectDescriptors], copies: Bool = false,
    base: UInt16 = 0, first: Int = 0, hostBuffers: Int = 16, pieceLimit: Int = 40, check: SourceCheck = .none,
    frameByteCounts: ClosedRange<UInt32> = 17...1518, random: SeededGenerator
  ) throws {
    self.random = random
    self.features = features
    self.copies = copies
    sourceCheck = check
    self.size = size
    (self.base, self.first, seenUsed) = (base, first, base)
    let half = (size * Self.cellBytes / 2 + 8191) & ~4095
    let start: UInt64 = 0x10_0000
    let tables = 0x1000 + size * 48 + size * 1024
    memory = try PlainMemory(
      [(start, half), (start + UInt64(half), half), (Self.ringStart, (tables + 4095) & ~4095)], &self.random)
    // The cell in the middle lies across two regions.
    arena = start + UInt64(max(half - size / 2 * Self.cellBytes - 700, 0))
    let behind = Self.ringStart + 16 * UInt64(size)
    let start2: RingBase
    if features.contains(.ringPacked) {
      layout = RingLayout(
        size: size, descriptorArea: GuestAddress(Self.ringStart), driverArea: GuestAddress(behind),
        deviceArea: GuestAddress(behind + 4))
      let driver = PlainPackedDriver(layout, in: memory, first: first)
      (split, packedDriver) = (nil, driver)
      start2 = RingBase(packed: driver.position(first))
    } else {
      layout = RingLayout(
        size: size, descriptorArea: GuestAddress(Self.ringStart), driverArea: GuestAddress(behind),
        deviceArea: GuestAddress((behind + 6 + 2 * UInt64(size) + 3) & ~3))
      (split, packedDriver) = (PlainDriver(SplitRingLayout(layout), in: memory, base: base), nil)
      start2 = RingBase(split: base)
    }
    freeEntries = Array((0..<size).shuffled(using: &self.random))
    card = FakeTransmitCard(
      space: space, capacity: capacity, pieceLimit: pieceLimit, frameByteCounts: frameByteCounts)
    self.pieceLimit = min(pieceLimit, 16, capacity)
    window = try DMAWindow(number: 1, map: memory.map, in: space)
    var view = MemoryView(memory.map)
    let queue = try Virtqueue(layout, features: features, base: start2, in: &view)
    path = TransmitPath(
      virtqueue: queue, window: window,
      parts: try TransmitParts(
        queue: FakeTransmitQueue(card), space: space, allocator: IOVAAllocator(), bounceBuffers: hostBuffers),
      copies: copies, check: check)
    foreseeNotifications()
  }
  private func foreseeNotifications() {
    if isPacked {
      memory.foresee(layout.deviceArea.rawValue, [0, 0, 1, 0])
    } else if features.contains(.eventIndex) {
      memory.foresee(layout.deviceArea.rawValue + 4 + 8 * UInt64(size), littleEndian(UInt64(base &- 1), 2))
    } else {
      memory.foresee(layout.deviceArea.rawValue, [1, 0])
    }
  }

  private var refuses: (UInt64) -> Bool = { _ in false }

  // MARK: The guest

  func cell(_ index: Int) -> UInt64 { arena + UInt64(index * Self.cellBytes) }
  func table(_ index: Int) -> UInt64 { Self.ringStart + 0x1000 + UInt64(size * 48 + index * 1024) }
  static let plainHeader = [UInt8](repeating: 0, count: 12)

  /// Offers header and frame split into pieces so long; what the pieces leave over is one more. False if there is no room.
  @discardableResult func send(
    _ frame: [UInt8], header: [UInt8] = plainHeader, split lengths: [Int] = [], gap: Int = 0, indirect: Bool = false
  ) -> Bool {
    let bytes = header + frame
    var counts: [Int] = []
    var left = bytes.count
    for length in lengths where left > 0 {
      counts.append(min(length, left))
      left -= counts.last!
    }
    if left > 0 || counts.isEmpty { counts.append(left) }
    let needed = indirect ? 1 : counts.count
    guard counts.count <= size, isPacked ? packed.room >= needed && !freeEntries.isEmpty : freeEntries.count >= needed
    else { return false }
    let entries = Array(freeEntries.suffix(isPacked ? 1 : needed))
    freeEntries.removeLast(entries.count)
    var (address, done) = (cell(entries[0]), 0)
    var (pieces, places): ([PlainPackedDriver.Piece], [(address: UInt64, count: Int)]) = ([], [])
    var isCut = false
    for count in counts {
      memory.write(address, Array(bytes[done..<done + count]))
      pieces.append(.init(address, UInt32(count), flags: 0))
      if memory.pieces(address, count)!.count > 1 { isCut = true }
      if count > 0 { places.append((address, count)) }
      address += UInt64(count + gap)
      done += count
    }
    precondition(address <= cell(entries[0]) + UInt64(Self.cellBytes) + UInt64(gap))
    let id = isPacked ? offerPacked(pieces, entries[0], indirect) : offerSplit(pieces, entries, indirect)
    expected.append(expectation(id, header: header, frame: frame, places, isCut: isCut))
    return true
  }
  private func offerSplit(_ pieces: [PlainPackedDriver.Piece], _ entries: [Int], _ indirect: Bool) -> UInt16 {
    let head = entries[0]
    entriesOf[head] = entries
    for (n, piece) in pieces.enumerated() {
      let isLast = n + 1 == pieces.count
      driver.describe(
        indirect ? n : entries[n], piece.address, piece.count, flags: isLast ? 0 : PlainDriver.next,
        next: isLast ? 0 : UInt16(indirect ? n + 1 : entries[n + 1]), table: indirect ? table(head) : nil)
    }
    if indirect { driver.describe(head, table(head), UInt32(16 * pieces.count), flags: PlainDriver.indirect) }
    driver.offer(UInt16(head))
    return UInt16(head)
  }
  private func offerPacked(_ pieces: [PlainPackedDriver.Piece], _ index: Int, _ indirect: Bool) -> UInt16 {
    var id = UInt16.random(in: 0...(.max), using: &random)
    while entriesOf[Int(id)] != nil { id &+= 1 }
    entriesOf[Int(id)] = [index]
    let number = packed.offered
    if indirect {
      for (n, piece) in pieces.enumerated() { packed.describe(table: table(index), n, piece) }
      packed.offer([.init(table(index), UInt32(16 * pieces.count), flags: PlainDriver.indirect)], id: id)
    } else {
      packed.offer(pieces, id: id)
    }
    numbers.append((number, packed.offered))
    return id
  }

  /// virtio 1.3, 5.1.6.2, and what the card takes.
  private func expectation(
    _ id: UInt16, header: [UInt8], frame: [UInt8], _ places: [(address: UInt64, count: Int)], isCut: Bool
  ) -> Expected {
    var wire = frame
    var pieces = places
    var strip = 12
    while strip > 0 {
      let count = min(strip, pieces[0].count)
      pieces[0] = (pieces[0].address + UInt64(count), pieces[0].count - count)
      if pieces[0].count == 0 { pieces.removeFirst() }
      strip -= count
    }
    let fate: Fate
    if discards { fate = .dropped(.ringDisabled) }
    else if frame.count < 14 { fate = .dropped(.runt) }
    else if frame.count > card.frameByteCounts.upperBound { fate = .dropped(.tooLong) }
    else if header[0] & 1 == 1 || header[1] != 0 { fate = .dropped(.offload) }
    else if let checked = checked(frame, pieces.count, isCut: isCut) {
      if checked.hasHead {
        var skip = 64
        while skip > 0 {
          let count = min(skip, pieces[0].count)
          pieces[0] = (pieces[0].address + UInt64(count), pieces[0].count - count)
          if pieces[0].count == 0 { pieces.removeFirst() }
          skip -= count
        }
      }
      if case .dropped = checked.fate {} else {
        let least = Int(card.frameByteCounts.lowerBound)
        wire = checked.wire + [UInt8](repeating: 0, count: max(0, (frame.count < least ? max(60, least) : least) - checked.wire.count))
      }
      return Expected(
        id: id, fate: checked.fate, byteCount: frame.count, wire: wire, pieces: pieces, hasHead: checked.hasHead)
    }
    else if copies { fate = .copied(.copyMode) }
    else if frame.count < card.frameByteCounts.lowerBound { fate = .copied(.padded) }
    else if isCut { fate = .copied(.crossesRegions) }
    else if pieces.count > pieceLimit { fate = .copied(.fragmented) }
    else if pieces.contains(where: { refuses($0.address) }) { fate = .copied(.notMapped) }
    else { fate = .lent }
    if case .dropped = fate { wire = [] } else if frame.count < card.frameByteCounts.lowerBound {
      wire += [UInt8](repeating: 0, count: max(60, Int(card.frameByteCounts.lowerBound)) - frame.count)
    }
    return Expected(id: id, fate: fate, byteCount: frame.count, wire: wire, pieces: pieces)
  }

  /// What the check says of a frame, worked out apart from the path; nil: the frame goes the usual way.
  private func checked(_ frame: [UInt8], _ pieces: Int, isCut: Bool) -> (fate: Fate, wire: [UInt8], hasHead: Bool)? {
    let check = sourceCheck
    let tag: Int? = frame.count >= 18 && frame[12] == 0x81 && frame[13] == 0 ? (Int(frame[14]) << 8 | Int(frame[15])) & 0xFFF : nil
    let limit = card.frameByteCounts.upperBound - (check.isAccessPort ? 4 : 0)
    let looksAtAll = check.address != nil || check.vlan != nil && !check.isAccessPort
    guard looksAtAll || check.isAccessPort else { return nil }
    let looksTagged = frame[12] == 0x81 && frame[13] == 0
    if !looksAtAll && !looksTagged { return frame.count > limit ? (.dropped(.tooLong), [], false) : nil }
    if let address = check.address, address != frame[6..<12].reduce(0, { $0 << 8 | UInt64($1) }) { return (.dropped(.spoofed), [], false) }
    if let vlan = check.vlan {
      if check.isAccessPort {
        if looksTagged && tag != Int(vlan) && tag != 0 { return (.dropped(.spoofed), [], false) }
        if looksTagged { return (.copied(.tagRemoved), Array(frame[..<12] + frame[16...]), false) }
      } else if tag != Int(vlan) {
        return (.dropped(.spoofed), [], false)
      }
    }
    if frame.count > limit { return (.dropped(.tooLong), [], false) }
    if copies { return (.copied(.copyMode), frame, false) }
    if frame.count <= 256 || isCut || pieces >= pieceLimit { return (.copied(.sourceCheck), frame, false) }
    return (.lent, frame, true)
  }

  private var number: UInt8 = 0
  func frame(_ count: Int) -> [UInt8] {
    number &+= 1
    var bytes = [UInt8](repeating: number, count: count)
    for n in stride(from: 0, to: count, by: 5) { bytes[n] = UInt8(truncatingIfNeeded: n &* 29) ^ number }
    return bytes
  }

  // MARK: Both

  /// Which addresses of the guest's the card cannot reach. Its host buffers it always can. Precondition: nothing was sent.
  func refuse(_ refuses: @escaping (UInt64) -> Bool) {
    self.refuses = refuses
    let base = window.base.rawValue
    card.refuses = { $0.rawValue >= base && refuses($0.rawValue - base) }
  }

  /// One turn, and everything that must hold after it.
  func turn() throws {
    _ = path.turn()
    try check()
  }

  func check() throws {
    try Support.check(card.complaints, is: [], "the card's complaints")
    // The wire has what should go over it, in order.
    let wanted = expected.filter { if case .dropped = $0.fate { false } else { true } }
    while checkedSent < card.sent.count {
      try Support.check(card.sent[checkedSent], is: wanted[checkedSent].wire, "frame \(checkedSent) on the wire")
      checkedSent += 1
    }
    try checkPosted(wanted)
    try harvest()
    try checkCounters()
  }

  /// What is with the card lies where the guest put it, or in a host buffer, as it should.
  private func checkPosted(_ wanted: [Expected]) throws {
    let offset = path.counters.sentFrames
    for (n, frame) in card.posted.enumerated() where card.posted.count == path.postedFrames {
      let expected = wanted[Int(offset) + n]
      if expected.fate == .lent {
        if expected.hasHead {
          try Support.check(frame.pieces[0].byteCount, is: 64, "bytes of the head")
          try Support.check(frame.pieces[0].address < window.base, "a head lies in the guest's memory")
        }
        try Support.check(
          frame.pieces.dropFirst(expected.hasHead ? 1 : 0).map { "\($0.address.rawValue - window.base.rawValue)+\($0.byteCount)" },
          is: expected.pieces.map { "\($0.address)+\($0.count)" }, "pieces of a lent frame")
      } else {
        try Support.check(frame.pieces.count, is: 1, "pieces of a copied frame")
        try Support.check(frame.pieces[0].address < window.base, "a copied frame lies in the guest's memory")
      }
    }
  }

  private func harvest() throws {
    while true {
      if isPacked {
        guard let used = packed.takeUsed() else { break }
        try Support.check(used, is: .init(id: expected[returned].id, byteCount: 0, isWritten: false), "used \(returned)")
        let flags: UInt64 = packed.both(numbers[returned].first) ? 0x8080 : 0
        memory.foresee(
          packed.place(numbers[returned].first) + 8,
          littleEndian(0, 4) + littleEndian(UInt64(used.id), 2) + littleEndian(flags, 2))
      } else {
        guard seenUsed != driver.usedIndex else { break }
        let used = driver.usedElement(seenUsed)
        try Support.check(used.id, is: UInt32(expected[returned].id), "id of used element \(returned)")
        try Support.check(used.byteCount, is: 0, "length of used element \(returned)")
        memory.foresee(driver.used + 4 + 8 * UInt64(Int(seenUsed) % size), littleEndian(UInt64(used.id), 8))
        seenUsed &+= 1
        memory.foresee(driver.used + 2, littleEndian(UInt64(seenUsed), 2))
      }
      freeEntries += entriesOf.removeValue(forKey: Int(expected[returned].id))!
      returned += 1
    }
  }

  private func checkCounters() throws {
    let back = expected[..<returned]
    let counters = path.counters
    try Support.check(Int(counters.lentFrames), is: back.count { $0.fate == .lent }, "lent")
    for reason in CopyReason.allCases {
      try Support.check(Int(counters.copied(reason)), is: back.count { $0.fate == .copied(reason) }, reason.name)
    }
    for drop in TransmitDrop.allCases {
      try Support.check(Int(counters.dropped(drop)), is: back.count { $0.fate == .dropped(drop) }, drop.name)
    }
    let lentBytes = back.filter { $0.fate == .lent }.reduce(0) { $0 + $1.byteCount }
    try Support.check(Int(counters.lentBytes), is: lentBytes, "lent bytes")
    try Support.check(Int(counters.sentFrames + counters.droppedFrames), is: returned, "conservation of buffers")
    // Nothing goes back before the card is done with it.
    try Support.check(Int(counters.sentFrames) <= card.sent.count, "a frame went back before it was sent")
    try Support.check(path.base, is: wantedBase, "base")
    try Support.check(path.postedFrames, is: Int(counters.postedFrames), "posted")
  }
  var wantedBase: RingBase {
    guard isPacked else { return RingBase(split: base &+ UInt16(truncatingIfNeeded: returned)) }
    return RingBase(packed: packed.position(returned == 0 ? first : numbers[returned - 1].end))
  }

  func checkMemory() throws {
    if let surprise = memory.firstSurprise() { throw Mismatch(surprise) }
  }

  func withPath<Result>(_ body: (inout TransmitPath<FakeTransmitQueue>) throws -> Result) rethrows -> Result {
    try body(&path)
  }

  /// Takes a stopped path away for another one over the same ring.
  func follow() throws {
    var view = MemoryView(memory.map)
    let queue = try Virtqueue(layout, features: features, base: path.base, in: &view)
    path = TransmitPath(
      virtqueue: queue, window: window,
      parts: try TransmitParts(queue: FakeTransmitQueue(card), space: space, allocator: IOVAAllocator(from: IOVA(1 << 31))),
      copies: copies, check: sourceCheck)
    card.restart()
  }
}
