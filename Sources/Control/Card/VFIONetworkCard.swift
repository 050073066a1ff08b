internal import Bus
internal import Datapath
internal import FlowTables
internal import Intel
internal import Linux
internal import Simulation
internal import VFIO

/// A card on this machine's bus, by the kernel's VFIO.
final class VFIONetworkCard: NetworkCard {
  /// A card that there is, and a driver for it.
  struct Device {
    let address: PCIAddress
    let model: IntelModel

    /// Nil: the configuration wants none.
    init?(_ nic: Configuration.NIC) throws(ServiceError) {
      guard case .vfio(let address) = nic.kind else { return nil }
      guard let function = PCIFunction(address) else { throw .machine("\(VFIOError.noSuchDevice(address))") }
      guard let model = IntelModel(vendor: function.vendorID, device: function.deviceID) else {
        throw .machine(
          "\(address) is \(DeviceExamination(function).identity): there is no driver for it here; there are drivers for \(IntelModel.allCases.map { "Intel's \($0.rawValue)" }.joined(separator: " and "))")
      }
      (self.address, self.model) = (address, model)
    }
  }

  let kind: String
  private let unit: any IntelCard
  var driver: (any IntelCard)? { unit }
  let allocator: IOVAAllocator
  let windowSpan: UInt64
  private let device: VFIODevice
  private let registers: DeviceRegisters
  private let log: @Sendable (LogEvent) -> Void
  private let faultLog: IOMMUFaultLog?
  /// Signalled when the bus reports an error, and when the kernel wants the device back.
  private let errorEvent: EventDescriptor
  private let requestEvent: EventDescriptor
  private final class Line {
    let event: EventDescriptor
    init(_ event: consuming EventDescriptor) { self.event = event }
  }
  /// Of the workers, by vector: what is signalled.
  private var lines: [Line] = []
  /// As they were read last; and what cards before this one, in its place, have counted.
  private var counters: CardCounters
  private let past: (received: StatusReport.Traffic, sent: StatusReport.Traffic)
  /// For frames of our own; nil: there is no queue for them.
  private let sender: OwnSender?
  private var linkWasUp = false
  /// Its counters say nothing any more: what was read last counts.
  private var isLost = false

  var space: any IOAddressSpace { device.space }
  var model: SharedCard? { nil }

  /// - Parameter before: what was here before, and is gone.
  init(
    _ found: Device, _ configuration: Configuration, _ tables: CardTables, after before: (any NetworkCard)? = nil, log: @escaping @Sendable (LogEvent) -> Void
  ) throws(ServiceError) {
    if found.model == .intel82576VF && configuration.host != nil {
      throw .machine("--host: \(found.address) is a virtual function, and has a queue for one VM only; a port of the machine's own needs a physical one")
    }
    self.log = log
    past = (before?.received ?? .init(), before?.sent ?? .init())
    do {
      device = try VFIODevice(found.address, interface: configuration.nic.interface)
      registers = try device.registers(bar: 0)
      errorEvent = try EventDescriptor()
      requestEvent = try EventDescriptor()
      try device.connect(error: errorEvent, request: requestEvent)
    } catch { throw .machine("\(error)") }
    kind = "\(found.model.rawValue) at \(found.address)"
    let plan = DMAPlan(device.space.ranges, vmCount: tables.plan.vmCount)
    guard let plan else { throw .machine("\(found.address): the IOMMU has no room for a window of each VM: \(DMAPlan.text(device.space.ranges))") }
    (allocator, windowSpan) = (plan.allocator, plan.span)
    faultLog = IOMMUFaultLog(of: found.address)
    let clock = SystemTimekeeper()
    do {
      switch found.model {
      case .intel82599:
        var settings = Ixgbe.Configuration(configuration, tables.plan)
        settings.reserveFlows(configuration, tables)
        unit = try Ixgbe(registers: registers, space: device.space, allocator: allocator, clock: clock, configuration: settings)
      case .intel82576, .intelI350:
        var settings = Igb.Configuration()
        (settings.mtu, settings.queuesPerPool) = (configuration.nic.mtu, configuration.vms.map(\.queuePairs).max() ?? 1)
        unit = try Igb(
          Igb.Variant(found.model), registers: registers, space: device.space, allocator: allocator, clock: clock, configuration: settings)
      case .intel82576VF:
        unit = try IgbVF(registers: registers, space: device.space, allocator: allocator, clock: clock, mtu: configuration.nic.mtu)
      }
    } catch { throw .card("\(found.address): \(error)") }
    counters = unit.readCounters()
    // Of a pool whose queues receive nothing.
    sender =
      found.model == .intel82576VF
      ? nil : OwnSender(card: unit, queue: unit.queueIndex(pool: tables.plan.nowhere, queue: 0), space: device.space, allocator: allocator)
    log(
      LogEvent(
        .info, "a card was taken by VFIO",
        ["card": kind, "interface": device.interface.rawValue, "windows": "2^\(windowSpan.trailingZeroBitCount)", "faults": faultLog == nil ? "not told" : "told", "memory": device.space.mapsFiles ? "by file" : "by address"]))
  }

