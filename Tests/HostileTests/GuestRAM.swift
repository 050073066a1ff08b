import CLinux
import Foundation

/// A guest's memory, and beside it what it should hold: random bytes below 0x80 to begin with, and what the driver wrote.
/// Whatever else is found there somebody wrote who should not have.
final class GuestRAM {
  struct Region {
    let guest: UInt64
    /// Where the front-end says that it has it. Nothing like the guest's addresses.
    let frontend: UInt64
    let byteCount: Int
    let file: Handle
    let memory: UnsafeMutableRawPointer
    let shadow: UnsafeMutableRawPointer

    /// vhost-user, "Memory region description".
    var description: [UInt8] { littleEndian(guest, UInt64(byteCount), frontend, UInt64(0)) }
  }
  let name: String
  private(set) var regions: [Region] = []
  /// Where the device may write now, by their starts: guest addresses, and bytes.
  private var open: [UInt64: Int] = [:]
  private var next: UInt64

  private static let counter = Counter()
  final class Counter: @unchecked Sendable {
    private let lock = NSLock()
    private var value = 0
    func next() -> Int { lock.withLock { value += 1; return value } }
  }

  /// Memory that others have had, for it costs time to get it anew.
  private static let shadows = Shadows()
  final class Shadows: @unchecked Sendable {
    private let lock = NSLock()
    private var spare: [Int: [UnsafeMutableRawPointer]] = [:]
    func take(_ count: Int) -> UnsafeMutableRawPointer {
      lock.withLock { spare[count]?.popLast() } ?? .allocate(byteCount: count, alignment: 4096)
    }
    func give(_ memory: UnsafeMutableRawPointer, _ count: Int) { lock.withLock { spare[count, default: []].append(memory) } }
  }

