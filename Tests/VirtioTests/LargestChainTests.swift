import GuestMemory
import Support
import Testing
import Virtio

/// How many descriptors are taken for one frame, whatever the queue's size: each of them is work that other guests wait for.
@Suite struct LargestChainTests {
  typealias D = PlainDriver
  private static let size = 4096, most = 1024

  /// A memory for a large ring, a table of 4,096 entries behind it, and a buffer.
  private func memory() throws -> (PlainMemory, ring: UInt64, table: UInt64, buffer: UInt64) {
    var random = SeededGenerator(seed: 3)
    let memory = try PlainMemory([(0x10_0000, 0x4_0000), (0x20_0000, 0x2_0000), (0x30_0000, 0x1000)], &random)
    return (memory, 0x10_0000, 0x20_0000, 0x30_0000)
  }

  /// Offers one buffer of so many descriptors, of which a table has so many: how many were read, and the fault.
  private func read(isPacked: Bool, direct: Int, table entries: Int) throws -> (count: Int, fault: VirtqueueFault?) {
    let (memory, ring, table, buffer) = try memory()
    let behind = ring + 16 * UInt64(Self.size)
    let layout = RingLayout(
      size: Self.size, descriptorArea: GuestAddress(ring), driverArea: GuestAddress(behind),
      deviceArea: GuestAddress(isPacked ? behind + 4 : behind + 6 + 2 * UInt64(Self.size) + 2))
    if isPacked {
      let driver = PlainPackedDriver(layout, in: memory)
      for n in 0..<entries { driver.describe(table: table, n, .init(buffer, 16, flags: 2)) }
      driver.offer(
        (0..<direct).map { _ in .init(buffer, 16, flags: 2) } + (entries > 0 ? [.init(table, UInt32(16 * entries), flags: 4)] : []), id: 7)
    } else {
      let driver = PlainDriver(SplitRingLayout(layout), in: memory)
      for n in 0..<entries {
        driver.describe(n, buffer, 16, flags: n + 1 < entries ? D.write | D.next : D.write, next: UInt16(n + 1), table: table)
      }
      for n in 0..<direct {
        let isLast = n + 1 == direct && entries == 0
        driver.describe(n, buffer, 16, flags: isLast ? D.write : D.write | D.next, next: UInt16(n + 1))
      }
      if entries > 0 { driver.describe(direct, table, UInt32(16 * entries), flags: D.indirect) }
      driver.offer(0)
    }
    var view = MemoryView(memory.map)
    var features: Features = [.version1, .indirectDescriptors]
    if isPacked { features.insert(.ringPacked) }
    var queue = try Virtqueue(layout, features: features, base: isPacked ? .packedStart : RingBase(split: 0), in: &view)
    var chain = DescriptorChain(queueSize: Self.size)
    guard queue.pending() > 0, let first = queue.next() else { return (0, queue.fault) }
    let id = queue.takeChain(first, .writable, into: &chain, in: &view)
    return (id == nil ? 0 : chain.work, queue.fault)
  }

  @Test(arguments: [false, true])
  func `a buffer of 1,024 descriptors is taken, and one of 1,025 is a fault that says so`(isPacked: Bool) throws {
    for (direct, table) in [(Self.most, 0), (0, Self.most)] {
      let (count, fault) = try read(isPacked: isPacked, direct: direct, table: table)
      #expect(fault == nil && count == Self.most, "\(direct) + \(table)")
    }
    for (direct, table) in [(Self.most + 1, 0), (0, Self.most + 1), (Self.size, 0), (0, Self.size)] {
      let (_, fault) = try read(isPacked: isPacked, direct: direct, table: table)
      #expect(fault == .chainTooLong(head: 0), "\(direct) + \(table)")
    }
    #expect("\(VirtqueueFault.chainTooLong(head: 9))" == "the buffer of head 9 has more than 1024 descriptors: no more are taken for one frame")
  }

  @Test func `a chain and the table that ends it count together`() throws {
    #expect(try read(isPacked: false, direct: 24, table: 1000).fault == nil)
    #expect(try read(isPacked: false, direct: 25, table: 1000).fault == .chainTooLong(head: 0))
  }

  @Test(arguments: [false, true])
  func `descriptors without bytes are work too`(isPacked: Bool) throws {
    let (memory, ring, _, buffer) = try memory()
    let behind = ring + 16 * UInt64(Self.size)
    let layout = RingLayout(
      size: Self.size, descriptorArea: GuestAddress(ring), driverArea: GuestAddress(behind),
      deviceArea: GuestAddress(isPacked ? behind + 4 : behind + 6 + 2 * UInt64(Self.size) + 2))
    if isPacked {
      PlainPackedDriver(layout, in: memory).offer((0..<500).map { .init(buffer, $0 == 0 ? 64 : 0, flags: 2) }, id: 1)
    } else {
      let driver = PlainDriver(SplitRingLayout(layout), in: memory)
      for n in 0..<500 { driver.describe(n, buffer, n == 0 ? 64 : 0, flags: n < 499 ? D.write | D.next : D.write, next: UInt16(n + 1)) }
      driver.offer(0)
    }
    var view = MemoryView(memory.map)
    var queue = try Virtqueue(
      layout, features: isPacked ? [.version1, .ringPacked] : .version1, base: isPacked ? .packedStart : RingBase(split: 0), in: &view)
    var chain = DescriptorChain(queueSize: Self.size)
    guard queue.pending() > 0, let first = queue.next() else { throw Mismatch("nothing is pending") }
    let id = queue.takeChain(first, .writable, into: &chain, in: &view)
    #expect(id != nil)
    #expect(chain.count == 1 && chain.work == 500)
  }
}
