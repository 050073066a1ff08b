import Glibc
import GuestMemory
import Linux
import Support
import Testing
import Virtio

/// A device in a process of its own that is killed while it works, again and again; its successors go on with what they
/// find in memory. The driver, here, sees each of its buffers come back once, in order.
///
/// The children do nothing but turn a queue: they fork from a process with other threads.
@Suite(.serialized) struct DeathTests {
  typealias Piece = PlainPackedDriver.Piece

  /// What a device writes into a buffer's length, by the buffer's ID.
  private func byteCount(_ id: UInt16) -> UInt32 { 12 + UInt32(id) * 3 }

  @Test(arguments: RecordStore.Kind.allCases)
  func `a packed ring survives its device's deaths`(kind: RecordStore.Kind) throws {
    // A long ring: most of the child's time goes into publications.
    let size = 257
    let bench = try PackedBench(size: size)
    let file = try RecordStore(kind, ringSize: size)
    let driver = bench.driver
    var random = SeededGenerator(seed: 77)
    var (next, ids, returned, deaths): (UInt16, [UInt16], Int, Int) = (0, [], 0, 0)
    func drive() throws {
      while let used = driver.takeUsed() {
        let id = ids.removeFirst()
        try check(used, is: .init(id: id, byteCount: byteCount(id), isWritten: true), "buffer \(returned) after \(deaths) deaths")
        returned += 1
      }
      while driver.room > 0 {
        let count = min(driver.room, next % 7 == 0 ? 3 : 1)
        driver.offer((0..<count).map { Piece(Bench.first + UInt64($0) * 64, 40) }, id: next)
        ids.append(next)
        next &+= 1
      }
    }
    while deaths < 300 {
      // What the front-end says never changes: QEMU knows no better.
      var device = try PackedDevice(bench, PackedBench.usual, base: .packedStart, record: file.open())
      let child = fork()
      if child == 0 {
        device.work { 12 + UInt32($0) * 3 }
        _exit(0)
      }
      let end = MonotonicClock.now() + UInt64(random.int(0...3_000_000))
      while MonotonicClock.now() < end { try drive() }
      kill(child, SIGKILL)
      waitpid(child, nil, 0)
      deaths += 1
      try drive()
    }
    // The last successor gives back whatever is out.
    var device = try PackedDevice(bench, PackedBench.usual, base: .packedStart, record: file.open())
    try drive()
    while device.next() != nil {}
    try check(device.ids, is: ids, "what is out")
    // How many depends on the machine; that there were some does not.
    #expect(returned > 0)
  }

