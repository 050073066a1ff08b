import FlowSteering
import FoundationEssentials
import Replay

/// The report as JSON: a documented, stable interface. `ReplayReport` with its keys; what is not known is null rather
/// than left out, and whether each law holds, whether all do, and the exit status are said.
struct JSONReport: Encodable {
  let report: ReplayReport
  let status: ExitStatus

  /// - Parameter isPretty: over many lines, for a person; else in one.
  static func text(of report: ReplayReport, status: ExitStatus, isPretty: Bool) -> String {
    encode(JSONReport(report: report, status: status), isPretty: isPretty)
  }

  /// What stands there instead of a report when there is none.
  static func text(of failure: Failure) -> String {
    struct Body: Encodable {
      struct Problem: Encodable {
        let kind, message: String
        var code, reason, fit, rule, holder, field: String?
        var line, column: Int?
      }
      let error: Problem
      let schema: Int
      let status: Int32
    }
    var problem = Body.Problem(kind: failure.kind, message: failure.message)
    if let rule = failure.rule {
      (problem.code, problem.reason, problem.fit, problem.rule) = (rule.code.rawValue, rule.reason, rule.fit, rule.rule)
      (problem.holder, problem.field, problem.line, problem.column) = (rule.holder, rule.field, rule.line, rule.column)
    }
    return encode(Body(error: problem, schema: ReplayReport().schema, status: failure.status.rawValue), isPretty: false)
  }

  static func encode(_ value: some Encodable, isPretty: Bool) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = isPretty ? [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted] : [.sortedKeys, .withoutEscapingSlashes]
    do { return String(decoding: try encoder.encode(value), as: UTF8.self) } catch {
      preconditionFailure("a report that JSON cannot hold: \(error)")
    }
  }

  private struct Key: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }
    init(_ text: String) { stringValue = text }
    init(stringValue: String) { self.init(stringValue) }
    init?(intValue: Int) { nil }
  }

  func encode(to encoder: any Encoder) throws {
    var keys = encoder.container(keyedBy: Key.self)
    func put(_ name: String, _ value: some Encodable) throws { try keys.encode(value, forKey: Key(name)) }
    try put("schema", report.schema)
    try put("status", status.rawValue)
    try put("accounted", report.isAccountedFor)
    try put("files", report.files)
    try put("frames", report.frames)
    try put("bytes", report.bytes)
    try put("bounced_by", report.bounced_by)
    try put("dropped_by", report.dropped_by)
    try put("vms", report.vms.mapValues(VM.init))
    try put("vm_order", report.vm_order)
    try put("verified", report.verified)
    try put("verification_errors", report.verification_errors)
    try put("rules", report.rules.map(Rule.init))
    try put("host", report.host)
    try put("conservation", report.conservation.map(Law.init))
    try put("iommu", report.iommu)
    try put("rate", numbers(["frames_per_second": report.rate.frames_per_second, "bits_per_second": report.rate.bits_per_second]))
    try put(
      "cost",
      numbers([
        "datapath_ns_per_frame": report.cost.datapath_ns_per_frame, "model_ns_per_frame": report.cost.model_ns_per_frame,
        "source_ns_per_frame": report.cost.source_ns_per_frame,
      ]))
    try put("latency_ns", report.latency_ns)
    try put("due_latency_ns", report.due_latency_ns)
    try put("pacing", Pacing(pacing: report.pacing))
    try put("elapsed_s", finite(report.elapsed_s))
    try put("loops", report.loops)
    try put("seed", report.seed)
    try put("deterministic", report.deterministic)
    try put("mode", report.mode)
    try put("waited_ns", report.waited_ns)
    try put("warnings", report.warnings)
    try put("trace_error", report.trace_error)
    try put("output_error", report.output_error)
    try put("interrupted", report.interrupted)
  }

  private struct VM: Encodable {
    let vm: ReplayReport.VM
    func encode(to encoder: any Encoder) throws {
      try vm.encode(to: encoder)
      var keys = encoder.container(keyedBy: Key.self)
      try keys.encode(vm.sha256, forKey: Key("sha256"))
      try keys.encode(vm.stopped, forKey: Key("stopped"))
    }
  }

  private struct Rule: Encodable {
    let rule: ReplayReport.Rule
    func encode(to encoder: any Encoder) throws {
      try rule.encode(to: encoder)
      var keys = encoder.container(keyedBy: Key.self)
      try keys.encode(rule.frames, forKey: Key("frames"))
      try keys.encode(rule.bytes, forKey: Key("bytes"))
    }
  }

  private struct Law: Encodable {
    let law: ReplayReport.Law
    func encode(to encoder: any Encoder) throws {
      try law.encode(to: encoder)
      var keys = encoder.container(keyedBy: Key.self)
      try keys.encode(law.holds, forKey: Key("holds"))
    }
  }

  private struct Pacing: Encodable {
    let pacing: ReplayReport.Pacing
    func encode(to encoder: any Encoder) throws {
      var keys = encoder.container(keyedBy: Key.self)
      try keys.encode(pacing.asked, forKey: Key("asked"))
      try keys.encode(finite(pacing.asked_frames_per_second), forKey: Key("asked_frames_per_second"))
      try keys.encode(finite(pacing.achieved_frames_per_second), forKey: Key("achieved_frames_per_second"))
      try keys.encode(finite(pacing.error_percent), forKey: Key("error_percent"))
      try keys.encode(pacing.late_p99_ns, forKey: Key("late_p99_ns"))
      try keys.encode(pacing.late_max_ns, forKey: Key("late_max_ns"))
    }
  }
}

/// JSON has no infinity: what is not a number is null.
private func finite(_ number: Double?) -> Double? { number.flatMap { $0.isFinite ? $0 : nil } }
private func numbers(_ values: [String: Double]) -> [String: Double?] { values.mapValues { finite($0) } }
