internal import CLinux
internal import GuestMemory
internal import Virtio

/// One receive queue of a guest, as its driver runs it: posts buffers, takes frames, says when to be told.
/// virtio 1.3, 2.7.13 "Supplying Buffers to The Device" and 2.7.14 "Receiving Used Buffers From The Device".
///
/// The device is not trusted: what it writes is checked before it is used, and each fault has a name.
/// Everything the queue knows lies in tables of its own, never in memory that the device can write.
///
/// What runs for each frame is `mutating` even where it changes nothing: the compiler hands a large struct to
/// a function that only borrows it as a copy on the stack, some hundred bytes a call.
struct GuestReceiveQueue: ~Copyable {
  /// Frames taken in one step, as a poll of Linux's NAPI.
  static let budget = 64
  /// In `bufferOf`: the device does not have this descriptor.
  private static let nobody = UInt32.max
  /// In `order`: returned before its turn. No ring has a descriptor of this number.
  private static let hole = UInt16.max

  private let number: Int
  private let ring: DriverRing
  private let mask: Int
  private let piecesPerBuffer: Int
  private let descriptorsPerBuffer: Int
  private let refillThreshold: Int
  private var pace: SimulatedGuest.Pace
  private let canary: UInt8?
  private let log: ViolationLog
  private let page: CounterPage
  private let isMergeable: Bool
  private let usesEventIndex: Bool
  private let mayVouchForChecksums: Bool
  /// A buffer is one descriptor, and nothing is to be checked but what every frame shows.
  private let isPlain: Bool

  /// Every buffer's pieces, `piecesPerBuffer` to a buffer, and its bytes in all.
  private let pieces: PrivateTable<BufferPiece>
  private let capacities: PrivateTable<UInt32>
  private let indirectTables: IndirectTables?
  /// Which buffer a descriptor at the head of a chain stands for.
  private let bufferOf: PrivateTable<UInt32>
  /// The descriptor after this one, in its chain or among the free ones.
  private let following: PrivateTable<UInt16>
  private var firstFree: UInt16 = 0
  private var freeDescriptors: Int
  /// Buffers that are not posted, the one that rested longest first.
  private let freeBuffers: PrivateTable<UInt32>
  private var firstFreeBuffer = 0
  private var freeBufferCount: Int
  /// The heads in the order in which they became available, at their place in the ring.
  private let order: PrivateTable<UInt16>
  private var holeCount = 0
  /// The buffers of the frame that is being taken.
  private let takenHeads: PrivateTable<UInt16>
  private let takenBuffers: PrivateTable<UInt32>
  private let takenLengths: PrivateTable<UInt32>
  private var takenCount = 0

  /// Free-running, as all indices of a ring.
  private var availableIndex: UInt16 = 0
  private var lastUsed: UInt16 = 0
  /// Where in the order of availability the next used buffer should be.
  private var expected: UInt16 = 0
  private var addedSinceKick = 0
  private var wantsNotifications = true
  /// The device broke its ring; nothing in it can be trusted any more.
  private var isBroken = false
  private var hasStalled = false

  private var delivery: FrameDelivery
  private var assembly = FrameAssembly()
  private var brokenFrames: UInt64 = 0
  private var buffersPosted: UInt64 = 0
  private var buffersTaken: UInt64 = 0

