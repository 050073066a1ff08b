import ArgumentParser
import ControlSocket
import Linux

/// `sluice stats [--watch] [SECONDS]`
struct StatsCommand: CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "stats",
    abstract: "Show what passes through a running back-end: frames and bits a second, lent and dropped, by VM.",
    discussion: """
      Examples:
        sluice stats
        sluice stats 10
        sluice stats --watch
        sluice stats --watch 5 | tee stats.log
        sluice stats --json | jq '.vms.web.receive.frames_per_second'

      Rates are those between two looks at the back-end's counters. With --watch they are shown again and again, until \
      SIGINT: on a terminal the table is drawn anew, elsewhere there is a line for each VM, with --json an object a \
      line. A back-end that ends and comes back is waited for.

      Exit statuses:
      \(ExitStatus.table([(.accounted, "the back-end answered; --watch was stopped")] + ControlOptions.statuses))
      """)

  @OptionGroup var control: ControlOptions

  @Flag(help: "Go on until SIGINT.") var watch = false
  @Argument(help: .init("Between two looks: 500ms, 5s, 5. (default: 1)", valueName: "seconds")) var interval = "1"
  @Flag(help: "Print rates as JSON, an object a line.") var json = false

  func finish() throws(Failure) -> ExitStatus {
    guard let seconds = Quantity.seconds(interval), (0.01...86_400).contains(seconds) else {
      throw .usage("stats", interval, "not a time from 10ms to 24h; write it like 500ms, 5s or 5")
    }
    // The client has a thread of its own.
    if watch { Signals.block(hangUp: false) }
    let question = Question(control.path)
    // Where nobody is from the beginning there is nothing to wait for.
    var last = try question.get("/v1/stats", as: StatsReport.self)
    guard watch else {
      while true {
        MonotonicClock.sleep(nanoseconds: UInt64(seconds * 1e9))
        let next = try question.get("/v1/stats", as: StatsReport.self)
        defer { last = next }
        guard let rates = Rates(from: last, to: next) else { continue }
        let stream = StandardStream.output
        try stream.write(json ? RatesJSON(rates).text + "\n" : RatesText.table(rates, colours: stream.showsColour, columns: .max))
        return .accounted
      }
    }
    try go(on: question, from: last, every: seconds)
    return .accounted
  }

  private func go(on question: Question, from first: StatsReport, every seconds: Double) throws(Failure) {
    let bell = try Bell()
    let signals = try Signals { bell.ring() }
    var screen = Screen(json: json)
    defer { screen.leave() }
    var last = first
    while true {
      if bell.wait(milliseconds: Int(seconds * 1000)) || signals.received != nil { return }
      do throws(Failure) {
        let next = try question.get("/v1/stats", as: StatsReport.self)
        if let rates = Rates(from: last, to: next) { try screen.show(rates) } else { screen.note("the back-end was started anew") }
        last = next
      } catch {
        if error.status == .output { throw error }
        screen.note(error.message)
      }
    }
  }
}

/// Where rates are shown: a terminal's second screen, or standard output line by line.
private struct Screen {
  private let stream = StandardStream.output
  private let json: Bool
  private let redraws: Bool

  init(json: Bool) {
    self.json = json
    redraws = stream.isTerminal && !json
    // The other screen, without a cursor: what stood on the terminal is there again afterwards.
    if redraws { stream.note("\u{1B}[?1049h\u{1B}[?25l") }
  }

  mutating func show(_ rates: Rates) throws(Failure) {
    if json { return try stream.write(RatesJSON(rates).text + "\n") }
    if !redraws { return try stream.write(RatesText.lines(rates)) }
    let table = RatesText.table(rates, colours: stream.showsColour, columns: stream.columns ?? 80)
    draw(table)
  }

  mutating func note(_ text: String) {
    if redraws { draw("\(printable(text))\n") } else { StandardStream.error.note("sluice: \(printable(text))\n") }
  }

  /// Each line clears what stood behind it, so that nothing flickers.
  private func draw(_ text: String) {
    stream.note("\u{1B}[H" + text.split(separator: "\n", omittingEmptySubsequences: false).map { $0 + "\u{1B}[K" }.joined(separator: "\n") + "\u{1B}[J")
  }

  mutating func leave() { if redraws { stream.note("\u{1B}[?25h\u{1B}[?1049l") } }
}
