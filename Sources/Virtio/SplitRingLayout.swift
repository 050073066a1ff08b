public import GuestMemory

/// Where a split virtqueue lies in guest memory. virtio 1.3, 2.7 "Split Virtqueues".
public struct SplitRingLayout: Hashable, Sendable {
  /// The most entries a split virtqueue may have.
  public static let largestSize = RingLayout.largestSize

  /// Entries, a power of two.
  public var size: Int
  /// 16 bytes an entry, aligned to 16.
  public var descriptorTable: GuestAddress
  /// 6 bytes and 2 an entry, aligned to 2.
  public var availableRing: GuestAddress
  /// 6 bytes and 8 an entry, aligned to 4.
  public var usedRing: GuestAddress

  public init(size: Int, descriptorTable: GuestAddress, availableRing: GuestAddress, usedRing: GuestAddress) {
    self.size = size
    self.descriptorTable = descriptorTable
    self.availableRing = availableRing
    self.usedRing = usedRing
  }

  /// The same by the names of all virtqueues.
  public init(_ layout: RingLayout) {
    self.init(
      size: layout.size, descriptorTable: layout.descriptorArea, availableRing: layout.driverArea,
      usedRing: layout.deviceArea)
  }
  public var generic: RingLayout {
    RingLayout(size: size, descriptorArea: descriptorTable, driverArea: availableRing, deviceArea: usedRing)
  }

  /// Bytes of each part; the two rings end with their event index.
  public static func descriptorTableBytes(_ size: Int) -> Int { 16 * size }
  public static func availableRingBytes(_ size: Int) -> Int { 6 + 2 * size }
  public static func usedRingBytes(_ size: Int) -> Int { 6 + 8 * size }
}
