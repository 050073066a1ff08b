internal import Control

/// A status as Prometheus reads it: its text format, version 0.0.4. Names are stable; rx is what a guest receives.
struct MetricsPage {
  static let contentType = "text/plain; version=0.0.4; charset=utf-8"
  private(set) var text = ""

  init(_ status: StatusReport, _ rules: RulesReport = RulesReport()) {
    back(status)
    card(status.nic)
    if let host = status.host { port(host) }
    let vms = status.vms.sorted { $0.key < $1.key }
    for direction in [Direction.receive, .transmit] { frames(direction, vms) }
    machines(vms)
    containment(vms)
    rings(vms)
    steering(rules)
  }

  private typealias VMs = [(key: String, value: StatusReport.VM)]

  // MARK: What is said

  private mutating func back(_ status: StatusReport) {
    family("sluice_build_info", .gauge, "Always 1; the version is in the label.") { $0([("version", status.version)], 1) }
    family("sluice_uptime_seconds", .gauge, "Since the back-end started.") { $0([], Int(status.uptime_s)) }
    let workers = status.workers.enumerated()
    family("sluice_worker_turns_total", .counter, "Rounds of a worker over its queues.") { add in
      for (number, worker) in workers { add([("worker", String(number))], worker.turns) }
    }
    family("sluice_worker_busy_seconds_total", .counter, "Time in which a worker moved something: at rings, and in the simulated card.") { add in
      for (number, worker) in workers {
        add([("worker", String(number)), ("part", "datapath")], worker.datapath_s)
        add([("worker", String(number)), ("part", "model")], worker.model_s)
      }
    }
    family("sluice_worker_sleeps_total", .counter, "How often a worker found nothing to do and slept.") { add in
      for (number, worker) in workers { add([("worker", String(number))], worker.sleeps) }
    }
    family("sluice_law_holds", .gauge, "1 where two sums from different places agree, apart from what is under way.") { add in
      for law in status.laws { add([("law", law.name)], law.holds ? 1 : 0) }
    }
  }

  private mutating func card(_ nic: StatusReport.NIC) {
    let labels = [("kind", nic.kind)]
    family("sluice_nic_link_up", .gauge, "1 if the card has a link.") { $0(labels, nic.link_up ? 1 : 0) }
    family("sluice_nic_received_frames_total", .counter, "From the wire.") { $0(labels, nic.received.frames) }
    family("sluice_nic_received_bytes_total", .counter, "From the wire, without check sequence.") { $0(labels, nic.received.bytes) }
    family("sluice_nic_sent_frames_total", .counter, "To the wire.") { $0(labels, nic.sent.frames) }
    family("sluice_nic_sent_bytes_total", .counter, "To the wire, without check sequence.") { $0(labels, nic.sent.bytes) }
    family("sluice_nic_switched_frames_total", .counter, "From one VM to another, without the wire.") { if let count = nic.switched { $0(labels, count) } }
    family("sluice_nic_replicated_frames_total", .counter, "Further copies that the card made for several VMs.") { if let count = nic.replicated { $0(labels, count) } }
    family("sluice_nic_drops_total", .counter, "Frames that the card dropped before it knew whose they are.") { add in
      for (reason, count) in nic.dropped_by.sorted(by: { $0.key < $1.key }) { add(labels + [("reason", reason)], count) }
    }
    family("sluice_nic_overruns_total", .counter, "Times that the NIC signalled the loss of received frames for want of a buffer or of room.") {
      if let count = nic.overruns { $0(labels, count) }
    }
    family("sluice_bus_errors_total", .counter, "Errors on the bus, of the card and of the ports above it, since the machine's boot.") { add in
      for (severity, errors) in (nic.bus_errors ?? [:]).sorted(by: { $0.key < $1.key }) {
        for (name, count) in errors.sorted(by: { $0.key < $1.key }) { add([("severity", severity), ("error", name)], count) }
      }
    }
    family("sluice_iommu_faults_total", .counter, "Accesses of the card that the IOMMU refused.") { if let count = nic.iommu_faults { $0([], count) } }
    family("sluice_unmap_failures_total", .counter, "Mappings that the IOMMU did not remove; their memory stays allocated.") { $0([], nic.unmap_failures) }
    family("sluice_iommu_maps", .gauge, "Ranges that the card may reach.") { $0([], nic.iommu_maps) }
  }

