import Bus
@testable import Datapath
import GuestMemory
import NIC
import Support
import Virtio

/// A guest, a card, the path between them, and the reference that says what it should do.
final class Rig {
  static let ringStart: UInt64 = 0x40_0000
  static let cellBytes = 4700

  let memory: PlainMemory
  /// The driver's side of the queue, in one of the formats.
  private let split: PlainDriver?
  private let packedDriver: PlainPackedDriver?
  let space = FakeAddressSpace()
  let card: FakeCard
  let window: DMAWindow
  let features: Features
  private let size: Int
  private let base: UInt16
  private let first: Int
  var path: ReceivePath<FakeQueue>
  let reference: ReferencePath

  /// The first byte of the buffers' cells, one each head; some cell lies across two regions.
  private let arena: UInt64
  /// Split: entries of the table. Packed: cells.
  private var freeEntries: [Int]
  private var entriesOf: [Int: [Int]] = [:]
  private var seenUsed: UInt16
  private var seen = 0
  /// Packed: of every buffer in the order they were offered, the number of its first descriptor, and of the one behind it.
  private var numbers: [(first: Int, end: Int)] = []
  private var isPacked: Bool { features.contains(.ringPacked) }
  var driver: PlainDriver { split! }
  var packed: PlainPackedDriver { packedDriver! }
  var random: SeededGenerator

  init(
    size: Int, capacity: Int, mode: PathMode = .auto, features: Features = [.version1, .indirectDescriptors],
    base: UInt16 = 0, first: Int = 0, hostBuffers: Int = 64, largestFrame: Int = 1518, random: SeededGenerator
  ) throws {
    self.random = random
    self.features = features
    self.size = size
    (self.base, self.first) = (base, first)
    let bytes = (size * Self.cellBytes + 8191) & ~4095
    let half = (bytes / 2 + 4095) & ~4095
    let start: UInt64 = 0x10_0000
    let tables = 0x1000 + size * 48 + size * 512
    memory = try PlainMemory(
      [(start, half), (start + UInt64(half), half + 4096), (Self.ringStart, (tables + 4095) & ~4095)], &self.random)
    // The cell in the middle begins somewhat before the edge.
    let before = self.random.int(1...4000) + size / 2 * Self.cellBytes
    arena = start + UInt64(max(half - before, 0))
    let behind = Self.ringStart + 16 * UInt64(size)
    let layout: RingLayout
    let ringBase: RingBase
    if features.contains(.ringPacked) {
      layout = RingLayout(
        size: size, descriptorArea: GuestAddress(Self.ringStart), driverArea: GuestAddress(behind),
        deviceArea: GuestAddress(behind + 4))
      let driver = PlainPackedDriver(layout, in: memory, first: first)
      (split, packedDriver) = (nil, driver)
      ringBase = RingBase(packed: driver.position(first))
    } else {
      layout = RingLayout(
        size: size, descriptorArea: GuestAddress(Self.ringStart), driverArea: GuestAddress(behind),
        deviceArea: GuestAddress((behind + 6 + 2 * UInt64(size) + 3) & ~3))
      (split, packedDriver) = (PlainDriver(SplitRingLayout(layout), in: memory, base: base), nil)
      ringBase = RingBase(split: base)
    }
    freeEntries = Array((0..<size).shuffled(using: &self.random))
    seenUsed = base
    card = FakeCard(space: space, capacity: capacity, largestFrame: largestFrame)
    window = try DMAWindow(number: 1, map: memory.map, in: space)
    path = try ReceivePath(
      layout: layout, features: features, base: ringBase, window: window, queue: FakeQueue(card), space: space,
      allocator: IOVAAllocator(), mode: mode, bounceBuffers: hostBuffers)
    path.core.hopePatience = ReferencePath.patience
    reference = ReferencePath(
      memory: memory, largestFrame: largestFrame, capacity: capacity, mode: mode, features: features,
      hostBuffers: hostBuffers, queueSize: size)
    // Kicks are off from the start. virtio 1.3, 2.7.10, 2.8.10.
    if isPacked {
      memory.foresee(layout.deviceArea.rawValue, [0, 0, 1, 0])
    } else if features.contains(.eventIndex) {
      memory.foresee(layout.deviceArea.rawValue + 4 + 8 * UInt64(size), littleEndian(UInt64(base &- 1), 2))
    } else {
      memory.foresee(layout.deviceArea.rawValue, [1, 0])
    }
  }

  // MARK: The guest

  /// Buffers that the guest can still post in one entry of its table.
  var freeHeads: Int { freeEntries.count }
  func cell(_ head: Int) -> UInt64 { arena + UInt64(head * Self.cellBytes) }

