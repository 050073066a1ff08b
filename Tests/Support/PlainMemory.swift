internal import CLinux
public import GuestMemory
internal import Linux
public import Virtio

/// A guest's memory with a second copy in plain arrays: what it should be, as far as somebody foresaw it.
///
/// Translation here is a search over plain arrays, so that it can judge the one under test.
@safe public final class PlainMemory {
  public let map: MemoryMap
  public let starts: [UInt64]
  public let counts: [Int]
  private let bases: [UnsafeMutableRawPointer]
  private var foreseen: [[UInt8]]

  /// Regions in any order; they do not overlap. Filled from the generator.
  public init(_ regions: [(start: UInt64, byteCount: Int)], _ random: inout SeededGenerator) throws {
    var made: [MemoryRegion] = []
    foreseen = []
    for region in regions {
      made.append(
        try MemoryRegion(at: GuestAddress(region.start), mapping: Mapping(anonymousBytes: region.byteCount)))
      // A tile of odd length: no two pages are alike.
      let tile = random.bytes(4099)
      var bytes: [UInt8] = []
      bytes.reserveCapacity(region.byteCount + tile.count)
      while bytes.count < region.byteCount { bytes += tile }
      bytes.removeLast(bytes.count - region.byteCount)
      foreseen.append(bytes)
    }
    map = try MemoryMap(made)
    starts = regions.map(\.start)
    counts = regions.map(\.byteCount)
    unsafe bases = made.map { unsafe $0.base }
    for n in made.indices {
      let bytes = foreseen[n]
      unsafe bytes.withUnsafeBytes { unsafe sl_copy(bases[n], $0.baseAddress!, $0.count) }
    }
  }

  /// The pieces of a range, one each region that it touches; nil if a byte of it is nowhere.
  public func pieces(_ address: UInt64, _ count: Int) -> [(start: UInt64, count: Int)]? {
    var result: [(start: UInt64, count: Int)] = []
    var (address, left) = (address, count)
    while left > 0 {
      guard let n = region(of: address) else { return nil }
      let here = min(left, counts[n] - Int(address - starts[n]))
      result.append((address, here))
      address &+= UInt64(here)
      left -= here
    }
    return result
  }

  private func region(of address: UInt64) -> Int? {
    var n = 0
    while n < starts.count {
      if starts[n] <= address && address - starts[n] < UInt64(counts[n]) { return n }
      n += 1
    }
    return nil
  }

  /// What is there.
  public func read(_ address: UInt64, _ count: Int) -> [UInt8] {
    var result: [UInt8] = []
    for piece in pieces(address, count)! {
      let n = region(of: piece.start)!
      let base = unsafe bases[n] + Int(piece.start - starts[n])
      result += unsafe [UInt8](UnsafeRawBufferPointer(start: base, count: piece.count))
    }
    return result
  }
  /// Writes as the guest: there, and where it is foreseen.
  public func write(_ address: UInt64, _ bytes: [UInt8]) {
    foresee(address, bytes)
    var done = 0
    for piece in pieces(address, bytes.count)! {
      let n = region(of: piece.start)!
      let base = unsafe bases[n] + Int(piece.start - starts[n])
      unsafe bytes.withUnsafeBytes { unsafe sl_copy(base, $0.baseAddress! + done, piece.count) }
      done += piece.count
    }
  }
  /// Says that somebody else is to write this.
  public func foresee(_ address: UInt64, _ bytes: [UInt8]) {
    var done = 0
    for piece in pieces(address, bytes.count)! {
      let n = region(of: piece.start)!
      let offset = Int(piece.start - starts[n])
      unsafe foreseen[n].withUnsafeMutableBytes { to in
        unsafe bytes.withUnsafeBytes { from in
          unsafe sl_copy(to.baseAddress! + offset, from.baseAddress! + done, piece.count)
        }
      }
      done += piece.count
    }
  }

  /// Where this process has it.
  public func address(of address: UInt64) -> UInt {
    let n = region(of: address)!
    return unsafe UInt(bitPattern: bases[n]) + UInt(address - starts[n])
  }

