import FlowDialects
import FlowSteering
import Testing

@Suite struct MistakeTests {
  /// What is typed, the code, the column, and a word of the message.
  typealias Mistake = (typed: String, code: RuleError.Code, column: Int, word: String)

  static let ethtool: [Mistake] = [
    ("ethtool", .syntax, 8, "-N"),
    ("ethtool -K eth0 ntuple on", .syntax, 9, "-N or -U"),
    ("ethtool -N eth0", .syntax, 16, "flow-type"),
    ("ethtool -N eth0 rx-flow-hash udp4 sdfn", .actionUnsupported, 17, "hash"),
    ("ethtool -N eth0 flow-type tcp5", .syntax, 27, "no flow type"),
    ("flow-type tcp4 src-ip 10.0.0.0/8 action 1", .syntax, 23, "behind \"m\""),
    ("flow-type tcp4 src-ip ::1 action 1", .syntax, 23, "an IPv4 address"),
    ("flow-type tcp6 tos 3", .syntax, 16, "has no option"),
    ("flow-type tcp4 dst-port 65536", .syntax, 25, "0 to 65535"),
    ("flow-type tcp4 dst-port 80 dst-port 81", .syntax, 28, "twice"),
    ("flow-type tcp4 dst-port", .syntax, 24, "ends"),
    ("flow-type ip4 dst-port 80 action 1", .fieldUnsupported, 15, "l4proto 6"),
    ("flow-type ip4 vlan 100 action 1", .fieldUnsupported, 15, "m 0xf000"),
    ("flow-type ip4 vlan-etype 0x88a8 action 1", .fieldUnsupported, 15, "0x8100"),
    ("flow-type tcp4 user-def 0x4FFFF action 1", .fieldUnsupported, 16, "flex@"),
    ("flow-type esp4 spi 7 action 1", .fieldUnsupported, 16, "spi"),
    ("flow-type ether proto 0x8100 action 1", .fieldUnsupported, 17, "vlan 0 m 0xffff"),
    ("flow-type ip4 context 1", .actionUnsupported, 15, "groups"),
    ("flow-type ip4 action -3", .syntax, 22, "-1 to drop"),
    ("flow-type ip4 action -2", .actionUnsupported, 22, "wakes"),
    ("flow-type ip4 action 128", .syntax, 22, "127"),
    ("flow-type ip4 vf 8", .noSuchVM, 18, "there are 8"),
    ("flow-type ip4 action 0x900000000", .noSuchVM, 22, "there are 8"),
    ("flow-type ip4 action 1 vf 1", .syntax, 15, "neither"),
    ("flow-type ip4 loc 0", .syntax, 19, "from 1"),
    ("flow-type ip4 action 1 m 2", .syntax, 24, "behind its value"),
    ("ethtool -N eth0 delete 5 6", .syntax, 26, "too much"),
  ]
  static let testpmd: [Mistake] = [
    ("flow", .syntax, 5, "create"),
    ("flow list 0", .syntax, 6, "no command"),
    ("flow create x", .syntax, 13, "a port"),
    ("flow create 0 pattern eth / end actions drop / end", .syntax, 15, "ingress"),
    ("flow create 0 transfer pattern eth / end actions drop / end", .actionUnsupported, 15, "ingress"),
    ("flow create 0 group 256 ingress pattern", .syntax, 21, "0 to 255"),
    ("flow create 0 ingress pattern eth end", .syntax, 35, "ends an item"),
    ("flow create 0 ingress pattern eth / ipv5 / end", .syntax, 37, "no item"),
    ("flow create 0 ingress pattern eth dst is 1.2.3.4 / end", .syntax, 42, "Ethernet address"),
    ("flow create 0 ingress pattern eth / ipv4 src spec 1.2.3.4 / end actions drop / end", .syntax, 42, "mask"),
    ("flow create 0 ingress pattern eth / ipv4 ttl is 3 / end actions drop / end", .fieldUnsupported, 49, "ttl"),
    ("flow create 0 ingress pattern eth / udp / tcp / end actions drop / end", .syntax, 43, "layer"),
    ("flow create 0 ingress pattern eth / ipv4 / udp / vxlan / end", .fieldUnsupported, 50, "vxlan"),
    ("flow create 0 ingress pattern eth / ipv4 proto is 17 / tcp / end actions drop / end", .syntax, 56, "both"),
    ("flow create 0 ingress pattern eth type is 0x806 / ipv4 / end actions drop / end", .syntax, 58, "eth.type"),
    ("flow create 0 ingress pattern any / tcp / end", .fieldUnsupported, 31, "any num is 1"),
    ("flow create 0 ingress pattern eth / vlan tci is 5 / end", .fieldUnsupported, 49, "vid and pcp"),
    ("flow create 0 ingress pattern eth type is 0x88a8 / vlan / end", .fieldUnsupported, 43, "inner_type"),
    ("flow create 0 ingress pattern eth has_vlan is 0 / vlan / end actions drop / end", .syntax, 51, "tag"),
    ("flow create 0 ingress pattern eth / ipv4 fragment_offset is 0 / end", .fieldUnsupported, 61, "0x3fff"),
    ("flow create 0 ingress pattern raw relative is 1 offset is 3 pattern is ab / end", .fieldUnsupported, 47, "relative is 0"),
    ("flow create 0 ingress pattern raw offset is 3 pattern is abc / end", .fieldUnsupported, 58, "pairs"),
    ("flow create 0 ingress pattern eth / end actions rss / end", .actionUnsupported, 49, "rss"),
    ("flow create 0 ingress pattern eth / end actions vf id 8 / end", .noSuchVM, 55, "there are 8"),
    ("flow create 0 ingress pattern eth / end actions vf id 1 / vf id 2 / end", .actionUnsupported, 59, "native"),
    ("flow create 0 ingress pattern eth / end actions queue index 1 / drop / end", .syntax, 65, "one fate"),
    ("flow create 0 ingress pattern eth / end actions count / end", .syntax, 57, "where the frames go"),
    ("flow destroy 0 rule 0", .syntax, 21, "from 1"),
    ("flow destroy 0 rule 1 rule 2", .syntax, 23, "one rule"),
  ]
  static let tc: [Mistake] = [
    ("tc qdisc add dev eth0 ingress", .syntax, 4, "filter"),
    ("tc filter show dev eth0", .syntax, 11, "no command"),
    ("tc filter add dev eth0 protocol ip flower action drop", .syntax, 36, "ingress"),
    ("tc filter add dev eth0 egress protocol ip flower action drop", .actionUnsupported, 24, "receives"),
    ("tc filter add dev eth0 parent 1: flower action drop", .actionUnsupported, 31, "ffff:"),
    ("tc filter add dev eth0 ingress protocol ipx flower action drop", .syntax, 41, "no protocol"),
    ("tc filter add dev eth0 ingress u32 match", .syntax, 32, "flower"),
    ("tc filter add dev eth0 ingress flower dst_ip 10.0.0.1 action drop", .syntax, 39, "protocol ip"),
    ("tc filter add dev eth0 ingress protocol ip flower dst_ip ::1 action drop", .syntax, 58, "IPv4 address"),
    ("tc filter add dev eth0 ingress protocol ip flower dst_ip 10.0.0.0/33 action drop", .syntax, 67, "0 to 32"),
    ("tc filter add dev eth0 ingress protocol ip flower dst_port 80 action drop", .syntax, 51, "ip_proto"),
    ("tc filter add dev eth0 ingress protocol ip flower ip_proto tcp dst_port 70000 action drop", .syntax, 73, "no value"),
    ("tc filter add dev eth0 ingress protocol ip flower ip_proto udp tcp_flags 2 action drop", .syntax, 64, "ip_proto tcp"),
    ("tc filter add dev eth0 ingress protocol ip flower ip_proto tcp dst_port 9-9 action drop", .syntax, 73, "goes up"),
    ("tc filter add dev eth0 ingress protocol ip flower vlan_id 5 action drop", .syntax, 51, "802.1Q"),
    ("tc filter add dev eth0 ingress protocol 802.1ad flower vlan_id 5 action drop", .fieldUnsupported, 56, "802.1Q"),
    ("tc filter add dev eth0 ingress protocol ip flower ip_flags nofirstfrag action drop", .fieldUnsupported, 60, "two rules"),
    ("tc filter add dev eth0 ingress protocol ip flower ip_ttl 3 action drop", .fieldUnsupported, 51, "ip_ttl"),
    ("tc filter add dev eth0 ingress protocol ip flower skip_hw action drop", .actionUnsupported, 51, "processor"),
    ("tc filter add dev eth0 ingress protocol ip flower hw_tc 1", .actionUnsupported, 51, "traffic class"),
    ("tc filter add dev eth0 ingress flower", .syntax, 38, "action"),
    ("tc filter add dev eth0 ingress flower action pass", .actionUnsupported, 46, "pass"),
    ("tc filter add dev eth0 ingress flower action mirred egress redirect dev nobody", .noSuchVM, 73, "there are 8"),
    ("tc filter add dev eth0 ingress flower action mirred egress mirror dev web", .actionUnsupported, 46, "redirect"),
    ("tc filter add dev eth0 ingress flower action drop action trap", .syntax, 58, "one fate"),
    ("tc filter add dev eth0 ingress flower action skbedit priority 3", .actionUnsupported, 54, "queue_mapping"),
    ("tc filter add dev eth0 ingress protocol 802.1Q flower num_of_vlans 0 action drop", .syntax, 41, "none"),
    ("tc filter add dev eth0 ingress flower a drop", .fieldUnsupported, 39, "arp_tip"),
    ("tc filter add dev eth0 ingress flower action skbedit queue_mapping 0x3", .syntax, 68, "127"),
    ("tc filter del dev eth0 ingress pref 3", .syntax, 38, "handle"),
    ("tc filter add dev eth0 dev eth1 ingress", .syntax, 24, "twice"),
  ]
  static let native: [Mistake] = [
    ("rule", .syntax, 5, "add"), ("rule del", .syntax, 9, "number"), ("rule del x", .syntax, 10, "1 to"), ("rule del 0", .syntax, 10, "1 to"),
    ("rule del 3 4", .syntax, 12, "too much"), ("rule flush web", .syntax, 12, "vm NAME"), ("rule flush vm", .syntax, 14, "name"),
    ("rule flush vm a/b", .syntax, 15, "name"), ("rule validate match", .syntax, 20, "match any"), ("rule add match tcp.dst=x then drop", .syntax, 24, "no value"),
    ("match any then fly", .syntax, 16, "no such action"), ("tcpdump -i eth0", .syntax, 1, "match"), ("rule validate  match any then fly", .syntax, 31, "no such action"),
  ]

