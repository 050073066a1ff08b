public import NIC

/// The receive paths of one thread, turned one after the other.
///
/// `@safe`: paths lie in storage that grows only while paths are added, and every index is checked.
@safe public struct Worker<Queue: ReceiveQueue & ~Copyable>: ~Copyable {
  /// In memory of its own: who keeps a worker keeps a constant, for which no check of exclusive access is made.
  @unsafe @usableFromInline struct State {
    @usableFromInline var paths: UnsafeMutablePointer<ReceivePath<Queue>>
    @usableFromInline var count = 0
    var capacity = 4
  }
  @usableFromInline let state: UnsafeMutablePointer<State>

  public init() {
    unsafe state = .allocate(capacity: 1)
    unsafe state.initialize(to: State(paths: .allocate(capacity: 4)))
  }

  deinit {
    unsafe state.pointee.paths.deinitialize(count: state.pointee.count)
    unsafe state.pointee.paths.deallocate()
    unsafe state.deallocate()
  }

  @inlinable public var count: Int { unsafe state.pointee.count }

  /// Takes a path over; answers its number.
  public func add(_ path: consuming ReceivePath<Queue>) -> Int {
    let number = count
    if unsafe number == state.pointee.capacity {
      let larger = UnsafeMutablePointer<ReceivePath<Queue>>.allocate(capacity: number * 2)
      unsafe larger.moveInitialize(from: state.pointee.paths, count: number)
      unsafe state.pointee.paths.deallocate()
      unsafe state.pointee.paths = larger
      unsafe state.pointee.capacity = number * 2
    }
    unsafe (state.pointee.paths + number).initialize(to: path)
    unsafe state.pointee.count = number + 1
    return number
  }

  @inlinable @inline(__always) func path(_ number: Int) -> UnsafeMutablePointer<ReceivePath<Queue>> {
    precondition(number >= 0 && number < count)
    return unsafe state.pointee.paths + number
  }

  /// One path, to look at or to stop.
  @inlinable public func withPath<Result, Failure: Error>(
    _ number: Int, _ body: (inout ReceivePath<Queue>) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    unsafe try body(&path(number).pointee)
  }

  /// One turn of one path. Answers how many guest buffers went back.
  @inlinable public func turn(_ number: Int) -> Int { unsafe path(number).pointee.turn() }

  /// To be called before a path's turn, where many are turned one after the other: asks for what the next ones will touch.
  /// Precondition: there are `fewestToLookAhead`.
  @inlinable @inline(__always) public func lookAhead(from number: Int) {
    precondition(count >= Self.fewestToLookAhead)
    unsafe ReceivePath.reach(path(place(number, 3)))
    unsafe path(place(number, 2)).pointee.approach()
    unsafe path(place(number, 1)).pointee.prepare()
  }
  /// Fewer paths than that stay in the cache.
  @inlinable public static var fewestToLookAhead: Int { 4 }
  /// The path so many behind another: after the last comes the first.
  @inlinable func place(_ number: Int, _ distance: Int) -> Int {
    let place = number &+ distance
    return place < count ? place : place &- count
  }

  @inlinable public func settledFrames(_ number: Int) -> UInt64 { unsafe path(number).pointee.settledFrames }
  /// Whether the driver of a path's queue asked to be told since the last call.
  @inlinable public func takeSignal(_ number: Int) -> Bool {
    guard unsafe path(number).pointee.wantsSignal else { return false }
    unsafe path(number).pointee.wantsSignal = false
    return true
  }
  /// Whether a path has stopped for good.
  @inlinable public func hasStopped(_ number: Int) -> Bool {
    if case .none = unsafe path(number).pointee.core.stopReason { return false }
    return true
  }
}
