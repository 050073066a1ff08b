import FlowDialects
import FlowSteering
import Testing

/// Commands as people paste them, and what each means.
@Suite struct VerbatimTests {
  static let ethtool: [(typed: String, meaning: String)] = [
    ("ethtool -N eth0 flow-type tcp4 src-ip 10.1.0.0 m 0.0.255.255 dst-port 80 action 3 loc 7", "id 7 prio 100 match ip.src=10.1.0.0/16 tcp.dst=80 then queue 3"),
    ("ethtool -U ethX flow-type tcp4 src-ip 192.168.0.100 action 1", "prio 100 match ip.src=192.168.0.100 ip.proto=tcp then queue 1"),
    ("ethtool -U enp130s0 flow-type tcp4 src-ip 192.168.0.1 dst-ip 192.168.0.5 src-port 5300 dst-port 7 action 7", "prio 100 match ip.src=192.168.0.1 ip.dst=192.168.0.5 tcp.src=5300 tcp.dst=7 then queue 7"),
    ("ethtool -N eth11 flow-type ip4 src-ip 172.4.1.2 m 255.0.0.0 dst-ip 172.21.1.1 m 255.128.0.0 action 31", "prio 100 match ip.src=0.4.1.2/0.255.255.255 ip.dst=0.21.1.1/0.127.255.255 then queue 31"),
    ("sudo ethtool  --config-ntuple   eth0 flow-type udp4 dst-port 4789 action 2", "prio 100 match eth.type=ip udp.dst=4789 then queue 2"),
    ("ethtool --config-nfc eth0 flow-type udp6 dst-ip 2001:db8::1 dst-port 0x35 action -1", "prio 100 match ip.dst=2001:db8::1 udp.dst=53 then drop"),
    ("ethtool -N eth0 flow-type ether dst 00:11:22:33:44:55 proto 0x88f7 action 4", "prio 100 match eth.dst=00:11:22:33:44:55 eth.type=ptp then queue 4"),
    ("ethtool -N eth0 flow-type ether dst 33:33:00:00:00:00 m 00:00:ff:ff:ff:ff action 0", "prio 100 match eth.dst=33:33:00:00:00:00/16 then queue 0"),
    ("ethtool -N eth0 flow-type ether proto 0x0806 action 2", "prio 100 match eth.type=arp then queue 2"),
    ("ethtool -N p4p1 flow-type tcp4 action 2", "prio 100 match eth.type=ip ip.proto=tcp then queue 2"),
    ("flow-type ip4 action 5", "prio 100 match eth.type=ip then queue 5"),
    ("ethtool -N eth0 flow-type ip4 l4proto 47 tos 0xb8 m 0x03 action 1", "prio 100 match eth.type=ip ip.proto=gre ip.tos=184/0xfc then queue 1"),
    ("ethtool -N eth0 flow-type ip4 l4proto 6 dst-port 22 action 1", "prio 100 match eth.type=ip tcp.dst=22 then queue 1"),
    ("ethtool -N eth0 flow-type ip6 tclass 16 src-ip fe80:: m ::ffff:ffff:ffff:ffff action 9", "prio 100 match ip.src=fe80::/64 ip.tos=16 then queue 9"),
    ("ethtool -N eth0 flow-type udp4 vlan 0x0064 m 0xF000 dst-port 2152 action 6", "prio 100 match eth.type=ip vlan.id=100 udp.dst=2152 then queue 6"),
    ("ethtool -N eth0 flow-type ip4 vlan 0xa005 m 0x1000 src-ip 10.0.0.1 action 6", "prio 100 match vlan.id=5 vlan.pcp=5 ip.src=10.0.0.1 then queue 6"),
    ("ethtool -N eth0 flow-type tcp4 vlan-etype 0x8100 dst-port 80 action 1", "prio 100 match eth.type=ip vlan.id=0/0x0 tcp.dst=80 then queue 1"),
    ("ethtool -U eth0 flow-type tcp4 dst-ip 10.0.0.1 dst-mac 52:54:00:12:34:56 vf 1 queue 2 loc 1023", "id 1023 prio 100 match eth.dst=52:54:00:12:34:56 ip.dst=10.0.0.1 ip.proto=tcp then vm db:2"),
    ("ethtool -U eth0 flow-type sctp4 src-port 9000 dst-port 9001 vf 0", "prio 100 match eth.type=ip sctp.src=9000 sctp.dst=9001 then vm web"),
    ("ethtool -N eth0 flow-type udp4 dst-ip 192.168.1.1 action 0x800000002", "prio 100 match ip.dst=192.168.1.1 ip.proto=udp then vm ens1f0_5:2"),
    ("ethtool -N eth0 flow-type esp4 dst-ip 192.168.1.1 action 3", "prio 100 match ip.dst=192.168.1.1 ip.proto=esp then queue 3"),
    ("ethtool -N eth0 flow-type tcp4 src-ip 10.0.0.0 src-ip-mask 0.255.255.255 dst-port 0x1000 dst-port-mask 0xfff action 3", "prio 100 match ip.src=10.0.0.0/8 tcp.dst=4096/0xf000 then queue 3"),
    ("ethtool -N eth0 flow-type tcp4 src-ip 10.1.2.3 mask 0.0.0.255 queue 3 # servers", "prio 100 match ip.src=10.1.2.0/24 ip.proto=tcp then queue 3"),
    ("ethtool -N eth0 flow-type ether action -1", "prio 100 match any then drop"),
  ]

