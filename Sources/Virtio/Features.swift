/// Feature bits that driver and device agree on. virtio 1.3, 6 "Reserved Feature Bits" and 5.1.3 "Feature bits".
public struct Features: OptionSet, Hashable, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  private init(bit: Int) { rawValue = 1 << UInt64(bit) }

  /// VIRTIO_NET_F_GUEST_CSUM: the driver takes frames whose checksums the device vouches for.
  public static let guestChecksum = Features(bit: 1)
  /// VIRTIO_NET_F_MTU
  public static let mtu = Features(bit: 3)
  /// VIRTIO_NET_F_MAC
  public static let mac = Features(bit: 5)
  /// VIRTIO_NET_F_MRG_RXBUF: a frame may fill several buffers.
  public static let mergeableBuffers = Features(bit: 15)
  /// VIRTIO_NET_F_MQ
  public static let multiqueue = Features(bit: 22)
  /// VIRTIO_F_INDIRECT_DESC
  public static let indirectDescriptors = Features(bit: 28)
  /// VIRTIO_F_EVENT_IDX
  public static let eventIndex = Features(bit: 29)
  /// VIRTIO_F_VERSION_1
  public static let version1 = Features(bit: 32)
  /// VIRTIO_F_IN_ORDER
  public static let inOrder = Features(bit: 35)
}
