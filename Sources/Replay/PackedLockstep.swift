internal import Bus
internal import CLinux
internal import Datapath
internal import GuestMemory
internal import Intel
internal import Linux
internal import Simulation
internal import Virtio

/// As `Lockstep`, with a guest whose receive queue is packed: buffers of one piece, each offered again where it came back.
///
/// `@safe`: ring and buffers lie in a mapping that the map holds, at places that are made here; the frame is its own.
@safe public final class PackedLockstep {
  private let card: SimulatedCard
  private let driver: Ixgbe
  private let map: MemoryMap
  private let window: DMAWindow
  private let worker = Worker<IntelReceiveQueue>()
  private let counters: ReceiveCounters

  private let size: Int
  private let memory: UnsafeMutableRawPointer
  private let frame: UnsafeMutableRawPointer
  private let frameBytes: Int
  /// Where the guest looks for the next used descriptor.
  private var next = RingPosition.start

  private static let start: UInt64 = 1 << 30
  private static let bufferBytes = 2048
  private let eventOffset: Int
  private let bufferOffset: Int

  /// - Parameter frameBytes: as captured, 14 to the MTU's largest frame.
  public init(frameBytes: Int, ringSize: Int = 1024) throws(ReplayError) {
    precondition(frameBytes >= 14)
    (size, self.frameBytes) = (ringSize, frameBytes)
    eventOffset = 16 * ringSize
    bufferOffset = (eventOffset + 8 + 4095) & ~4095
    let clock = SimulatedClock()
    let space = SimulatedIOMMU(clock: clock)
    let card = SimulatedCard(dma: space, clock: clock)
    let allocator = IOVAAllocator()
    do {
      let mapping = try Mapping(anonymousBytes: bufferOffset + ringSize * Self.bufferBytes, alignment: 2 << 20)
      let region = MemoryRegion(at: GuestAddress(Self.start), mapping: mapping)
      unsafe memory = region.base
      map = try MemoryMap([region])
      window = try DMAWindow(number: 1, map: map, in: space)
      let driver = try Ixgbe(
        registers: card, space: space, allocator: allocator, clock: clock, configuration: Ixgbe.Configuration())
      var queue = try driver.makeReceiveQueue(0, ringSize: ringSize, bufferByteCount: driver.largestFrame)
      try driver.start(&queue)
      let layout = RingLayout(
        size: ringSize, descriptorArea: GuestAddress(Self.start),
        driverArea: GuestAddress(Self.start + UInt64(eventOffset)),
        deviceArea: GuestAddress(Self.start + UInt64(eventOffset) + 4))
      let path = try ReceivePath(
        layout: layout, features: [.version1, .ringPacked, .mergeableBuffers, .guestChecksum], base: .packedStart,
        window: window, queue: queue, space: space, allocator: allocator)
      counters = path.counters
      _ = worker.add(path)
      try driver.setPromiscuous(true)
      try driver.enableReceive()
      try driver.waitForLink()
      (self.card, self.driver) = (card, driver)
    } catch { throw .machine("\(error)") }
    unsafe frame = .allocate(byteCount: frameBytes, alignment: 64)
    unsafe sl_fill(frame, 0x5A, frameBytes)
    // RING_EVENT_FLAGS_DISABLE: the guest looks by itself.
    unsafe sl_store16(memory + eventOffset + 2, 1)
    for place in 0..<ringSize { offer(RingPosition(place: UInt16(place), wrap: true)) }
  }
  deinit { unsafe frame.deallocate() }

  /// Frames that were lent, and copied, so far.
  public var lent: UInt64 { counters.lentFrames }
  public var bounced: UInt64 { counters.bouncedFrames }

  /// Moves about this many frames, in batches of 64. Answers how many reached the guest.
  public func run(frames: Int) -> UInt64 {
    var seen: UInt64 = 0
    _ = turn()
    for _ in 0..<(frames + 63) / 64 {
      for _ in 0..<64 {
        _ = unsafe card.receive(WireFrame(bytes: UnsafeRawPointer(frame), count: frameBytes), flowControl: true)
      }
      _ = turn()
      while takeUsed() { seen += 1 }
    }
    return seen
  }

  private func turn() -> Int { worker.withPath(0) { turnPath(&$0) } }

  // MARK: The guest. virtio 1.3, 2.8.21 and 2.8.22

  private func offer(_ position: RingPosition) {
    let place = Int(position.place)
    let descriptor = unsafe memory + 16 * place
    unsafe sl_store64(descriptor, Self.start + UInt64(bufferOffset + place * Self.bufferBytes))
    unsafe sl_store32(descriptor + 8, UInt32(Self.bufferBytes))
    unsafe sl_store16(descriptor + 12, position.place)
    unsafe sl_store16_release(descriptor + 14, (position.wrap ? 0x0080 : 0x8000) | Descriptor.isWritable)
  }

  /// Takes the next used buffer back and offers it again, one lap on; false if there is none.
  private func takeUsed() -> Bool {
    let flags = unsafe sl_load16(memory + 16 * Int(next.place) + 14) & 0x8080
    guard flags == (next.wrap ? 0x8080 : 0) else { return false }
    offer(next.advanced(by: UInt32(size), size: UInt32(size)))
    next = next.advanced(by: 1, size: UInt32(size))
    return true
  }
}
