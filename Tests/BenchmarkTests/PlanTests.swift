import Datapath
import Replay
import Testing

@testable import Benchmark

@Suite struct PlanTests {
  private func part(_ section: Section, files: [String] = []) -> Plan.Part {
    var options = BenchmarkOptions()
    (options.sections, options.files) = ([section], files)
    return Plan(options).parts[0]
  }

  @Test func `every section has points, and takes the replays that it needs`() {
    let plan = Plan(BenchmarkOptions())
    #expect(plan.parts.map(\.section) == Section.allCases)
    #expect(plan.parts.allSatisfy { $0.points.count >= 3 && !$0.frames.isEmpty })
    #expect(plan.pointCount == plan.parts.reduce(0) { $0 + $1.points.count })
    for point in plan.parts.flatMap(\.points) {
      #expect(point.options.verify == false && point.options.limit.loops == .max && point.options.limit.seconds == 0.2)
    }
  }

  @Test func `a copied frame is compared with the same one lent, and a line with its first point`() {
    for (index, point) in part(.size).points.enumerated() {
      #expect(point.series == (index % 2 == 0 ? "lent" : "copied") && point.base == (index % 2 == 0 ? nil : index - 1))
      #expect(point.options.mode == (index % 2 == 0 ? .auto : .copy))
    }
    #expect(part(.vms).points.map(\.base) == [nil, 0, 0, 0, 0, 0, 0])
  }

  @Test func `each section changes what it is about`() {
    #expect(part(.vms).points.map(\.options.vms.count) == [1, 2, 4, 8, 16, 32, 61])
    #expect(part(.queues).points.map { $0.options.vms[0].queues } == [1, 2, 4])
    #expect(part(.rules).points.map(\.options.rules.count) == [0, 1, 10, 100, 1000, 8000], "each rule can be read")
    #expect(part(.ring).points.map(\.options.ringSize) == [64, 128, 256, 512, 1024, 2048, 4096])
    #expect(part(.memory).points.map(\.options.guestMemory) == [8, 32, 128, 512, 2048].map { $0 << 20 })
    #expect(part(.latency).points.map(\.share) == [nil, 0.1, 0.5, 0.9])
    #expect(part(.buffers).points.allSatisfy { $0.x == Double($0.options.ringSize * ($0.options.vms[0].bufferBytes ?? 0)) })
    for point in part(.size).points { #expect(point.x! <= 1514 || point.options.mtu == 9000 && point.options.vms[0].bufferBytes == 9216) }
  }

  @Test func `traces of the user's are what is replayed, where a section does not need frames of its own`() {
    let files = ["a/one.pcap", "two.pcap"]
    #expect(part(.rate, files: files).points.map(\.label) == ["one.pcap", "one.pcap", "two.pcap", "two.pcap"])
    for section in [Section.queues, .ring, .buffers, .memory, .latency] {
      #expect(part(section, files: files).points.allSatisfy { $0.trace == .files(files) }, "\(section)")
    }
    for section in [Section.size, .vms, .rules] {
      #expect(!part(section, files: files).points.contains { $0.trace == .files(files) }, "\(section)")
    }
  }

  @Test func `a point can be typed`() throws {
    func command(_ section: Section, _ index: Int, rate: Double? = nil) -> String { ReplayWords.command(of: part(section).points[index], rate: rate) }
    #expect(command(.size, 15) == "sluice replay frames-9014.pcap --duration 200ms --no-verify --preload --mode copy --mtu 9000 --vm vm0,buffers=linux:9216")
    #expect(command(.vms, 1) == "sluice replay vms-2.pcap --duration 200ms --no-verify --preload $(seq -f '--vm vm%g' 2)")
    #expect(command(.rules, 1) == "sluice replay rules-1.pcap --duration 200ms --no-verify --preload --rules rules-1.rules")
    #expect(command(.latency, 2, rate: 1e6) == "sluice replay imix.pcap --duration 200ms --no-verify --preload --speed pps=1000000")
    #expect(ReplayWords.quoted("a b'c") == #"'a b'\''c'"# && ReplayWords.quoted("a/b-1.pcap") == "a/b-1.pcap" && ReplayWords.quoted("") == "''")
  }
}
