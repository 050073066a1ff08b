internal import Virtio

/// What front-end and back-end agree on beyond virtio. vhost-user, "Protocol features".
public struct ProtocolFeatures: OptionSet, Hashable, Sendable, CustomStringConvertible {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  private init(bit: Int) { rawValue = 1 << UInt64(bit) }

  public static let mq = ProtocolFeatures(bit: 0)
  public static let logShmfd = ProtocolFeatures(bit: 1)
  public static let rarp = ProtocolFeatures(bit: 2)
  public static let replyAck = ProtocolFeatures(bit: 3)
  public static let netMTU = ProtocolFeatures(bit: 4)
  public static let backendReq = ProtocolFeatures(bit: 5)
  public static let config = ProtocolFeatures(bit: 9)
  public static let inflightShmfd = ProtocolFeatures(bit: 12)
  public static let resetDevice = ProtocolFeatures(bit: 13)
  public static let configureMemSlots = ProtocolFeatures(bit: 15)

  /// All that `Backend` does in full. Nothing else can be offered, for front-ends acknowledge what they do not know.
  public static let built: ProtocolFeatures = [
    .mq, .logShmfd, .rarp, .replyAck, .netMTU, .backendReq, .config, .inflightShmfd, .resetDevice, .configureMemSlots,
  ]

  private static let bitNames: [Int: String] = [
    0: "MQ", 1: "LOG_SHMFD", 2: "RARP", 3: "REPLY_ACK", 4: "NET_MTU", 5: "BACKEND_REQ", 6: "CROSS_ENDIAN",
    7: "CRYPTO_SESSION", 8: "PAGEFAULT", 9: "CONFIG", 10: "BACKEND_SEND_FD", 11: "HOST_NOTIFIER", 12: "INFLIGHT_SHMFD",
    13: "RESET_DEVICE", 14: "INBAND_NOTIFICATIONS", 15: "CONFIGURE_MEM_SLOTS", 16: "STATUS", 17: "XEN_MMAP",
    18: "SHARED_OBJECT", 19: "DEVICE_STATE",
  ]
  /// The specification's names, or numbers where it has none.
  public var description: String { isEmpty ? "none" : names.joined(separator: " ") }
  public var names: [String] {
    (0..<64).filter { rawValue >> UInt64($0) & 1 == 1 }.map { Self.bitNames[$0] ?? "bit_\($0)" }
  }
}

extension Features {
  /// The bits that are the protocol's own; a device never sees them.
  static let ofTheProtocol: Features = [.logAll, .protocolFeatures]
}
