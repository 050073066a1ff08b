internal import Bus
internal import Datapath
internal import GuestMemory
internal import Intel
internal import Linux
internal import NIC
internal import VhostUser
internal import Virtio

/// What stands behind one VM's connection: its memory on the bus, and a lane for each of its rings that runs.
///
/// Control thread only: lanes are made here, finished, and handed to the worker. Safe to send for that reason: another
/// thread only passes a reference back to the control thread.
final class GuestDevice: BackendDevice, @unchecked Sendable {
  /// The VM's number: its pool of the card, its window on the bus.
  let number: Int
  let vm: Configuration.VM
  let host: CardHost
  let worker: WorkerThread
  private let records: RingRecords?
  let log: (LogEvent) -> Void

  var window: DMAWindow?
  /// The guest's memory while there is no card to map it for, or it may not be mapped.
  var waitingMap: MemoryMap?
  /// Frames that its rings had settled when the card that there is came.
  private var settledBefore: UInt64 = 0
  private var dirtyLog: DirtyLog?
  /// What each ring that runs was started with, by its number.
  var setups: [Int: RingSetup] = [:]
  /// Where packed rings that ran are written down, by their number.
  private var kept: [Int: RingRecord] = [:]
  var receiveLanes: [Int: ReceiveLane] = [:]
  var transmitLanes: [Int: TransmitLane] = [:]
  /// Lanes that the worker has and is to give back.
  var leaving = Leaving()
  let spares = SpareParts()
  var standing = Standing()
  /// When the worker must have done what the present message asks for: the monotonic clock, in nanoseconds.
  var deadline: UInt64 = 0
  var failure: RingRefusal?
  /// Lanes that there have been.
  private var laneCount: UInt64 = 0
  /// Told of a ring that runs and cannot go on. Not called within a call of the back-end's.
  var ringFailed: (_ ring: Int, _ reason: String) -> Void = { _, _ in }
  /// The connection must end. Not called within a call of the back-end's.
  var connectionFailed: (RingRefusal) -> Void = { _ in }
  /// The VM can be served again. Not called within a call of the back-end's.
  var recovered: () -> Void = {}
  /// Has something done by the control thread; from any thread.
  var onControlThread: @Sendable (@escaping @Sendable () -> Void) -> Void = { _ in }
  /// Of lanes that are no more.
  var pastReceive = PathTotals()
  var pastTransmit = PathTotals()
  private(set) var quiesces = StatusReport.Quiesces()
  /// How often the VM was contained, or its connection ended because its worker did not answer.
  var containments: UInt64 = 0
  private(set) var mtu: Int

  init(
    number: Int, vm: Configuration.VM, host: CardHost, worker: WorkerThread, records: RingRecords?,
    log: @escaping (LogEvent) -> Void
  ) {
    self.number = number
    self.vm = vm
    self.host = host
    self.worker = worker
    self.records = records
    self.log = log
    mtu = host.mtu
  }

  /// Files of the guest's memory that are kept for a card which is told of it by them. QEMU has a few regions; what a
  /// front-end with many has more is mapped by address.
  var mostKeptFiles: Int { host.space.mapsFiles ? Self.keptFiles : 0 }
  static let keptFiles = 8

  // MARK: Rings

  func start(_ ring: RingSetup) throws(RingRefusal) {
    host.look()
    if let reason = standing.reason { throw RingRefusal(reason) }
    if host.isAway && waitingMap != nil {
      setups[ring.index] = ring
      return
    }
    guard let window else { throw RingRefusal("there is no guest memory") }
    setups[ring.index] = ring
    do throws(RingRefusal) {
      if ring.index % 2 == 1 { try startTransmit(ring, window) } else if ring.isEnabled { try startReceive(ring, window) }
    } catch {
      setups[ring.index] = nil
      throw error
    }
    spreadFrames()
  }

