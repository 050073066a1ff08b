internal import Bus
internal import FlowSteering
internal import FlowTables
internal import Intel
internal import Linux
internal import Simulation

/// A card with its driver and the bus that it sits on, and what it counts: the models of this process, or hardware.
///
/// Control thread only, but for queues' registers. Nothing here is for a frame.
protocol NetworkCard: AnyObject {
  /// As status has it: `sim`, `82576 at 0000:03:00.0`.
  var kind: String { get }
  /// Nil: the card is away.
  var driver: (any IntelCard)? { get }
  /// Where windows, rings and host buffers are mapped.
  var space: any IOAddressSpace { get }
  /// Addresses for our own rings and buffers.
  var allocator: IOVAAllocator { get }
  /// Bytes between two VMs' windows.
  var windowSpan: UInt64 { get }
  /// The model, which a worker has to step; nil: the card is real, and steps by itself.
  var model: SharedCard? { get }

  /// The vector of a worker raises its eventfd, from `beginInterrupts` on.
  func connect(vector: Int, to event: borrowing EventDescriptor) throws(SystemError)
  func beginInterrupts() throws(ServiceError)
  /// Nobody is behind a queue any more, or again: a wire that waits for room does not wait for it.
  func stopWaiting(forQueue n: Int)
  func resumeWaiting(forQueue n: Int)
  /// Sends a frame of our own, for the network to learn from.
  func announce(_ frame: [UInt8])

  /// Runs `body` with no step of the card under way, where that can be had: sums of what it reads add up.
  func betweenSteps<Result: Sendable>(_ body: () -> Result) -> Result
  /// Frames from the wire, and onto it.
  var received: StatusReport.Traffic { get }
  var sent: StatusReport.Traffic { get }
  /// Copies of frames that went from one pool to another; nil: the card does not tell. Further copies of frames for several.
  var switchedFrames: UInt64? { get }
  var replicatedFrames: UInt64? { get }
  /// What was put into a pool's queues; nil: the card does not tell pools apart. And what it dropped of a pool's frames, by
  /// reason.
  func arrived(in pool: Int, queues: Int) -> StatusReport.Traffic?
  func drops(of pool: Int, queues: Int) -> [String: UInt64]
  /// Dropped before any pool was known to be the one, or of any pool's sending where the card does not tell whose.
  func unroutedDrops() -> [String: UInt64]
  /// How often the NIC signalled that it lost received frames for want of room; nil if it does not signal that.
  var overruns: UInt64? { get }
  /// Frames that the card did not send, for their source or VLAN is not the pool's; 0 if the card does not tell pools apart.
  func refused(of pool: Int, queues: Int) -> UInt64
  var laws: [StatusReport.Law] { get }
  /// Frames by filter; nil: the card counts none.
  var filterCounts: [FilterPlace: FilterCount]? { get }

  /// Mappings that the card can use now.
  var mapCount: Int { get }
  /// As the bus reports them, the card and the ports on its way, by severity and name; nil: they report none.
  var busErrors: [String: [String: UInt64]]? { get }
  /// Accesses that the IOMMU refused; nil: nobody tells us.
  var faultCount: UInt64? { get }
  /// Those after the first `seen`: their addresses, and in words.
  func faults(after seen: UInt64) -> [(address: IOVA?, text: String)]
  /// Looks after what nobody tells us of: counters that would pass their end, events of the device. Several times a second.
  /// Answers why the card cannot be used any more, or nil.
  func attend() -> CardLoss?

  /// Stops everything: afterwards the card touches no memory.
  func shutDown()
}

/// Why a card cannot be used any more: it must be let go, and may come back.
enum CardLoss: Hashable, CustomStringConvertible {
  /// It answers nothing: it was taken out, or its link to the bus is down.
  case removed
  /// The kernel asks for it: it is about to be taken out.
  case requested
  /// Somebody has reset it, and what it was told is gone.
  case reset
  /// The bus reports an error that nobody could mend.
  case error
  /// Memory could not be unmapped from the IOMMU: bus mastering is off until the card was opened anew.
  case unmapFailed

  /// Whether it is off the bus already.
  var isGone: Bool { self == .removed }
  var description: String {
    switch self {
    case .removed: "it answers nothing any more: it was taken out"
    case .requested: "the kernel asks for it back: it is being taken out"
    case .reset: "somebody has reset it"
    case .error: "the bus reports an error that the card could not mend"
    case .unmapFailed: "memory could not be unmapped from the IOMMU; bus mastering is off"
    }
  }
}

/// No card: it was lost, and has not come back.
final class AbsentNetworkCard: NetworkCard {
  let kind: String
  private let last: (received: StatusReport.Traffic, sent: StatusReport.Traffic)
  let allocator = IOVAAllocator()
  let windowSpan = DMAWindow.span
  let space: any IOAddressSpace = NoBus()

  init(after card: any NetworkCard) {
    kind = card.kind.hasSuffix(Self.suffix) ? card.kind : card.kind + Self.suffix
    last = (card.received, card.sent)
  }
  static let suffix = ", away"

  private final class NoBus: IOAddressSpace {
    let unmapFailures = UnmapFailures()
    func map(_ memory: HostMemory, at address: IOVA, access: DMAAccess) throws(IOAddressSpaceError) {
      throw .refused(address, byteCount: unsafe memory.byteCount, "the card is away")
    }
    func unmap(_ address: IOVA, byteCount: Int) throws(IOAddressSpaceError) { throw .notMapped(address) }
  }

  var driver: (any IntelCard)? { nil }
  var model: SharedCard? { nil }
  func connect(vector: Int, to event: borrowing EventDescriptor) {}
  func beginInterrupts() {}
  func stopWaiting(forQueue n: Int) {}
  func resumeWaiting(forQueue n: Int) {}
  func announce(_ frame: [UInt8]) {}
  func betweenSteps<Result: Sendable>(_ body: () -> Result) -> Result { body() }
  var received: StatusReport.Traffic { last.received }
  var sent: StatusReport.Traffic { last.sent }
  var switchedFrames: UInt64? { nil }
  var replicatedFrames: UInt64? { nil }
  func arrived(in pool: Int, queues: Int) -> StatusReport.Traffic? { nil }
  func drops(of pool: Int, queues: Int) -> [String: UInt64] { [:] }
  func unroutedDrops() -> [String: UInt64] { [:] }
  var overruns: UInt64? { nil }
  func refused(of pool: Int, queues: Int) -> UInt64 { 0 }
  var laws: [StatusReport.Law] { [] }
  var filterCounts: [FilterPlace: FilterCount]? { nil }
  var mapCount: Int { 0 }
  var busErrors: [String: [String: UInt64]]? { nil }
  var faultCount: UInt64? { nil }
  func faults(after seen: UInt64) -> [(address: IOVA?, text: String)] { [] }
  func attend() -> CardLoss? { nil }
  func shutDown() {}
}
