import FlowSteering
import Testing

@testable import Replay

@Suite struct HostileInputTests {
  private func trace(_ folder: TemporaryFolder, to address: MACAddress, count: Int) throws -> String {
    let path = folder.file("t.pcap")
    try writeTrace((0..<count).map { TaggedFrame(UInt64($0), to: address, byteCount: 100, run: 3).bytes }, to: path)
    return path
  }

  @Test(arguments: [ReplayOptions.Pace.framesPerSecond(1e-20), .gigabitsPerSecond(1e-20), .original(multiplier: 1e-20)])
  func `no pace is too slow to reckon with`(pace: ReplayOptions.Pace) throws {
    let folder = try TemporaryFolder()
    var options = ReplayOptions(files: [try trace(folder, to: .local(1), count: 10)])
    options.pace = pace
    let report = try Stage(options).run()
    expectSound(report, "\(pace)")
    #expect(report.frames.delivered == 10)
  }

  @Test func `the first paced frame finds a buffer`() throws {
    let folder = try TemporaryFolder()
    var options = ReplayOptions(files: [try trace(folder, to: .local(1), count: 10)])
    options.pace = .framesPerSecond(1000)
    let report = try Replay(options).run()
    #expect(report.frames.dropped == 0 && report.frames.delivered == 10)
  }

  @Test func `a vlan without a mac is refused for one VM too`() {
    var options = ReplayOptions(files: ["t.pcap"])
    options.vms = [ReplayOptions.VM(name: "a", vlan: 5)]
    #expect(throws: ReplayError.self) { try Replay(options) }
  }
}
