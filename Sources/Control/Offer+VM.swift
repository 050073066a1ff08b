internal import FlowSteering
internal import VhostUser
internal import Virtio

extension Offer {
  /// What the back-end offers on a VM's socket.
  ///
  /// A bit is offered only if what the driver or the front-end does with it reaches the back-end by a message, by ring
  /// memory, or by a rule that both keep. `Readings.md`, "What is offered", has the carrier of each.
  ///
  /// Not offered, for nothing carries their use to a back-end: VIRTIO_F_RING_RESET (no message resets a single queue, and
  /// front-ends that offer it do not stop the ring: the back-end would write into buffers that the driver has freed),
  /// VIRTIO_F_NOTIFICATION_DATA, and commands of the control queue other than the number of queue pairs.
  /// Segmentation and coalescing are not offered: a frame would be larger than a buffer.
  ///
  /// - Parameters:
  ///   - packed: True if packed rings survive the back-end's own death.
  ///   - mtu: The NIC's, in bytes.
  init(for vm: Configuration.VM, packed: Bool, mtu: Int) {
    var features: Features = [
      .version1, .mergeableBuffers, .eventIndex, .indirectDescriptors, .inOrder, .mtu, .guestChecksum,
    ]
    if vm.queuePairs > 1 { features.insert(.multiqueue) }
    if packed { features.insert(.ringPacked) }
    var config: NetConfig?
    if vm.offersConfig {
      features.formUnion([.mac, .status])
      config = NetConfig(address: vm.address ?? MACAddress.local(1), maxQueuePairs: vm.queuePairs, mtu: mtu)
    }
    // A front-end that has its configuration from the back-end may leave it the control queue as well, which is not served. With
    // several queue pairs there must be one: virtio 1.3, 5.1.3.1.
    if !vm.offersConfig || vm.queuePairs > 1 { features.formUnion([.ctrlVQ, .guestAnnounce]) }
    self.init(features: features, queuePairs: vm.queuePairs, config: config)
  }
}
