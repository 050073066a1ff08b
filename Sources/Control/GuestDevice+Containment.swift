internal import Bus
internal import Datapath
internal import Intel
internal import Linux
internal import VhostUser
internal import Virtio

// What happens to a VM that cannot be taken off the NIC, or off its worker, in time. Two cases:
//
// - A queue of the NIC does not stop. The VM is *contained*: all its lanes are detached, its memory is unmapped, and no ring
//   starts and nothing is mapped until the NIC was reset. What the queue was given of ours (its ring, host buffers) stays
//   allocated until then, so that its addresses on the bus are not given to anything else.
// - The worker does not answer. The VM's connection ends, and its memory stays mapped, and in this process, until the worker
//   has given all lanes back: it may use them until then.
//
// No front-end is served until either is over. Other VMs go on.

extension GuestDevice {
  /// Why the VM is not served.
  struct Standing {
    /// A queue does not stop.
    var contained: String?
    /// The worker does not answer.
    var overdue: String?
    /// Its memory was not given back by the front-end while the worker did not answer.
    var keepsWindow = false

    var reason: String? { contained ?? overdue }
  }

  /// Lanes that the worker is to give back, and the commands that detach them.
  struct Leaving {
    var receive: [ReceiveLane] = []
    var transmit: [TransmitLane] = []
    var receipts: [Receipt] = []
  }

  func beginOperation() {
    // A worker that owes others an answer is not waited for as long again.
    deadline = MonotonicClock.now() + (worker.isOverdue ? WorkerThread.overdueLimit : WorkerThread.commandLimit)
    failure = nil
  }
  /// As `beginOperation`, for what is done for several VMs in a row.
  func beginOperation(until deadline: UInt64) { (self.deadline, failure) = (deadline, nil) }
  func takeFailure() -> RingRefusal? { failure.take() }

  // MARK: A worker that does not answer

  /// Has `body` executed by the worker, and waits for it as long as the present message may take.
  ///
  /// - Returns: nil if the worker did not answer: then the VM's connection ends.
  @discardableResult func perform<Result>(_ body: @escaping (WorkerThread) -> Result) -> Result? {
    guard standing.overdue == nil else { return nil }
    let (worker, call) = (worker, Call(body))
    let receipt = worker.send { call.run($0) }
    guard let receipt, worker.wait(for: receipt, until: max(deadline, MonotonicClock.now() + WorkerThread.leastWait)) else {
      giveUp(on: receipt)
      return nil
    }
    return call.result
  }

  /// Safe: the two threads never use it at the same time.
  private final class Call<Result>: @unchecked Sendable {
    private let body: (WorkerThread) -> Result
    private(set) var result: Result?
    init(_ body: @escaping (WorkerThread) -> Result) { self.body = body }
    func run(_ worker: WorkerThread) { result = body(worker) }
  }

  /// The worker has not executed a command in time: has it detach all lanes, whenever it comes to that, and ends the
  /// connection.
  func giveUp(on receipt: Receipt?) {
    let reason = "worker \(worker.number) does not answer: the VM's memory stays mapped until it has detached the VM's rings"
    (standing.overdue, standing.keepsWindow) = (reason, true)
    containments += 1
    failure = RingRefusal(reason)
    log(LogEvent(.error, "a worker does not answer; the VM's connection ends", ["vm": vm.name, "worker": "\(worker.number)", "limit_ms": "\(WorkerThread.commandLimit / 1_000_000)"]))
    let (receive, transmit) = (Array(receiveLanes.values), Array(transmitLanes.values))
    (receiveLanes, transmitLanes) = ([:], [:])
    leaving.receive += receive
    leaving.transmit += transmit
    guard let last = worker.detach(receive, transmit, isLast: true) else { preconditionFailure("a place is reserved for each VM") }
    leaving.receipts = [receipt, last].compactMap(\.self)
    for receipt in leaving.receipts {
      receipt.whenFinished { [self] in onControlThread { [self] in workerAnswered() } }
    }
    connectionFailed(RingRefusal(reason))
  }

  /// All that was asked of the worker is done, if this is the last of it.
  private func workerAnswered() {
    guard standing.overdue != nil, leaving.receipts.allSatisfy(\.isFinished) else { return }
    leaving.receipts = []
    beginOperation()
    let bases = takeBack()
    for (ring, base) in bases { setups[ring]?.base = base }
    let keepsMap = standing.keepsWindow
    (standing.overdue, standing.keepsWindow) = (nil, false)
    if let window, keepsMap { waitingMap = window.map }
    closeWindow()
    // A connection that is still there ends before another one comes: see `connectionFailed`.
    log(LogEvent(.notice, "the worker answers again, and has detached the VM's rings", ["vm": vm.name, "worker": "\(worker.number)"]))
    failure = nil
    if standing.reason == nil { recovered() }
  }

  // MARK: Lanes that come back

