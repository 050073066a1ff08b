import Replay

// Two reports with a value in every place: one of a good run, one of a bad one.

/// Two VMs, all lent, verified.
func goodReport() -> ReplayReport {
  var report = ReplayReport()
  report.files = ["Traces/imix.pcap"]
  (report.frames.read, report.frames.received) = (768_000, 768_000)
  (report.frames.delivered, report.frames.lent) = (768_000, 768_000)
  (report.bytes.received, report.bytes.delivered) = (273_024_000, 273_024_000)
  for (index, name) in ["web", "db"].enumerated() {
    var vm = ReplayReport.VM()
    (vm.delivered, vm.lent, vm.bytes) = (384_000, 384_000, 136_512_000)
    vm.sha256 = String(repeating: index == 0 ? "0123456789abcdef" : "fedcba9876543210", count: 4)
    vm.steering = "mac 02:00:00:00:00:0\(index + 1), broadcast and multicast"
    vm.buffers = "linux"
    report.vms[name] = vm
  }
  report.vm_order = ["web", "db"]
  report.verified = true
  report.conservation = [
    .init("read = received + skipped", 768_000, 768_000),
    .init("received + replicated = delivered + dropped", 768_000, 768_000),
  ]
  report.iommu.maps = 14
  (report.rate.frames_per_second, report.rate.bits_per_second) = (12_345_678, 35.1e9)
  (report.cost.datapath_ns_per_frame, report.cost.model_ns_per_frame, report.cost.source_ns_per_frame) = (38.25, 24.1, 5)
  (report.latency_ns.p50, report.latency_ns.p99, report.latency_ns.p999, report.latency_ns.max) = (4_096, 9_700, 22_000, 310_000)
  report.pacing.achieved_frames_per_second = 12_345_678
  (report.elapsed_s, report.loops, report.seed) = (0.0622, 1000, 1)
  return report
}

/// A stalled guest, bounces, a fault, a broken sum, an odd trace.
func badReport() -> ReplayReport {
  var report = ReplayReport()
  report.files = ["a.pcap", "-"]
  report.frames.read = 1_000
  report.frames.skipped = 10
  report.frames.received = 990
  report.frames.replicated = 5
  report.frames.delivered = 900
  report.frames.lent = 700
  report.frames.bounced = 200
  report.frames.dropped = 94
  report.bytes.received = 99_000
  report.bytes.delivered = 90_000
  report.bytes.copied = 20_000
  report.bounced_by = ["too_small": 150, "behind_smaller": 50]
  report.dropped_by = ["no_buffers": 90, "of_another_version": 4]
  var vm = ReplayReport.VM()
  (vm.delivered, vm.lent, vm.bounced, vm.dropped, vm.bytes) = (900, 700, 200, 94, 90_000)
  (vm.buffers, vm.queues, vm.steering) = ("small", 2, "everything")
  vm.stopped = "the IOMMU refused the card access to its memory at 0x10000000000"
  vm.violations = ["queue 0: used index ran ahead"]
  report.vms["vm0"] = vm
  report.vm_order = ["vm0"]
  report.verified = false
  report.verification_errors = ["VM vm0 found 899 frames in its memory, and the trace has 900 for it"]
  report.conservation = [.init("received + replicated = delivered + dropped", 995, 994)]
  report.iommu.maps = 3
  report.iommu.faults = 7
  report.iommu.first = ["write of 2048 bytes at 0x10000000000: no such page"]
  (report.rate.frames_per_second, report.rate.bits_per_second) = (9_000, 7_200_000)
  report.pacing.asked = "pps=10000"
  report.pacing.asked_frames_per_second = 10_000
  report.pacing.achieved_frames_per_second = 9_900
  report.pacing.error_percent = -1
  report.pacing.late_p99_ns = 1_200
  report.pacing.late_max_ns = 80_000
  (report.elapsed_s, report.loops, report.seed, report.mode) = (0.1, 1, 7, "auto")
  report.warnings = ["time goes backwards": 3]
  report.trace_error = "a.pcap: at byte 99024: frame cut short (10 of 64 bytes)"
  report.interrupted = true
  return report
}