  /// Bytes below 0x80: the tags of frames have others.
  nonisolated(unsafe) private static let noise: UnsafeMutableRawPointer = {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: noiseBytes, alignment: 4096)
    var dice = Dice(Dice.seed)
    for offset in stride(from: 0, to: noiseBytes, by: 8) {
      memory.storeBytes(of: dice.next() & 0x7F7F_7F7F_7F7F_7F7F, toByteOffset: offset, as: UInt64.self)
    }
    return memory
  }()
  private static let noiseBytes = 1 << 20

  static let firstAddress: UInt64 = 0x10_0000

  /// Two regions that follow one another in the guest and are files of their own; nothing is behind them.
  init(byteCounts: [Int]) {
    name = "hostile-\(Self.counter.next())"
    var guest = Self.firstAddress
    next = guest
    for (n, count) in byteCounts.enumerated() {
      let file = Handle.file("\(name)-\(n)", byteCount: count, seals: true)
      let memory = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0)!
      precondition(memory != MAP_FAILED)
      let shadow = Self.shadows.take(count)
      for offset in stride(from: 0, to: count, by: Self.noiseBytes) {
        memcpy(shadow + offset, Self.noise, min(Self.noiseBytes, count - offset))
      }
      memcpy(memory, shadow, count)
      regions.append(
        Region(
          guest: guest, frontend: 0x7A00_0000_0000 &- UInt64(n) * 0x1_0000_0000 &+ 0x3000, byteCount: count, file: file,
          memory: memory, shadow: shadow))
      guest += UInt64(count)
    }
  }

  deinit {
    for region in regions {
      munmap(region.memory, region.byteCount)
      Self.shadows.give(region.shadow, region.byteCount)
    }
  }

  var end: UInt64 { regions.last!.guest + UInt64(regions.last!.byteCount) }

  /// Room for something, in the first region.
  func take(_ byteCount: Int, alignment: Int = 64) -> UInt64 {
    let place = (next + UInt64(alignment) - 1) & ~UInt64(alignment - 1)
    next = place + UInt64(byteCount)
    precondition(next <= regions[0].guest + UInt64(regions[0].byteCount), "the test's guest has too little memory")
    return place
  }

  private func find(_ address: UInt64, _ count: Int) -> (Region, Int) {
    let region = regions.first { address >= $0.guest && count <= $0.byteCount && address - $0.guest <= UInt64($0.byteCount - count) }
    precondition(region != nil, "the test looks outside its guest's memory")
    return (region!, Int(address - region!.guest))
  }
  func host(_ address: UInt64, _ count: Int = 1) -> UnsafeMutableRawPointer {
    let (region, offset) = find(address, count)
    return region.memory + offset
  }
  func frontend(_ address: UInt64) -> UInt64 {
    let (region, offset) = find(address, 0)
    return region.frontend + UInt64(offset)
  }

  // MARK: What the driver writes

  func put16(_ value: UInt16, _ address: UInt64) {
    let (region, offset) = find(address, 2)
    region.shadow.storeBytes(of: value, toByteOffset: offset, as: UInt16.self)
    sl_store16_release(region.memory + offset, value)
  }
  func put32(_ value: UInt32, _ address: UInt64) {
    let (region, offset) = find(address, 4)
    region.shadow.storeBytes(of: value, toByteOffset: offset, as: UInt32.self)
    sl_store32_release(region.memory + offset, value)
  }
  func put64(_ value: UInt64, _ address: UInt64) {
    let (region, offset) = find(address, 8)
    region.shadow.storeBytes(of: value, toByteOffset: offset, as: UInt64.self)
    sl_store64_release(region.memory + offset, value)
  }
  func put(_ data: [UInt8], _ address: UInt64) {
    let (region, offset) = find(address, data.count)
    data.withUnsafeBytes {
      memcpy(region.shadow + offset, $0.baseAddress!, data.count)
      memcpy(region.memory + offset, $0.baseAddress!, data.count)
    }
  }
  func load16(_ address: UInt64) -> UInt16 { sl_load16_acquire(host(address, 2)) }
  func load32(_ address: UInt64) -> UInt32 { sl_load32_acquire(host(address, 4)) }
  func load64(_ address: UInt64) -> UInt64 { sl_load64_acquire(host(address, 8)) }
  func read(_ address: UInt64, _ count: Int) -> [UInt8] {
    [UInt8](UnsafeRawBufferPointer(start: host(address, count), count: count))
  }

  // MARK: What the device may write

  /// The device may write there from now on.
  func open(_ address: UInt64, _ count: Int) {
    if count > 0 { open[address] = max(open[address] ?? 0, count) }
  }
  /// What is there was the device's to write, and is as it should be from now on.
  func accept(_ address: UInt64, _ count: Int) {
    let (region, offset) = find(address, count)
    memcpy(region.shadow + offset, region.memory + offset, count)
  }
  func shutAll() { open = [:] }
  func forget(where isGone: (UInt64) -> Bool) { open = open.filter { !isGone($0.key) } }
  /// The device has given it back with `written` bytes. Puts back what was there; answers whether the rest was left alone.
  func shut(_ address: UInt64, _ count: Int, written: Int) -> Bool {
    open[address] = nil
    if count == 0 { return true }
    let (region, offset) = find(address, count)
    let isIntact = isIntact(address, count, behind: written)
    memcpy(region.memory + offset, region.shadow + offset, count)
    return isIntact
  }

  /// Whether what lies behind the first `written` bytes is as it should be.
  func isIntact(_ address: UInt64, _ count: Int, behind written: Int) -> Bool {
    let (region, offset) = find(address, count)
    return memcmp(region.memory + offset + written, region.shadow + offset + written, count - written) == 0
  }

  /// The first byte that differs from what it should be, outside of what is the device's to write; nil if there is none.
  func firstDamage() -> String? {
    let ranges = open.map { (start: $0.key, end: $0.key + UInt64($0.value)) }.sorted { $0.start < $1.start }
    for region in regions {
      var at = region.guest
      let end = region.guest + UInt64(region.byteCount)
      for range in ranges + [(end, end)] where range.end > at || range.start == end {
        let stop = min(max(range.start, at), end)
        if stop > at, let found = difference(region, Int(at - region.guest), Int(stop - region.guest)) { return found }
        at = min(max(at, range.end), end)
      }
    }
    return nil
  }
  private func difference(_ region: Region, _ from: Int, _ to: Int) -> String? {
    guard memcmp(region.memory + from, region.shadow + from, to - from) != 0 else { return nil }
    let memory = region.memory.assumingMemoryBound(to: UInt8.self)
    let shadow = region.shadow.assumingMemoryBound(to: UInt8.self)
    let first = (from..<to).first { memory[$0] != shadow[$0] }!
    let last = (from..<to).last { memory[$0] != shadow[$0] }!
    return "\(name): 0x\(String(region.guest + UInt64(first), radix: 16)) is 0x\(String(memory[first], radix: 16)), not 0x\(String(shadow[first], radix: 16)); the last such byte is \(last - first) further on"
  }

  /// Where four bytes in a row are somewhere in it, at any place; nil: nowhere.
  func find(tag: UInt32) -> UInt64? {
    var wanted = tag.bigEndian
    for region in regions {
      if let found = memmem(region.memory, region.byteCount, &wanted, 4) {
        return region.guest + UInt64(found - UnsafeMutableRawPointer(region.memory))
      }
    }
    return nil
  }
}
