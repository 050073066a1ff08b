import Capture
import Foundation
import Testing

/// What the reader does with files that are right but rare, and with what is no file.
@Suite struct ReaderTests {
  @Test(arguments: [false, true])
  func `a simple packet is as long as interface 0's snapshot length lets it be`(isBig: Bool) throws {
    var blocks = Blocks(isBig: isBig)
    blocks.interface(snapshot: 96)
    blocks.simple(frame(96), original: 314)
    blocks.simple(frame(60))
    blocks.simple(frame(96, 9), original: 1514)
    let reading = try reading(blocks.bytes)
    #expect(reading.error == nil)
    #expect(reading.frames.map(\.original) == [314, 60, 1514])
    #expect(reading.frames.map(\.bytes) == [frame(96), frame(60), frame(96, 9)])
  }

  @Test func `a filter that passes over cut simple packets leaves the others their lengths`() throws {
    var blocks = Blocks()
    blocks.interface(snapshot: 96)
    for seed in 0..<20 { blocks.simple(frame(96, UInt8(seed)), original: 1000 + seed) }
    let reading = try reading(blocks.bytes, filter: "ether[0] & 1 = 1")
    #expect(reading.frames.map(\.original) == (0..<20).filter { $0 % 2 == 1 }.map { 1000 + $0 })
  }

  @Test func `interfaces may differ in snapshot length, and be exceeded with a warning`() throws {
    var blocks = Blocks()
    blocks.interface(snapshot: 96)
    blocks.interface(snapshot: 65535)
    blocks.enhanced(frame(1514), interface: 1)
    blocks.enhanced(frame(100), interface: 0)
    let reading = try reading(blocks.bytes)
    #expect(reading.error == nil)
    #expect(reading.frames.map(\.bytes.count) == [1514, 100])
    #expect(reading.warnings[.capturedLongerThanSnapshot] == 1)
    #expect(reading.warnings.total == 1)
  }

  @Test func `a section without interfaces has no packets, and the next one is read`() throws {
    var blocks = Blocks()
    #expect(try reading(blocks.bytes).error == nil)
    blocks.section(isBig: true)
    blocks.interface()
    blocks.enhanced(frame(60), time: 7)
    blocks.section()
    let reading = try reading(blocks.bytes)
    #expect(reading.error == nil)
    #expect(reading.frames == [SeenFrame(timestamp: 7000, original: 60, bytes: frame(60))])
    #expect(reading.byteOffset == Int64(blocks.bytes.count))
  }

  @Test func `an interface of one section is not one of the next`() throws {
    var blocks = Blocks()
    blocks.interface()
    blocks.enhanced(frame(60))
    blocks.section()
    blocks.enhanced(frame(60))
    let reading = try reading(blocks.bytes)
    #expect(reading.frames.count == 1)
    #expect(reading.defect == .undeclaredInterface(0, declared: 0))
  }

  @Test func `what libpcap alone refuses is said in its words, where it is`() throws {
    var blocks = Blocks()
    blocks.interface()
    blocks.enhanced(frame(60))
    // if_tsresol of two bytes.
    blocks.interface(options: [Option(code: 9, value: [6, 6])])
    let refusedAt = blocks.bytes.count
    blocks.enhanced(frame(60), interface: 9)
    let reading = try reading(blocks.bytes)
    #expect(reading.frames.count == 1)
    #expect(reading.errorOffset == Int64(refusedAt))
    guard case .refusedByLibpcap(let words) = reading.defect else {
      Issue.record("\(String(describing: reading.error))")
      return
    }
    #expect(words.contains("if_tsresol"))
  }

  @Test func `an option of a packet that runs past its block is an error`() throws {
    var blocks = Blocks()
    blocks.interface()
    blocks.enhanced(frame(60), options: [Option(code: 2, value: [0, 0, 0, 0]), .end])
    blocks.enhanced(frame(60), options: [Option(code: 2, value: [0, 0, 0, 0], length: 12)])
    let reading = try reading(blocks.bytes)
    #expect(reading.frames.count == 1)
    #expect(reading.defect == .optionPastBlock(code: 2, length: 12, available: 4))
  }

  @Test func `times are unsigned to the end of their fields, and saturate at the end of ours`() throws {
    var late = pcap([frame(60)])
    late.replaceSubrange(24..<28, with: [0xff, 0xff, 0xff, 0xff])
    #expect(try reading(late).frames.first?.timestamp == 4_294_967_295_000_000_000)
    var blocks = Blocks()
    // Whole seconds.
    blocks.interface(options: [.unit(0)])
    blocks.enhanced(frame(60), time: .max)
    let saturated = try reading(blocks.bytes)
    #expect(saturated.frames.first?.timestamp == .max)
    #expect(saturated.warnings[.timestampOutOfRange] == 1)
  }