  /// Where a packed ring is written down, by the front-end's choice or by ours. What was written there of another guest's
  /// memory says nothing.
  private func record(for ring: RingSetup, in window: DMAWindow) -> RingRecord? {
    guard ring.features.contains(.ringPacked) else { return nil }
    let place = ring.layout.descriptorArea.rawValue
    let region = window.map.regions.first { $0.guestStart.rawValue <= place && place - $0.guestStart.rawValue < UInt64($0.byteCount) }
    return .chosen(of: [records?[ring.index], ring.record].compactMap(\.self), for: region?.fileIdentity ?? 0)
  }

  private func makeVirtqueue(_ ring: RingSetup, _ record: RingRecord?, _ window: DMAWindow) throws(RingRefusal) -> Virtqueue {
    var view = MemoryView(window.map)
    do throws(VirtqueueError) {
      return try Virtqueue(ring.layout, features: ring.features, base: ring.base, record: record, in: &view)
    } catch { throw RingRefusal("\(error)") }
  }

  /// Makes a lane and hands it to the worker. All that takes time is done here: the proof, which reads hundreds of
  /// registers, memory, mappings, and the wait for the queue. Pages come from the worker's node.
  private func startReceive(_ ring: RingSetup, _ window: DMAWindow) throws(RingRefusal) {
    let record = record(for: ring, in: window)
    let lane = try NUMA.preferring(node: worker.node) { () throws(RingRefusal) in try makeReceiveLane(ring, record, window) }
    receiveLanes[ring.index] = lane
    try attach { $0.add(lane) }
    if let record { kept[ring.index] = record }
  }

  private func makeReceiveLane(_ ring: RingSetup, _ record: RingRecord?, _ window: DMAWindow) throws(RingRefusal) -> ReceiveLane {
    laneCount += 1
    return try watching(ring.kick) { () throws(RingRefusal) in
      let virtqueue = try makeVirtqueue(ring, record, window)
      var parts = try takeReceiveParts(ring)
      parts.useFreshCounters()
      do throws(RingRefusal) { try host.start(&parts.queue, pool: number, worker: worker.number) } catch {
        // Its ring keeps its address on the bus: the NIC has seen it.
        spares.put(parts, ring: ring.index)
        throw error
      }
      let lane: ReceiveLane =
        if let pages = window.pages {
          StrictReceiveLane(
            ReceivePath(virtqueue: virtqueue, window: window, parts: parts.protected(by: pages), mode: vm.mode), session: number, serial: laneCount, ring)
        } else {
          LendingReceiveLane(ReceivePath(virtqueue: virtqueue, window: window, parts: parts, mode: vm.mode), session: number, serial: laneCount, ring)
        }
      finish(lane, ring)
      return lane
    }
  }

  private func takeReceiveParts(_ ring: RingSetup) throws(RingRefusal) -> ReceiveParts<IntelReceiveQueue> {
    if let spare = spares.takeReceive(ring.index) { return spare }
    let queue = try host.makeReceiveQueue(pool: number, queue: ring.index / 2)
    do throws(DMABufferError) { return try ReceiveParts(queue: queue, space: host.space, allocator: host.allocator) } catch {
      throw RingRefusal("\(error)")
    }
  }

  private func startTransmit(_ ring: RingSetup, _ window: DMAWindow) throws(RingRefusal) {
    let record = record(for: ring, in: window)
    let lane = try NUMA.preferring(node: worker.node) { () throws(RingRefusal) in try makeTransmitLane(ring, record, window) }
    transmitLanes[ring.index] = lane
    try attach { $0.add(lane) }
    if let record { kept[ring.index] = record }
  }

