import Control
import ControlSupport
import Foundation
import NIOHTTP1
import Testing

@testable import ControlSocket

/// Prometheus' text format 0.0.4, read by a parser of its own that accepts no more than the format's description does.
struct Exposition {
  struct Series: Hashable {
    let name: String
    let labels: [String: String]
  }
  struct Malformed: Error {
    let line: Int
    let reason: String
  }
  private(set) var samples: [Series: Double] = [:]
  private(set) var types: [String: String] = [:]
  private(set) var help: [String: String] = [:]

  init(_ text: String) throws {
    var number = 0
    func fail(_ reason: String) -> Malformed { Malformed(line: number, reason: reason) }
    guard text.hasSuffix("\n") else { throw Malformed(line: 0, reason: "the last line does not end") }
    var current: String?
    for line in text.dropLast().components(separatedBy: "\n") {
      number += 1
      let words = line.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false).map(String.init)
      if words[0] == "#" {
        guard words.count == 4, Self.isName(words[2]) else { throw fail("a comment that is neither HELP nor TYPE") }
        switch words[1] {
        case "HELP":
          guard help[words[2]] == nil else { throw fail("HELP twice, or a family in two pieces") }
          help[words[2]] = words[3]
        case "TYPE":
          guard types[words[2]] == nil, help[words[2]] != nil else { throw fail("TYPE twice, or before HELP") }
          guard ["counter", "gauge"].contains(words[3]) else { throw fail("type \(words[3])") }
          types[words[2]] = words[3]
        default: throw fail("a comment that is neither HELP nor TYPE")
        }
        current = words[2]
        continue
      }
      guard let (series, value) = Self.sample(line) else { throw fail("no sample: \(line)") }
      guard series.name == current, types[series.name] != nil else { throw fail("\(series.name) outside its family") }
      guard samples.updateValue(value, forKey: series) == nil else { throw fail("\(series) twice") }
    }
  }

  private static func isName(_ text: String) -> Bool {
    text.range(of: "^[a-zA-Z_:][a-zA-Z0-9_:]*$", options: .regularExpression) != nil
  }

  /// Character by character: a label's value may hold any of the characters that end something elsewhere.
  private static func sample(_ line: String) -> (Series, Double)? {
    var rest = Substring(line)
    func take(while holds: (Character) -> Bool) -> String {
      let part = rest.prefix(while: holds)
      rest = rest.dropFirst(part.count)
      return String(part)
    }
    func take(_ character: Character) -> Bool {
      guard rest.first == character else { return false }
      rest = rest.dropFirst()
      return true
    }
    let name = take { $0 != "{" && $0 != " " }
    guard isName(name) else { return nil }
    var labels: [String: String] = [:]
    if take("{") {
      repeat {
        let label = take { $0 != "=" }
        guard label.range(of: "^[a-zA-Z_][a-zA-Z0-9_]*$", options: .regularExpression) != nil, take("="), take("\"") else { return nil }
        var value = ""
        while let character = rest.first, character != "\"" {
          rest = rest.dropFirst()
          if character == "\\" {
            switch rest.first {
            case "\\": value.append("\\")
            case "\"": value.append("\"")
            case "n": value.append("\n")
            default: return nil
            }
            rest = rest.dropFirst()
          } else {
            value.append(character)
          }
        }
        guard take("\""), labels.updateValue(value, forKey: label) == nil else { return nil }
      } while take(",")
      guard take("}") else { return nil }
    }
    guard take(" "), let value = Double(rest), !rest.contains(" ") else { return nil }
    return (Series(name: name, labels: labels), value)
  }

  func value(_ name: String, _ labels: [String: String] = [:]) -> Double? { samples[Series(name: name, labels: labels)] }
}

struct MetricsTests {
  private func page(_ status: StatusReport = statusFixture()) throws -> Exposition { try Exposition(MetricsPage(status).text) }