  static let testpmd: [(typed: String, meaning: String)] = [
    ("flow create 0 priority 1 ingress pattern eth / ipv4 src spec 10.1.0.0 src mask 255.255.0.0 / tcp dst is 80 / end actions queue index 3 / end", "prio 1 match ip.src=10.1.0.0/16 tcp.dst=80 then queue 3"),
    ("testpmd> flow create 0 ingress pattern eth type is 0x0806 / end actions queue index 2 / end", "prio 0 match eth.type=arp then queue 2"),
    ("flow create 0 ingress pattern eth dst is 00:11:22:33:44:55 type is 0x88e5 / end actions queue index 4 / end", "prio 0 match eth.dst=00:11:22:33:44:55 eth.type=0x88e5 then queue 4"),
    ("flow create 0 ingress pattern eth type is 0x8864 / end actions drop / end", "prio 0 match eth.type=pppoe then drop"),
    ("flow create 0 ingress pattern eth / ipv4 src is 192.168.0.1 dst is 192.168.0.2 / udp src is 22 dst is 23 / end actions queue index 5 / end", "prio 0 match ip.src=192.168.0.1 ip.dst=192.168.0.2 udp.src=22 udp.dst=23 then queue 5"),
    ("flow create 0 ingress pattern eth / vlan vid is 10 / ipv4 / end actions vf id 1 / queue index 2 / end", "prio 0 match eth.type=ip vlan.id=10 then vm db:2"),
    ("flow create 0 ingress pattern eth / vlan tci is 0x2001 tci mask 0xefff / ipv6 src is 2001::1 / sctp dst is 23 tag mask 0 tag spec 0 / end actions drop / end", "prio 0 match vlan.id=1 vlan.pcp=1 ip.src=2001::1 sctp.dst=23 then drop"),
    ("flow create 0 group 1 priority 2 ingress pattern eth / ipv6 dst is 2001::2 dst prefix 64 tc is 1 / tcp / end actions queue index 1 / count / end", "group 1 prio 2 match ip.dst=2001::/64 ip.proto=tcp ip.tos=1 then queue 1, count"),
    ("flow create 0 ingress pattern eth / ipv4 proto is 6 / end actions queue index 1 / end", "prio 0 match eth.type=ip ip.proto=tcp then queue 1"),
    ("flow create 0 ingress pattern ipv4 proto is 6 / tcp dst is 22 flags spec 0x02 flags mask 0x02 / end actions drop / end", "prio 0 match eth.type=ip tcp.dst=22 tcp.flags=syn/syn then drop"),
    ("flow create 0 ingress pattern eth / ipv4 / icmp / end actions pf / end", "prio 0 match eth.type=ip ip.proto=icmp then host"),
    ("flow create 3 ingress pattern eth / void / ipv4 tos is 0xb8 / void / udp dst spec 1000 dst last 2000 dst mask 0xffff / end actions void / queue index 0 / end", "prio 0 match eth.type=ip ip.tos=184 udp.dst=1000-2000 then queue 0"),
    ("flow create 0 ingress pattern eth / ipv4 / tcp src spec 1024 src last 65535 / end actions drop / end", "prio 0 match eth.type=ip tcp.src=1024-65535 then drop"),
    ("flow create 0 ingress pattern any / end actions vf id 7 / end", "prio 0 match any then vm ens1f0_5"),
    ("flow create 0 ingress pattern eth / vlan / end actions drop / end", "prio 0 match vlan.id=0/0x0 then drop"),
    ("flow create 0 ingress pattern eth has_vlan is 0 type is 0x800 / end actions drop / end", "prio 0 match eth.type=ip vlan.id=none then drop"),
    ("flow create 0 ingress pattern eth type is 0x8100 / vlan inner_type is 0x0806 / end actions drop / end", "prio 0 match eth.type=arp vlan.id=0/0x0 then drop"),
    ("flow create 0 user_id 12 ingress pattern represented_port ethdev_port_id is 0 / eth / ipv4 / udp dst is 53 / end actions queue index 1 / end", "id 12 prio 0 for web match eth.type=ip udp.dst=53 then queue 1"),
    ("flow create 0 ingress pattern eth / ipv4 fragment_offset spec 0 fragment_offset mask 0x3fff / end actions drop / end", "prio 0 match eth.type=ip ip.frag=no then drop"),
    ("flow create 0 ingress pattern eth / ipv4 fragment_offset spec 1 fragment_offset last 0x1fff fragment_offset mask 0x1fff / end actions drop / end", "prio 0 match eth.type=ip ip.frag=later then drop"),
    ("flow create 0 ingress pattern eth / ipv6 has_frag_ext is 1 / end actions drop / end", "prio 0 match eth.type=ip6 ip.frag=yes then drop"),
    ("flow create 0 ingress pattern raw relative is 0 search is 0 offset is 12 limit is 0 pattern is ab / end actions drop / end", "prio 0 match flex@12=0x6162 then drop"),
    ("flow create 0 ingress pattern eth / raw relative is 0 offset is 40 pattern_hex spec 0800ab00 pattern_hex mask ffffff00 / end actions drop / end", "prio 0 match flex@40=0x800 flex@42=0xab00/0xff00 then drop"),
    ("flow create 0 ingress pattern eth dst spec 01:00:00:00:00:00 dst mask 01:00:00:00:00:00 / end actions drop / end", "prio 0 match eth.dst=multicast then drop"),
    ("flow create 0 ingress pattern eth / any num is 1 / udp dst is 53 / end actions drop / end", "prio 0 match udp.dst=53 then drop"),
    ("flow create 0 ingress pattern eth / ipv4 dst mask 255.0.0.0 dst is 10.0.0.1 / end actions drop / end", "prio 0 match ip.dst=10.0.0.1 then drop"),
    ("flow create 0 ingress pattern tcp / end actions drop / end", "prio 0 match ip.proto=tcp then drop"),
  ]

