import ArgumentParser
import FlowSteering
import FlowTables

/// `sluice rules validate`
struct RulesValidate: CommandWithStatus {
  static let statuses: [(ExitStatus, String)] = [
    (.accounted, "the card does exactly what the rules say"), (.unaccounted, "a rule cannot be had; the error says which, why, and what would do"),
    (.usage, "bad usage"), (.unreadable, "a file cannot be read"),
  ]
  static let configuration = CommandConfiguration(
    commandName: "validate", abstract: "Check rules against a card, without one: which tables they take, and what is left.",
    discussion: """
      Examples:
        sluice rules validate 'match eth.type=ip udp.dst=53 then vm dns'
        sluice rules validate --rules site.rules --vm web,mac=02:00:00:00:00:01,queues=2 --vm dns
        sluice rules validate --rules site.rules --profile 82576 --json

      Exit statuses:
      \(ExitStatus.table(statuses))
      """)

  @OptionGroup var set: RuleSetOptions
  @Argument(help: .init("A rule, as one argument.", valueName: "rule")) var texts: [String] = []
  @Flag(help: "Print the answer as JSON.") var json = false

  func finish() throws(Failure) -> ExitStatus {
    let rules = try set.rules(and: texts)
    let usage = TableUsage(try set.program(rules))
    let stream = StandardStream.output
    if json {
      try stream.write(JSONReport.encode(usage, isPretty: stream.isTerminal) + "\n")
    } else {
      try stream.write(usage.text(Style(isOn: stream.showsColour)))
    }
    return .accounted
  }
}

/// What rules take of a card's tables.
struct TableUsage: Encodable {
  struct Table: Encodable {
    let name: String
    let used: Int
    let size: Int
  }
  struct Place: Encodable {
    /// 0: it follows from a VM.
    let id: Int
    let text: String
    let tables: [String]
  }
  let profile: String
  let tables: [Table]
  let rules: [Place]

  init(_ program: CardProgram) {
    profile = program.profile.name
    let card = program.profile
    guard let made = program.tables else {
      tables = []
      rules = program.steering.rules.map { Place(id: $0.id, text: $0.text, tables: []) }
      return
    }
    tables = made.fill(of: card).map { Table(name: $0.name, used: $0.used, size: $0.size) }
    var places: [Int: [String]] = [:]
    func place(_ rule: Int, _ name: String) { if places[rule]?.last != name { places[rule, default: []].append(name) } }
    for filter in made.etherTypes { place(filter.rule, "EtherType filter") }
    if let syn = made.syn { place(syn.rule, "SYN filter") }
    for filter in made.fiveTuples { place(filter.rule, "five-tuple filter") }
    for flow in made.exactFlows { place(flow.rule, "flow director") }
    rules = program.steering.rules.map { rule in
      var names = places[rule.id] ?? []
      if rule.step == .address && names.isEmpty { names = Self.addressTables(rule) }
      return Place(id: rule.id, text: rule.text, tables: rule.id == 0 ? Self.addressTables(rule) : names.isEmpty ? ["nothing: earlier rules take all its frames"] : names)
    }
  }

  private static func addressTables(_ rule: Rule) -> [String] {
    var names: [String] = []
    switch rule.match[.ethernetDestination] {
    case .bits(let value, let mask)? where mask == Field.ethernetDestination.fullMask && value != mask: names.append("receive address")
    default: if rule.match[.etherType] == nil { names.append("pool") }
    }
    if rule.match[.vlanID] != nil { names.append("VLAN filter") }
    return names
  }

  func text(_ style: Style) -> String {
    let own = rules.count { $0.id != 0 }
    var lines = [style.bold("\(plural(own, "rule")) on the \(profile): \(tables.isEmpty ? "it can do everything" : "exact, proved")")]
    for table in tables {
      lines.append("  " + rightPadded(table.name, to: 20) + leftPadded(grouped(table.used), to: 6) + " of " + rightPadded(grouped(table.size), to: 6) + style.faint("  \(grouped(table.size - table.used)) left"))
    }
    if !rules.isEmpty { lines.append("") }
    for rule in rules {
      lines.append("  " + rule.text)
      if !rule.tables.isEmpty { lines.append(style.faint("      → " + rule.tables.joined(separator: ", "))) }
    }
    return lines.joined(separator: "\n") + "\n"
  }
}
