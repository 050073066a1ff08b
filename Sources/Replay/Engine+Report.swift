internal import Datapath
internal import Simulation

// What a replay comes to: counted, compared with the trace, and summed up from both ends.
extension Engine {
  /// Everything that was counted, compared and summed up. The guests have ended.
  func report(elapsed: Double) -> ReplayReport {
    var report = ReplayReport()
    report.files = options.files
    report.seed = options.seed
    report.deterministic = options.isDeterministic
    report.mode = options.mode.name
    report.loops = source.completedLoops
    report.warnings = source.warnings
    report.trace_error = source.failure.map { "\($0)" }
    report.elapsed_s = elapsed
    // A frame that waits for the wire when a run is ended was not replayed.
    report.frames.read = source.read - (source.hasCurrent ? 1 : 0)
    report.frames.skipped = source.skipped
    report.frames.received = received
    report.frames.replicated = replicated
    report.bytes.received = receivedBytes
    report.dropped_by = cardDrops
    report.rules = rig.ruleCounts
    for (index, machine) in rig.machines.enumerated() { add(machine, index, to: &report) }
    if let host = rig.host {
      host.drain(verifies: verifies)
      report.host = ReplayReport.Host(frames: host.frames, bytes: host.bytes, sha256: verifies ? "\(host.digest)" : nil)
      if host.damaged > 0 { report.dropped_by["damaged", default: 0] += host.damaged }
    }
    report.frames.delivered = report.frames.lent + report.frames.bounced
    report.frames.dropped = report.dropped_by.values.reduce(0, +)
    report.iommu.faults = UInt64(rig.iommu.faultCount)
    report.iommu.maps = UInt64(rig.iommu.mapCount)
    report.iommu.first = rig.iommu.faults.prefix(5).map { "\($0)" }
    if elapsed > 0 {
      report.rate.frames_per_second = Double(report.frames.delivered) / elapsed
      report.rate.bits_per_second = Double(report.bytes.delivered) * 8 / elapsed
    }
    let frames = Double(max(received, 1))
    // Simulated time passes between moves, not in them: a deterministic run has no costs.
    let unit = options.isDeterministic ? 0 : nanosecondsPerTick
    report.cost.model_ns_per_frame = Double(modelTicks) * unit / frames
    report.cost.source_ns_per_frame = Double(sourceTicks) * unit / frames
    report.cost.datapath_ns_per_frame = Double(pathTicks) * unit / Double(max(settled.reduce(0, +), 1))
    report.latency_ns = ReplayReport.Latency(latency)
    report.due_latency_ns = options.pace == .top ? nil : ReplayReport.Latency(dueLatency)
    report.pacing.asked = pacer.asked
    report.pacing.achieved_frames_per_second = pacer.achievedRate ?? (elapsed > 0 ? Double(received) / elapsed : 0)
    if let asked = pacer.askedRate {
      report.pacing.asked_frames_per_second = asked
      report.pacing.error_percent = (report.pacing.achieved_frames_per_second / asked - 1) * 100
      report.pacing.late_p99_ns = pacer.lateness.percentile(99)
      report.pacing.late_max_ns = pacer.lateness.largest
    }
    compare(&report)
    conserve(&report)
    return report
  }

  private func add(_ machine: Rig.Machine, _ index: Int, to report: inout ReplayReport) {
    var vm = ReplayReport.VM()
    for lane in machine.paths {
      let counters = rig.lanes[lane].counters
      vm.lent += counters.lentFrames
      vm.bounced += counters.bouncedFrames
      vm.bytes += counters.deliveredBytes
      report.bytes.copied += counters.bouncedBytes
      for reason in BounceReason.allCases where counters.bounced(reason) > 0 {
        vm.bounced_by[reason.name, default: 0] += counters.bounced(reason)
      }
      for reason in PathDrop.allCases where counters.dropped(reason) > 0 {
        vm.dropped_by[reason.name, default: 0] += counters.dropped(reason)
      }
      vm.dropped_by.merge(laneDrops[lane], uniquingKeysWith: +)
      if let reason = stopped[lane], reason != "\(StopReason.requested)" { vm.stopped = reason }
    }
    vm.delivered = vm.lent + vm.bounced
    vm.dropped = vm.dropped_by.values.reduce(0, +)
    vm.steering = rig.steering(of: index)
    vm.buffers = machine.vm.buffers.rawValue
    vm.queues = machine.vm.queues
    if options.checksCanaries { machine.guest.verifyUntouched() }
    vm.violations = machine.guest.violations.lines
    if verifies { vm.sha256 = digest(machine) }
    report.frames.lent += vm.lent
    report.frames.bounced += vm.bounced
    report.bytes.delivered += vm.bytes
    report.bounced_by.merge(vm.bounced_by, uniquingKeysWith: +)
    report.dropped_by.merge(vm.dropped_by, uniquingKeysWith: +)
    report.vms[machine.vm.name] = vm
  }