  @Test func `every counter of the status is there, under the VM's name`() throws {
    let page = try page()
    #expect(page.value("sluice_rx_frames_total", ["vm": "web", "path": "lent"]) == 999_000)
    #expect(page.value("sluice_rx_frames_total", ["vm": "web", "path": "bounced"]) == 950)
    #expect(page.value("sluice_rx_bytes_total", ["vm": "web", "path": "lent"]) == 354_000_000)
    #expect(page.value("sluice_rx_fallback_total", ["vm": "web", "reason": "too_small"]) == 900)
    #expect(page.value("sluice_rx_drops_total", ["vm": "web", "reason": "no_buffers"]) == 47)
    #expect(page.value("sluice_tx_frames_total", ["vm": "web", "path": "lent"]) == 1990)
    #expect(page.value("sluice_tx_fallback_total", ["vm": "web", "reason": "scattered"]) == 10)
    #expect(page.value("sluice_rx_frames_total", ["vm": "db", "path": "lent"]) == 0)
    #expect(page.value("sluice_nic_received_frames_total", ["kind": "sim"]) == 1_000_000)
    #expect(page.value("sluice_nic_drops_total", ["kind": "sim", "reason": "no_route"]) == 3)
    #expect(page.value("sluice_vm_connected", ["vm": "web"]) == 1 && page.value("sluice_vm_connected", ["vm": "db"]) == 0)
    #expect(page.value("sluice_ring_state", ["vm": "web", "ring": "2", "direction": "receive", "state": "failed"]) == 1)
    #expect(page.value("sluice_ring_state", ["vm": "web", "ring": "2", "direction": "receive", "state": "running"]) == 0)
    #expect(page.value("sluice_posted_buffers", ["vm": "web", "ring": "0", "direction": "receive"]) == 255)
    #expect(page.value("sluice_signals_suppressed_total", ["vm": "web", "ring": "0", "direction": "receive"]) == 70)
    #expect(page.value("sluice_dirty_pages_total", ["vm": "web"]) == 1234 && page.value("sluice_quiesces_total", ["vm": "web"]) == 6)
    #expect(page.value("sluice_quiesce_seconds_total", ["vm": "web"]) == 0.0012)
    #expect(page.value("sluice_quiesce_longest_seconds", ["vm": "web"]) == 0.00075)
    #expect(page.value("sluice_vm_worker_seconds_total", ["vm": "web"]) == 1.25)
    #expect(page.value("sluice_vm_worker_longest_seconds", ["vm": "web"]) == 0.00006)
    #expect(page.value("sluice_vm_deferrals_total", ["vm": "web"]) == 1200 && page.value("sluice_vm_cut_polls_total", ["vm": "web"]) == 34)
    #expect(page.value("sluice_vm_notifier_signals_total", ["vm": "web"]) == 5 && page.value("sluice_vm_message_pauses_total", ["vm": "web"]) == 1)
    #expect(page.value("sluice_worker_turns_total", ["worker": "0"]) == 123_456)
    #expect(page.value("sluice_worker_busy_seconds_total", ["worker": "0", "part": "datapath"]) == 1.5)
    #expect(page.value("sluice_worker_busy_seconds_total", ["worker": "0", "part": "model"]) == 0.25)
    #expect(page.value("sluice_law_holds", ["law": "received + replicated = delivered + dropped"]) == 1)
    #expect(page.value("sluice_uptime_seconds") == 3725 && page.value("sluice_build_info", ["version": "0.1.0"]) == 1)
  }

