import Bus
import Datapath
import FlowSteering
import GuestMemory
import Intel
import Linux
import ReceiveConformance
import Virtio

/// What one turn of the path costs on a card, per frame, in nanoseconds of the machine's clock: in a machine whose clock
/// goes by its instructions (QEMU's `-icount shift=0`) these are instructions.
///
/// A guest with a split ring, in this process, posts buffers; frames come over the wire in batches, and only the turn
/// that takes a batch is counted.
final class CardCost {
  private static let size = 512
  private static let bufferBytes = 2048
  private static let start: UInt64 = 1 << 30
  private static let availableOffset = 16 * size
  private static let usedOffset = (availableOffset + 6 + 2 * size + 4095) & ~4095
  private static let bufferOffset = (usedOffset + 6 + 8 * size + 4095) & ~4095

  private let subject: any ConformanceSubject
  private let region: MemoryRegion
  private let window: DMAWindow
  private let path: any CountedPath
  private var available: UInt16 = 0
  private var used: UInt16 = 0

  /// - Parameter isStrict: pages are mapped only while they are lent: calls of the kernel's are counted too.
  init(_ subject: any ConformanceSubject, isStrict: Bool) throws {
    self.subject = subject
    let mapping = try Mapping(anonymousBytes: Self.bufferOffset + Self.size * Self.bufferBytes, alignment: 2 << 20)
    region = MemoryRegion(at: GuestAddress(Self.start), mapping: mapping)
    window = try DMAWindow(number: 1, map: try MemoryMap([region]), in: subject.space, isStrict: isStrict)
    var queue = try subject.card.makeReceiveQueue(subject.card.queueIndex(pool: 0, queue: 0), ringSize: 1024, bufferByteCount: subject.card.largestFrame)
    try queue.start()
    let layout = RingLayout(
      size: Self.size, descriptorArea: GuestAddress(Self.start), driverArea: GuestAddress(Self.start + UInt64(Self.availableOffset)),
      deviceArea: GuestAddress(Self.start + UInt64(Self.usedOffset)))
    let features: Features = [.version1, .mergeableBuffers]
    if let pages = window.pages {
      path = StrictPath(
        try ReceivePath(
          layout: layout, features: features, base: RingBase(split: 0), window: window, queue: ProtectedReceiveQueue(queue, pages),
          space: subject.space, allocator: subject.allocator))
    } else {
      path = LendingPath(
        try ReceivePath(
          layout: layout, features: features, base: RingBase(split: 0), window: window, queue: queue, space: subject.space,
          allocator: subject.allocator))
    }
    // VIRTQ_AVAIL_F_NO_INTERRUPT: the guest looks by itself.
    store16(1, Self.availableOffset)
    for n in 0..<Self.size { offer(UInt16(n)) }
  }

  private func store16(_ value: UInt16, _ offset: Int) { unsafe region.base.storeBytes(of: value, toByteOffset: offset, as: UInt16.self) }
  private func load16(_ offset: Int) -> UInt16 { unsafe region.base.load(fromByteOffset: offset, as: UInt16.self) }
  private func offer(_ n: UInt16) {
    let descriptor = 16 * Int(n)
    unsafe region.base.storeBytes(of: Self.start + UInt64(Self.bufferOffset + Int(n) * Self.bufferBytes), toByteOffset: descriptor, as: UInt64.self)
    unsafe region.base.storeBytes(of: UInt32(Self.bufferBytes), toByteOffset: descriptor + 8, as: UInt32.self)
    store16(2, descriptor + 12)
    store16(n, Self.availableOffset + 4 + 2 * (Int(available) % Self.size))
    available &+= 1
    store16(available, Self.availableOffset + 2)
  }
  private func takeUsed() -> Int {
    var count = 0
    while used != load16(Self.usedOffset + 2) {
      offer(load16(Self.usedOffset + 4 + 8 * (Int(used) % Self.size)))
      used &+= 1
      count += 1
    }
    return count
  }

  /// Nanoseconds a frame of so many bytes, over `batches` of 64.
  func measure(frameBytes: Int, batches: Int) throws -> Double {
    let frame = TestFrame.make(to: MACAddress(0x0200_0000_0001), mark: 1, count: frameBytes)
    var (spent, frames) = (UInt64(0), 0)
    _ = path.turn()
    for _ in 0..<batches {
      let before = subject.card.readCounters().received.frames
      for _ in 0..<64 { subject.send(frame) }
      _ = try subject.eventually("64 frames are written") { subject.card.readCounters().received.frames - before >= 64 ? true : nil }
      let start = MonotonicClock.now()
      _ = path.turn()
      spent += MonotonicClock.now() - start
      frames += takeUsed()
      // What the guest has posted again is taken outside of what is counted with frames, as in a turn without any.
    }
    guard frames == 64 * batches else { throw CardConformance.Failure("\(frames) frames of \(64 * batches) came") }
    return Double(spent) / Double(frames)
  }

  func stop() throws { try path.stop() }
}

private protocol CountedPath: AnyObject {
  func turn() -> Int
  func stop() throws
}
private final class LendingPath: CountedPath {
  private var path: ReceivePath<IntelReceiveQueue>
  init(_ path: consuming ReceivePath<IntelReceiveQueue>) { self.path = path }
  @inline(never) func turn() -> Int { path.turn() }
  func stop() throws { try path.stop(.requested) }
}
private final class StrictPath: CountedPath {
  private var path: ReceivePath<ProtectedReceiveQueue<IntelReceiveQueue>>
  init(_ path: consuming ReceivePath<ProtectedReceiveQueue<IntelReceiveQueue>>) { self.path = path }
  @inline(never) func turn() -> Int { path.turn() }
  func stop() throws { try path.stop(.requested) }
}
