/// Feature bits that driver and device agree on. virtio 1.3, 6 "Reserved Feature Bits" and 5.1.3 "Feature bits";
/// those that only a front-end and a back-end agree on: vhost-user, "Feature negotiation".
public struct Features: OptionSet, Hashable, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  private init(bit: Int) { rawValue = 1 << UInt64(bit) }

  // MARK: The network device

  /// VIRTIO_NET_F_CSUM: the device completes the checksums of frames that the driver sends.
  public static let checksum = Features(bit: 0)
  /// VIRTIO_NET_F_GUEST_CSUM: the driver takes frames whose checksums the device vouches for.
  public static let guestChecksum = Features(bit: 1)
  /// VIRTIO_NET_F_MTU
  public static let mtu = Features(bit: 3)
  /// VIRTIO_NET_F_MAC
  public static let mac = Features(bit: 5)
  /// VIRTIO_NET_F_MRG_RXBUF: a frame may fill several buffers.
  public static let mergeableBuffers = Features(bit: 15)
  /// VIRTIO_NET_F_STATUS: the configuration says whether there is a link.
  public static let status = Features(bit: 16)
  /// VIRTIO_NET_F_CTRL_VQ
  public static let ctrlVQ = Features(bit: 17)
  /// VIRTIO_NET_F_GUEST_ANNOUNCE: the driver can be asked to make its address known.
  public static let guestAnnounce = Features(bit: 21)
  /// VIRTIO_NET_F_MQ
  public static let multiqueue = Features(bit: 22)

  // MARK: Front-end and back-end

  /// VHOST_F_LOG_ALL: the back-end keeps a log of the pages that it writes.
  public static let logAll = Features(bit: 26)
  /// VHOST_USER_F_PROTOCOL_FEATURES
  public static let protocolFeatures = Features(bit: 30)

  // MARK: Every device

  /// VIRTIO_F_ANY_LAYOUT, of legacy devices: nothing is assumed of how a driver splits its buffers.
  public static let anyLayout = Features(bit: 27)
  /// VIRTIO_F_INDIRECT_DESC
  public static let indirectDescriptors = Features(bit: 28)
  /// VIRTIO_F_EVENT_IDX
  public static let eventIndex = Features(bit: 29)
  /// VIRTIO_F_VERSION_1
  public static let version1 = Features(bit: 32)
  /// VIRTIO_F_ACCESS_PLATFORM: the device sees the guest's memory through an IOMMU of the guest's.
  public static let accessPlatform = Features(bit: 33)
  /// VIRTIO_F_RING_PACKED
  public static let ringPacked = Features(bit: 34)
  /// VIRTIO_F_IN_ORDER
  public static let inOrder = Features(bit: 35)
  /// VIRTIO_F_NOTIFICATION_DATA: a kick says how far the driver is.
  public static let notificationData = Features(bit: 38)
  /// VIRTIO_F_RING_RESET: a driver can reset one queue by itself.
  public static let ringReset = Features(bit: 40)
}