  init(
    number: Int, _ configuration: SimulatedGuest.Configuration, _ layout: GuestLayout,
    in memory: borrowing GuestMemoryFiles, features: Features, log: ViolationLog, page: CounterPage,
    sink: (any FrameSink)?
  ) {
    self.number = number
    self.log = log
    self.page = page
    ring = DriverRing(layout.rings[number], in: memory)
    let size = layout.rings[number].size
    mask = size - 1
    piecesPerBuffer = layout.piecesPerBuffer
    pace = configuration.pace
    canary = configuration.checksCanaries ? UInt8(truncatingIfNeeded: configuration.seed) | 0x81 : nil
    isMergeable = features.contains(.mergeableBuffers)
    usesEventIndex = features.contains(.eventIndex)
    mayVouchForChecksums = features.contains(.guestChecksum)
    isPlain = piecesPerBuffer == 1 && !configuration.checksCanaries
    delivery = FrameDelivery(queue: number, hashes: configuration.hashesFrames, sink: sink)

    let bufferCount = layout.buffersPerQueue
    pieces = PrivateTable(repeating: .none, count: bufferCount * piecesPerBuffer)
    capacities = PrivateTable(repeating: 0, count: bufferCount)
    freeBuffers = PrivateTable(repeating: 0, count: bufferCount)
    bufferOf = PrivateTable(repeating: Self.nobody, count: size)
    following = PrivateTable(repeating: 0, count: size)
    order = PrivateTable(repeating: Self.hole, count: size)
    takenHeads = PrivateTable(repeating: 0, count: size)
    takenBuffers = PrivateTable(repeating: 0, count: size)
    takenLengths = PrivateTable(repeating: 0, count: size)
    if features.contains(.indirectDescriptors), let tables = layout.indirectTables {
      indirectTables = unsafe IndirectTables(
        base: memory.host(tables[number], bufferCount * layout.indirectTableStride), address: tables[number].rawValue,
        entries: piecesPerBuffer, count: bufferCount)
      descriptorsPerBuffer = 1
    } else {
      indirectTables = nil
      descriptorsPerBuffer = piecesPerBuffer
    }
    refillThreshold = configuration.refillThreshold ?? min(Self.budget, size) / 2
    freeDescriptors = size
    freeBufferCount = bufferCount

    for index in 0..<size { following[index] = UInt16(truncatingIfNeeded: index + 1) }
    for (index, range) in layout.pieces[number].enumerated() {
      if canary == nil { memory.touch(range) }
      pieces[index] = unsafe BufferPiece(
        start: memory.host(range.start, Int(range.count)), address: range.start.rawValue, byteCount: range.count)
      capacities[index / piecesPerBuffer] += range.count
    }
    var buffers = (0..<UInt32(bufferCount)).map { $0 }
    if configuration.placement.isShuffled {
      var random = SplitMix(seed: configuration.seed &+ UInt64(number))
      buffers.shuffle(using: &random)
    }
    for (index, buffer) in buffers.enumerated() { freeBuffers[index] = buffer }
    if let canary { for index in 0..<pieces.count { pieces[index].fill(canary) } }
    postAll()
    publishCounters()
  }

  // MARK: One poll

  /// Takes what was used, up to a budget, and refills the ring. Returns the frames taken.
  mutating func step() -> Int {
    guard !isBroken && !hasStalled else { return 0 }
    if wantsNotifications { stopNotifications() }
    let end = ring.usedIndex
    guard end != lastUsed else { return 0 }
    guard end &- lastUsed <= availableIndex &- lastUsed else {
      runAhead(to: end)
      return 0
    }
    let limit = self.limit
    var frames = 0
    while frames < limit && lastUsed != end {
      if !takePlainFrame() { takeFrame(until: end) }
      frames &+= 1
    }
    checkStall()
    if !hasStalled && freeDescriptors > refillThreshold { postAll() }
    publishCounters()
    return frames
  }

  private var limit: Int {
    switch pace {
    case .full: return Self.budget
    case .slow(let framesPerStep): return min(Self.budget, max(framesPerStep, 0))
    case .stall(let limit): return Int(min(UInt64(Self.budget), limit - min(limit, delivery.frames + brokenFrames)))
    }
  }

  /// Ends a stall: what the device has used since is taken in the next steps.
  mutating func resume() {
    if case .stall = pace { pace = .full }
    hasStalled = false
  }

  private mutating func checkStall() {
    if case .stall(let limit) = pace, delivery.frames + brokenFrames >= limit { hasStalled = true }
  }

  /// Takes the next frame if nothing about it is unusual: one buffer, the next in order, a blank header.
  @inline(__always) private mutating func takePlainFrame() -> Bool {
    guard isPlain else { return false }
    let (id, byteCount) = ring.usedElement(lastUsed)
    let head = order[Int(expected) & mask]
    guard id == UInt32(head), Int(head) <= mask else { return false }
    let buffer = bufferOf[Int(head)]
    guard buffer != Self.nobody else { return false }
    let piece = pieces[Int(buffer)]
    guard byteCount >= 12 && byteCount <= piece.byteCount else { return false }
    let header = piece.header
    guard header.high == NetHeaderRules.plainHigh else { return false }
    guard header.low == NetHeaderRules.plainLow || (header.low == NetHeaderRules.checkedLow && mayVouchForChecksums)
    else { return false }

    unsafe delivery.deliver(piece.bytes(from: 12, count: Int(byteCount) - 12), flags: header.flags)
    lastUsed &+= 1
    expected &+= 1
    if holeCount > 0 { skipHoles() }
    bufferOf[Int(head)] = Self.nobody
    retire(head: head, buffer: buffer)
    return true
  }

