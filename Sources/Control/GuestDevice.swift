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
/// Control thread only; what belongs to the worker is done there, by `perform`.
final class GuestDevice: BackendDevice {
  /// The VM's number: its pool of the card, its window on the bus.
  let number: Int
  private let vm: Configuration.VM
  private let host: CardHost
  let worker: WorkerThread
  private let records: RingRecords?
  private let log: (LogEvent) -> Void

  private(set) var window: DMAWindow?
  /// The guest's memory while there is no card to map it for.
  private var waitingMap: MemoryMap?
  /// Frames that its rings had settled when the card that there is came.
  private var settledBefore: UInt64 = 0
  private var dirtyLog: DirtyLog?
  /// What each ring that runs was started with, by its number.
  private var setups: [Int: RingSetup] = [:]
  /// Where packed rings that ran are written down, by their number.
  private var kept: [Int: RingRecord] = [:]
  private var receiveLanes: [Int: ReceiveLane] = [:]
  private var transmitLanes: [Int: TransmitLane] = [:]
  /// Lanes that there have been.
  private var laneCount: UInt64 = 0
  /// Told of a ring that runs and cannot go on. Not called within a call of the back-end's.
  var ringFailed: (_ ring: Int, _ reason: String) -> Void = { _, _ in }
  /// Of lanes that are no more.
  private(set) var pastReceive = PathTotals()
  private(set) var pastTransmit = PathTotals()
  private(set) var quiesces = StatusReport.Quiesces()
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
  var mostKeptFiles: Int { host.space.mapsFiles ? 8 : 0 }

  // MARK: Rings

