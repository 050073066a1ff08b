// Frames from the outside in: each layer is written, what it carries is written into it, and the lengths and
// checksums are filled in when it is known.

/// The bytes of an Ethernet frame without its frame check sequence, while it is being written.
struct Frame {
  private(set) var bytes: [UInt8] = []

  /// An Ethernet header; `tags` are 802.1Q or 802.1ad, outermost first.
  init(to destination: MAC, from source: MAC, tags: [Tag] = [], _ type: UInt16) {
    append(destination.bytes + source.bytes)
    for tag in tags {
      append(tag.type)
      append(tag.control)
    }
    append(type)
  }

  struct MAC {
    var bytes: [UInt8]
    /// One of ours: 02:00:00:00:00:`number`, locally administered.
    static func local(_ number: UInt8) -> MAC { MAC(bytes: [2, 0, 0, 0, 0, number]) }
    /// Where IPv6 multicast goes. RFC 2464, 7.
    static func multicast(for address: [UInt8]) -> MAC { MAC(bytes: [0x33, 0x33] + address.suffix(4)) }
  }

  struct Tag {
    var type: UInt16 = 0x8100
    var priority: UInt16 = 0
    var vlan: UInt16
    var control: UInt16 { priority << 13 | vlan }
  }

  mutating func append(_ more: [UInt8]) { bytes += more }
  mutating func append(_ value: UInt16) { bytes += [UInt8(value >> 8), UInt8(value & 0xff)] }
  mutating func append(_ value: UInt32) {
    append(UInt16(value >> 16))
    append(UInt16(value & 0xffff))
  }
  mutating func set(_ value: UInt16, at position: Int) {
    bytes[position] = UInt8(value >> 8)
    bytes[position + 1] = UInt8(value & 0xff)
  }
  /// Zeros up to the least that Ethernet carries: 60 bytes and the frame check sequence.
  mutating func pad() { while bytes.count < 60 { bytes.append(0) } }
}

extension Frame {
  /// An IPv4 packet of protocol `next`, whose `body` writes what it carries. RFC 791.
  mutating func ipv4(
    from source: [UInt8], to destination: [UInt8], next: UInt8, identification: UInt16,
    _ body: (inout Frame) -> Void
  ) {
    let start = bytes.count
    append([0x45, 0, 0, 0])
    append(identification)
    append([0x40, 0, 64, next, 0, 0] + source + destination)
    body(&self)
    set(UInt16(bytes.count - start), at: start + 2)
    set(Self.checksum(bytes[start..<start + 20]), at: start + 10)
  }

  /// An IPv6 packet. `next` is what follows its header, be it an extension. RFC 8200.
  mutating func ipv6(
    from source: [UInt8], to destination: [UInt8], next: UInt8, flow: UInt32 = 0,
    _ body: (inout Frame) -> Void
  ) {
    let start = bytes.count
    append(UInt32(6) << 28 | flow)
    append([0, 0, next, 64] + source + destination)
    body(&self)
    set(UInt16(bytes.count - start - 40), at: start + 4)
  }

  /// A UDP datagram; `pseudo` begins its checksum.
  mutating func udp(from source: UInt16, to destination: UInt16, _ pseudo: Pseudo, _ payload: [UInt8]) {
    append(Self.udp(from: source, to: destination, pseudo, payload))
  }

  static func udp(
    from source: UInt16, to destination: UInt16, _ pseudo: Pseudo, _ payload: [UInt8]
  ) -> [UInt8] {
    var datagram = Frame(source, destination, UInt16(payload.count + 8), 0)
    datagram.append(payload)
    let sum = pseudo.checksum(of: datagram.bytes, next: 17)
    datagram.set(sum == 0 ? 0xffff : sum, at: 6)
    return datagram.bytes
  }

  /// A TCP segment without options.
  mutating func tcp(
    from source: UInt16, to destination: UInt16, _ pseudo: Pseudo, sequence: UInt32, flags: UInt16,
    _ payload: [UInt8]
  ) {
    var segment = Frame(source, destination)
    segment.append(sequence)
    segment.append(UInt32(flags & 0x10 == 0 ? 0 : 1))
    segment.append(5 << 12 | flags)
    segment.append([0xff, 0xff, 0, 0, 0, 0])
    segment.append(payload)
    segment.set(pseudo.checksum(of: segment.bytes, next: 6), at: 16)
    append(segment.bytes)
  }

  /// An ICMPv6 message. RFC 4443.
  mutating func icmpv6(type: UInt8, _ pseudo: Pseudo, _ body: [UInt8]) {
    var message = Frame()
    message.append([type, 0, 0, 0] + body)
    message.set(pseudo.checksum(of: message.bytes, next: 58), at: 2)
    append(message.bytes)
  }

  private init(_ words: UInt16...) { words.forEach { append($0) } }

  /// The addresses that a checksum covers besides the packet's own bytes.
  struct Pseudo {
    var source: [UInt8]
    var destination: [UInt8]

    func checksum(of bytes: [UInt8], next: UInt8) -> UInt16 {
      let count = UInt32(bytes.count)
      let length = [UInt8(count >> 24), UInt8(count >> 16 & 0xff), UInt8(count >> 8 & 0xff), UInt8(count & 0xff)]
      return Frame.checksum((source + destination + length + [0, 0, 0, next] + bytes)[...])
    }
  }

  /// The Internet checksum. RFC 1071.
  static func checksum(_ bytes: ArraySlice<UInt8>) -> UInt16 {
    var sum: UInt32 = 0
    for (index, byte) in bytes.enumerated() { sum += index % 2 == 0 ? UInt32(byte) << 8 : UInt32(byte) }
    while sum > 0xffff { sum = (sum & 0xffff) + sum >> 16 }
    return ~UInt16(sum)
  }
}
