import Bus
import Linux
import Simulation
import Testing

/// Memory to map, with canaries in every byte.
@safe private final class Pages {
  static let canary: UInt8 = 0xC5
  let mapping: Mapping
  init(_ byteCount: Int, alignment: Int = 4096) throws {
    mapping = try Mapping(anonymousBytes: byteCount, alignment: alignment)
    unsafe mapping.base.initializeMemory(as: UInt8.self, repeating: Self.canary, count: byteCount)
  }
  func memory(_ offset: Int = 0, _ byteCount: Int) -> HostMemory {
    unsafe HostMemory(base: mapping.base + offset, byteCount: byteCount)
  }
  func byte(_ offset: Int) -> UInt8 { unsafe mapping.base.load(fromByteOffset: offset, as: UInt8.self) }
  /// Where an answer of `translate` lies in these pages.
  func offset(_ pointer: UnsafeMutableRawPointer?) -> Int? { unsafe pointer.map { unsafe $0 - mapping.base } }
  var isUntouched: Bool {
    let bytes = unsafe UnsafeRawBufferPointer(start: mapping.base, count: mapping.byteCount)
    return unsafe bytes.allSatisfy { $0 == Self.canary }
  }
}

/// Whether a run can be reached in one piece.
private func reaches(_ iommu: SimulatedIOMMU, _ address: UInt64, _ count: Int, _ access: DMAAccess = .write) -> Bool {
  unsafe iommu.translate(address, count: count, access: access) != nil
}
private func write(_ iommu: SimulatedIOMMU, _ address: UInt64, _ bytes: [UInt8]) -> Bool {
  unsafe bytes.withUnsafeBytes { unsafe iommu.write(address, from: $0.baseAddress!, count: $0.count) }
}
private func read(_ iommu: SimulatedIOMMU, _ address: UInt64, _ count: Int) -> [UInt8]? {
  var bytes = [UInt8](repeating: 0, count: count)
  let done = unsafe bytes.withUnsafeMutableBytes { unsafe iommu.read(address, into: $0.baseAddress!, count: count) }
  return done ? bytes : nil
}

@Suite struct IOMMUTests {
  static let mebibyte = 1 << 20

  @Test func `a device reaches mapped bytes and no others`() throws {
    let pages = try Pages(8192)
    let iommu = SimulatedIOMMU()
    try unsafe iommu.map(pages.memory(0, 8192), at: IOVA(0x10000), access: [.read, .write])
    #expect(write(iommu, 0x10FFE, [1, 2, 3, 4]))
    #expect((4094..<4098).map(pages.byte) == [1, 2, 3, 4])
    #expect(read(iommu, 0x10FFF, 2) == [2, 3])
    let last = unsafe pages.offset(iommu.translate(0x11FFF, count: 1, access: .write))
    #expect(last == 8191)
    #expect(!reaches(iommu, 0x12000, 1))
    #expect(!reaches(iommu, 0xFFFF, 1))
    #expect(!reaches(iommu, 0x10000, 0))
    #expect(!reaches(iommu, 0x10000, -1))
    #expect(iommu.faultCount == 0)
  }

  @Test(arguments: [(0x10FFF, 8192), (0x11FFF, 2), (0xFFFF, 2), (0x11000, 4097)])
  func `a run that is not wholly mapped writes nothing and is recorded`(address: UInt64, count: Int) throws {
    let pages = try Pages(8192)
    let clock = SimulatedClock(now: 77)
    let iommu = SimulatedIOMMU(clock: clock)
    try unsafe iommu.map(pages.memory(0, 8192), at: IOVA(0x10000), access: [.read, .write])
    #expect(!write(iommu, address, [UInt8](repeating: 9, count: count)))
    #expect(pages.isUntouched)
    #expect(iommu.faultCount == 1)
    let fault = try #require(iommu.faults.first)
    #expect(fault.address == IOVA(address) && fault.byteCount == count && fault.access == .write)
    #expect(fault.reason == .notMapped && fault.time == 77)
    #expect(fault.refused == IOVA(address < 0x10000 ? address : 0x12000))
    #expect(read(iommu, address, count) == nil)
    #expect(iommu.faults.last?.access == .read)
  }

