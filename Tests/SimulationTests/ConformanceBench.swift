import Bus
import Linux
import Testing

@testable import Simulation

/// A card that is driven by registers and memory alone. Offsets are the datasheet's, not the model's table.
final class ConformanceBench {
  static let iova: UInt64 = 0x4000_0000
  static let byteCount = 16 << 20
  static let ringCount = 32
  static let station: [UInt8] = [2, 0, 0, 0, 0, 1]
  let clock = SimulatedClock()
  let dma: SimulatedIOMMU
  let card: SimulatedCard
  let memory: Mapping
  private var next = [Int](repeating: 0, count: 128)
  private var nextTransmit: UInt32 = 0

  init(faults: CardFaults = .none, queues: [Int] = [0], bufferKiB: UInt32 = 2, drops: Bool = true) throws {
    dma = SimulatedIOMMU(clock: clock)
    card = SimulatedCard(dma: dma, clock: clock, faults: faults, macAddress: Self.station)
    memory = try Mapping(anonymousBytes: Self.byteCount)
    try unsafe dma.map(
      HostMemory(base: memory.base, byteCount: Self.byteCount), at: IOVA(Self.iova), access: [.read, .write])
    card.write(1 << 26, 0)
    clock.pause(nanoseconds: 10_000_000)
    // CRCSTRIP, as in HLREG0.
    set(0x2F00, 2)
    for n in queues { start(n, bufferKiB: bufferKiB, drops: drops) }
    card.write(1, 0x3000)
    for n in queues { post(n) }
    // The link has come up: its cause is no matter of the tests.
    _ = card.read(0x800)
  }

  // MARK: registers

  func set(_ offset: Int, _ bits: UInt32) { card.write(card.read(offset) | bits, offset) }
  func clear(_ offset: Int, _ bits: UInt32) { card.write(card.read(offset) & ~bits, offset) }
  static func receive(_ n: Int, _ register: Int) -> Int {
    n < 64 ? 0x1000 + 0x40 * n + register : 0xD000 + 0x40 * (n - 64) + register
  }

  func start(_ n: Int, bufferKiB: UInt32 = 2, drops: Bool = true) {
    let at = Self.receive(n, 0)
    card.write(UInt32(Self.iova) + UInt32(ring(n)), at)
    card.write(0, at + 4)
    card.write(UInt32(Self.ringCount * 16), at + 8)
    card.write(bufferKiB | 1 << 25 | (drops ? 1 << 28 : 0), at + 0x14)
    card.write(1 << 25, at + 0x28)
    clock.pause(nanoseconds: 20_000)
  }

  /// RSS without pools: the key of the verification suite, and a table that is the entry's number modulo 16.
  func startScaling(mode: UInt32 = 1, fields: UInt32) {
    let key: [UInt8] = [
      0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
      0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
      0x01, 0xfa,
    ]
    for n in 0..<10 {
      card.write((0..<4).reduce(0) { $0 | UInt32(key[4 * n + $1]) << UInt32(8 * $1) }, 0x5C80 + 4 * n)
    }
    for n in 0..<32 { card.write((0..<4).reduce(0) { $0 | UInt32((4 * n + $1) % 16) << UInt32(8 * $1) }, 0x5C00 + 4 * n) }
    card.write(mode | fields, 0x5818)
    // PCSD: the hash in the descriptor.
    set(0x5000, 1 << 13)
  }

  /// 64 pools of two queues, all enabled, replication on, no default pool.
  func startPools(control: UInt32 = 1 | 1 << 30 | 1 << 29) {
    card.write(control, 0x51B0)
    card.write(8, 0x5818)
    card.write(.max, 0x51E0)
    card.write(.max, 0x51E4)
  }

  func setAddress(_ slot: Int, _ last: UInt8, pools: UInt64) {
    card.write(2, 0xA200 + 8 * slot)
    card.write(1 << 31 | UInt32(last) << 8, 0xA204 + 8 * slot)
    card.write(UInt32(truncatingIfNeeded: pools), 0xA600 + 8 * slot)
    card.write(UInt32(truncatingIfNeeded: pools >> 32), 0xA604 + 8 * slot)
  }

  // MARK: memory

