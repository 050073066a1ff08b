internal import CLinux

/// What came of every frame at a card: by its queues, and by reason. Written with the card's lock held, with plain
/// stores; read by anyone at any time.
///
/// `@safe`: the cells live as long as this object, and every index is cut to the number of queues, or is a case of an enum.
@safe public final class TrafficCounters: @unchecked Sendable {
  /// Where a frame came from that a receive queue was to get.
  public enum Origin: Int, Hashable, Sendable, CaseIterable { case wire, pools }

  private enum Cell: Int, CaseIterable {
    case receivedFrames, receivedBytes, replicated, uplinkLostFrames, uplinkLostBytes, busFaults
  }
  private enum Sent: Int, CaseIterable { case frames, bytes, onWire, onWireBytes, copies, refused, nowhere, ticks }
  private static let queueCount = SimulatedCard.queueCount
  /// Delivered frames and bytes, and one cell each drop.
  private static let arrivalStride = 2 + CardDrop.allCases.count
  private static let sentBase = Cell.allCases.count
  private static let arrivalBase = sentBase + queueCount * Sent.allCases.count
  /// The place after the last queue is for frames that no queue was found for.
  private static let originStride = (queueCount + 1) * arrivalStride
  private static let cellCount = arrivalBase + Origin.allCases.count * originStride

  private let cells: UnsafeMutablePointer<UInt64>

  public init() {
    unsafe cells = .allocate(capacity: Self.cellCount)
    unsafe cells.initialize(repeating: 0, count: Self.cellCount)
  }
  deinit { unsafe cells.deallocate() }

  private func value(_ index: Int) -> UInt64 { unsafe sl_load64(cells + index) }
  private func value(_ cell: Cell) -> UInt64 { value(cell.rawValue) }
  private func value(_ cell: Sent, _ queue: Int) -> UInt64 { value(Self.sent(cell, queue)) }
  private static func sent(_ cell: Sent, _ queue: Int) -> Int {
    sentBase + (queue & (queueCount - 1)) * Sent.allCases.count + cell.rawValue
  }
  private static func arrival(_ queue: Int?, _ origin: Origin) -> Int {
    let place = queue.map { $0 & (queueCount - 1) } ?? queueCount
    return arrivalBase + origin.rawValue * originStride + place * arrivalStride
  }
}

// MARK: for readers

extension TrafficCounters {
  /// Frames that the wire offered and the card did not hold; bytes without check sequence.
  public var receivedFrames: UInt64 { value(.receivedFrames) }
  public var receivedBytes: UInt64 { value(.receivedBytes) }
  /// Further copies of frames from the wire that were for several pools.
  public var replicatedFrames: UInt64 { value(.replicated) }
  /// Frames on the wire that the uplink could not take.
  public var lostFrames: UInt64 { value(.uplinkLostFrames) }
  public var lostBytes: UInt64 { value(.uplinkLostBytes) }
  /// Accesses that the IOMMU refused.
  public var busFaults: UInt64 { value(.busFaults) }

  /// Frames in a receive queue's memory, and their bytes.
  public func deliveredFrames(queue: Int, from origin: Origin) -> UInt64 { value(Self.arrival(queue, origin)) }
  public func deliveredBytes(queue: Int, from origin: Origin) -> UInt64 { value(Self.arrival(queue, origin) + 1) }
  /// Frames that were for a queue and are not there; nil: for none.
  public func droppedFrames(_ reason: CardDrop, queue: Int?, from origin: Origin) -> UInt64 {
    value(Self.arrival(queue, origin) + 2 + reason.index)
  }
  public func droppedFrames(queue: Int?, from origin: Origin) -> UInt64 {
    CardDrop.allCases.reduce(0) { $0 + droppedFrames($1, queue: queue, from: origin) }
  }

  /// Frames that have left a transmit queue, and their bytes.
  public func sentFrames(queue: Int) -> UInt64 { value(.frames, queue) }
  public func sentBytes(queue: Int) -> UInt64 { value(.bytes, queue) }
  /// Of these: put on the wire.
  public func wireFrames(queue: Int) -> UInt64 { value(.onWire, queue) }
  public func wireBytes(queue: Int) -> UInt64 { value(.onWireBytes, queue) }
  /// Copies of these for other pools.
  public func switchedCopies(queue: Int) -> UInt64 { value(.copies, queue) }
  /// Of these: not under an address of their pool's own, or not in a VLAN of it, and dropped for that.
  public func refusedFrames(queue: Int) -> UInt64 { value(.refused, queue) }
  /// Of these: neither for the wire nor for another pool, such as those for the sender itself.
  public func nowhereFrames(queue: Int) -> UInt64 { value(.nowhere, queue) }

