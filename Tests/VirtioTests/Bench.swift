import GuestMemory
import Support
import Virtio

/// A small guest with one queue, and that queue's two sides. Memory: two regions that touch, a hole, a third.
struct Bench {
  static let first: UInt64 = 0x10_0000
  static let second: UInt64 = 0x11_0000
  static let third: UInt64 = 0x20_0000
  static let regionBytes = 0x1_0000

  let memory: PlainMemory
  let driver: PlainDriver
  let layout: SplitRingLayout

  /// Rings in the third region; buffers in the first two.
  init(size: Int, base: UInt16 = 0) throws {
    var random = SeededGenerator(seed: 7)
    let rings = (Self.ringBytes(size) + 4095) & ~4095
    memory = try PlainMemory(
      [(Self.first, Self.regionBytes), (Self.second, Self.regionBytes), (Self.third, rings)], &random)
    layout = Self.layout(size, at: Self.third)
    driver = PlainDriver(layout, in: memory, base: base)
  }
  static func ringBytes(_ size: Int) -> Int { 16 * size + 6 + 2 * size + 64 + 6 + 8 * size }
  static func layout(_ size: Int, at start: UInt64) -> SplitRingLayout {
    let available = start + 16 * UInt64(size)
    let used = (available + 6 + 2 * UInt64(size) + 3) & ~3
    return SplitRingLayout(
      size: size, descriptorTable: GuestAddress(start), availableRing: GuestAddress(available),
      usedRing: GuestAddress(used))
  }
  static let usual: Features = [.version1, .indirectDescriptors]

  func queue(_ features: Features = usual, base: UInt16 = 0) throws -> Device {
    try Device(self, features, base)
  }
}

/// The queue under test, with what reading a chain needs.
struct Device: ~Copyable {
  var queue: SplitVirtqueue
  var view: MemoryView
  var chain: DescriptorChain
  init(_ bench: Bench, _ features: Features, _ base: UInt16) throws {
    view = MemoryView(bench.memory.map)
    queue = try SplitVirtqueue(bench.layout, features: features, base: base, in: &view)
    chain = DescriptorChain(queueSize: bench.layout.size)
  }
  var fault: VirtqueueFault? { queue.fault }
  mutating func pending() -> UInt32 { queue.pending() }
  mutating func take() -> UInt16? { queue.take() }
  /// Takes the next head and reads its chain: the pieces, or nil if it is refused.
  mutating func next() -> [GuestRange]? {
    guard queue.pending() > 0, let head = queue.take(), queue.read(head, into: &chain, in: &view) else { return nil }
    return (0..<chain.count).map { GuestRange(chain.start($0), count: chain.piece($0).count) }
  }
}

func range(_ start: UInt64, _ count: UInt32) -> GuestRange { GuestRange(GuestAddress(start), count: count) }