  // MARK: Interrupts and the bus

  func connect(vector: Int, to event: borrowing EventDescriptor) throws(SystemError) {
    precondition(vector == lines.count, "vectors are connected in order")
    lines.append(Line(EventDescriptor(adopting: try event.descriptor.duplicate())))
  }

  /// From here on the card may reach memory: queues are what it is told to reach, and none runs yet.
  func beginInterrupts() throws(ServiceError) {
    do throws(VFIOError) {
      try device.connect(vectors: lines.map { $0.event.descriptor.number })
      try device.setBusMaster(true)
    } catch { throw .machine("\(error)") }
  }

  func stopWaiting(forQueue n: Int) {}
  func resumeWaiting(forQueue n: Int) {}
  func announce(_ frame: [UInt8]) {
    let obstacle: String? =
      if let sender { unit.link.isUp ? sender.send(frame) : "its link is down" } else { "a virtual function has no queue for it" }
    guard let obstacle else { return }
    log(LogEvent(.notice, "a VM that has moved here was not announced: its first own frame does that", ["card": kind, "reason": obstacle]))
  }

  // MARK: What came of frames

  func betweenSteps<Result: Sendable>(_ body: () -> Result) -> Result { body() }
  private func traffic(_ value: CardCounters.Traffic) -> StatusReport.Traffic { StatusReport.Traffic(frames: value.frames, bytes: value.bytes) }
  private func readCounters() { if !isLost { counters = unit.readCounters() } }
  private func pool(_ pool: Int) -> CardCounters.Pool? {
    readCounters()
    return counters.pools.indices.contains(pool) ? counters.pools[pool] : nil
  }

  var received: StatusReport.Traffic {
    readCounters()
    return sum(past.received, counters.received)
  }
  var sent: StatusReport.Traffic { sum(past.sent, counters.sent) }
  private func sum(_ past: StatusReport.Traffic, _ now: CardCounters.Traffic) -> StatusReport.Traffic {
    StatusReport.Traffic(frames: past.frames + now.frames, bytes: past.bytes + now.bytes)
  }
  var switchedFrames: UInt64? { counters.switched }
  var replicatedFrames: UInt64? { nil }
  func arrived(in pool: Int, queues: Int) -> StatusReport.Traffic? { self.pool(pool).map { traffic($0.received) } }
  func drops(of pool: Int, queues: Int) -> [String: UInt64] {
    guard let dropped = self.pool(pool)?.dropped, dropped > 0 else { return [:] }
    return ["no_buffers": dropped]
  }
  var overruns: UInt64? { counters.overruns }
  func unroutedDrops() -> [String: UInt64] {
    var drops = counters.dropped
    if counters.refused > 0 { drops[TransmitDrop.spoofed.name] = counters.refused }
    return drops
  }
  func refused(of pool: Int, queues: Int) -> UInt64 { 0 }
  var laws: [StatusReport.Law] { [] }
  var filterCounts: [FilterPlace: FilterCount]? { nil }

