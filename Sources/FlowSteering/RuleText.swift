// The canonical text of a rule, one line:
//
//   [rule add] [id N] [group N] [prio N] [for NAME] match field=value... then action[, action...]
//
// `match any` has no pair. Between two rules the text is the whole truth: what is printed reads back as the same rule.

extension Rule {
  /// Reads one rule. Columns in errors are from 1, in UTF-8, of this text.
  public init(parsing text: some StringProtocol) throws(RuleError) {
    var reader = RuleReader(Substring(text))
    self = try reader.rule()
  }

  /// One line, without "rule add".
  public var text: String {
    var words: [String] = []
    if id != 0 { words.append("id \(id)") }
    if group != 0 { words.append("group \(group)") }
    if origin == .user { words.append("prio \(priority)") }
    if let owner { words.append("for \(owner)") }
    return (words + ["match \(match)", "then \(actions)"]).joined(separator: " ")
  }

  /// What becomes of its frames, as it is typed.
  public var actions: String { "\(decision)" + (counts ? ", count" : "") }
}

extension Rule.Target: CustomStringConvertible {
  public var description: String { "vm \(vm)" + (queue.map { ":\($0)" } ?? "") }
}

extension Rule.Decision: CustomStringConvertible {
  public var description: String {
    switch self {
    case .deliver(let targets): targets.map(\.description).joined(separator: ", ")
    case .queue(let queue): "queue \(queue)"
    case .drop: "drop"
    case .host: "host"
    }
  }
}

extension Match: CustomStringConvertible {
  public var description: String {
    pairs.isEmpty ? "any" : pairs.map { "\($0.field.name)=\($0.text)" }.joined(separator: " ")
  }
}
extension Match.Pair {
  /// Its value, as it is typed.
  public var text: String { PatternText.text(of: self) }
}

/// A line, word by word. A comma is a word of its own.
struct RuleReader {
  struct Word {
    let text: Substring
    /// In UTF-8, from 1.
    let column: Int
  }

  private let words: [Word]
  private var next = 0
  private let end: Int

  init(_ line: Substring) {
    var words: [Word] = []
    var start: Substring.Index?
    var column = 1
    var startColumn = 1
    func close(_ index: Substring.Index) {
      if let first = start { words.append(Word(text: line[first..<index], column: startColumn)) }
      start = nil
    }
    // Words are ASCII, so bytes will do: no part of another character is one of these.
    for index in line.utf8.indices {
      let byte = line.utf8[index]
      if byte == UInt8(ascii: "#") && start == nil { break }
      let isComma = byte == UInt8(ascii: ",")
      if isComma || byte == UInt8(ascii: " ") || (0x09...0x0D).contains(byte) {
        close(index)
        if isComma { words.append(Word(text: line[index..<line.utf8.index(after: index)], column: column)) }
      } else if start == nil {
        (start, startColumn) = (index, column)
      }
      column += 1
    }
    if start != nil { close(line.endIndex) }
    self.words = words
    end = line.utf8.count + 1
  }

  private var peek: Word? { next < words.count ? words[next] : nil }

  private func failure(_ reason: String, at word: Word?, offset: Int = 0, fit: String? = nil) -> RuleError {
    RuleError(.syntax, reason, fit: fit, column: word.map { $0.column + offset } ?? end)
  }

  private mutating func take(_ what: String) throws(RuleError) -> Word {
    guard let word = peek else { throw failure("the line ends where \(what) should stand", at: nil) }
    next += 1
    return word
  }
  private mutating func takeIf(_ text: String) -> Bool {
    guard peek?.text == text[...] else { return false }
    next += 1
    return true
  }

  private mutating func number(_ what: String, in range: ClosedRange<Int>) throws(RuleError) -> Int {
    let word = try take(what)
    guard let value = IPAddressText.decimal(word.text), range.contains(value) else {
      throw failure("\(what) is a number from \(range.lowerBound) to \(range.upperBound), not \"\(word.text)\"", at: word)
    }
    return value
  }

  mutating func rule() throws(RuleError) -> Rule {
    if takeIf("rule"), !takeIf("add") { throw failure("behind \"rule\" stands \"add\"", at: peek) }
    var rule = Rule(match: Match(), decision: .drop)
    var seen: Set<Substring> = []
    while let word = peek, ["id", "prio", "group", "for"].contains(word.text) {
      next += 1
      guard seen.insert(word.text).inserted else { throw failure("\(word.text) is given twice", at: word) }
      switch word.text {
      case "id": rule.id = try number("a rule's number", in: Rule.ids)
      case "prio": rule.priority = try number("a priority", in: Rule.priorities)
      case "group": rule.group = try number("a group", in: Rule.groups)
      default: rule.owner = try name()
      }
    }
    guard takeIf("match") else { throw failure("\"match\" should stand here", at: peek, fit: "a rule is: [id N] [group N] [prio N] [for NAME] match field=value... then action") }
    rule.match = try match()
    guard takeIf("then") else { throw failure("\"then\" should stand here", at: peek) }
    try actions(into: &rule)
    return rule
  }

