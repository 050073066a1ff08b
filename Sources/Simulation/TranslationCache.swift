/// The simulated IOMMU's translation cache (an IOTLB): 256 leaves of each of three sizes, direct-mapped.
///
/// It does not know the page table: what it holds stays usable until it is told to forget it, as in hardware.
///
/// `@safe`: the index is the top eight bits of a hash, inside 256 entries a size. One thread at a time.
@safe struct TranslationCache: ~Copyable {
  /// The page's number plus one (0: nothing), and the leaf as the page table has it.
  @unsafe private struct Line {
    var tag: UInt64 = 0
    var leaf: UInt64 = 0
  }
  static let lineCount = 256

  private let lines: UnsafeMutablePointer<Line>
  /// Which sizes have been put in since everything was forgotten: bit 0 for 4 KiB, 1 for 2 MiB, 2 for 1 GiB.
  private let sizes: UnsafeMutablePointer<UInt8>

  init() {
    unsafe lines = .allocate(capacity: 3 * Self.lineCount)
    unsafe lines.initialize(repeating: Line(), count: 3 * Self.lineCount)
    unsafe sizes = .allocate(capacity: 1)
    unsafe sizes.initialize(to: 0)
  }

  deinit {
    unsafe lines.deallocate()
    unsafe sizes.deallocate()
  }

  /// The leaf for an address with log₂ of its size, or 0.
  @inline(__always) func lookup(_ address: UInt64) -> (leaf: UInt64, shift: UInt64) {
    let present = unsafe sizes.pointee
    if present & 2 != 0 {
      let leaf = find(address, size: 1)
      if leaf != 0 { return (leaf, 21) }
    }
    if present & 1 != 0 {
      let leaf = find(address, size: 0)
      if leaf != 0 { return (leaf, 12) }
    }
    if present & 4 != 0 {
      let leaf = find(address, size: 2)
      if leaf != 0 { return (leaf, 30) }
    }
    return (0, 0)
  }

  @inline(__always) private func find(_ address: UInt64, size: UInt64) -> UInt64 {
    let page = address >> (12 &+ 9 &* size)
    let line = unsafe line(page, size)
    return unsafe line.pointee.tag == page &+ 1 ? line.pointee.leaf : 0
  }

  func insert(_ address: UInt64, leaf: UInt64, shift: UInt64) {
    let size = (shift - 12) / 9
    let page = address >> shift
    let line = unsafe line(page, size)
    unsafe line.pointee.tag = page + 1
    unsafe line.pointee.leaf = leaf
    unsafe sizes.pointee |= 1 << UInt8(size)
  }

  /// Forgets every leaf that reaches into a range.
  func forget(_ address: UInt64, byteCount: UInt64) {
    for size in 0..<UInt64(3) {
      let shift = 12 + 9 * size
      for index in 0..<Self.lineCount {
        let line = unsafe lines + Int(size) * Self.lineCount + index
        if unsafe line.pointee.tag == 0 { continue }
        let start = unsafe (line.pointee.tag - 1) << shift
        if start < address + byteCount && address < start + 1 << shift { unsafe line.pointee = Line() }
      }
    }
  }

  func forgetAll() {
    unsafe lines.update(repeating: Line(), count: 3 * Self.lineCount)
    unsafe sizes.pointee = 0
  }

  /// Guests' windows lie 2⁴⁰ bytes apart: a hash keeps their low pages off each other's lines.
  @inline(__always) private func line(_ page: UInt64, _ size: UInt64) -> UnsafeMutablePointer<Line> {
    let index = (page &* 0x9E37_79B9_7F4A_7C15) >> 56
    return unsafe lines + Int(truncatingIfNeeded: size &* UInt64(Self.lineCount) &+ index)
  }
}
