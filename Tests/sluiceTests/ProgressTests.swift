import Foundation
import Replay
import Testing

@testable import sluice

struct ProgressTests {
  private func progress(_ frames: UInt64, at elapsed: Double, of fraction: Double?) -> ReplayProgress {
    ReplayProgress(
      framesReceived: frames, framesDelivered: frames, bytesDelivered: frames * 500, framesDropped: 1_234,
      elapsed: elapsed, fraction: fraction)
  }

  @Test func `the line has the rates since the last one, and the time that is left`() {
    let line = Progress.line(progress(3_000_000, at: 12, of: 0.2), since: progress(1_000_000, at: 11.9, of: 0.19))
    #expect(line == "20.0 Mframes/s  80.0 Gbit/s  dropped 1,234  0:12 elapsed  0:48 left  20 %")
    #expect(line.count <= 79)
  }

  @Test func `without an end in sight nothing is said of it`() {
    let line = Progress.line(progress(3, at: 5, of: nil), since: progress(3, at: 5, of: nil))
    #expect(line == "    0 frames/s      0 bit/s  dropped 1,234  0:05 elapsed")
  }

  @Test func `off a terminal it says something every ten seconds`() throws {
    let pipe = Pipe()
    var time = 100.0
    var shown = Progress(stream: StandardStream(descriptor: pipe.fileHandleForWriting.fileDescriptor)) { time }
    for step in 1...250 {
      time = 100 + Double(step) / 10
      shown.update(progress(UInt64(step) * 1_000_000, at: Double(step) / 10, of: Double(step) / 500))
    }
    shown.finish()
    try pipe.fileHandleForWriting.close()
    let text = String(decoding: try pipe.fileHandleForReading.readToEnd() ?? Data(), as: UTF8.self)
    #expect(
      text == """
        10.0 Mframes/s  40.0 Gbit/s  dropped 1,234  0:10 elapsed  0:40 left  20 %
        10.0 Mframes/s  40.0 Gbit/s  dropped 1,234  0:20 elapsed  0:30 left  40 %

        """)
  }
}
