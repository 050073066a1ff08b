import ArgumentParser
import Control
import ControlSocket
import FoundationEssentials
import Replay

/// `sluice inject FILE`
struct InjectCommand: CommandWithStatus {
  static let statuses: [(ExitStatus, String)] = [
    (.accounted, "every frame sent was delivered, or dropped for a reason that was counted"),
    (.unaccounted, "a frame is not accounted for"),
    (.stopped, "it ended before its time: the trace is damaged, or the back-end ended; the report says why"),
    (.usage, "bad usage: an option, a value, a trace or filter that the back-end refuses"),
  ] + ControlOptions.statuses.dropFirst() + [
    (.interrupted, "stopped by SIGINT; the back-end stopped with it"), (.terminated, "stopped by SIGTERM; the back-end stopped with it"),
  ]

  static let configuration = CommandConfiguration(
    commandName: "inject",
    abstract: "Put a capture on the wire of a running back-end, as if it came from the cable.",
    discussion: """
      Examples:
        sluice inject trace.pcap
        sluice inject trace.pcap --loop 100 --speed pps=100k
        sluice inject trace.pcap --filter 'udp port 53' --json | jq .delivered

      The back-end reads the file itself, as its own user. SIGINT ends an injection, with what it has sent until then.

      Exit statuses:
      \(ExitStatus.table(statuses))
      """)

  @OptionGroup var control: ControlOptions

  @Argument(help: .init("A capture (pcap, pcapng; Ethernet).", valueName: "file"), completion: .file()) var file: String
  @Option(name: .customLong("loop"), help: .init("Play it N times.", valueName: "n")) var loops = "1"
  @Option(help: .init("top: as fast as the card takes it, or pps=N: frames a second.", valueName: "speed"), completion: .list(["top", "pps="]))
  var speed = "top"
  @Option(help: .init("Only frames that match, in BPF's language: 'tcp port 80'.", valueName: "expr")) var filter: String?
  @Flag(help: "Print the report as JSON, as it came.") var json = false
  @Flag(name: .shortAndLong, help: "No progress.") var quiet = false

  func request() throws(Failure) -> InjectRequest {
    guard let count = Quantity.count(loops), let number = Int(exactly: count), number >= 1 else {
      throw .usage("--loop", loops, "must be a whole number, 1 or more")
    }
    guard !file.isEmpty, file != "-" else { throw .usage("inject", file, "the back-end reads the trace itself; name a file") }
    var pace = speed
    switch try SpeedOption.parse(speed) {
    case .top: break
    // In full: the back-end knows no suffixes.
    case .framesPerSecond(let rate): pace = "pps=\(rate == rate.rounded() && rate < 1e15 ? String(UInt64(rate)) : String(rate))"
    default: throw .usage("--speed", speed, "a running back-end knows top and pps=N")
    }
    // Its folder is another than ours.
    let path = file.hasPrefix("/") ? file : FileManager.default.currentDirectoryPath + "/" + file
    return InjectRequest(file: path, loops: number, speed: pace, filter: filter)
  }

  func finish() throws(Failure) -> ExitStatus {
    let request = try request()
    let body: String
    do { body = String(decoding: try JSONEncoder().encode(request), as: UTF8.self) } catch {
      throw .usage("inject", file, "\(error)")
    }
    // The client has a thread of its own.
    Signals.block(hangUp: false)
    let question = Question(control.path)
    let answer = try wait(for: body, question)
    let report = try Question.read(answer, as: InjectReport.self)
    let stream = StandardStream.output
    try stream.write(json ? answer : InjectText(report, colours: stream.showsColour).description)
    return InjectText.status(of: report)
  }

  /// Shows, while it waits, what the back-end counts.
  private func wait(for body: String, _ question: Question) throws(Failure) -> String {
    let bell = try Bell()
    let pending = question.client.start(.post, "/v1/inject", body: body, seconds: nil)
    let signals = try Signals { pending.cancel() }
    pending.whenDone { bell.ring() }
    var progress = InjectProgress()
    while !bell.wait(milliseconds: progress.isFirst ? 500 : 1000) {
      if !quiet, let stats = try? question.get("/v1/stats", as: StatsReport.self) { progress.update(stats) }
    }
    progress.finish()
    do { return try pending.wait() } catch {
      switch signals.received {
      case .interrupt?: throw Failure(status: .interrupted, message: "stopped; the back-end sends no more")
      case .terminate?: throw Failure(status: .terminated, message: "stopped; the back-end sends no more")
      case nil: throw Failure(error)
      }
    }
  }
}
