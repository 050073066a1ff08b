import Bus
import GuestMemory
import Linux
import Support
import Testing

@Suite struct WindowTests {
  private func map(_ starts: [UInt64]) throws -> MemoryMap {
    try MemoryMap(starts.map { try MemoryRegion(at: GuestAddress($0), mapping: Mapping(anonymousBytes: 8192)) })
  }

  @Test func `every region is on the bus at the window's base, and nothing else`() throws {
    let space = FakeAddressSpace()
    let window = try DMAWindow(number: 3, map: map([0, 0x10000, 0x12000]), in: space)
    #expect(window.base == IOVA(3 << 40))
    #expect(space.entries.map(\.start) == [3 << 40, 3 << 40 + 0x10000, 3 << 40 + 0x12000])
    #expect(space.entries.allSatisfy { $0.byteCount == 8192 && $0.access == 3 })
    try window.close()
    try window.close()
    #expect(space.entries.isEmpty)
    #expect(space.wrongUnmaps == 0)
  }

  @Test(arguments: 1...4)
  func `a window whose n-th region cannot be mapped leaves nothing on the bus`(n: Int) throws {
    let space = FakeAddressSpace()
    let other = try DMAWindow(number: 9, map: map([0]), in: space)
    let before = space.entries
    space.failingMap = 1 + n
    #expect(throws: IOAddressSpaceError.limitReached) {
      _ = try DMAWindow(number: 1, map: map([0, 0x10000, 0x20000, 0x30000]), in: space)
    }
    #expect(space.entries == before)
    #expect(space.pagesAtUnmap.allSatisfy { $0 })
    #expect(space.wrongUnmaps == 0)
    withExtendedLifetime(other) {}
  }

  @Test func `a region beyond the window is refused, and what was mapped is taken off`() throws {
    let space = FakeAddressSpace()
    _ = try DMAWindow(number: 1, map: map([0, DMAWindow.span - 8192]), in: space)
    #expect(throws: IOAddressSpaceError.self) {
      _ = try DMAWindow(number: 1, map: map([0, DMAWindow.span - 4096]), in: space)
    }
    #expect(throws: IOAddressSpaceError.self) {
      _ = try DMAWindow(number: 1, map: map([0, DMAWindow.span]), in: space)
    }
    #expect(space.entries.isEmpty)
  }

  @Test func `a window takes itself off the bus before its memory goes`() throws {
    let space = FakeAddressSpace()
    do { _ = try DMAWindow(number: 1, map: map([0, 0x10000]), in: space) }
    #expect(space.entries.isEmpty)
    #expect(space.pagesAtUnmap == [true, true])
  }

  @Test func `one region can be removed once, the others stay`() throws {
    let space = FakeAddressSpace()
    let map = try map([0, 0x10000])
    let window = try DMAWindow(number: 1, map: map, in: space)
    try window.remove(map.regions[0])
    #expect(space.entries.map(\.start) == [1 << 40 + 0x10000])
    #expect(throws: IOAddressSpaceError.notMapped(IOVA(1 << 40))) { try window.remove(map.regions[0]) }
    try window.close()
    #expect(space.entries.isEmpty && space.wrongUnmaps == 0)
  }

  // MARK: Another map

  private func starts(_ space: FakeAddressSpace, _ window: DMAWindow) -> [UInt64] { space.entries.map { $0.start - window.base.rawValue }.sorted() }

  @Test func `what comes is mapped before the paths know of it`() throws {
    let space = FakeAddressSpace()
    let old = try map([0])
    let window = try DMAWindow(number: 1, map: old, in: space)
    let new = try MemoryMap(old.regions + map([0x10000]).regions)
    let change = try window.beginChange(to: new)
    #expect(starts(space, window) == [0, 0x10000] && window.map === old)
    change.adopt()
    try window.finish(change)
    #expect(starts(space, window) == [0, 0x10000] && window.map === new)
  }

  @Test func `what goes is unmapped after the paths have dropped it, and what comes at its place is mapped then`() throws {
    let space = FakeAddressSpace()
    let old = try map([0, 0x10000])
    let window = try DMAWindow(number: 1, map: old, in: space)
    let new = try MemoryMap([old.regions[0]] + map([0x10000, 0x20000]).regions)
    let change = try window.beginChange(to: new)
    change.adopt()
    #expect(starts(space, window) == [0, 0x10000] && space.mapCalls == 2)
    try window.finish(change)
    #expect(starts(space, window) == [0, 0x10000, 0x20000] && space.mapCalls == 4 && space.wrongUnmaps == 0)
  }

  @Test func `a change that cannot be mapped leaves the window as it was`() throws {
    let space = FakeAddressSpace()
    let old = try map([0])
    let window = try DMAWindow(number: 1, map: old, in: space)
    let new = try MemoryMap(old.regions + map([0x10000, 0x20000]).regions)
    space.failingMap = 3
    #expect(throws: IOAddressSpaceError.limitReached) { _ = try window.beginChange(to: new) }
    #expect(starts(space, window) == [0] && window.map === old)
    try window.replace(with: new)
    #expect(starts(space, window) == [0, 0x10000, 0x20000])
  }

  @Test func `pages of a region that goes are out of reach when the paths have gone over`() throws {
    let space = FakeAddressSpace()
    let old = try map([0, 0x10000])
    let window = try DMAWindow(number: 1, map: old, in: space, isStrict: true)
    let pages = try #require(window.pages)
    #expect(pages.lend(window.base, byteCount: 100) && pages.lend(window.base + 0x10000, byteCount: 100))
    let change = try window.beginChange(to: MemoryMap([old.regions[0]]))
    #expect(starts(space, window) == [0, 0x10000])
    change.adopt()
    #expect(starts(space, window) == [0])
    try window.finish(change)
    #expect(!pages.lend(window.base + 0x10000, byteCount: 100))
    pages.close()
    try window.close()
    #expect(space.entries.isEmpty && space.wrongUnmaps == 0)
    #expect(throws: IOAddressSpaceError.self) { _ = try window.beginChange(to: old) }
  }

  // MARK: Two threads

  /// Has things done by a thread that lends in between: one at a time, and who asks waits.
  private final class Desk: @unchecked Sendable {
    private let job = Mutex<(@Sendable () -> Void)?>(nil)
    private let done: EventDescriptor
    private let ending = SharedWord()
    init() throws(SystemError) { done = try EventDescriptor() }
    func perform(_ body: @escaping @Sendable () -> Void) {
      job.withLock { $0 = body }
      while !done.clear() { done.wait(milliseconds: 1000) }
    }
    func serve() {
      guard let body = job.withLock({ $0.take() }) else { return }
      body()
      done.signal()
    }
    var isEnding: Bool { ending.value != 0 }
    func end() { ending.set(1) }
  }
  private struct Shared<Value>: @unchecked Sendable { let value: Value }

  /// The fake is one thread's: this puts calls in an order.
  private final class LockedSpace: IOAddressSpace, @unchecked Sendable {
    private let lock = Mutex(())
    let base = FakeAddressSpace()
    var unmapFailures: UnmapFailures { base.unmapFailures }
    func map(_ memory: HostMemory, at address: IOVA, access: DMAAccess) throws(IOAddressSpaceError) {
      try lock.withLock { _ throws(IOAddressSpaceError) in unsafe try base.map(memory, at: address, access: access) }
    }
    func unmap(_ address: IOVA, byteCount: Int) throws(IOAddressSpaceError) {
      try lock.withLock { _ throws(IOAddressSpaceError) in try base.unmap(address, byteCount: byteCount) }
    }
  }

  @Test func `a map that changes while a worker lends is whole at every lending`() throws {
    let space = LockedSpace()
    let kept = try map([0])
    let window = try DMAWindow(number: 1, map: kept, in: space, isStrict: true)
    let pages = try Shared(value: #require(window.pages))
    let base = window.base
    let desk = try Desk()
    let refusals = SharedWord()
    let thread = try Linux.Thread(name: "worker") {
      while !desk.isEnding {
        desk.serve()
        if !pages.value.lend(base + 100, byteCount: 5000) { refusals.set(refusals.value + 1) }
        pages.value.giveBack(base + 100, byteCount: 5000)
        pages.value.flush()
      }
    }
    for n in 0..<500 {
      let more = try map(Array(repeating: 0, count: n % 7).indices.map { UInt64($0 + 1) << 16 }).regions
      let change = Shared(value: try window.beginChange(to: MemoryMap(kept.regions + more)))
      desk.perform { change.value.adopt() }
      try window.finish(change.value)
    }
    desk.perform { pages.value.close() }
    desk.end()
    thread.join()
    try window.close()
    #expect(space.base.entries.isEmpty && space.base.wrongUnmaps == 0)
  }

  @Test func `pages that a second thread uses stop the program`() async {
    await #expect(processExitsWith: .failure) {
      let region = MemoryRegion(at: GuestAddress(0), mapping: try Mapping(anonymousBytes: 8192))
      let window = try DMAWindow(number: 1, map: MemoryMap([region]), in: FakeAddressSpace(), isStrict: true)
      let pages = Shared(value: try #require(window.pages))
      _ = pages.value.lend(window.base, byteCount: 100)
      let thread = try Linux.Thread(name: "other") { pages.value.flush() }
      thread.join()
    }
  }

  // MARK: A mapping that cannot be removed

  private final class Flag: Sendable {
    private let word = SharedWord()
    func raise() { word.set(word.value + 1) }
    var count: Int { Int(word.value) }
  }

  @Test(arguments: ["close", "change", "remove", "deinit", "undo"])
  func `memory that cannot be unmapped lives on, and the device is stopped once`(way: String) throws {
    let space = FakeAddressSpace()
    let stopped = Flag()
    space.unmapFailures.onFirst { stopped.raise() }
    weak var stuck: MemoryRegion?
    weak var other: MemoryRegion?
    do {
      let map = try map([0, 0x10000])
      (stuck, other) = (map.regions[0], map.regions[1])
      space.failingUnmap = 1
      if way == "undo" {
        space.failingMap = 2
        #expect(throws: IOAddressSpaceError.limitReached) { _ = try DMAWindow(number: 1, map: map, in: space) }
      } else {
        let window = try DMAWindow(number: 1, map: map, in: space)
        switch way {
        case "close": #expect(throws: IOAddressSpaceError.self) { try window.close() }
        case "change": #expect(throws: IOAddressSpaceError.self) { try window.replace(with: MemoryMap([])) }
        case "remove": #expect(throws: IOAddressSpaceError.self) { try window.remove(map.regions[0]) }
        default: break
        }
      }
    }
    #expect(stuck != nil && other == nil, "\(way)")
    #expect(space.entries.map(\.start) == [1 << 40] && space.unmapFailures.count == 1 && stopped.count == 1, "\(way)")
    #expect(space.unmapFailures.failures.map(\.address) == [IOVA(1 << 40)], "\(way)")
  }

  @Test func `a device that is said to be stopped too late is stopped at once, and never twice`() throws {
    let space = FakeAddressSpace()
    let (first, second) = (Flag(), Flag())
    space.failingUnmap = 1
    do { _ = try DMAWindow(number: 1, map: map([0]), in: space) }
    space.unmapFailures.onFirst { first.raise() }
    #expect(first.count == 1)
    space.failingUnmap = 2
    do { _ = try DMAWindow(number: 2, map: map([0]), in: space) }
    #expect(first.count == 1 && second.count == 0 && space.unmapFailures.count == 2)
  }
}

