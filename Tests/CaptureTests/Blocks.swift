// Captures made by hand, byte by byte, for what no file at hand has.

/// Little- or big-endian integers, one after another.
struct Bytes {
  var bytes: [UInt8] = []
  var isBig = false

  mutating func add<Integer: FixedWidthInteger>(_ values: Integer...) {
    for value in values {
      let little = (0..<Integer.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
      bytes += isBig ? little.reversed() : little
    }
  }
}

/// An option of a block; `length` is for those that lie.
struct Option {
  var code: UInt16
  var value: [UInt8] = []
  var length: UInt16?
  static let end = Option(code: 0)
  /// if_tsresol: units of 10^-`digits` seconds.
  static func unit(_ digits: UInt8) -> Option { Option(code: 9, value: [digits]) }
}

extension Bytes {
  mutating func add(_ options: [Option]) {
    for option in options {
      add(option.code, option.length ?? UInt16(option.value.count))
      bytes += option.value + [UInt8](repeating: 0, count: -option.value.count & 3)
    }
  }
}

/// A pcapng file.
struct Blocks {
  private(set) var file = Bytes()

  init(isBig: Bool = false) { section(isBig: isBig) }

  var bytes: [UInt8] { file.bytes }

  mutating func section(isBig: Bool = false) {
    file.isBig = isBig
    block(0x0a0d_0d0a) {
      $0.add(0x1a2b_3c4d as UInt32)
      $0.add(1, 0 as UInt16)
      $0.add(-1 as Int64)
    }
  }

  mutating func interface(snapshot: UInt32 = 0, linkType: UInt16 = 1, options: [Option] = []) {
    block(1) {
      $0.add(linkType, 0)
      $0.add(snapshot)
      $0.add(options)
    }
  }

  mutating func enhanced(
    _ frame: [UInt8], interface: UInt32 = 0, original: Int? = nil, time: UInt64 = 0, options: [Option] = []
  ) {
    block(6) {
      $0.add(
        interface, UInt32(time >> 32), UInt32(time & 0xffff_ffff), UInt32(frame.count),
        UInt32(original ?? frame.count))
      $0.bytes += frame + [UInt8](repeating: 0, count: -frame.count & 3)
      $0.add(options)
    }
  }

  mutating func simple(_ frame: [UInt8], original: Int? = nil) {
    block(3) {
      $0.add(UInt32(original ?? frame.count))
      $0.bytes += frame
    }
  }

  mutating func block(_ type: UInt32, _ body: (inout Bytes) -> Void) {
    var inner = Bytes(isBig: file.isBig)
    body(&inner)
    inner.bytes += [UInt8](repeating: 0, count: -inner.bytes.count & 3)
    let length = UInt32(inner.bytes.count + 12)
    file.add(type, length)
    file.bytes += inner.bytes
    file.add(length)
  }
}

/// A pcap file of these frames, one microsecond apart.
func pcap(
  _ frames: [[UInt8]], isBig: Bool = false, snapshot: UInt32 = 262_144, magic: UInt32 = 0xa1b2_c3d4,
  linkType: UInt32 = 1, extra: [UInt8] = []
) -> [UInt8] {
  var file = Bytes(isBig: isBig)
  file.add(magic)
  file.add(2, 4 as UInt16)
  file.add(0, 0, snapshot, linkType)
  for (index, frame) in frames.enumerated() {
    file.add(1, UInt32(index), UInt32(frame.count), UInt32(frame.count))
    file.bytes += extra + frame
  }
  return file.bytes
}

func frame(_ count: Int, _ seed: UInt8 = 1) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0) &* 7 &+ seed } }
