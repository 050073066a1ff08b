import Bus
public import FlowSteering
import Intel
import NIC

/// A receive queue with buffers of a known content, which tells of each what came.
final class TestQueue {
  static let stride = 4096
  static let canary = UInt8(0xA5)
  private let subject: any ConformanceSubject
  private var queue: IntelReceiveQueue
  private let buffers: DMABuffer
  /// Slots that are with the card, oldest first.
  private var posted: [Int] = []
  private let slotCount: Int

  /// - Parameter pool: whose first queue it is. It runs, with nothing posted.
  init(_ subject: any ConformanceSubject, pool: Int = 0, ringSize: Int = 64) throws {
    self.subject = subject
    slotCount = ringSize - 1
    let number = subject.card.queueIndex(pool: pool, queue: 0)
    queue = try subject.card.makeReceiveQueue(number, ringSize: ringSize, bufferByteCount: 2048)
    buffers = try DMABuffer(byteCount: slotCount * Self.stride, access: [.read, .write], in: subject.space, allocator: subject.allocator)
    for slot in 0..<slotCount { clean(slot) }
    try queue.start()
  }

  var number: Int { queue.number }

  private func clean(_ slot: Int) {
    let bytes = unsafe buffers.bytes(slot * Self.stride, Self.stride)
    unsafe bytes.initializeMemory(as: UInt8.self, repeating: Self.canary)
  }

  /// Posts so many free slots; nil: all of them.
  func post(_ count: Int? = nil) {
    let free = (0..<slotCount).filter { !posted.contains($0) }
    for slot in free.prefix(count ?? free.count) {
      clean(slot)
      queue.post(buffers.address + UInt64(slot * Self.stride))
      posted.append(slot)
    }
    queue.ring()
  }
  /// Posts an address that is nobody's memory.
  func post(stray address: IOVA) {
    queue.post(address)
    posted.append(-1)
    queue.ring()
  }

  struct Arrival {
    var bytes: [UInt8]
    var flags: Completion.Flags
  }

  /// What came, if something did; nothing behind it was touched.
  func poll() throws -> Arrival? {
    while let completion = queue.reap() {
      let slot = posted.removeFirst()
      guard slot >= 0 else { continue }
      let bytes = unsafe Array(buffers.bytes(slot * Self.stride, Self.stride))
      let count = Int(completion.byteCount)
      try expect(bytes[count...].allSatisfy { $0 == Self.canary }, "bytes behind a frame of \(count) were written")
      let frame = Array(bytes[..<count])
      if subject.hasStrangers && !TestFrame.isOurs(frame) { continue }
      return Arrival(bytes: frame, flags: completion.flags)
    }
    return nil
  }

  func next(_ what: String) throws -> Arrival { try subject.eventually(what) { try poll() } }
  /// The next that comes is this one, whole.
  func expectNext(_ frame: [UInt8], _ what: String) throws {
    let arrival = try next(what)
    try expect(arrival.bytes == frame, "\(what): \(arrival.bytes.count) bytes came, \(frame.count) were sent, and they differ from byte \(zip(arrival.bytes, frame).prefix { $0 == $1 }.count)")
    try expect(arrival.flags.contains(.isEnd) && !arrival.flags.contains(.isDamaged), "\(what): flags \(arrival.flags)")
  }
  func expectNothing(_ what: String) throws { if let arrival = try poll() { throw ConformanceFailure("\(what): \(arrival.bytes.count) bytes came") } }

  /// Whether every slot that is with the card, or free, is as it was left.
  func expectUntouched(_ what: String) throws {
    for slot in posted where slot >= 0 {
      let bytes = unsafe buffers.bytes(slot * Self.stride, Self.stride)
      try expect(unsafe bytes.allSatisfy { $0 == Self.canary }, "\(what): a buffer was written")
    }
  }

  func stop() throws { try queue.quiesce() }
  func start() throws {
    posted = []
    try queue.start()
  }
}

/// Frames of a type that is nobody's, or UDP.
public enum TestFrame {
  static let type: [UInt8] = [0x88, 0xB5]
  static let source = MACAddress(0x0200_0000_00EE)

  /// - Parameter count: bytes, without check sequence.
  public static func make(to address: MACAddress, mark: Int, count: Int = 100, tag: UInt16? = nil) -> [UInt8] {
    var bytes = octets(address) + octets(source)
    if let tag { bytes += [0x81, 0x00, UInt8(tag >> 8), UInt8(tag & 255)] }
    bytes += type
    while bytes.count < count { bytes.append(UInt8(truncatingIfNeeded: mark &* 7 &+ bytes.count)) }
    return bytes
  }

  /// UDP over IPv4, with the right checksums or a wrong one of UDP's.
  static func udp(to address: MACAddress, isRight: Bool) -> [UInt8] {
    let payload: [UInt8] = Array(0..<64)
    let length = UInt16(8 + payload.count)
    let addresses: [UInt8] = [10, 99, 0, 1, 10, 99, 0, 2]
    var header: [UInt8] = [0x45, 0] + big(20 + length) + [0, 1, 0, 0, 64, 17, 0, 0] + addresses
    let sum = checksum(header)
    (header[10], header[11]) = (UInt8(sum >> 8), UInt8(sum & 255))
    var datagram = big(1000) + big(7) + big(length) + [0, 0] + payload
    let right = checksum(addresses + [0, 17] + big(length) + datagram)
    let written = isRight ? right : right ^ 0x0101
    (datagram[6], datagram[7]) = (UInt8(written >> 8), UInt8(written & 255))
    return octets(address) + octets(source) + [0x08, 0x00] + header + datagram
  }

  static func isOurs(_ frame: [UInt8]) -> Bool { frame.count >= 12 && Array(frame[6..<12]) == octets(source) }
  private static func octets(_ address: MACAddress) -> [UInt8] { (0..<6).map(address.octet) }
  private static func big(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 255)] }
  /// RFC 1071; an even count of bytes.
  private static func checksum(_ bytes: [UInt8]) -> UInt16 {
    var sum = stride(from: 0, to: bytes.count, by: 2).reduce(UInt32(0)) { $0 + UInt32(bytes[$1]) << 8 + UInt32(bytes[$1 + 1]) }
    while sum >> 16 != 0 { sum = sum & 0xFFFF + sum >> 16 }
    return ~UInt16(sum)
  }
}
