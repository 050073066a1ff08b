internal import Capture
internal import Datapath
internal import FlowSteering
internal import Linux
public import Replay
internal import Simulation

/// Measures what a plan has: short replays, the points of a section in turn, each between two pings of the cores.
///
///     let run = try BenchmarkRun(options)
///     let report = try run.run { progress in … }
public final class BenchmarkRun: @unchecked Sendable {
  private let options: BenchmarkOptions
  public let plan: Plan
  private let processors: [Int]
  private let cancelled = SharedWord()
  /// By part, and by point.
  private var samples: [[[Sample]]]
  private var findings: [BenchmarkReport.Finding] = []
  private let nanosecondsPerTick: Double

  /// - Throws: `usage` if what is asked for does not fit together.
  public init(_ options: BenchmarkOptions) throws(ReplayError) {
    guard options.rounds > 0 else { throw .usage("--rounds \(options.rounds): must be at least 1") }
    guard options.secondsPerPoint > 0, options.secondsPerPoint.isFinite else {
      throw .usage("--duration \(options.secondsPerPoint): must be more than 0")
    }
    self.options = options
    plan = Plan(options)
    processors = options.processors ?? Array(Thread.processors.prefix(2))
    samples = plan.parts.map { Array(repeating: [], count: $0.points.count) }
    nanosecondsPerTick = 1e9 / TickCounter.measureRate()
  }

  /// Ends early, from any thread: the run returns what was measured until then.
  public func cancel() { cancelled.set(1) }
  private var isCancelled: Bool { cancelled.value != 0 }

  /// - Parameter progress: called now and then on the calling thread.
  public func run(progress: (BenchmarkProgress) -> Void = { _ in }) throws(ReplayError) -> BenchmarkReport {
    let start = MonotonicClock.now()
    let traces = try TraceFolder(options.traceFolder)
    defer { traces.remove() }
    var done = 0
    func tell(_ part: Int, _ point: Int) {
      let all = max(plan.pointCount * options.rounds, done + 1)
      progress(
        BenchmarkProgress(
          section: plan.parts[part].section, point: plan.parts[part].points[point], samples: done, of: all,
          elapsed: Double(MonotonicClock.now() - start) / 1e9))
    }
    for part in plan.parts.indices {
      let points = plan.parts[part].points.indices
      for round in 0..<options.rounds + options.extraRounds {
        let judgement = judgement
        let distance = judgement.prevailing(in: samples[part])
        let lacking = points.filter { round < options.rounds || !judgement.hasEnough(samples[part][$0], at: distance) }
        // A point that is measured again is so beside those that it is compared with.
        // One that no round helps is left as it is.
        if round > options.rounds, !samples[part].joined().contains(where: { $0.round == round - 1 && judgement.counts($0) }) { break }
        let wanted = points.filter { point in
          lacking.contains(point) || lacking.contains { plan.parts[part].points[$0].base == point }
        }
        for point in wanted where !isCancelled {
          tell(part, point)
          try measure(part, point, round: round, in: traces)
          if round < options.rounds { done += 1 }
        }
      }
    }
    var report = report()
    report.elapsed_s = Double(MonotonicClock.now() - start) / 1e9
    report.interrupted = isCancelled
    return report
  }

  // MARK: One sample

  private func measure(_ part: Int, _ number: Int, round: Int, in traces: TraceFolder) throws(ReplayError) {
    let point = plan.parts[part].points[number]
    var replay = point.options
    if round == 0 { try traces.keep(replay.rules) }
    replay.files = try traces.files(of: point.trace)
    replay.processors = processors
    if let share = point.share {
      // What was measured just before, in this round.
      guard let highest = samples[part][0].last?.figures[FigureName.frames], highest > 0 else { return }
      replay.pace = .framesPerSecond(highest * share)
    }
    let pingBefore = ping()
    let (before, start) = (Disturbance.now(), MonotonicClock.now())
    let report = try run(replay)
    let (after, end) = (Disturbance.now(), MonotonicClock.now())
    if isCancelled { return }
    guard let report else { return }
    var sample = Sample(report, round: round)
    if let pingBefore, let pingAfter = ping() { sample.pings = (pingBefore, pingAfter) }
    sample.isPreempted = !after.since(before, waited: report.waited_ns.map { max($0.datapath, $0.guests) }).isSmall(in: Double(end - start) / 1e9)
    samples[part][number].append(sample)
    note(report, of: plan.parts[part].section, point)
  }

  private func ping() -> Double? { CorePing.measure(between: processors, nanosecondsPerTick: nanosecondsPerTick) }

