public import CLinux

/// What one path counted. Written by its thread alone, with plain stores; read by anyone at any time.
///
/// `@safe`: the cells live as long as this object, and every index is a case of an enum.
@safe public final class ReceiveCounters: @unchecked Sendable {
  @usableFromInline enum Cell: Int {
    case lentFrames, lentBytes, bouncedFrames, bouncedBytes, returnedEmpty, doorbells, signals
    case bounces  // one each BounceReason
    case suppressedSignals = 13, dirtyPages, postedBuffers
    case drops = 16  // one each PathDrop
    case cutPolls = 32
    static let count = 40
  }
  @usableFromInline let cells: UnsafeMutablePointer<UInt64>

  public init() {
    unsafe cells = .allocate(capacity: Cell.count)
    unsafe cells.initialize(repeating: 0, count: Cell.count)
  }
  deinit { unsafe cells.deallocate() }

  /// The way to the cells that a path keeps: no reference to count.
  var writer: Writer { unsafe Writer(cells: cells) }

  private func value(_ cell: Cell) -> UInt64 { unsafe sl_load64(cells + cell.rawValue) }

  /// Frames and bytes that the card wrote where the guest reads them.
  public var lentFrames: UInt64 { value(.lentFrames) }
  public var lentBytes: UInt64 { value(.lentBytes) }
  /// Frames and bytes that were copied once.
  public var bouncedFrames: UInt64 { value(.bouncedFrames) }
  public var bouncedBytes: UInt64 { value(.bouncedBytes) }
  public var deliveredFrames: UInt64 { lentFrames + bouncedFrames }
  public var deliveredBytes: UInt64 { lentBytes + bouncedBytes }
  /// Guest buffers given back with nothing in them.
  public var returnedEmpty: UInt64 { value(.returnedEmpty) }
  public var doorbells: UInt64 { value(.doorbells) }
  public var signals: UInt64 { value(.signals) }
  /// Batches that the driver did not want to be told of.
  public var suppressedSignals: UInt64 { value(.suppressedSignals) }
  /// Pages that were marked in a log and had not been.
  public var dirtyPages: UInt64 { value(.dirtyPages) }
  /// Polls that ended at their budget of descriptors, with work left.
  public var cutPolls: UInt64 { value(.cutPolls) }
  /// Buffers that are with the card now, the guest's and ours.
  public var postedBuffers: UInt64 { value(.postedBuffers) }
  /// Delivered frames by why they were bounced.
  public func bounced(_ reason: BounceReason) -> UInt64 {
    unsafe sl_load64(cells + (Cell.bounces.rawValue + reason.rawValue))
  }
  public func dropped(_ reason: PathDrop) -> UInt64 {
    unsafe sl_load64(cells + (Cell.drops.rawValue + reason.rawValue))
  }
  public var droppedFrames: UInt64 { PathDrop.allCases.reduce(0) { $0 + dropped($1) } }
}

extension ReceiveCounters {
  /// Adds to the cells. Valid while its counters live: the path that has one holds them.
  @safe @usableFromInline struct Writer {
    @usableFromInline let cells: UnsafeMutablePointer<UInt64>
    init(cells: UnsafeMutablePointer<UInt64>) { unsafe self.cells = cells }

    @inlinable func add(_ cell: Cell, _ amount: UInt64) {
      let place = unsafe cells + cell.rawValue
      unsafe sl_store64(place, sl_load64(place) &+ amount)
    }
    @inlinable func set(_ cell: Cell, _ amount: UInt64) { unsafe sl_store64(cells + cell.rawValue, amount) }
    @inlinable func add(_ reason: BounceReason) {
      let place = unsafe cells + (Cell.bounces.rawValue + reason.rawValue)
      unsafe sl_store64(place, sl_load64(place) &+ 1)
    }
    /// - Parameter reason: the raw value of a `BounceReason`, as a ledger has it.
    @inlinable func addBounce(_ reason: UInt8) {
      let place = unsafe cells + (Cell.bounces.rawValue + Int(reason))
      unsafe sl_store64(place, sl_load64(place) &+ 1)
    }
    @inlinable func add(_ drop: PathDrop) {
      let place = unsafe cells + (Cell.drops.rawValue + drop.rawValue)
      unsafe sl_store64(place, sl_load64(place) &+ 1)
    }
  }
}