  private mutating func port(_ host: StatusReport.Host) {
    let labels = [("tap", host.tap)]
    family("sluice_host_frames_total", .counter, "Frames given to the host's own port, and taken from it.") { add in
      add(labels + [("direction", "given")], host.given.frames)
      add(labels + [("direction", "taken")], host.taken.frames)
    }
    family("sluice_host_bytes_total", .counter, "Bytes of these, without check sequence.") { add in
      add(labels + [("direction", "given")], host.given.bytes)
      add(labels + [("direction", "taken")], host.taken.bytes)
    }
    family("sluice_host_drops_total", .counter, "Frames of the host's port that were dropped, by reason.") { add in
      for (reason, count) in host.dropped_by.sorted(by: { $0.key < $1.key }) { add(labels + [("reason", reason)], count) }
    }
  }

  private enum Direction: String { case receive = "rx", transmit = "tx" }

  private mutating func frames(_ direction: Direction, _ vms: VMs) {
    let name = "sluice_" + direction.rawValue
    let what = direction == .receive ? "given to the guest" : "taken from the guest"
    let counts = vms.map { ($0.key, direction == .receive ? $0.value.receive : $0.value.transmit) }
    family(name + "_frames_total", .counter, "Frames \(what): lent without a copy, or bounced with one.") { add in
      for (vm, count) in counts {
        add([("vm", vm), ("path", "lent")], count.lent.frames)
        add([("vm", vm), ("path", "bounced")], count.bounced.frames)
      }
    }
    family(name + "_bytes_total", .counter, "Bytes of frames \(what), without check sequence.") { add in
      for (vm, count) in counts {
        add([("vm", vm), ("path", "lent")], count.lent.bytes)
        add([("vm", vm), ("path", "bounced")], count.bounced.bytes)
      }
    }
    family(name + "_fallback_total", .counter, "Frames that were bounced, by the reason why they could not be lent.") { add in
      for (vm, count) in counts {
        for (reason, frames) in count.bounced_by.sorted(by: { $0.key < $1.key }) { add([("vm", vm), ("reason", reason)], frames) }
      }
    }
    family(name + "_drops_total", .counter, "Frames dropped, by reason.") { add in
      for (vm, count) in counts {
        for (reason, frames) in count.dropped_by.sorted(by: { $0.key < $1.key }) { add([("vm", vm), ("reason", reason)], frames) }
      }
    }
  }

  private mutating func machines(_ vms: VMs) {
    family("sluice_vm_connected", .gauge, "1 while a front-end is connected.") { add in
      for (name, vm) in vms { add([("vm", name)], vm.connection == "connected" ? 1 : 0) }
    }
    family("sluice_vm_connections_total", .counter, "Front-ends that connected.") { add in
      for (name, vm) in vms { add([("vm", name)], vm.connections) }
    }
    family("sluice_vm_memory_bytes", .gauge, "Memory that the front-end has shared.") { add in
      for (name, vm) in vms { add([("vm", name)], vm.memory_bytes) }
    }
    family("sluice_vm_logging", .gauge, "1 while writes are logged for a migration.") { add in
      for (name, vm) in vms { add([("vm", name)], vm.logging ? 1 : 0) }
    }
    family("sluice_dirty_pages_total", .counter, "Pages of 4096 bytes that were marked in a migration's log and had not been.") { add in
      for (name, vm) in vms { add([("vm", name)], vm.dirty_pages) }
    }
    family("sluice_quiesces_total", .counter, "Times that a ring was brought to rest before the front-end had its answer.") { add in
      for (name, vm) in vms { add([("vm", name)], vm.quiesces.count) }
    }
    family("sluice_quiesce_seconds_total", .counter, "Time that it took, all together.") { add in
      for (name, vm) in vms { add([("vm", name)], vm.quiesces.total_s) }
    }
    family("sluice_quiesce_longest_seconds", .gauge, "The longest time that it took once.") { add in
      for (name, vm) in vms { add([("vm", name)], vm.quiesces.longest_s) }
    }
    work(vms)
  }

