import FlowDialects
import FlowSteering
import FlowTables
import Testing

/// One rule in four dialects.
@Suite struct SameRuleTests {
  struct Four: Sendable, CustomStringConvertible {
    let native, ethtool, items, actions, tc: String
    /// - Parameters:
    ///   - testpmd: the items and the actions, without what every command has.
    ///   - tc: the protocol, the keys and the actions.
    init(_ native: String, ethtool: String, testpmd: (String, String), tc: (String, String, String)) {
      self.native = "rule add match " + native
      self.ethtool = "ethtool -N eth0 flow-type " + ethtool
      (items, actions) = testpmd
      self.tc = "tc filter add dev eth0 ingress protocol \(tc.0) pref 100 flower \(tc.1) action \(tc.2)"
    }
    var testpmd: String { "flow create 0 priority 100 ingress pattern \(items) / end actions \(actions) / end" }
    var description: String { native }
  }

  static let rules: [Four] = [
    Four("any then drop", ethtool: "ether action -1", testpmd: ("eth", "drop"), tc: ("all", "skip_sw", "drop")),
    Four("any then queue 3", ethtool: "ether action 3", testpmd: ("any", "queue index 3"), tc: ("all", "", "skbedit queue_mapping 3")),
    Four("eth.type=ip then queue 3", ethtool: "ip4 action 3", testpmd: ("eth / ipv4", "queue index 3"), tc: ("ip", "", "skbedit queue_mapping 3")),
    Four("eth.type=ip6 then drop", ethtool: "ether proto 0x86dd action -1", testpmd: ("eth / ipv6", "drop"), tc: ("ipv6", "", "drop")),
    Four("eth.type=arp then vm web", ethtool: "ether proto 0x0806 vf 0", testpmd: ("eth type is 0x806", "vf id 0"), tc: ("arp", "", "mirred egress redirect dev web")),
    Four("eth.dst=52:54:00:12:34:56 then vm db", ethtool: "ether dst 52:54:00:12:34:56 vf 1", testpmd: ("eth dst is 52:54:00:12:34:56", "vf id 1"), tc: ("all", "dst_mac 52:54:00:12:34:56", "mirred egress redirect dev db")),
    Four("eth.src=52:54:00:00:00:00/24 then drop", ethtool: "ether src 52:54:00:00:00:00 m 00:00:00:ff:ff:ff action -1", testpmd: ("eth src spec 52:54:00:00:00:00 src mask ff:ff:ff:00:00:00", "drop"), tc: ("all", "src_mac 52:54:00:00:00:00/24", "drop")),
    Four("eth.dst=broadcast eth.type=arp then vm vm2:1", ethtool: "ether dst ff:ff:ff:ff:ff:ff proto 2054 vf 2 queue 1", testpmd: ("eth type is 2054 dst is ff:ff:ff:ff:ff:ff", "vf id 2 / queue index 1"), tc: ("arp", "dst_mac ff:ff:ff:ff:ff:ff", "skbedit queue_mapping 1 action mirred egress redirect dev vm2")),
    Four("eth.dst=multicast then drop", ethtool: "ether dst 01:00:00:00:00:00 m fe:ff:ff:ff:ff:ff action -1", testpmd: ("eth dst spec 01:00:00:00:00:00 dst mask 01:00:00:00:00:00", "drop"), tc: ("all", "dst_mac 01:00:00:00:00:00/01:00:00:00:00:00", "drop")),
    Four("vlan.id=100 then vm web", ethtool: "ether vlan 100 m 0xf000 vf 0", testpmd: ("eth / vlan vid is 100", "vf id 0"), tc: ("802.1Q", "vlan_id 100", "mirred egress redirect dev web")),
    Four("vlan.id=100 vlan.pcp=5 then drop", ethtool: "ether vlan 0xa064 m 0x1000 action -1", testpmd: ("eth / vlan tci spec 0xa064 tci mask 0xefff", "drop"), tc: ("802.1q", "vlan_id 100 vlan_prio 5", "drop")),
    Four("vlan.pcp=7 then queue 1", ethtool: "ether vlan 0xe000 m 0x1fff action 1", testpmd: ("eth / vlan pcp is 7", "queue index 1"), tc: ("802.1q", "vlan_prio 7", "skbedit queue_mapping 1")),
    Four("vlan.id=0/0 then drop", ethtool: "ether vlan 0 m 0xffff action -1", testpmd: ("eth / vlan", "drop"), tc: ("802.1q", "", "drop")),
    Four("eth.type=ip vlan.id=5 then drop", ethtool: "ip4 vlan 5 m 0xf000 action -1", testpmd: ("eth / vlan vid is 5 / ipv4", "drop"), tc: ("802.1q", "vlan_id 5 vlan_ethtype ip", "drop")),
    Four("eth.type=arp vlan.id=5 then drop", ethtool: "ether proto 0x806 vlan 5 m 0xf000 action -1", testpmd: ("eth / vlan vid is 5 inner_type is 0x806", "drop"), tc: ("802.1q", "vlan_id 5 vlan_ethtype arp", "drop")),
    Four("ip.src=10.0.0.1 then drop", ethtool: "ip4 src-ip 10.0.0.1 action -1", testpmd: ("eth / ipv4 src is 10.0.0.1", "drop"), tc: ("ip", "src_ip 10.0.0.1", "drop")),
    Four("ip.dst=10.1.0.0/16 then vm db", ethtool: "ip4 dst-ip 10.1.0.0 m 0.0.255.255 vf 1", testpmd: ("eth / ipv4 dst is 10.1.0.0 dst prefix 16", "vf id 1"), tc: ("ip", "dst_ip 10.1.0.0/16", "mirred egress redirect dev db")),
    Four("ip.src=0.0.0.0/0 then drop", ethtool: "ip4 src-ip 0.0.0.0 m 255.255.255.255 action -1", testpmd: ("eth / ipv4 src spec 0.0.0.0 src mask 0.0.0.0", "drop"), tc: ("ip", "src_ip 0.0.0.0/0", "drop")),
    Four("ip.dst=2001:db8::/32 then drop", ethtool: "ip6 dst-ip 2001:db8:: m ::ffff:ffff:ffff:ffff:ffff:ffff action -1".replacing("::ffff:ffff", with: "0:0:ffff:ffff"), testpmd: ("eth / ipv6 dst spec 2001:db8:: dst prefix 32", "drop"), tc: ("ipv6", "dst_ip 2001:db8::/32", "drop")),
    Four("eth.type=ip ip.proto=tcp then queue 2", ethtool: "tcp4 action 2", testpmd: ("eth / ipv4 / tcp", "queue index 2"), tc: ("ip", "ip_proto tcp", "skbedit queue_mapping 2")),
    Four("eth.type=ip ip.proto=tcp then queue 2", ethtool: "ip4 l4proto 6 action 2", testpmd: ("eth / ipv4 proto is 6", "queue index 2"), tc: ("ip", "ip_proto 6", "skbedit queue_mapping 2")),
    Four("eth.type=ip6 tcp.dst=443 then vm web:3", ethtool: "tcp6 dst-port 443 vf 0 queue 3", testpmd: ("eth / ipv6 / tcp dst is 443", "vf id 0 / queue index 3"), tc: ("ipv6", "ip_proto tcp dst_port 443", "skbedit queue_mapping 3 action mirred egress redirect dev web")),
    Four("eth.type=ip udp.src=4096/0xf000 then drop", ethtool: "udp4 src-port 0x1000 m 0xfff action -1", testpmd: ("eth / ipv4 / udp src spec 4096 src mask 0xf000", "drop"), tc: ("ip", "ip_proto udp src_port 4096/0xf000", "drop")),
    Four("ip.src=10.0.0.1 ip.dst=10.0.0.2 tcp.src=1000 tcp.dst=2000 then queue 7", ethtool: "tcp4 src-ip 10.0.0.1 dst-ip 10.0.0.2 src-port 1000 dst-port 2000 action 7", testpmd: ("eth / ipv4 src is 10.0.0.1 dst is 10.0.0.2 / tcp src is 1000 dst is 2000", "queue index 7"), tc: ("ip", "src_ip 10.0.0.1 dst_ip 10.0.0.2 ip_proto tcp src_port 1000 dst_port 2000", "skbedit queue_mapping 7")),
    Four("eth.type=ip sctp.dst=9999 then drop", ethtool: "sctp4 dst-port 9999 action -1", testpmd: ("eth / ipv4 / sctp dst is 9999", "drop"), tc: ("ip", "ip_proto sctp dst_port 9999", "drop")),
    Four("eth.type=ip ip.proto=esp then drop", ethtool: "esp4 action -1", testpmd: ("eth / ipv4 proto is 50", "drop"), tc: ("ip", "ip_proto 32", "drop")),
    Four("eth.type=ip6 ip.proto=icmp6 then drop", ethtool: "ip6 l4proto 58 action -1", testpmd: ("eth / ipv6 / icmp6", "drop"), tc: ("ipv6", "ip_proto icmpv6", "drop")),
    Four("ip.dst=10.0.0.1 ip.tos=184/0xfc then queue 0", ethtool: "ip4 dst-ip 10.0.0.1 tos 0xb8 m 3 action 0", testpmd: ("eth / ipv4 dst is 10.0.0.1 tos spec 0xb8 tos mask 0xfc", "queue index 0"), tc: ("ip", "dst_ip 10.0.0.1 ip_tos b8/fc", "skbedit queue_mapping 0")),
    Four("eth.dst=52:54:00:12:34:56 vlan.id=9 ip.dst=fe80::1 udp.dst=53 then vm db:0", ethtool: "udp6 dst-mac 52:54:00:12:34:56 vlan 9 m 0xf000 dst-ip fe80::1 dst-port 53 vf 1 queue 0", testpmd: ("eth dst is 52:54:00:12:34:56 / vlan vid is 9 / ipv6 dst is fe80::1 / udp dst is 53", "vf id 1 / queue index 0"), tc: ("802.1q", "vlan_id 9 vlan_ethtype ipv6 dst_mac 52:54:00:12:34:56 dst_ip fe80::1 ip_proto udp dst_port 53", "skbedit queue_mapping 0 action mirred egress redirect dev db")),
  ]

