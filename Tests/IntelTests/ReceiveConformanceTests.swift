import Bus
import Intel
import Linux
import ReceiveConformance
import Simulation
import Testing

/// The suite that every card passes, on the model of the 82599. `MachineTests` has it on a card of QEMU's.
@Suite struct ReceiveConformanceTests {
  private final class Model: ConformanceSubject {
    private let shared: SharedCard
    let card: any IntelCard
    let allocator = IOVAAllocator()
    var space: any IOAddressSpace { shared }
    var hasStrangers: Bool { false }

    init() throws {
      shared = try SharedCard()
      var configuration = Ixgbe.Configuration()
      configuration.poolCount = 64
      card = try Ixgbe(registers: shared, space: shared, allocator: allocator, clock: shared, configuration: configuration)
    }

    func send(_ frame: [UInt8]) {
      _ = unsafe frame.withUnsafeBytes { bytes -> Arrival in unsafe shared.receive(bytes) }
    }
    func proceed() { shared.pause(nanoseconds: 100_000) }
    var faultCount: UInt64 { UInt64(shared.withModels { _, iommu, _ in iommu.faultCount }) }
    func connect(vector: Int, to event: borrowing EventDescriptor) throws { try shared.connect(vector: vector, to: event) }
  }

  @Test(arguments: ReceiveConformance.cases.map(\.name)) func `the 82599's model`(name: String) throws {
    let found = try #require(ReceiveConformance.cases.first { $0.name == name })
    try found.run(try Model())
  }
}
