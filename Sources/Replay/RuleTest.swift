public import FlowSteering
internal import Linux
internal import Simulation

/// Rules held against traces, frame by frame, without a card: which rule takes how many, and whose they are.
public struct RuleTest {
  private let files: [String]
  private let filter: String?
  private let index: RuleIndex

  /// - Parameter filter: a BPF expression; only frames that match are looked at.
  public init(files: [String], filter: String?, steering: Steering) {
    (self.files, self.filter) = (files, filter)
    index = RuleIndex(steering)
  }

  /// - Parameters:
  ///   - isCancelled: asked now and then; what was counted until then is the answer.
  ///   - progress: called now and then.
  public func run(until isCancelled: () -> Bool = { false }, progress: (ReplayProgress) -> Void = { _ in }) throws(ReplayError) -> RuleTestReport {
    var options = ReplayOptions(files: files)
    options.filter = filter
    // Rules look at headers: a frame whose end was not captured has those.
    options.allowsTruncated = true
    options.preload = false
    var source = try TraceSource.open(options)
    let start = MonotonicClock.now()
    var tally = Tally(index.steering)
    var frames: UInt64 = 0
    while source.hasCurrent {
      let wire = unsafe source.current.wire
      unsafe tally.add(UnsafeRawBufferPointer(start: wire.bytes, count: wire.count).bindMemory(to: UInt8.self).span, by: index)
      source.consume()
      _ = try source.advance()
      frames &+= 1
      guard frames & 0xFFF == 0 else { continue }
      let elapsed = Double(MonotonicClock.now() - start) / 1e9
      progress(
        ReplayProgress(
          framesReceived: frames, framesDelivered: tally.copies, bytesDelivered: tally.bytes, framesDropped: tally.dropped, elapsed: elapsed,
          fraction: source.fraction))
      if isCancelled() { break }
    }
    var report = tally.report(index.steering)
    report.files = files
    report.frames = frames
    report.elapsed_s = Double(MonotonicClock.now() - start) / 1e9
    report.interrupted = isCancelled()
    report.trace_error = source.failure.map { "\($0)" }
    report.warnings = source.warnings
    return report
  }

  /// The bytes of the n-th frame of a trace, from 1.
  public static func frame(_ number: Int, of file: String) throws(ReplayError) -> [UInt8] {
    var options = ReplayOptions(files: [file])
    options.allowsTruncated = true
    options.preload = false
    var source = try TraceSource.open(options)
    var count = 0
    while source.hasCurrent {
      count += 1
      let wire = unsafe source.current.wire
      if count == number { return unsafe Array(UnsafeRawBufferPointer(start: wire.bytes, count: wire.count)) }
      source.consume()
      _ = try source.advance()
    }
    if let failure = source.failure { throw .unreadable("\(file): \(failure)") }
    throw .usage("\(file)#\(number): the trace has \(count) frame\(count == 1 ? "" : "s")")
  }
}

/// What came of rules and traces. Its names are those of its JSON.
public struct RuleTestReport: Codable, Sendable {
  public var files: [String] = []
  public var frames: UInt64 = 0
  public var rules: [Rule] = []
  public var vms: [VM] = []
  /// Copies that rules sent to the back-end itself.
  public var host = Count()
  /// Copies that a rule dropped.
  public var dropped = Count()
  /// Frames that no rule took, and that are nobody's.
  public var unmatched = Count()
  /// Frames too short to have an Ethernet header.
  public var short: UInt64 = 0
  /// Frames of which several VMs got a copy.
  public var replicated: UInt64 = 0
  public var elapsed_s = 0.0
  public var interrupted = false
  public var trace_error: String?
  public var warnings: [String: UInt64] = [:]

  public struct Count: Codable, Hashable, Sendable {
    public var frames: UInt64 = 0
    public var bytes: UInt64 = 0
  }
  public struct Rule: Codable, Hashable, Sendable {
    /// 0: it follows from a VM.
    public var id: Int
    public var text: String
    public var frames: UInt64
    public var bytes: UInt64
  }
  public struct VM: Codable, Hashable, Sendable {
    public var name: String
    public var frames: UInt64
    public var bytes: UInt64
    /// By queue, where a rule names one.
    public var queues: [UInt64]
    /// Left to the card.
    public var spread: UInt64
  }
}

/// Sums over frames.
private struct Tally {
  private var rules: [RuleTestReport.Count]
  private var vms: [RuleTestReport.Count]
  private var queues: [[UInt64]]
  private var spread: [UInt64]
  private var host = RuleTestReport.Count()
  private var drops = RuleTestReport.Count()
  private var unmatched = RuleTestReport.Count()
  private var short: UInt64 = 0
  private var replicated: UInt64 = 0

  var copies: UInt64 { vms.reduce(0) { $0 + $1.frames } }
  var bytes: UInt64 { vms.reduce(0) { $0 + $1.bytes } }
  var dropped: UInt64 { drops.frames + unmatched.frames }

  init(_ steering: Steering) {
    rules = Array(repeating: .init(), count: steering.rules.count)
    vms = Array(repeating: .init(), count: steering.receivers.count)
    queues = steering.receivers.map { Array(repeating: 0, count: $0.queueCount) }
    spread = Array(repeating: 0, count: steering.receivers.count)
  }

  private static func add(_ bytes: UInt64, to count: inout RuleTestReport.Count) {
    count.frames &+= 1
    count.bytes &+= bytes
  }

  mutating func add(_ frame: Span<UInt8>, by index: RuleIndex) {
    let bytes = UInt64(frame.count)
    var copies = 0
    // An address rule takes a frame once, however many copies it is of; a flow rule takes each VM's copy.
    var seenAddress = -1
    var seenFlow: (rule: Int, holder: Verdict.Holder)?
    index.decide(frame) { addressRule, copy in
      copies += 1
      if let addressRule, addressRule != seenAddress {
        seenAddress = addressRule
        Self.add(bytes, to: &rules[addressRule])
      }
      if let flowRule = copy.flowRule, seenFlow?.rule != flowRule || seenFlow?.holder != copy.holder {
        seenFlow = (flowRule, copy.holder)
        Self.add(bytes, to: &rules[flowRule])
      }
      switch copy.fate {
      case .deliver(let vm, let queue):
        Self.add(bytes, to: &vms[vm])
        if let queue { queues[vm][queue] &+= 1 } else { spread[vm] &+= 1 }
      case .host: Self.add(bytes, to: &host)
      case .drop: Self.add(bytes, to: &drops)
      case .unclaimed: Self.add(bytes, to: &unmatched)
      }
    }
    if copies == 0 { short &+= 1 }
    if copies > 1 { replicated &+= 1 }
  }

  func report(_ steering: Steering) -> RuleTestReport {
    var report = RuleTestReport()
    report.rules = zip(steering.rules, rules).map { RuleTestReport.Rule(id: $0.id, text: $0.text, frames: $1.frames, bytes: $1.bytes) }
    report.vms = steering.receivers.indices.map {
      RuleTestReport.VM(name: steering.receivers[$0].name, frames: vms[$0].frames, bytes: vms[$0].bytes, queues: queues[$0], spread: spread[$0])
    }
    (report.host, report.dropped, report.unmatched, report.short, report.replicated) = (host, drops, unmatched, short, replicated)
    return report
  }
}
