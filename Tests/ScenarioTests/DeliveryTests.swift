import FlowSteering
import Simulation
import Testing

@testable import Replay

@Suite struct DeliveryTests {
  static func trace(_ folder: TemporaryFolder, lengths: [Int], to address: MACAddress = .local(1)) throws -> String {
    let path = folder.file("trace.pcap")
    try writeTrace(
      lengths.enumerated().map { TaggedFrame(UInt64($0), to: address, byteCount: $1, run: 1).bytes }, to: path)
    return path
  }

  @Test func `frames that fit are all lent to a guest like Linux`() throws {
    let folder = try TemporaryFolder()
    var options = ReplayOptions(files: [try Self.trace(folder, lengths: (0..<2000).map { 60 + $0 % 1455 })])
    options.seed = testSeed
    let report = try Stage(options).run()
    expectSound(report, "linux")
    #expect(report.frames.delivered == 2000)
    #expect(report.frames.lent == 2000)
    #expect(report.bytes.copied == 0)
  }

  @Test(arguments: [
    (BufferShape.page, nil as String?), (.headerApart, nil), (.big, nil), (.exact, nil),
    (.small, "too_small"), (.tiny, "too_small"), (.awkward, "scattered"), (.indirect, "scattered"),
  ])
  func `each shape of buffer is lent, or bounced for its own reason`(shape: BufferShape, reason: String?) throws {
    let folder = try TemporaryFolder()
    var options = ReplayOptions(files: [try Self.trace(folder, lengths: (0..<1000).map { 60 + ($0 * 37) % 1455 })])
    options.seed = testSeed
    options.vms = [ReplayOptions.VM(name: "vm0", buffers: shape)]
    let report = try Stage(options).run()
    expectSound(report, "\(shape)")
    #expect(report.frames.delivered == 1000, "\(shape): \(report.dropped_by)")
    if let reason {
      #expect(report.bounced_by == [reason: 1000], "\(shape)")
    } else {
      #expect(report.frames.lent == 1000, "\(shape): \(report.bounced_by)")
    }
  }

  @Test func `copy mode copies everything, and says so`() throws {
    let folder = try TemporaryFolder()
    var options = ReplayOptions(files: [try Self.trace(folder, lengths: Array(repeating: 1514, count: 300))])
    options.mode = .copy
    let report = try Stage(options).run()
    expectSound(report, "copy")
    #expect(report.bounced_by == ["copy_mode": 300])
    #expect(report.bytes.copied == 300 * 1514)
  }

  @Test func `required mode stops a path rather than copy`() throws {
    let folder = try TemporaryFolder()
    var options = ReplayOptions(files: [try Self.trace(folder, lengths: Array(repeating: 100, count: 300))])
    options.mode = .required
    options.vms = [ReplayOptions.VM(name: "vm0", buffers: .small)]
    let report = try Stage(options).run()
    #expect(report.frames.bounced == 0)
    #expect(report.vms["vm0"]?.stopped?.contains("too_small") == true)
    for law in report.conservation { #expect(law.holds, "\(law.name)") }
  }

  @Test func `a guest that stops refilling loses its own frames, and nobody else's`() throws {
    let folder = try TemporaryFolder()
    let frames = (0..<4000).map { TaggedFrame(UInt64($0), to: .local($0 % 4 + 1), byteCount: 200, run: 2).bytes }
    try writeTrace(frames, to: folder.file("t.pcap"))
    var options = ReplayOptions(files: [folder.file("t.pcap")])
    options.seed = testSeed
    options.ringSize = 128
    options.vms = (1...4).map {
      ReplayOptions.VM(name: "vm\($0)", address: .local($0), stallsAfter: $0 == 3 ? 50 : nil)
    }
    let report = try Stage(options).run()
    for law in report.conservation where law.name != "delivered = found by the guests" { #expect(law.holds, "\(law.name)") }
    for name in ["vm1", "vm2", "vm4"] { #expect(report.vms[name]?.delivered == 1000, "\(name)") }
    let stalled = try #require(report.vms["vm3"])
    #expect(stalled.delivered + (stalled.dropped_by["no_buffers"] ?? 0) == 1000)
    #expect(stalled.dropped > 0)
  }

  @Test func `a frame one byte over the limit is dropped by the card, and the byte after the buffer stays`() throws {
    // The buffers hold 12 + 1518 bytes; the card's own unit for a buffer is 1 KiB, so it was told 2048. Only its
    // limit on frames keeps it off the byte after.
    let folder = try TemporaryFolder()
    var options = ReplayOptions(files: [try Self.trace(folder, lengths: [1514, 1515, 1516, 1518, 1519, 1514])])
    options.vms = [ReplayOptions.VM(name: "vm0", buffers: .exact)]
    options.checksCanaries = true
    let report = try Stage(options).run()
    expectSound(report, "over the limit")
    #expect(report.frames.delivered == 2)
    #expect(report.dropped_by == ["over_mtu": 4])
  }

  @Test func `a jumbo frame fills mergeable buffers one after the other`() throws {
    let folder = try TemporaryFolder()
    var options = ReplayOptions(files: [try Self.trace(folder, lengths: [9014, 64, 4000, 1525, 1524, 1523, 9014])])
    options.mtu = 9000
    let report = try Stage(options).run()
    expectSound(report, "jumbo")
    #expect(report.frames.delivered == 7)
    #expect(report.bounced_by == ["too_small": 7])
  }
}