  static let tc: [(typed: String, meaning: String)] = [
    ("tc filter add dev eth0 ingress protocol ip prio 1 flower ip_proto tcp src_ip 10.1.0.0/16 dst_port 80 skip_sw action skbedit queue_mapping 3", "prio 1 match ip.src=10.1.0.0/16 tcp.dst=80 then queue 3"),
    ("tc filter add dev enp3s0np1 parent ffff: protocol ipv6 pref 2 flower skip_sw src_ip fe01::1 action drop", "prio 2 match ip.src=fe01::1 then drop"),
    ("tc filter add dev enp3s0np1 parent ffff: protocol ip pref 20 flower skip_sw dst_mac f4:52:14:10:df:92 action mirred egress redirect dev ens1f0_5", "prio 20 match eth.dst=f4:52:14:10:df:92 eth.type=ip then vm ens1f0_5"),
    ("$ tc filter add dev enp3s0np1 parent ffff: protocol ipv6 pref 10 flower skip_sw dst_ip fe01::3 ip_proto tcp dst_port 3333 action drop", "prio 10 match ip.dst=fe01::3 tcp.dst=3333 then drop"),
    ("tc filter add dev eth0 protocol ip parent ffff: prio 1 flower ip_proto udp dst_port 53 action mirred egress redirect dev web", "prio 1 match eth.type=ip udp.dst=53 then vm web"),
    ("filter add dev eth0 ingress protocol 802.1Q pref 5 chain 2 handle 0x10 flower vlan_id 100 vlan_prio 3 vlan_ethtype ipv4 ip_proto udp action drop", "id 16 group 2 prio 5 match eth.type=ip vlan.id=100 vlan.pcp=3 ip.proto=udp then drop"),
    ("tc filter add dev eth0 ingress protocol 802.1q pref 5 flower action drop", "prio 5 match vlan.id=0/0x0 then drop"),
    ("tc filter add dev eth0 ingress pref 1 flower num_of_vlans 0 dst_mac 01:00:00:00:00:00/01:00:00:00:00:00 action trap", "prio 1 match eth.dst=multicast vlan.id=none then host"),
    ("tc filter add dev eth0 ingress protocol ip pref 1 flower ip_proto tcp tcp_flags 0x2/0x12 dst_port 1000-2000 action drop", "prio 1 match eth.type=ip tcp.dst=1000-2000 tcp.flags=syn/syn+ack then drop"),
    ("tc filter add dev eth0 ingress protocol ip pref 1 flower ip_flags nofrag ip_tos 0xb8/0xfc action drop", "prio 1 match eth.type=ip ip.tos=184/0xfc ip.frag=no then drop"),
    ("tc filter add dev eth0 ingress protocol ip pref 1 flower ip_flags frag/nofirstfrag action drop", "prio 1 match eth.type=ip ip.frag=later then drop"),
    ("tc filter add dev eth0 ingress protocol ip pref 1 flower ip_proto 2f action drop", "prio 1 match eth.type=ip ip.proto=gre then drop"),
    ("tc filter replace dev eth0 ingress protocol ip pref 1 flower ip_proto icmp action skbedit queue_mapping 2 pipe action mirred egress redirect dev db", "prio 1 match eth.type=ip ip.proto=icmp then vm db:2"),
    ("tc filter add dev eth0 ingress protocol arp flower skip_sw action mirred egress mirror dev web pipe action mirred egress redirect dev db", "prio 49152 match eth.type=arp then vm web, vm db"),
    ("tc filter add dev web ingress protocol ip pref 3 flower ip_proto tcp dst_port 80 action skbedit queue_mapping 1", "prio 3 for web match eth.type=ip tcp.dst=80 then queue 1"),
    ("tc filter add dev eth0 ingress protocol 0x88cc pref 1 flower action drop hw_stats immediate", "prio 1 match eth.type=lldp then drop, count"),
    ("tc f a dev eth0 ingress proto ip pri 7 flower src_i 10.0.0.0/8 ac gact drop", "prio 7 match ip.src=10.0.0.0/8 then drop"),
    ("tc filter add dev eth0 ingress protocol ip pref 1 flower src_ip 10.1.2.3/255.255.0.0 dst_mac 52:54:00:00:00:01/24 action drop", "prio 1 match eth.dst=52:54:00:00:00:00/24 ip.src=10.1.0.0/16 then drop"),
    ("tc filter add dev eth0 ingress protocol ip prio 1 flower ip_proto udp src_port 0x1000/0xf000 action drop", "prio 1 match eth.type=ip udp.src=4096/0xf000 then drop"),
  ]