  // MARK: Any frame

  /// Takes the next frame, whatever it is like.
  @inline(never) private mutating func takeFrame(until end: UInt16) {
    takenCount = 0
    assembly.removeAll()
    guard let first = takeElement() else {
      brokenFrames += 1
      return
    }
    var isSound = false
    var flags: UInt8 = 0
    if hasSoundLength(takenCount - 1, atLeast: NetHeaderRules.byteCount) {
      let header = header(ofBuffer: first)
      isSound = true
      flags = header.flags
      checkHeader(header)
      let count = bufferCount(header, available: Int(end &- lastUsed) + 1, &isSound)
      for _ in 1..<count where takeElement() == nil { isSound = false }
      for index in 1..<max(takenCount, 1) where !hasSoundLength(index, atLeast: 0) { isSound = false }
      if isSound { isSound = areAllButLastFull() }
      if isSound { isSound = assemble() }
    }
    if isSound {
      unsafe delivery.deliver(assembly.frame, flags: flags)
    } else {
      brokenFrames += 1
    }
    for index in 0..<takenCount {
      checkTail(index)
      retire(head: takenHeads[index], buffer: takenBuffers[index])
    }
  }

  /// Takes one used element. Nil if it names no buffer that the device has.
  private mutating func takeElement() -> UInt32? {
    let (id, byteCount) = ring.usedElement(lastUsed)
    lastUsed &+= 1
    guard id <= UInt32(mask) else {
      record(.identifierOutOfRange, "descriptor \(id) of \(mask + 1)")
      return nil
    }
    let buffer = bufferOf[Int(id)]
    guard buffer != Self.nobody else {
      record(.identifierNotOutstanding, "descriptor \(id)")
      return nil
    }
    let head = UInt16(id)
    if expected != availableIndex && order[Int(expected) & mask] == head {
      expected &+= 1
      skipHoles()
    } else {
      record(.outOfOrder, "descriptor \(id), but \(order[Int(expected) & mask]) became available before it")
      leaveHole(head)
    }
    bufferOf[Int(id)] = Self.nobody
    takenHeads[takenCount] = head
    takenBuffers[takenCount] = buffer
    takenLengths[takenCount] = byteCount
    takenCount += 1
    return buffer
  }

  private mutating func leaveHole(_ head: UInt16) {
    var index = expected
    while index != availableIndex {
      if order[Int(index) & mask] == head {
        order[Int(index) & mask] = Self.hole
        holeCount += 1
        return
      }
      index &+= 1
    }
  }

  private mutating func skipHoles() {
    while holeCount > 0 && expected != availableIndex && order[Int(expected) & mask] == Self.hole {
      expected &+= 1
      holeCount -= 1
    }
  }

  private mutating func hasSoundLength(_ index: Int, atLeast least: Int) -> Bool {
    let (length, capacity) = (takenLengths[index], capacities[Int(takenBuffers[index])])
    if length > capacity {
      record(.lengthPastBuffer, "\(length) bytes in a buffer of \(capacity)")
      return false
    }
    if length < UInt32(least) {
      record(.lengthBelowHeader, "\(length) bytes")
      return false
    }
    return true
  }

  /// A buffer's first twelve bytes, wherever its pieces end.
  private mutating func header(ofBuffer buffer: UInt32) -> NetHeader {
    let first = pieces[Int(buffer) * piecesPerBuffer]
    return first.byteCount >= 12 ? first.header : splitHeader(ofBuffer: buffer)
  }

  @inline(never) private mutating func splitHeader(ofBuffer buffer: UInt32) -> NetHeader {
    var bytes = InlineArray<12, UInt8>(repeating: 0)
    var filled = 0
    var index = Int(buffer) * piecesPerBuffer
    while filled < 12 {
      let piece = pieces[index]
      let count = min(12 - filled, Int(piece.byteCount))
      let part = unsafe piece.bytes(from: 0, count: count)
      for byte in 0..<count { bytes[filled + byte] = unsafe part[byte] }
      filled += count
      index += 1
    }
    var (low, high): (UInt64, UInt32) = (0, 0)
    for byte in 0..<8 { low |= UInt64(bytes[byte]) << (8 * UInt64(byte)) }
    for byte in 0..<4 { high |= UInt32(bytes[8 + byte]) << (8 * UInt32(byte)) }
    return NetHeader(low: low, high: high)
  }

