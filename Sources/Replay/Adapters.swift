internal import Simulation
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
