import BenchSupport
import Foundation
import Linux

/// One way for frames to come to a guest, started and stopped.
final class Column {
  enum Kind: String, CaseIterable, Encodable {
    case pcap, null, lent, bounced, noDMA = "no-dma"
    /// net_null alone: what of `null` is not vhost's.
    case nullAlone = "null alone"
  }
  let kind: Kind
  private let backEnd: Tool
  private let guest: Tool?
  private var injection: Tool?
  private let control: String
  private let stage: Stage

  init(_ kind: Kind, _ stage: Stage) throws {
    (self.kind, self.stage) = (kind, stage)
    let (name, folder, core) = (kind.rawValue.replacingOccurrences(of: " ", with: "-"), stage.folder, stage.machine.processors.0)
    let socket = "\(folder)/\(name).sock"
    control = "\(folder)/\(name).control"
    for file in [socket, control] { try? FileManager.default.removeItem(atPath: file) }
    switch kind {
    case .pcap, .null, .nullAlone:
      let source = kind == .pcap ? "net_pcap0,rx_pcap=\(stage.trace.path),infinite_rx=1" : "net_null0,size=\(stage.trace.frameBytes ?? 0),copy=0"
      backEnd = try stage.dpdk.backEnd(
        name, source: source, socket: kind == .nullAlone ? nil : socket, largest: stage.trace.largest, core: core, folder: folder)
      try backEnd.wait(for: "testpmd>")
    case .lent, .bounced, .noDMA:
      let state = "\(folder)/\(name)-state"
      try FileManager.default.createDirectory(atPath: state, withIntermediateDirectories: true)
      var words = [stage.sluice, "run", "--vm", "a,socket=\(socket),packed=on" + (kind == .bounced ? ",datapath=copy" : ""), "--control", control]
      words += ["--cpus", String(core), "--mtu", String(max(1500, stage.trace.largest - 14)), "--state-dir", state]
      if kind == .noDMA { words += ["--nic", "sim:no-payload"] }
      backEnd = try Tool(name, words, folder: folder)
      try backEnd.wait(for: "listening")
    }
    guard kind != .nullAlone else {
      guest = nil
      try backEnd.type("start")
      usleep(300_000)
      backEnd.pause()
      return
    }
    let guest = try stage.dpdk.guest(
      name + "-guest", socket: socket, isPacked: stage.isPacked, largest: stage.trace.largest, core: stage.machine.processors.1, other: core, folder: folder)
    self.guest = guest
    try guest.wait(for: "testpmd>")
    try guest.type("start")
    try guest.wait(for: "testpmd>")
    switch kind {
    case .pcap, .null: try backEnd.type("start")
    default:
      let words = [stage.sluice, "inject", URL(fileURLWithPath: stage.trace.path).path, "--loop", "1000000000", "--control", control]
      injection = try Tool(name + "-wire", words, folder: folder)
    }
    usleep(500_000)
    backEnd.pause()
    guard try DPDK.received(guest, port: 0) > 0 else { throw Failure("\(name): nothing arrived: \(backEnd.log.suffix(600))") }
    guest.pause()
  }

  func end() {
    injection?.end()
    guest?.end()
    backEnd.end()
  }

  /// Runs alone for `window` seconds.
  ///
  /// The guest is asked before and after, while the back-end stands still: nothing disturbs either meanwhile.
  func sample(_ window: Double) throws -> Sample {
    let near = try stage.machine.roundTrip()
    guest?.go()
    let (first, busy) = (try count(), try datapathSeconds())
    let shares = (backEnd.shares, guest?.shares ?? [:])
    let start = MonotonicClock.now()
    backEnd.go()
    MonotonicClock.sleep(nanoseconds: UInt64(window * 1e9))
    backEnd.pause()
    let elapsed = Double(MonotonicClock.now() - start) / 1e9
    let wait = Double(backEnd.waited(since: shares.0) + (guest?.waited(since: shares.1) ?? 0)) / 1e9
    let frames = try count() - first
    let datapath = try zip(datapathSeconds(), busy).map { $0 - $1 }
    guest?.pause()
    return Sample(
      kind: kind, framesPerSecond: Double(frames) / elapsed, datapathNanoseconds: datapath.map { $0 * 1e9 / Double(max(frames, 1)) },
      roundTrips: (near, try stage.machine.roundTrip()), waited: wait / elapsed)
  }

  private func count() throws -> UInt64 {
    if let guest { return try DPDK.received(guest, port: 0) }
    backEnd.go()
    defer { backEnd.pause() }
    return try DPDK.sent(backEnd, port: 1)
  }

  /// Seconds that Sluice's worker has spent in turns that moved something; its guest stands still for the question.
  private func datapathSeconds() throws -> Double? {
    guard [.lent, .bounced, .noDMA].contains(kind) else { return nil }
    guest?.pause()
    backEnd.go()
    defer {
      backEnd.pause()
      guest?.go()
    }
    struct Status: Decodable {
      struct Worker: Decodable { let datapath_s: Double }
      let workers: [Worker]
    }
    let text = try Program.run([stage.sluice, "status", "--json", "--control", control]).output
    return try JSONDecoder().decode(Status.self, from: Data(text.utf8)).workers.first?.datapath_s
  }
  private func zip(_ left: Double?, _ right: Double?) -> (Double, Double)? { left.flatMap { left in right.map { (left, $0) } } }
}

struct Sample: Encodable {
  let kind: Column.Kind
  let framesPerSecond: Double
  /// Host time for a frame in Sluice's datapath, without the card's model.
  let datapathNanoseconds: Double?
  /// Between the processors, before and after, in nanoseconds.
  let roundTrips: (Double, Double)
  /// The part of the time for which one of the threads was ready and had no processor.
  let waited: Double

  var distance: Machine.Distance? { Machine.distance(roundTrips.0, roundTrips.1) }
  /// Nothing else ran, and the processors stayed where they were.
  var isQuiet: Bool { distance != nil && waited < 0.02 }

  enum Keys: String, CodingKey { case kind, frames_per_second, datapath_ns, round_trip_before_ns, round_trip_after_ns, waited, quiet }
  func encode(to encoder: any Encoder) throws {
    var values = encoder.container(keyedBy: Keys.self)
    try values.encode(kind, forKey: .kind)
    try values.encode(framesPerSecond, forKey: .frames_per_second)
    try values.encode(datapathNanoseconds, forKey: .datapath_ns)
    try values.encode(roundTrips.0, forKey: .round_trip_before_ns)
    try values.encode(roundTrips.1, forKey: .round_trip_after_ns)
    try values.encode(waited, forKey: .waited)
    try values.encode(isQuiet, forKey: .quiet)
  }
}
