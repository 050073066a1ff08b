internal import CLinux

/// What one queue of a guest does with a frame it received: counts it, looks at it, hashes it, hands it on.
///
/// `@safe`: it takes bytes that its caller vouches for, and keeps none of them.
@safe struct FrameDelivery: ~Copyable {
  private(set) var frames: UInt64 = 0
  /// Of frames, without headers.
  private(set) var bytes: UInt64 = 0
  private let queue: Int
  /// Neither hashed nor handed on: only looked at, as by a program that reads headers.
  private let isOnlyTouched: Bool
  /// What looking at frames came to; kept so that the loads are made.
  private var touched: UInt64 = 0
  private var hash: SHA256Stream?
  private let sink: (any FrameSink)?

  init(queue: Int, hashes: Bool, sink: (any FrameSink)?) {
    self.queue = queue
    self.sink = sink
    hash = hashes ? SHA256Stream() : nil
    isOnlyTouched = !hashes && sink == nil
  }

  @inline(__always) mutating func deliver(_ frame: UnsafeRawBufferPointer, flags: UInt8) {
    frames &+= 1
    bytes &+= UInt64(frame.count)
    if isOnlyTouched {
      guard frame.count >= 16, let start = frame.baseAddress else { return }
      unsafe touched ^= start.loadUnaligned(as: UInt64.self) &+ start.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
    } else {
      unsafe handOn(frame, flags: flags)
    }
  }

  @inline(never) private mutating func handOn(_ frame: UnsafeRawBufferPointer, flags: UInt8) {
    unsafe hash?.update(frame: frame)
    unsafe sink?.receive(queue: queue, bytes: frame, flags: FrameFlags(rawValue: flags))
  }

  /// Of all frames so far; nil if they are not hashed.
  var digest: SHA256Digest? { hash?.digestSoFar() }
}

/// Puts a frame together that lies in several pieces. One piece alone is used where it lies.
///
/// `@safe`: copies stay within the scratch buffer, and the one piece is kept only while its frame is taken.
@safe struct FrameAssembly: ~Copyable {
  /// The longest frame, in bytes: more than any network carries.
  static let largestFrame = 128 << 10
  private let scratch: UnsafeMutableRawBufferPointer
  private var onlyPiece = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
  private var pieceCount = 0
  private var byteCount = 0

  init() { unsafe scratch = .allocate(byteCount: Self.largestFrame, alignment: 64) }
  deinit { unsafe scratch.deallocate() }

  mutating func removeAll() {
    pieceCount = 0
    byteCount = 0
  }

  /// False if the frame becomes too long.
  mutating func append(_ piece: UnsafeRawBufferPointer) -> Bool {
    guard piece.count > 0 else { return true }
    guard byteCount + piece.count <= Self.largestFrame else { return false }
    if pieceCount == 0 {
      unsafe onlyPiece = unsafe piece
    } else {
      if pieceCount == 1 { unsafe copy(onlyPiece, to: 0) }
      unsafe copy(piece, to: byteCount)
    }
    pieceCount += 1
    byteCount += piece.count
    return true
  }

  private func copy(_ piece: UnsafeRawBufferPointer, to offset: Int) {
    unsafe sl_copy(scratch.baseAddress! + offset, piece.baseAddress!, piece.count)
  }

  /// The whole frame, good until the next call.
  var frame: UnsafeRawBufferPointer {
    switch pieceCount {
    case 0: return unsafe UnsafeRawBufferPointer(start: nil, count: 0)
    case 1: return unsafe onlyPiece
    default: return unsafe UnsafeRawBufferPointer(start: scratch.baseAddress, count: byteCount)
    }
  }
}
