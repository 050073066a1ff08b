import Capture
import Testing

@Suite struct FilterTests {
  @Test(arguments: [("udp port 53", 80), ("icmp", 16), ("arp", 0), ("tcp or udp or icmp or arp", 324), ("", 324)])
  func `a filter lets through what it matches`(expression: String, atLeast: Int) throws {
    let all = Reading(committed("real.pcap"))
    let some = Reading(committed("real.pcap"), filter: expression)
    #expect(some.error == nil)
    #expect(some.frames.count >= atLeast)
    let kept = Set(some.frames)
    #expect(all.frames.filter(kept.contains) == some.frames)
  }

  @Test func `a filter and its opposite share out the frames`() {
    let all = Reading(committed("vlan.pcap")).frames.count
    let tagged = Reading(committed("vlan.pcap"), filter: "vlan").frames.count
    let others = Reading(committed("vlan.pcap"), filter: "not vlan").frames.count
    #expect(tagged == 180)
    #expect(tagged + others == all)
  }

  @Test(arguments: ["udp port", "nonsense here", "ether host 1.2.3.4.5", "port 70000"])
  func `a filter that does not compile is refused with the expression and libpcap's reason`(expression: String) {
    guard case .badFilter(expression, let reason) = Reading(committed("imix.pcap"), filter: expression).error else {
      Issue.record("accepted")
      return
    }
    #expect(!reason.isEmpty)
  }
}
