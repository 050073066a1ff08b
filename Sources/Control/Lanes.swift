internal import Bus
internal import Datapath
internal import GuestMemory
internal import Intel
internal import Linux
internal import Replay
internal import VhostUser
internal import Virtio

/// A path on the thread that turns it. A class, so that it can be given to that thread and taken back; what changes with
/// every frame is the path's own.
///
/// Each kind of path is a subclass of its own, so that a poll of each is one function of the binary.
class Lane {
  let session: Int
  let ring: Int
  /// No two lanes of a VM have the same: a report about one that is gone must not be taken for one about its successor.
  let serial: UInt64
  let kick: SharedDescriptor?
  var call: Notifier
  /// Its stop was reported: the control thread takes it from there.
  var isReported = false
  /// Why its queue did not stop; set before the control thread is notified that the lane was detached.
  var stopProblem: RegisterError?
  /// Which opening of the NIC its queue belongs to: the control thread's.
  var opening = 0
  /// How its driver is notified; nil before a worker has it.
  var notifications: Notifications?

  fileprivate init(session: Int, serial: UInt64, _ ring: RingSetup) {
    self.session = session
    self.serial = serial
    self.ring = ring.index
    kick = ring.kick
    call = Notifier(target: ring.call)
  }

  /// Tells the driver of what was shown to it, if it asked to be told.
  @inline(__always) fileprivate final func signalIfWanted(_ wantsSignal: inout Bool) {
    guard wantsSignal else { return }
    wantsSignal = false
    signal()
  }

  /// Notifies the driver. On the worker's thread: its VM is charged for the time.
  final func signal() {
    if let notifications { notifications.send(call.target, ring: ring) } else { call.signal() }
  }

  private func missing() -> Never { preconditionFailure("a lane without a path") }
  /// Moves what there is, and signals if the guest asked for it. Answers whether anything moved.
  func turn() -> Bool { missing() }
  var stopReason: StopReason? { missing() }
  var base: RingBase { missing() }
  func prepareToSleep() -> Bool { missing() }
  func wake() { missing() }
  /// Begins to stop: posts nothing more. At most one register write, no wait.
  func beginStop(cardIsGone: Bool) { missing() }
  /// One step of stopping: at most one register read, or one batch for the guest.
  ///
  /// - Returns: true when the lane has stopped.
  /// - Throws: the NIC did not stop the queue in time.
  func pollStop() throws(RegisterError) -> Bool { missing() }
  /// Forgets what is posted to a queue that did not stop.
  func forsake() { missing() }
  func replaceMap(_ map: MemoryMap) throws(VirtqueueError) { missing() }
  func setLog(_ log: DirtyLog?, ringLogAddress: GuestAddress?) { missing() }
}

/// Of a receive ring.
class ReceiveLane: Lane {
  /// The path's, for the control thread to look at.
  let counters: ReceiveCounters
  fileprivate init(_ counters: ReceiveCounters, session: Int, serial: UInt64, _ ring: RingSetup) {
    self.counters = counters
    super.init(session: session, serial: serial, ring)
  }
  /// What another lane can be made of. The lane is detached, and is not used any more.
  func takeParts() -> ReceiveParts<IntelReceiveQueue> { preconditionFailure("a lane without a path") }
}

/// Of a transmit ring.
class TransmitLane: Lane {
  let counters: TransmitCounters
  fileprivate init(_ counters: TransmitCounters, session: Int, serial: UInt64, _ ring: RingSetup) {
    self.counters = counters
    super.init(session: session, serial: serial, ring)
  }
  func setDiscards(_ discards: Bool) { preconditionFailure("a lane without a path") }
  func takeParts() -> TransmitParts<IntelTransmitQueue> { preconditionFailure("a lane without a path") }
}

/// The guest's memory is on the bus as long as its window is.
final class LendingReceiveLane: ReceiveLane {
  private let cell: PathCell<ReceivePath<IntelReceiveQueue>>
  init(_ path: consuming ReceivePath<IntelReceiveQueue>, session: Int, serial: UInt64, _ ring: RingSetup) {
    let counters = path.counters
    cell = PathCell(path)
    cell.path.notifiesLate = true
    super.init(counters, session: session, serial: serial, ring)
  }
  override func turn() -> Bool {
    let before = cell.path.progress
    _ = turnPath(&cell.path)
    signalIfWanted(&cell.path.wantsSignal)
    return cell.path.progress != before
  }
  override var stopReason: StopReason? { cell.path.stopReason }
  override var base: RingBase { cell.path.base }
  override func prepareToSleep() -> Bool {
    defer { signalIfWanted(&cell.path.wantsSignal) }
    return cell.path.prepareToSleep()
  }
  override func wake() { cell.path.wake() }
  override func beginStop(cardIsGone: Bool) { cell.path.beginStop(.requested, cardIsGone: cardIsGone) }
  override func pollStop() throws(RegisterError) -> Bool {
    defer { signalIfWanted(&cell.path.wantsSignal) }
    return try cell.path.pollStop()
  }
  override func forsake() { cell.path.forsake() }
  override func takeParts() -> ReceiveParts<IntelReceiveQueue> { cell.take().dismantle() }
  override func replaceMap(_ map: MemoryMap) throws(VirtqueueError) { try cell.path.replaceMap(map) }
  override func setLog(_ log: DirtyLog?, ringLogAddress: GuestAddress?) { cell.path.setLog(log, ringLogAddress: ringLogAddress) }
}

