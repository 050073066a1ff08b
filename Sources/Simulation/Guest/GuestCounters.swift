internal import CLinux

extension SimulatedGuest {
  /// What a guest counts; each number only grows.
  public struct Counters: Hashable, Sendable {
    /// Frames delivered.
    public var frames: UInt64 = 0
    /// Their bytes, without headers.
    public var bytes: UInt64 = 0
    /// Frames that came but could not be delivered, for a violation.
    public var brokenFrames: UInt64 = 0
    public var violations: UInt64 = 0
    /// Buffers made available.
    public var buffersPosted: UInt64 = 0
    /// Buffers taken back.
    public var buffersTaken: UInt64 = 0

    public static func + (a: Self, b: Self) -> Self {
      Counters(
        frames: a.frames + b.frames, bytes: a.bytes + b.bytes, brokenFrames: a.brokenFrames + b.brokenFrames,
        violations: a.violations + b.violations, buffersPosted: a.buffersPosted + b.buffersPosted,
        buffersTaken: a.buffersTaken + b.buffersTaken)
    }
  }
}

/// Counters of all queues, a cache line each: stored by the guest's thread, read by any. Each number is
/// whole; together they may be of different moments.
///
/// `@safe`: a queue's number is checked, and the memory lives as long as its guest, which owns all that use it.
@safe struct CounterPage: BitwiseCopyable {
  private let base: UnsafeMutableRawPointer
  private let count: Int
  private static let stride = 64

  init(queueCount: Int) {
    unsafe base = .allocate(byteCount: queueCount * Self.stride, alignment: Self.stride)
    unsafe sl_fill(base, 0, queueCount * Self.stride)
    count = queueCount
  }

  /// Called once, by the guest that made it.
  func deallocate() { unsafe base.deallocate() }

  func store(_ counters: SimulatedGuest.Counters, queue: Int) {
    let line = unsafe line(queue)
    unsafe sl_store64(line, counters.frames)
    unsafe sl_store64(line + 8, counters.bytes)
    unsafe sl_store64(line + 16, counters.brokenFrames)
    unsafe sl_store64(line + 24, counters.violations)
    unsafe sl_store64(line + 32, counters.buffersPosted)
    unsafe sl_store64(line + 40, counters.buffersTaken)
  }

  func load(queue: Int) -> SimulatedGuest.Counters {
    let line = unsafe line(queue)
    return unsafe SimulatedGuest.Counters(
      frames: sl_load64(line), bytes: sl_load64(line + 8), brokenFrames: sl_load64(line + 16),
      violations: sl_load64(line + 24), buffersPosted: sl_load64(line + 32), buffersTaken: sl_load64(line + 40))
  }

  private func line(_ queue: Int) -> UnsafeMutableRawPointer {
    precondition(queue >= 0 && queue < count, "no such queue")
    return unsafe base + queue * Self.stride
  }
}