  func start(_ ring: RingSetup) throws(RingRefusal) {
    host.look()
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

  private func startReceive(_ ring: RingSetup, _ window: DMAWindow) throws(RingRefusal) {
    let (host, worker, number, mode) = (host, worker, number, vm.mode)
    laneCount += 1
    let serial = laneCount
    let record = record(for: ring, in: window)
    let log = dirtyLog
    let made = worker.perform { worker -> Result<ReceiveLane, RingRefusal> in
      Result { () throws(RingRefusal) in
        let queue = try host.startReceiveQueue(pool: number, queue: ring.index / 2, worker: worker.number)
        let lane: ReceiveLane
        do throws(AttachmentError) {
          if let pages = window.pages {
            lane = StrictReceiveLane(
              try ReceivePath(
                layout: ring.layout, features: ring.features, base: ring.base, record: record, window: window,
                queue: ProtectedReceiveQueue(queue, pages), space: host.space, allocator: host.allocator, mode: mode),
              session: number, serial: serial, ring)
          } else {
            lane = LendingReceiveLane(
              try ReceivePath(
                layout: ring.layout, features: ring.features, base: ring.base, record: record, window: window, queue: queue,
                space: host.space, allocator: host.allocator, mode: mode), session: number, serial: serial, ring)
          }
        } catch { throw RingRefusal("\(error)") }
        if let log { lane.setLog(log, ringLogAddress: ring.logAddress) }
        worker.add(lane)
        return lane
      }
    }
    receiveLanes[ring.index] = try made.get()
    if let record { kept[ring.index] = record }
  }

  private func startTransmit(_ ring: RingSetup, _ window: DMAWindow) throws(RingRefusal) {
    let (host, worker, number, mode) = (host, worker, number, vm.mode)
    laneCount += 1
    let serial = laneCount
    let record = record(for: ring, in: window)
    let log = dirtyLog
    let made = worker.perform { worker -> Result<TransmitLane, RingRefusal> in
      Result { () throws(RingRefusal) in
        let queue = try host.startTransmitQueue(pool: number, queue: ring.index / 2, worker: worker.number)
        let lane: TransmitLane
        do {
          var view = MemoryView(window.map)
          let virtqueue = try Virtqueue(ring.layout, features: ring.features, base: ring.base, record: record, in: &view)
          if let pages = window.pages {
            let parts = try TransmitParts(queue: ProtectedTransmitQueue(queue, pages), space: host.space, allocator: host.allocator)
            lane = StrictTransmitLane(
              TransmitPath(virtqueue: virtqueue, window: window, parts: parts, copies: mode == .copy), session: number, serial: serial, ring)
          } else {
            let parts = try TransmitParts(queue: queue, space: host.space, allocator: host.allocator)
            lane = LendingTransmitLane(
              TransmitPath(virtqueue: virtqueue, window: window, parts: parts, copies: mode == .copy), session: number, serial: serial, ring)
          }
        } catch { throw RingRefusal("\(error)") }
        lane.setDiscards(!ring.isEnabled)
        if let log { lane.setLog(log, ringLogAddress: ring.logAddress) }
        worker.add(lane)
        return lane
      }
    }
    transmitLanes[ring.index] = try made.get()
    if let record { kept[ring.index] = record }
  }

  func stop(ring: Int) -> RingBase {
    host.look()
    guard let setup = setups.removeValue(forKey: ring) else { return RingBase(split: 0) }
    let base = halt(ring: ring) ?? setup.base
    spreadFrames()
    return base
  }

  /// What was written down stays where it is: the same guest may come again.
  func disconnected() { kept = [:] }
  func forgetPlace(ring: Int) { kept.removeValue(forKey: ring)?.clear() }

  /// Takes a ring's lane from its worker; answers where it came to, or nil if there was none.
  private func halt(ring: Int, cardIsGone: Bool = false) -> RingBase? {
    guard receiveLanes[ring] != nil || transmitLanes[ring] != nil else { return nil }
    let start = MonotonicClock.now()
    defer { quiesces.add(nanoseconds: MonotonicClock.now() - start) }
    if let lane = receiveLanes.removeValue(forKey: ring) {
      let problem = worker.perform { worker -> RegisterError? in
        defer { worker.remove(lane) }
        do throws(RegisterError) { try lane.stop(cardIsGone: cardIsGone) } catch { return error }
        return nil
      }
      if let problem { keepOut(problem, ring: ring) }
      pastReceive.add(lane.counters)
      return lane.base
    }
    if let lane = transmitLanes.removeValue(forKey: ring) {
      let problem = worker.perform { worker -> RegisterError? in
        defer { worker.remove(lane) }
        do throws(RegisterError) { try lane.stop(cardIsGone: cardIsGone) } catch { return error }
        return nil
      }
      if let problem { keepOut(problem, ring: ring) }
      pastTransmit.add(lane.counters)
      return lane.base
    }
    return nil
  }

  /// Whether a lane is the one that a ring has now.
  func isCurrent(lane: UInt64, ring: Int) -> Bool {
    receiveLanes[ring]?.serial == lane || transmitLanes[ring]?.serial == lane
  }

  /// A ring does not run, and may not for long: nobody waits for it.
  func abandon(ring: Int) {
    if ring % 2 == 0 { host.abandon(pool: number, queue: ring / 2) }
  }

  /// A queue of the card does not say that it has stopped: then only the IOMMU keeps it out of the guest's memory.
  private func keepOut(_ error: RegisterError, ring: Int) {
    window?.close()
    log(LogEvent(.error, "the card did not stop a queue; the guest's memory was taken off the bus: \(error)", ["vm": vm.name, "ring": "\(ring)"]))
  }

  func setEnabled(_ isEnabled: Bool, ring: Int) {
    host.look()
    guard let setup = setups[ring], setup.isEnabled != isEnabled else { return }
    if ring % 2 == 1 {
      setups[ring]?.isEnabled = isEnabled
      if let lane = transmitLanes[ring] { worker.perform { _ in lane.setDiscards(!isEnabled) } }
    } else if isEnabled {
      setups[ring]?.isEnabled = true
      if host.isAway { return }
      guard let window, let setup = setups[ring] else { return }
      do throws(RingRefusal) { try startReceive(setup, window) } catch { ringFailed(ring, "\(error)") }
    } else {
      // Nothing may be supplied to it: its queue of the card is stopped, and what was out is taken up again later.
      setups[ring]?.isEnabled = false
      if let base = halt(ring: ring) { setups[ring]?.base = base }
    }
    spreadFrames()
  }

  func setCall(_ call: SharedDescriptor?, ring: Int) {
    guard setups[ring] != nil else { return }
    setups[ring]?.call = call
    let notifier = Notifier(target: call)
    if let lane = receiveLanes[ring] { worker.perform { _ in lane.call = notifier } }
    if let lane = transmitLanes[ring] { worker.perform { _ in lane.call = notifier } }
    notifier.signal()
  }

  /// The card spreads a pool's frames over as many queues as its guest takes from.
  private func spreadFrames() {
    let running = (0..<vm.queuePairs).prefix { receiveLanes[2 * $0] != nil }.count
    host.setUsedQueues(pool: number, count: running)
  }

  // MARK: Memory

  func setMemory(_ map: MemoryMap?) throws(RingRefusal) {
    host.look()
    if host.isAway {
      waitingMap = map
      return
    }
    guard let map else {
      window?.close()
      window = nil
      for ring in 0..<2 * vm.queuePairs { abandon(ring: ring) }
      return
    }
    do throws(IOAddressSpaceError) {
      if let window { try window.replace(with: map) } else { window = try DMAWindow(number: number + 1, map: map, in: host.space, span: host.card.windowSpan, isStrict: host.isStrict) }
    } catch { throw RingRefusal("guest memory cannot be put on the bus: \(error)") }
    placeWorker()
    let (receive, transmit) = (Array(receiveLanes.values), Array(transmitLanes.values))
    if receive.isEmpty && transmit.isEmpty { return }
    let problem = worker.perform { _ -> VirtqueueError? in
      do throws(VirtqueueError) {
        for lane in receive { try lane.replaceMap(map) }
        for lane in transmit { try lane.replaceMap(map) }
      } catch { return error }
      return nil
    }
    // Regions that stay are the same objects, so a ring that runs cannot have moved.
    if let problem { throw RingRefusal("\(problem)") }
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
    worker.perform { _ in
      for (ring, lane) in receive { lane.setLog(log, ringLogAddress: setups[ring]?.logAddress) }
      for (ring, lane) in transmit { lane.setLog(log, ringLogAddress: setups[ring]?.logAddress) }
    }
  }
  var isLogging: Bool { dirtyLog != nil }

  // MARK: A card that goes, and comes again

  /// Rings stop where they are, and nothing of the guest's is on the bus any more. What its front-end asks for meanwhile is
  /// done when there is a card again.
  ///
  /// - Parameter cardIsGone: it is off the bus, and need not be asked to stop.
  func releaseCard(cardIsGone: Bool) {
    for ring in setups.keys.sorted() { if let base = halt(ring: ring, cardIsGone: cardIsGone) { setups[ring]?.base = base } }
    waitingMap = window?.map
    window?.close()
    window = nil
  }

  /// Goes on where `releaseCard` stopped, on another card.
  func takeCard() {
    settledBefore = settledFrames
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
    return totals
  }
  var transmitTotals: PathTotals {
    var totals = pastTransmit
    for lane in transmitLanes.values { totals.add(lane.counters) }
    return totals
  }
  /// Buffers that are with the card now.
  var postedBuffers: Int { receiveLanes.values.reduce(0) { $0 + Int($1.counters.postedBuffers) } }

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
  fileprivate mutating func add(nanoseconds: UInt64) {
    let seconds = Double(nanoseconds) / 1e9
    (count, total_s, longest_s) = (count + 1, total_s + seconds, max(longest_s, seconds))
  }
}
