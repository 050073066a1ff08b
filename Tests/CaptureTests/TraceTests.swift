import Capture
import Foundation
import Testing

@testable import TraceGenerator

/// The traces of the repository are what the manifest says, and what the generator makes.
@Suite struct TraceTests {
  private static let manifest = try? JSONDecoder().decode(
    Manifest.self, from: Data(contentsOf: URL(fileURLWithPath: committed("MANIFEST.json"))))

  @Test func `the manifest lists every capture of the folder, and they are small`() throws {
    let names = try FileManager.default.contentsOfDirectory(atPath: committed("")).filter { $0.hasSuffix(".pcap") }
    let manifest = try #require(Self.manifest)
    #expect(Set(names) == Set(manifest.traces.map(\.name)))
    let sizes = try names.map { try bytes(of: committed($0)).count }
    #expect(sizes.allSatisfy { $0 <= 300 << 10 })
    #expect(sizes.reduce(0, +) <= 1200 << 10)
  }

  @Test func `each trace has the frames, bytes and digest of the manifest`() throws {
    for entry in try #require(Self.manifest).traces {
      let plain = try PlainParser(path: committed(entry.name))
      #expect(plain.stop == nil)
      #expect(plain.frames.count == entry.frames, "\(entry.name)")
      #expect(plain.byteCount == entry.bytes, "\(entry.name)")
      #expect(try sha256Digest(of: committed(entry.name)) == entry.sha256, "\(entry.name)")
      #expect(Reading(committed(entry.name)).frames == plain.frames, "\(entry.name)")
    }
  }

  @Test(arguments: Trace.all.map(\.name))
  func `generating a trace again gives the committed bytes`(name: String) throws {
    let trace = try #require(Trace.all.first { $0.name == name })
    try withFolder { folder in
      try trace.write(to: folder + "/" + name)
      let isSame = try bytes(of: folder + "/" + name) == bytes(of: committed(name))
      #expect(isSame)
    }
  }

  @Test func `the mix is seven small, four middling, one large`() throws {
    let counts = Dictionary(grouping: try PlainParser(path: committed("imix.pcap")).frames, by: \.bytes.count)
      .mapValues(\.count)
    #expect(counts == [64: 7 * 64, 576: 4 * 64, 1514: 64])
  }

  @Test func `the flood is of the smallest frames to four MACs`() throws {
    let frames = try PlainParser(path: committed("flood64.pcap")).frames
    #expect(frames.allSatisfy { $0.bytes.count == 60 })
    #expect(Set(frames.map { Array($0.bytes[..<6]) }) == Set((1...4).map { [2, 0, 0, 0, 0, UInt8($0)] }))
  }

  @Test func `real traffic has no frame longer than Ethernet's`() throws {
    let lengths = try PlainParser(path: committed("real.pcap")).frames.map(\.bytes.count)
    #expect(lengths.max() == 1514)
  }
}
