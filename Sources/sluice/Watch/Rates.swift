import ControlSocket

/// What happened between two looks at a back-end's counters.
struct Rates: Equatable {
  /// Between the looks.
  let seconds: Double
  let uptime: Double
  let wire: Path
  let vms: [VM]

  struct VM: Equatable {
    let name: String
    let receive: Path
    let transmit: Path
  }

  /// Per second; `nil` where nothing tells: the share of nothing.
  struct Path: Equatable {
    var frames: Double
    var bits: Double
    var lentPercent: Double?
    var drops: Double
    /// By reason, those that occurred between the looks.
    var dropsBy: [String: Double]
  }

  /// Nil if the back-end was started anew between the looks: then there is nothing to compare.
  init?(from old: StatsReport, to new: StatsReport) {
    let seconds = new.uptime_s - old.uptime_s
    guard old.pid == new.pid, seconds > 0, seconds.isFinite else { return nil }
    self.seconds = seconds
    uptime = new.uptime_s
    let nic = (old.nic, new.nic)
    wire = Path(
      frames: Self.grown(nic.0.received.frames, nic.1.received.frames) / seconds,
      bits: Self.grown(nic.0.received.bytes, nic.1.received.bytes) * 8 / seconds, lentPercent: nil,
      (nic.0.dropped_by, nic.1.dropped_by), seconds)
    let known = Set(new.vm_order)
    let names = new.vm_order + new.vms.keys.filter { !known.contains($0) }.sorted()
    vms = names.compactMap { name in
      guard let vm = new.vms[name] else { return nil }
      // One that was not there before has grown from nothing.
      let before = old.vms[name]
      return VM(
        name: name, receive: Path(before?.receive, vm.receive, seconds), transmit: Path(before?.transmit, vm.transmit, seconds))
    }
  }

  /// A counter that went back has begun anew.
  fileprivate static func grown(_ old: UInt64, _ new: UInt64) -> Double { Double(new >= old ? new - old : new) }
}

extension Rates.Path {
  fileprivate init(frames: Double, bits: Double, lentPercent: Double?, _ drops: ([String: UInt64], [String: UInt64]), _ seconds: Double) {
    let grown = drops.1.map { ($0.key, Rates.grown(drops.0[$0.key] ?? 0, $0.value) / seconds) }
    let by = Dictionary(uniqueKeysWithValues: grown).filter { $0.value > 0 }
    self.init(frames: frames, bits: bits, lentPercent: lentPercent, drops: by.values.reduce(0, +), dropsBy: by)
  }

  fileprivate init(_ old: StatsReport.Direction?, _ new: StatsReport.Direction, _ seconds: Double) {
    let lent = Rates.grown(old?.lent.frames ?? 0, new.lent.frames)
    let bounced = Rates.grown(old?.bounced.frames ?? 0, new.bounced.frames)
    let bytes = Rates.grown(old?.lent.bytes ?? 0, new.lent.bytes) + Rates.grown(old?.bounced.bytes ?? 0, new.bounced.bytes)
    let frames = lent + bounced
    self.init(
      frames: frames / seconds, bits: bytes * 8 / seconds, lentPercent: frames > 0 ? lent / frames * 100 : nil,
      (old?.dropped_by ?? [:], new.dropped_by), seconds)
  }
}
