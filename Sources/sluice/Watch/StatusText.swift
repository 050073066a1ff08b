import Control

/// A status for a person: 80 columns, and what is not there is not mentioned.
struct StatusText: CustomStringConvertible {
  static let width = TextReport.width
  private let report: StatusReport
  private let style: Style

  init(_ report: StatusReport, colours: Bool) {
    self.report = report
    style = Style(isOn: colours)
  }

  var description: String {
    let title = [style.bold("Sluice \(printable(report.version)), pid \(report.pid), up \(clock(report.uptime_s))")]
    return joined([title, card, host, workers] + names.compactMap { name in report.vms[name].map { machine(name, $0) } } + [sums])
  }

  private var names: [String] {
    let known = Set(report.vm_order)
    return report.vm_order + report.vms.keys.filter { !known.contains($0) }.sorted()
  }

  private func row(_ label: String, _ text: String, paint: (String) -> String = { $0 }) -> [String] {
    wrapped(text, width: Self.width - 14).enumerated().map {
      "  " + rightPadded($0.offset == 0 ? label : "", to: 12) + paint($0.element)
    }
  }

  // MARK: The card and its workers

  private var card: [String] {
    let nic = report.nic
    let link = nic.link_up ? "link up, \(bitRate(Double(nic.megabits) * 1e6))" : style.bad("link down")
    var lines = [style.bold("Network card")]
    lines += row("kind", "\(printable(nic.kind)), \(link), MTU \(grouped(nic.mtu))")
    lines += row("wire", printable(nic.wire))
    lines += row("received", traffic(nic.received))
    lines += row("sent", traffic(nic.sent))
    if let switched = nic.switched, switched > 0 { lines += row("switched", "\(plural(switched, "frame")) from one VM to another") }
    if let replicated = nic.replicated, replicated > 0 { lines += row("replicated", "\(plural(replicated, "frame")), for several VMs") }
    if let drops = reasons(nic.dropped_by) { lines += row("dropped", drops, paint: style.odd) }
    if let overruns = nic.overruns, overruns > 0 { lines += row("overruns", "\(grouped(overruns)): at least as many received frames were lost", paint: style.odd) }
    let faults = nic.iommu_faults.map { $0 == 0 ? "no fault" : style.bad(plural($0, "fault")) } ?? "faults unknown: the kernel's log cannot be read"
    let errors = (nic.bus_errors ?? [:]).flatMap { severity, errors in errors.filter { $0.value > 0 }.map { "\(grouped($0.value)) \(severity) \($0.key)" } }
    if !errors.isEmpty { lines += row("bus", errors.sorted().map(printable).joined(separator: ", "), paint: style.odd) }
    let failures = nic.unmap_failures == 0 ? "" : ", " + style.bad("\(plural(nic.unmap_failures, "mapping")) not removed: restart the back-end")
    return lines + row("IOMMU", "\(plural(nic.iommu_maps, "map")), \(faults)\(failures)")
  }

  private var host: [String] {
    guard let host = report.host else { return [] }
    var lines = [style.bold("Host")] + row("port", "tap \(printable(host.tap))")
    lines += row("given", traffic(host.given)) + row("taken", traffic(host.taken))
    if let drops = reasons(host.dropped_by) { lines += row("dropped", drops, paint: style.odd) }
    return lines
  }

  private var workers: [String] {
    guard !report.workers.isEmpty else { return [] }
    let rows = report.workers.enumerated().flatMap { number, worker in
      let place = [worker.cpu.map { "processor \($0)" }, worker.numa_node.map { "node \($0)" }].compactMap { $0 }
      let busy = [(worker.datapath_s, "at rings"), (worker.model_s, "in the card's model")].filter { $0.0 > 0 }.map { "\(nanoseconds($0 * 1e9)) \($1)" }
      let words = place + ["\(plural(worker.turns, "turn"))", "\(plural(worker.sleeps, "sleep"))"] + busy
      return row(String(number), words.joined(separator: ", "))
    }
    return [style.bold("Workers")] + rows
  }

