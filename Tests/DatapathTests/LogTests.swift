import Bus
import Datapath
import GuestMemory
import Linux
import NIC
import Support
import Testing
import Virtio

/// What a front-end that migrates its guest is told of: every page that was written, when it matters, and no other.
@Suite struct LogTests {
  /// A log as both sides see it.
  @safe private final class Log {
    let log: DirtyLog
    private let view: Mapping
    init(pages: Int) throws {
      let file = try MemoryFile(name: "log", byteCount: (pages + 7) / 8)
      log = DirtyLog(mapping: try Mapping(of: file.descriptor, byteCount: file.byteCount), byteCount: (pages + 7) / 8)
      view = try Mapping(of: file.descriptor, byteCount: file.byteCount)
    }
    var pages: Set<UInt64> {
      var found: Set<UInt64> = []
      for n in 0..<log.byteCount {
        let byte = unsafe view.base.load(fromByteOffset: n, as: UInt8.self)
        for bit in 0..<8 where byte >> UInt8(bit) & 1 == 1 { found.insert(UInt64(8 * n + bit)) }
      }
      return found
    }
  }
  private func pages(_ start: UInt64, _ count: Int) -> ClosedRange<UInt64> {
    start / 4096...(start + UInt64(max(count, 1)) - 1) / 4096
  }

  @Test(arguments: [false, true], PathMode.allCases)
  func `every page written is marked by the time it is shown, and at the end what the card may have written`(
    isPacked: Bool, mode: PathMode
  ) throws {
    try withSeeds(30) { random in
      var features: Features = [.version1, .indirectDescriptors]
      if isPacked { features.insert(.ringPacked) }
      if random.once(in: 2) { features.insert(.mergeableBuffers) }
      if random.once(in: 2) { features.insert(.eventIndex) }
      let size = random.pick([4, 64])
      let rig = try Rig(
        size: size, capacity: random.pick([2, 64]), mode: mode, features: features, base: random.pick([0, 65530]),
        first: random.int(0...size), random: SeededGenerator(seed: random.next()))
      let log = try Log(pages: 0x500)
      var allowed: Set<UInt64> = []
      let start = random.int(0...10)
      func allow(_ start: UInt64, _ count: Int) throws {
        for page in pages(start, count) { allowed.insert(page) }
      }
      for turn in 0..<20 {
        if turn == start {
          rig.reference.touched = []
          rig.path.setLog(log.log)
          try allow(rig.ringArea.start, rig.ringArea.count)
          if isPacked { try allow(rig.ringArea.start + UInt64(rig.ringArea.count), 8) }
        }
        for _ in 0..<random.int(0...size) {
          let lengths = random.pick([[1530], [4096], [12, 1518], [700, 900], [200], [1, 11, 2000]])
          // Some frames land a page away from their header.
          let far = lengths == [12, 1518] ? 3000 : 40
          if !rig.post(lengths, gaps: random.once(in: 2) ? [0, far, 100] : [], indirect: random.once(in: 3)) { break }
        }
        for _ in 0..<random.int(0...4) where rig.card.free > 0 {
          rig.receive(rig.frame(random.int(14...1518)), flags: random.once(in: 9) ? [.isEnd, .isDamaged] : .isEnd)
        }
        try rig.turn()
        if turn < start { continue }
        let marked = log.pages
        for (start, count) in rig.reference.touched where count > 0 {
          try allow(start, count)
          for page in pages(start, count) { try check(marked.contains(page), "page \(page) was written and is not marked") }
        }
        rig.reference.touched = []
        if random.once(in: 4), rig.path.prepareToSleep() { rig.path.wake() }
      }
      // Some frames have come and are not settled; some buffers have nothing yet, and may have half a frame.
      for _ in 0..<random.int(0...3) where rig.card.free > 0 { rig.receive(rig.frame(100)) }
      try rig.path.stop(.requested)
      let marked = log.pages
      for slot in rig.reference.slots {
        guard let target = slot.target else { continue }
        // What came is known to its last byte; where nothing came, anything may have.
        let count = slot.completion == nil ? 1518 : slot.frame.count
        try allow(target, count)
        for page in pages(target, count) { try check(marked.contains(page), "page \(page) is posted and is not marked") }
      }
      // Frames that came were delivered at the end.
      for place in rig.reference.places where place.isLent { try allow(place.pieces[0].start, 12) }
      for place in rig.reference.places where !place.isLent { for piece in place.pieces { try allow(piece.start, piece.count) } }
      try check(marked.subtracting(allowed), is: [], "pages that nobody wrote")
      try check(Int(rig.path.counters.dirtyPages), is: marked.count, "dirty pages")
    }
  }

