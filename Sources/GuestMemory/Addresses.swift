/// An address as the guest's drivers write it into descriptors: guest-physical.
@frozen public struct GuestAddress: Hashable, Comparable, Sendable, CustomStringConvertible {
  public var rawValue: UInt64
  @inlinable public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
  public var description: String { "0x" + String(rawValue, radix: 16) }
}

/// Some bytes of a guest's address space. Nothing says yet that memory is there.
@frozen public struct GuestRange: Hashable, Sendable, CustomStringConvertible {
  public var start: GuestAddress
  /// Bytes.
  public var count: UInt32
  @inlinable public init(_ start: GuestAddress, count: UInt32) {
    self.start = start
    self.count = count
  }
  public var description: String { "\(start)+\(count)" }
}

/// An address as the front-end sees the guest's memory in its own process: rings are named by these.
/// vhost-user, "Memory access".
@frozen public struct FrontendAddress: Hashable, Comparable, Sendable, CustomStringConvertible {
  public var rawValue: UInt64
  @inlinable public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
  public var description: String { "0x" + String(rawValue, radix: 16) }
}
