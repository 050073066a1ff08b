internal import Bus
internal import FlowSteering
internal import FlowTables
internal import Intel
internal import Linux
internal import Replay
internal import Simulation

/// The 82599's model and its driver, with a TAP device as the wire.
final class SimulatedNetworkCard: NetworkCard {
  static let profile = CardProfile.intel82599

  let kind: String
  private let ixgbe: Ixgbe
  var driver: (any IntelCard)? { ixgbe }
  let allocator = IOVAAllocator()
  let windowSpan = DMAWindow.span
  let card: SharedCard
  private let tap: TapWire?
  private let plan: PoolPlan
  /// What models before this one, in its place, have counted.
  private let past: (received: StatusReport.Traffic, sent: StatusReport.Traffic)

  var space: any IOAddressSpace { card }
  var model: SharedCard? { card }

  /// - Parameters:
  ///   - tables: compiled from the rules. The caller applies them.
  ///   - registers: the registers that the driver uses, given the model's.
  init(
    _ configuration: Configuration, _ tables: CardTables, after before: (any NetworkCard)? = nil,
    registers: (any RegisterFile) -> any RegisterFile = { $0 }
  ) throws(ServiceError) {
    plan = tables.plan
    past = (before?.received ?? .init(), before?.sent ?? .init())
    kind = configuration.nic.card
    let card: SharedCard
    var faults = CardFaults()
    faults.leavesPayload = !configuration.nic.writesPayload
    do { card = try SharedCard(faults: faults) } catch { throw .machine("\(error)") }
    self.card = card
    tap = try Self.openWire(configuration, card)
    var settings = Ixgbe.Configuration(configuration, plan)
    settings.reserveFlows(configuration, tables)
    do { ixgbe = try Ixgbe(registers: registers(card), space: card, allocator: allocator, clock: card, configuration: settings) } catch { throw .card("\(error)") }
    // No ring is behind any of them yet, and none ever is behind some: a wire that waits for room waits for a queue from its
    // start to its VM's end (`CardHost.startReceiveQueue`, `abandon`).
    for queue in 0..<SimulatedCard.queueCount { card.stopWaiting(forQueue: queue) }
  }

  private static func openWire(_ configuration: Configuration, _ card: SharedCard) throws(ServiceError) -> TapWire? {
    guard case .tap(let name) = configuration.wire else { return nil }
    let wire = TapWire(try TapDevice.open(name, mtu: configuration.nic.mtu, for: "--wire"))
    card.attach(wire)
    card.setUplink(wire)
    return wire
  }

  func connect(vector: Int, to event: borrowing EventDescriptor) throws(SystemError) { try card.connect(vector: vector, to: event) }
  func beginInterrupts() {}
  func stopWaiting(forQueue n: Int) { card.stopWaiting(forQueue: n) }
  func resumeWaiting(forQueue n: Int) { card.resumeWaiting(forQueue: n) }
  func announce(_ frame: [UInt8]) { unsafe frame.withUnsafeBytes { bytes in _ = unsafe tap?.take(bytes) } }

  // MARK: What came of frames

  func betweenSteps<Result: Sendable>(_ body: () -> Result) -> Result { card.betweenSteps { _ in body() } }

  private func sum(of pool: Int, queues: Int, _ value: (_ queue: Int, TrafficCounters.Origin) -> UInt64) -> UInt64 {
    (0..<queues).reduce(UInt64(0)) { total, queue in
      let number = ixgbe.queueIndex(pool: pool, queue: queue)
      return TrafficCounters.Origin.allCases.reduce(total) { $0 + value(number, $1) }
    }
  }

  var received: StatusReport.Traffic {
    StatusReport.Traffic(frames: past.received.frames + card.counters.receivedFrames, bytes: past.received.bytes + card.counters.receivedBytes)
  }
  /// All that went onto the wire.
  var sent: StatusReport.Traffic {
    (0..<SimulatedCard.queueCount).reduce(into: past.sent) {
      $0.frames += card.counters.wireFrames(queue: $1)
      $0.bytes += card.counters.wireBytes(queue: $1)
    }
  }
  var switchedFrames: UInt64? { (0..<SimulatedCard.queueCount).reduce(UInt64(0)) { $0 + card.counters.switchedCopies(queue: $1) } }
  var replicatedFrames: UInt64? { card.counters.replicatedFrames }

  func arrived(in pool: Int, queues: Int) -> StatusReport.Traffic? {
    StatusReport.Traffic(
      frames: sum(of: pool, queues: queues) { card.counters.deliveredFrames(queue: $0, from: $1) },
      bytes: sum(of: pool, queues: queues) { card.counters.deliveredBytes(queue: $0, from: $1) })
  }

  func drops(of pool: Int, queues: Int) -> [String: UInt64] {
    var result: [String: UInt64] = [:]
    for reason in CardDrop.allCases {
      let count = sum(of: pool, queues: queues) { card.counters.droppedFrames(reason, queue: $0, from: $1) }
      if count > 0 { result[reason.name] = count }
    }
    return result
  }

