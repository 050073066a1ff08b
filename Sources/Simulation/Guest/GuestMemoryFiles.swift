internal import CLinux
internal import GuestMemory
internal import Linux

/// A guest's memory: two files, low and high, and the guest's own mapping of both.
///
/// `@safe`: it hands out an address only after checking that all bytes asked for lie in one region. Who keeps
/// such an address keeps this.
@safe struct GuestMemoryFiles: ~Copyable {
  private let lowFile: MemoryFile
  private let highFile: MemoryFile
  private let low: MemoryRegion
  private let high: MemoryRegion

  init(name: String, _ layout: GuestLayout, pages: PageSize, node: Int?) throws(MemoryError) {
    let lowFile = try Self.file(name + "-low", layout.lowByteCount, pages)
    let highFile = try Self.file(name + "-high", layout.highByteCount, pages)
    let low = try MemoryRegion(at: GuestAddress(0), of: lowFile.descriptor, byteCount: lowFile.byteCount)
    let high = try MemoryRegion(
      at: GuestAddress(GuestLayout.highStart), of: highFile.descriptor, byteCount: highFile.byteCount)
    if let node {
      low.prefer(node: node)
      high.prefer(node: node)
    }
    if pages == .large {
      for region in [low, high] {
        for offset in stride(from: 0, to: region.byteCount, by: pages.byteCount) { unsafe sl_store8(region.base + offset, 0) }
        region.collapse()
      }
    }
    self.lowFile = lowFile
    self.highFile = highFile
    self.low = low
    self.high = high
  }

  private static func file(_ name: String, _ byteCount: Int, _ pages: PageSize) throws(MemoryError) -> MemoryFile {
    do { return try MemoryFile(name: name, byteCount: byteCount, pages: pages) } catch { throw .system(error) }
  }

  /// The same memory, mapped once more.
  borrowing func mapAgain() throws(MemoryError) -> MemoryMap {
    try MemoryMap([
      MemoryRegion(at: low.guestStart, of: lowFile.descriptor, byteCount: low.byteCount),
      MemoryRegion(at: high.guestStart, of: highFile.descriptor, byteCount: high.byteCount),
    ])
  }

  /// Where the guest finds some bytes of its own.
  borrowing func host(_ start: GuestAddress, _ byteCount: Int) -> UnsafeMutableRawPointer {
    let region = start.rawValue < GuestLayout.highStart ? low : high
    let offset = start.rawValue - region.guestStart.rawValue
    precondition(byteCount >= 0 && offset <= UInt64(region.byteCount) && byteCount <= region.byteCount - Int(offset))
    return unsafe region.base + Int(offset)
  }

  /// Writes a byte into every page of a range, so that the kernel finds its memory now and not under load.
  borrowing func touch(_ range: GuestRange) {
    guard range.count > 0 else { return }
    let start = unsafe host(range.start, Int(range.count))
    for offset in stride(from: 0, to: Int(range.count), by: 4096) { unsafe sl_store8(start + offset, 0) }
    unsafe sl_store8(start + Int(range.count) - 1, 0)
  }

  /// Fills bytes with noise that depends on where they are.
  borrowing func fillWithNoise(_ range: Range<UInt64>, seed: UInt64) {
    let start = unsafe host(GuestAddress(range.lowerBound), range.count)
    Noise.forEachPart(of: range, seed: seed) { offset, byteCount, noise in
      for byte in 0..<byteCount { unsafe sl_store8(start + offset + byte, UInt8(truncatingIfNeeded: noise >> (8 * UInt64(byte)))) }
      return true
    }
  }

  /// The first byte of a range that does not hold its noise; nil if all do.
  borrowing func firstChange(in range: Range<UInt64>, seed: UInt64) -> GuestAddress? {
    let start = unsafe host(GuestAddress(range.lowerBound), range.count)
    var found: GuestAddress?
    Noise.forEachPart(of: range, seed: seed) { offset, byteCount, noise in
      if byteCount == 8, unsafe sl_load64(start + offset) == noise.littleEndian { return true }
      for byte in 0..<byteCount
      where unsafe sl_load8(start + offset + byte) != UInt8(truncatingIfNeeded: noise >> (8 * UInt64(byte))) {
        found = GuestAddress(range.lowerBound + UInt64(offset + byte))
        return false
      }
      return true
    }
    return found
  }
}

/// Bytes that nobody writes by accident: each eight are a function of their address.
private enum Noise {
  /// Walks a range in words of eight aligned bytes; at its ends there may be fewer. `body` is given where a part begins, from the
  /// range's start on, how many bytes it has, and its noise from the lowest byte on, and says whether to go on.
  static func forEachPart(of range: Range<UInt64>, seed: UInt64, _ body: (Int, Int, UInt64) -> Bool) {
    var address = range.lowerBound
    while address < range.upperBound {
      let word = address & ~7
      let end = min(word + 8, range.upperBound)
      let noise = SplitMix.mixed(seed ^ word) >> (8 * (address - word))
      guard body(Int(address - range.lowerBound), Int(end - address), noise) else { return }
      address = end
    }
  }
}

/// Random numbers from a seed. Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
struct SplitMix: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    defer { state &+= 0x9E37_79B9_7F4A_7C15 }
    return Self.mixed(state)
  }

  /// The number that follows a state.
  static func mixed(_ state: UInt64) -> UInt64 {
    var z = state &+ 0x9E37_79B9_7F4A_7C15
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
