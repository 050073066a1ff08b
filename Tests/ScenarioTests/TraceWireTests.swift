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
  /// Some of the frames that it offers at once, and none twice.
  private func take(_ wire: TraceWire, atMost limit: Int = 1) -> [[UInt8]] {
    let burst = WireBurst()
    defer { burst.deallocate() }
    let count = wire.peek(limit, into: burst)
    #expect(count <= limit)
    // The same ones until they are consumed.
    let first = count > 0 ? burst[0].bytes : nil
    #expect(wire.peek(limit, into: burst) == count && (count == 0 || burst[0].bytes == first))
    let taken = (count + 1) / 2
    defer { wire.consume(taken) }
    return (0..<taken).map { Array(UnsafeRawBufferPointer(start: burst[$0].bytes, count: burst[$0].count)) }
  }

  @Test(arguments: [1, 3], [1, 7, 64])
  func `every frame is offered in order, in each loop, and then it is finished`(loops: Int, burst: Int) throws {
    let frames = try read("imix.pcap")
    let wire = try TraceWire(files: [Self.traces + "/imix.pcap"], loops: loops)
    for _ in 0..<loops {
      var found: [[UInt8]] = []
      while found.count < frames.count { found += take(wire, atMost: burst) }
      #expect(found == frames)
    }
    #expect(!wire.isFinished && wire.failure == nil)
    #expect(take(wire).isEmpty && wire.isFinished && wire.due == nil)
    #expect(wire.sentFrames == UInt64(loops * frames.count))
    #expect(wire.sentBytes == UInt64(loops * frames.reduce(0) { $0 + $1.count }))
  }

  @Test func `a filter leaves out what it does not match`() throws {
    let frames = try read("imix.pcap", filter: "tcp")
    let wire = try TraceWire(files: [Self.traces + "/imix.pcap"], filter: "tcp")
    var taken: [[UInt8]] = []
    while case let some = take(wire, atMost: 5), !some.isEmpty { taken += some }
    #expect(taken == frames)
  }

  @Test func `a paced frame is not offered before it is due, and when that is can be asked`() throws {
    let start = MonotonicClock.now()
    let wire = try TraceWire(files: [Self.traces + "/imix.pcap"], pace: .framesPerSecond(2))
    #expect(take(wire, atMost: 64).count == 1)
    #expect(take(wire).isEmpty)
    let due = try #require(wire.due)
    #expect(due >= start + 500_000_000 && due <= MonotonicClock.now() + 500_000_000)
    while take(wire).isEmpty { MonotonicClock.sleep(nanoseconds: 1_000_000) }
    #expect(MonotonicClock.now() >= due && wire.due == nil)
  }

  @Test func `what is no trace, or a pipe, is refused when it is opened`() {
    #expect(throws: ReplayError.self) { try TraceWire(files: [Self.traces + "/none.pcap"]) }
    #expect(throws: ReplayError.self) { try TraceWire(files: ["-"]) }
    #expect(throws: ReplayError.self) { try TraceWire(files: [Self.traces + "/imix.pcap"], filter: "tcp port") }
  }
}
