import ArgumentParser
import Benchmark
import Linux
import Replay

/// `sluice bench [FILE…]`
struct BenchCommand: CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "bench",
    abstract: "Measure the datapath on this machine: rates, costs of a frame, latencies.",
    discussion: """
      Short replays, as sluice replay does them: the card is a model of an 82599, register by register; the driver and the \
      datapath are the real ones; the guests run on a second processor. No card, no privileges, no DPDK. Without a \
      file the frames are synthetic: of one size, or IMIX.

      Points of a section take turns. Before and after each sample a cache line is sent to the other core and back, and \
      samples in which that time changed, or a thread was kept from its processor, are set aside. Figures are put \
      together from samples whose cores were equally far from each other, or not given: a report says which, and why. \
      Where too few samples are left a point is measured again, up to as often again.

      Examples:
        sluice bench
        sluice bench trace.pcap --html report.html
        sluice bench --quick --only rate,latency
        sluice bench trace.pcap --only ring,buffers --duration 5s
        sluice bench --json > before.json
        sluice bench --only rules --keep-traces /tmp/traces

      Exit statuses:
      \(ExitStatus.table(statuses))

      With --json standard output has one JSON object, whatever happens. README.md explains every key.
      """)

  static let statuses: [(ExitStatus, String)] = [
    (.accounted, "measured, and every frame is accounted for; where the machine was not quiet the report says so"),
    (.unaccounted, ExitStatus.unaccounted.meaning), (.unverified, "a guest's driver found a ring broken"),
    (.stopped, "a VM's path stopped before the end"), (.usage, "bad usage: an option, a value"),
    (.unreadable, ExitStatus.unreadable.meaning), (.nothingSent, "no frame in the traces"),
    (.machine, ExitStatus.machine.meaning), (.output, ExitStatus.output.meaning),
    (.interrupted, "stopped by SIGINT; what was measured until then is told"),
    (.terminated, "stopped by SIGTERM; what was measured until then is told"),
  ]

  @Argument(help: .init("Captures (pcap, pcapng; Ethernet) to replay. (default: synthetic frames)", valueName: "file"), completion: .file())
  var files: [String] = []

  @Option(
    help: .init("Only these sections, between commas: \(Section.allCases.map(\.rawValue).joined(separator: ", ")).", valueName: "name,..."),
    completion: .list(Section.allCases.map(\.rawValue)))
  var only: String?

  @Flag(help: "Say what would be measured, and measure nothing.")
  var list = false

  @Option(help: .init("How long each point is measured, all its samples together. (default: 1s)", valueName: "time"))
  var duration: String?

  @Option(help: .init("Samples of each point. (default: 5)", valueName: "n"))
  var rounds: String?

  @Flag(help: "As --duration 150ms --rounds 3: to see whether it works; its figures spread.")
  var quick = false

  @Option(help: .init("Bytes of payload that fit a frame of the files, 68 to 9710.", valueName: "bytes"))
  var mtu = "1500"

  @Option(help: .init("Processors for the datapath and the guests. (default: the first two)", valueName: "a,b"))
  var cpus: String?

  @Flag(help: "Let samples count that the machine disturbed.")
  var keepNoisy = false

  @Option(help: .init("Leave the synthetic traces in this folder, and sets of rules with them.", valueName: "folder"), completion: .directory)
  var keepTraces: String?

  @Option(help: .init("Write the report as one page for a browser, with plots.", valueName: "file"), completion: .file())
  var html: String?

  @Flag(help: "Print the report as JSON, and nothing else on standard output.")
  var json = false

  @Flag(name: .shortAndLong, help: "No progress, no report: only what went wrong.")
  var quiet = false

  func finish() throws(Failure) -> ExitStatus {
    let options = try options()
    if list {
      if json { throw .usage("--list: what would be measured is told as text; leave out --json") }
      try StandardStream.output.write(BenchList(Plan(options), options).description)
      return .accounted
    }
    if (options.processors ?? Array(Thread.processors.prefix(2))).count < 2 && !keepNoisy {
      throw .usage(
        "\(cpus.map { "--cpus \($0)" } ?? "one processor"): datapath and guests would wait for each other on it, and no sample would count; "
          + "give two, or --keep-noisy")
    }
    Warnings.unoptimised(Warnings.logger(quiet: quiet), "figures")
    let (report, signal) = try measure(options)
    // What was measured is worth telling, also where there is no room for a page of it.
    let problem = html.flatMap { html in TextFile.write(BenchPage(report).description, to: html).map { "--html \(html): \($0)" } }
    let status = ExitStatus(report, signal: signal, hasPage: problem == nil)
    if let problem { StandardStream.error.note("sluice: \(printable(problem))\n") }
    try show(report, status)
    return status
  }

  private func measure(_ options: BenchmarkOptions) throws(Failure) -> (BenchmarkReport, StopSignal?) {
    do throws(ReplayError) {
      let run = try BenchmarkRun(options)
      let signals = try Signals.ending { run.cancel() }
      var progress = BenchProgress(isOn: !quiet)
      defer { progress.finish() }
      var report = try run.run { progress.update($0) }
      report.machine.sluice = Sluice.version
      report.settings.command = command
      return (report, signals.received)
    } catch { throw Failure(error) }
  }

  /// As it was typed.
  private var command: String {
    (["sluice"] + CommandLine.arguments.dropFirst()).map(ReplayWords.quoted).joined(separator: " ")
  }

  private func show(_ report: BenchmarkReport, _ status: ExitStatus) throws(Failure) {
    let stream = StandardStream.output
    if json {
      try stream.write(BenchJSON.text(of: report, status: status, isPretty: stream.isTerminal) + "\n")
    } else if !quiet {
      try stream.write(BenchText(report, colours: stream.showsColour).description)
    } else {
      for finding in report.findings { StandardStream.error.note("sluice: \(printable(finding.text))\n") }
    }
  }
}

extension ExitStatus {
  /// A benchmark that came to its end, or was stopped. The gravest finding decides.
  ///
  /// - Parameter hasPage: false: the page that was asked for could not be written.
  init(_ report: BenchmarkReport, signal: StopSignal? = nil, hasPage: Bool = true) {
    let kinds = Set(report.findings.map(\.kind))
    self =
      if kinds.contains(.unaccounted) { .unaccounted }
      else if kinds.contains(.unverified) { .unverified }
      else if kinds.contains(.stopped) { .stopped }
      else if kinds.contains(.unreadable) { .unreadable }
      else if !hasPage { .machine }
      else if report.interrupted { signal == .terminate ? .terminated : .interrupted }
      else { .accounted }
  }
}
