import Control
import ControlSocket

/// What became of an injection, for a person.
struct InjectText: CustomStringConvertible {
  private let report: InjectReport
  private let style: Style

  init(_ report: InjectReport, colours: Bool) {
    self.report = report
    style = Style(isOn: colours)
  }

  /// Every frame is somewhere, and every drop has its reason.
  static func isAccounted(_ report: InjectReport) -> Bool {
    func sum(_ counts: some Sequence<UInt64>) -> UInt64? {
      var total: UInt64 = 0
      for count in counts {
        let (next, overflows) = total.addingReportingOverflow(count)
        if overflows { return nil }
        total = next
      }
      return total
    }
    let frames = report.frames
    guard let came = sum([frames.sent, frames.replicated]), let went = sum([frames.delivered, frames.host, frames.dropped]) else { return false }
    return came == went && sum(report.dropped_by.values) == frames.dropped && sum(report.delivered.values) == frames.delivered
  }

  static func status(of report: InjectReport) -> ExitStatus {
    !isAccounted(report) ? .unaccounted : report.interrupted != nil ? .stopped : .accounted
  }

  var description: String {
    let frames = report.frames
    let rate = report.elapsed_s > 0 ? ", \(frameRate(Double(frames.sent) / report.elapsed_s))" : ""
    let times = report.loops == 1 ? "" : ", \(grouped(report.loops)) times"
    var lines = wrapped("Injected \(printable(report.file))\(times), for \(nanoseconds(report.elapsed_s * 1e9))\(rate).", width: 80).map(style.bold)
    func row(_ label: String, _ count: UInt64, _ rest: String = "", paint: (String) -> String = { $0 }) {
      lines.append("  " + rightPadded(label, to: 26) + paint(leftPadded(grouped(count), to: 13)) + (rest.isEmpty ? "" : "   " + rest))
    }
    row("sent", frames.sent, bytes(report.bytes_sent))
    if frames.replicated > 0 { row("copied by the card", frames.replicated, "multicast, for several VMs") }
    row("delivered", frames.delivered)
    for (name, count) in report.delivered.sorted(by: { $0.key < $1.key }) { row("  " + printable(name), count) }
    if frames.host > 0 { row("given to the host", frames.host) }
    row("dropped", frames.dropped, paint: frames.dropped > 0 ? style.odd : { $0 })
    for (reason, count) in report.dropped_by.filter({ $0.value > 0 }).sorted(by: { ($1.value, $0.key) < ($0.value, $1.key) }) {
      row("  " + printable(reason), count)
    }
    if let reason = report.interrupted { lines += wrapped("It ended before its time: \(printable(reason)).", width: 80).map(style.bad) }
    let isAccounted = Self.isAccounted(report)
    lines.append(isAccounted ? style.good("Every frame is accounted for.") : style.bad("Not well: sent and copied frames are not those delivered and dropped."))
    return lines.joined(separator: "\n") + "\n"
  }
}

/// What is said while an injection runs: one line that is redrawn on a terminal, a line now and then elsewhere.
struct InjectProgress {
  private let stream = StandardStream.error
  private var first: StatsReport?
  private var last: StatsReport?
  private var looks = 0
  private var drawn = RedrawnLine()
  var isFirst: Bool { first == nil }

  mutating func update(_ stats: StatsReport) {
    defer { last = stats }
    guard let first, let last, let rates = Rates(from: last, to: stats), let all = Rates(from: first, to: stats) else {
      first = stats
      return
    }
    looks += 1
    let line = Self.line(rates, since: all)
    if drawn.isTerminal {
      drawn.draw(line)
    } else if looks % 10 == 0 {
      stream.note(line + "\n")
    }
  }

  mutating func finish() { drawn.clear() }

  /// Of the whole back-end: other traffic is counted with it.
  static func line(_ rates: Rates, since all: Rates) -> String {
    let drops = all.vms.map(\.receive.drops).reduce(all.wire.drops, +) * all.seconds
    return [
      leftPadded(frameRate(rates.wire.frames), to: 14), leftPadded(bitRate(rates.wire.bits), to: 11),
      "dropped " + fixed(drops, 0), clock(all.seconds) + " elapsed",
    ].joined(separator: "  ")
  }
}
