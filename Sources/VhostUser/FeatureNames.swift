public import Virtio

/// Names of virtio's bits, for the log. virtio 1.3, 5.1.3 "Feature bits" and 6 "Reserved Feature Bits".
enum FeatureNames {
  private static let names: [Int: String] = [
    0: "CSUM", 1: "GUEST_CSUM", 2: "CTRL_GUEST_OFFLOADS", 3: "MTU", 5: "MAC", 7: "GUEST_TSO4", 8: "GUEST_TSO6",
    9: "GUEST_ECN", 10: "GUEST_UFO", 11: "HOST_TSO4", 12: "HOST_TSO6", 13: "HOST_ECN", 14: "HOST_UFO", 15: "MRG_RXBUF",
    16: "STATUS", 17: "CTRL_VQ", 18: "CTRL_RX", 19: "CTRL_VLAN", 21: "GUEST_ANNOUNCE", 22: "MQ", 23: "CTRL_MAC_ADDR",
    26: "LOG_ALL", 28: "INDIRECT_DESC", 29: "EVENT_IDX", 30: "PROTOCOL_FEATURES", 32: "VERSION_1",
    33: "ACCESS_PLATFORM", 34: "RING_PACKED", 35: "IN_ORDER", 36: "ORDER_PLATFORM", 37: "SR_IOV",
    38: "NOTIFICATION_DATA", 39: "NOTIF_CONFIG_DATA", 40: "RING_RESET", 52: "HASH_TUNNEL", 53: "VQ_NOTF_COAL",
    54: "GUEST_USO4", 55: "GUEST_USO6", 56: "HOST_USO", 57: "HASH_REPORT", 59: "GUEST_HDRLEN", 60: "RSS", 61: "RSC_EXT",
    62: "STANDBY", 63: "SPEED_DUPLEX",
  ]

  static func text(_ bits: UInt64) -> String {
    let set = (0..<64).filter { bits >> UInt64($0) & 1 == 1 }
    return set.isEmpty ? "none" : set.map { names[$0] ?? "bit \($0)" }.joined(separator: " ")
  }
}

extension Features {
  /// The specification's names, in the order of bits: MRG_RXBUF VERSION_1.
  public var names: String { FeatureNames.text(rawValue) }
}