@Suite struct DMABufferTests {
  @Test func `pages that cannot be unmapped stay, and so does their address`() throws {
    let space = FakeAddressSpace()
    let allocator = IOVAAllocator()
    space.failingUnmap = 1
    let base: UInt
    do {
      let buffer = try DMABuffer(byteCount: 4096, access: .write, in: space, allocator: allocator)
      base = UInt(bitPattern: unsafe buffer.bytes(0, 1).baseAddress!)
    }
    #expect(isMapped(base, 4096) && space.entries.count == 1 && allocator.usedByteCount == 8192)
    #expect(space.unmapFailures.count == 1)
  }

  @Test func `a buffer is off the bus before its pages go`() throws {
    let space = FakeAddressSpace()
    let base: UInt
    do {
      let buffer = try DMABuffer(byteCount: 5000, access: .write, in: space, allocator: IOVAAllocator())
      base = UInt(bitPattern: unsafe buffer.bytes(0, 1).baseAddress!)
      #expect(space.entries.map(\.byteCount) == [8192])
      #expect(space.entries.map(\.access) == [DMAAccess.write.rawValue])
      #expect(isMapped(base, 8192))
    }
    #expect(space.entries.isEmpty)
    #expect(space.pagesAtUnmap == [true])
  }

  @Test func `a buffer that cannot be mapped leaves no pages`() throws {
    let space = FakeAddressSpace()
    space.failingMap = 1
    let before = addressSpaceBytes()
    #expect(throws: DMABufferError.bus(.limitReached)) {
      _ = try DMABuffer(
        byteCount: 1 << 33, access: .write, in: space, allocator: IOVAAllocator(to: IOVA(1 << 40)))
    }
    #expect(space.entries.isEmpty)
    #expect(addressSpaceBytes() - before < 1 << 32)
  }

  @Test func `what is written at an offset is read there, and lies in memory little-endian`() throws {
    let buffer = try DMABuffer(
      byteCount: 64, access: [.read, .write], in: FakeAddressSpace(), allocator: IOVAAllocator())
    buffer.store64(0x0102_0304_0506_0708, 8)
    buffer.store32(0xAABB_CCDD, 60)
    #expect(buffer.load64(8) == 0x0102_0304_0506_0708 && buffer.load64Acquire(8) == 0x0102_0304_0506_0708)
    #expect(buffer.load32Acquire(60) == 0xAABB_CCDD)
    #expect(unsafe Array(buffer.bytes(8, 2)) == [8, 7])
  }

  @Test func `between any two allocations lies a page that is nobody's`() throws {
    try withSeeds(50) { random in
      let allocator = IOVAAllocator(from: IOVA(0x10_0000), to: IOVA(0x40_0000))
      var end: UInt64 = 0x10_0000 - 4096
      while true {
        let byteCount = random.int(1...100_000)
        let pages = UInt64((byteCount + 4095) / 4096 * 4096)
        guard let address = allocator.allocate(byteCount: byteCount) else {
          try check(end + 4096 + pages > 0x40_0000, "refused although there is room")
          break
        }
        try check(address.rawValue % 4096, is: 0, "alignment")
        try check(address.rawValue >= end + 4096, "no page between")
        end = address.rawValue + pages
        try check(end <= 0x40_0000, "past the window")
      }
    }
  }

  @Test func `the last page of the window can be had, once`() {
    let allocator = IOVAAllocator(from: IOVA(0), to: IOVA(8192))
    #expect(allocator.allocate(byteCount: 8193) == nil)
    #expect(allocator.allocate(byteCount: 8192) == IOVA(0))
    #expect(allocator.allocate(byteCount: 1) == nil)
  }
}

