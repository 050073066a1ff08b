/// What a reason in a report means, and what helps: one sentence each.
enum ReasonText {
  /// Nil for a reason that is not known here.
  static func bounced(_ name: String) -> String? { bounces[name] }
  static func dropped(_ name: String) -> String? { drops[name] }

  private static let bounces = [
    "too_small":
      "A frame of the largest size would not fit the guest's buffer behind its header: post larger buffers, or lower --mtu.",
    "scattered":
      "The guest's buffer is not one run of bus addresses behind its header: post buffers in one piece.",
    "crosses_regions": "The guest's buffer lies across the end of a memory region: keep buffers inside one.",
    "behind_smaller":
      "The buffer could be lent but waits with smaller ones before it, which together hold one frame: post buffers of one size.",
    "copy_mode": "--mode copy was asked for: leave it out to lend.",
    "not_mapped":
      "The IOMMU could not map the buffer's page: raise dma_entry_limit of vfio_iommu_type1, or LimitMEMLOCK= of the unit, or leave out --protect strict.",
  ]

  private static let drops = [
    // The path
    "too_long": "The frame is longer than the guest's buffer, and the guest does not merge: post larger buffers.",
    "insufficient_buffers": "The guest's buffers together were too small for the frame: post more of them, or larger ones.",
    "damaged": "The card says that the frame is damaged, or gave it in pieces: look at the trace.",
    "bad_length": "The card claims more bytes than the buffer has: the card or its driver is broken; please report it.",
    "ring_violation": "The guest had broken its ring before the frame came: see why its path stopped.",
    "stopped": "The frame was in the card or the path when that was stopped: see why its path stopped.",
    // The card
    "no_buffers": "The guest had posted no buffer when the frame came: it is too slow, or has stalled; try a larger --ring-size or a lower --speed.",
    "missed": "The card had no buffer and its port stood still: the guest is too slow; try a larger --ring-size.",
    "port_stalled": "The card's port stood still because another queue had no buffer: a slow guest holds up the others.",
    "no_route": "No VM wants the frame: neither its address nor its VLAN is one of theirs; give a --vm that it belongs to.",
    "filtered": "A steering rule drops the frame.",
    "runt": "The frame is shorter than an Ethernet header: look at the trace.",
    "over_mtu": "The frame is longer than --mtu allows: raise --mtu.",
    "crc": "The frame check sequence is wrong.",
    "ring_stopped": "The card's queue is not enabled: its path has stopped, or has not started.",
    "dma_fault": "The IOMMU refused the card the guest's memory: see the faults.",
    "queue_faulted": "The card's queue stands still since the IOMMU refused it: see the faults.",
    "device_gone": "The card was removed.",
    "device_resetting": "The card was being reset.",
    "master_disabled": "The card may not write to memory: bus mastering is off.",
    "link_down": "The card has no link.",
    "spoofed": "A VM sent under another address than its mac, or into another VLAN than its vlan: set the guest's address to mac, or give the VM spoof=allow.",
    "receive_disabled": "The card's receiver is off.",
  ]
}
