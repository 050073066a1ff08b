internal import Datapath
internal import Intel
internal import Linux
internal import VhostUser

/// A receive path on the thread that turns it. A class, so that it can be given to that thread and taken back; what
/// changes with every frame is the path's own.
final class ReceiveLane {
  var path: ReceivePath<IxgbeReceiveQueue>
  let session: Int
  let ring: Int
  /// No two lanes of a VM have the same: a report about one that is gone must not be taken for one about its successor.
  let serial: UInt64
  let kick: SharedDescriptor?
  var call: Notifier
  /// Its stop was reported: the control thread takes it from there.
  var isReported = false
  /// The path's, for the control thread to look at.
  let counters: ReceiveCounters

  init(path: consuming ReceivePath<IxgbeReceiveQueue>, session: Int, ring: Int, serial: UInt64, kick: SharedDescriptor?, call: Notifier) {
    counters = path.counters
    self.path = path
    self.session = session
    self.ring = ring
    self.serial = serial
    self.kick = kick
    self.call = call
  }
}

/// A transmit path on the thread that turns it.
final class TransmitLane {
  var path: TransmitPath<IxgbeTransmitQueue>
  let session: Int
  let ring: Int
  /// No two lanes of a VM have the same: a report about one that is gone must not be taken for one about its successor.
  let serial: UInt64
  let kick: SharedDescriptor?
  var call: Notifier
  var isReported = false
  let counters: TransmitCounters

  init(path: consuming TransmitPath<IxgbeTransmitQueue>, session: Int, ring: Int, serial: UInt64, kick: SharedDescriptor?, call: Notifier) {
    counters = path.counters
    self.path = path
    self.session = session
    self.ring = ring
    self.serial = serial
    self.kick = kick
    self.call = call
  }
}

/// What tells a driver that buffers were used; nothing where the front-end wants to look by itself.
struct Notifier {
  let target: SharedDescriptor?

  /// Raises it. Never blocks: one that is full has been raised and was not looked at yet.
  func signal() { target?.descriptor.raise() }
}