  public func load16(_ address: UInt64) -> UInt16 {
    let n = region(of: address)!
    return unsafe sl_load16(bases[n] + Int(address - starts[n]))
  }
  public func load32(_ address: UInt64) -> UInt32 { UInt32(load16(address)) | UInt32(load16(address + 2)) << 16 }
  public func store16(_ value: UInt16, _ address: UInt64) {
    let n = region(of: address)!
    let offset = Int(address - starts[n])
    unsafe sl_store16(bases[n] + offset, value)
    foreseen[n][offset] = UInt8(truncatingIfNeeded: value)
    foreseen[n][offset + 1] = UInt8(truncatingIfNeeded: value >> 8)
  }

  /// The first byte that is not as foreseen.
  public func firstSurprise() -> String? {
    for n in starts.indices {
      let found = unsafe UnsafeRawBufferPointer(start: bases[n], count: counts[n])
      let isSame = unsafe foreseen[n].withUnsafeBytes { unsafe sl_same(found.baseAddress!, $0.baseAddress!, counts[n]) }
      if isSame { continue }
      let offset = foreseen[n].indices.first { unsafe foreseen[n][$0] != found[$0] }!
      return "byte at 0x\(String(starts[n] + UInt64(offset), radix: 16)) is \(unsafe found[offset]), foreseen \(foreseen[n][offset])"
    }
    return nil
  }
}

@unsafe private func sl_same(_ a: UnsafeRawPointer, _ b: UnsafeRawPointer, _ count: Int) -> Bool {
  var offset = 0
  while offset + 8 <= count {
    if unsafe sl_load64(a + offset) != sl_load64(b + offset) { return false }
    offset += 8
  }
  while offset < count {
    if unsafe sl_load8(a + offset) != sl_load8(b + offset) { return false }
    offset += 1
  }
  return true
}

public func littleEndian(_ value: UInt64, _ count: Int) -> [UInt8] {
  (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }
}

/// A split virtqueue from the driver's side, as the specification draws it: offsets in plain memory.
/// virtio 1.3, 2.7.5 to 2.7.8.
public final class PlainDriver {
  public let memory: PlainMemory
  public let layout: SplitRingLayout
  /// Where the next available entry goes; free-running.
  public var availableIndex: UInt16
  public let size: Int

  public init(_ layout: SplitRingLayout, in memory: PlainMemory, base: UInt16 = 0) {
    self.memory = memory
    self.layout = layout
    size = layout.size
    availableIndex = base
    memory.write(table, [UInt8](repeating: 0, count: 16 * size))
    memory.write(available, [UInt8](repeating: 0, count: 6 + 2 * size))
    memory.write(used, [UInt8](repeating: 0, count: 6 + 8 * size))
    memory.store16(base, available + 2)
    memory.store16(base, used + 2)
  }

  public var table: UInt64 { layout.descriptorTable.rawValue }
  public var available: UInt64 { layout.availableRing.rawValue }
  public var used: UInt64 { layout.usedRing.rawValue }

  public static let next: UInt16 = 1
  public static let write: UInt16 = 2
  public static let indirect: UInt16 = 4

  public func describe(
    _ n: Int, _ address: UInt64, _ count: UInt32, flags: UInt16 = write, next: UInt16 = 0, table other: UInt64? = nil
  ) {
    memory.write(
      (other ?? table) + 16 * UInt64(n),
      littleEndian(address, 8) + littleEndian(UInt64(count), 4) + littleEndian(UInt64(flags), 2)
        + littleEndian(UInt64(next), 2))
  }
  /// Puts a head into the available ring; nobody sees it before `publish`.
  public func enter(_ head: UInt16) {
    memory.store16(head, available + 4 + 2 * UInt64(Int(availableIndex) % size))
    availableIndex &+= 1
  }
  public func publish() { memory.store16(availableIndex, available + 2) }
  public func offer(_ heads: UInt16...) {
    for head in heads { enter(head) }
    publish()
  }

  public var usedIndex: UInt16 { memory.load16(used + 2) }
  public func usedElement(_ index: UInt16) -> (id: UInt32, byteCount: UInt32) {
    let place = used + 4 + 8 * UInt64(Int(index) % size)
    return (memory.load32(place), memory.load32(place + 4))
  }
  public var usedFlags: UInt16 { memory.load16(used) }
  public var availableEvent: UInt16 { memory.load16(used + 4 + 8 * UInt64(size)) }
  public var usedEvent: UInt16 {
    get { memory.load16(available + 4 + 2 * UInt64(size)) }
    set { memory.store16(newValue, available + 4 + 2 * UInt64(size)) }
  }
}
