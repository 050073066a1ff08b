/// Why a frame of a guest's was copied before it was sent. A closed list: each has a counter.
public enum CopyReason: Int, CaseIterable, Sendable {
  /// It lies in more pieces than the card takes.
  case fragmented
  /// A piece of it lies across the end of a memory region.
  case crossesRegions
  /// It is shorter than the card takes: zeroes are added.
  case padded
  /// The path was told to copy everything.
  case copyMode
  /// The card could not reach a piece of it: its page could not be mapped.
  case notMapped
  /// The processor compares its source, for the card cannot, and it is short or could not be lent behind a copied head.
  case sourceCheck
  /// It came to an access port with the tag of the port's VLAN, which was taken off.
  case tagRemoved

  /// As reports and metrics name it.
  public var name: String {
    switch self {
    case .fragmented: "fragmented"
    case .crossesRegions: "crosses_regions"
    case .padded: "padded"
    case .copyMode: "copy_mode"
    case .notMapped: "not_mapped"
    case .sourceCheck: "source_check"
    case .tagRemoved: "tag_removed"
    }
  }
}

/// Why a frame of a guest's was not sent. A closed list: each has a counter.
public enum TransmitDrop: Int, CaseIterable, Sendable {
  /// Longer than the card takes.
  case tooLong
  /// Shorter than an Ethernet header.
  case runt
  /// Its header asks for something that was not agreed on: a checksum, or segmentation. virtio 1.3, 5.1.6.2.
  case offload
  /// The ring is disabled: frames are taken and not sent. vhost-user, "Ring states".
  case ringDisabled
  /// Its source address, or its VLAN, is not the VM's own: `SourceCheck`.
  case spoofed

  public var name: String {
    switch self {
    case .tooLong: "too_long"
    case .runt: "runt"
    case .offload: "offload"
    case .ringDisabled: "ring_disabled"
    case .spoofed: "spoofed"
    }
  }
}