  private mutating func checkHeader(_ header: NetHeader) {
    let allowed: UInt8 = mayVouchForChecksums ? FrameFlags.isChecksumValid.rawValue : 0
    if header.flags & ~allowed != 0 { record(.badFlags, "flags \(header.flags)") }
    if header.gsoType != 0 || header.gsoSize != 0 || header.headerLength != 0 {
      record(
        .badSegmentation, "gso_type \(header.gsoType), gso_size \(header.gsoSize), hdr_len \(header.headerLength)")
    }
    if header.checksumStart != 0 || header.checksumOffset != 0 {
      record(.badChecksumFields, "csum_start \(header.checksumStart), csum_offset \(header.checksumOffset)")
    }
  }

  /// How many buffers to take for this frame.
  private mutating func bufferCount(_ header: NetHeader, available: Int, _ isSound: inout Bool) -> Int {
    let count = Int(header.bufferCount)
    if count == 1 { return 1 }
    isSound = false
    if count == 0 {
      record(.noBuffers, "")
      return 1
    }
    if !isMergeable {
      record(.mergedWithoutFeature, "\(count) buffers")
      return 1
    }
    if count > available {
      record(.buffersMissing, "\(count) buffers, \(available) visible")
      return available
    }
    isSound = true
    return count
  }

  private mutating func areAllButLastFull() -> Bool {
    for index in 0..<takenCount - 1 {
      let (length, capacity) = (takenLengths[index], capacities[Int(takenBuffers[index])])
      if length != capacity {
        record(.bufferNotFull, "\(length) bytes in buffer \(index + 1) of \(takenCount), which has \(capacity)")
        return false
      }
    }
    return true
  }

  /// Puts the frame together from what was written behind the header.
  private mutating func assemble() -> Bool {
    var skipped = NetHeaderRules.byteCount
    for index in 0..<takenCount {
      var left = Int(takenLengths[index])
      for number in 0..<piecesPerBuffer where left > 0 {
        let piece = pieces[Int(takenBuffers[index]) * piecesPerBuffer + number]
        let written = min(left, Int(piece.byteCount))
        left -= written
        let offset = min(skipped, written)
        skipped -= offset
        guard unsafe assembly.append(piece.bytes(from: offset, count: written - offset)) else {
          record(.frameTooLong, "\(takenCount) buffers")
          return false
        }
      }
    }
    return true
  }

  /// Looks whether a buffer still has its pattern behind the bytes that the device says it wrote.
  private mutating func checkTail(_ index: Int) {
    guard let canary else { return }
    var offset = Int(takenLengths[index])
    for number in 0..<piecesPerBuffer {
      let piece = pieces[Int(takenBuffers[index]) * piecesPerBuffer + number]
      if offset < Int(piece.byteCount), !piece.holds(canary, from: offset) {
        record(.writtenPastLength, "descriptor \(takenHeads[index]), \(takenLengths[index]) bytes used")
        return
      }
      offset = max(0, offset - Int(piece.byteCount))
    }
  }

  // MARK: Buffers

  /// A buffer and its descriptors are free again.
  @inline(__always) private mutating func retire(head: UInt16, buffer: UInt32) {
    var last = Int(head)
    for _ in 1..<descriptorsPerBuffer { last = Int(following[last]) }
    following[last] = firstFree
    firstFree = head
    freeDescriptors &+= descriptorsPerBuffer
    buffersTaken &+= 1
    if canary != nil { fill(buffer) }
    var slot = firstFreeBuffer &+ freeBufferCount
    if slot >= freeBuffers.count { slot &-= freeBuffers.count }
    freeBuffers[slot] = buffer
    freeBufferCount &+= 1
  }

  private mutating func fill(_ buffer: UInt32) {
    guard let canary else { return }
    for number in 0..<piecesPerBuffer { pieces[Int(buffer) * piecesPerBuffer + number].fill(canary) }
  }

  /// Makes every free buffer available that the ring has room for; the device sees them all at once.
  private mutating func postAll() {
    let before = availableIndex
    while freeDescriptors >= descriptorsPerBuffer && freeBufferCount > 0 { post() }
    let count = Int(availableIndex &- before)
    guard count > 0 else { return }
    ring.publish(availableIndex: availableIndex)
    buffersPosted &+= UInt64(count)
    addedSinceKick &+= count
  }

