import ArgumentParser
import Linux
import Replay

/// `sluice replay FILE…`
struct ReplayCommand: CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "replay",
    abstract: "Replay captures through a simulated 82599 and the real driver into guests' memory.",
    discussion: """
      Examples:
        sluice replay trace.pcap
        sluice replay trace.pcap --loop 1000 --preload
        sluice replay trace.pcap --speed original --duration 30s
        sluice replay trace.pcap --vm a,mac=02:00:00:00:00:01 --vm b,queues=2
        sluice replay trace.pcap --vm web,mac=02:00:00:00:00:01 --vm dns --rules site.rules
        sluice replay trace.pcap --vm a,buffers=small:256 --write a=received.pcap
        sluice replay trace.pcap --deterministic --seed 7 --event-log run.log
        sluice replay trace.pcap --filter 'udp port 53' --json | jq .frames

      Numbers take k, M, G, T (thousands) and Ki, Mi, Gi (1024); times take ms, s, m, h.

      Exit statuses:
      \(ExitStatus.table)
      A dropped frame whose reason was counted is accounted for. With several findings the first of 1, 2, 3, 65, \
      71, 130 or 143, 4 is the status.

      With --json standard output has one JSON object, whatever happens: the report, or
        {"error":{"kind":"unreadable","message":"..."},"schema":1,"status":65}
      README.md explains every key.
      """)

  @OptionGroup(title: "Traces") var traces: TraceOptions
  @OptionGroup(title: "Pace and length") var pace: PaceOptions
  @OptionGroup(title: "Guests") var guests: GuestOptions
  @OptionGroup(title: "Datapath") var datapath: DatapathOptions
  @OptionGroup(title: "Checks and output") var output: OutputOptions

  struct TraceOptions: ParsableArguments {
    @Argument(help: .init("Captures (pcap, pcapng; Ethernet), replayed in this order; - is standard input.", valueName: "file"), completion: .file())
    var files: [String]

    @Option(name: .customLong("filter"), help: .init("Replay only frames that match, in BPF's language: 'tcp port 80'.", valueName: "expr"))
    var filter: String?

    @Flag(help: "Replay frames whose end was not captured as they are; else they are counted and left out.")
    var allowTruncated = false

    @Flag(inversion: .prefixedNo, help: "Read the traces into memory first. (default: up to 256 MiB)")
    var preload: Bool?
  }

  struct PaceOptions: ParsableArguments {
    @Option(name: .customLong("loop"), help: .init("Play the traces N times. (default: 1; with --duration, until that ends)", valueName: "n"))
    var loops: String?

    @Option(help: .init("End after this time: 500ms, 10s, 2m, 1h.", valueName: "time"))
    var duration: String?

    @Option(
      help: .init("original, xN (x2 is twice as fast), pps=N, mbps=N, gbps=N (bits on the line), or top: as fast as the guests take it.", valueName: "speed"),
      completion: .list(["original", "x2", "pps=", "mbps=", "gbps=", "top"]))
    var speed = "top"
  }

  struct GuestOptions: ParsableArguments {
    @Option(
      name: .customLong("vm"),
      help: .init(
        """
        A VM, as NAME[,key=value...]; may be repeated. Keys: mac, vlan: whose frames it gets (one VM alone: \
        everything; several: 02:00:00:00:00:01 and so on); queues: 1, 2 or 4; buffers: \(VMOption.shapes.joined(separator: ", ")), \
        with :BYTES for another size; stall-after: frames after which it takes no more.
        """, valueName: "vm"))
    var vms: [String] = []

    @Option(
      name: .customLong("rules"),
      help: .init("Rules for which frames go to whom, one a line; see sluice rules. A VM without mac then gets only what they give it.", valueName: "file"),
      completion: .file())
    var rules: [String] = []

    @Option(help: .init("Receive queues of VMs that do not say: 1, 2 or 4.", valueName: "n"), completion: .list(["1", "2", "4"]))
    var queues = "1"

    @Option(help: .init("Entries of each guest ring: a power of two from 2 to 32768.", valueName: "n"))
    var ringSize = "1024"

    @Option(help: .init("Bytes of each guest's memory, over which its buffers are spread: 256Mi, 4Gi. (default: what they take)", valueName: "bytes"))
    var guestMemory: String?

    @Option(help: .init("Bytes of payload that fit a frame, 68 to 9710.", valueName: "bytes"))
    var mtu = "1500"

    @Option(
      name: .customLong("write"),
      help: .init("Write what a VM received to a pcap file, as [VM=]FILE; without a VM, what all did. May be repeated.", valueName: "file"),
      completion: .file())
    var captures: [String] = []
  }

  struct DatapathOptions: ParsableArguments {
    @Option(
      help: .init("auto: lend what can be lent, copy the rest; required: lend or stop; copy: copy all.", valueName: "mode"),
      completion: .list(["auto", "required", "copy"]))
    var mode = "auto"

    @Option(help: .init("Processors for the datapath and the guests. (default: the first two)", valueName: "a,b"))
    var cpus: String?

    @Flag(help: "Take guest memory from huge pages.")
    var hugePages = false

    @Flag(help: "One thread and simulated time: the same seed gives the same events.")
    var deterministic = false

    @Option(help: .init("What everything random is drawn from.", valueName: "n"))
    var seed = "1"

    @Option(help: .init("Write each event of a deterministic run to FILE.", valueName: "file"), completion: .file())
    var eventLog: String?
  }

  struct OutputOptions: ParsableArguments {
    @Flag(inversion: .prefixedNo, help: "Compare what each guest finds in its memory with the trace, by SHA-256. (default: up to 1 GiB)")
    var verify: Bool?

    @Flag(help: "Exit with status 4 if a frame was dropped, even if the reason is known.")
    var failOnDrop = false

    @Flag(help: "Print the report as JSON, and nothing else on standard output.")
    var json = false

    @Flag(name: .shortAndLong, help: "No progress, no report: only what went wrong.")
    var quiet = false
  }

  /// Replays, and prints what came of it.
  func finish() throws(Failure) -> ExitStatus {
    let options = try options()
    Warnings.unoptimised(Warnings.logger(quiet: output.quiet), "rates and costs")
    let (report, signal) = try Self.run(options, showsProgress: !output.quiet)
    let status = ExitStatus(report, failsOnDrop: output.failOnDrop, signal: signal)
    try show(report, status)
    return status
  }

  private static func run(
    _ options: ReplayOptions, showsProgress: Bool
  ) throws(Failure) -> (ReplayReport, StopSignal?) {
    do throws(ReplayError) {
      let replay = try Replay(options)
      let signals = try Signals.ending { replay.cancel() }
      var progress = Progress { Double(MonotonicClock.now()) / 1e9 }
      defer { progress.finish() }
      let report = try replay.run { if showsProgress { progress.update($0) } }
      return (report, signals.received)
    } catch {
      throw Failure(error)
    }
  }

  private func show(_ report: ReplayReport, _ status: ExitStatus) throws(Failure) {
    let stream = StandardStream.output
    if output.json {
      try stream.write(JSONReport.text(of: report, status: status, isPretty: stream.isTerminal) + "\n")
    } else if !output.quiet {
      let text = TextReport(report, status: status, colours: stream.showsColour)
      try stream.write(text.description)
    } else if status != .accounted {
      if let error = report.trace_error { StandardStream.error.note("sluice: " + printable(error) + "\n") }
      StandardStream.error.note("sluice: " + TextReport.verdict(report, status) + "\n")
    }
  }
}
