import FlowSteering
import Testing

@testable import Benchmark

@Suite struct SyntheticTraceTests {
  @Test(arguments: [64, 1514, 9014]) func `a frame has its length, in each header too`(size: Int) {
    let frame = SyntheticTrace.frames(of: size).frame(5)
    #expect(frame.count == size)
    #expect(Int(frame[16]) << 8 + Int(frame[17]) == size - 14 && Int(frame[38]) << 8 + Int(frame[39]) == size - 34)
  }

  @Test func `its header's sum is right`() {
    for index in 0..<100 {
      let header = SyntheticTrace.imix.frame(index)[14..<34]
      // RFC 1071: over a header with its sum, the sum is all ones.
      var sum = stride(from: 14, to: 34, by: 2).reduce(0) { $0 + Int(header[$1]) << 8 + Int(header[$1 + 1]) }
      while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
      #expect(sum == 0xFFFF)
    }
  }

  @Test func `IMIX is seven small frames, four medium ones, one large`() {
    let sizes = (0..<SyntheticTrace.frameCount).map { SyntheticTrace.imix.frame($0).count }
    #expect(sizes.count { $0 == 64 } == 448 && sizes.count { $0 == 594 } == 256 && sizes.count { $0 == 1514 } == 64)
  }

  @Test(arguments: [1, 10, 1000, 8000]) func `each frame is of a flow that its rule matches`(flows: Int) throws {
    let trace = SyntheticTrace(name: "rules", sizes: [64], flows: flows)
    let steering = try Steering(
      (0..<flows).map { try Rule(parsing: SyntheticTrace.rule(forFlow: $0, vm: "a")) },
      for: [Receiver(name: "a", queueCount: 1), Receiver(name: "b", queueCount: 1, address: .local(9))])
    let index = RuleIndex(steering)
    var seen: Set<[UInt8]> = []
    for number in 0..<SyntheticTrace.frameCount {
      let frame = trace.frame(number)
      #expect(index.receivers(of: frame.span) == 1)
      seen.insert(Array(frame[26..<38]))
    }
    #expect(seen.count == min(flows, SyntheticTrace.frameCount))
  }

  @Test func `frames go to every address`() {
    let trace = SyntheticTrace(name: "vms", sizes: SyntheticTrace.imixSizes, destinations: 61)
    let seen = Set((0..<SyntheticTrace.frameCount).map { trace.frame($0)[5] })
    #expect(seen == Set(1...61))
  }
}