@Suite struct IOVAAllocatorTests {
  /// Against a plain list of what is out: nothing overlaps, a page lies behind each, and what is refused has no room.
  @Test func `what was freed is handed out again, the lowest room first`() throws {
    try withSeeds(50) { random in
      let (start, end): (UInt64, UInt64) = (0x10_0000, 0x30_0000)
      let allocator = IOVAAllocator(from: IOVA(start), to: IOVA(end))
      var out: [(first: UInt64, pages: UInt64, byteCount: Int)] = []
      func room(at address: UInt64, _ pages: UInt64) -> Bool {
        address + pages * 4096 <= end
          && !out.contains { $0.first < address + (pages + 1) * 4096 && address < $0.first + ($0.pages + 1) * 4096 }
      }
      for _ in 0..<400 {
        if random.int(0...2) > 0 || out.isEmpty {
          let byteCount = random.int(1...150_000)
          let pages = UInt64((byteCount + 4095) / 4096)
          let lowest = stride(from: start, to: end, by: 4096).first { room(at: $0, pages) }
          let address = allocator.allocate(byteCount: byteCount)
          try check(address?.rawValue == lowest, "the lowest room is \(String(describing: lowest)), found \(String(describing: address))")
          if let address { out.append((address.rawValue, pages, byteCount)) }
        } else {
          let freed = out.remove(at: random.int(0...out.count - 1))
          allocator.free(IOVA(freed.first), byteCount: freed.byteCount)
        }
        try check(allocator.usedByteCount, is: out.reduce(0) { $0 + ($1.pages + 1) * 4096 }, "bytes in use")
      }
      for freed in out { allocator.free(IOVA(freed.first), byteCount: freed.byteCount) }
      try check(allocator.usedByteCount, is: 0, "bytes in use at the end")
      try check(allocator.allocate(byteCount: Int(end - start)) == IOVA(start), "all of it in one piece again")
    }
  }