  /// Ticks of the processor's counter that sending a queue's frames took the pump, copies for other pools and the uplink with it.
  public func sendTicks(queue: Int) -> UInt64 { value(.ticks, queue) }

  /// Laws of conservation: sums of what was counted at one end and at the other.
  public var laws: [(name: String, left: UInt64, right: UInt64)] {
    func arrivals(_ origin: Origin) -> UInt64 {
      (0..<Self.queueCount).reduce(droppedFrames(queue: nil, from: origin)) {
        $0 + deliveredFrames(queue: $1, from: origin) + droppedFrames(queue: $1, from: origin)
      }
    }
    let copies = (0..<Self.queueCount).reduce(UInt64(0)) { $0 + switchedCopies(queue: $1) }
    return [
      ("received from the wire + replicated = delivered + dropped", receivedFrames + replicatedFrames, arrivals(.wire)),
      ("copies for other pools = delivered + dropped", copies, arrivals(.pools)),
    ]
  }
}

// MARK: for the card's side

extension TrafficCounters {
  /// What a card counts with: without a reference, for a retain waits until all that was written before has left the
  /// core. The counters must outlive it.
  ///
  /// `@safe`: as its owner is.
  @safe struct Writer {
    fileprivate let cells: UnsafeMutablePointer<UInt64>

    @inline(__always) private func add(_ index: Int, _ amount: UInt64) {
      let place = unsafe cells + index
      unsafe sl_store64(place, sl_load64(place) &+ amount)
    }
    @inline(__always) private func offered(_ count: Int) {
      add(Cell.receivedFrames.rawValue, 1)
      add(Cell.receivedBytes.rawValue, UInt64(count))
    }

    /// Frames from the wire that lie in one queue's memory.
    @inline(__always) func delivered(queue: Int, frames: Int, bytes: Int) {
      add(Cell.receivedFrames.rawValue, UInt64(frames))
      add(Cell.receivedBytes.rawValue, UInt64(bytes))
      let place = TrafficCounters.arrival(queue, .wire)
      add(place, UInt64(frames))
      add(place + 1, UInt64(bytes))
    }

    /// A frame from the wire. Its copies, if there are several, are in the card's record.
    func received(_ arrival: Arrival, _ count: Int, _ copies: borrowing CopyRecord) {
      offered(count)
      switch arrival {
      case .delivered(let queue): arrived(nil, queue: queue, count, from: .wire)
      case .dropped(let reason, let queue): arrived(reason, queue: queue, count, from: .wire)
      case .replicated:
        add(Cell.replicated.rawValue, UInt64(copies.count - 1))
        for index in 0..<copies.count { arrived(copies[index].drop, queue: copies[index].queue, count, from: .wire) }
      case .held: preconditionFailure("a frame that is held has not arrived")
      }
    }

    @inline(__always) func arrived(_ drop: CardDrop?, queue: Int?, _ count: Int, from origin: Origin) {
      let place = TrafficCounters.arrival(queue, origin)
      if let drop { return add(place + 2 + drop.index, 1) }
      add(place, 1)
      add(place + 1, UInt64(count))
    }

    func sent(queue: Int, ticks: UInt64) { add(TrafficCounters.sent(.ticks, queue), ticks) }

    func left(_ departure: Departure) {
      let (queue, count) = (departure.queue, UInt64(departure.byteCount))
      func add(_ cell: Sent, _ amount: UInt64) { self.add(TrafficCounters.sent(cell, queue), amount) }
      add(.frames, 1)
      add(.bytes, count)
      if departure.isOnWire {
        add(.onWire, 1)
        add(.onWireBytes, count)
      }
      add(.copies, UInt64(departure.copyCount))
      if departure.isRefused { add(.refused, 1) }
      if !departure.isOnWire && departure.copyCount == 0 && !departure.isRefused { add(.nowhere, 1) }
    }

    func lost(_ count: Int) {
      add(Cell.uplinkLostFrames.rawValue, 1)
      add(Cell.uplinkLostBytes.rawValue, UInt64(count))
    }

    func setBusFaults(_ count: Int) { unsafe sl_store64(cells + Cell.busFaults.rawValue, UInt64(count)) }
  }

  var writer: Writer { unsafe Writer(cells: cells) }
}

extension CardDrop {
  /// Its place among all cases.
  @inline(__always) var index: Int {
    switch self {
    case .removed: 0
    case .resetting: 1
    case .masterDisabled: 2
    case .linkDown: 3
    case .receiveDisabled: 4
    case .undersize: 5
    case .oversize: 6
    case .crcError: 7
    case .noPool: 8
    case .filtered: 9
    case .queueDisabled: 10
    case .noDescriptors: 11
    case .missed: 12
    case .portStalled: 13
    case .dmaFault: 14
    case .queueFaulted: 15
    }
  }
}
