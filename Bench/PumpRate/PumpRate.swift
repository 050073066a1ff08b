// How many frames a second the shared card's pump moves: from a wire that is never empty into a queue, or from a queue
// to the wire, with the driver's side on a thread of its own (or on the pump's, to see what the two cost apart).
import ArgumentParser
import Bus
import FlowSteering
import Intel
import Linux
import NIC
import Simulation

@main
struct PumpRate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Moves frames between the wire and one queue of the shared card; prints the rate.")

  @Argument(help: "Bytes of each frame, without check sequence.") var frameBytes = 60
  @Argument(help: "Frames.") var frames = 20_000_000
  @Flag(help: "Sends instead of receiving.") var send = false
  @Flag(help: "Sends to another pool, which the card switches.") var switched = false
  @Flag(help: "Driver and pump on one thread.") var together = false
  @Flag(help: "Reads registers meanwhile, on another thread, and prints how long that waits for the pump.") var registers = false
  @Option(help: "Frames of one step.") var burst = 64

  func run() throws {
    let bench = try Bench(frameBytes: frameBytes, sends: send || switched, switched: switched)
    let (isOver, longest, reads) = (SharedWord(), SharedWord(), SharedWord())
    let card = bench.card
    let reader = try Thread(name: "registers") { [registers] in
      while registers && isOver.value == 0 {
        let before = MonotonicClock.now()
        _ = card.read(0x8)
        longest.set(max(longest.value, MonotonicClock.now() - before))
        reads.set(reads.value + 1)
        MonotonicClock.sleep(nanoseconds: 20_000)
      }
    }
    let start = MonotonicClock.now()
    if together {
      while bench.moved < frames {
        bench.turn()
        _ = bench.card.pump(burst)
      }
    } else {
      let (stop, bench) = (SharedWord(), bench)
      let worker = try Thread(name: "driver") { while stop.value == 0 { bench.turn() } }
      while bench.moved < frames { if bench.card.pump(burst) == 0 { CPU.relax() } }
      stop.set(1)
      worker.join()
    }
    isOver.set(1)
    reader.join()
    if registers { print("\(reads.value) registers read, the slowest in \(longest.value / 1000) µs") }
    let seconds = Double(MonotonicClock.now() - start) / 1e9
    let rate = Double(bench.moved) / seconds / 1e6
    let words = "\(Double(Int(rate * 100)) / 100) Mframes/s, \(Int(1000 / rate)) ns a frame"
    print(words)
    for law in bench.card.counters.laws where law.left != law.right { print("\(law.name): \(law.left) = \(law.right)?") }
  }
}

/// One frame for one address, again and again.
@safe final class EndlessWire: WireSource {
  private let frame: UnsafeMutableRawPointer
  private let notes: UnsafeMutablePointer<FrameNotes>
  private let wire: WireFrame
  init(_ bytes: [UInt8]) {
    unsafe frame = .allocate(byteCount: bytes.count, alignment: 64)
    unsafe frame.copyMemory(from: bytes, byteCount: bytes.count)
    unsafe notes = .allocate(capacity: 1)
    unsafe notes.initialize(to: FrameNotes(FrameHeaders(parsing: frame, count: bytes.count)))
    unsafe wire = WireFrame(bytes: frame, count: bytes.count, notes: notes)
  }
  deinit {
    unsafe frame.deallocate()
    unsafe notes.deallocate()
  }
  func peek(_ limit: Int, into burst: WireBurst) -> Int {
    for place in 0..<limit { unsafe burst[place] = wire }
    return limit
  }
  func consume(_ count: Int) {}
}

/// A card with two pools, and a driver's queue pair.
final class Bench: @unchecked Sendable {
  let card: SharedCard
  private let device: Ixgbe
  private var pair: QueuePair

  init(frameBytes: Int, sends: Bool, switched: Bool) throws {
    card = try SharedCard()
    let allocator = IOVAAllocator()
    var configuration = Ixgbe.Configuration()
    configuration.poolCount = 2
    device = try Ixgbe(registers: card, space: card, allocator: allocator, clock: card, configuration: configuration)
    try device.setAddress(MACAddress(0x0200_0000_0001), slot: 0, pool: 0)
    try device.setAddress(MACAddress(0x0200_0000_0002), slot: 1, pool: 1)
    var receiver = try device.makeReceiveQueue(device.queueIndex(pool: switched ? 1 : 0), ringSize: 1024, bufferByteCount: 2048)
    var sender = try device.makeTransmitQueue(0, ringSize: 1024)
    let buffers = try DMABuffer(byteCount: QueuePair.slots * 2048, access: [.read, .write], in: card, allocator: allocator)
    try device.start(&receiver)
    try device.start(&sender)
    try device.enableReceive()
    try device.waitForLink()
    let target: [UInt8] = [2, 0, 0, 0, 0, switched ? 2 : sends ? 9 : 1]
    let bytes = target + [2, 0, 0, 0, 0, 1, 0x88, 0xB5] + [UInt8](repeating: 7, count: max(0, frameBytes - 14))
    for slot in 0..<QueuePair.slots { unsafe buffers.bytes(slot * 2048, bytes.count).copyBytes(from: bytes) }
    if !sends { card.attach(EndlessWire(bytes), waits: true) }
    pair = QueuePair(
      receiver: receiver, sender: sender, buffers: buffers, receives: !sends || switched, sends: sends,
      switched: switched, frameBytes: UInt32(bytes.count))
  }

  var moved: Int {
    let counters = card.counters
    return Int(
      pair.switched ? counters.switchedCopies(queue: 0) : pair.sends ? counters.wireFrames(queue: 0) : counters.receivedFrames)
  }

  func turn() { pair.turn() }
}

/// What a driver's thread has.
struct QueuePair: ~Copyable {
  static let slots = 1024
  var receiver: IntelReceiveQueue
  var sender: IntelTransmitQueue
  let buffers: DMABuffer
  let receives: Bool
  let sends: Bool
  let switched: Bool
  let frameBytes: UInt32
  private var slot: UInt64 = 0

  init(
    receiver: consuming IntelReceiveQueue, sender: consuming IntelTransmitQueue, buffers: consuming DMABuffer,
    receives: Bool, sends: Bool, switched: Bool, frameBytes: UInt32
  ) {
    self.receiver = receiver
    self.sender = sender
    self.buffers = buffers
    (self.receives, self.sends, self.switched, self.frameBytes) = (receives, sends, switched, frameBytes)
  }

  private mutating func nextBuffer() -> IOVA {
    slot &+= 1
    return buffers.address + (slot & UInt64(Self.slots - 1)) * 2048
  }

  mutating func turn() {
    if receives {
      while receiver.reap() != nil {}
      let before = slot
      while receiver.room > 0 { receiver.post(nextBuffer()) }
      if slot != before { receiver.ring() }
    }
    if sends {
      _ = sender.reap()
      let before = slot
      while sender.room > 0 { sender.post(nextBuffer(), byteCount: frameBytes) }
      if slot != before { sender.ring() }
    }
  }
}

enum CPU {
  static func relax() { MonotonicClock.sleep(nanoseconds: 0) }
}
