// `sluice run` and its companions: the one place of the tests that knows their options and keys.

import Foundation

final class SluiceBackEnd: BackEnd {
  private let ports: [Port]
  private let network: Network?
  private let folder: String
  private let more: [String]
  private var running: Subprocess?
  private var starts = 0
  private var control: String { folder + "/control" }

  /// `more` are further options of `sluice run`.
  init(_ ports: [Port], network: Network? = nil, more: [String] = [], folder: String) throws {
    self.ports = ports
    self.network = network
    self.more = more
    self.folder = folder
  }

  var process: Subprocess { running! }

  private static func value(_ port: Port) -> String {
    [
      port.name, "socket=\(port.socket)", port.link == .connects ? "server" : "client", "mac=\(port.mac)", "queues=\(port.pairs)",
      "packed=" + (port.isPacked ? "on" : "off"),
    ].joined(separator: ",")
  }

  func start() throws {
    let vms = ports.flatMap { ["--vm", Self.value($0)] }
    let wire = network == nil ? [] : ["--wire", "tap=tap0"]
    let state = folder + "/state"
    try FileManager.default.createDirectory(atPath: state, withIntermediateDirectories: true)
    let words = [Rig.sluice, "run", "--nic", "sim"] + vms + wire + ["--control", control, "--state-dir", state] + more
    starts += 1
    running = try Subprocess("sluice\(starts)", network?.words(words) ?? words, folder: folder)
    try process.line(with: "ready")
  }

  func inject(_ trace: Trace, laps: Int) throws -> any Injection { try inject(trace, laps: laps, speed: "top") }

  /// `speed` as `sluice inject --speed` takes it: `top` waits for guests, `pps=N` does not.
  func inject(_ trace: Trace, laps: Int, speed: String) throws -> SluiceInjection {
    let words = [Rig.sluice, "inject", "--control", control, trace.path, "--loop", "\(laps)", "--speed", speed, "--json"]
    // Each in a folder of its own: its log is the report.
    return SluiceInjection(process: try Subprocess("inject", words, folder: Self.fresh(folder)))
  }

  private static func fresh(_ folder: String) throws -> String {
    let fresh = folder + "/inject-" + UUID().uuidString.prefix(8)
    try FileManager.default.createDirectory(atPath: fresh, withIntermediateDirectories: true)
    return fresh
  }

  func delivered(to name: String) throws -> Int? {
    let vm = (try ask("status")["vms"] as? [String: Any])?[name] as? [String: Any]
    guard let receive = vm?["receive"] as? [String: Any], let lent = receive["lent"] as? [String: Int],
      let bounced = receive["bounced"] as? [String: Int], let frames = lent["frames"], let copied = bounced["frames"]
    else { throw RigError("sluice status: what VM \(name) received is not in \(vm ?? [:])") }
    return frames + copied
  }

  func crash() { process.kill() }

  func stop() throws {
    process.signal(SIGTERM)
    let status = try process.end()
    guard status == 0 else { throw RigError("sluice run ended with status \(status) after SIGTERM") }
  }

  /// Every law of conservation holds, with nothing under way; and the card never touched memory that it may not.
  func settle() throws {
    var status: [String: Any] = [:]
    do {
      try eventually("nothing is under way") {
        status = try ask("status")
        let laws = status["laws"] as? [[String: Any]] ?? []
        return !laws.isEmpty && laws.allSatisfy { $0["holds"] as? Bool == true && $0["in_flight"] as? Int == 0 }
      }
    } catch { throw RigError("\(error): \(status["laws"] ?? status)") }
    guard let nic = status["nic"] as? [String: Any], nic["iommu_faults"] as? Int == 0 else {
      throw RigError("the IOMMU refused the card an access: \(status["nic"] ?? status)")
    }
  }

  /// `sluice rules …`, of this back-end.
  @discardableResult func rules(_ words: String...) throws -> String {
    try Shell.check([Rig.sluice, "rules", words[0], "--control", control] + words.dropFirst())
  }

  /// The object that `sluice status --json` or `sluice stats --json` prints.
  func ask(_ command: String) throws -> [String: Any] {
    let output = try Shell.check([Rig.sluice, command, "--control", control, "--json"])
    return try object(in: output)
  }
}

/// `sluice inject`, running.
struct SluiceInjection: Injection {
  let process: Subprocess

  func cancel() {
    process.signal(SIGTERM)
    _ = try? process.end()
    process.kill()
  }

  func end(within seconds: Int) throws -> Settled {
    let status = try process.end(within: seconds)
    guard status == 0 else { throw RigError("sluice inject: status \(status): \(process.log)") }
    let json = try object(in: process.log)
    guard let frames = json["frames"] as? [String: Int], let sent = frames["sent"], let delivered = frames["delivered"],
      let dropped = frames["dropped"], let reasons = json["dropped_by"] as? [String: Int]
    else { throw RigError("sluice inject: not its report: \(json)") }
    guard sent + (frames["replicated"] ?? 0) == delivered + (frames["host"] ?? 0) + dropped, dropped == reasons.values.reduce(0, +) else {
      throw RigError("sluice inject: its report does not add up: \(json)")
    }
    return Settled(delivered: delivered, dropped: reasons)
  }
}

/// The JSON object in a program's output; log lines may stand around it.
private func object(in output: String) throws -> [String: Any] {
  guard let start = output.firstIndex(of: "{"), let end = output.lastIndex(of: "}"),
    let object = try JSONSerialization.jsonObject(with: Data(output[start...end].utf8)) as? [String: Any]
  else { throw RigError("no JSON object in: \(output)") }
  return object
}
