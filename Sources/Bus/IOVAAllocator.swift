internal import Linux

/// Hands out bus addresses for our own rings and pools, from a window that no guest's memory uses, and takes them back.
///
/// Behind each buffer lies an unmapped page: a device that runs past one faults instead of writing the next.
/// May be used by several threads; never for a frame.
public final class IOVAAllocator: Sendable {
  private static let guardBytes: UInt64 = 4096
  private let window: Range<UInt64>
  private let gaps: Mutex<[Range<UInt64>]>

  /// - Parameters: bounds of the window, multiples of 4096.
  public init(from start: IOVA = IOVA(0x0010_0000), to end: IOVA = IOVA(1 << 32)) {
    precondition(start.rawValue & 4095 == 0 && end.rawValue & 4095 == 0 && start < end && end.rawValue < 1 << 63)
    window = start.rawValue..<end.rawValue
    // The page behind the last buffer may lie past the window: nothing of ours is there.
    gaps = Mutex([start.rawValue..<end.rawValue + Self.guardBytes])
  }

  /// The lowest room for this many bytes, or nil when there is none.
  public func allocate(byteCount: Int) -> IOVA? {
    guard let length = Self.length(byteCount) else { return nil }
    return gaps.withLock { gaps in
      guard let index = gaps.firstIndex(where: { UInt64($0.count) >= length }) else { return nil }
      let gap = gaps[index]
      if gap.lowerBound + length == gap.upperBound {
        gaps.remove(at: index)
      } else {
        gaps[index] = gap.lowerBound + length..<gap.upperBound
      }
      return IOVA(gap.lowerBound)
    }
  }

  /// Takes back what `allocate` gave, with the same number of bytes. Nothing is mapped there any more.
  public func free(_ address: IOVA, byteCount: Int) {
    guard let length = Self.length(byteCount) else { preconditionFailure("more than there is") }
    let freed = address.rawValue..<address.rawValue + length
    precondition(freed.lowerBound >= window.lowerBound && freed.upperBound <= window.upperBound + Self.guardBytes, "not of this window")
    gaps.withLock { gaps in
      let next = gaps.firstIndex { $0.lowerBound >= freed.upperBound } ?? gaps.count
      precondition(next == 0 || gaps[next - 1].upperBound <= freed.lowerBound, "freed twice")
      let joinsNext = next < gaps.count && gaps[next].lowerBound == freed.upperBound
      let joinsLast = next > 0 && gaps[next - 1].upperBound == freed.lowerBound
      switch (joinsLast, joinsNext) {
      case (true, true):
        gaps[next - 1] = gaps[next - 1].lowerBound..<gaps[next].upperBound
        gaps.remove(at: next)
      case (true, false): gaps[next - 1] = gaps[next - 1].lowerBound..<freed.upperBound
      case (false, true): gaps[next] = freed.lowerBound..<gaps[next].upperBound
      case (false, false): gaps.insert(freed, at: next)
      }
    }
  }

  /// Bytes that are handed out now, each buffer's page behind it included.
  public var usedByteCount: UInt64 {
    gaps.withLock { gaps in gaps.reduce(window.upperBound - window.lowerBound + Self.guardBytes) { $0 - UInt64($1.count) } }
  }

  /// Whole pages, and the one behind them; nil for more than any window has.
  private static func length(_ byteCount: Int) -> UInt64? {
    precondition(byteCount > 0)
    guard byteCount < 1 << 62 else { return nil }
    return (UInt64(byteCount) + 4095) & ~4095 + guardBytes
  }
}
