// IPv6: what a classifier meets before it finds a port, or does not find one.

extension Trace {
  static let ipv6 = Trace(
    name: "ipv6.pcap",
    exercises: "IPv6 with UDP, TCP, ICMPv6 to unicast and multicast, extension headers, fragments, an atomic fragment, no next header"
  ) {
    (0..<20).flatMap { round in round6(round * 10) }
  }

  private static func round6(_ first: Int) -> [Frame] {
    let guest = UInt8(first / 10 % 4 + 1)
    let pseudo = Frame.Pseudo(source: host(0xf0), destination: host(guest))
    let solicited: [UInt8] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, guest]
    let toGroup = Frame.Pseudo(source: pseudo.source, destination: solicited)
    let datagram = Frame.udp(from: 5000, to: 4001, pseudo, payload(first, byteCount: 40))
    let long = Frame.udp(from: 5001, to: 4000, pseudo, payload(first, byteCount: 1992))
    /// An options header with nothing but padding (PadN of 4), before `next`.
    func options(before next: UInt8) -> [UInt8] { [next, 0, 1, 4, 0, 0, 0, 0] }
    /// A type 4 routing header, one segment, already there. RFC 8754.
    let routing = [17, 2, 4, 0, 0, 0, 0, 0] + pseudo.destination
    func fragment(_ offset: UInt16, more: Bool) -> [UInt8] {
      let field = offset | (more ? 1 : 0)
      return [17, 0, UInt8(field >> 8), UInt8(field & 0xff), 0, 0, 0x51, UInt8(first / 10)]
    }
    return [
      frame(guest, pseudo, next: 17) { $0.append(datagram) },
      frame(guest, pseudo, next: 6) {
        $0.tcp(from: 5002, to: 443, pseudo, sequence: UInt32(first), flags: 0x02, [])
      },
      frame(guest, pseudo, next: 6) {
        $0.tcp(
          from: 5002, to: 443, pseudo, sequence: UInt32(first) + 1, flags: 0x18, payload(first + 2, byteCount: 700))
      },
      frame(guest, pseudo, next: 58) { $0.icmpv6(type: 128, pseudo, payload(first + 3, byteCount: 60)) },
      frame(nil, toGroup, next: 58) {
        $0.icmpv6(type: 135, toGroup, [0, 0, 0, 0] + pseudo.destination + [1, 1] + Frame.MAC.local(0xf0).bytes)
      },
      frame(guest, pseudo, next: 0) { $0.append(options(before: 60) + options(before: 43) + routing + datagram) },
      frame(guest, pseudo, next: 44) { $0.append(fragment(0, more: true) + long[..<1448]) },
      frame(guest, pseudo, next: 44) { $0.append(fragment(1448, more: false) + long[1448...]) },
      frame(guest, pseudo, next: 44) { $0.append(fragment(0, more: false) + datagram) },
      frame(guest, pseudo, next: 59) { $0.append(payload(first + 9, byteCount: 16)) },
    ]
  }

  /// A frame to `guest`, or to the group in `pseudo`.
  private static func frame(
    _ guest: UInt8?, _ pseudo: Frame.Pseudo, next: UInt8, _ body: (inout Frame) -> Void
  ) -> Frame {
    let destination = guest.map(Frame.MAC.local) ?? .multicast(for: pseudo.destination)
    var frame = Frame(to: destination, from: .local(0xf0), 0x86dd)
    frame.ipv6(from: pseudo.source, to: pseudo.destination, next: next, flow: UInt32(guest ?? 0), body)
    frame.pad()
    return frame
  }

  /// fd00::`number`, a unique local address.
  private static func host(_ number: UInt8) -> [UInt8] { [0xfd] + [UInt8](repeating: 0, count: 14) + [number] }
}
