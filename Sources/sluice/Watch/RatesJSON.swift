import FoundationEssentials

/// Rates for programs: one object a line, keys stable, what nothing tells null.
struct RatesJSON: Encodable {
  private let schema = 1
  private let seconds: Double
  private let uptime_s: Double
  private let wire: Path
  private let vm_order: [String]
  private let vms: [String: VM]

  private struct VM: Encodable {
    let receive, transmit: Path
  }
  private struct Path: Encodable {
    let path: Rates.Path
    private enum Keys: String, CodingKey { case frames_per_second, bits_per_second, lent_percent, drops_per_second, drops_per_second_by }
    func encode(to encoder: any Encoder) throws {
      var keys = encoder.container(keyedBy: Keys.self)
      try keys.encode(path.frames, forKey: .frames_per_second)
      try keys.encode(path.bits, forKey: .bits_per_second)
      try keys.encode(path.lentPercent, forKey: .lent_percent)
      try keys.encode(path.drops, forKey: .drops_per_second)
      try keys.encode(path.dropsBy, forKey: .drops_per_second_by)
    }
  }

  init(_ rates: Rates) {
    (seconds, uptime_s, wire) = (rates.seconds, rates.uptime, Path(path: rates.wire))
    vm_order = rates.vms.map(\.name)
    vms = Dictionary(rates.vms.map { ($0.name, VM(receive: Path(path: $0.receive), transmit: Path(path: $0.transmit))) }) { $1 }
  }

  var text: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    do { return String(decoding: try encoder.encode(self), as: UTF8.self) } catch {
      preconditionFailure("rates that JSON cannot hold: \(error)")
    }
  }
}
