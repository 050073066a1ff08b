import Testing
import VhostUser
import Virtio

@testable import Control

/// Every bit that is offered, and by what its use by the driver or the front-end reaches the back-end. A bit without an
/// entry here must not be offered: what nothing carries, the back-end does not notice.
@Suite struct OfferTests {
  /// How the other side's use of a bit reaches us.
  enum Carrier: Hashable {
    /// A message of the front-end's, by the specification's name.
    case message(String)
    /// Ring memory: descriptors, headers, event words.
    case ring(String)
    /// A rule that both sides keep and that needs no word between them.
    case rule(String)
  }

  static let features: [String: (bit: Int, carriers: [Carrier])] = [
    "GUEST_CSUM": (1, [.rule("only the device uses it: DATA_VALID in the header of a frame that the NIC has checked")]),
    "MTU": (3, [.message("NET_SET_MTU"), .message("GET_CONFIG"), .rule("frames for the guest fit the NIC's own MTU")]),
    "MAC": (5, [.message("GET_CONFIG")]),
    "MRG_RXBUF": (15, [.message("SET_FEATURES"), .ring("num_buffers in the header")]),
    "STATUS": (16, [.message("GET_CONFIG")]),
    "CTRL_VQ": (17, [.rule("the front-end serves the queue; the number of queue pairs is SET_VRING_ENABLE")]),
    "GUEST_ANNOUNCE": (21, [.rule("the front-end asks the driver, whose announcements are frames that it sends")]),
    "MQ": (22, [.message("GET_QUEUE_NUM"), .message("SET_VRING_ENABLE")]),
    "LOG_ALL": (26, [.message("SET_FEATURES"), .message("SET_LOG_BASE")]),
    "INDIRECT_DESC": (28, [.ring("VIRTQ_DESC_F_INDIRECT")]),
    "EVENT_IDX": (29, [.ring("used_event, avail_event, event suppression structures")]),
    "PROTOCOL_FEATURES": (30, [.message("GET_PROTOCOL_FEATURES"), .message("SET_VRING_ENABLE")]),
    "VERSION_1": (32, [.message("SET_FEATURES"), .ring("little-endian, a header of 12 bytes")]),
    "RING_PACKED": (34, [.message("SET_FEATURES"), .message("SET_VRING_BASE")]),
    "IN_ORDER": (35, [.rule("buffers are used in the order in which they were made available, with the bit or without")]),
  ]

  private static func vm(pairs: Int = 1, config: Bool = false) -> Configuration.VM {
    var vm = Configuration.VM(name: "vm", endpoint: .client(path: "/run/vm.sock"))
    (vm.queuePairs, vm.offersConfig) = (pairs, config)
    return vm
  }
  private static let all: Features = Offer(for: vm(pairs: 4, config: true), packed: true, mtu: 1500).features

  @Test func `every feature that is offered has a carrier`() {
    let offered = Self.all.union([.logAll, .protocolFeatures])
    let listed = Self.features.values.reduce(into: Features()) { $0.formUnion(Features(rawValue: 1 << UInt64($1.bit))) }
    let (bare, gone) = (offered.subtracting(listed), listed.subtracting(offered))
    #expect(bare.isEmpty, "offered, and nothing is known to carry it: \(bare.names)")
    #expect(gone.isEmpty, "not offered any more: \(gone.names)")
    #expect(Self.features.allSatisfy { !$0.value.carriers.isEmpty })
    for (name, entry) in Self.features { #expect(Features(rawValue: 1 << UInt64(entry.bit)).names == [name]) }
  }

  /// virtio 1.3, 2.6.1 "Virtqueue Reset". QEMU passes it on to vhost of a TAP device only; no vhost-user message carries it.
  @Test func `the reset of a single queue is not offered`() {
    #expect(!Self.all.contains(.ringReset))
  }
}
