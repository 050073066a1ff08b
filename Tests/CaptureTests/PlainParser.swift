// A second opinion: a capture taken apart without libpcap and without the reader's code, all of the file in memory.

import Foundation

/// What is in a capture, as far as this parser understands it.
struct PlainParser {
  private(set) var frames: [SeenFrame] = []
  /// Why it stopped before the end, in a word; nil if it did not.
  private(set) var stop: String?

  private let file: [UInt8]
  private var isBig = false

  init(path: String) throws { self.init([UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))) }

  init(_ file: [UInt8]) {
    self.file = file
    guard file.count >= 4 else {
      stop = "short"
      return
    }
    switch Array(file[..<4]) {
    case [0xd4, 0xc3, 0xb2, 0xa1]: pcap(isBig: false, nanoseconds: 1000)
    case [0xa1, 0xb2, 0xc3, 0xd4]: pcap(isBig: true, nanoseconds: 1000)
    case [0x4d, 0x3c, 0xb2, 0xa1]: pcap(isBig: false, nanoseconds: 1)
    case [0xa1, 0xb2, 0x3c, 0x4d]: pcap(isBig: true, nanoseconds: 1)
    case [0x0a, 0x0d, 0x0d, 0x0a]: pcapng()
    default: stop = "magic"
    }
  }

  var byteCount: Int { frames.reduce(0) { $0 + $1.bytes.count } }

  private func number(_ at: Int, _ count: Int = 4) -> Int {
    let bytes = file[at..<at + count]
    return (isBig ? Array(bytes) : bytes.reversed()).reduce(0) { $0 << 8 | Int($1) }
  }

  private mutating func pcap(isBig: Bool, nanoseconds: UInt64) {
    self.isBig = isBig
    guard file.count >= 24 else { return stop = "short" }
    guard number(4, 2) == 2, number(6, 2) == 4 else { return stop = "version" }
    guard number(20) & 0xffff == 1 else { return stop = "link type" }
    var at = 24
    while at < file.count {
      guard at + 16 <= file.count else { return stop = "header" }
      let captured = number(at + 8)
      guard captured <= 262_144 else { return stop = "length" }
      guard at + 16 + captured <= file.count else { return stop = "frame" }
      let timestamp = UInt64(number(at)) * 1_000_000_000 + UInt64(number(at + 4)) * nanoseconds
      frames.append(
        SeenFrame(
          timestamp: timestamp, original: number(at + 12), bytes: Array(file[(at + 16)..<(at + 16 + captured)])))
      at += 16 + captured
    }
  }

  private mutating func pcapng() {
    var at = 0
    var interfaces: [(snapshot: Int, resolution: Int, offset: Int)] = []
    while at < file.count {
      guard at + 12 <= file.count else { return stop = "header" }
      let type = number(at)
      if type == 0x0a0d_0d0a {
        isBig = file[at + 8] == 0x1a
        guard number(at + 8) == 0x1a2b_3c4d else { return stop = "magic" }
        interfaces = []
      }
      let length = number(at + 4)
      guard length >= 12, length % 4 == 0 else { return stop = "length" }
      guard at + length <= file.count else { return stop = "block" }
      guard number(at + length - 4) == length else { return stop = "trailer" }
      switch type {
      case 1:
        guard number(at + 8, 2) == 1 else { return stop = "link type" }
        let snapshot = number(at + 12)
        var interface = (snapshot: snapshot == 0 ? Int.max : snapshot, resolution: 6, offset: 0)
        var option = at + 16
        while option + 4 <= at + length - 4, number(option, 2) != 0 {
          if number(option, 2) == 9 { interface.resolution = Int(file[option + 4]) }
          if number(option, 2) == 14 { interface.offset = number(option + 4, 8) }
          option += 4 + (number(option + 2, 2) + 3) / 4 * 4
        }
        guard option <= at + length - 4 else { return stop = "option" }
        interfaces.append(interface)
      case 2, 6:
        let id = type == 6 ? number(at + 8) : number(at + 8, 2)
        guard id < interfaces.count else { return stop = "interface" }
        let captured = number(at + 20)
        guard captured <= length - 32 else { return stop = "captured" }
        let units = UInt64(number(at + 12)) << 32 | UInt64(number(at + 16))
        let timestamp = Self.nanoseconds(units, interfaces[id].resolution, interfaces[id].offset)
        frames.append(
          SeenFrame(
            timestamp: timestamp, original: number(at + 24), bytes: Array(file[(at + 28)..<(at + 28 + captured)])))
      case 3:
        guard let interface = interfaces.first else { return stop = "interface" }
        let captured = min(number(at + 8), interface.snapshot)
        guard captured <= length - 16 else { return stop = "captured" }
        frames.append(
          SeenFrame(timestamp: 0, original: number(at + 8), bytes: Array(file[(at + 12)..<(at + 12 + captured)])))
      default: break
      }
      at += length
    }
  }

  private static func nanoseconds(_ units: UInt64, _ resolution: Int, _ offset: Int) -> UInt64 {
    let seconds = UInt64(offset) * 1_000_000_000
    if resolution & 0x80 != 0 {
      let exact = Double(units) * 1e9
      return seconds + UInt64(exact * pow(2, -Double(resolution & 0x7f)))
    }
    var value = units
    if resolution > 19 { return seconds }
    for _ in 0..<max(0, 9 - resolution) { value *= 10 }
    for _ in 0..<max(0, resolution - 9) { value /= 10 }
    return seconds + value
  }
}