  private func makeTransmitLane(_ ring: RingSetup, _ record: RingRecord?, _ window: DMAWindow) throws(RingRefusal) -> TransmitLane {
    laneCount += 1
    return try watching(ring.kick) { () throws(RingRefusal) in
      let virtqueue = try makeVirtqueue(ring, record, window)
      var parts = try takeTransmitParts(ring)
      parts.useFreshCounters()
      do throws(RingRefusal) { try host.start(&parts.queue, pool: number, worker: worker.number) } catch {
        spares.put(parts, ring: ring.index)
        throw error
      }
      let (copies, check) = (vm.mode == .copy, host.sourceCheck(ofVM: number))
      let lane: TransmitLane =
        if let pages = window.pages {
          StrictTransmitLane(
            TransmitPath(virtqueue: virtqueue, window: window, parts: parts.protected(by: pages), copies: copies, check: check), session: number, serial: laneCount, ring)
        } else {
          LendingTransmitLane(TransmitPath(virtqueue: virtqueue, window: window, parts: parts, copies: copies, check: check), session: number, serial: laneCount, ring)
        }
      lane.setDiscards(!ring.isEnabled)
      finish(lane, ring)
      return lane
    }
  }

  private func takeTransmitParts(_ ring: RingSetup) throws(RingRefusal) -> TransmitParts<IntelTransmitQueue> {
    if let spare = spares.takeTransmit(ring.index) { return spare }
    let queue = try host.makeTransmitQueue(pool: number, queue: ring.index / 2)
    do throws(DMABufferError) { return try TransmitParts(queue: queue, space: host.space, allocator: host.allocator) } catch {
      throw RingRefusal("\(error)")
    }
  }

  private func finish(_ lane: Lane, _ ring: RingSetup) {
    lane.opening = host.openings
    if let dirtyLog { lane.setLog(dirtyLog, ringLogAddress: ring.logAddress) }
  }

  /// Watches a ring's kick for the worker, if `body` makes a lane for it.
  private func watching<Made: Lane>(_ kick: SharedDescriptor?, _ body: () throws(RingRefusal) -> Made) throws(RingRefusal) -> Made {
    do throws(SystemError) { try worker.watch(kick) } catch {
      throw RingRefusal("its kick descriptor cannot be watched, and kicks would be lost: \(error)")
    }
    do throws(RingRefusal) { return try body() } catch {
      worker.unwatch(kick)
      throw error
    }
  }

  /// Hands a lane over. The lane is among ours already: if the worker does not answer, it is detached with the others.
  private func attach(_ body: @escaping (WorkerThread) -> Void) throws(RingRefusal) {
    if perform(body) == nil { throw RingRefusal(standing.reason ?? "its worker does not answer") }
  }

  func stop(ring: Int) -> RingBase { stop(rings: [ring])[0] }

  func stop(rings: [Int]) -> [RingBase] {
    host.look()
    let running = rings.filter { setups[$0] != nil }
    let bases = halt(running)
    return rings.map { ring in
      guard let setup = setups.removeValue(forKey: ring) else { return RingBase(split: 0) }
      return bases[ring] ?? setup.base
    }
  }

  /// What was written down stays where it is: the same guest may come again. What its rings were made of does not.
  func disconnected() {
    kept = [:]
    spares.removeAll()
  }
  func forgetPlace(ring: Int) { kept.removeValue(forKey: ring)?.clear() }

  /// Detaches rings' lanes from the worker, all at once, and waits until they have stopped.
  ///
  /// - Returns: where each that had a lane goes on. Nothing for those whose worker does not answer: `failure`.
  @discardableResult func halt(_ rings: [Int], cardIsGone: Bool = false) -> [Int: RingBase] {
    let receive = rings.compactMap { receiveLanes[$0] }
    let transmit = rings.compactMap { transmitLanes[$0] }
    if receive.isEmpty && transmit.isEmpty { return [:] }
    let start = MonotonicClock.now()
    defer { quiesces.add(nanoseconds: MonotonicClock.now() - start, rings: receive.count + transmit.count) }
    // Before their queues stop: the NIC drops what it spreads to one that does not run.
    if !receive.isEmpty { spreadFrames(without: rings) }
    for lane in receive { receiveLanes[lane.ring] = nil }
    for lane in transmit { transmitLanes[lane.ring] = nil }
    leaving.receive += receive
    leaving.transmit += transmit
    let receipt = worker.detach(receive, transmit, cardIsGone: cardIsGone)
    guard let receipt, worker.wait(for: receipt, until: max(deadline, start + WorkerThread.leastWait)) else {
      giveUp(on: receipt)
      return [:]
    }
    return takeBack()
  }