  /// What the guest's own memory hashed to.
  private func digest(_ machine: Rig.Machine) -> String? {
    let digests = (0..<machine.vm.queues).compactMap { machine.guest.digest(queue: $0) }
    guard digests.count == machine.vm.queues else { return nil }
    return Self.combine(digests)
  }
  private static func combine(_ digests: [SHA256Digest]) -> String {
    if digests.count == 1 { return "\(digests[0])" }
    var hash = SHA256Stream()
    for digest in digests { unsafe digest.bytes.withUnsafeBytes { unsafe hash.update($0) } }
    return "\(hash.finish())"
  }

  private func compare(_ report: inout ReplayReport) {
    guard verifies else { return }
    var errors: [String] = []
    for machine in rig.machines {
      let expected = Self.combine(machine.paths.map { expectations[$0].digest })
      let frames = machine.paths.reduce(0) { $0 + expectations[$1].frames }
      let found = machine.guest.counters()
      if found.frames != frames {
        errors.append("VM \(machine.vm.name) found \(found.frames) frames in its memory, and the trace has \(frames) for it")
      } else if report.vms[machine.vm.name]?.sha256 != expected {
        errors.append("VM \(machine.vm.name): what it found in its memory hashes to \(report.vms[machine.vm.name]?.sha256 ?? "nothing"), and the trace to \(expected)")
      }
    }
    if let host = rig.host {
      if host.frames != host.expectation.frames || "\(host.digest)" != "\(host.expectation.digest)" {
        errors.append("the host: what it found in its memory (\(host.frames) frames) is not what the trace has for it (\(host.expectation.frames))")
      }
    }
    if let firstMisdelivery { errors.append("\(misdelivered) frames went to a VM that no rule sends them to; the first: \(firstMisdelivery)") }
    for machine in rig.machines {
      guard let first = machine.guest.violations.lines.first else { continue }
      errors.append("VM \(machine.vm.name)'s driver objects: \(first)")
    }
    report.verified = errors.isEmpty
    report.verification_errors = errors
  }

  /// The laws of conservation, each as two sums from different places.
  private func conserve(_ report: inout ReplayReport) {
    let frames = report.frames
    let host = report.host.map(\.frames)
    let (put, left) = (accepted.reduce(acceptedForHost, +), settled.reduce((host ?? 0) + (rig.host?.damaged ?? 0), +))
    var laws = [
      ReplayReport.Law("read = received + skipped", frames.read, frames.received + frames.skipped),
      ReplayReport.Law(
        host == nil ? "received + replicated = delivered + dropped" : "received + replicated = delivered + the host's + dropped",
        frames.received + frames.replicated, frames.delivered + (host ?? 0) + frames.dropped),
      ReplayReport.Law("put into queues = left them", put, left),
      ReplayReport.Law(
        "delivered = found by the guests", frames.delivered,
        rig.machines.reduce(0) { $0 + $1.guest.counters().frames }),
    ]
    let refused = refusedForNobody + report.vms.values.reduce(0) { sum, vm in
      [CardDrop.noDescriptors, .queueDisabled].reduce(sum) { $0 + (vm.dropped_by[$1.name] ?? 0) }
    }
    laws += rig.cardLaws(accepted: put, refused: refused)
    report.conservation = laws
  }
}

extension ReplayReport.Latency {
  init(_ histogram: DurationHistogram) {
    self.init()
    (p50, p90, p99) = (histogram.percentile(50), histogram.percentile(90), histogram.percentile(99))
    (p999, p9999, max) = (histogram.percentile(99.9), histogram.percentile(99.99), histogram.largest)
  }
}
