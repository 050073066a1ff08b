import Foundation
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

  static let protocolFeatures: [String: [Carrier]] = [
    "MQ": [.message("GET_QUEUE_NUM")],
    "LOG_SHMFD": [.message("SET_LOG_BASE"), .message("SET_LOG_FD")],
    "RARP": [.message("SEND_RARP")],
    "REPLY_ACK": [.rule("need_reply in a message's flags")],
    "NET_MTU": [.message("NET_SET_MTU")],
    "BACKEND_REQ": [.message("SET_BACKEND_REQ_FD")],
    "CONFIG": [.message("GET_CONFIG"), .message("SET_CONFIG")],
    "INFLIGHT_SHMFD": [.message("GET_INFLIGHT_FD"), .message("SET_INFLIGHT_FD")],
    "RESET_DEVICE": [.message("RESET_DEVICE")],
    "CONFIGURE_MEM_SLOTS": [.message("GET_MAX_MEM_SLOTS"), .message("ADD_MEM_REG"), .message("REM_MEM_REG")],
  ]

  private static func offer(pairs: Int = 1, config: Bool = false, packed: Bool = true) -> Offer {
    var vm = Configuration.VM(name: "vm", endpoint: .client(path: "/run/vm.sock"))
    (vm.queuePairs, vm.offersConfig) = (pairs, config)
    return Offer(for: vm, packed: packed, mtu: 1500)
  }
  /// All that is offered in any configuration.
  private static let all: Features = [1, 2, 4].reduce(into: []) { all, pairs in
    for config in [false, true] { all.formUnion(offer(pairs: pairs, config: config).features) }
  }

  @Test func `every feature that is offered has a carrier`() {
    let offered = Self.all.union([.logAll, .protocolFeatures])
    let listed = Self.features.values.reduce(into: Features()) { $0.formUnion(Features(rawValue: 1 << UInt64($1.bit))) }
    let (bare, gone) = (offered.subtracting(listed), listed.subtracting(offered))
    #expect(bare.isEmpty, "offered, and nothing is known to carry it: \(bare.names)")
    #expect(gone.isEmpty, "not offered any more: \(gone.names)")
    #expect(Self.features.allSatisfy { !$0.value.carriers.isEmpty })
    for (name, entry) in Self.features { #expect(Features(rawValue: 1 << UInt64(entry.bit)).names == [name]) }
  }

  @Test func `every protocol feature that is offered has a carrier`() {
    #expect(Set(ProtocolFeatures.built.names) == Set(Self.protocolFeatures.keys))
    #expect(Self.offer(config: true).protocolFeatures == .built)
    #expect(Self.offer().protocolFeatures == ProtocolFeatures.built.subtracting(.config))
    #expect(Self.protocolFeatures.allSatisfy { !$0.value.isEmpty })
  }

  @Test func `every message that carries a bit is one that is known`() {
    let known = Set(Request.allCases.map(\.description))
    for carrier in Self.features.values.flatMap(\.carriers) + Self.protocolFeatures.values.flatMap(\.self) {
      if case .message(let name) = carrier { #expect(known.contains(name), "\(name)") }
    }
  }

  /// The tables of `Readings.md`, "What is offered", by their first column.
  @Test func `what is offered is what is documented`() throws {
    let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/../../Sources/VhostUser/Readings.md"
    let text = try String(contentsOfFile: path, encoding: .utf8)
    let part = try #require(text.components(separatedBy: "## What is offered\n").last)
    let rows = part.split(separator: "\n").filter { $0.hasPrefix("| ") }.compactMap { $0.split(separator: " ").dropFirst().first.map(String.init) }
    let tables = rows.split(whereSeparator: { $0 == "feature" || $0 == "protocol" }).map(Set.init)
    #expect(tables == [Set(Self.features.keys), Set(Self.protocolFeatures.keys)])
  }

  /// virtio 1.3, 2.6.1 "Virtqueue Reset". QEMU passes it on to vhost of a TAP device only; no vhost-user message carries it.
  @Test func `the reset of a single queue is not offered`() {
    #expect(!Self.all.contains(.ringReset))
  }

  /// Without GET_CONFIG a guest whose front-end passes the bit on reads that its link is down.
  @Test(arguments: [1, 2, 4]) func `the link's state is offered only where it can be read`(pairs: Int) {
    #expect(!Self.offer(pairs: pairs).features.contains(.status))
    #expect(Self.offer(pairs: pairs, config: true).features.isSuperset(of: [.status, .mac]))
  }

  /// virtio 1.3, 5.1.3.1: GUEST_ANNOUNCE and MQ need CTRL_VQ; a Linux driver does not start with one of them alone.
  @Test(arguments: [1, 2, 4], [false, true])
  func `what needs a control queue is offered with one only`(pairs: Int, config: Bool) {
    let features = Self.offer(pairs: pairs, config: config).features
    #expect(features.contains(.multiqueue) == (pairs > 1))
    #expect(features.contains(.ctrlVQ) || features.isDisjoint(with: [.multiqueue, .guestAnnounce]))
    #expect(features.contains(.ctrlVQ) == (pairs > 1 || !config))
    #expect(!Self.offer(pairs: pairs, config: config, packed: false).features.contains(.ringPacked))
  }

  @Test func `a front-end with too many queue pairs is told which option allows them`() {
    func fix(_ pairs: Int, ring: UInt32) -> String {
      var vm = Configuration.VM(name: "vm", endpoint: .client(path: "/run/vm.sock"))
      vm.queuePairs = pairs
      return MessageError.noSuchRing(.setVringCall, ring, count: 2 * pairs).fix(for: vm)
    }
    #expect(fix(1, ring: 2) == "; queues=2 or queues=4 on the VM allows it")
    #expect(fix(1, ring: 4) == "; queues=4 on the VM allows it")
    #expect(fix(2, ring: 4) == "; queues=4 on the VM allows it")
    #expect(fix(4, ring: 8) == "; a VM has at most 4")
    #expect(fix(1, ring: .max) == "; a VM has at most 4")
    #expect(MessageError.configIsReadOnly.fix(for: Configuration.VM(name: "vm", endpoint: .descriptor(3))) == "")
  }
}
