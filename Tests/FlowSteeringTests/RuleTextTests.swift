import Testing

@testable import FlowSteering

@Suite struct RuleTextTests {
  /// What is typed, and what is printed of it.
  static let texts: [(typed: String, printed: String)] = [
    ("match any then drop", "prio 100 match any then drop"),
    ("rule add match udp.dst=53 then vm dns", "prio 100 match udp.dst=53 then vm dns"),
    ("id 7 prio 10 group 2 for web match tcp.dst=80 then queue 1, count", "id 7 group 2 prio 10 for web match tcp.dst=80 then queue 1, count"),
    ("match tcp.dst=443 ip.dst=10.1.0.0/16 then vm a:1 , vm b", "prio 100 match ip.dst=10.1.0.0/16 tcp.dst=443 then vm a:1, vm b"),
    ("match eth.dst=FF:ff:ff:ff:ff:ff then host", "prio 100 match eth.dst=broadcast then host"),
    ("match eth.dst=01:00:00:00:00:00/01:00:00:00:00:00 then vm a", "prio 100 match eth.dst=multicast then vm a"),
    ("match eth.dst=52:54:00:00:00:00/24 eth.src=02:00:00:00:00:01 then vm a", "prio 100 match eth.dst=52:54:00:00:00:00/24 eth.src=02:00:00:00:00:01 then vm a"),
    ("match eth.type=0x88f7 then vm a", "prio 100 match eth.type=ptp then vm a"),
    ("match vlan.id=100 vlan.pcp=5 ip.src=2001:DB8:0:0::1 then vm a", "prio 100 match vlan.id=100 vlan.pcp=5 ip.src=2001:db8::1 then vm a"),
    ("match vlan.id=none then vm a", "prio 100 match vlan.id=none then vm a"),
    ("match vlan.id=0/0 then vm a", "prio 100 match vlan.id=0/0x0 then vm a"),
    ("match ip.src=::/0 ip.proto=58 then drop # all of it", "prio 100 match ip.src=::/0 ip.proto=icmp6 then drop"),
    ("match ip.src=10.0.0.1/255.0.255.255 then drop", "prio 100 match ip.src=10.0.0.1/255.0.255.255 then drop"),
    ("match tcp.flags=syn/syn+ack then drop", "prio 100 match tcp.flags=syn/syn+ack then drop"),
    ("match tcp.flags=0x12 then drop", "prio 100 match tcp.flags=syn+ack then drop"),
    ("match udp.src=1000-2000 then drop", "prio 100 match udp.src=1000-2000 then drop"),
    ("match udp.src=5-5 then drop", "prio 100 match udp.src=5 then drop"),
    ("match sctp.dst=0x100/0xff00 then drop", "prio 100 match sctp.dst=256/0xff00 then drop"),
    ("match flex@12=0x0800/0xFF00 then drop", "prio 100 match flex@12=0x800/0xff00 then drop"),
    ("match ip.frag=first ip.src=any then drop", "prio 100 match ip.frag=first then drop"),
    ("match ip.tos=0xb8/0xfc then drop", "prio 100 match ip.tos=184/0xfc then drop"),
  ]

  @Test(arguments: texts) func `a rule is printed in its canonical form, and reads back as it was`(_ text: (typed: String, printed: String)) throws {
    let rule = try Rule(parsing: text.typed)
    #expect(rule.text == text.printed)
    #expect(try Rule(parsing: rule.text) == rule)
  }

