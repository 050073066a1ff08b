import FlowSteering
import Foundation
import Testing

@testable import Control

@Suite struct RuleChangeTests {
  private func rules(_ texts: String...) throws -> [Rule] { Steering.numbered(try texts.map { try Rule(parsing: $0) }) }

  @Test func `a change flushes, deletes and adds, in that order`() throws {
    let old = try rules("id 1 match udp.dst=53 then vm dns", "id 2 match tcp.dst=80 then vm web", "id 3 match any then drop")
    #expect(try RuleChange(flush: true).result(of: old).isEmpty)
    #expect(try RuleChange(flushVM: "dns").result(of: old).map(\.id) == [2, 3])
    #expect(try RuleChange(delete: [2]).result(of: old).map(\.id) == [1, 3])
    let changed = try RuleChange(delete: [3], add: ["id 3 match any then vm web", "match sctp.dst=1 then drop"]).result(of: old)
    #expect(changed.map(\.id) == [1, 2, 3, 4])
    #expect(changed[2].decision == .deliver([Rule.Target("web")]))
  }

  @Test func `what cannot be is named`() throws {
    let old = try rules("id 1 match any then drop")
    #expect { try RuleChange(delete: [9]).result(of: old) } throws: { ($0 as? RuleError)?.code == .noSuchRule && "\($0)".contains("there are 1") }
    #expect { try RuleChange(add: ["match any then drop", "match x"]).result(of: old) } throws: {
      ($0 as? RuleError)?.code == .syntax && ($0 as? RuleError)?.line == 2
    }
  }
}

@Suite struct HostRuleTests {
  @Test func `rules can name the host where the machine has a port of its own`() throws {
    var configuration = Configuration()
    configuration.vms = [.init(name: "web", endpoint: .client(path: "/tmp/web.sock"))]
    configuration.rules = [try Rule(parsing: "match eth.type=arp then host")]
    let problem = try #require(configuration.problems().first)
    #expect(problem.key == "rules" && problem.reason.contains("E_ACTION_UNSUPPORTED") && problem.reason.contains("--host tap=NAME"))
    configuration.host = .tap("sluice0")
    #expect(configuration.problems().isEmpty)
    configuration.wire = .tap("sluice0")
    #expect(configuration.problems().first?.key == "host")
  }
}

@Suite struct RuleStoreTests {
  @Test func `what was kept is read again, unless the configuration has changed since`() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("rules-\(UInt64.random(in: 0 ... .max))").path
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let configured = [try Rule(parsing: "id 1 match any then drop")]
    let kept = Steering.numbered([try Rule(parsing: "id 5 prio 7 for web match tcp.dst=80 then queue 1, count")])
    let store = RuleStore(directory: folder, configured: configured)
    #expect(try store.load() == nil)
    try store.save(kept, generation: 1)
    #expect(try store.load() == kept)
    #expect(try RuleStore(directory: folder, configured: []).load() == nil)
    try store.save([], generation: 2)
    // An older one that comes late.
    try store.save(kept, generation: 1)
    #expect(try store.load() == [])
    try "\(try String(contentsOfFile: store.path, encoding: .utf8))nonsense\n".write(toFile: store.path, atomically: true, encoding: .utf8)
    #expect(throws: ServiceError.self) { try store.load() }
  }
}
