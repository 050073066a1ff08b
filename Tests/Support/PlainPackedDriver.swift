internal import CLinux
internal import GuestMemory
public import Virtio

/// A packed virtqueue from the driver's side, as the specification draws it: offsets in plain memory.
/// virtio 1.3, 2.8.13, 2.8.14, 2.8.21, 2.8.22.
///
/// Descriptors are numbered from the ring's beginning on, without end; place and wrap counter are worked out from that.
public final class PlainPackedDriver {
  public let memory: PlainMemory
  public let layout: RingLayout
  public let size: Int
  /// The number of the next descriptor to offer, and of the next one to look at for a used buffer.
  public private(set) var offered: Int
  public private(set) var seen: Int
  /// By the number of a buffer's first descriptor: how many it has.
  private var lengths: [Int: Int] = [:]

  /// A buffer's piece, with its flags: WRITE or INDIRECT; NEXT comes by itself.
  public struct Piece {
    public var address: UInt64
    public var count: UInt32
    public var flags: UInt16
    public init(_ address: UInt64, _ count: UInt32, flags: UInt16 = PlainDriver.write) {
      (self.address, self.count, self.flags) = (address, count, flags)
    }
  }

  /// - Parameter first: the number of the first descriptor to offer. The ring looks as if all before were used.
  public init(_ layout: RingLayout, in memory: PlainMemory, first: Int = 0) {
    self.memory = memory
    self.layout = layout
    size = layout.size
    (offered, seen) = (first, first)
    memory.write(ring, [UInt8](repeating: 0, count: 16 * size))
    for n in max(0, first - size)..<first {
      memory.write(place(n), littleEndian(0x1000, 8) + littleEndian(64, 4) + littleEndian(UInt64(n), 2))
      memory.store16(both(n) ? 0x8080 : 0, place(n) + 14)
    }
    memory.write(layout.driverArea.rawValue, [0, 0, 0, 0])
    memory.write(layout.deviceArea.rawValue, [0, 0, 0, 0])
  }

  public var ring: UInt64 { layout.descriptorArea.rawValue }
  /// Where the n-th descriptor lies.
  public func place(_ n: Int) -> UInt64 { ring + 16 * UInt64(n % size) }
  /// The wrap counter of the n-th descriptor's lap: 1 in the first. 2.8.1.
  public func both(_ n: Int) -> Bool { n / size % 2 == 0 }
  public func position(_ n: Int) -> RingPosition { RingPosition(place: UInt16(n % size), wrap: both(n)) }

  /// Room for so many descriptors, the used ones that were looked at among them.
  public var room: Int { size - (offered - seen) }

  /// Writes a descriptor as it is told, available; its flags last.
  public func describe(_ n: Int, _ piece: Piece, id: UInt16, flags: UInt16) {
    let bits: UInt16 = both(n) ? 0x0080 : 0x8000
    memory.write(
      place(n), littleEndian(piece.address, 8) + littleEndian(UInt64(piece.count), 4) + littleEndian(UInt64(id), 2))
    sl_fence_release()
    memory.store16(flags | bits, place(n) + 14)
  }

  /// Offers a buffer, its first descriptor last. Its ID is in its last one only. Precondition: there is room for it.
  public func offer(_ pieces: [Piece], id: UInt16) {
    precondition(pieces.count <= room)
    for (n, piece) in pieces.enumerated().reversed() {
      let isLast = n == pieces.count - 1
      describe(
        offered + n, piece, id: isLast ? id : ~id, flags: piece.flags | (isLast ? 0 : PlainDriver.next))
    }
    lengths[offered] = pieces.count
    offered += pieces.count
  }

  /// An entry of an indirect table; `flags` and `id` mean nothing there but for WRITE. 2.8.7.
  public func describe(table: UInt64, _ n: Int, _ piece: Piece, id: UInt16 = 0) {
    memory.write(
      table + 16 * UInt64(n),
      littleEndian(piece.address, 8) + littleEndian(UInt64(piece.count), 4) + littleEndian(UInt64(id), 2)
        + littleEndian(UInt64(piece.flags), 2))
  }

  /// A used descriptor as it lies in the ring.
  public struct Used: Equatable {
    public var id: UInt16
    public var byteCount: UInt32
    public var isWritten: Bool
    public init(id: UInt16, byteCount: UInt32, isWritten: Bool) {
      (self.id, self.byteCount, self.isWritten) = (id, byteCount, isWritten)
    }
  }

  /// Whether the n-th descriptor is used in its lap.
  public func isUsed(_ n: Int) -> Bool {
    let flags = memory.load16(place(n) + 14)
    return flags & 0x8080 == (both(n) ? 0x8080 : 0)
  }
  /// Takes the next used buffer back, and skips the rest of its chain; nil if there is none.
  public func takeUsed() -> Used? {
    guard seen < offered, isUsed(seen) else { return nil }
    sl_fence_acquire()
    let used = Used(
      id: memory.load16(place(seen) + 12), byteCount: memory.load32(place(seen) + 8),
      isWritten: memory.load16(place(seen) + 14) & PlainDriver.write != 0)
    seen += lengths.removeValue(forKey: seen)!
    return used
  }

  /// When the driver wants to hear: a position and 0, 1 or 2.
  public func want(_ position: RingPosition = RingPosition(rawValue: 0), flags: UInt16) {
    memory.store16(position.rawValue, layout.driverArea.rawValue)
    memory.store16(flags, layout.driverArea.rawValue + 2)
  }
  public var deviceFlags: UInt16 { memory.load16(layout.deviceArea.rawValue + 2) }
  public var deviceEvent: RingPosition { RingPosition(rawValue: memory.load16(layout.deviceArea.rawValue)) }
}