  @Test func `more bytes than any window has are refused, not added up past the end`() {
    let allocator = IOVAAllocator()
    for byteCount in [1 << 48, Int.max - 5000, Int.max] { #expect(allocator.allocate(byteCount: byteCount) == nil) }
  }

  @Test func `buffers come and go without using the window up`() throws {
    let space = FakeAddressSpace()
    let allocator = IOVAAllocator(from: IOVA(0x10_0000), to: IOVA(0x20_0000))
    let kept = try DMABuffer(byteCount: 4096, access: .write, in: space, allocator: allocator)
    for _ in 0..<1000 {
      let buffer = try DMABuffer(byteCount: 500_000, access: .write, in: space, allocator: allocator)
      #expect(buffer.address == IOVA(0x10_2000))
      // One that cannot be mapped gives its address back, too.
      space.failingMap = space.mapCalls + 1
      #expect(throws: DMABufferError.bus(.limitReached)) {
        _ = try DMABuffer(byteCount: 4096, access: .write, in: space, allocator: allocator)
      }
    }
    #expect(allocator.usedByteCount == 8192 && kept.address == IOVA(0x10_0000))
    #expect(throws: DMABufferError.noAddresses(byteCount: 1 << 20)) {
      _ = try DMABuffer(byteCount: 1 << 20, access: .write, in: space, allocator: allocator)
    }
  }

  @Test func `threads that allocate and free at the same time never hold the same page`() throws {
    let pages = 2048
    let allocator = IOVAAllocator(from: IOVA(0), to: IOVA(UInt64(pages) * 4096))
    let owners = (0..<pages).map { _ in SharedWord() }
    let clashes = (0..<4).map { _ in SharedWord() }
    func work(_ number: Int) -> @Sendable () -> Void {
      {
        var random = SeededGenerator(seed: UInt64(number))
        var mine: [(address: IOVA, pages: Int)] = []
        func mark(_ one: (address: IOVA, pages: Int), as wanted: UInt64, was: UInt64) {
          for page in Int(one.address.rawValue / 4096)..<Int(one.address.rawValue / 4096) + one.pages {
            if owners[page].value != was { clashes[number].set(clashes[number].value + 1) }
            owners[page].set(wanted)
          }
        }
        for _ in 0..<3000 {
          if random.int(0...1) == 0 && mine.count < 20 {
            let count = random.int(1...8)
            guard let address = allocator.allocate(byteCount: 4096 * count) else { continue }
            mine.append((address, count))
            mark((address, count), as: UInt64(number + 1), was: 0)
          } else if !mine.isEmpty {
            let one = mine.remove(at: random.int(0...mine.count - 1))
            mark(one, as: 0, was: UInt64(number + 1))
            allocator.free(one.address, byteCount: 4096 * one.pages)
          }
        }
        for one in mine {
          mark(one, as: 0, was: UInt64(number + 1))
          allocator.free(one.address, byteCount: 4096 * one.pages)
        }
      }
    }
    let first = try Thread(name: "first", work(0))
    let second = try Thread(name: "second", work(1))
    work(2)()
    first.join()
    second.join()
    #expect(clashes.allSatisfy { $0.value == 0 } && allocator.usedByteCount == 0)
  }
}

