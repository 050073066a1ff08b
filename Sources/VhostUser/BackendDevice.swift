public import GuestMemory
public import Linux
public import Virtio

/// A descriptor that the protocol side and a worker share; closed when the last of them lets go.
public final class SharedDescriptor: Sendable {
  public let descriptor: OwnedDescriptor
  public init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }
}

/// All that a front-end said of a ring, checked, when the ring is to run.
public struct RingSetup {
  /// 0 receives for the guest, 1 sends for it, 2 receives for its second pair of queues.
  public let index: Int
  public let layout: RingLayout
  /// As acknowledged, without the bits that are the protocol's own.
  public let features: Features
  /// Where to go on, as the front-end gave it. A back-end that follows a dead one checks it against the ring.
  public var base: RingBase
  /// What the driver raises when it has made buffers available; nil: it does not, look by yourself.
  public let kick: SharedDescriptor?
  /// What to raise when buffers were used and the driver asks to be told; nil: it looks by itself.
  public var call: SharedDescriptor?
  public var isEnabled: Bool
  /// Where writes to the used ring (or the descriptor ring) are marked, if the front-end asked for that: the guest
  /// address of the area's first byte. vhost-user, VHOST_VRING_F_LOG.
  public var logAddress: GuestAddress?
  /// Where a packed ring is written down for a successor, in memory that the front-end keeps; nil: it keeps none.
  public let record: RingRecord?

  public init(
    index: Int, layout: RingLayout, features: Features, base: RingBase, kick: SharedDescriptor?, call: SharedDescriptor?,
    isEnabled: Bool, logAddress: GuestAddress?, record: RingRecord? = nil
  ) {
    self.index = index
    self.layout = layout
    self.features = features
    self.base = base
    self.kick = kick
    self.call = call
    self.isEnabled = isEnabled
    self.logAddress = logAddress
    self.record = record
  }
}

/// Why a ring cannot run, in words for the log. The ring stays stopped and its error descriptor is raised.
public struct RingRefusal: Error, Hashable, Sendable, CustomStringConvertible {
  public let description: String
  public init(_ description: String) { self.description = description }
}

/// What stands behind a front-end's connection: rings that run, memory that a card may reach. The protocol side
/// (`Backend`) decides when; the device does it. One object a socket.
///
/// All calls come from the control thread, one at a time. When a call returns, what it asked for is so: in particular
/// after `stop` and `setMemory` nothing of ours, and no card, touches what was taken away.
public protocol BackendDevice: AnyObject {
  /// A message, or the end of a connection, is about to be carried out: all calls until the next one share the time that
  /// the device may take.
  func beginOperation()
  /// Returns, once, why something that was asked of the device since `beginOperation` is not so although the call
  /// returned: a ring that did not stop, a worker that does not answer. Nothing may be acknowledged then.
  func takeFailure() -> RingRefusal?
  /// Runs a ring. The memory that it lies in has been set.
  func start(_ ring: RingSetup) throws(RingRefusal)
  /// Stops a ring that runs; buffers that were not filled are forgotten. Answers where a successor goes on.
  /// When it returns, there is no write to guest memory for this ring, and no notification.
  func stop(ring: Int) -> RingBase
  /// As `stop(ring:)`, for several rings at once.
  func stop(rings: [Int]) -> [RingBase]
  /// The front-end has been told where a stopped ring goes on, or says so itself: what was written down of the ring for a
  /// successor is not to be believed any more.
  func forgetPlace(ring: Int)
  /// A ring that runs is enabled or disabled. A disabled receive ring gets nothing; a disabled transmit ring is
  /// emptied, and what was in it thrown away. vhost-user, "Ring states".
  func setEnabled(_ isEnabled: Bool, ring: Int)
  /// Another descriptor to raise for a ring that runs; it is raised once, for what the old one may have missed.
  func setCall(_ call: SharedDescriptor?, ring: Int)
  /// All of the guest's memory from now on; nil: none. Who calls has stopped every ring if a region of the old map is
  /// not in the new one; if all are, rings may go on running and are to use the new map.
  ///
  /// - Throws: if new memory cannot be reached by the card: what is in the old map only is gone. Or if what goes may still be
  ///   reached: the device keeps it for good, and the front-end must not be told that it is gone. After nil the device has no
  ///   memory, whether it throws or not.
  func setMemory(_ map: MemoryMap?) throws(RingRefusal)
  /// Where writes of ours and of the card are marked from now on, for rings that run too; nil: nowhere.
  func setLog(_ log: DirtyLog?)
  /// Where the used ring's own writes are marked; for a ring that runs.
  func setLogAddress(_ address: GuestAddress?, ring: Int)
  /// NET_SET_MTU; false if the device cannot.
  func setMTU(_ byteCount: Int) -> Bool
  /// The front-end is gone, and all that was its is taken away already: nothing of it may be held any more.
  func disconnected()
  /// SEND_RARP: tell the network that this address is here now. Six bytes.
  func announce(_ address: [UInt8])
}

extension BackendDevice {
  public func beginOperation() {}
  public func takeFailure() -> RingRefusal? { nil }
  public func stop(rings: [Int]) -> [RingBase] { rings.map { stop(ring: $0) } }
}
