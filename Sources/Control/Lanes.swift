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
/// Each kind of path is a subclass of its own: a generic one over a path that cannot be copied has no metadata.
class Lane {
  let session: Int
  let ring: Int
  /// No two lanes of a VM have the same: a report about one that is gone must not be taken for one about its successor.
  let serial: UInt64
  let kick: SharedDescriptor?
  var call: Notifier
  /// Its stop was reported: the control thread takes it from there.
  var isReported = false

  fileprivate init(session: Int, serial: UInt64, _ ring: RingSetup) {
    self.session = session
    self.serial = serial
    self.ring = ring.index
    kick = ring.kick
    call = Notifier(target: ring.call)
  }

  private func missing() -> Never { preconditionFailure("a lane without a path") }
  /// Moves what there is, and signals if the guest asked for it. Answers whether anything moved.
  func turn() -> Bool { missing() }
  var stopReason: StopReason? { missing() }
  var base: RingBase { missing() }
  func prepareToSleep() -> Bool { missing() }
  func wake() { missing() }
  func stop(cardIsGone: Bool) throws(RegisterError) { missing() }
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
}

/// Of a transmit ring.
class TransmitLane: Lane {
  let counters: TransmitCounters
  fileprivate init(_ counters: TransmitCounters, session: Int, serial: UInt64, _ ring: RingSetup) {
    self.counters = counters
    super.init(session: session, serial: serial, ring)
  }
  func setDiscards(_ discards: Bool) { preconditionFailure("a lane without a path") }
}

/// The guest's memory is on the bus as long as its window is.
final class LendingReceiveLane: ReceiveLane {
  private var path: ReceivePath<IntelReceiveQueue>
  init(_ path: consuming ReceivePath<IntelReceiveQueue>, session: Int, serial: UInt64, _ ring: RingSetup) {
    let counters = path.counters
    self.path = path
    super.init(counters, session: session, serial: serial, ring)
  }
  override func turn() -> Bool {
    let before = path.progress
    _ = turnPath(&path)
    if path.wantsSignal {
      path.wantsSignal = false
      call.signal()
    }
    return path.progress != before
  }
  override var stopReason: StopReason? { path.stopReason }
  override var base: RingBase { path.base }
  override func prepareToSleep() -> Bool { path.prepareToSleep() }
  override func wake() { path.wake() }
  override func stop(cardIsGone: Bool) throws(RegisterError) { try path.stop(.requested, cardIsGone: cardIsGone) }
  override func replaceMap(_ map: MemoryMap) throws(VirtqueueError) { try path.replaceMap(map) }
  override func setLog(_ log: DirtyLog?, ringLogAddress: GuestAddress?) { path.setLog(log, ringLogAddress: ringLogAddress) }
}

/// Pages are on the bus only while something in them is lent.
final class StrictReceiveLane: ReceiveLane {
  private var path: ReceivePath<ProtectedReceiveQueue<IntelReceiveQueue>>
  init(_ path: consuming ReceivePath<ProtectedReceiveQueue<IntelReceiveQueue>>, session: Int, serial: UInt64, _ ring: RingSetup) {
    let counters = path.counters
    self.path = path
    super.init(counters, session: session, serial: serial, ring)
  }
  override func turn() -> Bool {
    let before = path.progress
    _ = path.turn()
    if path.wantsSignal {
      path.wantsSignal = false
      call.signal()
    }
    return path.progress != before
  }
  override var stopReason: StopReason? { path.stopReason }
  override var base: RingBase { path.base }
  override func prepareToSleep() -> Bool { path.prepareToSleep() }
  override func wake() { path.wake() }
  override func stop(cardIsGone: Bool) throws(RegisterError) { try path.stop(.requested, cardIsGone: cardIsGone) }
  override func replaceMap(_ map: MemoryMap) throws(VirtqueueError) { try path.replaceMap(map) }
  override func setLog(_ log: DirtyLog?, ringLogAddress: GuestAddress?) { path.setLog(log, ringLogAddress: ringLogAddress) }
}

final class LendingTransmitLane: TransmitLane {
  private var path: TransmitPath<IntelTransmitQueue>
  init(_ path: consuming TransmitPath<IntelTransmitQueue>, session: Int, serial: UInt64, _ ring: RingSetup) {
    let counters = path.counters
    self.path = path
    super.init(counters, session: session, serial: serial, ring)
  }
  override func turn() -> Bool {
    let before = path.progress
    _ = turnTransmitPath(&path)
    if path.wantsSignal {
      path.wantsSignal = false
      call.signal()
    }
    return path.progress != before
  }
  override var stopReason: StopReason? { path.stopReason }
  override var base: RingBase { path.base }
  override func prepareToSleep() -> Bool { path.prepareToSleep() }
  override func wake() { path.wake() }
  override func stop(cardIsGone: Bool) throws(RegisterError) { try path.stop(.requested, cardIsGone: cardIsGone) }
  override func replaceMap(_ map: MemoryMap) throws(VirtqueueError) { try path.replaceMap(map) }
  override func setLog(_ log: DirtyLog?, ringLogAddress: GuestAddress?) { path.setLog(log, ringLogAddress: ringLogAddress) }
  override func setDiscards(_ discards: Bool) { path.discards = discards }
}

final class StrictTransmitLane: TransmitLane {
  private var path: TransmitPath<ProtectedTransmitQueue<IntelTransmitQueue>>
  init(_ path: consuming TransmitPath<ProtectedTransmitQueue<IntelTransmitQueue>>, session: Int, serial: UInt64, _ ring: RingSetup) {
    let counters = path.counters
    self.path = path
    super.init(counters, session: session, serial: serial, ring)
  }
  override func turn() -> Bool {
    let before = path.progress
    _ = path.turn()
    if path.wantsSignal {
      path.wantsSignal = false
      call.signal()
    }
    return path.progress != before
  }
  override var stopReason: StopReason? { path.stopReason }
  override var base: RingBase { path.base }
  override func prepareToSleep() -> Bool { path.prepareToSleep() }
  override func wake() { path.wake() }
  override func stop(cardIsGone: Bool) throws(RegisterError) { try path.stop(.requested, cardIsGone: cardIsGone) }
  override func replaceMap(_ map: MemoryMap) throws(VirtqueueError) { try path.replaceMap(map) }
  override func setLog(_ log: DirtyLog?, ringLogAddress: GuestAddress?) { path.setLog(log, ringLogAddress: ringLogAddress) }
  override func setDiscards(_ discards: Bool) { path.discards = discards }
}

/// What tells a driver that buffers were used; nothing where the front-end wants to look by itself.
struct Notifier {
  let target: SharedDescriptor?

  /// Raises it. Never blocks: one that is full has been raised and was not looked at yet.
  func signal() { target?.descriptor.raise() }
}
