import Capture
import Foundation
import Testing

/// Captures that come through a pipe: no size, no seeking, and headers in pieces.
@Suite struct PipeTests {
  @Test(arguments: [1, 7, 4096])
  func `a pipe gives the same frames as the file, in whatever pieces it comes`(pieceBytes: Int) throws {
    let (file, _) = DamageTests.good("pcapng")
    let piped = try Self.pipe(file, pieceBytes: pieceBytes) { Reading("/dev/fd/\($0)") }
    #expect(piped.error == nil)
    #expect(piped.frames == (try reading(file)).frames)
  }

  @Test func `a pipe that ends early says at which byte`() throws {
    let file = Array(try bytes(of: committed("imix.pcap")).prefix(1000))
    let piped = try Self.pipe(file, pieceBytes: 100) { Reading("/dev/fd/\($0)") }
    let cut = try reading(file)
    #expect(piped.errorOffset == cut.errorOffset)
    #expect(piped.defect == cut.defect)
    #expect(piped.frames == cut.frames)
  }

  @Test func `a dash is the standard input`() throws {
    let file = try bytes(of: committed("ipv6.pcap"))
    let piped = try Self.pipe(file, pieceBytes: 5000) { descriptor in
      let saved = dup(0)
      dup2(descriptor, 0)
      defer {
        dup2(saved, 0)
        close(saved)
      }
      return Reading("-")
    }
    #expect(piped.error == nil)
    #expect(piped.frames.count == 200)
  }

  @Test func `a hundred megabytes stream through in constant memory`() throws {
    let record = Array(pcap([frame(1514)])[24...])
    let chunk = Array(repeatElement(record, count: 100).joined())
    let before = Self.residentBytes()
    var frames = 0
    let after = try Self.pipe(pcap([]), pieceBytes: 24, then: chunk, times: 700) { descriptor in
      var reader = try CaptureReader(path: "/dev/fd/\(descriptor)")
      #expect(reader.fileByteCount == nil)
      let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: CaptureReader.largestFrame, alignment: 8)
      defer { unsafe buffer.deallocate() }
      while try unsafe reader.next(into: buffer) != nil { frames += 1 }
      #expect(reader.byteOffset == Int64(24 + 70_000 * 1530))
      return Self.residentBytes()
    }
    #expect(frames == 70_000)
    // Other tests run beside this one; the capture is 107 MB.
    #expect(after - before < 48 << 20)
  }

  /// Sends `bytes` in pieces, then `chunk` so many times, to the pipe that `body` reads.
  private static func pipe<Result>(
    _ bytes: [UInt8], pieceBytes: Int, then chunk: [UInt8] = [], times: Int = 0,
    _ body: (CInt) throws -> Result
  ) throws -> Result {
    // A reader that gives up early is a failed test, not the end of all of them.
    signal(SIGPIPE, SIG_IGN)
    let pipe = Pipe()
    let sender = pipe.fileHandleForWriting
    Thread.detachNewThread {
      for start in stride(from: 0, to: bytes.count, by: pieceBytes) {
        try? sender.write(contentsOf: Data(bytes[start..<min(start + pieceBytes, bytes.count)]))
      }
      for _ in 0..<times { try? sender.write(contentsOf: Data(chunk)) }
      try? sender.close()
    }
    return try body(pipe.fileHandleForReading.fileDescriptor)
  }

  private static func residentBytes() -> Int {
    let fields = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8))?.split(separator: " ")
    return (fields.flatMap { Int($0[1]) } ?? 0) * 4096
  }
}