  static let native: [(typed: String, meaning: String)] = [
    ("rule add match udp.dst=53 then vm dns", "prio 100 match udp.dst=53 then vm dns"),
    ("  match any then drop # all", "prio 100 match any then drop"),
    ("rule add id 7 prio 10 group 2 for web match tcp.dst=80 then queue 1, count", "id 7 group 2 prio 10 for web match tcp.dst=80 then queue 1, count"),
  ]

  @Test(arguments: ethtool + testpmd + tc + native) func `a command is taken as it stands`(_ line: (typed: String, meaning: String)) throws {
    let read = try rule(line.typed)
    #expect(read?.text == line.meaning)
    if let read, Dialect(of: line.typed) != .native { #expect(read == read.canonical) }
  }

  static let others: [(typed: String, command: RuleCommand?)] = [
    ("ethtool -N eth0 delete 7", .delete(id: 7)), ("ethtool -U eth0 delete 0x10", .delete(id: 16)), ("delete 3", .delete(id: 3)),
    ("flow destroy 0 rule 3", .delete(id: 3)), ("testpmd> flow destroy 1 rule 4 user_id", .delete(id: 4)), ("flow flush 0", .flush(vm: nil)),
    ("flow validate 0 ingress pattern eth / end actions drop / end", .validate(Rule(priority: 0, match: Match(), decision: .drop))),
    ("tc filter del dev eth0 ingress", .flush(vm: nil)), ("tc filter delete dev web ingress", .flush(vm: "web")),
    ("tc filter del dev eth0 ingress protocol ip pref 1 handle 0x5 flower", .delete(id: 5)),
    ("rule del 9", .delete(id: 9)), ("rule flush", .flush(vm: nil)), ("rule flush vm web", .flush(vm: "web")),
    ("rule validate match any then drop", .validate(Rule(match: Match(), decision: .drop))),
    ("", nil), ("   \t", nil), ("# ethtool -N eth0 delete 7", nil), ("\r", nil),
  ]

  @Test(arguments: others) func `other commands than rules are read too`(_ line: (typed: String, command: RuleCommand?)) throws {
    #expect(try RuleCommand(parsing: line.typed, in: context) == line.command)
  }

  @Test func `a file has all dialects, and lines that go on`() throws {
    let text = """
      # Servers
      flow-type tcp4 dst-port 80 action 3
      tc filter add dev eth0 ingress protocol ip prio 100 \\
        flower ip_proto tcp dst_port 80 \\
        action skbedit queue_mapping 3

      flow create 0 priority 100 ingress pattern eth / ipv4 / tcp dst is 80 / end actions queue index 3 / end\r
      match eth.type=ip tcp.dst=80 then queue 3
      # A comment ends with its line \\
      rule del 1
      """
    let commands = try RuleCommand.commands(in: text, context: context)
    let rule = try Rule(parsing: "match eth.type=ip tcp.dst=80 then queue 3")
    #expect(commands.map(\.line) == [2, 3, 7, 8, 10])
    #expect(commands.dropLast().allSatisfy { $0.command == .add(rule) })
    let error = #expect(throws: RuleError.self) {
      try RuleCommand.commands(in: text.replacing("queue_mapping 3", with: "queue_mapping x"), context: context)
    }
    #expect(error?.line == 5 && error?.column == 32 && error?.reason.contains("queue") ?? false)
  }

  @Test func `backslashes join lines of either system`() throws {
    for end in ["\n", "\r\n"] {
      #expect(try rule("flow-type tcp4 \\\(end) dst-port 80\\\(end) action 3\(end)")?.text == "prio 100 match eth.type=ip tcp.dst=80 then queue 3")
      let read = try RuleCommand.commands(in: "rule \\\(end) del 4\(end)rule del 5", context: context)
      #expect(read == [RuleCommand.Numbered(line: 1, command: .delete(id: 4)), RuleCommand.Numbered(line: 3, command: .delete(id: 5))])
    }
  }

  @Test func `a dialect that is given is not guessed`() throws {
    #expect(throws: RuleError.self) { try RuleCommand(parsing: "rule del 1", in: context, as: .tc) }
    #expect(try RuleCommand(parsing: "delete 1", in: context, as: .ethtool) == .delete(id: 1))
  }
}
