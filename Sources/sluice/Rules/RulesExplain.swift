import ArgumentParser
import FlowSteering
import FlowTables
import Replay

/// `sluice rules explain`
struct RulesExplain: CommandWithStatus {
  static let configuration = CommandConfiguration(
    commandName: "explain", abstract: "Say which rule takes a frame, in which of the card's tables, and why every other does not.",
    discussion: """
      Examples:
        sluice rules explain trace.pcap#17 --rules site.rules --vm dns --vm web,mac=02:00:00:00:00:01
        sluice rules explain ffffffffffff0200000000ee0806 --rules site.rules

      The frame is the N-th of a capture, from 1 (as Wireshark counts), or its bytes in hexadecimal from the destination \
      address on; spaces and colons between them do not matter.

      Exit statuses:
      \(ExitStatus.table(RulesValidate.statuses))
      """)

  @OptionGroup var set: RuleSetOptions
  @Argument(help: .init("FILE#N, or bytes in hexadecimal.", valueName: "frame"), completion: .file()) var frame: String
  @Flag(help: "Print the answer as JSON.") var json = false

  func finish() throws(Failure) -> ExitStatus {
    let program = try set.program(try set.rules())
    let bytes = try Self.bytes(frame)
    guard let explanation = Explanation(bytes.span, by: program) else {
      throw .usage("frame \(printable(frame)): \(plural(bytes.count, "byte")); an Ethernet header has 14")
    }
    let stream = StandardStream.output
    if json {
      try stream.write(JSONReport.encode(ExplanationJSON(explanation, program), isPretty: stream.isTerminal) + "\n")
    } else {
      try stream.write(Self.text(explanation, program, Style(isOn: stream.showsColour)))
    }
    return explanation.agrees ? .accounted : .unaccounted
  }

  static func bytes(_ text: String) throws(Failure) -> [UInt8] {
    if let hash = text.lastIndex(of: "#") {
      guard let count = Quantity.count(text[text.index(after: hash)...]), let number = Int(exactly: count), number >= 1 else {
        throw .usage("frame \(printable(text)): behind \"#\" stands the number of a frame, from 1")
      }
      do throws(ReplayError) { return try RuleTest.frame(number, of: String(text[..<hash])) } catch { throw Failure(error) }
    }
    let digits = text.filter { !$0.isWhitespace && $0 != ":" }
    var bytes: [UInt8] = []
    var index = digits.startIndex
    while index < digits.endIndex {
      let next = digits.index(index, offsetBy: 2, limitedBy: digits.endIndex) ?? digits.endIndex
      let pair = digits[index..<next]
      guard pair.utf8.count == 2, pair.first != "+", pair.first != "-", let byte = UInt8(pair, radix: 16) else {
        throw .usage("frame \(printable(text)): \"\(printable(String(pair)))\" is no byte in hexadecimal; a frame of a capture is FILE#N")
      }
      bytes.append(byte)
      index = next
    }
    return bytes
  }

  static func text(_ explanation: Explanation, _ program: CardProgram, _ style: Style) -> String {
    var lines = [style.bold("Frame")]
    lines += wrapped(explanation.fields.joined(separator: " "), width: 76).map { "  " + $0 }
    lines += ["", style.bold(program.profile.isIdeal ? "Taken, by the rules alone" : "Taken, on the \(program.profile.name)")]
    for copy in explanation.copies {
      let place =
        switch copy.fate {
        case "delivered": "VM \(copy.vm ?? "")" + (copy.queue.map { ", queue \($0)" } ?? "") + (copy.is_spread ? ", by RSS" : "")
        case "host": "the host"
        case "dropped": "dropped"
        default: "dropped: nobody's, and no rule takes it"
        }
      lines.append("  → " + (copy.fate == "delivered" || copy.fate == "host" ? style.good(place) : style.odd(place)))
      if let text = copy.addressText { lines.append("      address step: \(text)") } else { lines.append("      address step: no rule; it is nobody's") }
      if let text = copy.flowText { lines.append("      flow step:    \(text)") }
      lines.append("      entry:        \(copy.stage)")
    }
    if !explanation.others.isEmpty { lines += ["", style.bold("Not taken")] }
    for other in explanation.others { lines += ["  " + other.text, style.faint("      \(other.why)")] }
    let senders = program.senders.filter { $0.address != nil }
    if !senders.isEmpty {
      lines += ["", style.bold("Sent by VMs, unless one has spoof=allow")]
      for sender in senders {
        var what = "from \(sender.address.map { "\($0)" } ?? "") only (checked by the \(sender.addressChecker ?? "card"))"
        if let vlan = sender.vlan { what += ", in VLAN \(vlan) only (checked by the \(sender.vlanChecker ?? "card"))" }
        lines += wrapped("VM \(sender.vm): \(what)", width: 76).map { "  " + $0 }
      }
    }
    if !explanation.agrees { lines += ["", style.bad("The card's tables and the rules do not come to the same: a defect, please report it.")] }
    return lines.joined(separator: "\n") + "\n"
  }
}

/// The explanation's names in JSON.
private struct ExplanationJSON: Encodable {
  struct Copy: Encodable {
    let fate, stage: String
    let vm: String?
    let queue, address_rule, flow_rule: Int?
    let is_spread: Bool
  }
  struct Other: Encodable {
    let rule: Int
    let text, why: String
  }
  struct Sender: Encodable {
    let vm: String
    let mac: String?
    let vlan: Int?
    let source_check, vlan_check: String
  }
  let profile: String
  let fields: [String]
  /// What each VM may send, and what sees to it: `card`, `processor`, `off`.
  let senders: [Sender]
  let copies: [Copy]
  let others: [Other]
  let agrees: Bool

  init(_ explanation: Explanation, _ program: CardProgram) {
    profile = program.profile.name
    fields = explanation.fields
    senders = program.senders.map {
      Sender(
        vm: $0.vm, mac: $0.address.map { "\($0)" }, vlan: $0.vlan.map { Int($0) }, source_check: $0.addressChecker ?? "off",
        vlan_check: $0.vlanChecker ?? "off")
    }
    copies = explanation.copies.map { Copy(fate: $0.fate, stage: $0.stage, vm: $0.vm, queue: $0.queue, address_rule: $0.addressRule, flow_rule: $0.flowRule, is_spread: $0.is_spread) }
    others = explanation.others.map { Other(rule: $0.rule, text: $0.text, why: $0.why) }
    agrees = explanation.agrees
  }
}
