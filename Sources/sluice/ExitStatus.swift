import Replay

/// How the program ends, for scripts. Statuses from 64 on are those of sysexits.h.
enum ExitStatus: Int32, CaseIterable {
  case accounted = 0
  case unaccounted = 1
  case unverified = 2
  case stopped = 3
  case dropped = 4
  case usage = 64
  case unreadable = 65
  case nothingSent = 66
  case unavailable = 69
  case machine = 71
  case output = 74
  case permission = 77
  case configuration = 78
  case interrupted = 130
  case terminated = 143

  /// What each says of a replay; of other commands it is in their own tables.
  static let replay: [ExitStatus] = [
    .accounted, .unaccounted, .unverified, .stopped, .dropped, .usage, .unreadable, .nothingSent, .machine, .output,
    .interrupted, .terminated,
  ]

  var meaning: String {
    switch self {
    case .accounted: "every frame is accounted for, and what was compared is right"
    case .unaccounted: "a sum does not balance, or the IOMMU refused the card an access"
    case .unverified: "a VM did not get exactly its frames, or its driver found a ring broken"
    case .stopped: "a VM's path stopped before the end (--mode required, a broken ring)"
    case .dropped: "frames were dropped, and --fail-on-drop was given"
    case .usage: "bad usage: an option, a value, a filter"
    case .unreadable: "a trace cannot be read, or not to its end"
    case .nothingSent: "nothing was sent: no frame in the traces, or none that the filter leaves"
    case .unavailable: "no back-end answers at the control socket, or it cannot do now what is asked for"
    case .machine: "the machine refused something: memory, a thread, a file to write"
    case .output: "the report cannot be written to standard output"
    case .permission: "permission denied at the control socket"
    case .configuration: "a configuration file cannot be read, or has errors: each is told with its line"
    case .interrupted: "stopped by SIGINT; what was done until then is accounted for"
    case .terminated: "stopped by SIGTERM; what was done until then is accounted for"
    }
  }

  /// A replay that came to its end, or was stopped. The gravest finding decides.
  ///
  /// - Parameter signal: the one that stopped it, if one did.
  init(_ report: ReplayReport, failsOnDrop: Bool = false, signal: StopSignal? = nil) {
    self =
      if !report.isAccountedFor { .unaccounted }
      else if report.verified == false || report.vms.values.contains(where: { !$0.violations.isEmpty }) { .unverified }
      else if report.vms.values.contains(where: { $0.stopped != nil }) { .stopped }
      else if report.trace_error != nil { .unreadable }
      else if report.output_error != nil { .machine }
      else if report.interrupted { signal == .terminate ? .terminated : .interrupted }
      else if failsOnDrop && report.frames.dropped > 0 { .dropped }
      else { .accounted }
  }

  /// As the help shows them.
  static var table: String { table(replay.map { ($0, $0.meaning) }) }

  static func table(_ rows: [(ExitStatus, String)]) -> String {
    rows.map { leftPadded(String($0.0.rawValue), to: 5) + "  " + $0.1 }.joined(separator: "\n")
  }
}