  private mutating func name() throws(RuleError) -> String {
    let word = try take("a VM's name")
    guard Rule.isName(word.text) else {
      throw failure("a VM's name is 1 to 32 letters, digits, '.', '_' or '-', not \"\(word.text)\"", at: word)
    }
    return String(word.text)
  }

  private mutating func match() throws(RuleError) -> Match {
    if takeIf("any") { return Match() }
    var match = Match()
    guard let first = peek, first.text != "then" else { throw failure("a rule without conditions is written \"match any\"", at: peek) }
    while let word = peek, word.text != "then" {
      next += 1
      guard let sign = word.text.firstIndex(of: "=") else {
        throw failure("\"\(word.text)\" is no field=value; the fields are \(Field.names.joined(separator: ", ")) and flex@N", at: word)
      }
      let (name, value) = (word.text[..<sign], word.text[word.text.index(after: sign)...])
      guard Field.names.contains(String(name)) || name.hasPrefix("flex@") else {
        throw failure("no such field \"\(name)\"; there are \(Field.names.joined(separator: ", ")) and flex@N", at: word)
      }
      // Anything goes.
      if value == "any" { continue }
      let pair: Match.Pair
      do throws(PatternText.Failure) { pair = try PatternText.parse(value, of: name) } catch {
        throw failure("\(name): \(error.reason)", at: word, offset: name.utf8.count + 1 + error.offset)
      }
      if pair.field.isFlexible && match.pairs.count(where: \.field.isFlexible) == Match.mostFlexible {
        throw failure("a rule looks at \(Match.mostFlexible) flexible pairs of bytes at most", at: word)
      }
      do throws(Match.Conflict) { try match.insert(pair) } catch {
        throw failure(
          error.isTwice ? "\(name) is given twice" : "no frame can match both \(name)=\(value) and what is said of \(error.field.name)", at: word)
      }
    }
    return match
  }

  private mutating func actions(into rule: inout Rule) throws(RuleError) {
    var decision: Rule.Decision?
    repeat {
      let word = try take("an action")
      func set(_ new: Rule.Decision) throws(RuleError) {
        if case .deliver(let old)? = decision, case .deliver(let more) = new {
          guard !old.contains(where: { $0.vm == more[0].vm }) else { throw failure("VM \(more[0].vm) is named twice", at: word) }
          decision = .deliver(old + more)
        } else if let decision {
          throw failure("\(word.text) does not go with \"\(decision)\": a frame has one fate", at: word)
        } else {
          decision = new
        }
      }
      switch word.text {
      case "vm": try set(.deliver([try target()]))
      case "queue": try set(.queue(try number("a queue", in: 0...127)))
      case "drop": try set(.drop)
      case "host": try set(.host)
      case "count":
        guard !rule.counts else { throw failure("count is given twice", at: word) }
        rule.counts = true
      case "mirror":
        throw RuleError(.actionUnsupported, "mirror is not built", fit: "replay with --write to keep what a VM received", column: word.column)
      default: throw failure("no such action \"\(word.text)\"; there are vm NAME[:QUEUE], queue N, drop, host and count", at: word)
      }
    } while takeIf(",")
    guard let decision else { throw failure("count alone says nothing of where the frames go", at: peek) }
    if let word = peek { throw failure("\"\(word.text)\" is too much here", at: word, fit: "actions have commas between them") }
    rule.decision = decision
  }

  private mutating func target() throws(RuleError) -> Rule.Target {
    let word = try take("a VM's name")
    let parts = word.text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    guard Rule.isName(parts[0]) else {
      throw failure("a VM's name is 1 to 32 letters, digits, '.', '_' or '-', not \"\(parts[0])\"", at: word)
    }
    guard parts.count == 2 else { return Rule.Target(String(parts[0])) }
    guard let queue = IPAddressText.decimal(parts[1]), queue <= 127 else {
      throw failure("a queue is a number from 0 to 127, not \"\(parts[1])\"", at: word, offset: parts[0].utf8.count + 1)
    }
    return Rule.Target(String(parts[0]), queue: queue)
  }
}

extension Rule {
  /// What a VM may be called: 1 to 32 letters, digits, '.', '_' and '-'.
  public static func isName(_ text: some StringProtocol) -> Bool {
    (1...32).contains(text.utf8.count)
      && text.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
          true
        default: false
        }
      }
  }
}