  @inline(__always) private mutating func post() {
    let buffer = freeBuffers[firstFreeBuffer]
    firstFreeBuffer &+= 1
    if firstFreeBuffer == freeBuffers.count { firstFreeBuffer = 0 }
    freeBufferCount &-= 1
    if canary != nil { checkRested(buffer) }

    let head = firstFree
    firstFree = writeDescriptors(from: head, buffer)
    freeDescriptors &-= descriptorsPerBuffer
    bufferOf[Int(head)] = buffer
    // With buffers missing, the oldest place is needed again before its buffer came back.
    if Int(availableIndex &- expected) > mask { forgetOldest() }
    order[Int(availableIndex) & mask] = head
    ring.setAvailable(availableIndex, head: head)
    availableIndex &+= 1
  }

  /// Returns the free descriptor behind those it wrote.
  @inline(__always) private mutating func writeDescriptors(from head: UInt16, _ buffer: UInt32) -> UInt16 {
    if piecesPerBuffer == 1 {
      let piece = pieces[Int(buffer)]
      ring.writeDescriptor(
        Int(head), address: piece.address, byteCount: piece.byteCount, flags: DriverRing.write, next: 0)
      return following[Int(head)]
    }
    return writeChain(from: head, buffer)
  }

  @inline(never) private mutating func writeChain(from head: UInt16, _ buffer: UInt32) -> UInt16 {
    if let indirectTables {
      for number in 0..<piecesPerBuffer {
        indirectTables.write(entry(number, of: buffer), at: number, ofTable: Int(buffer))
      }
      ring.writeDescriptor(
        Int(head), address: indirectTables.address(ofTable: Int(buffer)), byteCount: indirectTables.byteCount,
        flags: DriverRing.indirect, next: 0)
      return following[Int(head)]
    }
    var index = Int(head)
    for number in 0..<piecesPerBuffer - 1 {
      let piece = pieces[Int(buffer) * piecesPerBuffer + number]
      ring.writeDescriptor(
        index, address: piece.address, byteCount: piece.byteCount, flags: DriverRing.write | DriverRing.next,
        next: following[index])
      index = Int(following[index])
    }
    let piece = pieces[Int(buffer) * piecesPerBuffer + piecesPerBuffer - 1]
    ring.writeDescriptor(index, address: piece.address, byteCount: piece.byteCount, flags: DriverRing.write, next: 0)
    return following[index]
  }

  /// What an indirect table holds for one piece. 2.7.5.3.
  private mutating func entry(_ number: Int, of buffer: UInt32) -> (address: UInt64, word: UInt64) {
    let piece = pieces[Int(buffer) * piecesPerBuffer + number]
    let isLast = number == piecesPerBuffer - 1
    return (
      piece.address,
      DriverRing.word(
        piece.byteCount, isLast ? DriverRing.write : DriverRing.write | DriverRing.next,
        isLast ? 0 : UInt16(number + 1))
    )
  }

  private mutating func forgetOldest() {
    expected &+= 1
    skipHoles()
  }

  private mutating func checkRested(_ buffer: UInt32) {
    guard let canary else { return }
    for number in 0..<piecesPerBuffer {
      let piece = pieces[Int(buffer) * piecesPerBuffer + number]
      if !piece.holds(canary, from: 0) {
        record(.writtenAfterReturn, "buffer at 0x\(String(piece.address, radix: 16))")
        piece.fill(canary)
      }
    }
  }

  // MARK: Notifications

  /// Whether the device wants to be told of the buffers posted since this was asked last. 2.7.13.4.
  mutating func needsKick() -> Bool {
    guard addedSinceKick > 0 else { return false }
    let added = addedSinceKick
    addedSinceKick = 0
    // The new available index before the device's wish: it does the same the other way round.
    sl_fence()
    guard usesEventIndex else { return !ring.noNotify }
    // After a whole turn of the index nobody can tell where the event lay.
    if added > Int(UInt16.max) { return true }
    return DriverRing.passed(
      ring.availableEvent, from: availableIndex &- UInt16(added), to: availableIndex)
  }

  /// Asks for a notification of the next used buffer. False if there is one already: then the queue has
  /// to be stepped, and there will be no notification. 2.7.7.
  mutating func prepareToSleep() -> Bool {
    if isBroken || hasStalled { return true }
    wantsNotifications = true
    if usesEventIndex { ring.setUsedEvent(lastUsed) } else { ring.setNoInterrupt(false) }
    // The wish before the look at the used index: the device does the same the other way round.
    sl_fence()
    if ring.usedIndex == lastUsed { return true }
    stopNotifications()
    return false
  }