  /// What is typed, the column, and a word of the reason.
  static let mistakes: [(typed: String, column: Int, word: String)] = [
    ("", 1, "match"),
    ("match", 6, "match any"),
    ("match then drop", 7, "match any"),
    ("match any", 10, "then"),
    ("match any then", 15, "action"),
    ("match any then fly", 16, "no such action"),
    ("match any then drop, host", 22, "one fate"),
    ("match any then drop host", 21, "too much"),
    ("match any then count", 21, "count alone"),
    ("match any then vm a, vm a", 22, "named twice"),
    ("match any then vm a:x", 21, "queue"),
    ("match any then vm a/b", 19, "name"),
    ("match any then mirror x", 16, "not built"),
    ("match tcp.dst=80 tcp.dst=81 then drop", 18, "twice"),
    ("match ip.src=1.2.3.4 ip.src=::1 then drop", 22, "twice"),
    ("match ip.src=1.2.3.4 ip.dst=::1 then drop", 22, "no frame can match"),
    ("match ip.proto=udp tcp.dst=80 then drop", 20, "no frame can match"),
    ("match eth.type=arp ip.src=1.2.3.4 then drop", 20, "no frame can match"),
    ("match eth.type=ip ip.src=::1 then drop", 19, "no frame can match"),
    ("match ip.frag=yes udp.dst=1 then drop", 19, "no frame can match"),
    ("match vlan.id=none vlan.pcp=1 then drop", 20, "no frame can match"),
    ("match tcp.dst=65536 then drop", 15, "16 bits"),
    ("match vlan.id=4096 then drop", 15, "12 bits"),
    ("match ip.src=10.0.0.300 then drop", 14, "IPv4"),
    ("match ip.src=010.0.0.1 then drop", 14, "IPv4"),
    ("match ip.src=1::2::3 then drop", 14, "IPv6"),
    ("match ip.src=10.0.0.1/33 then drop", 23, "prefix"),
    ("match ip.src=10.0.0.1/24 then drop", 14, "10.0.0.0/24"),
    ("match ip.src=10.0.0.1/x then drop", 23, "mask"),
    ("match eth.dst=1:2:3 then drop", 15, "6 octets"),
    ("match udp.src=9-5 then drop", 15, "empty"),
    ("match udp.src= then drop", 15, "missing"),
    ("match ip.frag=maybe then drop", 15, "first or later"),
    ("match flex@999=1 then drop", 7, "flex@"),
    ("match flex@1=1 flex@3=1 flex@5=1 flex@7=1 then drop", 34, "3 flexible"),
    ("match dst.ip=1.2.3.4 then drop", 7, "no such field"),
    ("match tcp then drop", 7, "field=value"),
    ("prio x match any then drop", 6, "priority"),
    ("prio 70000 match any then drop", 6, "0 to 65535"),
    ("id 0 match any then drop", 4, "number"),
    ("prio 1 prio 2 match any then drop", 8, "twice"),
    ("for a,b match any then drop", 6, "match"),
    ("rule del 7", 6, "add"),
  ]

  @Test(arguments: mistakes) func `a mistake is named with its column`(_ mistake: (typed: String, column: Int, word: String)) {
    do throws(RuleError) {
      let rule = try Rule(parsing: mistake.typed)
      Issue.record("it was read as \(rule.text)")
    } catch {
      #expect(error.column == mistake.column, "\(error)")
      #expect("\(error)".contains(mistake.word), "\(error)")
    }
  }

  @Test(arguments: [
    ("::", UInt128(0)), ("::1", 1), ("1::", 1 << 112), ("::ffff:1.2.3.4", 0xFFFF_0102_0304), ("1:2:3:4:5:6:7:8", 0x1_0002_0003_0004_0005_0006_0007_0008),
  ]) func `IPv6 addresses are read as RFC 4291 has them`(_ text: String, _ value: UInt128) {
    #expect(IPAddressText.parse6(text[...]) == value)
  }

  @Test(arguments: ["", ":", ":::", "1", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::8", "12345::", "g::", ":1::", "::1.2.3", "1.2.3.4::"])
  func `what is no IPv6 address is refused`(_ text: String) { #expect(IPAddressText.parse6(text[...]) == nil) }

  @Test(arguments: [(UInt128(0), "::"), (1, "::1"), (1 << 112, "1::"), (0x2001_0DB8_0000_0000_0001_0000_0000_0001, "2001:db8::1:0:0:1"), (0x0001_0000_0003_0004_0005_0006_0007_0008, "1:0:3:4:5:6:7:8")])
  func `IPv6 addresses are printed as RFC 5952 wants it`(_ value: UInt128, _ text: String) { #expect(IPAddressText.text6(value) == text) }
}
