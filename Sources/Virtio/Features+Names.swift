extension Features {
  /// The names of the bits that are set, without VIRTIO_NET_F_ or VIRTIO_F_, lowest first; a bit without a name is `bit_N`.
  public var names: [String] {
    (0..<64).filter { rawValue >> UInt64($0) & 1 == 1 }.map { Self.bitNames[$0] ?? "bit_\($0)" }
  }
  /// The same in one line, as logs and errors have it: `MRG_RXBUF VERSION_1`, or `none`.
  public var text: String { isEmpty ? "none" : names.joined(separator: " ") }

  /// virtio 1.3, 5.1.3 "Feature bits" and 6 "Reserved Feature Bits"; 26 and 30 are vhost-user's.
  private static let bitNames: [Int: String] = [
    0: "CSUM", 1: "GUEST_CSUM", 2: "CTRL_GUEST_OFFLOADS", 3: "MTU", 5: "MAC", 7: "GUEST_TSO4", 8: "GUEST_TSO6",
    9: "GUEST_ECN", 10: "GUEST_UFO", 11: "HOST_TSO4", 12: "HOST_TSO6", 13: "HOST_ECN", 14: "HOST_UFO", 15: "MRG_RXBUF",
    16: "STATUS", 17: "CTRL_VQ", 18: "CTRL_RX", 19: "CTRL_VLAN", 21: "GUEST_ANNOUNCE", 22: "MQ", 23: "CTRL_MAC_ADDR",
    26: "LOG_ALL", 27: "ANY_LAYOUT", 28: "INDIRECT_DESC", 29: "EVENT_IDX", 30: "PROTOCOL_FEATURES", 32: "VERSION_1",
    33: "ACCESS_PLATFORM", 34: "RING_PACKED", 35: "IN_ORDER", 36: "ORDER_PLATFORM", 37: "SR_IOV", 38: "NOTIFICATION_DATA",
    39: "NOTIF_CONFIG_DATA", 40: "RING_RESET", 52: "HASH_TUNNEL", 53: "VQ_NOTF_COAL", 54: "GUEST_USO4", 55: "GUEST_USO6", 56: "HOST_USO",
    57: "HASH_REPORT", 59: "GUEST_HDRLEN", 60: "RSS", 61: "RSC_EXT", 62: "STANDBY", 63: "SPEED_DUPLEX",
  ]
}
