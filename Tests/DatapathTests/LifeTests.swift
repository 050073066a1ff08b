import Bus
import Datapath
import GuestMemory
import Linux
import NIC
import Support
import Testing
import Virtio

/// What happens to a path between its turns, and after them.
@Suite struct LifeTests {
  private func rig(
    _ features: Features, size: Int = 8, capacity: Int = 8, mode: PathMode = .auto, base: UInt16 = 0, first: Int = 0
  ) throws -> Rig {
    try Rig(
      size: size, capacity: capacity, mode: mode, features: features.union([.version1, .indirectDescriptors]),
      base: base, first: first, random: SeededGenerator(seed: 11))
  }
  static let formats: [Features] = [[], [.eventIndex], [.ringPacked], [.ringPacked, .eventIndex]]

  // MARK: Sleep

  /// Whether a driver that offers its next buffer would kick, by what the device last wrote.
  private func kicks(_ rig: Rig) -> Bool {
    if rig.features.contains(.ringPacked) {
      let driver = rig.packed
      return driver.deviceFlags == 0 || (driver.deviceFlags == 2 && driver.deviceEvent == driver.position(driver.offered))
    }
    return rig.features.contains(.eventIndex)
      ? rig.driver.availableEvent == rig.driver.availableIndex : rig.driver.usedFlags & 1 == 0
  }

  @Test(arguments: formats)
  func `a path sleeps when there is nothing to take, and asks to be woken`(format: Features) throws {
    let rig = try rig(format)
    #expect(!kicks(rig))
    let first = rig.path.prepareToSleep()
    #expect(first && kicks(rig))
    rig.path.wake()
    #expect(!kicks(rig))
    // Offered before kicks were asked for: nobody will kick for it.
    rig.post([1530])
    let second = rig.path.prepareToSleep()
    #expect(!second && !kicks(rig))
    _ = rig.path.turn()
    let third = rig.path.prepareToSleep()
    #expect(third && kicks(rig))
    // A turn may be made at any time.
    rig.post([1530])
    _ = rig.path.turn()
    #expect(rig.card.free == 2)
  }

  @Test(arguments: formats)
  func `a path whose card is full sleeps without asking: room comes with frames`(format: Features) throws {
    let rig = try rig(format, capacity: 2)
    for _ in 0..<5 { rig.post([1530]) }
    try rig.turn()
    let asleep = rig.path.prepareToSleep()
    #expect(asleep && !kicks(rig))
    rig.receive(rig.frame(60))
    try rig.turn()
    try rig.turn()
    #expect(rig.card.free == 2)
  }

  @Test(arguments: formats)
  func `a path that has stopped, or finds its ring broken, may sleep for ever`(format: Features) throws {
    let rig = try rig(format)
    if !format.contains(.ringPacked) {
      rig.driver.availableIndex = 100
      rig.driver.publish()
      let asleep = rig.path.prepareToSleep()
      #expect(asleep)
      #expect(rig.path.stopReason == .virtqueue(.indexRanAhead(from: 0, to: 100)))
    }
    try rig.path.stop(.requested)
    rig.post([1530])
    let asleep = rig.path.prepareToSleep()
    #expect(asleep && rig.path.turn() == 0)
  }

  @Test func `batches that the driver does not want to hear of are counted`() throws {
    for format in [[], [.ringPacked]] as [Features] {
      let rig = try rig(format)
      for n in 0..<4 {
        if format.isEmpty { rig.memory.store16(n < 3 ? 1 : 0, rig.driver.available) } else { rig.packed.want(flags: n < 3 ? 1 : 0) }
        rig.post([1530])
        try rig.turn()
        rig.receive(rig.frame(60))
        try rig.turn()
        #expect(rig.path.wantsSignal == (n == 3))
      }
      #expect(rig.path.counters.suppressedSignals == 3 && rig.path.counters.signals == 1)
    }
  }

  /// Whether the driver wants to be told.
  private func want(_ rig: Rig, _ wants: Bool) {
    if rig.features.contains(.ringPacked) {
      rig.packed.want(flags: wants ? 0 : 1)
    } else if rig.features.contains(.eventIndex) {
      rig.memory.store16(wants ? 0 : 100, rig.driver.available + 4 + 2 * 8)
    } else {
      rig.memory.store16(wants ? 0 : 1, rig.driver.available)
    }
  }