  /// Whether a lane is the one that a ring has now.
  func isCurrent(lane: UInt64, ring: Int) -> Bool {
    receiveLanes[ring]?.serial == lane || transmitLanes[ring]?.serial == lane
  }

  /// A ring does not run, and may not for long: nobody waits for it.
  func abandon(ring: Int) {
    if ring % 2 == 0 { host.abandon(pool: number, queue: ring / 2) }
  }

  func setEnabled(_ isEnabled: Bool, ring: Int) {
    host.look()
    guard let setup = setups[ring], setup.isEnabled != isEnabled else { return }
    setups[ring]?.isEnabled = isEnabled
    if ring % 2 == 1 {
      if let lane = transmitLanes[ring] { perform { _ in lane.setDiscards(!isEnabled) } }
    } else if isEnabled {
      if host.isAway { return }
      guard standing.reason == nil, let window, let setup = setups[ring] else { return }
      do throws(RingRefusal) { try startReceive(setup, window) } catch { ringFailed(ring, "\(error)") }
      spreadFrames()
    } else if let base = halt([ring])[ring] {
      // Nothing may be supplied to it: its queue of the card is stopped, and what was out is taken up again later.
      setups[ring]?.base = base
    }
  }

  func setCall(_ call: SharedDescriptor?, ring: Int) {
    guard setups[ring] != nil else { return }
    setups[ring]?.call = call
    let lane: Lane? = receiveLanes[ring] ?? transmitLanes[ring]
    // On the worker, as any other: what it costs is its VM's.
    perform { [number] worker in
      lane?.call = Notifier(target: call)
      worker.notify(vm: number, ring: ring, call)
    }
  }

  /// The card spreads a pool's frames over as many queues as its guest takes from.
  private func spreadFrames(without stopping: [Int] = []) {
    let running = (0..<vm.queuePairs).prefix { receiveLanes[2 * $0] != nil && !stopping.contains(2 * $0) }.count
    do throws(IntelError) { try host.setUsedQueues(pool: number, count: running) } catch {
      log(LogEvent(.error, "the NIC spreads frames to queues that do not run, and drops them", ["vm": vm.name, "queues": "\(running)", "reason": "\(error)"]))
    }
  }

  // MARK: Memory

  func setMemory(_ map: MemoryMap?) throws(RingRefusal) {
    host.look()
    guard let map else { return try releaseMemory() }
    if let reason = standing.reason { throw RingRefusal(reason) }
    if host.isAway {
      waitingMap = map
      return
    }
    if let window { try change(window, to: map) } else {
      do throws(IOAddressSpaceError) {
        window = try DMAWindow(number: number + 1, map: map, in: host.space, span: host.card.windowSpan, isStrict: host.isStrict)
      } catch { throw Self.notMapped(error) }
    }
    placeWorker()
  }

  private static func notMapped(_ error: IOAddressSpaceError) -> RingRefusal { RingRefusal("guest memory cannot be put on the bus: \(error)") }
  private static func stillMapped(_ error: IOAddressSpaceError) -> RingRefusal {
    RingRefusal("guest memory cannot be taken off the bus: \(error)")
  }

  /// Goes over to another map: what comes is mapped before the worker knows of it, what goes is unmapped after the worker has dropped it.
  private func change(_ window: DMAWindow, to map: MemoryMap) throws(RingRefusal) {
    let change: DMAWindow.Change
    do throws(IOAddressSpaceError) { change = try window.beginChange(to: map) } catch { throw Self.notMapped(error) }
    let (receive, transmit) = (Array(receiveLanes.values), Array(transmitLanes.values))
    let adopt = { () -> Result<Void, VirtqueueError> in
      change.adopt()
      return Result { () throws(VirtqueueError) in
        for lane in receive { try lane.replaceMap(map) }
        for lane in transmit { try lane.replaceMap(map) }
      }
    }
    // Lent pages, and lanes, are the worker's.
    let needsWorker = window.pages != nil || !receive.isEmpty || !transmit.isEmpty
    let outcome = needsWorker ? perform { _ in adopt() } : adopt()
    // What the worker may still adopt stays mapped until it has given its lanes back.
    guard let outcome else { throw RingRefusal(standing.reason ?? "its worker does not answer") }
    do throws(IOAddressSpaceError) { try window.finish(change) } catch { throw Self.stillMapped(error) }
    // Regions that stay are the same objects, so a ring that runs cannot have moved.
    do throws(VirtqueueError) { try outcome.get() } catch { throw RingRefusal("\(error)") }
  }