  @Test(arguments: ethtool + testpmd + tc + native) func `a mistake is named where it is`(_ mistake: Mistake) throws {
    let error = #expect(throws: RuleError.self) { try RuleCommand(parsing: mistake.typed, in: context) }
    #expect(error?.code == mistake.code)
    #expect(error?.column == mistake.column)
    #expect(error?.description.contains(mistake.word) ?? false, "\(error?.description ?? "")")
  }

  /// What a dialect cannot say: the rule, the code, the field, and a word of the fit.
  static let refused: [(dialect: Dialect, rule: String, code: RuleError.Code, field: String, word: String)] = [
    (.ethtool, "prio 5 match any then drop", .priority, "prio", "100"), (.ethtool, "group 1 match any then drop", .priority, "group", "0"),
    (.ethtool, "match any then drop, count", .actionUnsupported, "count", "leave"), (.ethtool, "match any then host", .actionUnsupported, "host", "drop"),
    (.ethtool, "match any then vm web, vm db", .actionUnsupported, "vm", "tc"), (.ethtool, "for web match any then drop", .fieldUnsupported, "for", "web"),
    (.ethtool, "match tcp.dst=80 then drop", .fieldUnsupported, "tcp.dst", "two rules"), (.ethtool, "match ip.src=1.2.3.4 ip.frag=no then drop", .fieldUnsupported, "ip.frag", "testpmd"),
    (.ethtool, "match ip.src=1.2.3.4 udp.dst=1024-2047 then drop", .fieldUnsupported, "udp.dst", "udp.dst=1024/0xfc00"),
    (.ethtool, "match eth.src=02:00:00:00:00:01 ip.src=1.2.3.4 then drop", .fieldUnsupported, "eth.src", "IP"),
    (.ethtool, "match vlan.id=none then drop", .fieldUnsupported, "vlan.id", "leave"), (.ethtool, "match flex@12=8 then drop", .fieldUnsupported, "flex@12", "testpmd"),
    (.testpmd, "match any then vm web, vm db", .actionUnsupported, "vm", "tc"), (.testpmd, "match ip.tos=8 then drop", .fieldUnsupported, "ip.tos", "two rules"),
    (.testpmd, "match eth.type=ip6 ip.frag=first then drop", .fieldUnsupported, "ip.frag", "yes"), (.testpmd, "match tcp.flags=syn then drop", .fieldUnsupported, "tcp.flags", "mask"),
    (.testpmd, "match eth.type=vlan then drop", .fieldUnsupported, "eth.type", "vlan.id=0/0"),
    (.tc, "prio 0 match any then drop", .priority, "prio", "prio 1"), (.tc, "match eth.type=8/0xff then drop", .fieldUnsupported, "eth.type", "one type"),
    (.tc, "match vlan.id=8/0xff then drop", .fieldUnsupported, "vlan.id", "one value"), (.tc, "match flex@12=8 then drop", .fieldUnsupported, "flex@12", "testpmd"),
    (.tc, "match ip.src=1.0.0.1/255.0.0.255 then drop", .fieldUnsupported, "ip.src", "first"), (.tc, "match any then vm web:1, vm db", .actionUnsupported, "vm", "db first"),
    (.tc, "match udp.dst=53 then drop", .fieldUnsupported, "udp.dst", "two rules"),
  ]
  @Test(arguments: refused) func `what a dialect cannot say is refused with the field and a fit`(
    _ refused: (dialect: Dialect, rule: String, code: RuleError.Code, field: String, word: String)
  ) throws {
    let rule = try Rule(parsing: refused.rule)
    let error = #expect(throws: RuleError.self) { try rule.text(in: refused.dialect, context: context) }
    #expect(error?.code == refused.code && error?.field == refused.field)
    #expect(error?.reason.contains(refused.field) ?? false)
    #expect(error?.fit?.contains(refused.word) ?? false, "\(error?.description ?? "")")
  }