  @Test(arguments: formats)
  func `where the driver is asked late, it is asked in the next turn, or before the path sleeps or stops`(format: Features) throws {
    enum End: CaseIterable { case turn, sleep, stop }
    for end in End.allCases {
      for wants in [true, false] {
        let rig = try rig(format)
        rig.path.notifiesLate = true
        want(rig, !wants)
        rig.post([1530])
        try rig.turn()
        rig.receive(rig.frame(60))
        try rig.turn()
        #expect(rig.path.outstandingBuffers == 0 && !rig.path.wantsSignal)
        #expect(rig.path.counters.signals == 0 && rig.path.counters.suppressedSignals == 0)
        // Shown, and not asked yet: what the driver says in between counts.
        want(rig, wants)
        for _ in 0..<2 {
          switch end {
          case .turn: _ = rig.path.turn()
          case .sleep: _ = rig.path.prepareToSleep()
          case .stop: try rig.path.stop(.requested)
          }
          // And once is enough.
          #expect(rig.path.wantsSignal == wants)
          #expect(rig.path.counters.signals == (wants ? 1 : 0) && rig.path.counters.suppressedSignals == (wants ? 0 : 1))
        }
      }
    }
  }

  // MARK: Memory that comes

  @Test(arguments: [[], [.ringPacked]] as [Features], PathMode.allCases.filter { $0 != .required })
  func `a path goes on with a map that has more in it`(format: Features, mode: PathMode) throws {
    let rig = try rig(format, mode: mode)
    rig.post([1530])
    rig.post([300, 1400], gaps: [0, 7])
    try rig.turn()
    let region = MemoryRegion(at: GuestAddress(0x50_0000), mapping: try Mapping(anonymousBytes: 0x4000))
    let map = try MemoryMap(rig.memory.map.regions + [region])
    try unsafe rig.space.map(
      HostMemory(base: region.base, byteCount: 0x4000), at: rig.window.base + 0x50_0000, access: [.read, .write])
    try rig.path.replaceMap(map)
    for _ in 0..<2 { rig.receive(rig.frame(900)) }
    try rig.turn()
    try rig.checkMemory()
    // In the memory that was added.
    if format.isEmpty {
      rig.driver.describe(0, 0x50_0100, 1530)
      rig.driver.offer(0)
    } else {
      rig.packed.offer([.init(0x50_0100, 1530)], id: 7)
    }
    _ = rig.path.turn()
    let frame = rig.frame(200)
    #expect(rig.card.receive(frame))
    _ = rig.path.turn()
    #expect(rig.path.counters.deliveredFrames == 3)
    let found = unsafe Array(UnsafeRawBufferPointer(start: region.base + 0x100 + 12, count: 200))
    #expect(found == frame)
  }

  @Test(arguments: [[], [.ringPacked]] as [Features])
  func `a map without the ring, or without a buffer that is out, is refused, and the path goes on`(format: Features) throws {
    let rig = try rig(format)
    let regions = rig.memory.map.regions
    let withoutRing = try MemoryMap(regions.filter { $0.guestStart.rawValue != Rig.ringStart })
    #expect(throws: VirtqueueError.moved(GuestAddress(Rig.ringStart))) { try rig.path.replaceMap(withoutRing) }
    let onlyRing = try MemoryMap(regions.filter { $0.guestStart.rawValue == Rig.ringStart })
    rig.post([1530])
    try rig.turn()
    let start = rig.reference.places[0].pieces[0].start
    #expect(throws: VirtqueueError.moved(GuestAddress(start))) { try rig.path.replaceMap(onlyRing) }
    rig.receive(rig.frame(60))
    try rig.turn()
    try rig.checkMemory()
    // Nothing is out any more.
    try rig.path.replaceMap(onlyRing)
    rig.post([1530])
    _ = rig.path.turn()
    guard case .virtqueue(.outsideMemory) = rig.path.stopReason else {
      Issue.record("\(String(describing: rig.path.stopReason))")
      return
    }
  }

  // MARK: Many lives