  @Test func `permissions hold for each direction`() throws {
    let pages = try Pages(8192)
    let iommu = SimulatedIOMMU()
    try unsafe iommu.map(pages.memory(0, 4096), at: IOVA(0x1000), access: .read)
    try unsafe iommu.map(pages.memory(4096, 4096), at: IOVA(0x2000), access: .write)
    #expect(!write(iommu, 0x1000, [1]))
    #expect(iommu.faults.last?.reason == .noWritePermission)
    #expect(read(iommu, 0x2000, 1) == nil)
    #expect(iommu.faults.last?.reason == .noReadPermission)
    // A write that begins in a writable page and runs into a read-only one.
    try unsafe iommu.map(pages.memory(4096, 4096), at: IOVA(0x0), access: .write)
    #expect(!write(iommu, 0xFFF, [1, 2]))
    #expect(iommu.faults.last?.refused == IOVA(0x1000))
    #expect(pages.isUntouched)
    #expect(write(iommu, 0x2000, [1]) && read(iommu, 0x1000, 1) == [Pages.canary])
  }

  @Test func `a run over pages that lie apart here is written, but not translated`() throws {
    let pages = try Pages(3 * 4096)
    let iommu = SimulatedIOMMU()
    try unsafe iommu.map(pages.memory(8192, 4096), at: IOVA(0x1000), access: [.read, .write])
    try unsafe iommu.map(pages.memory(0, 4096), at: IOVA(0x2000), access: [.read, .write])
    #expect(!reaches(iommu, 0x1FFF, 2))
    #expect(write(iommu, 0x1FFF, [1, 2]))
    #expect(pages.byte(12287) == 1 && pages.byte(0) == 2 && pages.byte(4096) == Pages.canary)
    #expect(read(iommu, 0x1FFF, 2) == [1, 2])
    #expect(iommu.faultCount == 0)
  }

  @Test func `addresses past 48 bits are out of range, not folded`() throws {
    let pages = try Pages(8192)
    let iommu = SimulatedIOMMU()
    let end: UInt64 = 1 << 48
    try unsafe iommu.map(pages.memory(0, 4096), at: IOVA(0), access: .write)
    try unsafe iommu.map(pages.memory(4096, 4096), at: IOVA(end - 4096), access: .write)
    #expect(!write(iommu, end, [1]))
    #expect(iommu.faults.last?.reason == .outOfRange)
    #expect(!write(iommu, end - 1, [1, 2]))
    #expect(!write(iommu, .max, [1, 2]))
    #expect(pages.isUntouched)
    #expect(write(iommu, end - 1, [1]) && pages.byte(8191) == 1)
  }

