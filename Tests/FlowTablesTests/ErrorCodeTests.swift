import FlowSteering
import Testing

@testable import FlowTables

/// Vectors of Microsoft's verification suite for RSS.
@Suite struct ScalingHashTests {
  @Test(arguments: [
    ([66, 9, 149, 187], [161, 142, 100, 80], 2794, 1766, 0x51cc_c178, 0x323e_8fc2), ([199, 92, 111, 2], [65, 69, 140, 83], 14230, 4739, 0xc626_b0ea, 0xd718_262a),
    ([24, 19, 198, 95], [12, 22, 207, 184], 12898, 38024, 0x5c2b_394a, 0xd2d0_a5de),
  ] as [([UInt8], [UInt8], Int, Int, UInt32, UInt32)])
  func `hashes are those of the suite`(_ source: [UInt8], _ destination: [UInt8], _ from: Int, _ to: Int, _ withPorts: UInt32, _ without: UInt32) {
    let ports = [from >> 8, from & 255, to >> 8, to & 255].map { UInt8($0) }
    #expect(ScalingHash.toeplitz(source + destination + ports) == withPorts)
    #expect(ScalingHash.toeplitz(source + destination) == without)
  }
}

/// Each error by a case that a user would really hit: the message names field, limit, holder, and what would fit.
@Suite struct ErrorCodeTests {
  private static let web = Receiver(name: "web", queueCount: 2, address: .local(1))
  private static let dns = Receiver(name: "dns")

  private func refusal(_ texts: [String], _ receivers: [Receiver] = [web, dns], _ card: CardProfile = .intel82599) -> RuleError? {
    do throws(RuleError) {
      var rules: [Rule] = []
      for text in texts { rules.append(try Rule(parsing: text)) }
      _ = try CardProgram(Steering(rules, for: receivers), for: card)
      return nil
    } catch { return error }
  }