  /// Nil: it was stopped before its first frame.
  private func run(_ options: ReplayOptions) throws(ReplayError) -> ReplayReport? {
    let replay = try Replay(options)
    do throws(ReplayError) {
      return try replay.run { _ in if isCancelled { replay.cancel() } }
    } catch {
      if case .nothingSent = error, isCancelled { return nil }
      throw error
    }
  }

  private func note(_ report: ReplayReport, of section: Section, _ point: Point) {
    func add(_ kind: BenchmarkReport.Finding.Kind, _ text: String) {
      let finding = BenchmarkReport.Finding(kind: kind, text: text)
      if !findings.contains(finding) { findings.append(finding) }
    }
    let place = "\(section.rawValue), \(point.label), \(point.series)"
    for law in report.conservation where !law.holds { add(.unaccounted, "\(place): \(law.name) does not hold: \(law.left) against \(law.right)") }
    if report.iommu.faults > 0 { add(.unaccounted, "\(place): the IOMMU refused the card \(report.iommu.faults) accesses") }
    for (name, vm) in report.vms.sorted(by: { $0.key < $1.key }) {
      if let first = vm.violations.first { add(.unverified, "\(place): VM \(name)'s driver objects: \(first)") }
      if let reason = vm.stopped { add(.stopped, "\(place): VM \(name)'s path stopped: \(reason)") }
    }
    if let error = report.trace_error { add(.unreadable, error) }
  }

  // MARK: The report

  private var judgement: Judgement {
    Judgement(samples.joined().joined(), keepsNoisy: options.keepsNoisy, fewestSamples: options.fewestSamples)
  }

  private func report() -> BenchmarkReport {
    let judgement = judgement
    var report = BenchmarkReport()
    report.files = options.files
    report.findings = findings
    report.machine = BenchmarkReport.Machine(processor: processors.first ?? 0)
    report.settings.rounds = options.rounds
    report.settings.seconds_per_sample = options.secondsPerSample
    report.settings.processors = processors
    report.settings.keeps_noisy = options.keepsNoisy
    report.settings.fewest_samples = options.fewestSamples
    let all = Array(samples.joined().joined())
    report.quiet.samples = all.count
    report.quiet.set_aside = all.count { !judgement.counts($0) }
    report.quiet.moved = all.count(where: \.hasMoved)
    report.quiet.preempted = all.count(where: \.isPreempted)
    report.quiet.distances = judgement.distances.indices.map { number in
      let own = all.filter { judgement.counts($0) && judgement.distance(of: $0) == number }
      return .init(
        name: judgement.name(ofDistance: number), ping_ns: Statistics.median(own.compactMap(\.ping)) ?? 0, samples: own.count)
    }
    report.sections = plan.parts.indices.map { section($0, judgement) }
    return report
  }

  private func section(_ index: Int, _ judgement: Judgement) -> BenchmarkReport.Part {
    let (part, samples) = (plan.parts[index], samples[index])
    let distance = judgement.prevailing(in: samples)
    let points = zip(part.points, samples).map { point, own in
      var measured = BenchmarkReport.Measured(series: point.series, label: point.label, x: point.x, replay: ReplayWords.command(of: point, rate: nil))
      judgement.judge(own, at: distance, into: &measured)
      if let share = point.share {
        let highest = judgement.accepted(samples[0], at: distance).compactMap { $0.figures[FigureName.frames] }
        measured.replay = ReplayWords.command(of: point, rate: Statistics.median(highest).map { $0 * share })
      }
      if let base = point.base, measured.refused == nil {
        let figure = part.section == .buffers || part.section == .memory ? FigureName.host : FigureName.datapath
        measured.ratio = judgement.ratio(own, to: samples[base], of: figure, at: distance).map {
          .init(figure: figure, against: "\(part.points[base].label), \(part.points[base].series)", value: $0)
        }
      }
      return measured
    }
    let pings = samples.joined().filter { judgement.counts($0) && judgement.distance(of: $0) == distance }.compactMap(\.ping)
    return BenchmarkReport.Part(
      section: part.section, frames: part.frames, distance: pings.isEmpty ? nil : distance.map(judgement.name), ping_ns: Statistics.median(pings), points: points)
  }
}

/// Where a benchmark stands.
public struct BenchmarkProgress: Sendable {
  public var section: Section
  public var point: Point
  /// Replays done, and those that there are to be; more where the machine is not quiet.
  public var samples: Int
  public var of: Int
  /// Seconds since the start.
  public var elapsed: Double
}