  // MARK: A VM

  private func machine(_ name: String, _ vm: StatusReport.VM) -> [String] {
    var lines = [style.bold("VM \(printable(name))")]
    var peer = [vm.peer_pid.map { "pid \($0)" }, vm.peer_uid.map { "uid \($0)" }].compactMap { $0 }.joined(separator: ", ")
    if !peer.isEmpty { peer = " (\(peer))" }
    let times = vm.connections > 1 ? ", for the \(ordinal(vm.connections)) time" : ""
    lines += row("front-end", vm.connection + peer + times, paint: vm.connection == "connected" ? style.good : style.faint)
    lines += row("socket", printable(vm.socket))
    let address = vm.mac.map { "frames for \(printable($0))" + (vm.vlan.map { ", VLAN \($0)" } ?? "") } ?? (report.vms.count == 1 ? "all frames" : "what rules give it")
    lines += row("gets", "\(address); MTU \(grouped(vm.mtu)); worker \(vm.worker)")
    if let text = Self.sends(vm) { lines += row("sends", text) }
    if !vm.features.isEmpty { lines += row("features", printable(vm.features.joined(separator: " "))) }
    if !vm.protocol_features.isEmpty { lines += row("protocol", printable(vm.protocol_features.joined(separator: " "))) }
    if vm.memory_regions > 0 {
      let node = vm.numa_node.map { ", node \($0)" } ?? ""
      lines += row("memory", "\(plural(vm.memory_regions, "region")), \(binaryBytes(vm.memory_bytes))\(node)\(vm.logging ? "; writes are logged" : "")")
    }
    if vm.dirty_pages > 0 { lines += row("logged", "\(plural(vm.dirty_pages, "page")) as written to, for migrations") }
    if vm.quiesces.count > 0 {
      lines += row("quiesced", "\(plural(vm.quiesces.count, "time")), \(nanoseconds(vm.quiesces.longest_s * 1e9)) at the longest")
    }
    if let reason = vm.contained { lines += row("contained", printable(reason), paint: style.bad) }
    if let work = vm.work, work.worker_s > 0 { lines += row("work", Self.text(work)) }
    lines += rings(vm.rings)
    lines += path("received", vm.receive)
    lines += path("sent", vm.transmit)
    if let violation = vm.last_violation { lines += row("violation", printable(violation), paint: style.bad) }
    return lines
  }

  private static func text(_ work: StatusReport.Work) -> String {
    let counts = [
      (work.deferrals, "deferral", "deferrals"), (work.cut_polls, "poll cut short", "polls cut short"),
      (work.notifier_signals, "slow signal", "slow signals"), (work.message_pauses, "message pause", "message pauses"),
    ].filter { $0.0 > 0 }.map { "\(grouped($0.0)) \($0.0 == 1 ? $0.1 : $0.2)" }
    return (["\(nanoseconds(work.worker_s * 1e9)) of its worker, \(nanoseconds(work.longest_s * 1e9)) at the longest"] + counts).joined(separator: ", ")
  }

  /// What it may send, and what sees to that; nil if the back-end does not say.
  private static func sends(_ vm: StatusReport.VM) -> String? {
    guard let source = vm.source_check, let tags = vm.vlan_check else { return nil }
    var text = source == "off" ? "under any address" : "under its own address (\(source))"
    guard vm.vlan != nil else { return text }
    text += tags == "off" ? "; into any VLAN" : "; into its VLAN (\(tags))"
    return text + (vm.vlan_port.map { "; \(printable($0)) port" } ?? "")
  }