  @Test func `mapping refuses what is misaligned, out of range, overlapping or too many`() throws {
    let pages = try Pages(16384)
    let iommu = SimulatedIOMMU(mappingLimit: 2)
    func map(_ memory: HostMemory, _ address: UInt64) throws(IOAddressSpaceError) {
      try unsafe iommu.map(memory, at: IOVA(address), access: .write)
    }
    #expect(throws: IOAddressSpaceError.misaligned(IOVA(1), byteCount: 4096)) { unsafe try map(pages.memory(0, 4096), 1) }
    #expect(throws: IOAddressSpaceError.misaligned(IOVA(0), byteCount: 100)) { unsafe try map(pages.memory(0, 100), 0) }
    #expect(throws: IOAddressSpaceError.misaligned(IOVA(0), byteCount: 0)) { unsafe try map(pages.memory(0, 0), 0) }
    #expect(throws: IOAddressSpaceError.misaligned(IOVA(0), byteCount: 4096)) { unsafe try map(pages.memory(8, 4096), 0) }
    #expect(throws: IOAddressSpaceError.outOfRange(IOVA((1 << 48) - 4096), byteCount: 8192)) {
      unsafe try map(pages.memory(0, 8192), (1 << 48) - 4096)
    }
    try unsafe map(pages.memory(0, 8192), 0x2000)
    for address: UInt64 in [0x1000, 0x2000, 0x3000] {
      #expect(throws: IOAddressSpaceError.overlap(IOVA(0x2000))) { unsafe try map(pages.memory(8192, 8192), address) }
    }
    try unsafe map(pages.memory(8192, 4096), 0x4000)
    #expect(throws: IOAddressSpaceError.limitReached) { unsafe try map(pages.memory(8192, 4096), 0x8000) }
    #expect(iommu.mapCount == 2 && iommu.mappingCount == 2)
  }

  @Test func `unmapping takes whole mappings, one or several, and cuts none`() throws {
    let pages = try Pages(16384)
    let iommu = SimulatedIOMMU()
    try unsafe iommu.map(pages.memory(0, 8192), at: IOVA(0x2000), access: .write)
    try unsafe iommu.map(pages.memory(8192, 8192), at: IOVA(0x6000), access: .write)
    for (address, count): (UInt64, Int) in [(0x2000, 4096), (0x3000, 4096), (0x2000, 0x5000), (0x3000, 0x5000), (0x9000, 4096)] {
      #expect(throws: IOAddressSpaceError.notMapped(IOVA(address))) { try iommu.unmap(IOVA(address), byteCount: count) }
    }
    #expect(reaches(iommu, 0x2000, 8192))
    try iommu.unmap(IOVA(0x1000), byteCount: 0x8000)
    #expect(iommu.mappingCount == 0 && iommu.tableCount == 1)
    #expect(!reaches(iommu, 0x2000, 1))
    #expect(!reaches(iommu, 0x7000, 1))
  }

  @Test func `large pages are taken where both addresses allow them`() throws {
    let (mebibyte, gibibyte) = (Self.mebibyte, 1 << 30)
    // Not touched, so it costs no memory.
    let mapping = try Mapping(anonymousBytes: gibibyte + 4 * mebibyte, alignment: gibibyte)
    let iommu = SimulatedIOMMU()
    let start: UInt64 = 1 << 40
    try unsafe iommu.map(
      HostMemory(base: mapping.base, byteCount: gibibyte + 4 * mebibyte), at: IOVA(start), access: .write)
    #expect(iommu.pageByteCount(at: IOVA(start)) == gibibyte)
    #expect(iommu.pageByteCount(at: IOVA(start + 1 << 30)) == 2 * mebibyte)
    #expect(iommu.tableCount == 3)
    let run = unsafe iommu.translate(start + 12_345, count: gibibyte, access: .write).map { unsafe $0 - mapping.base }
    #expect(run == 12_345)
    try iommu.unmap(IOVA(start), byteCount: gibibyte + 4 * mebibyte)
    // The bus address is aligned, the host address is not: small pages until both are, which is never.
    try unsafe iommu.map(
      HostMemory(base: mapping.base + 4096, byteCount: 4 * mebibyte), at: IOVA(start), access: .write)
    #expect(iommu.pageByteCount(at: IOVA(start + 2 << 20)) == 4096)
    try iommu.unmap(IOVA(start), byteCount: 4 * mebibyte)
    // Both are off by the same: small pages up to the boundary, large ones from there.
    try unsafe iommu.map(
      HostMemory(base: mapping.base + 4096, byteCount: 4 * mebibyte), at: IOVA(start + 4096), access: .write)
    #expect(iommu.pageByteCount(at: IOVA(start + 4096)) == 4096)
    #expect(iommu.pageByteCount(at: IOVA(start + 2 << 20)) == 2 * mebibyte)
    #expect(iommu.pageByteCount(at: IOVA(start + 4 << 20)) == 4096)
    #expect(iommu.pageByteCount(at: IOVA(start + 4 << 20 + 4096)) == nil)
  }

  @Test func `a stale translation stays usable until it is invalidated`() throws {
    let pages = try Pages(8192)
    let iommu = SimulatedIOMMU()
    try unsafe iommu.map(pages.memory(0, 4096), at: IOVA(0x1000), access: .write)
    try unsafe iommu.map(pages.memory(4096, 4096), at: IOVA(0x2000), access: .write)
    #expect(write(iommu, 0x1000, [1]))
    let generation = iommu.generation
    try iommu.unmapWithoutInvalidation(IOVA(0x1000), byteCount: 4096)
    try iommu.unmapWithoutInvalidation(IOVA(0x2000), byteCount: 4096)
    #expect(iommu.generation == generation)
    #expect(write(iommu, 0x1001, [2]), "cached: still there")
    #expect(!write(iommu, 0x2000, [2]), "was never cached")
    iommu.invalidate(IOVA(0x2000), byteCount: 4096)
    #expect(write(iommu, 0x1002, [3]), "another page was invalidated")
    iommu.invalidate(IOVA(0x1000), byteCount: 4096)
    #expect(!write(iommu, 0x1003, [4]))
    #expect((0..<4).map(pages.byte) == [1, 2, 3, Pages.canary])
  }

  @Test func `an ordinary unmapping leaves nothing usable`() throws {
    let pages = try Pages(4 * Self.mebibyte, alignment: 2 * Self.mebibyte)
    let iommu = SimulatedIOMMU()
    try unsafe iommu.map(pages.memory(0, 4 * Self.mebibyte), at: IOVA(1 << 40), access: .write)
    #expect(write(iommu, 1 << 40, [1]) && write(iommu, 1 << 40 + 2 << 20, [1]))
    try iommu.unmap(IOVA(1 << 40), byteCount: 4 * Self.mebibyte)
    #expect(!write(iommu, 1 << 40, [2]) && !write(iommu, 1 << 40 + 2 << 20, [2]))
    #expect(pages.byte(0) == 1)
  }

  @Test func `generation moves with every map, unmap and invalidation`() throws {
    let pages = try Pages(4096)
    let iommu = SimulatedIOMMU()
    var seen: Set<UInt64> = [iommu.generation]
    try unsafe iommu.map(pages.memory(0, 4096), at: IOVA(0x1000), access: .write)
    seen.insert(iommu.generation)
    iommu.invalidate(IOVA(0x1000), byteCount: 4096)
    seen.insert(iommu.generation)
    iommu.invalidateAll()
    seen.insert(iommu.generation)
    try iommu.unmap(IOVA(0x1000), byteCount: 4096)
    seen.insert(iommu.generation)
    #expect(seen.count == 5)
  }

  @Test func `the cache answers the second look, and every look is counted`() throws {
    let pages = try Pages(4096)
    let iommu = SimulatedIOMMU()
    try unsafe iommu.map(pages.memory(0, 4096), at: IOVA(0x1000), access: .write)
    for _ in 0..<10 { #expect(reaches(iommu, 0x1000, 64)) }
    #expect(iommu.misses == 1 && iommu.hits == 9)
  }

  @Test func `the last 256 faults are kept in order, all are counted`() {
    let iommu = SimulatedIOMMU()
    for n in 0..<300 { _ = write(iommu, UInt64(n), [0]) }
    #expect(iommu.faultCount == 300)
    #expect(iommu.faults.map { $0.address.rawValue } == Array(44..<300))
  }

  @Test(arguments: [1, 2, 3] as [UInt64])
  func `random use agrees with a dictionary of pages`(number: UInt64) throws {
    var seed = Seed(number)
    let pageCount = 2048  // 8 MiB of host memory, aligned so that large pages appear
    let pages = try Pages(pageCount * 4096, alignment: 2 * Self.mebibyte)
    let iommu = SimulatedIOMMU()
    // The reference: bus page → host page and access, and the mappings as they were made.
    var reference: [UInt64: (host: Int, access: DMAAccess)] = [:]
    var mappings: [(page: UInt64, count: Int)] = []
    // Bus pages are drawn from a few places, so that overlaps and neighbours are frequent.
    let bases: [UInt64] = [0, 512, 1 << 28, 1 << 28 + 512, 1 << 36 - 2048]
    for step in 0..<6000 {
      let page = bases.randomElement(using: &seed)! + UInt64(Bool.random(using: &seed) ? 0 : Int.random(in: 0..<1024, using: &seed))
      let note: Comment = "SEED=\(seed) step \(step)"
      switch Int.random(in: 0..<10, using: &seed) {
      case 0, 1:
        let large = Bool.random(using: &seed)
        let count = large ? 512 * Int.random(in: 1...2, using: &seed) : Int.random(in: 1...40, using: &seed)
        let host = large ? 512 * Int.random(in: 0...1, using: &seed) : Int.random(in: 0...(pageCount - count), using: &seed)
        let access: DMAAccess = [[.read], [.write], [.read, .write]].randomElement(using: &seed)!
        let overlaps = (0..<UInt64(count)).contains { reference[page + $0] != nil }
        let outside = page + UInt64(count) > 1 << 36
        do {
          try unsafe iommu.map(pages.memory(host * 4096, count * 4096), at: IOVA(page * 4096), access: access)
          #expect(!overlaps && !outside, note)
          for n in 0..<count { reference[page + UInt64(n)] = (host + n, access) }
          mappings.append((page, count))
        } catch {
          #expect(outside ? error == .outOfRange(IOVA(page * 4096), byteCount: count * 4096) : overlaps, note)
        }
      case 2:
        guard !mappings.isEmpty else { continue }
        let index = Int.random(in: 0..<mappings.count, using: &seed)
        let (start, count) = mappings[index]
        if count > 1 {
          #expect(throws: IOAddressSpaceError.self, note) { try iommu.unmap(IOVA(start * 4096), byteCount: (count - 1) * 4096) }
        }
        try iommu.unmap(IOVA(start * 4096), byteCount: count * 4096)
        for n in 0..<count { reference[start + UInt64(n)] = nil }
        mappings.remove(at: index)
      default:
        let address = page * 4096 + UInt64.random(in: 0..<4096, using: &seed)
        let count = [1, 64, 1518, 5000, 300_000].randomElement(using: &seed)!
        let access: DMAAccess = Bool.random(using: &seed) ? .read : .write
        let touched = (address / 4096)...((address + UInt64(count) - 1) / 4096)
        let entries = touched.map { reference[$0] }
        let isMapped = entries.allSatisfy { $0?.access.contains(access) == true }
        let isContiguous = isMapped && zip(entries, entries.dropFirst()).allSatisfy { $0!.host + 1 == $1!.host }
        let found = unsafe pages.offset(iommu.translate(address, count: count, access: access))
        let wanted = isContiguous ? entries[0]!.host * 4096 + Int(address % 4096) : nil
        #expect(found == wanted, note)
        let faults = iommu.faultCount
        if access == .read {
          #expect((read(iommu, address, count) != nil) == isMapped, note)
        } else if count < 6000 {
          // Writing must change these bytes and, checked at both ends, no others.
          let mark = UInt8.random(in: 0...255, using: &seed)
          let before = entries.map { entry in entry.map { pages.byte($0.host * 4096 + Int(address % 4096)) } }
          #expect(write(iommu, address, [UInt8](repeating: mark, count: count)) == isMapped, note)
          for (n, entry) in entries.enumerated() {
            guard let entry else { continue }
            let byte = pages.byte(entry.host * 4096 + (n == 0 ? Int(address % 4096) : 0))
            if isMapped { #expect(byte == mark, note) } else if n == 0 { #expect(byte == before[0], note) }
          }
        } else { continue }
        #expect(iommu.faultCount == faults + (isMapped ? 0 : 1), note)
      }
    }
    #expect(iommu.hits > 0 && iommu.misses > 0 && iommu.mapCount > 100)
    for (start, count) in mappings { try iommu.unmap(IOVA(start * 4096), byteCount: count * 4096) }
    #expect(iommu.tableCount == 1 && iommu.mappingCount == 0)
  }
}
