import FlowSteering
import Testing

@testable import Replay

@Suite struct BusFaultTests {
  @Test func `memory that leaves the bus under a running path stops it with a named reason, and nothing is written`() throws {
    let folder = try TemporaryFolder()
    let frames = (0..<400).map { TaggedFrame(UInt64($0), to: .local(1), byteCount: 1000, run: 3).bytes }
    try writeTrace(frames, to: folder.file("t.pcap"))
    var stage = try Stage(ReplayOptions(files: [folder.file("t.pcap")]))
    let rig = stage.rig
    // Some frames on the way first.
    stage.engine.turn(0, time: 0)
    _ = try stage.engine.feed(32, time: 0, clock: { 0 })
    stage.engine.turn(0, time: 0)
    let window = rig.machines[0].window
    let before = rig.lanes[0].counters.deliveredFrames
    #expect(before == 32)

    for region in window.map.regions { try window.remove(region) }
    let copies = window.map.regions.map { Array(UnsafeRawBufferPointer(start: $0.base, count: $0.byteCount)) }
    _ = try stage.engine.feed(32, time: 0, clock: { 0 })
    #expect(rig.iommu.faultCount > 0)
    for (region, copy) in zip(window.map.regions, copies) {
      #expect(copy.elementsEqual(UnsafeRawBufferPointer(start: region.base, count: region.byteCount)))
    }
    _ = stage.engine.checkBus(after: 0)
    let reason = try #require(stage.engine.stopped[0])
    #expect(reason.contains("the IOMMU refused the card"))
    #expect(rig.lanes[0].counters.deliveredFrames == before)
    // From here on the card has nothing to write to.
    let faults = rig.iommu.faultCount
    _ = try stage.engine.feed(32, time: 0, clock: { 0 })
    #expect(rig.iommu.faultCount == faults)
  }
}
