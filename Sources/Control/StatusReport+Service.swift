internal import Datapath
internal import FlowSteering
internal import Glibc
internal import Intel
internal import Linux
internal import Simulation
internal import VhostUser
internal import Virtio

// The report, from what the parts of a running back-end say. On the control thread.
extension StatusReport {
  init(
    of host: CardHost, workers: [WorkerThread], sessions: [Session], port: HostPort?, version: String, uptime: Double, wire: Configuration.Wire?
  ) {
    self.version = version
    pid = Int(getpid())
    uptime_s = uptime
    nic = NIC(host, wire)
    self.workers = workers.map(Worker.init)
    self.host = port?.report
    vm_order = sessions.map(\.vm.name)
    vms = Dictionary(uniqueKeysWithValues: sessions.map { ($0.vm.name, VM($0, host)) })
    laws = host.card.laws
    if let port, let law = Law(of: port, host, workers[0]) { laws.append(law) }
    laws += sessions.compactMap { Law(of: $0, host) }
  }
}

extension StatusReport.Law {
  /// - Parameter inFlight: how much less the right side may be, for frames that are on their way.
  init(name: String, left: UInt64, right: UInt64, inFlight: UInt64 = 0) {
    self.init(name: name, left: left, right: right, in_flight: inFlight, holds: left == right &+ inFlight)
  }

  /// What the card has put into the host's queue has been given to the machine or dropped. Nil if the card does not say, or
  /// the worker does not answer.
  fileprivate init?(of port: HostPort, _ host: CardHost, _ worker: WorkerThread) {
    // The worker may come to it later than it is waited for: nothing of the control thread's is read there.
    let (card, pool) = (host.card, host.hostPool)
    let figures = worker.read {
      card.betweenSteps {
        let report = port.report
        let drops = ["refused", "damaged"].reduce(UInt64(0)) { $0 + (report.dropped_by[$1] ?? 0) }
        return (report.given.frames + drops, card.arrived(in: pool, queues: 1)?.frames)
      }
    }
    guard let (settled, arrived) = figures, let arrived else { return nil }
    self.init(
      name: "put into the host's queue = given + dropped + in flight", left: arrived, right: settled, in_flight: arrived &- settled,
      holds: arrived >= settled)
  }

  /// What the card has put into a VM's queues has been delivered or dropped by its paths, but for what is out. Nil if the
  /// card does not say, or the worker does not answer.
  fileprivate init?(of session: Session, _ host: CardHost) {
    let (device, number, queues) = (session.device, session.number, session.vm.queuePairs)
    let (card, counts) = (host.card, device.receiveCounts)
    func read() -> (settled: UInt64, arrived: UInt64?, posted: UInt64) {
      card.betweenSteps { (counts.settledOfCard, card.arrived(in: number, queues: queues)?.frames, counts.postedBuffers) }
    }
    // Between two polls of its worker and two steps of the model: under traffic, what is read one after the other is not of
    // one moment, and would not add up. The worker may come to it later than it is waited for: `read` uses a copy of what is
    // the control thread's. A real NIC's registers are not for a worker.
    guard let (settled, arrived, posted) = host.model == nil ? read() : device.worker.read(read), let arrived else { return nil }
    // A real card may count for a queue what it then had no buffer for.
    let isPossible = arrived >= settled && (arrived - settled <= posted || host.model == nil)
    self.init(
      name: "put into \(session.vm.name)'s queues = delivered + dropped + in flight", left: arrived, right: settled,
      in_flight: arrived &- settled, holds: isPossible)
  }
}

extension StatusReport.NIC {
  fileprivate init(_ host: CardHost, _ wire: Configuration.Wire?) {
    let (link, card) = (host.link, host.card)
    self.init(
      kind: card.kind, link_up: link?.isUp ?? false, megabits: link?.megabits ?? 0, mtu: host.mtu, iommu_faults: card.faultCount.map { Int($0) },
      iommu_maps: card.mapCount, unmap_failures: host.unmapLog.count, wire: wire.map { "\($0)" } ?? (card.model == nil ? "its own" : "none"), received: card.received, sent: card.sent,
      switched: card.switchedFrames, replicated: card.replicatedFrames, dropped_by: card.unroutedDrops(), overruns: card.overruns,
      bus_errors: card.busErrors)
  }
}

