import ArgumentParser
import FlowTables

/// `sluice rules capabilities`
struct RulesCapabilities: CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "capabilities", abstract: "Show what cards can match, and how much of it.",
    discussion: """
      Examples:
        sluice rules capabilities
        sluice rules capabilities --profile 82576 --json
      """)

  @Option(help: .init("One card: 82599, 82576, i350 or ideal.", valueName: "card"), completion: .list(CardProfile.all.map(\.name))) var profile: String?
  @Flag(help: "Print the answer as JSON.") var json = false

  struct Card: Encodable {
    let name: String
    let everything: Bool
    var addresses, vlans, ethertypes, syn, five_tuples, five_tuple_priorities: Int?
    var exact_flows: [Int] = []
    var pools: [String] = []
    var fields: [String]
  }

  func finish() throws(Failure) -> ExitStatus {
    if let profile, CardProfile.named(profile) == nil {
      throw .usage("--profile", profile, "no such card; there are \(CardProfile.all.map(\.name).joined(separator: ", "))")
    }
    let cards = CardProfile.all.filter { profile == nil || $0.name == profile }.map(Self.card)
    let stream = StandardStream.output
    if json {
      try stream.write(JSONReport.encode(cards, isPretty: stream.isTerminal) + "\n")
    } else {
      let style = Style(isOn: stream.showsColour)
      try stream.write(cards.map { Self.text($0, style) }.joined(separator: "\n"))
    }
    return .accounted
  }

  private static func card(_ profile: CardProfile) -> Card {
    guard !profile.isIdeal else { return Card(name: profile.name, everything: true, fields: ["every field, mask and range"]) }
    var fields = [
      "eth.dst: \(grouped(profile.receiveAddresses)) whole addresses, and all unicast, multicast or broadcast", "vlan.id: \(profile.vlanFilters) VLANs, and frames without a tag",
    ]
    if profile.etherTypeFilters > 0 {
      fields.append("eth.type: \(profile.etherTypeFilters) types but IP's" + (profile.etherTypeChoosesPool ? "" : ", where one VM alone would get the frame"))
    }
    if profile.hasSYNFilter { fields.append("tcp.flags=syn/syn: one rule") }
    if profile.fiveTupleFilters > 0 {
      fields.append("ip.src ip.dst ports ip.proto of IPv4, no fragments: \(profile.fiveTupleFilters) rules, each field whole or not at all, \(profile.fiveTuplePriorities) priorities")
    }
    if let most = profile.exactFlows.last {
      fields.append(
        "ip.src ip.dst, IPv6's ip.src, ports, vlan.id, vlan.pcp, flex@N, \"for VM\": up to \(grouped(most.filters)) rules, with one mask for all, and no order among them")
    }
    return Card(
      name: profile.name, everything: false, addresses: profile.receiveAddresses, vlans: profile.vlanFilters, ethertypes: profile.etherTypeFilters,
      syn: profile.hasSYNFilter ? 1 : 0, five_tuples: profile.fiveTupleFilters, five_tuple_priorities: profile.fiveTuplePriorities,
      exact_flows: profile.exactFlows.map(\.filters), pools: profile.pools.map { "\($0.count - 3) VMs of up to \(plural($0.queuesEach, "queue"))" }, fields: fields)
  }

  private static func text(_ card: Card, _ style: Style) -> String {
    var lines = [style.bold(card.name)]
    if !card.pools.isEmpty { lines.append("  " + card.pools.joined(separator: ", or ")) }
    for field in card.fields {
      for (index, line) in wrapped(field, width: 76).enumerated() { lines.append((index == 0 ? "  " : "    ") + line) }
    }
    return lines.joined(separator: "\n") + "\n"
  }
}
