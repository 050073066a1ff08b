public import Simulation
internal import Virtio

extension BufferShape {
  /// The features with which a driver posts buffers of this shape.
  var usualFeatures: Features {
    var features: Features = [.version1, .eventIndex, .guestChecksum]
    switch self {
    case .linux, .page, .small, .tiny: features.insert(.mergeableBuffers)
    case .indirect: features.insert(.indirectDescriptors)
    case .headerApart, .big, .awkward, .exact: break
    }
    return features
  }
}

extension CardDrop {
  /// As reports name it.
  public var name: String {
    switch self {
    case .removed: "device_gone"
    case .resetting: "device_resetting"
    case .masterDisabled: "master_disabled"
    case .linkDown: "link_down"
    case .receiveDisabled: "receive_disabled"
    case .undersize: "runt"
    case .oversize: "over_mtu"
    case .crcError: "crc"
    case .noPool: "no_route"
    case .filtered: "filtered"
    case .queueDisabled: "ring_stopped"
    case .noDescriptors: "no_buffers"
    case .missed: "missed"
    case .portStalled: "port_stalled"
    case .dmaFault: "dma_fault"
    case .queueFaulted: "queue_faulted"
    }
  }
}

extension ViolationReport {
  /// What the guest found wrong, a line each; the first few at length.
  var lines: [String] { isEmpty ? [] : "\(self)".split(separator: "\n").map(String.init) }
}