  /// A page that may not be written to any more ends its device at the very store. Of rings of this size the record's state
  /// ends a page, in a region, and the 255th descriptor ends one of the ring.
  @Test(arguments: RecordStore.Kind.allCases, [true, false])
  func `what is kept is whole before its state says so, and that before the ring`(kind: RecordStore.Kind, atState: Bool) throws {
    let (size, first, count) = (390, 255, 100)
    let bench = try PackedBench(size: size, first: first)
    let file = try RecordStore(kind, ringSize: size)
    var address: UInt = 0
    var device = try bench.queue(record: file.open(&address))
    for n in 0..<count { bench.driver.offer([Piece(Bench.first, 64)], id: UInt16(n)) }
    while device.next() != nil {}
    for n in 0..<count { device.put(UInt32(n)) }
    let ring = bench.memory.read(bench.driver.ring, 16 * size)
    let record = file.bytes
    address = atState ? address + 24 : bench.memory.address(of: bench.driver.place(first))
    let child = fork()
    if child == 0 {
      forbidWriting(to: address)
      _ = device.queue.publish(UInt16(count))
      _exit(0)
    }
    var status: CInt = 0
    unsafe waitpid(child, &status, 0)
    #expect(status & 0x7F == SIGSEGV, "the store that was to be the last: \(status)")
    let kept = file.bytes
    let words = (0..<count).map { n in kept[64 + 8 * n..<72 + 8 * n].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) } }
    for n in 0..<count {
      #expect(words[n] == UInt64(n) | UInt64(n) << 32 | (n == 0 ? 0x8080 : 0x8082) << 48, "entry \(n)")
    }
    #expect((kept[24..<32] == record[24..<32]) == atState, "the state")
    #expect((bench.memory.read(bench.driver.ring, 16 * size) == ring) == atState, "the ring")
    #expect(!bench.driver.isUsed(first), "nothing is to be seen yet")
    let next = try PackedDevice(bench, PackedBench.usual, base: .packedStart, record: file.open())
    #expect(next.queue.base == RingBase(packed: bench.driver.position(atState ? first : first + count)))
    for n in 0..<count { #expect(bench.driver.isUsed(first + n) == !atState) }
  }

  private func forbidWriting(to address: UInt) {
    signal(SIGSEGV, SIG_DFL)
    var none = rlimit(rlim_cur: 0, rlim_max: 0)
    unsafe setrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &none)
    unsafe mprotect(UnsafeMutableRawPointer(bitPattern: address & ~4095), 4096, PROT_READ)
  }

  // MARK: A front-end that writes to its region

  @Test func `a front-end that writes anything to its region at any moment spoils nothing that is published`() throws {
    let size = 97
    let bench = try PackedBench(size: size)
    let file = try RecordStore(.region, ringSize: size)
    let driver = bench.driver
    var device = try bench.queue(record: file.open())
    try withScribbler({ file.scribble() }) {
      var random = SeededGenerator(seed: 79)
      var (next, seen): (UInt16, UInt16) = (0, 0)
      for _ in 0..<3000 {
        for _ in 0..<random.int(0...driver.room) {
          driver.offer([Piece(Bench.first, 64)], id: next)
          next &+= 1
        }
        var count: UInt16 = 0
        while device.next() != nil {}
        for id in device.ids.prefix(random.int(0...device.ids.count)) {
          device.put(byteCount(id))
          count += 1
        }
        _ = device.queue.publish(count)
        while let used = driver.takeUsed() {
          try check(used, is: .init(id: seen, byteCount: byteCount(seen), isWritten: true), "buffer \(seen)")
          seen &+= 1
        }
      }
    }
    try expectNothingBesideTheRing(bench)
  }

  @Test func `a successor in a region that is written to meanwhile goes on at a place of its ring, and writes to that only`() throws {
    let (size, first) = (130, 140)
    let bench = try PackedBench(size: size, first: first)
    let file = try RecordStore(.region, ringSize: size)
    do {
      var device = try bench.queue(record: file.open())
      for n in 0..<90 { bench.driver.offer([Piece(Bench.first, 64)], id: UInt16(n)) }
      while device.next() != nil {}
      for _ in 0..<90 { device.put(12) }
      // All kept, and none of it to be seen: the batch that a successor has to finish.
      let ring = bench.memory.read(bench.driver.ring, 16 * size)
      _ = device.queue.publish(90)
      bench.memory.write(bench.driver.ring, ring)
    }
    let (live, ring) = (file.bytes, bench.memory.read(bench.driver.ring, 16 * size))
    var finished = 0
    // An entry's place is what it was, and behind the ring, by turns.
    try withScribbler({ file.flip(64 + 8 * size + 2 * 50, between: UInt8(first + 50 - size), and: 200) }) {
      for turn in 0..<20_000 {
        bench.memory.write(bench.driver.ring, ring)
        file.set(live)
        let device = try PackedDevice(bench, PackedBench.usual, base: .packedStart, record: file.open())
        try check(Int(device.queue.base.used) < size, "place")
        if bench.driver.isUsed(first) { finished += 1 }
        if turn % 500 == 0 { try expectNothingBesideTheRing(bench) }
      }
    }
    try expectNothingBesideTheRing(bench)
    #expect(finished > 0)
  }

  private func expectNothingBesideTheRing(_ bench: PackedBench) throws {
    bench.memory.foresee(bench.driver.ring, bench.memory.read(bench.driver.ring, 16 * bench.driver.size))
    if let surprise = bench.memory.firstSurprise() { throw Mismatch(surprise) }
  }

  /// Another process writes to what is kept, meanwhile.
  private func withScribbler(_ scribble: () -> Void, _ body: () throws -> Void) throws {
    let child = fork()
    if child == 0 {
      scribble()
      _exit(0)
    }
    defer {
      kill(child, SIGKILL)
      waitpid(child, nil, 0)
    }
    try body()
    let ended = waitpid(child, nil, WNOHANG)
    #expect(ended == 0, "it still writes")
  }

  @Test func `a split ring survives its device's deaths`() throws {
    let size = 16
    let bench = try Bench(size: size, base: 65000)
    let driver = bench.driver
    for n in 0..<size { driver.describe(n, Bench.first, 64) }
    var random = SeededGenerator(seed: 78)
    var (next, seen, returned, deaths) = (0, driver.usedIndex, 0, 0)
    func drive() throws {
      while seen != driver.usedIndex {
        let used = driver.usedElement(seen)
        try check(used.id, is: UInt32(returned % size), "buffer \(returned) after \(deaths) deaths")
        try check(used.byteCount, is: byteCount(UInt16(used.id)), "length")
        seen &+= 1
        returned += 1
      }
      while next - returned < size {
        driver.offer(UInt16(next % size))
        next += 1
      }
    }
    while deaths < 100 {
      // As Cloud Hypervisor has it: where the driver is.
      var view = MemoryView(bench.memory.map)
      var queue = try Virtqueue(
        bench.layout.generic, features: [.version1], base: RingBase(split: driver.availableIndex), in: &view)
      let child = fork()
      if child == 0 {
        workSplit(&queue)
        _exit(0)
      }
      let end = MonotonicClock.now() + UInt64(random.int(0...2_000_000))
      while MonotonicClock.now() < end { try drive() }
      kill(child, SIGKILL)
      waitpid(child, nil, 0)
      deaths += 1
      try drive()
    }
    // How many depends on the machine; that there were some does not.
    #expect(returned > 0)
  }

  /// virtio 1.3, 2.8.9: the first of several is written last.
  @Test func `whoever sees the first descriptor of a batch sees all of it`() throws {
    let size = 257
    let bench = try PackedBench(size: size)
    let driver = bench.driver
    var device = try PackedDevice(bench, PackedBench.usual, base: .packedStart)
    let child = fork()
    if child == 0 {
      device.workInBatches()
      _exit(0)
    }
    defer {
      kill(child, SIGKILL)
      waitpid(child, nil, 0)
    }
    var (batches, wrong, largest) = (0, 0, 0)
    let end = MonotonicClock.now() + 30_000_000_000
    while batches < 500, MonotonicClock.now() < end {
      while driver.room > 0 { driver.offer([Piece(Bench.first, 64)], id: 0) }
      while !driver.isUsed(driver.seen), MonotonicClock.now() < end {}
      guard let used = driver.takeUsed() else { continue }
      let count = Int(used.byteCount)
      // The last first: if it is there, those before it have had their time.
      for n in (driver.seen..<driver.seen + count - 1).reversed() where !driver.isUsed(n) { wrong += 1 }
      for _ in 1..<count { _ = driver.takeUsed() }
      (batches, largest) = (batches + 1, max(largest, count))
    }
    #expect(wrong == 0)
    #expect(batches == 500)
    #expect(largest > 100)
  }

  private func workSplit(_ queue: inout Virtqueue) {
    while getppid() > 1 {
      var count: UInt16 = 0
      while queue.pending() > 0, let buffer = queue.next() {
        queue.take(buffer)
        queue.put(buffer.id, byteCount: 12 + UInt32(buffer.id) * 3)
        count += 1
      }
      if count > 0 { _ = queue.publish(count) }
    }
  }
}