  private func rings(_ rings: [StatusReport.Ring]) -> [String] {
    rings.enumerated().flatMap { position, ring in
      let shape = [ring.format, ring.size.map { grouped($0) }].compactMap { $0 }.joined(separator: " ")
      var text = rightPadded(String(ring.index), to: 3) + rightPadded(ring.direction, to: 10)
      text += paint(ring.state)(rightPadded(ring.state, to: 10)) + rightPadded(shape, to: 14)
      if ring.format != nil { text += "\(grouped(ring.outstanding)) posted" }
      var lines = ["  " + rightPadded(position == 0 ? "rings" : "", to: 12) + text]
      while lines[0].last == " " { lines[0].removeLast() }
      if ring.format != nil {
        lines[0] += ", \(plural(ring.signals, "signal"))"
        if lines[0].count > Self.width { lines[0] = String(lines[0].dropLast(", \(plural(ring.signals, "signal"))".count)) }
      }
      if let reason = ring.reason {
        lines += wrapped(printable(reason), width: Self.width - 17).map { String(repeating: " ", count: 17) + style.bad($0) }
      }
      return lines
    }
  }

  private func paint(_ state: String) -> (String) -> String {
    switch state {
    case "running": style.good
    case "failed": style.bad
    default: style.faint
    }
  }

  private func path(_ label: String, _ counts: StatusReport.Frames) -> [String] {
    let frames = counts.lent.frames &+ counts.bounced.frames
    guard frames > 0 || !counts.dropped_by.isEmpty else { return [] }
    let all = traffic(.init(frames: frames, bytes: counts.lent.bytes &+ counts.bounced.bytes))
    var lines = row(label, frames > 0 ? "\(all); \(Share.text(counts.lent.frames, of: frames)) lent" : all)
    if let text = reasons(counts.bounced_by) { lines += row("  bounced", text, paint: style.odd) }
    if let text = reasons(counts.dropped_by) { lines += row("  dropped", text, paint: style.odd) }
    return lines
  }

  // MARK: Words

  private func traffic(_ traffic: StatusReport.Traffic) -> String {
    traffic.frames == 0 ? "nothing" : "\(plural(traffic.frames, "frame")), \(bytes(traffic.bytes))"
  }

  /// The most frequent first; nil for none.
  private func reasons(_ counts: [String: UInt64]) -> String? {
    let parts = counts.filter { $0.value > 0 }.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
    return parts.isEmpty ? nil : parts.map { "\(printable($0.key)) \(grouped($0.value))" }.joined(separator: ", ")
  }

  private var sums: [String] {
    guard !report.laws.isEmpty else { return [] }
    return [style.bold("Sums")]
      + report.laws.flatMap { law in
        let way = law.in_flight > 0 ? " + \(grouped(law.in_flight)) under way" : ""
        let text = "\(printable(law.name)): \(grouped(law.left)) \(law.holds ? "=" : "≠") \(grouped(law.right))\(way)"
        return wrapped(text, width: Self.width - 4).enumerated().map { ($0.offset == 0 ? "  \(style.mark(law.holds)) " : "    ") + $0.element }
      }
  }
}

/// Memory as people buy it: units of 1024.
private func binaryBytes(_ count: UInt64) -> String {
  var (value, unit) = (Double(count), 0)
  let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
  while value >= 1024 && unit < units.count - 1 {
    value /= 1024
    unit += 1
  }
  return (value == value.rounded() ? fixed(value, 0) : significant(value)) + " " + units[unit]
}

/// `1st`, `2nd`, `3rd`, `4th`, `11th`.
private func ordinal(_ number: UInt64) -> String {
  let end =
    switch (number % 100, number % 10) {
    case (11...13, _): "th"
    case (_, 1): "st"
    case (_, 2): "nd"
    case (_, 3): "rd"
    default: "th"
    }
  return grouped(number) + end
}

enum Share {
  /// Never "100 %" for less than all, nor "0 %" for more than none.
  static func text(_ part: UInt64, of whole: UInt64) -> String {
    guard whole > 0 else { return "-" }
    if part >= whole { return "100 %" }
    if part == 0 { return "0 %" }
    let percent = Double(part) / Double(whole) * 100
    return percent < 0.01 ? "< 0.01 %" : percent > 99.99 ? "> 99.99 %" : fixed(percent, 2) + " %"
  }
}
