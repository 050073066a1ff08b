// DPDK's virtio-user: a vhost-user front-end without a VM. What it receives goes through a pipe to `programs/check`.

import Foundation

final class VirtioUser {
  let testpmd: Testpmd
  private let check: Subprocess

  /// Connects to `port` (or listens there, by the port's link), and counts the trace's frames, each expected `laps` times.
  /// `more` are further properties of the device.
  init(_ port: Port, _ trace: Trace, laps: Int = 1, more: String = "", folder: String) throws {
    let pipe = folder + "/received"
    guard mkfifo(pipe, 0o600) == 0 else { throw RigError("mkfifo \(pipe): \(String(cString: strerror(errno)))") }
    let count = [Rig.program("check"), "\(trace.first)", "\(trace.frames)", "\(laps)", port.mac].joined(separator: " ")
    check = try Subprocess("check", ["sh", "-c", "exec \(count) < \(pipe)"], folder: folder)
    let device = "net_virtio_user0,path=\(port.socket),queues=\(port.pairs),queue_size=256,mac=\(port.mac),mrg_rxbuf=1"
      + (port.isPacked ? ",packed_vq=1" : "") + (port.link == .listens ? ",server=1" : "") + more
    let queues = ["--rxq=\(port.pairs)", "--txq=\(port.pairs)"]
    let capture = "net_pcap0" + (0..<port.pairs).map { _ in ",tx_pcap=\(pipe)" }.joined()
    testpmd = try Testpmd("front-end", devices: [device, capture], options: queues, folder: folder)
    try testpmd.run("start")
  }

  /// Waits until `frames` came, for as long as more come, and gives what `check` counted.
  func end(frames: Int, within seconds: Int = Deadline.patience) throws -> Tally {
    var (received, deadline) = (0, Deadline(seconds: seconds))
    while received < frames, !deadline.isOver {
      let now = try testpmd.counters(port: 0).received
      if now > received { (received, deadline) = (now, Deadline(seconds: seconds)) }
      usleep(50_000)
    }
    // It writes the rest of the capture when it ends.
    try testpmd.quit()
    try check.end()
    return try Tally(check.log)
  }

  func kill() { testpmd.process.kill() }
}
