import BenchSupport
import Foundation

/// DPDK's testpmd, as back-end and as guest.
struct DPDK {
  let testpmd: String
  let usesHugePages: Bool
  let version: String

  init(testpmd: String, usesHugePages: Bool) throws {
    (self.testpmd, self.usesHugePages) = (testpmd, usesHugePages)
    let text = try Program.run([testpmd, "-v", "--no-huge", "--no-pci", "--in-memory", "--no-telemetry", "-m", "64", "--", "--help"]).output
    guard let place = text.range(of: "RTE Version: 'DPDK ") else {
      throw Failure("\(testpmd) does not run; Bench/versus-dpdk installs what Debian calls dpdk-dev: \(text.suffix(300))")
    }
    version = String(text[place.upperBound...].prefix { $0 != "'" })
  }

  private func words(_ name: String, megabytes: Int, cores: String, devices: [String], _ options: [String]) -> [String] {
    let memory = usesHugePages ? ["--in-memory", "--single-file-segments"] : ["--no-huge", "--no-shconf"]
    return [testpmd, "--lcores", cores, "--no-pci", "--no-telemetry", "-m", String(megabytes), "--file-prefix", name] + memory
      + devices.flatMap { ["--vdev", $0] } + ["--", "-i", "--nb-cores=1", "--burst=32", "--rxd=1024", "--txd=1024"] + options
  }
  /// Buffers that a whole frame fits, and no fewer than rings and caches hold.
  private func buffers(_ largest: Int, _ count: Int) -> [String] {
    largest <= 1514
      ? ["--total-num-mbufs=\(count)"] : ["--total-num-mbufs=\(count / 4)", "--mbuf-size=10240", "--max-pkt-len=\(largest + 4)"]
  }

  /// Receives and forgets, on `core`; what is said at its prompt is done on `other`.
  func guest(_ name: String, socket: String, isPacked: Bool, largest: Int, core: Int, other: Int, folder: String) throws -> Tool {
    let device = "net_virtio_user0,path=\(socket),queues=1,queue_size=1024,mrg_rxbuf=1,in_order=0" + (isPacked ? ",packed_vq=1" : "")
    return try Tool(
      name,
      words(name, megabytes: 200, cores: "0@\(other),1@\(core)", devices: [device], ["--forward-mode=rxonly"] + buffers(largest, 32768)), folder: folder)
  }

  /// From `source` to a vhost device, or to nothing where no socket is given.
  func backEnd(_ name: String, source: String, socket: String?, largest: Int, core: Int, folder: String) throws -> Tool {
    let sink = socket.map { "net_vhost0,iface=\($0),queues=1" } ?? "net_null1,copy=0"
    return try Tool(
      name, words(name, megabytes: 256, cores: "0@\(core),1@\(core)", devices: [source, sink], ["--forward-mode=io", "--no-flush-rx"] + buffers(largest, 65536)),
      folder: folder)
  }

  /// Frames that a port has counted.
  static func received(_ tool: Tool, port: Int) throws -> UInt64 { try counter("RX-packets", tool, port) }
  static func sent(_ tool: Tool, port: Int) throws -> UInt64 { try counter("TX-packets", tool, port) }
  private static func counter(_ name: String, _ tool: Tool, _ port: Int) throws -> UInt64 {
    try tool.type("show port stats \(port)")
    // The last line of the answer.
    let answer = try tool.wait(for: "Tx-pps")
    guard let place = answer.range(of: "\(name):", options: .backwards),
      let value = UInt64(answer[place.upperBound...].drop { $0 == " " }.prefix { $0.isNumber })
    else { throw Failure("\(tool.name): no \(name) in: \(answer)") }
    return value
  }
}
