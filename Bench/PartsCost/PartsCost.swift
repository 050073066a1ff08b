// What the parts of the datapath cost by themselves: a ring's buffers, an address, a path's beginning and end.
//
//     swift run -c release PartsCost
//
// Every figure is beside a yardstick of the same run, a copy of 64 bytes that are in the cache.
import ArgumentParser
import Bus
import CLinux
import Datapath
import GuestMemory
import Intel
import Linux
import Simulation
import Virtio

@main
struct PartsCost: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Measure rings, addresses, and a path's beginning and end, each by itself.")

  @Option(help: "Times each is done; the lower quartile counts.") var rounds = 200

  func run() throws {
    let rate = TickCounter.measureRate() / 1e9
    let yardstick = quartile { Self.copies(1024) } / 1024
    func show(_ what: String, _ ticks: Double, _ unit: String) {
      let name = what + String(repeating: " ", count: max(1, 52 - what.count))
      print("\(name)\(Self.fixed(ticks / rate)) ns a \(unit), \(Self.fixed(ticks / yardstick)) times the yardstick")
    }
    show("yardstick: a copy of 64 bytes", yardstick, "copy")
    for size in [256, 1024] {
      for isPacked in [false, true] {
        var ring = try RingBench(size: size, isPacked: isPacked)
        let ticks = quartile { ring.turn() } / Double(RingBench.batch)
        show("ring of \(size), \(isPacked ? "packed" : "split"): take, put, publish", ticks, "buffer")
      }
    }
    for regions in [1, 3, 8, 64] {
      for strides in [1, 7] where regions > 1 || strides == 1 {
        var bench = try AddressBench(regions: regions, stride: strides)
        show("address, \(regions) regions, \(strides == 1 ? "each region for a while" : "another one each time")", quartile { bench.run() } / 1024, "look-up")
      }
    }
    for regions in [1, 8] {
      let bench = try SetupBench(regions: regions)
      show("path over \(regions) regions: window, ring, queue, pool; end", quartile { bench.run() }, "path")
    }
  }

  /// The lower quartile of what `body` answers, in ticks.
  private func quartile(_ body: () -> UInt64) -> Double {
    let times = (0..<rounds).map { _ in body() }.sorted()
    return Double(times[times.count / 4])
  }

  private static func copies(_ count: Int) -> UInt64 {
    let bytes = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 64)
    unsafe sl_fill(bytes, 1, 8192)
    defer { unsafe bytes.deallocate() }
    let start = TickCounter.now()
    for n in 0..<count { unsafe sl_copy(bytes + (n & 63) &* 64, bytes + 4096 + (n & 63) &* 64, 64) }
    return TickCounter.now() - start
  }

  private static func fixed(_ value: Double) -> String {
    let hundredths = Int((value * 100).rounded())
    return "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100)"
  }
}

/// A guest's memory of some regions of 2 MiB, with holes between them.
@safe struct GuestBench {
  static let regionBytes: UInt64 = 2 << 20
  static let spacing: UInt64 = 4 << 20
  let map: MemoryMap
  let first: UnsafeMutableRawPointer

  init(regions count: Int) throws {
    let regions = try (0..<count).map { n in
      MemoryRegion(
        at: GuestAddress(Self.spacing * UInt64(n + 1)), mapping: try Mapping(anonymousBytes: Int(Self.regionBytes), alignment: Int(Self.regionBytes)))
    }
    unsafe first = regions[0].base
    map = try MemoryMap(regions)
  }
}

/// Batches of buffers through a ring, the guest's part not counted.
@safe struct RingBench: ~Copyable {
  static let batch = 64
  private let guest: GuestBench
  private let isPacked: Bool
  private let size: Int
  private var virtqueue: Virtqueue
  private var offered: UInt16 = 0
  private var position = RingPosition.start
  private static let driver = 32768
  private static let device = 49152

  init(size: Int, isPacked: Bool) throws {
    let guest = try GuestBench(regions: 1)
    let start = GuestBench.spacing
    let layout = RingLayout(
      size: size, descriptorArea: GuestAddress(start), driverArea: GuestAddress(start + UInt64(Self.driver)),
      deviceArea: GuestAddress(start + UInt64(Self.device)))
    let features: Features = isPacked ? [.version1, .ringPacked] : [.version1]
    var view = MemoryView(guest.map)
    let virtqueue = try Virtqueue(layout, features: features, base: isPacked ? .packedStart : RingBase(split: 0), in: &view)
    (self.guest, self.size, self.isPacked) = (guest, size, isPacked)
    self.virtqueue = virtqueue
    if !isPacked { for n in 0..<size { unsafe describe(guest.first + 16 * n, UInt16(n)) } }
  }

