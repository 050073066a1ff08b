import Bus
import Testing

@testable import VFIO

/// Bytes as <linux/vfio.h> lays them out, by hand.
@Suite struct InfoTests {
  private static func le(_ value: UInt64, _ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) } }
  private static func region(flags: UInt64, first: UInt64, size: UInt64 = 0x20000, offset: UInt64 = 1 << 40, _ rest: [UInt8] = []) -> [UInt8] {
    le(UInt64(32 + rest.count), 4) + le(flags, 4) + le(0, 4) + le(first, 4) + le(size, 8) + le(offset, 8) + rest
  }
  private static func capability(_ number: UInt64, next: UInt64, _ body: [UInt8]) -> [UInt8] { le(number, 2) + le(1, 2) + le(next, 4) + body }

  @Test func `a region says how large it is and what may be done with it`() throws {
    let info = try #require(RegionInfo(Self.region(flags: 7, first: 0)))
    #expect(info.byteCount == 0x20000 && info.offset == 1 << 40 && info.isReadable && info.isWritable && info.isMappable && info.sparse == nil)
    let bare = try #require(RegionInfo(Self.region(flags: 1, first: 99)))
    #expect(!bare.isWritable && !bare.isMappable)
  }

  @Test func `capabilities say which parts may be mapped`() throws {
    let areas = Self.le(2, 4) + Self.le(0, 4) + [0, 0x1000, 0x3000, 0x1000].flatMap { Self.le($0, 8) }
    let rest = Self.capability(1, next: UInt64(32 + 8 + areas.count), areas) + Self.capability(3, next: 0, [])
    let info = try #require(RegionInfo(Self.region(flags: 15, first: 32, rest)))
    #expect(info.sparse == [.init(offset: 0, byteCount: 0x1000), .init(offset: 0x3000, byteCount: 0x1000)] && info.hasMappableTable)
  }

  @Test func `capabilities that lead out, or in circles, are no description`() {
    #expect(RegionInfo([]) == nil && RegionInfo(Array(repeating: 0, count: 31)) == nil)
    #expect(RegionInfo(Self.region(flags: 15, first: 31, Self.capability(3, next: 0, []))) == nil)
    #expect(RegionInfo(Self.region(flags: 15, first: 33, Self.capability(3, next: 0, []))) == nil)
    #expect(RegionInfo(Self.region(flags: 15, first: 32, Self.capability(3, next: 32, []))) == nil)
    #expect(RegionInfo(Self.region(flags: 15, first: 32, Self.capability(3, next: 4_294_967_295, []))) == nil)
    // More areas than there are bytes.
    for count: UInt64 in [1, 2, 0xFFFF_FFFF] { #expect(RegionInfo(Self.region(flags: 15, first: 32, Self.capability(1, next: 0, Self.le(count, 4) + Self.le(0, 4)))) == nil) }
  }

  @Test func `an IOMMU says which addresses it takes, and how many mappings are left`() throws {
    let ranges = Self.le(2, 4) + Self.le(0, 4) + [0, 0xFEDF_FFFF, 0xFEF0_0000, 0xFFFF_FFFF_FFFF].flatMap { Self.le($0, 8) }
    let rest = Self.capability(1, next: UInt64(24 + 8 + ranges.count), ranges) + Self.capability(3, next: 0, Self.le(65533, 4))
    let bytes = Self.le(UInt64(24 + rest.count), 4) + Self.le(3, 4) + Self.le(0x4020_1000, 8) + Self.le(24, 4) + Self.le(0, 4) + rest
    let info = try #require(IOMMUInfo(bytes))
    #expect(info.pageSizes == 0x4020_1000 && info.availableMappings == 65533)
    #expect(info.ranges == [0...0xFEDF_FFFF, 0xFEF0_0000...0xFFFF_FFFF_FFFF])
    #expect(IOMMUInfo(Array(bytes.prefix(20))) == nil)
    let old = try #require(IOMMUInfo(Self.le(16, 4) + Self.le(1, 4) + Self.le(4096, 8)))
    #expect(old.pageSizes == 4096 && old.ranges == nil)
  }
}

