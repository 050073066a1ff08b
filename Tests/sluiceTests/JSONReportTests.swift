import Foundation
import Replay
import Testing

@testable import sluice

struct JSONReportTests {
  /// The keys that a script may rely on. What goes away here is a new `schema`.
  static let keys: Set<String> = [
    "accounted", "bounced_by", "bytes", "conservation", "cost", "deterministic", "dropped_by", "due_latency_ns", "elapsed_s", "files",
    "frames", "host", "interrupted", "iommu", "latency_ns", "loops", "mode", "pacing", "rate", "rules", "schema", "seed", "status",
    "output_error", "trace_error", "verification_errors", "verified", "vm_order", "vms", "waited_ns", "warnings",
  ]
  static let inner: [String: Set<String>] = [
    "frames": ["read", "skipped", "received", "replicated", "delivered", "lent", "bounced", "dropped"],
    "bytes": ["received", "delivered", "copied"],
    "iommu": ["faults", "maps", "first"],
    "rate": ["frames_per_second", "bits_per_second"],
    "cost": ["datapath_ns_per_frame", "model_ns_per_frame", "source_ns_per_frame"],
    "latency_ns": ["p50", "p90", "p99", "p999", "p9999", "max"],
    "pacing": [
      "asked", "asked_frames_per_second", "achieved_frames_per_second", "error_percent", "late_p99_ns", "late_max_ns",
    ],
  ]
  static let vmKeys: Set<String> = [
    "delivered", "lent", "bounced", "dropped", "bytes", "sha256", "bounced_by", "dropped_by", "steering", "buffers",
    "queues", "stopped", "violations",
  ]

  private func object(_ text: String) throws -> [String: Any] {
    try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
  }

  @Test(arguments: [goodReport(), badReport(), ReplayReport()], [true, false])
  func `every documented key is there, and no other`(report: ReplayReport, isPretty: Bool) throws {
    let json = try object(JSONReport.text(of: report, status: .accounted, isPretty: isPretty))
    #expect(Set(json.keys) == Self.keys)
    for (key, names) in Self.inner { #expect(Set((json[key] as? [String: Any] ?? [:]).keys) == names, "\(key)") }
    for vm in (json["vms"] as? [String: [String: Any]] ?? [:]).values { #expect(Set(vm.keys) == Self.vmKeys) }
    for rule in json["rules"] as? [[String: Any]] ?? [] { #expect(Set(rule.keys) == ["id", "text", "frames", "bytes"]) }
    for law in json["conservation"] as? [[String: Any]] ?? [] {
      #expect(Set(law.keys) == ["name", "left", "right", "holds"])
    }
  }

  @Test(arguments: [goodReport(), badReport(), ReplayReport()])
  func `it reads back as the report that it was`(report: ReplayReport) throws {
    let text = JSONReport.text(of: report, status: .accounted, isPretty: false)
    #expect(try JSONDecoder().decode(ReplayReport.self, from: Data(text.utf8)) == report)
  }

  @Test func `it is one line, or many for a person`() {
    #expect(!JSONReport.text(of: badReport(), status: .accounted, isPretty: false).contains("\n"))
    #expect(JSONReport.text(of: badReport(), status: .accounted, isPretty: true).contains("\n"))
  }

  @Test func `what is not known is null, and the verdict is said`() {
    let text = JSONReport.text(of: ReplayReport(), status: .interrupted, isPretty: false)
    for part in ["\"verified\":null", "\"trace_error\":null", "\"error_percent\":null", "\"status\":130", "\"accounted\":true"] {
      #expect(text.contains(part))
    }
    #expect(JSONReport.text(of: badReport(), status: .unaccounted, isPretty: false).contains("\"holds\":false"))
  }

  @Test func `a rate that is no number is null`() throws {
    var report = ReplayReport()
    report.rate.frames_per_second = .infinity
    report.cost.model_ns_per_frame = .nan
    let json = try object(JSONReport.text(of: report, status: .accounted, isPretty: false))
    #expect((json["rate"] as? [String: Any])?["frames_per_second"] is NSNull)
    #expect((json["cost"] as? [String: Any])?["model_ns_per_frame"] is NSNull)
  }

  @Test func `an error is an object too`() {
    let failure = Failure(status: .unreadable, message: "a/b: \"odd\"\u{1B}")
    #expect(
      JSONReport.text(of: failure)
        == #"{"error":{"kind":"unreadable","message":"a/b: \"odd\"\u001b"},"schema":1,"status":65}"#)
  }

  @Test func `the README explains every key`() throws {
    let readme = try String(contentsOf: packageRoot.appendingPathComponent("README.md"), encoding: .utf8)
    var missing: [String] = []
    func expect(_ key: String) { if !readme.contains("| `\(key)` |") { missing.append(key) } }
    for key in Self.keys where Self.inner[key] == nil && !["vms", "rules", "host", "conservation", "bounced_by", "dropped_by", "warnings"].contains(key) {
      expect(key)
    }
    for (key, names) in Self.inner { for name in names { expect("\(key).\(name)") } }
    for key in ["bounced_by", "dropped_by"] { expect("\(key).{reason}") }
    expect("warnings.{oddity}")
    for name in Self.vmKeys.subtracting(["bounced_by", "dropped_by"]) { expect("vms.{name}.\(name)") }
    for name in ["name", "left", "right", "holds"] { expect("conservation[].\(name)") }
    #expect(missing == [])
  }
}
