import Capture
import Foundation
import Support
import Testing

/// `sluice run --host`: the machine's own port, in a network of its own, judged by the machine's own socket.
///
/// On a thread of its own, where an expectation would not know its test: what is wrong is thrown.
@Suite struct HostPortTests {
  @Test(.enabled(if: FreshNetwork.hasTap, "TAP devices need root and /dev/net/tun"))
  func `frames that rules send to the host come out of its TAP device as they went in, and its own go out of the card`() throws {
    let trace = ProgramTests.root.path + "/Traces/real.pcap"
    // As libpcap finds them.
    var wanted: [[UInt8]] = []
    var reader = try CaptureReader(path: trace, filter: "arp or udp dst port 53")
    var buffer = [UInt8](repeating: 0, count: CaptureReader.largestFrame)
    while let frame = try unsafe buffer.withUnsafeMutableBytes({ try unsafe reader.next(into: $0) }) { wanted.append(Array(buffer[..<frame.capturedByteCount])) }
    let expected = wanted
    try FreshNetwork.run {
      let backend = try RunProgramTests.Backend(
        ["run", "--vm", "web,socket=web.sock", "--host", "tap=host0", "--control", "c.sock", "--rules", "f.yaml"],
        file: "prio 1 match eth.type=arp then host, count\nprio 1 match udp.dst=53 then host\n")
      try backend.wait(for: "notice  ready")
      let link = try PacketSocket(link: "host0")
      // The wire does not wait for a guest that is not there.
      let injected = try backend.ask("inject", trace, "--speed", "pps=20k", "--json")
      try check(injected.status == 0 && injected.output.contains("\"host\":\(expected.count)"), injected.output + injected.error)
      var found: [[UInt8]] = []
      for _ in 0..<500 where found.count < expected.count {
        // What the machine itself sends into its device is seen there too.
        if let frame = link.receive() { if expected.contains(frame) { found.append(frame) } } else { usleep(10_000) }
      }
      try check(found == expected && expected.count > 40, "\(found.count) of \(expected.count) frames, or not those")
      let sent: [UInt8] = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x88, 0xB5] + Array(repeating: 7, count: 86)
      for _ in 0..<5 { try check(link.send(sent) == 0, "the machine did not take a frame") }
      var status = ""
      for _ in 0..<500 {
        status = try backend.ask("status").output
        if status.contains("given       \(expected.count) frames"), Self.taken(status) >= 5 { break }
        usleep(10_000)
      }
      try check(Self.taken(status) >= 5 && !status.contains("✗"), status)
      let rules = try backend.ask("rules", "list").output
      try check(rules.contains("then host, count  # 2 frames, 84 B"), rules)
      try check(backend.end(by: SIGTERM) == 0, backend.log)
    }
  }

  private static func taken(_ status: String) -> Int {
    let line = status.split(separator: "\n").first { $0.contains("taken ") }
    return line.flatMap { Int($0.split(separator: " ")[1]) } ?? 0
  }
}