  private func releaseMemory() throws(RingRefusal) {
    waitingMap = nil
    // What a worker may still use goes when the worker has given its lanes back.
    var problem: IOAddressSpaceError?
    if standing.overdue == nil { problem = closeWindow() }
    standing.keepsWindow = false
    if !host.isAway { for ring in 0..<2 * vm.queuePairs { abandon(ring: ring) } }
    if let problem { throw Self.stillMapped(problem) }
  }

  /// Takes all of the guest's memory off the bus: what is lent by the worker, to whom that belongs, and the rest here. If the
  /// worker does not answer, the window stays until it does.
  ///
  /// - Returns: why something could not be unmapped; that memory stays allocated, and the loss of the card follows (`UnmapFailures`).
  @discardableResult func closeWindow() -> IOAddressSpaceError? {
    guard let window else { return nil }
    if let pages = window.pages, perform({ _ in pages.close() }) == nil { return nil }
    self.window = nil
    do throws(IOAddressSpaceError) { try window.close() } catch { return error }
    return nil
  }

  /// Brings a worker that nobody has pinned to the memory of the first guest that it serves. One that is elsewhere stays
  /// there, and that is said.
  private func placeWorker() {
    guard NUMA.nodeCount > 1, let memory = memoryNode else { return }
    if worker.node == nil { worker.move(toNode: memory) }
    guard let near = worker.node, memory != near else { return }
    log(
      LogEvent(
        .warning, "the guest's memory lies on another node than its worker: every frame crosses between them",
        [
          "vm": vm.name, "memory_node": "\(memory)", "worker": "\(worker.number)", "worker_node": "\(near)",
          "distance": "\(NUMA.distance(near, memory))",
        ]))
  }

  func setLog(_ log: DirtyLog?) {
    dirtyLog = log
    relog()
  }
  func setLogAddress(_ address: GuestAddress?, ring: Int) {
    guard setups[ring] != nil else { return }
    setups[ring]?.logAddress = address
    relog()
  }
  private func relog() {
    let (receive, transmit, setups, log) = (receiveLanes, transmitLanes, setups, dirtyLog)
    if receive.isEmpty && transmit.isEmpty { return }
    perform { _ in
      for (ring, lane) in receive { lane.setLog(log, ringLogAddress: setups[ring]?.logAddress) }
      for (ring, lane) in transmit { lane.setLog(log, ringLogAddress: setups[ring]?.logAddress) }
    }
  }
  var isLogging: Bool { dirtyLog != nil }

  // MARK: Rules that change

  /// Stops the transmit rings that run, where they are.
  ///
  /// - Returns: which.
  func suspendTransmit() -> [Int] {
    beginOperation()
    let rings = transmitLanes.keys.sorted()
    for (ring, base) in halt(rings) { setups[ring]?.base = base }
    return rings
  }
  /// Goes on where `suspendTransmit` stopped, with what the processor now compares.
  func resumeTransmit(_ rings: [Int]) {
    for ring in rings {
      guard standing.reason == nil, let setup = setups[ring], let window else { continue }
      do throws(RingRefusal) { try startTransmit(setup, window) } catch { ringFailed(ring, "\(error)") }
    }
  }

  // MARK: A card that goes, and comes again