  @Test func `a counter's name ends as Prometheus wants it, and a gauge's does not`() throws {
    let page = try page()
    #expect(page.types.count > 20)
    for (name, type) in page.types { #expect(name.hasSuffix("_total") == (type == "counter"), "\(name)") }
    #expect(Set(page.types.keys) == Set(page.help.keys))
    #expect(page.types.keys.allSatisfy { $0.hasPrefix("sluice_") })
  }

  @Test func `the README explains every one of them, and no other`() throws {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let readme = try String(contentsOf: root.appendingPathComponent("README.md"), encoding: .utf8)
    let explained = readme.matches(of: /`(sluice_[a-z_]+)`/).map { String($0.1) }
    #expect(Set(explained) == Set(try full().types.keys))
    for verb in Verb.allCases { #expect(readme.contains("| `\(verb.methods[0].rawValue) \(verb.path)` |")) }
  }

  @Test func `a label holds whatever text a report does`() throws {
    var status = statusFixture()
    let odd = "a\"b\\c\nd{e}=,f"
    status.vms[odd] = status.vms["web"]
    status.laws[0].name = odd
    let page = try page(status)
    #expect(page.value("sluice_rx_frames_total", ["vm": odd, "path": "lent"]) == 999_000)
    #expect(page.value("sluice_law_holds", ["law": odd]) == 1)
  }

  @Test func `errors on the bus have their severity and name`() throws {
    var status = statusFixture()
    status.nic.bus_errors = ["correctable": ["BadTLP": 3, "Timeout": 0], "fatal": ["MalfTLP": 1]]
    let page = try page(status)
    #expect(page.value("sluice_bus_errors_total", ["severity": "correctable", "error": "BadTLP"]) == 3)
    #expect(page.value("sluice_bus_errors_total", ["severity": "correctable", "error": "Timeout"]) == 0)
    #expect(page.value("sluice_bus_errors_total", ["severity": "fatal", "error": "MalfTLP"]) == 1)
  }

  @Test func `the largest count is written whole`() {
    var status = statusFixture()
    status.nic.received.frames = .max
    #expect(MetricsPage(status).text.contains("sluice_nic_received_frames_total{kind=\"sim\"} 18446744073709551615\n"))
  }

  /// A page with everything that there can be.
  private func full() throws -> Exposition {
    var rules = RulesReport()
    rules.rules = [.init(id: 3, text: "a"), .init(id: 4, text: "b"), .init(id: 0, text: "c")]
    (rules.rules[0].frames, rules.rules[0].bytes, rules.rules[2].frames, rules.rules[2].bytes) = (7, 700, 8, 800)
    var status = statusFixture()
    status.host = StatusReport.Host(tap: "host0", given: .init(frames: 5, bytes: 300), taken: .init(), dropped_by: ["refused": 2])
    rules.tables = [.init(name: "flow director", used: 7, size: 2046)]
    status.vms["web"]?.transmit.dropped_by = ["no_descriptor": 1]
    return try Exposition(MetricsPage(status, rules).text)
  }

  @Test func `rules are counted by number, and those that cannot be are left out`() throws {
    let page = try full()
    #expect(page.value("sluice_table_entries", ["table": "flow director", "state": "used"]) == 7)
    #expect(page.value("sluice_rule_frames_total", ["rule": "3"]) == 7 && page.value("sluice_rule_bytes_total", ["rule": "3"]) == 700)
    #expect(page.value("sluice_rule_frames_total", ["rule": "4"]) == nil && page.value("sluice_rule_frames_total", ["rule": "0"]) == nil)
    #expect(page.value("sluice_host_frames_total", ["tap": "host0", "direction": "given"]) == 5)
    #expect(page.value("sluice_host_drops_total", ["tap": "host0", "reason": "refused"]) == 2)
  }

  @Test func `nothing is said of what is not there`() throws {
    var status = statusFixture()
    (status.vms, status.vm_order, status.laws, status.workers) = ([:], [], [], [])
    let page = try page(status)
    #expect(page.types["sluice_rx_frames_total"] == nil && page.types["sluice_nic_link_up"] != nil)
  }

  @Test(arguments: [
    "a 1", "# TYPE a counter\na 1\n", "# HELP a b\n# TYPE a counter\na 1\na 1\n", "# HELP a b\n# TYPE a counter\nb 1\n",
    "# HELP a b\n# TYPE a counter\na{x=\"\\q\"} 1\n", "# HELP a b\n# TYPE a counter\na{x=1} 1\n", "# HELP a b\n# TYPE a counter\na x\n",
    "# HELP a b\n# TYPE a counter\na{x=\"1\",x=\"2\"} 1\n", "# HELP a-b c\n# TYPE a-b counter\n",
  ])
  func `the parser of this test refuses what is malformed`(text: String) {
    #expect(throws: Exposition.Malformed.self) { try Exposition(text) }
  }
}
