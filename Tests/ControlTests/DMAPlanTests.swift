import Bus
import Testing

@testable import Control

/// How a bus's addresses are divided, on buses as there are.
@Suite struct DMAPlanTests {
  /// The hole in which interrupts are written, as Intel's and AMD's have it.
  private func ranges(bits: UInt64) -> [ClosedRange<UInt64>] { [0...0xFEDF_FFFF, 0xFEF0_0000...(1 << bits) - 1] }

  @Test(arguments: [(48, 5, 40), (48, 61, 40), (57, 61, 40), (39, 5, 36), (39, 3, 37), (39, 1, 38), (40, 5, 37), (42, 61, 36)])
  func `windows are as large as the bus allows, and all of them lie on it`(bits: Int, vmCount: Int, expected: Int) throws {
    let plan = try #require(DMAPlan(ranges(bits: UInt64(bits)), vmCount: vmCount))
    #expect(plan.span == 1 << UInt64(expected))
    #expect(plan.span * UInt64(vmCount + 1) <= 1 << UInt64(bits))
  }

  @Test func `our own rings lie outside the hole and below every window`() throws {
    let plan = try #require(DMAPlan(ranges(bits: 39), vmCount: 5))
    var last: UInt64 = 0
    while let address = plan.allocator.allocate(byteCount: 64 << 20) { last = address.rawValue + 64 << 20 }
    #expect(last <= 0xFEE0_0000 && last > 0xF000_0000 && last < plan.span)
  }

  @Test func `a bus that is too narrow, or full of holes, is refused`() {
    #expect(DMAPlan(ranges(bits: 36), vmCount: 5) == nil)
    #expect(DMAPlan([0...0xFFFF], vmCount: 1) == nil)
    #expect(DMAPlan([0...0xFEDF_FFFF, 1 << 40...1 << 41], vmCount: 4) == nil)
    #expect(DMAPlan([1 << 33...(1 << 48) - 1], vmCount: 1) == nil)
  }

  @Test func `where the kernel does not say, addresses of 39 bits are what every IOMMU has`() throws {
    let plan = try #require(DMAPlan(nil, vmCount: 5))
    #expect(plan.span == 1 << 36)
  }
}

/// Which card a configuration names.
@Suite struct CardKindTests {
  @Test func `a card is the model, or one by its address`() {
    #expect(Configuration.NIC.Kind("sim") == .sim)
    #expect(Configuration.NIC.Kind("vfio:0000:03:00.1")?.description == "vfio:0000:03:00.1")
    #expect(Configuration.NIC.Kind("vfio:03:00.1")?.description == "vfio:0000:03:00.1")
    for text in ["", "vfio", "vfio:", "vfio:0000", "vfio:0000:03:00.8", "SIM", "0000:03:00.0", "vfio:0000:03:00.0 "] {
      #expect(Configuration.NIC.Kind(text) == nil, "\(text)")
    }
  }

  @Test func `a real card has a wire of its own`() {
    var configuration = Configuration()
    configuration.nic.kind = .init("vfio:0000:03:00.0")!
    configuration.vms = [.init(name: "a", endpoint: .server(.init(path: "/a")))]
    #expect(configuration.problems().isEmpty)
    configuration.wire = .tap("tap0")
    #expect(configuration.problems().map(\.key) == ["wire"])
  }
}