  @Test(arguments: rules) func `one rule is one value in four dialects, and each can write it`(_ four: Four) throws {
    let wanted = try rule(four.native)
    #expect(try rule(four.ethtool) == wanted)
    #expect(try rule(four.testpmd) == wanted)
    #expect(try rule(four.tc) == wanted)
    for dialect in Dialect.allCases {
      let text = try #require(wanted).text(in: dialect, context: context)
      #expect(try rule(text) == wanted, "\(text)")
    }
  }

  private enum Outcome: Equatable {
    case tables(CardTables?)
    case refused(RuleError.Code)
  }

  /// What a card's tables become with one rule, for VMs that have addresses, or VLANs, or neither.
  private func outcomes(_ text: String, on profile: CardProfile) throws -> [Outcome] {
    let rule = try #require(try rule(text))
    return [false, true].map { haveAddresses in
      let receivers = ["web", "db", "vm2"].enumerated().map { Receiver(name: $1, queueCount: profile == .intel82576 ? 2 : 4, address: haveAddresses ? .local($0 + 1) : nil) }
      do throws(RuleError) { return .tables(try CardProgram(Steering([rule], for: receivers), for: profile).tables) } catch { return .refused(error.code) }
    }
  }

  @Test func `each becomes the same entries of a card, or is refused for the same reason`() throws {
    for (profile, least) in [(CardProfile.intel82599, 14), (.intel82576, 3), (.ideal, 25)] {
      var compiled = 0
      for four in Self.rules {
        let wanted = try outcomes(four.native, on: profile)
        for text in [four.ethtool, four.testpmd, four.tc] { #expect(try outcomes(text, on: profile) == wanted, "\(profile.name): \(text)") }
        if wanted.contains(where: { if case .tables = $0 { true } else { false } }) { compiled += 1 }
      }
      print("\(profile.name): \(compiled) of \(Self.rules.count) rules are entries, the same from four dialects")
      #expect(compiled >= least)
    }
  }

  /// What is written, letter by letter: tools read it too.
  @Test(arguments: [
    (Dialect.ethtool, "ethtool -N ens1 flow-type tcp4 src-ip 10.1.0.0 m 0.0.255.255 dst-port 80 vlan 5 m 0xf000 vf 1 queue 3 loc 7"),
    (.testpmd, "flow create 2 priority 100 user_id 7 ingress pattern eth / vlan vid is 5 / ipv4 src spec 10.1.0.0 src mask 255.255.0.0 / tcp dst is 80 / end actions vf id 1 / queue index 3 / end"),
    (.tc, "tc filter add dev ens1 ingress protocol 802.1Q pref 100 handle 7 flower skip_sw vlan_id 5 vlan_ethtype ipv4 ip_proto tcp src_ip 10.1.0.0/16 dst_port 80 action skbedit queue_mapping 3 action mirred egress redirect dev db"),
    (.native, "id 7 prio 100 match vlan.id=5 ip.src=10.1.0.0/16 tcp.dst=80 then vm db:3"),
  ]) func `a rule is written as its tool takes it`(_ dialect: Dialect, _ text: String) throws {
    let rule = try Rule(parsing: "id 7 match vlan.id=5 ip.src=10.1.0.0/16 tcp.dst=80 then vm db:3")
    #expect(try rule.text(in: dialect, context: DialectContext(device: "ens1", port: 2, vms: ["web", "db"])) == text)
  }
}
