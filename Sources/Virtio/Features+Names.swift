extension Features {
  /// The bits' names without VIRTIO_NET_F_ or VIRTIO_F_, lowest first; a bit without a name by its number.
  public var names: [String] {
    (0..<64).filter { rawValue >> UInt64($0) & 1 == 1 }.map { Self.bitNames[$0] ?? "bit_\($0)" }
  }

  /// virtio 1.3, 5.1.3 and 6.
  private static let bitNames: [Int: String] = [
    0: "CSUM", 1: "GUEST_CSUM", 2: "CTRL_GUEST_OFFLOADS", 3: "MTU", 5: "MAC", 7: "GUEST_TSO4", 8: "GUEST_TSO6",
    9: "GUEST_ECN", 10: "GUEST_UFO", 11: "HOST_TSO4", 12: "HOST_TSO6", 13: "HOST_ECN", 14: "HOST_UFO", 15: "MRG_RXBUF",
    16: "STATUS", 17: "CTRL_VQ", 18: "CTRL_RX", 19: "CTRL_VLAN", 21: "GUEST_ANNOUNCE", 22: "MQ", 23: "CTRL_MAC_ADDR",
    26: "LOG_ALL", 27: "ANY_LAYOUT", 28: "INDIRECT_DESC", 29: "EVENT_IDX", 30: "PROTOCOL_FEATURES", 32: "VERSION_1",
    33: "ACCESS_PLATFORM", 34: "RING_PACKED", 35: "IN_ORDER", 36: "ORDER_PLATFORM", 37: "SR_IOV", 38: "NOTIFICATION_DATA",
    40: "RING_RESET", 57: "HASH_REPORT", 60: "RSS", 62: "STANDBY", 63: "SPEED_DUPLEX",
  ]
}
