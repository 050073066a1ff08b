public import CLinux

/// A number that one thread writes and others read: a flag, a counter.
///
/// `@safe`: the cell lives as long as the object, and every access is one whole load or store.
@safe public final class SharedWord: @unchecked Sendable {
  @usableFromInline let cell: UnsafeMutablePointer<UInt64>

  public init(_ value: UInt64 = 0) {
    unsafe cell = .allocate(capacity: 1)
    unsafe cell.initialize(to: value)
  }
  deinit { unsafe cell.deallocate() }

  /// Sees everything that the writer stored before this value.
  @inlinable public var value: UInt64 { unsafe sl_load64_acquire(cell) }
  @inlinable public func set(_ value: UInt64) { unsafe sl_store64_release(cell, value) }
}
