internal import CLinux

/// What one transmit path counted, frames when they go back to the guest. Written by its thread alone, with plain stores;
/// read by anyone at any time.
///
/// `@safe`: the cells live as long as this object, and every index is a case of an enum.
@safe public final class TransmitCounters: @unchecked Sendable {
  enum Cell: Int {
    case lentFrames, lentBytes, copiedFrames, copiedBytes, doorbells, signals, suppressedSignals, dirtyPages, postedFrames, cutPolls
    case copies = 16  // one each CopyReason
    case drops = 24  // one each TransmitDrop
    static let count = 32
  }
  private let cells: UnsafeMutablePointer<UInt64>

  public init() {
    unsafe cells = .allocate(capacity: Cell.count)
    unsafe cells.initialize(repeating: 0, count: Cell.count)
  }
  deinit { unsafe cells.deallocate() }

  private func value(_ cell: Cell) -> UInt64 { unsafe sl_load64(cells + cell.rawValue) }

  /// Frames and bytes that the card read where the guest wrote them.
  public var lentFrames: UInt64 { value(.lentFrames) }
  public var lentBytes: UInt64 { value(.lentBytes) }
  /// Frames and bytes, as the guest gave them, that were copied once.
  public var copiedFrames: UInt64 { value(.copiedFrames) }
  public var copiedBytes: UInt64 { value(.copiedBytes) }
  public var sentFrames: UInt64 { lentFrames + copiedFrames }
  public var sentBytes: UInt64 { lentBytes + copiedBytes }
  public var doorbells: UInt64 { value(.doorbells) }
  public var signals: UInt64 { value(.signals) }
  /// Batches that the driver did not want to be told of.
  public var suppressedSignals: UInt64 { value(.suppressedSignals) }
  /// Pages that were marked in a log and had not been.
  public var dirtyPages: UInt64 { value(.dirtyPages) }
  /// Polls that ended at their budget of descriptors.
  public var cutPolls: UInt64 { value(.cutPolls) }
  /// Frames that are with the card now.
  public var postedFrames: UInt64 { value(.postedFrames) }
  /// Sent frames by why they were copied.
  public func copied(_ reason: CopyReason) -> UInt64 { unsafe sl_load64(cells + (Cell.copies.rawValue + reason.rawValue)) }
  public func dropped(_ reason: TransmitDrop) -> UInt64 { unsafe sl_load64(cells + (Cell.drops.rawValue + reason.rawValue)) }
  public var droppedFrames: UInt64 { TransmitDrop.allCases.reduce(0) { $0 + dropped($1) } }

  /// Adds to the cells. Valid while its counters live: the path that has one holds them.
  @safe struct Writer {
    fileprivate let cells: UnsafeMutablePointer<UInt64>

    func add(_ cell: Cell, _ amount: UInt64) { add(amount, at: cell.rawValue) }
    func set(_ cell: Cell, _ amount: UInt64) { unsafe sl_store64(cells + cell.rawValue, amount) }
    func add(_ reason: CopyReason) { add(1, at: Cell.copies.rawValue + reason.rawValue) }
    func add(_ drop: TransmitDrop) { add(1, at: Cell.drops.rawValue + drop.rawValue) }
    private func add(_ amount: UInt64, at index: Int) {
      let place = unsafe cells + index
      unsafe sl_store64(place, sl_load64(place) &+ amount)
    }
  }
  var writer: Writer { unsafe Writer(cells: cells) }
}