  // MARK: The bus

  var mapCount: Int { device.space.mappingCount }
  var busErrors: [String: [String: UInt64]]? {
    guard let function = PCIFunction(device.address) else { return nil }
    let pairs = PCIFunction.Severity.allCases.compactMap { severity in function.errorsOnTheWay(severity).map { (severity.rawValue, $0) } }
    return pairs.isEmpty ? nil : Dictionary(uniqueKeysWithValues: pairs)
  }
  var faultCount: UInt64? {
    faultLog?.read()
    return faultLog?.count
  }
  func faults(after seen: UInt64) -> [(address: IOVA?, text: String)] {
    guard let faultLog else { return [] }
    return faultLog.faults.suffix(Int(clamping: faultLog.count &- min(seen, faultLog.count))).map { ($0.address, $0.text) }
  }

  func attend() -> CardLoss? {
    let loss = findLoss()
    isLost = loss != nil
    if isLost { return loss }
    readCounters()
    let link = unit.link
    if link.isUp != linkWasUp { log(LogEvent(.notice, link.isUp ? "the card's link is up" : "the card's link is down", ["card": kind, "megabits": "\(link.megabits)"])) }
    linkWasUp = link.isUp
    return nil
  }

  private func findLoss() -> CardLoss? {
    if requestEvent.clear() { return .requested }
    if !unit.isThere { return .removed }
    if errorEvent.clear() { return .error }
    return !unit.isOurs ? .reset : device.space.unmapFailures.count > 0 ? .unmapFailed : nil
  }

  func shutDown() {
    // A NIC that answers neither is off the bus, or is reset by the kernel when its files close: `device` goes next.
    try? unit.shutDown()
    try? device.setBusMaster(false)
  }
}

/// How a bus's addresses are divided: low ones for our own rings and buffers, and a window for each VM.
struct DMAPlan {
  let allocator: IOVAAllocator
  /// Bytes between two windows: a power of two, 2⁴⁰ at most. Window n begins at n times as much.
  let span: UInt64

  private static let ownStart: UInt64 = 0x10_0000
  /// Room for rings and buffers of 64 VMs with four pairs of queues.
  private static let ownLeast: UInt64 = 1 << 28
  /// A window for a guest of 16 GiB at least.
  private static let spans = (34...40).reversed().map { UInt64(1) << UInt64($0) }

  /// - Parameter ranges: that may be mapped, first and last; nil: the kernel does not say.
  init?(_ ranges: [ClosedRange<UInt64>]?, vmCount: Int) {
    let ranges = ranges ?? [0...(1 << 39) - 1]
    guard let own = ranges.first(where: { $0.upperBound >= Self.ownStart + Self.ownLeast && $0.lowerBound < 1 << 32 }) else { return nil }
    let start = max(own.lowerBound, Self.ownStart)
    let end = min(own.upperBound & ~4095, 1 << 32)
    guard end > start, end - start >= Self.ownLeast, let span = Self.spans.first(where: { span in
      let (last, overflows) = span.multipliedReportingOverflow(by: UInt64(vmCount) + 1)
      return !overflows && ranges.contains { $0.lowerBound <= span && $0.upperBound >= last - 1 }
    }) else { return nil }
    allocator = IOVAAllocator(from: IOVA((start + 4095) & ~4095), to: IOVA(end))
    self.span = span
  }

  static func text(_ ranges: [ClosedRange<UInt64>]?) -> String {
    (ranges ?? []).map { "0x\(String($0.lowerBound, radix: 16)) to 0x\(String($0.upperBound, radix: 16))" }.joined(separator: ", ")
  }
}
