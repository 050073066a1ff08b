// DPDK's testpmd: packet forwarding between two of its ports, told what to do at its prompt.

import Foundation

final class Testpmd {
  let process: Subprocess

  /// `devices` as `--vdev` takes them, in pairs that forward to each other; `options` are testpmd's own.
  init(_ name: String, devices: [String], options: [String], network: Network? = nil, folder: String) throws {
    // In ordinary memory (a memfd, which a vhost-user back-end can map): no huge pages, no root. Its busy core and its
    // prompt may run on either processor.
    let machine = ["--no-pci", "--no-huge", "--no-shconf", "--no-telemetry", "-m", "192", "--lcores", "0@(0,1),1@(0,1)"]
    let words = [Rig.program("testpmd")] + machine + devices.flatMap { ["--vdev", $0] }
      + ["--", "-i", "--total-num-mbufs=8192", "--nb-cores=1", "--no-flush-rx", "--forward-mode=io"] + options
    process = try Subprocess(name, network?.words(words) ?? words, folder: folder)
    try process.line(with: "testpmd>")
  }

  /// A command's answer. Its prompt comes behind it.
  @discardableResult func run(_ command: String, within seconds: Int = Deadline.patience) throws -> String {
    let start = process.log.count
    // Two, so that the end of the first one's answer is seen: the second is not a command, and says so.
    try process.type(command)
    try process.type("sluice-\(start)")
    try process.line(with: "sluice-\(start)", from: start, within: seconds)
    return String(process.log.dropFirst(start))
  }

  struct Counters {
    var received: Int
    var sent: Int
  }

  func counters(port: Int) throws -> Counters {
    let answer = try run("show port stats \(port)")
    func value(_ name: String) throws -> Int {
      guard let place = answer.range(of: name + ":"),
        let value = Int(answer[place.upperBound...].drop { $0 == " " }.prefix { $0.isNumber })
      else { throw RigError("testpmd: no \(name) in: \(answer)") }
      return value
    }
    return Counters(received: try value("RX-packets"), sent: try value("TX-packets"))
  }

  /// Ends it in order: captures that it writes are whole afterwards.
  func quit() throws {
    try process.type("quit")
    try process.end()
  }
}

/// testpmd as a back-end: the wire is a pipe of capture records for each queue, or a TAP device.
final class TestpmdBackEnd: BackEnd {
  private let ports: [Port]
  private let network: Network?
  private let folder: String
  private var testpmd: Testpmd?
  private var pipes: [FileHandle] = []

  init(_ ports: [Port], network: Network? = nil, folder: String) {
    self.ports = ports
    self.network = network
    self.folder = folder
  }

  var process: Subprocess { testpmd!.process }

  func start() throws {
    for port in ports where port.link == .connects { try? FileManager.default.removeItem(atPath: port.socket) }
    pipes = []
    let devices = try ports.enumerated().flatMap { index, port in
      let client = port.link == .listens ? 1 : 0
      let vhost = "net_vhost\(index),iface=\(port.socket),queues=\(port.pairs),client=\(client)"
      if network != nil { return ["net_tap\(index),iface=tap\(index)", vhost] }
      let wires = (0..<port.pairs).map { wire(index, queue: $0) }
      pipes += try wires.map(Self.pipe)
      return ["net_pcap\(index)," + wires.map { "rx_pcap=\($0),tx_pcap=/dev/null" }.joined(separator: ","), vhost]
    }
    let queues = ports.map(\.pairs).max() ?? 1
    let testpmd = try Testpmd("testpmd", devices: devices, options: ["--rxq=\(queues)", "--txq=\(queues)"], network: network, folder: folder)
    // Frame by frame, or it would hold back a trace's last ones until a burst is full; and never drop for want of room.
    if network == nil { try testpmd.run("set burst 1") }
    try testpmd.run("set fwd io retry")
    try testpmd.run("set burst tx delay 100 retry 1000000")
    try testpmd.run("start")
    self.testpmd = testpmd
  }

  private func wire(_ port: Int, queue: Int) -> String { "\(folder)/wire\(port).\(queue)" }

  /// A named pipe that begins with a capture's header, and stays open.
  private static func pipe(at path: String) throws -> FileHandle {
    try? FileManager.default.removeItem(atPath: path)
    guard mkfifo(path, 0o600) == 0 else { throw RigError("mkfifo \(path): \(String(cString: strerror(errno)))") }
    let pipe = try FileHandle(forUpdating: URL(fileURLWithPath: path))
    try pipe.write(contentsOf: Trace.header)
    return pipe
  }

  /// With several queues, each gets every so-manieth frame, and so whole flows. testpmd reads the pipes in turn and waits
  /// at each: there must be equally many frames for each.
  func inject(_ trace: Trace, laps: Int) throws -> any Injection {
    let feeds = ports.enumerated().flatMap { index, port in
      (0..<port.pairs).map { queue in
        "\(Rig.program("feed")) \(trace.path) \(laps) \(queue) \(port.pairs) > \(wire(index, queue: queue)) &"
      }
    }
    let feeding = try Subprocess("inject", ["sh", "-c", feeds.joined(separator: " ") + " wait"], folder: folder)
    return TestpmdInjection(feeding: feeding, frames: trace.frames * laps)
  }

  func delivered(to name: String) -> Int? { nil }
  func crash() { process.kill() }
  /// It has no sums that would have to add up.
  func settle() {}
  func stop() { process.kill() }

  /// Ends when the last record is in the pipe: guests' programs wait for the rest.
  private struct TestpmdInjection: Injection {
    let feeding: Subprocess
    let frames: Int
    /// It drops none: it tries until there is room.
    func end(within seconds: Int) throws -> Settled {
      try feeding.end(within: seconds)
      return Settled(delivered: frames)
    }
    func cancel() { feeding.kill() }
  }
}
