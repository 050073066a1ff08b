public import Bus
import FlowSteering
import FlowTables
public import Intel
public import Linux

/// A card with a wire, fresh from its driver, without rules and with no queue running: a model, or one on a bus.
public protocol ConformanceSubject: AnyObject {
  var card: any IntelCard { get }
  var space: any IOAddressSpace { get }
  var allocator: IOVAAllocator { get }
  /// Puts a frame on the card's wire. Frames come in the order in which they are put there.
  func send(_ frame: [UInt8])
  /// Lets a model do what a card does by itself, and real time pass elsewhere.
  func proceed()
  /// Accesses that the IOMMU has refused so far.
  var faultCount: UInt64 { get }
  /// What a vector raises.
  func connect(vector: Int, to event: borrowing EventDescriptor) throws
  /// What somebody on the way puts on the wire by itself is none of ours: whether these bytes may be.
  var hasStrangers: Bool { get }
}

/// What a card did that it must not, or did not.
public struct ConformanceFailure: Error, CustomStringConvertible {
  public let description: String
  init(_ description: String) { self.description = description }
}

func expect(_ holds: Bool, _ what: @autoclosure () -> String) throws { if !holds { throw ConformanceFailure(what()) } }

extension ConformanceSubject {
  /// Waits until something is so. What takes longer than a minute does not come: the limit is far above what a card that is
  /// emulated beside other load takes, so that time decides no case.
  public func eventually<Value>(_ what: @autoclosure () -> String, _ look: () throws -> Value?) throws -> Value {
    let deadline = MonotonicClock.now() + 60_000_000_000
    while true {
      if let value = try look() { return value }
      if MonotonicClock.now() > deadline { throw ConformanceFailure("not within 60 s: \(what())") }
      proceed()
    }
  }

  /// Filter tables for VMs, by rules.
  func apply(_ rules: [String] = [], to vms: [Receiver]) throws {
    var parsed: [Rule] = []
    for rule in rules { parsed.append(try Rule(parsing: rule)) }
    guard let tables = try CardProgram(Steering(parsed, for: vms), for: card.profile).tables else { throw ConformanceFailure("no tables") }
    try card.apply(tables)
  }
}