  private mutating func work(_ vms: VMs) {
    let works = vms.compactMap { vm in vm.value.work.map { (vm.key, $0) } }
    family("sluice_vm_worker_seconds_total", .counter, "Worker time charged to the VM.") { add in
      for (name, work) in works { add([("vm", name)], work.worker_s) }
    }
    family("sluice_vm_worker_longest_seconds", .gauge, "The most worker time charged to the VM at once.") { add in
      for (name, work) in works { add([("vm", name)], work.longest_s) }
    }
    family("sluice_vm_deferrals_total", .counter, "Worker iterations that passed over the VM because it was ahead of others.") { add in
      for (name, work) in works { add([("vm", name)], work.deferrals) }
    }
    family("sluice_vm_cut_polls_total", .counter, "Polls of the VM's rings that ended at the descriptor budget.") { add in
      for (name, work) in works { add([("vm", name)], work.cut_polls) }
    }
    family("sluice_vm_notifier_signals_total", .counter, "Notifications sent by a thread of the VM's own because they are slow.") { add in
      for (name, work) in works { add([("vm", name)], work.notifier_signals) }
    }
    family("sluice_vm_message_pauses_total", .counter, "Pauses in reading the VM's vhost-user socket because of its message rate.") { add in
      for (name, work) in works { add([("vm", name)], work.message_pauses) }
    }
  }

  private mutating func containment(_ vms: VMs) {
    family("sluice_vm_contained", .gauge, "1 while a VM is not served: a queue of the NIC does not stop, or its worker does not answer.") { add in
      for (name, vm) in vms { add([("vm", name)], vm.contained == nil ? 0 : 1) }
    }
    family("sluice_vm_containments_total", .counter, "Times that this happened.") { add in
      for (name, vm) in vms { add([("vm", name)], vm.containments) }
    }
  }

  private mutating func rings(_ vms: VMs) {
    let rings = vms.flatMap { vm in
      vm.value.rings.map { (labels: [("vm", vm.key), ("ring", String($0.index)), ("direction", $0.direction)], ring: $0) }
    }
    family("sluice_ring_state", .gauge, "1 for the state that a ring is in: stopped, disabled, running or failed.") { add in
      for (labels, ring) in rings {
        for state in ["disabled", "failed", "running", "stopped"] { add(labels + [("state", state)], ring.state == state ? 1 : 0) }
      }
    }
    family("sluice_posted_buffers", .gauge, "Buffers that the guest has posted and the back-end has taken.") { add in
      for (labels, ring) in rings { add(labels, ring.outstanding) }
    }
    family("sluice_signals_total", .counter, "Times that the guest was told of used buffers.") { add in
      for (labels, ring) in rings { add(labels, ring.signals) }
    }
    family("sluice_signals_suppressed_total", .counter, "Batches that the guest did not want to be told of.") { add in
      for (labels, ring) in rings { add(labels, ring.suppressed_signals) }
    }
    family("sluice_doorbells_total", .counter, "Times that the card was told of new descriptors.") { add in
      for (labels, ring) in rings { add(labels, ring.doorbells) }
    }
  }

  private mutating func steering(_ report: RulesReport) {
    // What follows from a VM has no number, and is in the VM's own counts.
    let rules = report.rules.filter { $0.id != 0 }
    family("sluice_rule_frames_total", .counter, "Frames that a rule has taken: of an address rule frames, of a flow rule copies.") { add in
      for rule in rules { if let frames = rule.frames { add([("rule", String(rule.id))], frames) } }
    }
    family("sluice_rule_bytes_total", .counter, "Bytes of these, without check sequence.") { add in
      for rule in rules { if let bytes = rule.bytes { add([("rule", String(rule.id))], bytes) } }
    }
    family("sluice_table_entries", .gauge, "Entries in use of a table of the card's, and how many it has.") { add in
      for table in report.tables {
        add([("table", table.name), ("state", "used")], table.used)
        add([("table", table.name), ("state", "all")], table.size)
      }
    }
  }

  // MARK: How it is written

  private enum Kind: String { case counter, gauge }

  /// A family without a sample is left out.
  private mutating func family(
    _ name: String, _ kind: Kind, _ help: String, _ body: (_ add: ([(String, String)], any CustomStringConvertible) -> Void) -> Void
  ) {
    var samples = ""
    body { labels, value in
      let list = labels.map { "\($0.0)=\"\(Self.escaped($0.1, quote: true))\"" }.joined(separator: ",")
      samples += list.isEmpty ? "\(name) \(value)\n" : "\(name){\(list)} \(value)\n"
    }
    if samples.isEmpty { return }
    text += "# HELP \(name) \(Self.escaped(help, quote: false))\n# TYPE \(name) \(kind.rawValue)\n" + samples
  }

  private static func escaped(_ text: String, quote: Bool) -> String {
    var result = ""
    for character in text.unicodeScalars {
      switch character {
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\"" where quote: result += "\\\""
      default: result.unicodeScalars.append(character)
      }
    }
    return result
  }
}