  func ring(_ n: Int) -> Int { n * 1024 }
  func buffer(_ slot: Int, _ n: Int) -> Int { 0x10_0000 + (n * Self.ringCount + slot) * 2048 }
  func post(_ n: Int, _ count: Int = ConformanceBench.ringCount - 1) {
    for slot in 0..<count {
      store(Self.iova + UInt64(buffer(slot, n)), ring(n) + slot * 16)
      store(0, ring(n) + slot * 16 + 8)
    }
    card.doorbell(Self.receive(n, 0x18)).ring(UInt32(count))
  }
  func store(_ value: UInt64, _ offset: Int) { unsafe memory.base.storeBytes(of: value, toByteOffset: offset, as: UInt64.self) }
  func load(_ offset: Int) -> UInt64 { unsafe memory.base.load(fromByteOffset: offset, as: UInt64.self) }
  func bytes(_ offset: Int, _ count: Int) -> [UInt8] {
    unsafe Array(unsafe UnsafeRawBufferPointer(start: memory.base + offset, count: count))
  }
  func fill(_ offset: Int, _ bytes: [UInt8]) {
    unsafe (memory.base + offset).copyMemory(from: bytes, byteCount: bytes.count)
  }
  /// Changes with any byte of the memory.
  func snapshot() -> Int {
    var hasher = Hasher()
    unsafe hasher.combine(bytes: UnsafeRawBufferPointer(start: memory.base, count: Self.byteCount))
    return hasher.finalize()
  }

  /// The next descriptor of a queue: what a driver sees.
  struct Descriptor {
    let first, second: UInt64
    let bytes: [UInt8]
    var isDone: Bool { second & 1 != 0 }
    var isEnd: Bool { second & 2 != 0 }
    var length: Int { Int(second >> 32 & 0xFFFF) }
    var tag: UInt16 { UInt16(second >> 48) }
    /// L4I, IPCS, UDPCS and the errors L4E and IPE.
    var status: UInt64 { second & 0xC000_0070 }
    var hash: UInt32 { UInt32(first >> 32) }
    var hashType: UInt64 { first & 15 }
  }
  func take(_ n: Int) -> Descriptor {
    let slot = next[n]
    next[n] = (slot + 1) % Self.ringCount
    let second = load(ring(n) + slot * 16 + 8)
    return Descriptor(
      first: load(ring(n) + slot * 16), second: second, bytes: bytes(buffer(slot, n), min(Int(second >> 32 & 0xFFFF), 2048)))
  }

  func receive(_ frame: [UInt8]) -> Arrival {
    unsafe frame.withUnsafeBytes { unsafe card.receive(WireFrame(bytes: $0.baseAddress!, count: $0.count)) }
  }

  // MARK: transmit

  func startTransmit(_ n: Int = 0) {
    let at = 0x6000 + 0x40 * n
    card.write(UInt32(Self.iova) + 0x40000, at)
    card.write(UInt32(Self.ringCount * 16), at + 8)
    set(0x4A80, 1)
    card.write(1 << 25, at + 0x28)
    clock.pause(nanoseconds: 20_000)
  }
  func transmitWord(_ slot: Int) -> UInt64 { load(0x40000 + slot * 16 + 8) }
  func postTransmit(_ first: UInt64, _ second: UInt64) {
    store(first, 0x40000 + Int(nextTransmit) * 16)
    store(second, 0x40000 + Int(nextTransmit) * 16 + 8)
    nextTransmit = (nextTransmit + 1) % UInt32(Self.ringCount)
  }
  /// Data descriptors, one a piece. RS on the last only, unless `reports` says otherwise.
  func postTransmit(pieces: [[UInt8]], options: UInt64 = 0, reports: Bool = true) {
    let total = UInt64(pieces.reduce(0) { $0 + $1.count })
    for (index, piece) in pieces.enumerated() {
      let offset = 0x50000 + Int(nextTransmit) * 4096
      fill(offset, piece)
      let isLast = index == pieces.count - 1
      let command: UInt64 = 1 << 29 | 1 << 25 | 3 << 20 | (isLast ? 1 << 24 : 0) | (isLast && reports ? 1 << 27 : 0)
      postTransmit(Self.iova + UInt64(offset), UInt64(piece.count) | command | options | total << 46)
    }
  }
  func ringTransmit(_ n: Int = 0) { card.doorbell(0x6018 + 0x40 * n).ring(nextTransmit) }
}

