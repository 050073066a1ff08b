import GuestMemory
import Linux
import Support
import Testing

/// A lookup of ours against a search for every single byte.
@Suite struct TranslationTests {
  /// Regions with holes, with neighbours, and near the end of the address space.
  private func layout(_ random: inout SeededGenerator) -> [(start: UInt64, byteCount: Int)] {
    var result: [(start: UInt64, byteCount: Int)] = []
    var next: UInt64 = random.once(in: 2) ? 0 : UInt64(random.int(0...64)) * 4096
    for _ in 0..<random.int(1...6) {
      let byteCount = random.int(1...4) * 4096
      result.append((next, byteCount))
      next += UInt64(byteCount) + (random.once(in: 2) ? 0 : UInt64(random.int(1...3)) * 4096)
    }
    if random.once(in: 2) { result.append((0xFFFF_FFFF_FFFF_0000, random.int(1...15) * 4096)) }
    return result.shuffled(using: &random)
  }

  private func address(_ memory: PlainMemory, _ random: inout SeededGenerator) -> UInt64 {
    let n = random.int(0...memory.starts.count - 1)
    let edge = memory.starts[n] &+ (random.once(in: 2) ? 0 : UInt64(memory.counts[n]))
    switch random.int(0...3) {
    case 0: return edge &+ UInt64(bitPattern: Int64(random.int(-20...20)))
    case 1: return memory.starts[n] &+ UInt64(random.int(0...memory.counts[n]))
    case 2: return UInt64.max - UInt64(random.int(0...5000))
    default: return random.next()
    }
  }

  @Test func `a range is found exactly when each of its bytes is in one and the same region`() throws {
    try withSeeds(150) { random in
      let memory = try PlainMemory(layout(&random), &random)
      var view = MemoryView(memory.map)
      for _ in 0..<100 {
        let start = address(memory, &random)
        let count = random.pick([0, 1, 2, 12, 100, 4095, 4096, 4097, 16384, 70_000, Int(UInt32.max)])
        let pieces = count > 100_000 ? nil : memory.pieces(start, count)
        let found = view.slice(GuestRange(GuestAddress(start), count: UInt32(count)))
        if count == 0 { continue }
        try check(found != nil, is: pieces?.count == 1, "\(start) + \(count)")
        if let found {
          try check(Int(found.count), is: count, "bytes of the slice")
          var bytes = [UInt8](repeating: 0, count: count)
          unsafe bytes.withUnsafeMutableBytes { unsafe found.copy(to: $0) }
          try check(bytes == memory.read(start, count), "bytes of \(start) + \(count)")
        }
        let leading = view.leadingSlice(GuestRange(GuestAddress(start), count: UInt32(count)))
        var wanted = memory.pieces(start, 1).map { _ in 1 } ?? 0
        if let first = pieces?.first { wanted = first.count } else if wanted == 1 {
          let n = memory.starts.indices.first { memory.starts[$0] <= start && start - memory.starts[$0] < UInt64(memory.counts[$0]) }!
          wanted = min(count, memory.counts[n] - Int(start - memory.starts[n]))
        }
        try check(Int(leading?.count ?? 0), is: wanted, "leading bytes of \(start) + \(count)")
      }
    }
  }

