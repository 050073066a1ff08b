public import CLinux
public import Linux

/// How a thread that has rung a doorbell wakes the pump, should it be asleep: a doorbell is a plain store, and nobody
/// hears it.
///
/// The pump says that it will sleep, and looks once more; the other side rings, and looks whether it sleeps. With a fence
/// on either side one of them sees the other.
/// `@safe`: the cell lives as long as the object, and every access is one whole load or store.
@safe public final class Waker: @unchecked Sendable {
  @usableFromInline let cell: UnsafeMutablePointer<UInt32>
  /// Readable when the pump was woken.
  public let event: EventDescriptor

  init() throws(SystemError) {
    event = try EventDescriptor()
    unsafe cell = .allocate(capacity: 1)
    unsafe cell.initialize(to: 0)
  }
  deinit { unsafe cell.deallocate() }

  /// After the doorbells of a turn have been rung.
  @inlinable public func wake() {
    sl_fence()
    if unsafe sl_load32(cell) != 0 { raise() }
  }

  @usableFromInline func raise() { event.signal() }

  var isAsleep: Bool { unsafe sl_load32(cell) != 0 }
  /// The pump's side: what is rung after this wakes it, and what was rung before is seen after this.
  func fallAsleep() {
    unsafe sl_store32(cell, 1)
    sl_fence()
  }
  func wakeUp() {
    unsafe sl_store32(cell, 0)
    event.clear()
  }
}
