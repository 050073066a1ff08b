import Bus
import Glibc
import Intel
import Linux
import ReceiveConformance
import VFIO

/// The suite that every card passes, on one that vfio-pci has: `CardConformance ADDRESS INTERFACE WIRE`; with `cost` behind
/// it what a frame costs there instead.
///
/// INTERFACE is `group` or `iommufd`. What is written into WIRE, frames with their length before them (four bytes, big
/// endian), comes to the card; `wire` of the rig does that by another card of the machine's, on the same cable.
@main struct CardConformance {
  private final class Device: ConformanceSubject {
    private let device: VFIODevice
    private let registers: DeviceRegisters
    private let log: IOMMUFaultLog?
    private let wire: CInt
    private var lines: [CInt] = []
    let card: any IntelCard
    let allocator = IOVAAllocator(to: IOVA(0xFE00_0000))
    var space: any IOAddressSpace { device.space }
    /// The machine's own kernel is on the same cable.
    var hasStrangers: Bool { true }

    init(_ address: PCIAddress, _ interface: VFIODevice.Interface, wire: CInt) throws {
      self.wire = wire
      device = try VFIODevice(address, interface: interface)
      registers = try device.registers(bar: 0)
      log = IOMMUFaultLog(of: address)
      guard let function = PCIFunction(address), let model = IntelModel(vendor: function.vendorID, device: function.deviceID) else {
        throw Failure("no card that is known")
      }
      switch model {
      case .intel82599:
        var configuration = Ixgbe.Configuration()
        configuration.poolCount = 64
        card = try Ixgbe(registers: registers, space: device.space, allocator: allocator, clock: SystemTimekeeper(), configuration: configuration)
      case .intel82576, .intelI350:
        card = try Igb(Igb.Variant(model), registers: registers, space: device.space, allocator: allocator, clock: SystemTimekeeper())
      case .intel82576VF: throw Failure("a virtual function has one pool: the suite wants two")
      }
      try device.setBusMaster(true)
    }
    deinit { try? card.shutDown() }

    func send(_ frame: [UInt8]) {
      var bytes = (0..<4).map { UInt8(truncatingIfNeeded: frame.count >> (24 - 8 * $0)) } + frame
      while !bytes.isEmpty {
        let count = unsafe write(wire, bytes, bytes.count)
        guard count > 0 else { return }
        bytes.removeFirst(count)
      }
    }
    func proceed() { usleep(200) }
    var faultCount: UInt64 {
      log?.read()
      return log?.count ?? 0
    }
    func connect(vector: Int, to event: borrowing EventDescriptor) throws { try device.connect(vectors: [event.descriptor.number]) }
  }

  struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
  }

  private static func tellCost(_ device: Device) throws {
    try ReceiveConformance.begin(device)
    for isStrict in [false, true] {
      let cost = try CardCost(device, isStrict: isStrict)
      for count in [60, 1514] {
        _ = try cost.measure(frameBytes: count, batches: 4)
        print("COST \(isStrict ? "strict" : "static") \(count) \(try cost.measure(frameBytes: count, batches: 50))")
      }
      try cost.stop()
    }
  }

  static func main() {
    let words = CommandLine.arguments
    guard words.count == 4 || words.count == 5 && words[4] == "cost", let address = PCIAddress(words[1]), let interface = VFIODevice.Interface(rawValue: words[2]) else {
      print("usage: CardConformance ADDRESS group|iommufd WIRE [cost]")
      exit(64)
    }
    let wire = unsafe open(words[3], O_WRONLY)
    guard wire >= 0 else {
      print("\(words[3]): \(SystemError.text(errno))")
      exit(66)
    }
    if words.count == 5 {
      do { try tellCost(try Device(address, interface, wire: wire)) } catch {
        print("FAIL \(error)")
        exit(1)
      }
      exit(0)
    }
    var failures = 0
    for item in ReceiveConformance.cases {
      // What was told so far is seen also if this one never ends.
      fflush(nil)
      do {
        try item.run(try Device(address, interface, wire: wire))
        print("PASS \(item.name)")
      } catch {
        failures += 1
        print("FAIL \(item.name): \(error)")
      }
    }
    print("CONFORMANCE \(ReceiveConformance.cases.count - failures) of \(ReceiveConformance.cases.count)")
    exit(failures == 0 ? 0 : 1)
  }
}
