public import GuestMemory

/// Where a virtqueue lies in guest memory, whatever its format. virtio 1.3, 2.6 "Virtqueues".
///
/// The areas by their formats' names: of a split virtqueue the descriptor table, the available ring and the used ring;
/// of a packed one the descriptor ring, the driver's and the device's event suppression.
public struct RingLayout: Hashable, Sendable {
  /// Entries: of a split virtqueue a power of two, of a packed one any number; 1 to 32768.
  public var size: Int
  public var descriptorArea: GuestAddress
  public var driverArea: GuestAddress
  public var deviceArea: GuestAddress

  public init(size: Int, descriptorArea: GuestAddress, driverArea: GuestAddress, deviceArea: GuestAddress) {
    self.size = size
    self.descriptorArea = descriptorArea
    self.driverArea = driverArea
    self.deviceArea = deviceArea
  }

  /// The most entries that a virtqueue of either format may have.
  public static let largestSize = 32768
}

/// Where a device goes on in a virtqueue: the next buffer to take and the next to give back.
/// vhost-user, "A vring state description".
public struct RingBase: Hashable, Sendable, CustomStringConvertible {
  /// Of a split virtqueue the free-running index; of a packed one the place in the ring, 15 bits.
  public var available: UInt16
  /// Of a packed virtqueue.
  public var availableWrap: Bool
  public var used: UInt16
  public var usedWrap: Bool

  /// A split virtqueue: both indices are one, for everything goes back in order.
  @inlinable public init(split index: UInt16) {
    (available, availableWrap, used, usedWrap) = (index, true, index, true)
  }
  @inlinable public init(available: UInt16, availableWrap: Bool, used: UInt16, usedWrap: Bool) {
    self.available = available
    self.availableWrap = availableWrap
    self.used = used
    self.usedWrap = usedWrap
  }
  /// A packed virtqueue with nothing out.
  @inlinable public init(packed position: RingPosition) {
    self.init(available: position.place, availableWrap: position.wrap, used: position.place, usedWrap: position.wrap)
  }
  /// A packed virtqueue that was never used. virtio 1.3, 2.8.1: both wrap counters begin at 1.
  public static let packedStart = RingBase(available: 0, availableWrap: true, used: 0, usedWrap: true)

  public var description: String {
    "available \(available) wrap \(availableWrap ? 1 : 0), used \(used) wrap \(usedWrap ? 1 : 0)"
  }
}