extension Configuration.Wire: CustomStringConvertible {
  public var description: String {
    switch self {
    case .tap(let name): "tap \(name)"
    }
  }
}

extension StatusReport.Worker {
  fileprivate init(_ worker: WorkerThread) {
    self.init(
      cpu: worker.processor, numa_node: worker.node, turns: worker.turns, sleeps: worker.sleeps,
      datapath_s: worker.datapathSeconds, model_s: worker.modelSeconds)
  }
}

extension StatusReport.VM {
  fileprivate init(_ session: Session, _ host: CardHost) {
    let (vm, device) = (session.vm, session.device)
    let checkers = host.checkers(ofVM: session.number)
    let refused = host.card.refused(of: session.number, queues: vm.queuePairs)
    self.init(
      socket: session.socketName, connection: session.connectionState, peer_pid: session.peer.map { Int($0.process) },
      peer_uid: session.peer.map { Int($0.user) }, connections: session.connections, features: session.features.names,
      protocol_features: session.protocolFeatures.names, mac: vm.address.map { "\($0)" }, vlan: vm.vlan.map { Int($0) },
      vlan_port: vm.vlan.map { _ in vm.effectivePort.rawValue }, source_check: checkers.source, vlan_check: checkers.vlan,
      mtu: device.mtu, memory_regions: session.memory.regions, memory_bytes: session.memory.bytes, numa_node: device.memoryNode,
      worker: device.worker.number, logging: device.isLogging,
      dirty_pages: device.receiveTotals.dirtyPages + device.transmitTotals.dirtyPages, quiesces: device.quiesces,
      contained: device.standing.reason, containments: device.containments, work: StatusReport.Work(session), last_violation: session.lastViolation,
      rings: session.rings.indices.map { StatusReport.Ring(session, $0) },
      receive: StatusReport.Frames(device.receiveTotals, card: host.card.drops(of: session.number, queues: vm.queuePairs)),
      transmit: StatusReport.Frames(device.transmitTotals, card: refused > 0 ? [TransmitDrop.spoofed.name: refused] : [:]))
  }
}

extension StatusReport.Work {
  fileprivate init(_ session: Session) {
    let (device, worker) = (session.device, session.device.worker)
    let share = worker.share(of: session.number)
    self.init(
      worker_s: Double(share.account.chargedTicks) * worker.secondsPerTick, longest_s: Double(share.account.longestTicks) * worker.secondsPerTick,
      deferrals: share.account.deferrals, cut_polls: device.receiveTotals.cutPolls + device.transmitTotals.cutPolls,
      notifier_signals: share.notifications.byThreadCount, message_pauses: session.messagePauses)
  }
}

extension StatusReport.Ring {
  fileprivate init(_ session: Session, _ number: Int) {
    let (view, activity) = (session.rings[number], session.device.activity(ring: number))
    self.init(
      index: number, direction: number % 2 == 0 ? "receive" : "transmit", state: view.state, format: view.format,
      size: view.size, reason: view.reason, outstanding: activity.outstanding, signals: activity.signals,
      suppressed_signals: activity.suppressedSignals, doorbells: activity.doorbells)
  }
}

extension StatusReport.Frames {
  /// - Parameter drops: the card's, of frames that no path has seen.
  fileprivate init(_ totals: PathTotals, card drops: [String: UInt64] = [:]) {
    self.init()
    (lent, bounced, bounced_by) = (totals.lent, totals.bounced, totals.bouncedBy)
    dropped_by = totals.droppedBy.merging(drops) { $0 + $1 }
  }
}
