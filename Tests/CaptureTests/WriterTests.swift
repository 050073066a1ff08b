import Capture
import Foundation
import Testing

@Suite struct WriterTests {
  @Test func `what is written is read again`() throws {
    let frames = [
      SeenFrame(timestamp: 0, original: 60, bytes: frame(60)),
      SeenFrame(timestamp: 1_700_000_000_123_456_789, original: 0, bytes: []),
      SeenFrame(timestamp: 4_294_967_295_999_999_999, original: 9000, bytes: frame(1514)),
      SeenFrame(timestamp: 4_294_967_295_999_999_999, original: 262_144, bytes: frame(262_144)),
    ]
    try withFolder { folder in
      var writer = try CaptureWriter(path: folder + "/a.pcap")
      for frame in frames { try append(frame, to: &writer) }
      try writer.close()
      let reading = Reading(folder + "/a.pcap")
      #expect(reading.error == nil)
      #expect(reading.frames == frames)
      #expect(reading.format?.resolution == .nanoseconds)
      #expect(try PlainParser(path: folder + "/a.pcap").frames == frames)
    }
  }

  @Test func `a full disk is told, at the latest by close`() {
    do {
      var writer = try CaptureWriter(path: "/dev/full")
      for _ in 0..<3 { try append(SeenFrame(timestamp: 0, original: 60, bytes: frame(60)), to: &writer) }
      try writer.close()
      Issue.record("no error")
    } catch { #expect(error as? CaptureError == .cannotWrite(file: "/dev/full", errno: ENOSPC)) }
  }

  @Test func `a full disk is told while writing much`() {
    var written = 0
    do {
      var writer = try CaptureWriter(path: "/dev/full")
      for _ in 0..<10_000 {
        try append(SeenFrame(timestamp: 0, original: 1514, bytes: frame(1514)), to: &writer)
        written += 1
      }
    } catch { #expect(error as? CaptureError == .cannotWrite(file: "/dev/full", errno: ENOSPC)) }
    #expect(written < 10_000)
  }

  @Test func `a file that cannot be made says why`() {
    do { _ = try CaptureWriter(path: "/nowhere/a.pcap") } catch {
      #expect(error == .cannotWrite(file: "/nowhere/a.pcap", errno: ENOENT))
      return
    }
    Issue.record("no error")
  }

  @Test(arguments: [
    SeenFrame(timestamp: 4_294_967_296_000_000_000, original: 60, bytes: frame(60)),
    SeenFrame(timestamp: 0, original: 262_145, bytes: frame(262_145)),
  ])
  func `a frame that pcap cannot hold is refused`(frame: SeenFrame) throws {
    try withFolder { folder in
      var writer = try CaptureWriter(path: folder + "/a.pcap")
      do {
        try append(frame, to: &writer)
        Issue.record("no error")
      } catch { #expect("\(error)".contains("pcap cannot hold")) }
      try writer.close()
    }
  }

  private func append(_ frame: SeenFrame, to writer: inout CaptureWriter) throws {
    try unsafe frame.bytes.withUnsafeBytes {
      try unsafe writer.append(bytes: $0, timestamp: frame.timestamp, originalByteCount: frame.original)
    }
  }
}