  /// Posts a buffer of pieces so long, with so much space before each; false if the table is full.
  @discardableResult func post(_ lengths: [Int], gaps: [Int] = [], indirect: Bool = false) -> Bool {
    if isPacked { return postPacked(lengths, gaps, indirect) }
    let needed = indirect ? 1 : lengths.count
    guard freeEntries.count >= needed, lengths.count <= size else { return false }
    let entries = Array(freeEntries.suffix(needed))
    freeEntries.removeLast(needed)
    let head = entries[0]
    entriesOf[head] = entries
    let table = table(head)
    var address = cell(head)
    var pieces: [(start: UInt64, count: Int)] = []
    var isCut = false
    for (n, length) in lengths.enumerated() {
      address += UInt64(n < gaps.count ? gaps[n] : 0)
      let flags = PlainDriver.write | (n + 1 < lengths.count ? PlainDriver.next : 0)
      let next = n + 1 < lengths.count ? (indirect ? n + 1 : entries[n + 1]) : 0
      driver.describe(
        indirect ? n : entries[n], address, UInt32(length), flags: flags, next: UInt16(next),
        table: indirect ? table : nil)
      let cut = memory.pieces(address, length)!
      if cut.count > 1 { isCut = true }
      pieces += cut
      address += UInt64(length)
    }
    precondition(address <= cell(head) + UInt64(Self.cellBytes))
    if indirect { driver.describe(head, table, UInt32(16 * lengths.count), flags: PlainDriver.indirect) }
    driver.offer(UInt16(head))
    reference.available.append(ReferencePath.Buffer(id: UInt16(head), pieces: pieces, isCut: isCut))
    return true
  }

  private func postPacked(_ lengths: [Int], _ gaps: [Int], _ indirect: Bool) -> Bool {
    guard packed.room >= (indirect ? 1 : lengths.count), lengths.count <= size, let index = freeEntries.popLast() else {
      return false
    }
    // Any 16 bits that the driver can tell from the others'.
    var id = UInt16.random(in: 0...(.max), using: &random)
    while entriesOf[Int(id)] != nil { id &+= 1 }
    entriesOf[Int(id)] = [index]
    var address = cell(index)
    var pieces: [(start: UInt64, count: Int)] = []
    var descriptors: [PlainPackedDriver.Piece] = []
    var isCut = false
    for (n, length) in lengths.enumerated() {
      address += UInt64(n < gaps.count ? gaps[n] : 0)
      descriptors.append(.init(address, UInt32(length)))
      let cut = memory.pieces(address, length)!
      if cut.count > 1 { isCut = true }
      pieces += cut
      address += UInt64(length)
    }
    precondition(address <= cell(index) + UInt64(Self.cellBytes))
    let number = packed.offered
    if indirect {
      let table = table(index)
      for (n, piece) in descriptors.enumerated() { packed.describe(table: table, n, piece, id: id &+ 1) }
      descriptors = [.init(table, UInt32(16 * lengths.count), flags: PlainDriver.indirect)]
    }
    packed.offer(descriptors, id: id)
    numbers.append((number, packed.offered))
    reference.available.append(ReferencePath.Buffer(id: id, pieces: pieces, isCut: isCut))
    return true
  }
  /// Where the indirect table of a head, or of a cell, lies.
  func table(_ index: Int) -> UInt64 { Self.ringStart + 0x1000 + UInt64(size * 48 + index * 512) }
  /// The first byte of a buffer that is out, by its ID.
  func cell(of id: UInt16) -> UInt64 { cell(isPacked ? entriesOf[Int(id)]![0] : Int(id)) }

  /// Takes back what the path returned, and holds it against the reference: each once, in order, with its length.
  func harvest() throws {
    while isPacked, let found = packed.takeUsed() {
      try check(seen < reference.used.count, "returned \(found) that should not be back")
      let (id, byteCount) = reference.used[seen]
      try check(
        found, is: .init(id: id, byteCount: UInt32(byteCount), isWritten: byteCount > 0), "used descriptor \(seen)")
      freeEntries += entriesOf.removeValue(forKey: Int(id))!
      seen += 1
    }
    if isPacked { return try check(seen, is: reference.used.count, "buffers returned") }
    let index = driver.usedIndex
    while seenUsed != index {
      let element = driver.usedElement(seenUsed)
      try check(seen < reference.used.count, "returned \(element) that should not be back")
      let wanted = reference.used[seen]
      try check(element.id, is: UInt32(wanted.id), "id of used element \(seen)")
      try check(Int(element.byteCount), is: wanted.byteCount, "bytes of used element \(seen)")
      freeEntries += entriesOf.removeValue(forKey: Int(wanted.id))!
      seen += 1
      seenUsed &+= 1
    }
    try check(seen, is: reference.used.count, "buffers returned")
  }

  // MARK: The card

