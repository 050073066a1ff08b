import Bus
import CLinux
import GuestMemory
import Intel
import Linux
import Simulation
import Virtio

/// A card of the model behind an IOMMU, its driver, and a guest whose memory is on the bus: what either path is given.
struct Machine {
  let clock = SimulatedClock()
  let space: SimulatedIOMMU
  let card: SimulatedCard
  let allocator = IOVAAllocator()
  let driver: Ixgbe
  let guest: Guest
  let window: DMAWindow

  init(ringSize: Int) throws {
    space = SimulatedIOMMU(clock: clock)
    card = SimulatedCard(dma: space, clock: clock)
    driver = try Ixgbe(registers: card, space: space, allocator: allocator, clock: clock, configuration: Ixgbe.Configuration())
    guest = try Guest(ringSize: ringSize)
    window = try DMAWindow(number: 1, map: guest.map, in: space)
  }

  func startQueue() throws -> IntelReceiveQueue {
    var queue = try driver.makeReceiveQueue(0, ringSize: guest.size, bufferByteCount: driver.largestFrame)
    try driver.start(&queue)
    return queue
  }

  func open() throws {
    try driver.setPromiscuous(true)
    try driver.enableReceive()
    try driver.waitForLink()
  }
}

/// A path that is turned by one call, whatever it is written in.
protocol Turning: AnyObject {
  init(_ machine: Machine) throws
  func turn() -> Int
  var counts: Counts { get }
}

/// What a path says it did.
struct Counts: Equatable {
  var frames, bytes, doorbells, signals, suppressedSignals, postedBuffers: UInt64
}

/// Frames of one size for one machine, a batch on the wire, a turn of its path, a step of its guest.
///
/// `@safe`: the frame is its own, and lives as long as it does.
@safe final class World<Path: Turning> {
  static var batch: Int { 64 }
  let machine: Machine
  let path: Path
  private(set) var delivered = 0
  private let frame: UnsafeMutableRawPointer
  private let frameBytes: Int
  private var sequence: UInt16 = 0

  init(frameBytes: Int, ringSize: Int) throws {
    machine = try Machine(ringSize: ringSize)
    path = try Path(machine)
    try machine.open()
    self.frameBytes = frameBytes
    unsafe frame = .allocate(byteCount: frameBytes, alignment: 64)
    unsafe frame.copyMemory(from: datagram(frameBytes), byteCount: frameBytes)
    // Until the card has all that it can hold.
    for _ in 0...ringSize / Self.batch { _ = path.turn() }
  }
  deinit { unsafe frame.deallocate() }

  /// Makes so many turns, each with a batch of frames before it. Answers the ticks that went into the turns.
  func run(turns: Int) -> UInt64 {
    var ticks: UInt64 = 0
    for _ in 0..<turns {
      for _ in 0..<Self.batch { receive() }
      let before = TickCounter.now()
      _ = path.turn()
      ticks &+= TickCounter.now() &- before
      delivered += machine.guest.step()
    }
    return ticks
  }

  /// No two frames in a row are the same: their number and its complement leave the checksum as it is.
  private func receive() {
    sequence &+= 1
    unsafe frame.storeBytes(of: sequence, toByteOffset: 42, as: UInt16.self)
    unsafe frame.storeBytes(of: ~sequence, toByteOffset: 44, as: UInt16.self)
    _ = unsafe machine.card.receive(WireFrame(bytes: UnsafeRawPointer(frame), count: frameBytes), flowControl: true)
  }
}

/// UDP over IPv4, with checksums that the card finds right; the first four bytes of data add up to nothing.
private func datagram(_ byteCount: Int) -> [UInt8] {
  func word(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 255), UInt8(value & 255)] }
  func checksum(_ bytes: [UInt8]) -> [UInt8] {
    var sum = bytes.enumerated().reduce(0) { $0 + Int($1.element) << ($1.offset & 1 == 0 ? 8 : 0) }
    while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
    return word(~sum)
  }
  let addresses: [UInt8] = [192, 0, 2, 1, 192, 0, 2, 2]
  let data = [0, 0, 0xFF, 0xFF] + [UInt8](repeating: 0x5A, count: byteCount - 46)
  let udpBytes = word(8 + data.count)
  let ports = word(4096) + word(4097)
  let udpChecksum = checksum(addresses + [0, 17] + udpBytes + ports + udpBytes + data)
  let start = [0x45, 0] + word(28 + data.count) + [0, 0, 0, 0, 64, 17]
  let ip = start + checksum(start + addresses) + addresses
  return [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0] + ip + ports + udpBytes + udpChecksum + data
}
