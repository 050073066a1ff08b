import FlowSteering
import Glibc
import Simulation
import Testing

@testable import Replay

@Suite struct IsolationTests {
  /// Every tag that lies anywhere in a guest's memory: the numbers of the frames.
  static func tags(in rig: Rig, machine: Int, run: UInt64) -> Set<UInt64> {
    let mark = (run ^ 0xA5C3_96E1_7B2D_4F08).bigEndian
    var found: Set<UInt64> = []
    for region in rig.machines[machine].window.map.regions {
      let bytes = UnsafeRawBufferPointer(start: region.base, count: region.byteCount)
      withUnsafeBytes(of: mark) { needle in
        var offset = 0
        // Frames lie at any address: every byte is a possible start.
        while offset + 16 <= bytes.count {
          guard let hit = memchrOffset(bytes, needle[0], from: offset), hit + 16 <= bytes.count else { break }
          if bytes.loadUnaligned(fromByteOffset: hit, as: UInt64.self) == mark {
            found.insert(UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: hit + 8, as: UInt64.self)))
          }
          offset = hit + 1
        }
      }
    }
    return found
  }

  @Test(arguments: BufferShape.allCases)
  func `no frame is ever in the memory of a guest that it was not for`(shape: BufferShape) throws {
    let folder = try TemporaryFolder()
    let run = testSeed
    let frames = (0..<600).map { number in
      TaggedFrame(UInt64(number), to: .local(number * 7 % 5 + 1), byteCount: [30, 60, 200, 1514][number % 4], run: run)
    }
    try writeTrace(frames.map(\.bytes), to: folder.file("tags.pcap"))
    var options = ReplayOptions(files: [folder.file("tags.pcap")])
    options.seed = run
    options.ringSize = 256
    // Four guests for five addresses: a fifth of the frames is for nobody.
    options.vms = (1...4).map { ReplayOptions.VM(name: "vm\($0)", address: .local($0), buffers: shape) }
    let stage = try Stage(options)
    let rig = stage.rig
    let report = try stage.run()
    expectSound(report, "\(shape)")
    #expect(report.dropped_by["no_route"] == UInt64(frames.filter { $0.number * 7 % 5 + 1 == 5 }.count))
    for machine in 0..<4 {
      let found = Self.tags(in: rig, machine: machine, run: run)
      let strangers = found.filter { $0 * 7 % 5 != UInt64(machine) }
      #expect(strangers.isEmpty, "vm\(machine + 1) has frames of others: \(strangers.sorted().prefix(5)) SEED=\(run)")
      #expect(!found.isEmpty || shape == .tiny)
    }
  }
}

private func memchrOffset(_ bytes: UnsafeRawBufferPointer, _ byte: UInt8, from offset: Int) -> Int? {
  guard let found = memchr(bytes.baseAddress! + offset, Int32(byte), bytes.count - offset) else { return nil }
  return UnsafeRawPointer(found) - bytes.baseAddress!
}