/// Pages are on the bus only while something in them is lent.
final class StrictReceiveLane: ReceiveLane {
  private let cell: PathCell<ReceivePath<ProtectedReceiveQueue<IntelReceiveQueue>>>
  init(_ path: consuming ReceivePath<ProtectedReceiveQueue<IntelReceiveQueue>>, session: Int, serial: UInt64, _ ring: RingSetup) {
    let counters = path.counters
    cell = PathCell(path)
    super.init(counters, session: session, serial: serial, ring)
  }
  override func turn() -> Bool {
    let before = cell.path.progress
    _ = cell.path.turn()
    signalIfWanted(&cell.path.wantsSignal)
    return cell.path.progress != before
  }
  override var stopReason: StopReason? { cell.path.stopReason }
  override var base: RingBase { cell.path.base }
  override func prepareToSleep() -> Bool {
    defer { signalIfWanted(&cell.path.wantsSignal) }
    return cell.path.prepareToSleep()
  }
  override func wake() { cell.path.wake() }
  override func beginStop(cardIsGone: Bool) { cell.path.beginStop(.requested, cardIsGone: cardIsGone) }
  override func pollStop() throws(RegisterError) -> Bool {
    defer { signalIfWanted(&cell.path.wantsSignal) }
    return try cell.path.pollStop()
  }
  override func forsake() { cell.path.forsake() }
  override func takeParts() -> ReceiveParts<IntelReceiveQueue> { cell.take().dismantle().unprotected() }
  override func replaceMap(_ map: MemoryMap) throws(VirtqueueError) { try cell.path.replaceMap(map) }
  override func setLog(_ log: DirtyLog?, ringLogAddress: GuestAddress?) { cell.path.setLog(log, ringLogAddress: ringLogAddress) }
}

final class LendingTransmitLane: TransmitLane {
  private let cell: PathCell<TransmitPath<IntelTransmitQueue>>
  init(_ path: consuming TransmitPath<IntelTransmitQueue>, session: Int, serial: UInt64, _ ring: RingSetup) {
    let counters = path.counters
    cell = PathCell(path)
    super.init(counters, session: session, serial: serial, ring)
  }
  override func turn() -> Bool {
    let before = cell.path.progress
    _ = turnTransmitPath(&cell.path)
    signalIfWanted(&cell.path.wantsSignal)
    return cell.path.progress != before
  }
  override var stopReason: StopReason? { cell.path.stopReason }
  override var base: RingBase { cell.path.base }
  override func prepareToSleep() -> Bool {
    defer { signalIfWanted(&cell.path.wantsSignal) }
    return cell.path.prepareToSleep()
  }
  override func wake() { cell.path.wake() }
  override func beginStop(cardIsGone: Bool) { cell.path.beginStop(.requested, cardIsGone: cardIsGone) }
  override func pollStop() throws(RegisterError) -> Bool {
    defer { signalIfWanted(&cell.path.wantsSignal) }
    return try cell.path.pollStop()
  }
  override func forsake() { cell.path.forsake() }
  override func takeParts() -> TransmitParts<IntelTransmitQueue> { cell.take().dismantle() }
  override func replaceMap(_ map: MemoryMap) throws(VirtqueueError) { try cell.path.replaceMap(map) }
  override func setLog(_ log: DirtyLog?, ringLogAddress: GuestAddress?) { cell.path.setLog(log, ringLogAddress: ringLogAddress) }
  override func setDiscards(_ discards: Bool) { cell.path.discards = discards }
}

final class StrictTransmitLane: TransmitLane {
  private let cell: PathCell<TransmitPath<ProtectedTransmitQueue<IntelTransmitQueue>>>
  init(_ path: consuming TransmitPath<ProtectedTransmitQueue<IntelTransmitQueue>>, session: Int, serial: UInt64, _ ring: RingSetup) {
    let counters = path.counters
    cell = PathCell(path)
    super.init(counters, session: session, serial: serial, ring)
  }
  override func turn() -> Bool {
    let before = cell.path.progress
    _ = cell.path.turn()
    signalIfWanted(&cell.path.wantsSignal)
    return cell.path.progress != before
  }
  override var stopReason: StopReason? { cell.path.stopReason }
  override var base: RingBase { cell.path.base }
  override func prepareToSleep() -> Bool {
    defer { signalIfWanted(&cell.path.wantsSignal) }
    return cell.path.prepareToSleep()
  }
  override func wake() { cell.path.wake() }
  override func beginStop(cardIsGone: Bool) { cell.path.beginStop(.requested, cardIsGone: cardIsGone) }
  override func pollStop() throws(RegisterError) -> Bool {
    defer { signalIfWanted(&cell.path.wantsSignal) }
    return try cell.path.pollStop()
  }
  override func forsake() { cell.path.forsake() }
  override func takeParts() -> TransmitParts<IntelTransmitQueue> { cell.take().dismantle().unprotected() }
  override func replaceMap(_ map: MemoryMap) throws(VirtqueueError) { try cell.path.replaceMap(map) }
  override func setLog(_ log: DirtyLog?, ringLogAddress: GuestAddress?) { cell.path.setLog(log, ringLogAddress: ringLogAddress) }
  override func setDiscards(_ discards: Bool) { cell.path.discards = discards }
}

/// What tells a driver that buffers were used; nothing where the front-end wants to look by itself.
struct Notifier {
  let target: SharedDescriptor?

  /// Raises it. Never blocks: one that is full has been raised and was not looked at yet.
  func signal() { target?.descriptor.raise() }
}
