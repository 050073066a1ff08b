public import FlowSteering

/// What a line asks for.
public enum RuleCommand: Hashable, Sendable {
  case add(Rule)
  /// Says whether a rule could be had, and changes nothing.
  case validate(Rule)
  case delete(id: Int)
  /// Without a VM: all rules.
  case flush(vm: String?)
}

extension RuleCommand {
  /// Reads one line; nil if it is blank or a comment.
  ///
  /// A backslash before the end of a line joins it with the next one.
  /// - Parameter dialect: nil: how the line starts tells.
  /// - Throws: columns are from 1, in UTF-8, of the text as given.
  public init?(parsing line: some StringProtocol, in context: DialectContext, as dialect: Dialect? = nil) throws(RuleError) {
    let text = Self.joined(String(line))
    var words = Words(text)
    if words.isAtEnd { return nil }
    switch dialect ?? Dialect(of: text) {
    case .native: self = try Self.native(text, words)
    case .ethtool:
      words.skipPrompt()
      var reader = EthtoolReader(words: words, context: context)
      self = try reader.command()
    case .testpmd:
      words.skipPrompt()
      var reader = TestpmdReader(words: words, context: context)
      self = try reader.command()
    case .tc:
      words.skipPrompt()
      var reader = FlowerReader(words: words, context: context)
      self = try reader.command()
    }
  }

  /// Of a file.
  public struct Numbered: Hashable, Sendable {
    /// Where it starts, from 1.
    public var line: Int
    public var command: RuleCommand
    public init(line: Int, command: RuleCommand) {
      self.line = line
      self.command = command
    }
  }

  /// Reads a file, each line in its own dialect unless one is given.
  ///
  /// - Throws: the first mistake, with the line and the column in that line, also where lines are joined.
  public static func commands(
    in text: some StringProtocol, context: DialectContext, as dialect: Dialect? = nil
  ) throws(RuleError) -> [Numbered] {
    var result: [Numbered] = []
    let lines = String(text).utf8.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    var next = 0
    while next < lines.count {
      let first = next
      while next + 1 < lines.count, endsInBackslash(lines[next]) { next += 1 }
      next += 1
      let command: RuleCommand?
      do throws(RuleError) {
        let whole = lines[first..<next].map { String(Substring($0)) }.joined(separator: "\n")
        command = try RuleCommand(parsing: whole, in: context, as: dialect)
      } catch {
        var (error, line) = (error, first)
        while let column = error.column, line + 1 < next, column > lines[line].count + 1 {
          error.column = column - lines[line].count - 1
          line += 1
        }
        error.line = line + 1
        throw error
      }
      if let command { result.append(Numbered(line: first + 1, command: command)) }
    }
    return result
  }

  /// A comment ends with its line.
  private static func endsInBackslash(_ line: Substring.UTF8View) -> Bool {
    var line = line
    if line.first(where: { $0 != UInt8(ascii: " ") && $0 != UInt8(ascii: "\t") }) == UInt8(ascii: "#") { return false }
    if line.last == UInt8(ascii: "\r") { line.removeLast() }
    return line.last == UInt8(ascii: "\\")
  }

  /// Ends of lines, and backslashes before them, as spaces: no column moves.
  private static func joined(_ text: String) -> String {
    var bytes = Array(text.utf8)
    for index in bytes.indices where bytes[index] == UInt8(ascii: "\n") {
      bytes[index] = UInt8(ascii: " ")
      var before = index - 1
      if before >= 0, bytes[before] == UInt8(ascii: "\r") { before -= 1 }
      if before >= 0, bytes[before] == UInt8(ascii: "\\") { bytes[before] = UInt8(ascii: " ") }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  private static func native(_ text: String, _ words: Words) throws(RuleError) -> RuleCommand {
    var words = words
    guard words.takeIf("rule"), let verb = words.peek else { return .add(try Rule(parsing: text)) }
    switch verb.text {
    case "del", "delete":
      words.skip()
      let id = try words.id("a rule's number")
      try words.expectEnd()
      return .delete(id: id)
    case "flush":
      words.skip()
      guard words.takeIf("vm") else {
        try words.expectEnd(fit: "rule flush [vm NAME]")
        return .flush(vm: nil)
      }
      let word = try words.take("a VM's name")
      guard Rule.isName(word.text) else { throw words.failure("\"\(word.text)\" is no VM's name", at: word) }
      try words.expectEnd()
      return .flush(vm: String(word.text))
    case "validate":
      // The words before the rule as spaces: no column moves.
      let length = verb.column - 1 + verb.text.utf8.count
      let start = text.utf8.index(text.utf8.startIndex, offsetBy: length)
      let blank = String(repeating: " ", count: length)
      return .validate(try Rule(parsing: blank + text[start...]))
    default: return .add(try Rule(parsing: text))
    }
  }
}

extension Rule {
  /// One line that says exactly this in a dialect; for a foreign one, of its canonical form.
  ///
  /// - Throws: what the dialect cannot say: `.fieldUnsupported`, `.actionUnsupported` or `.priority`, with the field, and
  ///   `.noSuchVM`.
  public func text(in dialect: Dialect, context: DialectContext) throws(RuleError) -> String {
    if dialect == .native { return text }
    guard origin == .user else {
      throw RuleError(
        .actionUnsupported, "\(label) follows from its address and is nobody's to write", fit: "write the users' rules only",
        rule: label, field: "origin")
    }
    switch dialect {
    case .native: return text
    case .ethtool: return try EthtoolWriter(rule: self, context: context).line()
    case .testpmd: return try TestpmdWriter(rule: self, context: context).line()
    case .tc: return try FlowerWriter(rule: self, context: context).line()
    }
  }

  /// Writing: a field of the match that a dialect cannot say.
  func refusal(_ field: Field, _ reason: String, fit: String? = nil) -> RuleError {
    RuleError(.fieldUnsupported, "\(field.name): \(reason)", fit: fit, rule: label, field: field.name)
  }
  /// Writing: something else that a dialect cannot say.
  func refusal(_ code: RuleError.Code, of field: String, _ reason: String, fit: String? = nil) -> RuleError {
    RuleError(code, "\(field): \(reason)", fit: fit, rule: label, field: field)
  }
}
