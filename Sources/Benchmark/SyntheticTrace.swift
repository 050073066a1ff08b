internal import Capture
internal import FlowSteering

/// Frames that are made for a benchmark: Ethernet, IPv4, UDP, with right lengths and header sums.
struct SyntheticTrace: Hashable {
  /// Frames in a trace; a multiple of IMIX's twelve.
  static let frameCount = 768
  /// Bytes of the simple IMIX, 7:4:1, as captured.
  static let imixSizes = [64, 64, 594, 64, 64, 594, 64, 1514, 594, 64, 64, 594]

  /// For its file, and for messages.
  var name: String
  /// Bytes of the frames, in turn, without check sequence; each at least 60.
  var sizes: [Int]
  /// Frames go to that many addresses in turn: 02:00:00:00:00:01 and so on.
  var destinations = 1
  /// Frames are of that many flows in turn.
  var flows = 64

  static func frames(of size: Int) -> SyntheticTrace { SyntheticTrace(name: "frames-\(size)", sizes: [size]) }
  static let imix = SyntheticTrace(name: "imix", sizes: imixSizes)

  /// An exact rule for a flow.
  static func rule(forFlow flow: Int, vm: String) -> String {
    "match ip.src=10.\(flow >> 8 & 255).\(flow & 255).1 ip.dst=192.0.2.\(flow % 200 + 1) udp.src=\(1024 + flow % 50_000) udp.dst=\(port(flow)) then vm \(vm)"
  }
  private static func port(_ flow: Int) -> Int { [443, 53, 4789][flow % 3] }

  /// The frame at a place of the trace.
  func frame(_ index: Int) -> [UInt8] {
    let count = sizes[index % sizes.count]
    let flow = flows <= Self.frameCount ? index % flows : index * flows / Self.frameCount
    let destination = MACAddress.local(index / sizes.count % destinations + 1)
    var frame: [UInt8] = (0..<6).map { destination.octet($0) } + [0x02, 0xFF, 0, 0, 0, 1, 0x08, 0x00]
    func word(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 255), UInt8(value & 255)] }
    // RFC 791: version, header length, total length, don't fragment, time to live 64, UDP.
    var header: [UInt8] = [0x45, 0] + word(count - 14) + [0, 0, 0x40, 0, 64, 17, 0, 0]
    header += [10, UInt8(flow >> 8 & 255), UInt8(flow & 255), 1, 192, 0, 2, UInt8(flow % 200 + 1)]
    var sum = stride(from: 0, to: 20, by: 2).reduce(0) { $0 + Int(header[$1]) << 8 + Int(header[$1 + 1]) }
    while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
    header.replaceSubrange(10..<12, with: word(~sum & 0xFFFF))
    // RFC 768: without a sum of its own.
    frame += header + word(1024 + flow % 50_000) + word(Self.port(flow)) + word(count - 34) + [0, 0]
    frame += (frame.count..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ index) }
    return frame
  }

  /// Writes all of it to a file, a frame each microsecond.
  func write(to path: String) throws(CaptureError) {
    var writer = try CaptureWriter(path: path)
    for index in 0..<Self.frameCount {
      let frame = frame(index)
      let room = UnsafeMutableRawBufferPointer.allocate(byteCount: frame.count, alignment: 1)
      defer { unsafe room.deallocate() }
      unsafe room.copyBytes(from: frame)
      try unsafe writer.append(bytes: UnsafeRawBufferPointer(room), timestamp: UInt64(index) * 1000)
    }
    try writer.close()
  }
}