/// Frames, put together apart from the model's parser.
enum WirePacket {
  static func sum(_ bytes: [UInt8]) -> UInt16 {
    var total: UInt32 = 0
    for (index, byte) in bytes.enumerated() { total += UInt32(byte) << (index % 2 == 0 ? 8 : 0) }
    while total > 0xFFFF { total = total & 0xFFFF + total >> 16 }
    return UInt16(total)
  }
  static func word(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 255)] }
  static func long(_ value: UInt32) -> [UInt8] { word(UInt16(value >> 16)) + word(UInt16(value & 0xFFFF)) }

  static func ethernet(
    _ payload: [UInt8], type: UInt16 = 0x0800, to: [UInt8] = ConformanceBench.station, tag: UInt16? = nil
  ) -> [UInt8] {
    let frame = to + [2, 0, 0, 0, 0, 0xEE] + (tag.map { word(0x8100) + word($0) } ?? []) + word(type) + payload
    return frame + [UInt8](repeating: 0, count: max(60 - frame.count, 0))
  }
  static func ipv4(
    _ payload: [UInt8], number: UInt8, from: UInt32 = 0x0A00_0001, to: UInt32 = 0x0A00_0002, fragment: UInt16 = 0
  ) -> [UInt8] {
    var header: [UInt8] = [0x45, 0] + word(UInt16(20 + payload.count)) + [0, 0] + word(fragment) + [64, number, 0, 0]
    header += long(from) + long(to)
    header.replaceSubrange(10..<12, with: word(~sum(header)))
    return header + payload
  }
  static func ipv6(_ payload: [UInt8], number: UInt8, from: [UInt8], to: [UInt8]) -> [UInt8] {
    [0x60, 0, 0, 0] + word(UInt16(payload.count)) + [number, 64] + from + to + payload
  }
  /// - Parameter addresses: source and destination, as they lie in the IP header.
  static func udp(_ addresses: [UInt8], _ ports: (UInt16, UInt16), data: [UInt8] = [1, 2, 3], sums: Bool = true) -> [UInt8] {
    var bytes = word(ports.0) + word(ports.1) + word(UInt16(8 + data.count)) + [0, 0] + data
    if sums {
      let value = ~sum(addresses + [0, 17] + word(UInt16(bytes.count)) + bytes)
      bytes.replaceSubrange(6..<8, with: word(value == 0 ? 0xFFFF : value))
    }
    return bytes
  }
  static func tcp(_ addresses: [UInt8], _ ports: (UInt16, UInt16), flags: UInt8 = 0x10, data: [UInt8] = [1, 2, 3]) -> [UInt8] {
    var bytes = word(ports.0) + word(ports.1) + [0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x10, 0, 0, 0, 0, 0] + data
    bytes.replaceSubrange(16..<18, with: word(~sum(addresses + [0, 6] + word(UInt16(bytes.count)) + bytes)))
    return bytes
  }

  static func udp4(
    from: UInt32 = 0x0A00_0001, to: UInt32 = 0x0A00_0002, ports: (UInt16, UInt16) = (1000, 2000), data: [UInt8] = [1, 2, 3],
    mac: [UInt8] = ConformanceBench.station, tag: UInt16? = nil, sums: Bool = true
  ) -> [UInt8] {
    ethernet(
      ipv4(udp(long(from) + long(to), ports, data: data, sums: sums), number: 17, from: from, to: to), to: mac, tag: tag)
  }
  static func tcp4(
    from: UInt32 = 0x0A00_0001, to: UInt32 = 0x0A00_0002, ports: (UInt16, UInt16) = (1000, 2000), flags: UInt8 = 0x10,
    mac: [UInt8] = ConformanceBench.station, tag: UInt16? = nil
  ) -> [UInt8] {
    ethernet(ipv4(tcp(long(from) + long(to), ports, flags: flags), number: 6, from: from, to: to), to: mac, tag: tag)
  }
}
