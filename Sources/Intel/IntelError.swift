public import Bus

/// Why a card could not be set up as asked.
public enum IntelError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Every register reads all ones: the device is not on the bus any more.
  case deviceGone
  /// A register did not become what it must.
  case register(RegisterError)
  /// A ring could not be placed on the bus.
  case memory(DMABufferError)
  case mtu(Int, allowed: ClosedRange<Int>)
  case poolCount(Int, allowed: ClosedRange<Int>)
  /// Queues in a pool: 1, 2 or 4, and without pools 1 to 16.
  case queuesPerPool(Int)
  /// An RSS key of other than 40 bytes.
  case keyByteCount(Int)
  /// Descriptors of a ring: a multiple of 8 in these bounds.
  case ringSize(Int, allowed: ClosedRange<Int>)
  case queue(Int, count: Int)
  /// The card runs this queue already.
  case queueInUse(Int)
  /// The largest frame does not fit.
  case bufferTooSmall(needed: Int, found: Int)
  /// A number past the end of one of the card's tables.
  case index(Int, table: String, count: Int)
  /// Every entry of a table is taken.
  case tableFull(String, count: Int)
  /// A change of the filters failed, and so did the way back: nothing is received any more.
  case steeringLost(String)
  /// Not with this configuration.
  case unavailable(String)

  public var description: String {
    switch self {
    case .deviceGone: "the card does not answer"
    case .register(let error): "\(error)"
    case .memory(let error): "\(error)"
    case .mtu(let mtu, let allowed): "an MTU of \(mtu) bytes; \(allowed.lowerBound) to \(allowed.upperBound) are possible"
    case .poolCount(let count, let allowed): "\(count) pools; \(allowed.lowerBound) to \(allowed.upperBound) are possible"
    case .queuesPerPool(let count): "\(count) queues in a pool; 1, 2 or 4 are possible, and without pools 1 to 16"
    case .keyByteCount(let count): "an RSS key of \(count) bytes; it has 40"
    case .ringSize(let size, let allowed):
      "a ring of \(size) descriptors; a multiple of 8 from \(allowed.lowerBound) to \(allowed.upperBound) is possible"
    case .queue(let number, let count): "queue \(number); there are \(count)"
    case .queueInUse(let number): "queue \(number) runs already"
    case .bufferTooSmall(let needed, let found): "buffers of \(found) bytes; the largest frame takes \(needed)"
    case .index(let index, let table, let count): "entry \(index) of \(table), which has \(count)"
    case .tableFull(let table, let count): "all \(count) entries of \(table) are taken"
    case .steeringLost(let why): "neither the new filters nor the old ones could be written, and nothing is received: \(why)"
    case .unavailable(let what): what
    }
  }
}