  @Test func `the used ring is marked where the front-end wants it to be`() throws {
    for (isPacked, address) in [(false, nil), (false, 0x7000), (true, nil), (true, 0x7000)] as [(Bool, UInt64?)] {
      let rig = try Rig(
        size: 8, capacity: 8, features: isPacked ? [.version1, .ringPacked] : [.version1],
        random: SeededGenerator(seed: 3))
      let log = try Log(pages: 0x500)
      rig.path.setLog(log.log, ringLogAddress: address.map { GuestAddress($0) })
      rig.post([1530])
      let cell = rig.reference.available[0].pieces[0].start
      try rig.turn()
      rig.receive(rig.frame(60))
      try rig.turn()
      var wanted = Set(pages(cell, 72))
      let ring = Rig.ringStart / 4096
      if let address { wanted.insert(address / 4096) } else { wanted.insert(ring) }
      if isPacked { wanted.insert(ring) }
      #expect(log.pages == wanted)
      // No longer.
      rig.path.setLog(nil)
      let before = log.pages
      rig.post([1530])
      try rig.turn()
      rig.receive(rig.frame(1518))
      try rig.turn()
      #expect(log.pages == before)
      try rig.checkMemory()
    }
  }

  @Test func `each element of the used ring is marked on its own page`() throws {
    // 512 elements lie on two pages.
    for isPacked in [false, true] {
      let rig = try Rig(
        size: 512, capacity: 512, features: isPacked ? [.version1, .ringPacked] : [.version1],
        random: SeededGenerator(seed: 3))
      let log = try Log(pages: 0x1000)
      rig.path.setLog(log.log)
      var seen = log.pages
      for n in 0..<1500 {
        rig.post([1530])
        let cell = rig.reference.available[0].pieces[0].start
        try rig.turn()
        rig.receive(rig.frame(60))
        try rig.turn()
        let element = isPacked ? rig.packed.ring + 16 * UInt64(n % 512) : rig.driver.used + 4 + 8 * UInt64(n % 512)
        seen.formUnion(pages(cell, 72))
        seen.formUnion(pages(element, isPacked ? 16 : 8))
        if n % 50 == 0 || n < 3 { try check(log.pages, is: seen, "pages after \(n)") }
      }
    }
  }

  @Test(arguments: [false, true])
  func `a batch that goes round the ring's end is marked on both sides of it`(isPacked: Bool) throws {
    let rig = try Rig(
      size: 512, capacity: 512, features: isPacked ? [.version1, .ringPacked] : [.version1], base: 500, first: 500,
      random: SeededGenerator(seed: 3))
    for _ in 0..<40 { rig.post([1530]) }
    try rig.turn()
    let log = try Log(pages: 0x1000)
    rig.path.setLog(log.log, ringLogAddress: GuestAddress(0x80_0000))
    for _ in 0..<40 { rig.receive(rig.frame(60)) }
    try rig.turn()
    let ring = isPacked ? rig.packed.ring : 0x80_0004
    let bytes: UInt64 = isPacked ? 16 : 8
    // The last of them before the end; and the first.
    let wanted = Set(pages(ring + 500 * bytes, 12 * Int(bytes))).union(pages(ring, 28 * Int(bytes)))
    #expect(wanted.count == 2 && log.pages.isSuperset(of: wanted))
  }

  @Test func `a frame that begins where its header's region ends is marked where it lies`() throws {
    for isPacked in [false, true] {
      let rig = try Rig(
        size: 8, capacity: 8, features: isPacked ? [.version1, .ringPacked] : [.version1],
        random: SeededGenerator(seed: 3))
      let edge = rig.memory.starts[1]
      for isSettled in [true, false] {
        let log = try Log(pages: 0x500)
        rig.path.setLog(log.log)
        if isPacked {
          rig.packed.offer([.init(edge - 12, 12), .init(edge, 1600)], id: 3)
        } else {
          rig.driver.describe(0, edge - 12, 12, flags: 3, next: 1)
          rig.driver.describe(1, edge, 1600)
          rig.driver.offer(0)
        }
        _ = rig.path.turn()
        #expect(rig.card.free == 1)
        if isSettled {
          #expect(rig.card.receive(rig.frame(60)))
          _ = rig.path.turn()
          #expect(rig.path.counters.lentFrames == 1 && log.pages.contains(edge / 4096 - 1))
          if isPacked { _ = rig.packed.takeUsed() }
        } else {
          try rig.path.stop(.requested)
        }
        #expect(log.pages.contains(edge / 4096))
      }
    }
  }
}