  /// Takes the lanes that the worker has detached: their counts, and what they were made of.
  ///
  /// - Returns: where their rings go on.
  func takeBack() -> [Int: RingBase] {
    let (receive, transmit) = (leaving.receive, leaving.transmit)
    (leaving.receive, leaving.transmit) = ([], [])
    var bases: [Int: RingBase] = [:]
    var stuck: (ring: Int, problem: RegisterError)?
    for lane in receive {
      bases[lane.ring] = takeBack(lane, &stuck)
      pastReceive.add(lane.counters)
      spares.keep(lane, isOfCard: lane.opening == host.openings)
    }
    for lane in transmit {
      bases[lane.ring] = takeBack(lane, &stuck)
      pastTransmit.add(lane.counters)
      spares.keep(lane, isOfCard: lane.opening == host.openings)
    }
    if let stuck { contain(stuck.problem, ring: stuck.ring) }
    return bases
  }

  private func takeBack(_ lane: Lane, _ stuck: inout (ring: Int, problem: RegisterError)?) -> RingBase {
    worker.unwatch(lane.kick)
    if let problem = lane.stopProblem, lane.opening == host.openings, stuck == nil { stuck = (lane.ring, problem) }
    return lane.base
  }

  // MARK: A queue that does not stop

  /// Contains the VM: only the IOMMU keeps the NIC out of its memory now.
  private func contain(_ error: RegisterError, ring: Int) {
    guard standing.contained == nil else { return }
    let reason = "ring \(ring): the NIC does not stop its queue (\(error)): the VM is contained until the NIC is reset"
    standing.contained = reason
    containments += 1
    for (ring, base) in halt(setups.keys.sorted()) { setups[ring]?.base = base }
    if standing.overdue == nil {
      if let window { waitingMap = window.map }
      closeWindow()
    }
    failure = RingRefusal(reason)
    log(
      LogEvent(
        .error, "queue did not quiesce; guest memory unmapped from the IOMMU, VM contained until the NIC is reset",
        ["vm": vm.name, "ring": "\(ring)", "reason": "\(error)"]))
    for ring in setups.keys.sorted() { ringFailed(ring, reason) }
  }

  /// The NIC was reset: no queue of before runs any more.
  func endContainment() {
    spares.releaseStuck()
    guard standing.contained != nil else { return }
    standing.contained = nil
    log(LogEvent(.notice, "the NIC was reset; the VM is served again", ["vm": vm.name]))
    if standing.reason == nil { recovered() }
  }
}

/// What detached lanes were made of, for the next lanes of the same rings: a front-end that stops and starts its rings has
/// nothing allocated, pinned or mapped each time. And what queues have that did not stop.
final class SpareParts {
  private final class Receive {
    var parts: ReceiveParts<IntelReceiveQueue>?
    init(_ parts: consuming ReceiveParts<IntelReceiveQueue>) { self.parts = consume parts }
  }
  private final class Transmit {
    var parts: TransmitParts<IntelTransmitQueue>?
    init(_ parts: consuming TransmitParts<IntelTransmitQueue>) { self.parts = consume parts }
  }
  /// By ring.
  private var receive: [Int: Receive] = [:]
  private var transmit: [Int: Transmit] = [:]
  /// Of queues that run still, and cannot be stopped.
  private var stuckReceive: [Receive] = []
  private var stuckTransmit: [Transmit] = []

  func takeReceive(_ ring: Int) -> ReceiveParts<IntelReceiveQueue>? { receive.removeValue(forKey: ring)?.parts.take() }
  func takeTransmit(_ ring: Int) -> TransmitParts<IntelTransmitQueue>? { transmit.removeValue(forKey: ring)?.parts.take() }
  func put(_ parts: consuming ReceiveParts<IntelReceiveQueue>, ring: Int) { receive[ring] = Receive(parts) }
  func put(_ parts: consuming TransmitParts<IntelTransmitQueue>, ring: Int) { transmit[ring] = Transmit(parts) }

  /// - Parameter isOfCard: the lane's queue belongs to the card that there is.
  func keep(_ lane: ReceiveLane, isOfCard: Bool) {
    let parts = Receive(lane.takeParts())
    if !isOfCard { return }
    if lane.stopProblem != nil { stuckReceive.append(parts) } else { receive[lane.ring] = parts }
  }
  func keep(_ lane: TransmitLane, isOfCard: Bool) {
    let parts = Transmit(lane.takeParts())
    if !isOfCard { return }
    if lane.stopProblem != nil { stuckTransmit.append(parts) } else { transmit[lane.ring] = parts }
  }

  func removeAll() { (receive, transmit) = ([:], [:]) }
  /// The card was reset: nothing of it runs.
  func releaseStuck() {
    for stuck in stuckReceive { stuck.parts?.queue.abandon() }
    for stuck in stuckTransmit { stuck.parts?.queue.abandon() }
    (stuckReceive, stuckTransmit) = ([], [])
  }
}
