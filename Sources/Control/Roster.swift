/// What a thread goes round: its lanes, the host's port, the card's model.
///
/// To go round counts no reference and checks no access: either is an atomic operation or a call for each of them, and an atomic
/// operation waits until the core's stores have drained, which go to lines that the guests' processors have.
/// `@safe`: a roster keeps what is on it, one thread uses it, and what `forEach` calls neither adds nor removes anything.
@safe struct Roster<Element: AnyObject>: ~Copyable {
  private let state: UnsafeMutablePointer<State>

  @unsafe private struct State {
    var kept: [Element] = []
    var capacity = 0
    /// The same again, to be walked.
    var walked: UnsafeMutablePointer<Unmanaged<Element>>
    init() { unsafe walked = .allocate(capacity: 0) }
  }

  init() {
    unsafe state = .allocate(capacity: 1)
    unsafe state.initialize(to: State())
  }
  deinit {
    unsafe state.pointee.walked.deallocate()
    unsafe state.deinitialize(count: 1)
    unsafe state.deallocate()
  }

  var count: Int { unsafe state.pointee.kept.count }
  var first: Element? { unsafe state.pointee.kept.first }

  func append(_ element: Element) { replace(with: unsafe state.pointee.kept + [element]) }
  func remove(_ element: Element) { replace(with: unsafe state.pointee.kept.filter { $0 !== element }) }
  func replace(with elements: [Element]) {
    if unsafe elements.count > state.pointee.capacity {
      unsafe state.pointee.walked.deallocate()
      unsafe state.pointee.capacity = elements.count
      unsafe state.pointee.walked = .allocate(capacity: elements.count)
    }
    for (n, element) in elements.enumerated() { unsafe (state.pointee.walked + n).initialize(to: .passUnretained(element)) }
    unsafe state.pointee.kept = elements
  }

  @inline(__always) func forEach(_ body: (Element) -> Void) {
    let (base, count) = unsafe (state.pointee.walked, state.pointee.kept.count)
    for n in 0..<count { unsafe base[n]._withUnsafeGuaranteedRef { body($0) } }
  }

  /// The same from one of them on, and round to the one before it, until `body` returns false. Returns where to go on, and
  /// whether that was before the last.
  @inline(__always) func forEach(from start: Int, while body: (Element) -> Bool) -> (next: Int, isCut: Bool) {
    let (base, count) = unsafe (state.pointee.walked, state.pointee.kept.count)
    var place = start < count ? start : 0
    for n in 0..<count {
      let goesOn = unsafe base[place]._withUnsafeGuaranteedRef { body($0) }
      place = place &+ 1 == count ? 0 : place &+ 1
      if !goesOn { return (place, n &+ 1 < count) }
    }
    return (place, false)
  }
}

/// A path that one thread has, without a check of that at every turn, which would cost as much as some frames.
///
/// `@safe`: whoever holds it uses it from one thread, and for one thing at a time.
@safe struct PathCell<Path: ~Copyable>: ~Copyable {
  private let pointer: UnsafeMutablePointer<Path>
  private let isFull: UnsafeMutablePointer<Bool>
  init(_ path: consuming Path) {
    unsafe pointer = .allocate(capacity: 1)
    unsafe pointer.initialize(to: path)
    unsafe isFull = .allocate(capacity: 1)
    unsafe isFull.initialize(to: true)
  }
  deinit {
    if unsafe isFull.pointee { unsafe pointer.deinitialize(count: 1) }
    unsafe pointer.deallocate()
    unsafe isFull.deallocate()
  }
  /// Moves the path out: `path` must not be used any more.
  func take() -> Path {
    precondition(unsafe isFull.pointee, "the path was taken already")
    unsafe isFull.pointee = false
    return unsafe pointer.move()
  }
  var path: Path {
    @inline(__always) _read { yield unsafe pointer.pointee }
    @inline(__always) nonmutating _modify { yield unsafe &pointer.pointee }
  }
}
