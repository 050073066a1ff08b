internal import GuestMemory
internal import Linux
internal import Virtio

// What is agreed on, and how it is taken back.
extension Backend {
  /// SET_FEATURES. While a ring runs only logging may change: migration begins and ends under traffic.
  func setFeatures(_ bits: UInt64) throws(MessageError) {
    let wanted = Features(rawValue: bits)
    let extra = wanted.subtracting(offer.allFeatures)
    guard extra.isEmpty else { throw .featuresNotOffered(extra.rawValue) }
    if anyRuns, let features {
      guard wanted.symmetricDifference(features).isSubset(of: .logAll) else { throw .changedWhileRunning(.setFeatures) }
    }
    let isNew = features != wanted
    features = wanted
    if isNew { report(.features(wanted, protocolFeatures)) }
    giveLog()
    // A front-end without them does not know SET_VRING_ENABLE.
    if !wanted.contains(.protocolFeatures) { for n in rings.indices { setEnabled(n, true) } }
    startRings()
  }

  /// SET_PROTOCOL_FEATURES. Comes before features, and again for every pair of queues.
  func setProtocolFeatures(_ bits: UInt64) throws(MessageError) {
    let wanted = ProtocolFeatures(rawValue: bits)
    let extra = wanted.subtracting(offeredProtocolFeatures)
    guard extra.isEmpty else { throw .protocolFeaturesNotOffered(extra) }
    guard wanted == protocolFeatures || !anyRuns else { throw .changedWhileRunning(.setProtocolFeatures) }
    protocolFeatures = wanted
  }

  /// RESET_DEVICE. Memory, the log, and call and error descriptors stay: front-ends do not say them again.
  func resetDevice() {
    for n in rings.indices {
      stop(n, forgettingKick: true)
      setEnabled(n, false)
      device.forgetPlace(ring: n)
      rings[n].reset()
    }
    features = nil
    giveLog()
    report(.reset)
  }
}
