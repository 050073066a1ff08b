internal import Glibc

/// Frames and bytes by what the filters found: a diagnosis of the model's, for which the 82599 has no registers.
///
/// For the address step a place for each combination of what it can tell: destination (128 RAL/RAH, broadcast,
/// multicast, unicast), tag (none, 64 PFVLVF, others), EtherType (none of the filters, 8 ETQF). For the steps behind it
/// one for each filter, by its number; flow director's by software index.
///
/// `@safe`: every place is cut to the number of places.
@safe struct FilterCounters {
  private static let destinations = 131
  private static let tags = 66
  private static let etherTypes = 9
  static let otherTag = tags - 1
  static let destinationStride = tags * etherTypes
  private static let filterBase = destinations * destinationStride
  static let syn = filterBase
  private static let fiveTupleBase = syn + 1
  private static let exactFlowBase = fiveTupleBase + 128
  private static let placeCount = 1 << 17

  @inline(__always) static func place(destination: Int, tag: Int, etherType: Int) -> Int {
    destination &* destinationStride &+ tag &* etherTypes &+ etherType
  }
  @inline(__always) static func fiveTuple(_ number: Int) -> Int { fiveTupleBase &+ number & 127 }
  @inline(__always) static func exactFlow(_ index: Int) -> Int { exactFlowBase &+ index & 8191 }

  private let cells: UnsafeMutablePointer<FilterCount>

  init() {
    precondition(Self.exactFlowBase + 8192 <= Self.placeCount)
    // Zeroed pages that come when they are used, which most are not.
    guard let memory = unsafe calloc(Self.placeCount, MemoryLayout<FilterCount>.stride) else { preconditionFailure("no memory") }
    unsafe cells = memory.bindMemory(to: FilterCount.self, capacity: Self.placeCount)
  }
  func deallocate() { unsafe free(cells) }

  @inline(__always) func count(_ place: Int, _ bytes: Int) {
    let cell = unsafe cells + (place & (Self.placeCount - 1))
    unsafe cell.pointee.frames &+= 1
    unsafe cell.pointee.bytes &+= UInt64(bytes)
  }

  func value(_ place: Int) -> FilterCount { unsafe cells[place & (Self.placeCount - 1)] }

  /// Every combination of the address step that has seen a frame.
  func forEachAddress(_ body: (AddressPlace, FilterCount) -> Void) {
    for place in 0..<Self.filterBase {
      let count = unsafe cells[place]
      if count.frames == 0 { continue }
      let (destination, rest) = place.quotientAndRemainder(dividingBy: Self.destinationStride)
      let (tag, type) = rest.quotientAndRemainder(dividingBy: Self.etherTypes)
      body(AddressPlace(destination, tag, type), count)
    }
  }
}

/// Frames, and their bytes without check sequence.
public struct FilterCount: Hashable, Sendable {
  public var frames: UInt64 = 0
  public var bytes: UInt64 = 0
  public init(frames: UInt64 = 0, bytes: UInt64 = 0) { (self.frames, self.bytes) = (frames, bytes) }
}

/// What the address step found of a frame.
public struct AddressPlace: Hashable, Sendable {
  public enum Destination: Hashable, Sendable {
    /// Number of RAL and RAH.
    case entry(Int)
    case broadcast, multicast, unicast
  }
  public enum Tag: Hashable, Sendable {
    /// Also where VLANs are not filtered.
    case none
    /// Number of PFVLVF.
    case entry(Int)
    case other
  }
  public let destination: Destination
  public let tag: Tag
  /// Number of ETQF; nil: of no filter's type.
  public let etherType: Int?

  fileprivate init(_ destination: Int, _ tag: Int, _ type: Int) {
    self.destination = [128: .broadcast, 129: .multicast, 130: .unicast][destination] ?? .entry(destination)
    self.tag = tag == 0 ? .none : tag == FilterCounters.otherTag ? .other : .entry(tag - 1)
    etherType = type == 0 ? nil : type - 1
  }
}

/// Something in a card's filters that counts.
public enum FilterPlace: Hashable, Sendable {
  case address(AddressPlace)
  case syn
  /// Number of FTQF.
  case fiveTuple(Int)
  /// Flow director's software index.
  case exactFlow(Int)
}

extension SimulatedCard {
  /// Frames from the wire, where there were any; of a frame for several pools each copy counts at the filters behind the
  /// address step.
  public var filterCounts: [FilterPlace: FilterCount] {
    var result: [FilterPlace: FilterCount] = [:]
    func add(_ place: FilterPlace, _ count: FilterCount) { if count.frames > 0 { result[place] = count } }
    filterCounters.forEachAddress { result[.address($0)] = $1 }
    add(.syn, filterCounters.value(FilterCounters.syn))
    for number in 0..<128 { add(.fiveTuple(number), filterCounters.value(FilterCounters.fiveTuple(number))) }
    for number in 0..<8192 { add(.exactFlow(number), filterCounters.value(FilterCounters.exactFlow(number))) }
    return result
  }
}
