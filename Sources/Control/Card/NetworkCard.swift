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
  var driver: any IntelCard { get }
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
  /// What was put into a pool's queues, and dropped of its frames, by reason.
  func arrived(in pool: Int, queues: Int) -> StatusReport.Traffic
  func drops(of pool: Int, queues: Int) -> [String: UInt64]
  /// Dropped before any pool was known to be the one.
  func unroutedDrops() -> [String: UInt64]
  var laws: [StatusReport.Law] { get }
  /// Frames by filter; nil: the card counts none.
  var filterCounts: [FilterPlace: FilterCount]? { get }

  /// Mappings that the card can use now.
  var mapCount: Int { get }
  /// Accesses that the IOMMU refused; nil: nobody tells us.
  var faultCount: UInt64? { get }
  /// Those after the first `seen`: their addresses, and in words.
  func faults(after seen: UInt64) -> [(address: IOVA?, text: String)]
  /// Looks after what nobody tells us of: counters that would pass their end, events of the device. Several times a second.
  func attend()

  /// Stops everything: afterwards the card touches no memory.
  func shutDown()
}