  private func expect(
    _ code: RuleError.Code, _ words: [String], holder: String? = nil, field: String? = nil, _ texts: [String], _ receivers: [Receiver] = [web, dns],
    _ card: CardProfile = .intel82599, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    guard let error = refusal(texts, receivers, card) else {
      Issue.record("nothing was refused", sourceLocation: sourceLocation)
      return
    }
    #expect(error.code == code, "\(error)", sourceLocation: sourceLocation)
    for word in words { #expect("\(error)".contains(word), "\(error) lacks \(word)", sourceLocation: sourceLocation) }
    if let holder { #expect(error.holder == holder, "\(error)", sourceLocation: sourceLocation) }
    if let field { #expect(error.field == field, "\(error)", sourceLocation: sourceLocation) }
  }

  @Test func `a second mask`() {
    expect(
      .maskConflict, ["ip.src", "/20", "/24", "rule 3", "one mask for the port", "fits if rule 3 is changed", "five-tuple"], holder: "rule 3", field: "ip.src",
      ["id 3 match ip.src=10.1.1.0/24 then vm dns", "id 12 match ip.src=10.2.16.0/20 then vm dns"])
  }

  @Test func `the 129th five-tuple filter`() {
    // Ports alone are for a mask that addresses do not have.
    let rules = ["id 1 match ip.src=10.9.0.0/16 then vm dns"] + (2...130).map { "id \($0) match eth.type=ip udp.dst=\($0) then vm dns" }
    expect(.tableFull, ["128 five-tuple filters", "82599", "rule 1"], holder: "rule 1", rules)
    #expect(refusal(Array(rules.prefix(129))) == nil)
  }

  @Test func `more exact flows than flow director holds`() {
    let rules = (0..<8191).map { "match ip.src=10.\($0 >> 8).\($0 & 255).1 ip.dst=192.0.2.1 tcp.src=1 tcp.dst=2 then vm dns" }
    expect(.tableFull, ["8191 exact flows", "8190", "remove 1"], rules)
  }

  @Test func `the ninth EtherType`() {
    let rules = (0..<9).map { "id \($0 + 1) match eth.type=0x\(String(0x88B0 + $0, radix: 16)) then vm dns" }
    expect(.tableFull, ["eth.type=0x88b8", "8 EtherType filters"], field: "eth.type", rules)
    #expect(refusal(Array(rules.prefix(8))) == nil)
  }

  @Test func `the 129th address, the 65th VLAN`() {
    expect(.tableFull, ["128 addresses", "eth.dst=02:00:00:00:01:"], field: "eth.dst", (1...129).map { "match eth.dst=02:00:00:00:01:\(hex($0)) then vm dns" })
    expect(.tableFull, ["64 VLANs"], field: "vlan.id", (1...65).map { "match vlan.id=\($0) then vm dns" }, [Self.dns, Receiver(name: "x")])
  }
  private func hex(_ n: Int) -> String { (n < 16 ? "0" : "") + String(n, radix: 16) }

  @Test func `two ways at one priority`() {
    expect(
      .overlap, ["vm web", "vm dns", "priority 100", "prio 99"], holder: "rule 1",
      ["id 1 match eth.type=ip udp.dst=53 then vm dns", "id 2 match ip.src=10.0.0.1 ip.frag=no then vm web"])
    #expect(refusal(["id 1 match eth.type=ip udp.dst=53 then vm dns", "id 2 prio 99 match ip.src=10.0.0.1 ip.frag=no then vm web"]) == nil)
  }

  @Test func `a mask that no filter has`() {
    expect(.fieldUnsupported, ["ip.src", "whole bytes", "five-tuple"], field: "ip.src", ["match ip.src=2001:db8::/33 then vm dns"])
    expect(.fieldUnsupported, ["eth.dst=52:54:00:00:00:00/24", "whole", "128"], field: "eth.dst", ["match eth.dst=52:54:00:00:00:00/24 then vm dns"])
    expect(.fieldUnsupported, ["ip.tos", "leave ip.tos out"], field: "ip.tos", ["match ip.src=10.0.0.1 ip.tos=184 then vm dns"])
    expect(.fieldUnsupported, ["IPv6 too", "add eth.type=ip"], ["match sctp.dst=1 then vm dns"])
    expect(.fieldUnsupported, ["destination", "card's own address"], field: "ip.dst", ["match ip.dst=2001:db8::1 then vm dns"])
    expect(.fieldUnsupported, ["vlan.pcp"], field: "vlan.pcp", ["match vlan.pcp=5 then vm dns"])
    expect(.fieldUnsupported, ["eth.src"], field: "eth.src", ["match eth.src=02:00:00:00:00:09 then drop"])
    expect(.fieldUnsupported, ["for web"], field: "eth.dst", ["match eth.dst=02:00:00:00:00:01 eth.type=ip tcp.dst=80 then vm web:1"])
    expect(.fieldUnsupported, ["not for IP"], field: "eth.type", ["match eth.type=ip then vm dns"])
  }

  /// 82576 8.10.21, I350 4.6.11.1.1: of the filters that name a queue few do where VMs have pools.
  @Test func `a filter that does not work with pools`() {
    let vms = [Self.dns, Receiver(name: "x")]
    let rules = [
      "match ip.src=10.0.0.1 ip.frag=no then vm dns", "match tcp.flags=syn/syn then drop", "for x match eth.type=ip udp.dst=53 then queue 0",
      "for x match ip.proto=udp then queue 0",
    ]
    for rule in rules {
      expect(.fieldUnsupported, ["82576", "no filters for IP", "pools", "steer by eth.dst or vlan.id"], [rule], vms, .intel82576)
      expect(.fieldUnsupported, ["i350", "no filters for IP", "pools", "steer by eth.dst, vlan.id or eth.type"], [rule], vms, .intelI350)
    }
    expect(
      .fieldUnsupported, ["82576", "no EtherType filters", "pools", "steer by eth.dst or vlan.id"], field: "eth.type", ["match eth.type=lldp then vm dns"], vms, .intel82576)
    expect(.fieldUnsupported, ["82576", "no EtherType filters"], field: "eth.type", ["match eth.type=ip then vm dns"], vms, .intel82576)
  }

  @Test func `flow director gets the mask with which the rest has room, not the most frequent one`() {
    func rules(_ part: Int) -> [String] {
      (0..<part).map { "match ip.dst=10.1.0.\($0) udp.dst=7 then vm dns" }
        + (0..<60).map { "match ip.src=10.0.0.\($0) ip.dst=10.9.9.9 tcp.src=1 tcp.dst=2 then vm dns" }
        + (0..<90).map { "match ip.src=10.0.0.\($0) ip.dst=10.9.9.9 udp.src=1 udp.dst=2 then vm dns" }
    }
    // 100 rules have one mask; 60 of TCP and 90 of UDP have two that go together.
    #expect(refusal(rules(100)) == nil)
    #expect(refusal(rules(128)) == nil)
    expect(.tableFull, ["128 five-tuple filters"], rules(129))
  }

  @Test func `a rule that must be counted has frames that can be told from others`() throws {
    func check(_ texts: String...) throws {
      let rules = try texts.map { try Rule(parsing: $0) }
      try CardProgram(Steering(rules, for: [Receiver(name: "web", address: .local(1)), Receiver(name: "dns")]), for: .intel82599).checkCounts()
    }
    // All VLANs of it go to web, so that no VLAN needs an entry.
    let mixed = "match eth.dst=02:00:00:00:00:01 vlan.id=7 then vm web"
    #expect { try check(mixed + ", count") } throws: {
      ($0 as? RuleError)?.code == .actionUnsupported && "\($0)".contains("count") && "\($0)".contains("rules test")
    }
    try check(mixed)
    try check("match eth.dst=02:00:00:00:00:09 then drop, count", "match udp.dst=53 then drop, count")
  }

  @Test func `what only one can have`() {
    expect(.actionUnsupported, ["names one queue", "eth.dst"], ["match eth.type=ip udp.dst=53 then vm dns, vm web"])
    expect(.actionUnsupported, ["names one VM"], ["match eth.type=arp then vm dns, vm web"])
    expect(.actionUnsupported, ["not a queue", "for web"], ["match eth.dst=02:00:00:00:00:07 then vm web:1"])
  }

  @Test func `an order that the card does not have`() {
    expect(
      .priority, ["flow director", "rule 2", "five-tuple"], holder: "rule 2",
      ["id 1 prio 1 match ip.src=10.0.0.0/8 then drop", "id 2 prio 2 match eth.type=ip udp.dst=53 then vm dns"])
    expect(
      .priority, ["EtherType", "before"], holder: "rule 2", ["id 1 prio 1 match eth.dst=02:00:00:00:00:01 then vm web", "id 2 prio 2 match eth.type=ptp then vm dns"])
    // Eight, each within the one before.
    let chain = (0..<8).map { "id \($0 + 1) prio \($0) match ip.src=10.0.0.1 udp.dst=\($0 + 1) then vm dns" }
    #expect(refusal(chain) == nil)
    let nested = ["for web", ""].flatMap { owner in
      ["ip.src=10.0.0.1 ip.dst=10.0.0.2 udp.src=1 udp.dst=2", "ip.src=10.0.0.1 ip.dst=10.0.0.2 udp.dst=2", "ip.src=10.0.0.1 udp.dst=2", "eth.type=ip udp.dst=2", "eth.type=ip ip.frag=no"].map { "\(owner) match \($0)" }
    }
    let rules = nested.enumerated().map { "prio \($0.offset) \($0.element) then \($0.offset % 2 == 0 ? "drop" : "vm dns")" }
    expect(.priority, ["7 priorities", "8th"], rules)
  }

  @Test func `nobody there`() {
    expect(.noSuchVM, ["no VM is called dsn", "web, dns", "did you mean dns?"], ["match eth.type=ip udp.dst=53 then vm dsn"])
    expect(.noSuchQueue, ["web has no queue 2", "0 to 1"], ["for web match eth.type=ip tcp.dst=80 then queue 2"])
    expect(.noSuchQueue, ["dns has no queue 1"], ["match eth.type=ip udp.dst=53 then vm dns:1"])
  }

  @Test func `what is there already`() {
    expect(.duplicate, ["this number"], ["id 1 match eth.type=arp then vm dns", "id 1 match eth.type=ptp then vm dns"])
    expect(.duplicate, ["it matches what rule 1 matches"], holder: "rule 1", ["id 1 match eth.type=arp then vm dns", "id 2 match eth.type=arp then vm web"])
  }

  @Test func `an address that two claim at one priority`() {
    expect(.duplicate, ["rule 1"], holder: "rule 1", ["id 1 match eth.dst=02:00:00:00:00:07 then vm dns", "id 2 match eth.dst=02:00:00:00:00:07 then vm web"])
  }

  @Test func `addresses and VLANs that are no product`() {
    expect(
      .fieldUnsupported, ["by address and by VLAN apart"],
      ["match eth.dst=02:00:00:00:00:07 vlan.id=1 then vm dns", "match eth.dst=02:00:00:00:00:08 vlan.id=2 then vm dns"], [Self.dns, Receiver(name: "x")])
  }

  @Test func `more VMs than pools`() {
    let many = (0..<30).map { Receiver(name: "v\($0)", queueCount: 4, address: .local($0 + 1)) }
    expect(.tableFull, ["30 VMs", "29"], [], many)
    #expect(refusal([], Array(many.dropLast())) == nil)
  }

  @Test func `every profile compiles the plainest rules, and the ideal card everything`() {
    for card in CardProfile.all {
      #expect(refusal(["match eth.dst=02:00:00:00:00:07 then vm dns"], [Self.dns, Receiver(name: "x")], card) == nil, "\(card.name)")
    }
    #expect(refusal(["match eth.src=02:00:00:00:00:00/44 ip.tos=3 udp.dst=1-1000 flex@77=1/1 then vm dns, vm web:1"], [Self.web, Self.dns], .ideal) == nil)
  }

  @Test func `one more rule that touches no other is added without the rest`() throws {
    var program = try CardProgram(Steering([Rule(parsing: "match eth.type=ip udp.dst=53 then vm dns")], for: [Self.web, Self.dns]), for: .intel82599)
    let added = try #require(try program.add(Rule(parsing: "match eth.type=ip udp.dst=54 then vm dns")))
    #expect(added.rule.id == 2 && program.steering.userRules.count == 2 && program.tables?.fiveTuples.count == 2)
    // These touch others, or change more than one filter.
    for text in [
      "match eth.type=ip ip.frag=no then drop", "match eth.type=arp then vm web", "match udp.dst=9 then vm dns", "match tcp.flags=syn/syn then drop",
      "match eth.type=ip udp.dst=60-70 then vm dns", "for web match eth.type=ip udp.dst=53 then queue 1",
    ] {
      #expect(try program.add(Rule(parsing: text)) == nil, "\(text)")
    }
    #expect(program.steering.userRules.count == 2)
    // As compiled whole.
    let whole = try CardProgram(Steering(program.steering.userRules, for: [Self.web, Self.dns]), for: .intel82599)
    #expect(Set(whole.tables?.fiveTuples.map(\.key) ?? []) == Set(program.tables?.fiveTuples.map(\.key) ?? []))
  }
}

func == (a: (rule: Rule, filter: CardProgram.Addition)?, b: Optional<Never>) -> Bool { a.map { _ in false } ?? true }