  private func describe(_ descriptor: UnsafeMutableRawPointer, _ id: UInt16) {
    unsafe sl_store64(descriptor, GuestBench.spacing + 65536 + UInt64(id) * 512)
    unsafe sl_store32(descriptor + 8, 512)
    unsafe sl_store16(descriptor + 12, isPacked ? id : Descriptor.isWritable)
  }

  /// virtio 1.3, 2.7.13 and 2.8.21.
  private mutating func offer() {
    for _ in 0..<Self.batch {
      if isPacked {
        let descriptor = unsafe guest.first + 16 * Int(position.place)
        unsafe describe(descriptor, position.place)
        unsafe sl_store16_release(descriptor + 14, (position.wrap ? 0x0080 : 0x8000) | Descriptor.isWritable)
        position = position.advanced(by: 1, size: UInt32(size))
      } else {
        unsafe sl_store16(guest.first + Self.driver + 4 + 2 * (Int(offered) & (size - 1)), offered & UInt16(size - 1))
        offered = offered &+ 1
      }
    }
    if !isPacked { unsafe sl_store16_release(guest.first + Self.driver + 2, offered) }
  }

  mutating func turn() -> UInt64 {
    offer()
    let start = TickCounter.now()
    var count = virtqueue.pending()
    var done: UInt16 = 0
    while count > 0, let buffer = virtqueue.next() {
      virtqueue.take(buffer)
      virtqueue.put(buffer.id, byteCount: 72)
      (count, done) = (count - 1, done + 1)
    }
    _ = virtqueue.publish(done)
    let ticks = TickCounter.now() - start
    precondition(Int(done) == Self.batch, "the ring lost buffers")
    return ticks
  }
}

/// Addresses of a guest, looked up as for buffers of 2 KiB.
struct AddressBench: ~Copyable {
  private let guest: GuestBench
  private let ranges: [GuestRange]
  private var view: MemoryView

  init(regions: Int, stride: Int) throws {
    guest = try GuestBench(regions: regions)
    ranges = (0..<1024).map { n in
      let region = stride == 1 ? n * regions / 1024 : n * stride % regions
      return GuestRange(GuestAddress(GuestBench.spacing * UInt64(region + 1) + UInt64(n % 512) * 2048), count: 2048)
    }
    view = MemoryView(guest.map)
  }

  mutating func run() -> UInt64 {
    var found = 0
    let start = TickCounter.now()
    for range in ranges where view.slice(range) != nil { found += 1 }
    let ticks = TickCounter.now() - start
    precondition(found == ranges.count, "an address was not found")
    return ticks
  }
}

/// A guest's memory on the bus, a path over one of its rings, and their end.
final class SetupBench {
  private let guest: GuestBench
  private let clock = SimulatedClock()
  private let space: SimulatedIOMMU
  private let allocator = IOVAAllocator()
  private let driver: Ixgbe

  init(regions: Int) throws {
    guest = try GuestBench(regions: regions)
    space = SimulatedIOMMU(clock: clock)
    let card = SimulatedCard(dma: space, clock: clock)
    driver = try Ixgbe(registers: card, space: space, allocator: allocator, clock: clock, configuration: Ixgbe.Configuration())
  }

  func run() -> UInt64 {
    let start = TickCounter.now()
    do {
      let window = try DMAWindow(number: 1, map: guest.map, in: space)
      var queue = try driver.makeReceiveQueue(0, ringSize: 1024, bufferByteCount: driver.largestFrame)
      try driver.start(&queue)
      let base = GuestBench.spacing
      let layout = RingLayout(
        size: 1024, descriptorArea: GuestAddress(base), driverArea: GuestAddress(base + 32768), deviceArea: GuestAddress(base + 49152))
      var path = try ReceivePath(
        layout: layout, features: [.version1], base: RingBase(split: 0), window: window, queue: queue, space: space, allocator: allocator)
      try path.stop(.requested)
      _ = path.dismantle()
      try window.close()
    } catch { preconditionFailure("\(error)") }
    return TickCounter.now() - start
  }
}
