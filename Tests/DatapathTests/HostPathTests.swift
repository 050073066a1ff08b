import Bus
import NIC
import Support
import Testing

@testable import Datapath

/// The machine's own path over a NIC that splits frames, which none that is driven does.
@Suite struct HostPathTests {
  @Test func `of a frame in pieces nothing is handed on, and it counts once`() throws {
    let space = FakeAddressSpace()
    let card = FakeCard(space: space, capacity: 8)
    var path = try HostReceivePath(queue: FakeQueue(card), in: space, allocator: IOVAAllocator())
    for (bytes, flags) in [([1, 1], .isEnd), ([2, 2], []), ([3, 3], []), ([4, 4], .isEnd), ([5, 5], .isEnd)] as [([UInt8], Completion.Flags)] {
      #expect(card.receive(bytes, flags: flags))
    }
    var taken: [[UInt8]] = []
    let count = unsafe path.turn { bytes in unsafe taken.append(Array(bytes)) }
    #expect(count == 5)
    #expect(taken == [[1, 1], [5, 5]] && path.frames == 2 && path.damaged == 1)
  }
}
