public import NIC

/// The receive paths of one thread, turned one after the other.
///
/// `@safe`: paths lie in storage that grows only while paths are added, and every index is checked.
@safe public struct Worker<Queue: ReceiveQueue & ~Copyable>: ~Copyable {
  @usableFromInline var paths: UnsafeMutablePointer<ReceivePath<Queue>>
  public private(set) var count = 0
  private var capacity = 4

  public init() { unsafe paths = .allocate(capacity: capacity) }

  deinit {
    unsafe paths.deinitialize(count: count)
    unsafe paths.deallocate()
  }

  /// Takes a path over; answers its number.
  public mutating func add(_ path: consuming ReceivePath<Queue>) -> Int {
    if count == capacity {
      let larger = UnsafeMutablePointer<ReceivePath<Queue>>.allocate(capacity: capacity * 2)
      unsafe larger.moveInitialize(from: paths, count: count)
      unsafe paths.deallocate()
      unsafe paths = larger
      capacity *= 2
    }
    unsafe (paths + count).initialize(to: path)
    count += 1
    return count - 1
  }

  /// One path, to look at or to stop.
  public func withPath<Result, Failure: Error>(
    _ number: Int, _ body: (inout ReceivePath<Queue>) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    precondition(number >= 0 && number < count)
    return unsafe try body(&paths[number])
  }

  /// One turn of one path. Answers how many guest buffers went back.
  @inlinable public func turn(_ number: Int) -> Int {
    precondition(number >= 0 && number < count)
    return unsafe paths[number].turn()
  }
  @inlinable public func settledFrames(_ number: Int) -> UInt64 {
    precondition(number >= 0 && number < count)
    return unsafe paths[number].settledFrames
  }
  /// Whether the driver of a path's queue asked to be told since the last call.
  @inlinable public func takeSignal(_ number: Int) -> Bool {
    precondition(number >= 0 && number < count)
    guard unsafe paths[number].wantsSignal else { return false }
    unsafe paths[number].wantsSignal = false
    return true
  }
  /// Whether a path has stopped for good.
  @inlinable public func hasStopped(_ number: Int) -> Bool {
    precondition(number >= 0 && number < count)
    if case .none = unsafe paths[number].core.stopReason { return false }
    return true
  }
}
