import Foundation

/// Frames with a tag in every eight bytes behind their addresses: four bytes that say whose they are, all above 0x7F, and
/// then which frame, and which eight bytes of it.
enum Frames {
  static func make(to: [UInt8], from: [UInt8], tag: UInt32, number: Int, byteCount: Int) -> [UInt8] {
    var frame = to + from + [0x88, 0xB5]
    var word = 0
    while frame.count < byteCount {
      frame += [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: tag >> $0) }
      frame += [UInt8(truncatingIfNeeded: number >> 8), UInt8(truncatingIfNeeded: number), UInt8(truncatingIfNeeded: word >> 8), UInt8(truncatingIfNeeded: word)]
      word += 1
    }
    return Array(frame.prefix(byteCount))
  }

  /// A capture file: tcpdump's format, microseconds, Ethernet.
  static func write(_ frames: [[UInt8]], to path: String) throws {
    var file = littleEndian(UInt32(0xA1B2_C3D4), UInt16(2), UInt16(4), UInt32(0), UInt32(0), UInt32(65535), UInt32(1))
    for (n, frame) in frames.enumerated() {
      file += littleEndian(UInt32(n / 1_000_000), UInt32(n % 1_000_000), UInt32(frame.count), UInt32(frame.count))
      file += frame
    }
    try Data(file).write(to: URL(fileURLWithPath: path))
  }
}