  @Test func `of as many regions as there may be, the one is found that a search from first to last finds`() throws {
    try withSeeds(3) { random in
      var regions: [(start: UInt64, byteCount: Int)] = []
      var next: UInt64 = 0
      for _ in 0..<509 {
        let byteCount = random.int(1...3) * 4096
        regions.append((next, byteCount))
        next += UInt64(byteCount) + (random.once(in: 2) ? 0 : UInt64(random.int(1...3)) * 4096)
      }
      let memory = try PlainMemory(regions.shuffled(using: &random), &random)
      var view = MemoryView(memory.map)
      for _ in 0..<2000 {
        let place = UInt64.random(in: 0..<next + 8192, using: &random)
        let start = random.once(in: 2) ? place : place & ~4095
        let wanted = regions.first { start >= $0.start && start - $0.start < UInt64($0.byteCount) }
        try check(memory.map.region(containing: GuestAddress(start))?.guestStart.rawValue, is: wanted?.start, "region of \(start)")
        let found = view.slice(GuestRange(GuestAddress(start), count: 1))
        try check(found != nil, is: wanted != nil, "\(start)")
        guard found != nil else { continue }
        let host = memory.address(of: start)
        let back = unsafe memory.map.guestAddress(ofHost: UnsafeRawPointer(bitPattern: host)!)
        try check(back, is: GuestAddress(start), "the way back")
        let viewed = unsafe view.guestAddress(ofHost: UnsafeRawPointer(bitPattern: host)!)
        try check(viewed, is: GuestAddress(start), "the view's way back")
      }
      try check(unsafe memory.map.guestAddress(ofHost: UnsafeRawPointer(bitPattern: 4096)!) == nil, "an address of no region")
      try check(unsafe memory.map.guestAddress(ofHost: UnsafeRawPointer(bitPattern: UInt.max)!) == nil, "an address of no region")
    }
  }

  private func region(_ start: UInt64, _ byteCount: Int) throws -> MemoryRegion {
    try MemoryRegion(at: GuestAddress(start), mapping: Mapping(anonymousBytes: byteCount))
  }

  @Test func `two regions may touch, but not share a byte`() throws {
    _ = try MemoryMap([region(0x3000, 4096), region(0x1000, 8192)])
    #expect(throws: MemoryError.overlap(GuestAddress(0x1000), GuestAddress(0x2000))) {
      _ = try MemoryMap([region(0x2000, 4096), region(0x1000, 8192)])
    }
    #expect(throws: MemoryError.overlap(GuestAddress(0x1000), GuestAddress(0x1000))) {
      _ = try MemoryMap([region(0x1000, 4096), region(0x1000, 4096)])
    }
  }

  @Test func `a region past the end of the address space is refused`() throws {
    #expect(throws: MemoryError.self) { _ = try MemoryMap([region(0xFFFF_FFFF_FFFF_F000, 8192)]) }
    let file = try MemoryFile(name: "test", byteCount: 8192)
    #expect(throws: MemoryError.self) {
      _ = try MemoryRegion(at: GuestAddress(0xFFFF_FFFF_FFFF_F000), of: file.descriptor, byteCount: 8192)
    }
  }

  @Test(arguments: [0, -1, Int.min, Int.max, Int.max - 4095])
  func `a region of impossible length is refused, not a crash`(byteCount: Int) throws {
    let file = try MemoryFile(name: "test", byteCount: 4096)
    #expect(throws: MemoryError.self) {
      _ = try MemoryRegion(at: GuestAddress(0x1000), of: file.descriptor, byteCount: byteCount)
    }
  }

  @Test func `more regions than memory slots are refused`() throws {
    let regions = try (0...MemoryMap.largestRegionCount).map { try region(UInt64($0) * 8192, 4096) }
    _ = try MemoryMap(Array(regions.dropLast()))
    #expect(throws: MemoryError.tooManyRegions(513, limit: 512)) { _ = try MemoryMap(regions) }
  }

  @Test func `a map without regions has no memory`() throws {
    var view = MemoryView(try MemoryMap([]))
    let found = view.slice(GuestRange(GuestAddress(0), count: 1)) != nil
    #expect(!found)
  }

  @Test func `a region of a file shows what others write to it`() throws {
    let file = try MemoryFile(name: "test", byteCount: 8192)
    let whole = try MemoryRegion(at: GuestAddress(0), of: file.descriptor, byteCount: 8192)
    let second = try MemoryRegion(at: GuestAddress(0x10000), of: file.descriptor, byteCount: 4096, offset: 4096)
    var writing = MemoryView(try MemoryMap([whole]))
    var reading = MemoryView(try MemoryMap([second]))
    writing.slice(GuestRange(GuestAddress(4096), count: 8))!.store64(0x0102_0304_0506_0708, 0)
    let value = reading.slice(GuestRange(GuestAddress(0x10000), count: 8))!.load64(0)
    #expect(value == 0x0102_0304_0506_0708)
  }
}
