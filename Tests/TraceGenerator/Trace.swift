// What each trace has in it. Nothing here is random or takes the time of day: the same source gives the same bytes.

/// A trace that is made, not captured.
struct Trace: Sendable {
  var name: String
  /// What it is for, in the manifest.
  var exercises: String
  var frames: @Sendable () -> [Frame]

  static let all = [imix, flood64, vlan, ipv6, jumbo]
}

extension Trace {
  static let imix = Trace(
    name: "imix.pcap",
    exercises: "7:4:1 frames of 64, 576 and 1514 bytes (without frame check sequence), UDP and TCP, 64 flows to 4 MACs"
  ) {
    // The order in a round keeps large and small frames apart.
    let round = [64, 576, 64, 64, 576, 64, 1514, 64, 576, 64, 576, 64]
    return (0..<64 * round.count).map { index in ipv4(index, byteCount: round[index % round.count], flow: index * 7 % 64) }
  }

  static let flood64 = Trace(
    name: "flood64.pcap",
    exercises: "the smallest frames: 64 bytes on the wire, 60 without frame check sequence, UDP, 256 flows to 4 MACs"
  ) {
    (0..<3000).map { index in ipv4(index, byteCount: 60, flow: index % 256, isUDP: true) }
  }

  static let jumbo = Trace(
    name: "jumbo.pcap",
    exercises: "frames longer than 1514 bytes, to 9014, among short ones: sizes at and beside powers of two and MTUs"
  ) {
    let sizes = [60, 1514, 1515, 1518, 1522, 2047, 2048, 2049, 3000, 4095, 4096, 4097, 8192, 9000, 9013, 9014, 60, 9014]
    return sizes.enumerated().map { index, size in ipv4(index, byteCount: size, flow: index) }
  }

  static let vlan = Trace(
    name: "vlan.pcap",
    exercises: "802.1Q with several VIDs and priorities, priority tags (VID 0), 802.1ad (0x88a8) over 802.1Q, two 0x8100, untagged"
  ) {
    let tags: [[Frame.Tag]] = [
      [], [.init(vlan: 1)], [.init(vlan: 2)], [.init(priority: 3, vlan: 100)], [.init(vlan: 4094)],
      [.init(priority: 5, vlan: 0)], [.init(priority: 7, vlan: 0)],
      [.init(type: 0x88a8, vlan: 100), .init(vlan: 200)],
      [.init(type: 0x88a8, priority: 6, vlan: 4094), .init(priority: 1, vlan: 1)],
      [.init(vlan: 10), .init(vlan: 20)],
    ]
    let sizes = [64, 128, 576, 1518]
    return (0..<200).map { index in
      ipv4(index, byteCount: sizes[index / tags.count % sizes.count], flow: index % 16, tags: tags[index % tags.count])
    }
  }

  /// An IPv4 frame of `byteCount` bytes in all, to the MAC, address and port of its flow; every other flow is TCP.
  private static func ipv4(
    _ index: Int, byteCount: Int, flow: Int, tags: [Frame.Tag] = [], isUDP: Bool = false
  ) -> Frame {
    let guest = UInt8(flow % 4 + 1)
    let pseudo = Frame.Pseudo(source: [10, 0, 1, UInt8(flow)], destination: [10, 0, 0, guest])
    let port = UInt16(1024 + flow)
    let overhead = 14 + 4 * tags.count + 20
    var frame = Frame(to: .local(guest), from: .local(0xf0), tags: tags, 0x0800)
    let usesUDP = isUDP || flow / 4 % 2 == 0
    frame.ipv4(
      from: pseudo.source, to: pseudo.destination, next: usesUDP ? 17 : 6,
      identification: UInt16(truncatingIfNeeded: index)
    ) {
      if usesUDP {
        $0.udp(from: port, to: 4000, pseudo, payload(index, byteCount: byteCount - overhead - 8))
      } else {
        $0.tcp(
          from: port, to: 80, pseudo, sequence: UInt32(index), flags: 0x18,
          payload(index, byteCount: byteCount - overhead - 20))
      }
    }
    frame.pad()
    return frame
  }

  /// The frame's index, and bytes that follow from it and their place: a frame that is moved, cut or mixed is seen.
  static func payload(_ index: Int, byteCount: Int) -> [UInt8] {
    let head = (0..<4).map { UInt8(truncatingIfNeeded: index >> (24 - 8 * $0)) }
    return (0..<max(0, byteCount)).map { $0 < 4 ? head[$0] : UInt8(truncatingIfNeeded: index &* 31 &+ $0) }
  }
}
