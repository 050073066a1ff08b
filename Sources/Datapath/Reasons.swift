public import Bus
public import Virtio

/// Why a buffer is not lent, so that its frame is copied once. A closed list: each has a counter.
public enum BounceReason: Int, CaseIterable, Sendable {
  /// A frame of the largest size would not fit behind the header.
  case tooSmall
  /// It would fit, but not in one run of bus addresses.
  case scattered
  /// The buffer lies across the end of a memory region.
  case crossesRegions
  /// It could be lent, but waits with smaller ones before it: together they hold one frame.
  case behindSmaller
  /// The path was told to copy everything.
  case copyMode
  /// The card could not reach it: its page could not be mapped.
  case notMapped

  /// As reports and metrics name it.
  public var name: String {
    switch self {
    case .tooSmall: "too_small"
    case .scattered: "scattered"
    case .crossesRegions: "crosses_regions"
    case .behindSmaller: "behind_smaller"
    case .copyMode: "copy_mode"
    case .notMapped: "not_mapped"
    }
  }
}

/// Why a frame that the card put into a buffer did not reach the guest. A closed list: each has a counter.
public enum PathDrop: Int, CaseIterable, Sendable {
  /// Longer than the guest's buffers allow without merging.
  case tooLong
  /// The guest's merged buffers were too few for it.
  case insufficientBuffers
  /// The card says that it is damaged, or gave it in pieces.
  case damaged
  /// The card claims more bytes than it can have written.
  case badLength
  /// It came while the guest's ring was already known to be broken.
  case ringViolation
  /// It was in the card or the path when that was stopped.
  case stopped

  public var name: String {
    switch self {
    case .tooLong: "too_long"
    case .insufficientBuffers: "insufficient_buffers"
    case .damaged: "damaged"
    case .badLength: "bad_length"
    case .ringViolation: "ring_violation"
    case .stopped: "stopped"
    }
  }
}

/// Why a path stopped for good.
public enum StopReason: Error, Hashable, Sendable, CustomStringConvertible {
  /// The guest broke its ring.
  case virtqueue(VirtqueueFault)
  /// `required` was asked for, and a buffer could not be lent.
  case cannotLend(BounceReason)
  /// The IOMMU refused an access of the card to the guest's memory.
  case busFault(at: IOVA)
  /// Memory could not be unmapped from the IOMMU: the card may still reach buffers that came back.
  case unmapFailed(at: IOVA)
  /// It was asked to.
  case requested

  public var description: String {
    switch self {
    case .virtqueue(let fault): "the guest broke its ring: \(fault)"
    case .cannotLend(let reason): "zero copy is required, but a buffer cannot be lent: \(reason.name)"
    case .busFault(let address): "the IOMMU refused the card access to its memory at \(address)"
    case .unmapFailed(let address): "a page at \(address) could not be unmapped from the IOMMU"
    case .requested: "stopped on request"
    }
  }
}