  @Test(arguments: [Dialect.ethtool, .testpmd, .tc]) func `a VM that is not there cannot be written`(_ dialect: Dialect) throws {
    let rule = try Rule(parsing: "match any then vm nobody")
    let error = #expect(throws: RuleError.self) { try rule.text(in: dialect, context: context) }
    #expect(error?.code == .noSuchVM && error?.reason.contains("there are 8") ?? false)
  }

  static let seed: UInt64 = 0xF1_0E

  @Test func `nothing that is typed crashes`() {
    var random = SplitMix64(state: Self.seed)
    let lines = (VerbatimTests.ethtool + VerbatimTests.testpmd + VerbatimTests.tc + VerbatimTests.native).map { Array($0.typed.utf8) }
    let words = Set(lines.flatMap { $0.split(separator: UInt8(ascii: " ")) }).map(Array.init).sorted { $0.lexicographicallyPrecedes($1) }
    var (read, refused) = (0, 0)
    for round in 0..<20_000 {
      var bytes: [UInt8]
      if round % 5 == 0 {
        bytes = (0..<Int.random(in: 0...120, using: &random)).map { _ in UInt8.random(in: .min ... .max, using: &random) }
      } else {
        bytes = random.pick(lines)
        // Half of them stay in one piece.
        let digits = round % 2 == 0 ? [] : bytes.indices.filter { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[$0]) }
        if !digits.isEmpty {
          for _ in 0..<Int.random(in: 1...3, using: &random) { bytes[random.pick(digits)] = random.pick(UInt8(ascii: "0")...UInt8(ascii: "9")) }
        }
        for _ in 0..<Int.random(in: 1...3, using: &random) where digits.isEmpty && !bytes.isEmpty {
          let place = Int.random(in: 0..<bytes.count, using: &random)
          switch Int.random(in: 0..<6, using: &random) {
          case 0: bytes[place] = UInt8.random(in: .min ... .max, using: &random)
          case 1: bytes.remove(at: place)
          case 2: bytes.insert(random.pick(Array(" /:.-,#\\\n0fF9=m\u{7F}".utf8)), at: place)
          case 3: bytes.removeSubrange(place...)
          case 4: bytes.insert(contentsOf: [UInt8(ascii: " ")] + random.pick(words) + [UInt8(ascii: " ")], at: place)
          default: bytes.replaceSubrange(place..<min(place + 8, bytes.count), with: random.pick(words))
          }
        }
      }
      let text = String(decoding: bytes, as: UTF8.self)
      let dialect: Dialect? = random.chance(10) ? random.pick(Dialect.allCases) : nil
      do throws(RuleError) {
        let command = try RuleCommand(parsing: text, in: context, as: dialect)
        read += 1
        // What was understood can be said.
        if case .add(let rule)? = command, (try? Rule(parsing: rule.text)) != rule { Issue.record("\(text) became \(rule)") }
      } catch {
        refused += 1
        // Behind the end stands what is missing.
        if !(1...(text.utf8.count + 1)).contains(error.column ?? 0) { Issue.record("\(text): \(error)") }
      }
      _ = try? RuleCommand.commands(in: text, context: DialectContext(), as: dialect)
    }
    print("seed \(Self.seed): \(read) of 20000 lines read, \(refused) refused")
    #expect(read > 1000 && refused > 1000)
  }
}