@Suite struct RegisterTests {
  struct Example: Register32 {
    static func offset(_ n: Int) -> Int { 0x100 + 0x40 * n }
    var rawValue: UInt32
    var isEnabled: Bool {
      get { self[bit: 25] }
      set { self[bit: 25] = newValue }
    }
  }

  @Test func `a field is its bits, and a change of it leaves the others alone`() throws {
    try withSeeds(200) { random in
      let low = random.int(0...31)
      let high = random.int(low...31)
      let before = UInt32(truncatingIfNeeded: random.next())
      let width = high - low + 1
      let value = UInt32(truncatingIfNeeded: random.next() & ((1 << UInt64(width)) - 1))
      var register = Example(rawValue: before)
      register[bits: low...high] = value
      for n in 0..<32 {
        let wanted = (low...high).contains(n) ? value >> UInt32(n - low) & 1 : before >> UInt32(n) & 1
        try check(register.rawValue >> UInt32(n) & 1, is: wanted, "bit \(n) of \(low)...\(high)")
      }
      try check(register[bits: low...high], is: value, "read back")
      register[bit: low] = true
      try check(register[bit: low], "set")
      register[bit: low] = false
      try check(!register[bit: low], "cleared")
    }
  }

  @Test func `a change is one load and one store of the n-th register`() {
    let registers = FakeRegisters()
    registers.answers[0x180] = [0xFFFF_0000]
    registers.modify(Example.self, 2) { $0[bits: 0...3] = 5 }
    #expect(registers.reads == 1)
    #expect(registers.writes.map(\.offset) == [0x180])
    #expect(registers.writes.map(\.value) == [0xFFFF_0005])
  }

