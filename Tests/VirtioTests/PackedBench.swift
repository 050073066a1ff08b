import GuestMemory
import Support
import Virtio

/// A small guest with one packed queue, and that queue's two sides. Memory as `Bench` has it.
struct PackedBench {
  let memory: PlainMemory
  let driver: PlainPackedDriver
  let layout: RingLayout

  /// - Parameter first: the number of the first descriptor.
  init(size: Int, first: Int = 0) throws {
    var random = SeededGenerator(seed: 7)
    memory = try PlainMemory(
      [(Bench.first, Bench.regionBytes), (Bench.second, Bench.regionBytes), (Bench.third, (16 * size + 8 + 4095) & ~4095)],
      &random)
    layout = Self.layout(size, at: Bench.third)
    driver = PlainPackedDriver(layout, in: memory, first: first)
  }
  static func layout(_ size: Int, at start: UInt64) -> RingLayout {
    let events = start + 16 * UInt64(size)
    return RingLayout(
      size: size, descriptorArea: GuestAddress(start), driverArea: GuestAddress(events),
      deviceArea: GuestAddress(events + 4))
  }
  static let usual: Features = [.version1, .ringPacked, .indirectDescriptors]

  func queue(_ features: Features = usual, record: RingRecord? = nil) throws -> PackedDevice {
    try PackedDevice(self, features, base: RingBase(packed: driver.position(driver.offered)), record: record)
  }
}

/// The queue under test, with what reading a chain needs.
struct PackedDevice: ~Copyable {
  var queue: Virtqueue
  var view: MemoryView
  var chain: DescriptorChain
  /// What was taken and not put, oldest first.
  var ids: [UInt16] = []

  init(_ bench: PackedBench, _ features: Features, base: RingBase, record: RingRecord? = nil) throws {
    view = MemoryView(bench.memory.map)
    queue = try Virtqueue(bench.layout, features: features.union(.ringPacked), base: base, record: record, in: &view)
    chain = DescriptorChain(queueSize: bench.layout.size)
  }
  var fault: VirtqueueFault? { queue.fault }
  mutating func pending() -> UInt32 { queue.pending() }

  /// Takes the next buffer whole: its pieces, or nil if there is none or it is refused.
  mutating func next(_ direction: BufferDirection = .writable) -> [GuestRange]? {
    guard queue.pending() > 0, let first = queue.next(),
      let id = queue.takeChain(first, direction, into: &chain, in: &view)
    else { return nil }
    ids.append(id)
    return pieces
  }
  var pieces: [GuestRange] {
    (0..<chain.count).map { GuestRange(chain.start($0), count: chain.piece($0).count) }
  }
  /// Gives the oldest back.
  mutating func put(_ byteCount: UInt32) { queue.put(ids.removeFirst(), byteCount: byteCount) }
}
