import BenchSupport
import Benchmark
import Foundation

/// One row: a trace, a kind of ring, and every column on it.
struct Stage {
  let trace: Trace
  let isPacked: Bool
  let sluice: String
  let dpdk: DPDK
  let machine: Machine
  let folder: String

  private var kinds: [Column.Kind] { Column.Kind.allCases.filter { trace.frameBytes != nil || ![.null, .nullAlone].contains($0) } }

  func measure(rounds: Int, window: Double) throws -> Row {
    var columns: [Column] = []
    defer { for column in columns { column.end() } }
    for kind in kinds { columns.append(try Column(kind, self)) }
    var samples: [[Sample]] = []
    for _ in 0..<rounds {
      samples.append(try columns.map { try $0.sample(window) })
      if isatty(2) == 1 { FileHandle.standardError.write(Data("\r\(trace.name) \(isPacked ? "packed" : "split"): round \(samples.count) of \(rounds) ".utf8)) }
    }
    if isatty(2) == 1 { FileHandle.standardError.write(Data("\r\u{1B}[K".utf8)) }
    return Row(trace: trace, isPacked: isPacked, samples: samples)
  }
}

/// What was measured of one row.
struct Row: Encodable {
  let trace: Trace
  let isPacked: Bool
  /// By round, and in it by column.
  let samples: [[Sample]]

  /// The fewest samples of a column, or rounds of a ratio, that a figure is printed for.
  private static let fewest = 3

  private func quiet(_ kind: Column.Kind, _ distance: Machine.Distance) -> [Sample] {
    samples.joined().filter { $0.kind == kind && $0.isQuiet && $0.distance == distance }
  }
  /// Of rounds in which both were quiet, and the processors were as far apart for both.
  private func ratios(_ distance: Machine.Distance, _ value: (_ of: (Column.Kind) -> Sample?) -> Double?) -> [Double] {
    samples.compactMap { round in value { kind in round.first { $0.kind == kind && $0.isQuiet && $0.distance == distance } } }
  }

  var text: String {
    var lines = ["\(trace.name) \(isPacked ? "packed" : "split"): \(Self.fixed(trace.meanBytes, 0)) bytes a frame\(trace.frameBytes == nil ? " on average" : "")"]
    for distance in Machine.Distance.allCases {
      let some = Column.Kind.allCases.filter { !quiet($0, distance).isEmpty }
      if some.isEmpty { continue }
      lines.append("  processors \(distance.rawValue)           M frames/s   low … high (n)      Gbit/s   ns a frame   datapath ns")
      for kind in some { lines.append("    " + line(kind, distance)) }
      lines += comparisons(distance).map { "    " + $0 }
    }
    let all = samples.joined().count
    let noisy = samples.joined().count { !$0.isQuiet }
    if noisy > 0 { lines.append("  \(noisy) of \(all) samples set aside: another program ran, or the processors were moved meanwhile") }
    if noisy * 2 > all { lines.append("  THE MACHINE WAS NOT QUIET: take no figure of this row for one") }
    return lines.joined(separator: "\n")
  }

  private func line(_ kind: Column.Kind, _ distance: Machine.Distance) -> String {
    let found = quiet(kind, distance)
    let name = rightPadded(kind.rawValue, to: 16)
    guard found.count >= Self.fewest else { return name + "      too few quiet samples (\(found.count))" }
    let rates = found.map(\.framesPerSecond).sorted()
    let median = Self.median(rates)
    let datapath = found.compactMap(\.datapathNanoseconds)
    let spread = "\(Self.fixed(rates.first! / 1e6, 2)) … \(Self.fixed(rates.last! / 1e6, 2)) (\(rates.count))"
    return name + leftPadded(Self.fixed(median / 1e6, 2), to: 16) + "   " + spread.padding(toLength: 20, withPad: " ", startingAt: 0)
      + leftPadded(Self.fixed(median * trace.meanBytes * 8 / 1e9, 1), to: 6) + leftPadded(Self.fixed(1e9 / median, 1), to: 13)
      + leftPadded(datapath.isEmpty ? "" : Self.fixed(Self.median(datapath), 1), to: 14)
  }

  private func comparisons(_ distance: Machine.Distance) -> [String] {
    func rate(_ left: Column.Kind, _ right: Column.Kind) -> [Double] {
      ratios(distance) { of in of(left).flatMap { a in of(right).map { a.framesPerSecond / $0.framesPerSecond } } }
    }
    // What vhost's enqueue takes is what net_null in front of it does not take alone.
    let enqueue = ratios(distance) { of in
      guard let lent = of(.lent)?.datapathNanoseconds, let null = of(.null), let alone = of(.nullAlone) else { return nil }
      return lent / (1e9 / null.framesPerSecond - 1e9 / alone.framesPerSecond)
    }
    return [
      ("lent : pcap", rate(.lent, .pcap)), ("lent : null", rate(.lent, .null)), ("bounced : pcap", rate(.bounced, .pcap)),
      ("no-dma : null", rate(.noDMA, .null)), ("datapath's time of a lent frame : vhost's enqueue", enqueue),
    ].compactMap { name, values in
      guard values.count >= Self.fewest else { return nil }
      let sorted = values.sorted()
      return "\(name)  \(Self.fixed(Self.median(sorted), 2))   (\(Self.fixed(sorted.first!, 2)) … \(Self.fixed(sorted.last!, 2)), \(values.count) rounds)"
    }
  }

  private static func median(_ values: [Double]) -> Double { Statistics.median(values) ?? .nan }
  private static func fixed(_ value: Double, _ places: Int) -> String { String(format: "%.\(places)f", value) }

  enum Keys: String, CodingKey { case trace, ring, mean_bytes, rounds }
  func encode(to encoder: any Encoder) throws {
    var values = encoder.container(keyedBy: Keys.self)
    try values.encode(trace.name, forKey: .trace)
    try values.encode(isPacked ? "packed" : "split", forKey: .ring)
    try values.encode(trace.meanBytes, forKey: .mean_bytes)
    try values.encode(samples, forKey: .rounds)
  }
}