@Suite struct PCIAddressTests {
  @Test(arguments: [("0000:03:00.0", "0000:03:00.0"), ("03:00.1", "0000:03:00.1"), ("10000:e1:1f.7", "10000:e1:1f.7")])
  func `an address is read and written as lspci does`(text: String, wanted: String) throws {
    #expect(try #require(PCIAddress(text)).description == wanted)
  }
  @Test(arguments: ["", "3", "03:00", "03:00.8", "03:20.0", "3:00.0", "0000:03:00.0 ", "0000:0003:00.0", "x:03:00.0", "03:00.0.0", "+3:00.0", "0000:03:00.00"])
  func `what is none is refused`(text: String) { #expect(PCIAddress(text) == nil) }
}

@Suite struct ConfigurationSpaceTests {
  /// A function with PCI Express at 0x70, behind another capability; and AER at 0x100.
  private static func space(_ change: (inout [UInt8]) -> Void = { _ in }) -> ConfigurationBytes {
    var bytes = [UInt8](repeating: 0, count: 4096)
    (bytes[0], bytes[1], bytes[6], bytes[0x34]) = (0x86, 0x80, 0x10, 0x40)
    (bytes[0x40], bytes[0x41], bytes[0x70], bytes[0x71]) = (0x11, 0x70, 0x10, 0)
    // Can 512, uses 256, asks for 512; generation 2, 8 lanes.
    (bytes[0x74], bytes[0x78], bytes[0x79], bytes[0x82]) = (2, 1 << 5, 2 << 4, 0x82)
    (bytes[0x100], bytes[0x102]) = (1, 1)
    change(&bytes)
    return ConfigurationBytes(bytes)
  }

  @Test func `capabilities are found, and the sizes of packets`() throws {
    let space = Self.space()
    #expect(space.capability(PCICapability.msix) == 0x40 && space.capability(PCICapability.express) == 0x70 && space.capability(0x05) == nil)
    #expect(space.extendedCapability(PCICapability.advancedErrorReporting) == 0x100 && space.extendedCapability(0x10) == nil)
    let payload = try #require(space.payload)
    #expect(payload.possible == 512 && payload.used == 256 && payload.readRequest == 512)
    #expect(payload.link == PCIePayload.Link(generation: 2, lanes: 8) && payload.link?.bitsPerSecond == 32e9)
  }

  @Test func `lists that run in circles, or out of their place, end`() {
    #expect(Self.space { $0[0x71] = 0x40 }.capability(0x05) == nil)
    #expect(Self.space { $0[0x41] = 0x10 }.capability(PCICapability.express) == nil)
    #expect(Self.space { $0[6] = 0 }.capability(PCICapability.msix) == nil)
    #expect(Self.space { ($0[0x102], $0[0x103]) = (0x01, 0x10) }.extendedCapability(0x10) == nil)
    #expect(ConfigurationBytes(Array(Self.space().bytes.prefix(64))).payload == nil)
    #expect(ConfigurationBytes(Array(repeating: 0xFF, count: 4096)).extendedCapability(1) == nil)
  }

  /// Computed by hand from the formula, for generation 3 with 8 lanes and 62.96 Gbit/s.
  @Test(arguments: [(64, 128, 35.7), (64, 512, 35.7), (256, 128, 49.0), (256, 256, 52.8), (512, 256, 55.1), (1024, 512, 58.8), (1518, 128, 52.2), (9018, 512, 59.9)])
  func `the bus's ceiling is that of the table`(frame: Int, payload: Int, gigabits: Double) {
    let found = PCIePayload.ceiling(frameByteCount: frame, payload: payload, linkRate: 62.96e9) / 1e9
    #expect(abs(found - gigabits) < 0.051, "\(found)")
  }
}

@Suite struct ResetTests {
  /// Time that passes in pauses alone.
  private final class Clock: Timekeeper {
    var now: UInt64 = 0
    var pauses: [UInt64] = []
    func pause(nanoseconds: UInt64) {
      now += nanoseconds
      pauses.append(nanoseconds)
    }
  }
  private let address = PCIAddress(bus: 3, device: 0, function: 0)

  @Test(arguments: [0, 1, 5, 100, 1000, 30_000]) func `one that says "later" for a while is waited for`(milliseconds: UInt64) throws {
    let clock = Clock()
    var looks = 0
    try PCIReadiness.wait(for: address, on: clock) {
      looks += 1
      return clock.now >= milliseconds * 1_000_000 ? 0x8086 : looks % 2 == 0 ? 0xFFFF : 0x0001
    }
    #expect(clock.now >= milliseconds * 1_000_000 && clock.now <= max(1, 2 * milliseconds) * 1_000_000 + 1_000_000_000)
    #expect(clock.pauses == clock.pauses.sorted() && clock.pauses.allSatisfy { $0 <= 1_000_000_000 })
  }

  @Test func `one that never comes back is given up after a minute`() {
    let clock = Clock()
    #expect { try PCIReadiness.wait(for: address, on: clock) { nil } } throws: { $0 as? VFIOError == .notBack(address, waited: 60_000_000_000) }
    #expect(clock.now == 60_000_000_000 && clock.pauses.count < 100)
  }
}
