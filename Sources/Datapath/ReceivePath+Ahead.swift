public import CLinux
public import NIC
public import Virtio

// What a turn touches is asked for while other paths turn. By the time it is a path's turn again the frames of all the others
// have gone through the cache, and its rings, its ledger and the path itself are out of it, or are the guest's processor's.
//
// Three steps, each of which finds what the one before it has asked for: the path, what it points to, what lies behind that.
// Nothing here changes anything, and nothing that is read decides anything but what is asked for.

extension ReceivePath where Queue: ~Copyable {
  /// Asks for the path itself.
  @inlinable @inline(__always) static func reach(_ path: UnsafeMutablePointer<ReceivePath>) {
    var offset = 0
    while offset < MemoryLayout<ReceivePath>.size {
      unsafe sl_prefetch_write(UnsafeRawPointer(path) + offset)
      offset &+= 64
    }
  }

  /// Asks for the lines that a turn touches first. The path has been reached.
  @inlinable @inline(__always) mutating func approach() {
    queue.approach()
    core.virtqueue.approach()
    core.ledger.approach()
    unsafe sl_prefetch_write(core.tally.cells)
    unsafe sl_prefetch_write(core.tally.cells + 8)
  }

  /// Asks for those that it touches after these.
  @inlinable @inline(__always) mutating func prepare() {
    guard queue.prepare() else { return }
    core.virtqueue.prepare()
    core.ledger.prepare()
  }
}

extension Ledger {
  @inlinable @inline(__always) mutating func approach() {
    unsafe sl_prefetch(entries + Int(front & entryMask))
    unsafe sl_prefetch_write(entries + Int(tail & entryMask))
    unsafe sl_prefetch_write(slots + Int(slotTail & slotMask))
  }
  /// Four entries to a line. What they point to is asked for by the turn itself, but for the first ones.
  @inlinable @inline(__always) mutating func prepare() {
    for place: UInt32 in 0...3 { unsafe sl_prefetch_write(entries[Int((front &+ place) & entryMask)].base) }
    for line: UInt32 in 1...5 {
      unsafe sl_prefetch(entries + Int((front &+ line &* 4) & entryMask))
      unsafe sl_prefetch_write(entries + Int((tail &+ line &* 4) & entryMask))
    }
  }
}