  @Test(arguments: [[], [.ringPacked]] as [Features], [PathMode.auto, .copy])
  func `a ring that stops and starts 500 times makes nothing anew and loses no buffer`(format: Features, mode: PathMode) throws {
    var random = SeededGenerator(seed: 9)
    let memory = try PlainMemory([(0x10_0000, 0x20_000), (0x40_0000, 0x4000)], &random)
    let space = FakeAddressSpace()
    let window = try DMAWindow(number: 1, map: memory.map, in: space)
    let card = FakeCard(space: space, capacity: 4)
    let features = format.union([.version1])
    let isPacked = format.contains(.ringPacked)
    let size = isPacked ? 7 : 8
    let layout = RingLayout(
      size: size, descriptorArea: GuestAddress(0x40_0000), driverArea: GuestAddress(0x40_1000),
      deviceArea: GuestAddress(0x40_2000))
    let split = isPacked ? nil : PlainDriver(SplitRingLayout(layout), in: memory, base: 0)
    let packed = isPacked ? PlainPackedDriver(layout, in: memory) : nil
    var parts = try ReceiveParts(queue: FakeQueue(card), space: space, allocator: IOVAAllocator(), bounceBuffers: 8)
    let calls = space.mapCalls
    var base = isPacked ? RingBase.packedStart : RingBase(split: 0)
    var (offered, returned, came) = (0, 0, 0)
    for life in 0..<500 {
      var view = MemoryView(memory.map)
      let queue = try Virtqueue(layout, features: features, base: base, in: &view)
      var path = ReceivePath(virtqueue: queue, window: window, parts: parts, mode: mode)
      card.restart()
      for _ in 0..<random.int(0...4) {
        while offered - returned < size {
          let id = UInt16(offered % size)
          if let split {
            split.describe(Int(id), 0x10_0000 + UInt64(id) * 2048, 1600)
            split.offer(id)
          } else {
            packed!.offer([.init(0x10_0000 + UInt64(id) * 2048, 1600)], id: id)
          }
          offered += 1
        }
        _ = path.turn()
        for _ in 0..<random.int(0...4) where card.free > 0 {
          _ = card.receive([UInt8](repeating: UInt8(truncatingIfNeeded: came), count: 64))
          came += 1
        }
        if random.once(in: 2) { _ = path.turn() }
      }
      try path.stop(.requested)
      base = path.base
      try check(Int(path.counters.deliveredFrames + path.counters.droppedFrames), is: came, "frames after \(life) lives")
      try check(path.counters.droppedFrames, is: 0, "dropped")
      // The driver finds each buffer once, in order.
      while true {
        if let packed {
          guard let used = packed.takeUsed() else { break }
          try check(used, is: .init(id: UInt16(returned % size), byteCount: 76, isWritten: true), "buffer \(returned)")
        } else {
          guard returned & 0xFFFF != Int(split!.usedIndex) else { break }
          let used = split!.usedElement(UInt16(truncatingIfNeeded: returned))
          try check(used.id, is: UInt32(returned % size), "buffer \(returned)")
        }
        returned += 1
      }
      try check(returned, is: came, "buffers back after \(life) lives")
      parts = path.dismantle()
    }
    #expect(came > 500)
    #expect(space.mapCalls == calls && card.complaints.isEmpty)
  }

  // MARK: After a death

  @Test func `a path that follows a dead one over a split ring goes on at the used index, whatever the front-end says`() throws {
    for said in [3, 6] as [UInt16] {
      let rig = try rig([], base: 65533)
      for _ in 0..<6 { rig.post([1530]) }
      try rig.turn()
      for _ in 0..<3 { rig.receive(rig.frame(60)) }
      try rig.turn()
      let left = rig.reference.places.map(\.id)
      // Where the driver is, as Cloud Hypervisor has it; or where the device was.
      let base = RingBase(split: 65533 &+ said)
      var view = MemoryView(rig.memory.map)
      var queue = try Virtqueue(rig.driver.layout.generic, features: rig.features, base: base, in: &view)
      #expect(queue.base == RingBase(split: 0))
      #expect(queue.pending() == 3)
      for id in left { #expect(queue.next().map { queue.take($0); return $0.id } == id) }
    }
  }

  @Test(arguments: [0, 1, 7, 8, 9, 100, 0x8000, 0xFFFF])
  func `a split ring goes on up to its size behind what the front-end says, and no further`(ahead: UInt16) throws {
    for used in [0, 5, 65530] as [UInt16] {
      let rig = try rig([], base: used)
      let base = used &+ ahead
      var view = MemoryView(rig.memory.map)
      func make() throws -> RingBase {
        try Virtqueue(rig.driver.layout.generic, features: rig.features, base: RingBase(split: base), in: &view).base
      }
      if ahead <= 8 || base == 0 {
        #expect(try make() == RingBase(split: used))
      } else {
        #expect(throws: VirtqueueError.baseFarFromUsed(base: base, used: used, size: 8)) { try make() }
      }
    }
  }
}