  /// While it polls, the driver wants none. With VIRTIO_F_EVENT_IDX there is no way to say so: as Linux does, the
  /// event is put where the index comes by once in 65536 buffers.
  private mutating func stopNotifications() {
    wantsNotifications = false
    if usesEventIndex { ring.setUsedEvent(0) } else { ring.setNoInterrupt(true) }
  }

  // MARK: Findings

  /// Whether the descriptors and the available ring still say what the driver wrote.
  mutating func verifyRing() -> Bool {
    let before = log.count(queue: number)
    if ring.publishedIndex != availableIndex { record(.ringOverwritten, "avail.idx is \(ring.publishedIndex)") }
    var index = expected
    while index != availableIndex {
      let head = order[Int(index) & mask]
      if head != Self.hole, ring.availableHead(index) != head {
        record(.ringOverwritten, "entry \(Int(index) & mask) of the available ring")
      }
      index &+= 1
    }
    for head in 0...mask {
      let buffer = bufferOf[head]
      if buffer != Self.nobody, !holdsDescriptors(head, buffer) {
        record(.ringOverwritten, "the chain at descriptor \(head)")
      }
    }
    publishCounters()
    return log.count(queue: number) == before
  }

  private mutating func holdsDescriptors(_ head: Int, _ buffer: UInt32) -> Bool {
    if let indirectTables {
      for number in 0..<piecesPerBuffer
      where !indirectTables.holds(entry(number, of: buffer), at: number, ofTable: Int(buffer)) { return false }
      return ring.holdsDescriptor(
        head, address: indirectTables.address(ofTable: Int(buffer)), byteCount: indirectTables.byteCount,
        flags: DriverRing.indirect, next: 0)
    }
    var index = head
    for number in 0..<piecesPerBuffer {
      let piece = pieces[Int(buffer) * piecesPerBuffer + number]
      let isLast = number == piecesPerBuffer - 1
      guard
        ring.holdsDescriptor(
          index, address: piece.address, byteCount: piece.byteCount,
          flags: isLast ? DriverRing.write : DriverRing.write | DriverRing.next, next: isLast ? 0 : following[index])
      else { return false }
      index = Int(following[index])
    }
    return true
  }

  @inline(never) private mutating func runAhead(to end: UInt16) {
    isBroken = true
    record(.usedIndexRanAhead, "from \(lastUsed) to \(end), with available index \(availableIndex)")
    publishCounters()
  }

  /// For what was found from outside the queue as well.
  @inline(never) func record(_ violation: Violation, _ words: @autoclosure () -> String) {
    log.record(violation, queue: number, words)
  }

  var digest: SHA256Digest? { delivery.digest }

  mutating func publishCounters() {
    page.store(
      SimulatedGuest.Counters(
        frames: delivery.frames, bytes: delivery.bytes, brokenFrames: brokenFrames, violations: log.count(queue: number),
        buffersPosted: buffersPosted, buffersTaken: buffersTaken), queue: number)
  }
}

/// The indirect tables of one queue, one a buffer. virtio 1.3, 2.7.5.3 "Indirect Descriptors".
///
/// `@safe`: all tables were checked to be guest memory, table and entry are checked at each access, and the queue
/// that has this lives no longer than its memory.
@safe struct IndirectTables {
  private let base: UnsafeMutableRawPointer
  private let guestStart: UInt64
  private let entries: Int
  private let count: Int

  init(base: UnsafeMutableRawPointer, address: UInt64, entries: Int, count: Int) {
    unsafe self.base = base
    guestStart = address
    self.entries = entries
    self.count = count
  }

  /// Of one table.
  var byteCount: UInt32 { UInt32(16 * entries) }

  func address(ofTable table: Int) -> UInt64 { guestStart + UInt64(16 * entries * table) }

  func write(_ entry: (address: UInt64, word: UInt64), at index: Int, ofTable table: Int) {
    let place = unsafe place(index, table)
    unsafe sl_store64(place, entry.address)
    unsafe sl_store64(place + 8, entry.word)
  }

  func holds(_ entry: (address: UInt64, word: UInt64), at index: Int, ofTable table: Int) -> Bool {
    let place = unsafe place(index, table)
    return unsafe sl_load64(place) == entry.address && sl_load64(place + 8) == entry.word
  }

  private func place(_ index: Int, _ table: Int) -> UnsafeMutableRawPointer {
    precondition(index >= 0 && index < entries && table >= 0 && table < count, "no such table")
    return unsafe base + 16 * (entries * table + index)
  }
}
