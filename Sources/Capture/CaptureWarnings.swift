// Oddities that do not keep a frame from being delivered. They are counted, by kind, and told at the end:
// a capture of ten million frames with one wrong clock is still a capture of ten million frames.

/// A kind of oddity.
public enum CaptureWarning: Int, CaseIterable, Hashable, Sendable {
  /// A frame's original length is less than its captured length. Delivered as captured.
  case originalShorterThanCaptured
  /// A frame is longer than the file says it can be. Delivered in full.
  case capturedLongerThanSnapshot
  /// The fraction of a time is a second or more. Carried into the seconds.
  case timestampFractionOutOfRange
  /// A time is past the year 2554, the last that 64 bits of nanoseconds hold. Delivered as the last.
  case timestampOutOfRange
  /// An interface counts time in units that make any 64-bit time nearly 0. Delivered as 0.
  case timestampUnitTooFine
  /// A frame's time is before that of the frame delivered before it. Delivered in the file's order.
  case timeGoesBackwards
}

extension CaptureWarning: CustomStringConvertible {
  public var description: String {
    switch self {
    case .originalShorterThanCaptured: "original length less than captured length"
    case .capturedLongerThanSnapshot: "captured length more than the snapshot length"
    case .timestampFractionOutOfRange: "time stamp fraction out of range"
    case .timestampOutOfRange: "time stamp out of range"
    case .timestampUnitTooFine: "time stamp unit too fine"
    case .timeGoesBackwards: "time goes backwards"
    }
  }
}

/// How often each kind of oddity was met.
///
/// What the file's own headers show is counted as they are read, up to a read-ahead before the frames; only at the
/// end are the counts those of all frames.
public struct CaptureWarnings: Hashable, Sendable {
  private var counts = SIMD8<UInt64>()

  public init() {}

  public internal(set) subscript(_ kind: CaptureWarning) -> UInt64 {
    get { counts[kind.rawValue] }
    set { counts[kind.rawValue] = newValue }
  }

  public var isEmpty: Bool { counts == SIMD8<UInt64>() }
  public var total: UInt64 { counts.wrappedSum() }

  static func + (a: CaptureWarnings, b: CaptureWarnings) -> CaptureWarnings {
    var sum = CaptureWarnings()
    sum.counts = a.counts &+ b.counts
    return sum
  }
}

extension CaptureWarnings: CustomStringConvertible {
  /// `2 × time goes backwards, 1 × …`; empty where there were none.
  public var description: String {
    CaptureWarning.allCases.filter { self[$0] > 0 }
      .map { "\(self[$0]) × \($0)" }.joined(separator: ", ")
  }
}