extension PackedDevice {
  /// Takes what there is, some at a time, and gives it back, as long as there is a driver.
  fileprivate mutating func work(_ byteCount: (UInt16) -> UInt32) {
    var turn = 0
    while turn % 1000 != 0 || getppid() > 1 {
      turn &+= 1
      var count: UInt16 = 0
      while count < 200, queue.pending() > 0, let first = queue.next(),
        let id = queue.takeChain(first, .writable, into: &chain, in: &view)
      {
        queue.put(id, byteCount: byteCount(id))
        count += 1
      }
      if count > 0 { _ = queue.publish(count) }
    }
  }

  /// Gives back so many together, one and up to nearly all that the ring has; the first one's length says how many.
  fileprivate mutating func workInBatches() {
    var turn = 0
    var (count, wanted): (UInt16, UInt16) = (0, 1)
    while turn % 1000 != 0 || getppid() > 1 {
      turn &+= 1
      while count < wanted, queue.pending() > 0, let buffer = queue.next() {
        queue.take(buffer)
        count += 1
      }
      if count < wanted { continue }
      for n in 0..<count { queue.put(0, byteCount: n == 0 ? UInt32(count) : 1) }
      _ = queue.publish(count)
      (count, wanted) = (0, (wanted + 100) % 256 + 1)
    }
  }
}
