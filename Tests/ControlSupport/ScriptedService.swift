import Control
import Foundation
import Linux

/// A back-end of which a test says what it answers. There is no card and no guest behind it.
public final class ScriptedService: BackendService {
  private struct State {
    var status = statusFixture()
    var requests: [InjectRequest] = []
    var rules = RulesReport()
    var changes: [RuleChange] = []
    var reloads: [Configuration] = []
    var cancelled = 0
    var error: ControlError?
    var holdsStatus = false
    var isStopped = false
    var frames: UInt64 = 1000
  }
  private let state = Mutex(State())
  private let end = DispatchSemaphore(value: 0)

  public init() {}

  public var requests: [InjectRequest] { state.withLock { $0.requests } }
  public var changes: [RuleChange] { state.withLock { $0.changes } }
  public func set(rules: RulesReport) { state.withLock { $0.rules = rules } }
  public var reloads: [Configuration] { state.withLock { $0.reloads } }
  /// Injections that ended because their task was cancelled.
  public var cancelled: Int { state.withLock { $0.cancelled } }
  public func set(status: StatusReport) { state.withLock { $0.status = status } }
  public func fail(with error: ControlError?) { state.withLock { $0.error = error } }
  /// No status comes until the task that asked is cancelled.
  public func holdStatus() { state.withLock { $0.holdsStatus = true } }

  public func status() async throws(ControlError) -> StatusReport {
    let (error, holds) = state.withLock { ($0.error, $0.holdsStatus) }
    if let error { throw error }
    if holds { await waitForCancellation() }
    return state.withLock { state in
      // Each look sees a little more traffic, and time.
      state.status.uptime_s += 1
      state.status.nic.received.frames += 100
      return state.status
    }
  }

  public func rules() async throws(ControlError) -> RulesReport {
    if let error = state.withLock({ $0.error }) { throw error }
    return state.withLock { $0.rules }
  }
  /// Answers what was asked as if it had been done.
  public func change(_ change: RuleChange) async throws(ControlError) -> RulesReport {
    if let error = state.withLock({ $0.error }) { throw error }
    return state.withLock { state in
      state.changes.append(change)
      var report = state.rules
      report.added = (change.add ?? []).enumerated().map { RulesReport.Rule(id: $0.offset + 1, text: $0.element) }
      report.removed = (change.delete ?? []).map { RulesReport.Rule(id: $0, text: "id \($0) prio 100 match any then drop") }
      report.dry_run = change.dry_run == true
      return report
    }
  }

  /// A file named `forever` goes on until it is cancelled.
  public func inject(_ request: InjectRequest) async throws(ControlError) -> InjectReport {
    let error = state.withLock { state in
      state.requests.append(request)
      return state.error
    }
    if let error { throw error }
    let isEndless = request.file.hasSuffix("forever")
    if isEndless { await waitForCancellation() }
    return state.withLock { state in
      if isEndless { state.cancelled += 1 }
      return injectFixture(file: request.file, interrupted: isEndless ? "the client has gone" : nil)
    }
  }

  private func waitForCancellation() async {
    while !Task.isCancelled { try? await Task.sleep(for: .seconds(3600)) }
  }

  public func run() { end.wait() }
  public func stop() {
    if state.withLock({ state in
      defer { state.isStopped = true }
      return !state.isStopped
    }) { end.signal() }
  }
  public func reload(_ configuration: Configuration) -> [String] {
    state.withLock { $0.reloads.append(configuration) }
    return ["nic.mtu: changes at the next restart"]
  }
}
