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

  @Test func `a packed ring survives its device's deaths`() throws {
    // A long ring: most of the child's time goes into publications.
    let size = 257
    let bench = try PackedBench(size: size)
    let file = try MemoryFile(name: "record", byteCount: RingRecord.byteCount(ringSize: size))
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
      let record = RingRecord(mapping: try Mapping(of: file.descriptor, byteCount: file.byteCount))
      // What the front-end says never changes: QEMU knows no better.
      var device = try PackedDevice(bench, PackedBench.usual, base: .packedStart, record: record)
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
    let record = RingRecord(mapping: try Mapping(of: file.descriptor, byteCount: file.byteCount))
    var device = try PackedDevice(bench, PackedBench.usual, base: .packedStart, record: record)
    try drive()
    while device.next() != nil {}
    try check(device.ids, is: ids, "what is out")
    // How many depends on the machine; that there were some does not.
    #expect(returned > 0)
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
