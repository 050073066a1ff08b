// A trace, a card, vhost-user, and the same guest: Sluice and DPDK in turns on this machine, in one run.
//
//     Bench/versus-dpdk
//
// Every back-end has a guest of its own, DPDK's virtio-user that receives and forgets, on the other processor. All of
// them are started first and stopped by signal; then each runs alone for a moment, one after the other, round after round.
import ArgumentParser
import Foundation
import Linux

@main
struct VersusDPDK: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "versus-dpdk",
    abstract: "Measure Sluice beside DPDK: trace, card, vhost-user, the same guest.",
    discussion: """
      Examples:
        Bench/versus-dpdk
        Bench/versus-dpdk --row 64 --row 1514 --rounds 15
        Bench/versus-dpdk --ring packed --json versus.json

      Columns:
        pcap     DPDK: net_pcap infinite_rx, forwarded to net_vhost (a copy from the trace, and one to the guest)
        null     DPDK: net_null without a copy, forwarded to net_vhost (one copy, of the same bytes always)
        lent     Sluice: the simulated card writes into the guest's buffers (one copy, as the card's DMA)
        bounced  Sluice with datapath=copy (two copies)
        no-dma   Sluice with the card's payload DMA switched off (what is left when hardware does it; no copy)
      """)

  @Option(help: "Rows to measure: bytes on the wire with the check sequence, imix, or real; may be repeated. (default: all)")
  var row: [String] = []
  @Option(help: "split or packed; may be repeated. (default: both)") var ring: [String] = []
  @Option(help: "Rounds: each measures every column once.") var rounds = 9
  @Option(help: "Milliseconds of one sample.") var window = 250
  @Option(help: "DPDK's testpmd.") var testpmd = "dpdk-testpmd"
  @Option(help: "The program of Sluice.") var sluice = ".build/release/sluice"
  @Option(help: "Processors: of the back-end, and of the guest.") var cpus = "0,1"
  @Option(help: "Write every sample to this file, as JSON.") var json: String?

  static let rows = ["64", "128", "256", "512", "1024", "1514", "9014", "imix", "real"]

  func validate() throws {
    for name in row where !Self.rows.contains(name) { throw ValidationError("--row \(name): none of \(Self.rows.joined(separator: ", "))") }
    for name in ring where !["split", "packed"].contains(name) { throw ValidationError("--ring \(name): split, or packed") }
    guard rounds > 0, window >= 20 else { throw ValidationError("--rounds is 1 or more, --window 20 or more") }
    guard processors.count == 2, processors[0] != processors[1] else { throw ValidationError("--cpus \(cpus): two of them, as in 0,1") }
  }
  private var processors: [Int] { cpus.split(separator: ",").compactMap { Int($0) } }

  /// At once, whoever reads it.
  private static func say(_ text: String) { FileHandle.standardOutput.write(Data(text.utf8)) }

  func run() throws {
    signal(SIGPIPE, SIG_IGN)
    let folder = FileManager.default.temporaryDirectory.path + "/versus-\(getpid())"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let machine = Machine(processors: (processors[0], processors[1]))
    let pages = HugePages(megabytes: 3000)
    defer { pages.giveBack() }
    let dpdk = try DPDK(testpmd: testpmd, usesHugePages: pages.areThere)
    Self.say("\(machine.text)\n\(try Tool.version(sluice, "--version")); DPDK \(dpdk.version), as Debian built it; \(pages.text)\n\n")
    var results: [Row] = []
    for ring in ring.isEmpty ? ["split", "packed"] : ring {
      for name in row.isEmpty ? Self.rows : row {
        let stage = Stage(
          trace: try Trace(name, folder: folder), isPacked: ring == "packed", sluice: sluice, dpdk: dpdk, machine: machine, folder: folder)
        let result = try stage.measure(rounds: rounds, window: Double(window) / 1000)
        results.append(result)
        Self.say(result.text + "\n\n")
      }
    }
    if let json {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
      try encoder.encode(Report(machine: machine.text, dpdk: dpdk.version, rows: results)).write(to: URL(fileURLWithPath: json))
    }
  }
}

struct Report: Encodable {
  let machine: String
  let dpdk: String
  let rows: [Row]
}

struct Failure: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}
