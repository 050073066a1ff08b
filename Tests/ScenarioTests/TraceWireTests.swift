import Capture
import Foundation
import Linux
import Simulation
import Testing

@testable import Replay

/// A trace as the end of a running card's wire: what it offers, against what the trace's reader finds.
@Suite struct TraceWireTests {
  private static let traces = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("Traces").path

  private func read(_ name: String, filter: String? = nil) throws -> [[UInt8]] {
    var reader = try CaptureReader(path: Self.traces + "/" + name, filter: filter)
    var frames: [[UInt8]] = []
    var buffer = [UInt8](repeating: 0, count: CaptureReader.largestFrame)
    while let frame = try buffer.withUnsafeMutableBytes({ try reader.next(into: $0) }) {
      frames.append(Array(buffer[..<frame.capturedByteCount]))
    }
    return frames
  }
  private func take(_ wire: TraceWire) -> [UInt8]? {
    guard let frame = wire.peek() else { return nil }
    // The same one until it is consumed.
    #expect(wire.peek()?.bytes == frame.bytes)
    defer { wire.consume() }
    return Array(UnsafeRawBufferPointer(start: frame.bytes, count: frame.count))
  }

  @Test(arguments: [1, 3])
  func `every frame is offered in order, in each loop, and then it is finished`(loops: Int) throws {
    let frames = try read("imix.pcap")
    let wire = try TraceWire(files: [Self.traces + "/imix.pcap"], loops: loops)
    for _ in 0..<loops {
      for frame in frames { #expect(take(wire) == frame) }
    }
    #expect(!wire.isFinished && wire.failure == nil)
    #expect(wire.peek() == nil && wire.isFinished && wire.due == nil)
    #expect(wire.sentFrames == UInt64(loops * frames.count))
    #expect(wire.sentBytes == UInt64(loops * frames.reduce(0) { $0 + $1.count }))
  }

  @Test func `a filter leaves out what it does not match`() throws {
    let frames = try read("imix.pcap", filter: "tcp")
    let wire = try TraceWire(files: [Self.traces + "/imix.pcap"], filter: "tcp")
    var taken: [[UInt8]] = []
    while let frame = take(wire) { taken.append(frame) }
    #expect(taken == frames)
  }

  @Test func `a paced frame is not offered before it is due, and when that is can be asked`() throws {
    let start = MonotonicClock.now()
    let wire = try TraceWire(files: [Self.traces + "/imix.pcap"], pace: .framesPerSecond(2))
    #expect(take(wire) != nil)
    #expect(wire.peek() == nil)
    let due = try #require(wire.due)
    #expect(due >= start + 500_000_000 && due <= MonotonicClock.now() + 500_000_000)
    while wire.peek() == nil { MonotonicClock.sleep(nanoseconds: 1_000_000) }
    #expect(MonotonicClock.now() >= due && wire.due == nil)
  }

  @Test func `what is no trace, or a pipe, is refused when it is opened`() {
    #expect(throws: ReplayError.self) { try TraceWire(files: [Self.traces + "/none.pcap"]) }
    #expect(throws: ReplayError.self) { try TraceWire(files: ["-"]) }
    #expect(throws: ReplayError.self) { try TraceWire(files: [Self.traces + "/imix.pcap"], filter: "tcp port") }
  }
}