  @Test(arguments: [false, true])
  func `records with the longer header of a patched libpcap are read`(isBig: Bool) throws {
    let extra = [UInt8](repeating: 0xee, count: 8)
    let reading = try reading(pcap([frame(60), frame(61)], isBig: isBig, magic: 0xa1b2_cd34, extra: extra))
    #expect(reading.error == nil)
    #expect(reading.frames.map(\.bytes) == [frame(60), frame(61)])
  }

  @Test func `the longest frame is read, and one byte more is refused`() throws {
    let longest = try reading(pcap([frame(CaptureReader.largestFrame)]))
    #expect(longest.frames.first?.bytes.count == 262_144)
    let longer = try reading(pcap([frame(60), frame(CaptureReader.largestFrame + 1)]))
    #expect(longer.frames.count == 1)
    #expect(longer.defect == .frameTooLong(captured: 262_145))
    var blocks = Blocks()
    blocks.interface()
    blocks.enhanced(frame(CaptureReader.largestFrame))
    blocks.enhanced(frame(CaptureReader.largestFrame + 1))
    let inBlocks = try reading(blocks.bytes)
    #expect(inBlocks.frames.count == 1)
    #expect(inBlocks.defect == .frameTooLong(captured: 262_145))
  }

  @Test func `a frame longer than the caller's buffer is an error that reading survives`() throws {
    try withFolder { folder in
      try Data(pcap([frame(60), frame(65), frame(64)])).write(to: URL(fileURLWithPath: folder + "/a"))
      var reader = try CaptureReader(path: folder + "/a")
      let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64, alignment: 8)
      defer { unsafe buffer.deallocate() }
      #expect(try unsafe reader.next(into: buffer)?.capturedByteCount == 60)
      do {
        _ = try unsafe reader.next(into: buffer)
        Issue.record("no error")
      } catch {
        guard case .frameLongerThanBuffer(_, _, frameBytes: 65, bufferBytes: 64) = error as? CaptureError else {
          throw error
        }
      }
      #expect(try unsafe reader.next(into: buffer)?.capturedByteCount == 64)
      #expect(try unsafe reader.next(into: buffer) == nil)
      #expect(try unsafe reader.next(into: buffer) == nil)
    }
  }

  @Test func `an error is thrown again by each call after it`() throws {
    var reader = try CaptureReader(path: committed("imix.pcap"))
    _ = reader.format
    try withFolder { folder in
      try Data(pcap([frame(60)]).dropLast()).write(to: URL(fileURLWithPath: folder + "/a"))
      reader = try CaptureReader(path: folder + "/a")
      let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64, alignment: 8)
      defer { unsafe buffer.deallocate() }
      for _ in 0..<3 {
        do {
          _ = try unsafe reader.next(into: buffer)
          Issue.record("no error")
        } catch { #expect("\(error)" == "\(folder)/a: at byte 40: frame cut short (59 of 60 bytes)") }
      }
    }
  }

  @Test(arguments: [
    ([0x1f, 0x8b, 8, 0], .gzip), ([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0], .xz), (Array("BZh91AY".utf8), .bzip2),
    ([4, 0x22, 0x4d, 0x18], .lz4), (Array("GMBU\0\0\0\0".utf8), .networkMonitor),
    (Array("TRSNIFF data".utf8), .sniffer), (Array("Frame 1: 60 bytes on wire\n".utf8), .text),
    ([1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 0, 80, 0, 0, 0, 60, 0, 0], .erf), ([0, 1, 2, 3, 4], nil),
  ] as [([UInt8], CaptureDefect.Lookalike?)])
  func `a file of another format is refused by name`(bytes: [UInt8], lookalike: CaptureDefect.Lookalike?) throws {
    #expect(try reading(bytes).defect == .notACapture(lookingLike: lookalike))
  }

  @Test func `what cannot be opened says why`() {
    #expect(Reading("/nowhere/x.pcap").error == .cannotOpen(file: "/nowhere/x.pcap", errno: ENOENT))
    #expect(Reading("/tmp").error == .isDirectory(file: "/tmp"))
    #expect("\(Reading("/tmp").error!)" == "/tmp: a directory, not a capture")
  }

  @Test func `the format is told by content`() throws {
    #expect("\(try reading(pcap([])).format!)" == "pcap, little-endian, microseconds")
    #expect("\(try reading(pcap([], isBig: true, magic: 0xa1b2_3c4d)).format!)" == "pcap, big-endian, nanoseconds")
    #expect("\(try reading(Blocks(isBig: true).bytes).format!)" == "pcapng, big-endian")
  }

  @Test func `progress ends at the file's size`() throws {
    var reader = try CaptureReader(path: committed("jumbo.pcap"))
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: CaptureReader.largestFrame, alignment: 8)
    defer { unsafe buffer.deallocate() }
    #expect(reader.byteOffset == 24)
    var expected: Int64 = 24
    while let frame = try unsafe reader.next(into: buffer) {
      expected += Int64(16 + frame.capturedByteCount)
      #expect(reader.byteOffset == expected)
    }
    #expect(reader.byteOffset == reader.fileByteCount)
  }
}