  /// Rings stop where they are, and nothing of the guest's is on the bus any more. What its front-end asks for meanwhile is
  /// done when there is a card again.
  ///
  /// - Parameter cardIsGone: it is off the bus, and need not be asked to stop.
  func releaseCard(cardIsGone: Bool) {
    for (ring, base) in halt(setups.keys.sorted(), cardIsGone: cardIsGone) { setups[ring]?.base = base }
    spares.removeAll()
    // A worker that does not answer may still use it: it goes when the worker has given its lanes back.
    if standing.overdue != nil { return }
    if let window { waitingMap = window.map }
    closeWindow()
  }

  /// Goes on where `releaseCard` stopped, on another card. What was contained is not any more: the card was reset.
  func takeCard() {
    beginOperation()
    settledBefore = settledFrames
    endContainment()
    if standing.overdue != nil { return }
    guard let map = waitingMap else { return }
    waitingMap = nil
    do throws(RingRefusal) { try setMemory(map) } catch {
      for ring in setups.keys.sorted() { ringFailed(ring, "\(error)") }
      return
    }
    for setup in setups.keys.sorted().compactMap({ setups[$0] }) {
      do throws(RingRefusal) { try start(setup) } catch { ringFailed(setup.index, "\(error)") }
    }
  }

  private var settledFrames: UInt64 { receiveTotals.delivered + receiveTotals.dropped }
  /// Frames of the card that there is that the paths have delivered or dropped.
  var settledOfCard: UInt64 { settledFrames - settledBefore }

  // MARK: The rest

  func setMTU(_ byteCount: Int) -> Bool {
    // The card's limit is the port's; a smaller one of the guest's own costs nothing.
    guard byteCount <= host.mtu else { return false }
    mtu = byteCount
    return true
  }

  func announce(_ address: [UInt8]) { host.announce(address) }

  // MARK: What is counted

  /// Of all receive rings since the start.
  var receiveTotals: PathTotals {
    var totals = pastReceive
    for lane in receiveLanes.values { totals.add(lane.counters) }
    for lane in leaving.receive { totals.add(lane.counters) }
    return totals
  }
  var transmitTotals: PathTotals {
    var totals = pastTransmit
    for lane in transmitLanes.values { totals.add(lane.counters) }
    for lane in leaving.transmit { totals.add(lane.counters) }
    return totals
  }
  /// What receive rings have counted, to be summed up by any thread.
  struct ReceiveCounts: @unchecked Sendable {
    fileprivate let past: PathTotals
    fileprivate let before: UInt64
    fileprivate let counters: [ReceiveCounters]

    /// Frames of the card that there is that the paths have delivered or dropped.
    var settledOfCard: UInt64 {
      var totals = past
      for counters in counters { totals.add(counters) }
      return totals.delivered + totals.dropped - before
    }
    /// Buffers that are with the card now.
    var postedBuffers: UInt64 { counters.reduce(0) { $0 + $1.postedBuffers } }
  }
  var receiveCounts: ReceiveCounts { ReceiveCounts(past: pastReceive, before: settledBefore, counters: (receiveLanes.values + leaving.receive).map(\.counters)) }

  func activity(ring: Int) -> (outstanding: Int, signals: UInt64, suppressedSignals: UInt64, doorbells: UInt64) {
    if let counters = receiveLanes[ring]?.counters {
      return (Int(counters.postedBuffers), counters.signals, counters.suppressedSignals, counters.doorbells)
    }
    if let counters = transmitLanes[ring]?.counters {
      return (Int(counters.postedFrames), counters.signals, counters.suppressedSignals, counters.doorbells)
    }
    return (0, 0, 0, 0)
  }

  /// The memory node of the guest's first page; nil where nobody can tell.
  var memoryNode: Int? {
    guard let region = window?.map.regions.first else { return nil }
    return unsafe NUMA.node(ofPageAt: region.base)
  }
}

extension StatusReport.Quiesces {
  fileprivate mutating func add(nanoseconds: UInt64, rings: Int) {
    let seconds = Double(nanoseconds) / 1e9
    (count, total_s, longest_s) = (count + UInt64(rings), total_s + seconds, max(longest_s, seconds))
  }
}
