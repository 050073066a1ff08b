import Foundation

/// What one row is measured on: a capture that both sides have in memory before they begin.
struct Trace {
  let name: String
  let path: String
  /// Bytes of each frame without the check sequence; nil: they differ.
  let frameBytes: Int?
  /// On average.
  let meanBytes: Double
  let largest: Int

  private static let count = 512

  init(_ name: String, folder: String) throws {
    self.name = name
    if let bytes = Int(name) {
      path = folder + "/\(name).pcap"
      // 1514 and 9014 are said without the check sequence, as everybody does.
      let frame = bytes == 1514 || bytes == 9014 ? bytes : bytes - 4
      frameBytes = frame
      (meanBytes, largest) = (Double(frame), frame)
      try Self.make(frame).write(to: URL(fileURLWithPath: path))
    } else {
      path = "Traces/\(name).pcap"
      let sizes = try Self.sizes(in: path)
      frameBytes = nil
      (meanBytes, largest) = (Double(sizes.reduce(0, +)) / Double(sizes.count), sizes.max() ?? 0)
    }
  }

  /// UDP over IPv4, of 64 flows, to one address.
  private static func make(_ frameBytes: Int) -> Data {
    func big(_ value: Int, _ count: Int) -> [UInt8] { (0..<count).reversed().map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
    func little(_ value: Int, _ count: Int) -> [UInt8] { big(value, count).reversed() }
    var file = little(0xA1B2_C3D4, 4) + little(2, 2) + little(4, 2) + little(0, 8) + little(65535, 4) + little(1, 4)
    for number in 0..<count {
      var frame: [UInt8] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]
      frame += [0x45, 0] + big(frameBytes - 14, 2) + big(number, 2) + [0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]
      frame += big(1000 + number % 64, 2) + big(53, 2) + big(frameBytes - 34, 2) + [0, 0]
      while frame.count < frameBytes { frame.append(UInt8(truncatingIfNeeded: frame.count &* 7 &+ number)) }
      file += little(0, 4) + little(number, 4) + little(frame.count, 4) + little(frame.count, 4) + frame
    }
    return Data(file)
  }

  private static func sizes(in path: String) throws -> [Int] {
    let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    var (place, sizes) = (24, [Int]())
    while place + 16 <= bytes.count {
      let length = (0..<4).reduce(0) { $0 | Int(bytes[place + 8 + $1]) << (8 * $1) }
      sizes.append(length)
      place += 16 + length
    }
    guard !sizes.isEmpty else { throw Failure("\(path): no frame in it") }
    return sizes
  }
}
