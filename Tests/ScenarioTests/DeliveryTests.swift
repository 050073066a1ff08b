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

  @Test func `a tagged frame fills an exact buffer to its last byte, and one byte more never lands`() throws {
    // 1518 bytes with a tag are all that 12 + 1518 hold: here the limit alone stands between a frame and the next byte.
    let folder = try TemporaryFolder()
    let frames = [1518, 1519, 1522, 1518].enumerated().map { number, byteCount in
      var bytes = TaggedFrame(UInt64(number), to: .local(1), byteCount: byteCount - 4, run: 4).bytes
      bytes.insert(contentsOf: [0x81, 0x00, 0x00, 0x05], at: 12)
      return bytes
    }
    try writeTrace(frames, to: folder.file("t.pcap"))
    var options = ReplayOptions(files: [folder.file("t.pcap")])
    options.vms = [ReplayOptions.VM(name: "vm0", buffers: .exact)]
    options.checksCanaries = true
    let report = try Stage(options).run()
    expectSound(report, "exact")
    #expect(report.frames.lent == 2)
    #expect(report.dropped_by == ["over_mtu": 2])
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

  @Test(arguments: [[1, 2], [1, 4], [2, 4, 1], [2, 2], [4]])
  func `every queue of every VM gets its share, also where VMs have different numbers of queues`(queues: [Int]) throws {
    let folder = try TemporaryFolder()
    // IPv4 and UDP of many flows, so that RSS has something to choose by.
    let frames = (0..<1200).map { Self.datagram(flow: $0 % 64, to: .local($0 % queues.count + 1)) }
    try writeTrace(frames, to: folder.file("t.pcap"))
    var options = ReplayOptions(files: [folder.file("t.pcap")])
    options.seed = testSeed
    options.vms = queues.enumerated().map { .init(name: "vm\($0.offset)", address: .local($0.offset + 1), queues: $0.element) }
    let stage = try Stage(options)
    let rig = stage.rig
    let report = try stage.run()
    expectSound(report, "\(queues)")
    #expect(report.frames.delivered == 1200)
    for lane in rig.lanes { #expect(lane.counters.deliveredFrames > 0, "queue \(lane.queue) of VM \(lane.machine)") }
  }

  private static func datagram(flow: Int, to address: MACAddress) -> [UInt8] {
    var bytes = (0..<6).map { address.octet($0) } + [2, 0, 0, 0, 1, 0, 0x08, 0x00]
    bytes += [0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, UInt8(flow), 2]
    bytes += [0x10, UInt8(flow), 0, 53, 0, 26, 0, 0] + Array(repeating: UInt8(flow), count: 18)
    return bytes
  }
}