  func refused(of pool: Int, queues: Int) -> UInt64 {
    (0..<queues).reduce(UInt64(0)) { $0 + card.counters.refusedFrames(queue: ixgbe.queueIndex(pool: pool, queue: $1)) }
  }

  /// Why a frame ended: for a queue that nobody is ever behind, what rules have it end for.
  private func reason(_ drop: CardDrop, _ queue: Int?) -> String {
    guard let queue, drop == .queueDisabled, queue / plan.queuesEach == plan.nowhere else { return drop.name }
    return (queue % plan.queuesEach == plan.dropQueue.number ? CardDrop.filtered : .noPool).name
  }

  /// Queues that are no VM's, and nil for those of no queue.
  private var queuesOfNobody: [Int?] { (plan.vmCount * plan.queuesEach..<SimulatedCard.queueCount).map { $0 } + [nil] }

  /// The model counts every frame that it drops.
  var overruns: UInt64? { nil }
  func unroutedDrops() -> [String: UInt64] {
    var result: [String: UInt64] = [:]
    for queue in queuesOfNobody {
      for reason in CardDrop.allCases {
        let count = TrafficCounters.Origin.allCases.reduce(UInt64(0)) {
          $0 + card.counters.droppedFrames(reason, queue: queue, from: $1)
        }
        if count > 0 { result[self.reason(reason, queue), default: 0] += count }
      }
    }
    return result
  }

  /// All that was dropped of what some counters have counted.
  func drops(in counters: TrafficCounters) -> [String: UInt64] {
    var result: [String: UInt64] = [:]
    for queue in (0..<SimulatedCard.queueCount).map(Optional.some) + [nil] {
      for reason in CardDrop.allCases {
        let count = counters.droppedFrames(reason, queue: queue, from: .wire)
        if count > 0 { result[self.reason(reason, queue), default: 0] += count }
      }
    }
    return result
  }
  /// Frames that were put into a pool's queues, of what some counters have counted.
  func stored(in pool: Int, queues: Int, by counters: TrafficCounters) -> UInt64 {
    (0..<queues).reduce(UInt64(0)) { $0 + counters.deliveredFrames(queue: ixgbe.queueIndex(pool: pool, queue: $1), from: .wire) }
  }
  func storedForHost(by counters: TrafficCounters) -> UInt64 { stored(in: plan.host, queues: 1, by: counters) }

  var laws: [StatusReport.Law] { card.betweenSteps(\.laws).map { StatusReport.Law(name: $0.name, left: $0.left, right: $0.right) } }
  var filterCounts: [FilterPlace: FilterCount]? { card.withModels { card, _, _ in card.filterCounts } }

  // MARK: The bus

  var busErrors: [String: [String: UInt64]]? { nil }
  var mapCount: Int { card.withModels { _, iommu, _ in iommu.mappingCount } }
  var faultCount: UInt64? { card.counters.busFaults }
  func faults(after seen: UInt64) -> [(address: IOVA?, text: String)] {
    let faults = card.busFaults
    let fresh = Int(min(card.counters.busFaults &- min(seen, card.counters.busFaults), UInt64(faults.count)))
    return faults.suffix(fresh).map { ($0.address, "\($0)") }
  }

  /// As a real one: a model can be pulled, or be reset by another.
  func attend() -> CardLoss? { !ixgbe.isThere ? .removed : !ixgbe.isOurs ? .reset : card.unmapFailures.count > 0 ? .unmapFailed : nil }
  func shutDown() { try? ixgbe.shutDown() }
}

extension Ixgbe.Configuration {
  /// What a configuration says of an 82599, real or not.
  init(_ configuration: Configuration, _ plan: PoolPlan) {
    self.init()
    mtu = configuration.nic.mtu
    poolCount = plan.count
    queuesPerPool = configuration.vms.map(\.queuePairs).max() ?? 1
    // Nobody's pools have one queue, so that RSS does not spread what ends there.
    usedQueues = configuration.vms.map(\.queuePairs) + Array(repeating: 1, count: plan.count - plan.vmCount)
  }
  mutating func reserveFlows(_ configuration: Configuration, _ tables: CardTables) {
    flowDirector = FlowDirectorMemory(filters: max(configuration.nic.exactFlows, tables.exactFlows.count)) ?? .filters8190
  }
}

extension TapDevice {
  /// Opens it, and brings it up; errors name the option that asked for it.
  static func open(_ name: String, mtu: Int, for option: String) throws(ServiceError) -> TapDevice {
    do throws(TapError) {
      let device = try TapDevice(name: name)
      try device.setMTU(mtu)
      try device.bringUp()
      return device
    } catch { throw .machine("\(option) tap=\(name): \(error)") }
  }
}