  private var number: UInt8 = 0
  func frame(_ count: Int) -> [UInt8] {
    number &+= 1
    var bytes = [UInt8](repeating: number, count: count)
    for n in stride(from: 0, to: count, by: 7) { bytes[n] = UInt8(truncatingIfNeeded: n &* 31) ^ number }
    return bytes
  }
  @discardableResult func receive(
    _ bytes: [UInt8], claiming count: UInt32? = nil, flags: Completion.Flags = .isEnd
  ) -> Bool {
    guard card.receive(bytes, claiming: count, flags: flags) else { return false }
    reference.receive(bytes, Completion(byteCount: count ?? UInt32(bytes.count), flags: flags))
    return true
  }

  // MARK: Both

  /// Which addresses of the guest's the card cannot reach from now on. Its host buffers it always can.
  func refuse(_ refuses: @escaping (UInt64) -> Bool) {
    reference.refuses = refuses
    let base = window.base.rawValue
    card.refuses = { $0.rawValue >= base && refuses($0.rawValue - base) }
  }

  /// One turn of the path and of the reference, and everything that must hold after it.
  func turn() throws {
    let hadStopped = reference.stopReason != nil
    let (moves, progress) = (reference.moves, path.progress)
    reference.lend()
    _ = path.turn()
    // Whatever the card received when its doorbell rang is in the reference by now.
    if !hadStopped {
      reference.settle(shown: max(0, reference.slots.count { $0.completion != nil } - card.hidden))
    }
    if reference.stopReason == nil {
      try check(path.progress != progress, is: reference.moves != moves, "whether something moved")
    }
    seeUsedRing()
    try harvest()
    try checkLaws()
  }
  /// The reference's view of the used ring, as bytes.
  func seeUsedRing() {
    if isPacked {
      for n in seen..<max(reference.used.count, seen) {
        let (id, byteCount) = reference.used[n]
        let flags: UInt64 = (packed.both(numbers[n].first) ? 0x8080 : 0) | (byteCount > 0 ? 2 : 0)
        memory.foresee(
          packed.place(numbers[n].first) + 8,
          littleEndian(UInt64(byteCount), 4) + littleEndian(UInt64(id), 2) + littleEndian(flags, 2))
      }
      return
    }
    memory.foresee(driver.used + 2, littleEndian(UInt64(base &+ UInt16(truncatingIfNeeded: reference.used.count)), 2))
    for n in seen..<max(reference.used.count, seen) {
      let place = driver.used + 4 + 8 * UInt64((Int(base) + n) % size)
      memory.foresee(
        place, littleEndian(UInt64(reference.used[n].id), 4) + littleEndian(UInt64(reference.used[n].byteCount), 4))
    }
  }
  /// The areas of the ring that the device writes: what a log marks of them.
  var ringArea: (start: UInt64, count: Int) { isPacked ? (packed.ring, 16 * size) : (driver.used, 6 + 8 * size) }

  /// Where a successor goes on: after everything that went back.
  var wantedBase: RingBase {
    guard isPacked else { return RingBase(split: base &+ UInt16(truncatingIfNeeded: reference.used.count)) }
    return RingBase(packed: packed.position(reference.used.isEmpty ? first : numbers[reference.used.count - 1].end))
  }

  func checkLaws() throws {
    let counters = path.counters
    try check(card.complaints, is: [], "the card's complaints")
    try check(path.outstandingBuffers, is: reference.places.count, "guest buffers out")
    try check(path.outstandingSlots, is: reference.slots.count, "slots out")
    try check(card.posted.count, is: reference.slots.count, "posted")
    try check(path.base, is: wantedBase, "base")
    try check(path.stopReason, is: reference.stopReason, "stop reason")
    try check(path.settledFrames, is: reference.frames, "settled frames")
    try check(Int(counters.lentFrames), is: reference.delivered[nil] ?? 0, "lent frames")
    for reason in BounceReason.allCases {
      try check(Int(counters.bounced(reason)), is: reference.delivered[reason] ?? 0, "bounced: \(reason.name)")
    }
    for drop in PathDrop.allCases {
      try check(Int(counters.dropped(drop)), is: reference.drops[drop] ?? 0, "dropped: \(drop.name)")
    }
    try check(Int(counters.postedBuffers), is: reference.slots.count, "posted now")
    try check(Int(counters.returnedEmpty), is: reference.empties, "returned empty")
    try check(counters.deliveredFrames + counters.droppedFrames, is: reference.frames, "conservation of frames")
  }
  func checkMemory() throws {
    if let surprise = memory.firstSurprise() { throw Mismatch(surprise) }
    while let number = path.drops.next() {
      try check(!reference.dropNumbers.isEmpty, "drop \(number) out of nowhere")
      try check(number, is: reference.dropNumbers.removeFirst(), "number of a dropped frame")
    }
    try check(reference.dropNumbers.count, is: 0, "drops that were not logged")
  }
}
