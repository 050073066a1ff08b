import Capture
import Foundation
import Testing

/// Files that were good and are damaged: cut anywhere, changed anywhere.
@Suite struct DamageTests {
  @Test(arguments: ["pcap", "pcapng"])
  func `a file cut at any byte gives its whole frames and says that it was cut`(container: String) throws {
    let (good, ends) = Self.good(container)
    let whole = try reading(good)
    #expect(whole.error == nil)
    try withFolder { folder in
      try Data(good).write(to: URL(fileURLWithPath: folder + "/cut"))
      for count in (0..<good.count).reversed() {
        unsafe truncate(folder + "/cut", count)
        let reading = Reading(folder + "/cut")
        let expected = ends.frames.filter { $0 <= count }.count
        guard reading.frames == Array(whole.frames.prefix(expected)),
          (reading.error == nil) == ends.clean.contains(count)
        else {
          Issue.record("cut at \(count): \(reading.frames.count) frames, \(String(describing: reading.error))")
          return
        }
      }
    }
  }

  @Test func `no damage makes the reader crash, run on, or give a frame that is too long`() throws {
    let seed = ProcessInfo.processInfo.environment["SEED"].flatMap { UInt64($0) } ?? .random(in: 0 ... .max)
    print("SEED=\(seed)")
    var random = SplitMix64(state: seed)
    let originals = [Self.good("pcap").0, Self.good("pcapng").0, try bytes(of: committed("jumbo.pcap"))]
    try withFolder { folder in
      for round in 0..<3000 {
        let damaged = Self.damage(originals[round % 3], &random)
        try Data(damaged).write(to: URL(fileURLWithPath: folder + "/damaged"))
        let reading = Reading(folder + "/damaged")
        let again = Reading(folder + "/damaged")
        // Each frame takes bytes of the file: 16 of header at least.
        let isBounded = reading.byteCount + 16 * reading.frames.count <= damaged.count
        guard isBounded, reading.frames == again.frames, reading.error == again.error else {
          Issue.record("SEED=\(seed), round \(round)")
          return
        }
      }
    }
  }

  /// A small file with the least and the unusual in it, the ends of its frames, and the counts at which it ends cleanly.
  static func good(_ container: String) -> ([UInt8], (frames: [Int], clean: Set<Int>)) {
    let frames = [frame(60), frame(0), frame(61), frame(1514), frame(14)]
    if container == "pcap" {
      var ends: [Int] = []
      for count in frames.map(\.count) { ends.append((ends.last ?? 24) + 16 + count) }
      return (pcap(frames), (ends, Set([24] + ends)))
    }
    var blocks = Blocks()
    var ends: [Int] = []
    var clean: Set<Int> = [blocks.bytes.count]
    func note() { clean.insert(blocks.bytes.count) }
    for isBig in [false, true] {
      if isBig { blocks.section(isBig: true) }
      note()
      blocks.interface(snapshot: 96, options: [.unit(9), .end])
      note()
      blocks.interface(snapshot: 0)
      note()
      for frame in frames {
        let options = frame.count == 61 ? [Option(code: 2, value: [0, 0, 0, 1]), .end] : []
        blocks.enhanced(frame, interface: 1, time: 5, options: options)
        note()
        ends.append(blocks.bytes.count)
      }
      blocks.simple(frame(96), original: 200)
      note()
      ends.append(blocks.bytes.count)
      blocks.block(0xbad) { $0.add(1 as UInt32) }
      note()
    }
    return (blocks.bytes, (ends, clean))
  }

  /// One to eight changes: a byte, a whole field, bytes taken out or put in.
  static func damage(_ file: [UInt8], _ random: inout SplitMix64) -> [UInt8] {
    var file = file
    for _ in 0..<Int.random(in: 1...8, using: &random) {
      // Half of the changes in the first headers.
      let limit = Bool.random(using: &random) ? min(160, file.count) : file.count
      let place = Int.random(in: 0..<limit, using: &random)
      let field = place..<min(place + 4, file.count)
      switch Int.random(in: 0..<5, using: &random) {
      case 0: file[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      case 1: file[place] = .random(in: 0...255, using: &random)
      case 2: file.replaceSubrange(field, with: [0xff, 0xff, 0xff, 0xff])
      case 3: file.removeSubrange(field)
      default: file.insert(contentsOf: [0, 0, 0, 0], at: place)
      }
    }
    return file
  }
}

/// A small generator whose whole state is its seed.
struct SplitMix64: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = (state ^ state >> 30) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
    return mixed ^ mixed >> 31
  }
}
