internal import Datapath
internal import Intel
internal import Linux
internal import VhostUser

/// A path on the thread that turns it. A class, so that it can be given to that thread and taken back; what changes with
/// every frame is the path's own.
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
}

final class ReceiveLane: Lane {
  var path: ReceivePath<IntelReceiveQueue>
  /// The path's, for the control thread to look at.
  let counters: ReceiveCounters

  init(path: consuming ReceivePath<IntelReceiveQueue>, session: Int, serial: UInt64, _ ring: RingSetup) {
    counters = path.counters
    self.path = path
    super.init(session: session, serial: serial, ring)
  }
}

final class TransmitLane: Lane {
  var path: TransmitPath<IntelTransmitQueue>
  let counters: TransmitCounters

  init(path: consuming TransmitPath<IntelTransmitQueue>, session: Int, serial: UInt64, _ ring: RingSetup) {
    counters = path.counters
    self.path = path
    super.init(session: session, serial: serial, ring)
  }
}

/// What tells a driver that buffers were used; nothing where the front-end wants to look by itself.
struct Notifier {
  let target: SharedDescriptor?

  /// Raises it. Never blocks: one that is full has been raised and was not looked at yet.
  func signal() { target?.descriptor.raise() }
}
