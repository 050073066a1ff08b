internal import Bus
internal import Datapath
internal import Intel
internal import Linux

/// The machine's own port of the card: frames that rules send to the host come out of a TAP device, and what the machine
/// sends into the device goes out of the card.
///
/// It belongs to the thread that turns it; its report is anybody's.
final class HostPort {
  private let device: TapDevice
  private var receive: HostReceivePath<IntelReceiveQueue>
  private var transmit: HostTransmitPath<IntelTransmitQueue>
  // Written by the thread that turns it, after every turn that moved something.
  private let given = (frames: SharedWord(), bytes: SharedWord())
  private let taken = (frames: SharedWord(), bytes: SharedWord())
  /// Frames that the machine did not take: the device's link is down, or its queue is full.
  private let refused = SharedWord()
  private let damaged = SharedWord()
  private let misshapen = SharedWord()

  /// Takes queues that run.
  init(
    _ device: consuming TapDevice, receive: consuming IntelReceiveQueue, transmit: consuming IntelTransmitQueue,
    in space: any IOAddressSpace, allocator: IOVAAllocator
  ) throws(DMABufferError) {
    self.receive = try HostReceivePath(queue: receive, in: space, allocator: allocator)
    self.transmit = try HostTransmitPath(queue: transmit, in: space, allocator: allocator)
    self.device = device
  }

  /// Readable when the machine has sent something.
  var descriptor: CInt { device.descriptor.number }

  /// Moves what there is, both ways. Answers whether anything moved.
  func turn() -> Bool {
    let came = unsafe receive.turn { frame in
      guard unsafe device.write(frame) else { return refused.set(refused.value &+ 1) }
      given.frames.set(given.frames.value &+ 1)
      given.bytes.set(given.bytes.value &+ UInt64(frame.count))
    }
    let went = unsafe transmit.turn { room in unsafe device.read(into: room) }
    guard came > 0 || went > 0 else { return false }
    damaged.set(receive.damaged)
    misshapen.set(transmit.misshapen)
    taken.frames.set(transmit.frames)
    taken.bytes.set(transmit.bytes)
    return true
  }

  /// Stops the card's queues.
  func stop() {
    try? receive.stop()
    try? transmit.stop()
  }

  var report: StatusReport.Host {
    let drops = [("refused", refused), ("damaged", damaged), ("misshapen", misshapen)].filter { $0.1.value > 0 }
    return StatusReport.Host(
      tap: device.name, given: .init(frames: given.frames.value, bytes: given.bytes.value),
      taken: .init(frames: taken.frames.value, bytes: taken.bytes.value),
      dropped_by: Dictionary(uniqueKeysWithValues: drops.map { ($0.0, $0.1.value) }))
  }
}