  @Test func `waiting ends as soon as the register is as wanted`() throws {
    let registers = FakeRegisters()
    let clock = FakeClock()
    registers.answers[0x100] = [0, 0, 1 << 25]
    try registers.wait(for: Example.self, within: .milliseconds(1), on: clock) { $0.isEnabled }
    #expect(clock.pauses == [10_000, 10_000])
  }

  @Test func `waiting for what never comes ends in time, and says what it saw`() throws {
    let registers = FakeRegisters()
    let clock = FakeClock()
    registers.answers[0x140] = [3]
    var found: RegisterError?
    do { try registers.wait(for: Example.self, 1, within: .microseconds(95), on: clock) { $0.isEnabled } } catch { found = error }
    #expect(found?.name == "Example" && found?.number == 1 && found?.offset == 0x140)
    #expect(found?.value == 3 && found?.waited == 95_000)
    #expect(clock.now >= 95_000 && clock.now <= 105_000)
  }

  @Test func `a last look is taken when the time is up`() throws {
    let registers = FakeRegisters()
    registers.answers[0x100] = [0, 1 << 25]
    try registers.wait(for: Example.self, within: .microseconds(10), on: FakeClock()) { $0.isEnabled }
    registers.answers[0x100] = [1 << 25]
    try registers.wait(for: Example.self, within: .zero, on: FakeClock()) { $0.isEnabled }
  }

  @Test func `a device that has gone does not pass for one that is ready`() throws {
    let registers = FakeRegisters()
    registers.answers[0x100] = [.max]
    #expect(throws: RegisterError.self) {
      try registers.wait(for: Example.self, within: .milliseconds(1), on: FakeClock()) { $0.isEnabled }
    }
  }

  @Test func `mapped registers and their doorbells are plain words of memory`() throws {
    let memory = try Mapping(anonymousBytes: 4096)
    let registers = unsafe MappedRegisters(unsafe: memory.base, byteCount: 4096)
    registers.write(Example(rawValue: 0x1234_5678), 1)
    #expect(registers.read(0x140) == 0x1234_5678)
    registers.doorbell(4092).ring(9)
    #expect(registers.read(4092) == 9)
  }
}
