import FlowSteering

/// A line, word by word. What follows a "#" at the start of a word is a comment.
struct Words {
  struct Word {
    let text: Substring
    /// In UTF-8, from 1.
    let column: Int
  }

  private let words: [Word]
  private(set) var next = 0
  private let end: Int

  init(_ line: String) {
    var words: [Word] = []
    var start: String.Index?
    var (column, startColumn) = (1, 1)
    let bytes = line.utf8
    var index = bytes.startIndex
    while index < bytes.endIndex {
      let byte = bytes[index]
      if Self.isSpace(byte) {
        if let first = start { words.append(Word(text: line[first..<index], column: startColumn)) }
        start = nil
      } else if start == nil {
        if byte == UInt8(ascii: "#") { break }
        (start, startColumn) = (index, column)
      }
      index = bytes.index(after: index)
      column += 1
    }
    if let first = start { words.append(Word(text: line[first...], column: startColumn)) }
    self.words = words
    end = bytes.count + 1
  }

  private static func isSpace(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || (9...13).contains(byte) }

  var peek: Word? { next < words.count ? words[next] : nil }
  var isAtEnd: Bool { next >= words.count }
  /// The word taken last.
  var last: Word? { next > 0 ? words[next - 1] : nil }
  mutating func skip() { next += 1 }

  /// What people copy along from a terminal.
  mutating func skipPrompt() {
    while let word = peek, word.text == "$" || word.text == "sudo" { next += 1 }
  }

  func failure(_ reason: String, at word: Word?, offset: Int = 0, fit: String? = nil) -> RuleError {
    RuleError(.syntax, reason, fit: fit, column: column(of: word) + offset)
  }
  /// What is there to be read, but not to be had.
  func refusal(
    _ code: RuleError.Code = .fieldUnsupported, of field: String, _ reason: String, at word: Word?, fit: String? = nil
  ) -> RuleError {
    RuleError(code, "\(field): \(reason)", fit: fit, field: field, column: column(of: word))
  }
  func column(of word: Word?) -> Int { word?.column ?? end }

  mutating func take(_ what: String) throws(RuleError) -> Word {
    guard let word = peek else { throw failure("the line ends where \(what) should stand", at: nil) }
    next += 1
    return word
  }
  mutating func takeIf(_ text: String) -> Bool {
    guard peek?.text == text[...] else { return false }
    next += 1
    return true
  }
  func expectEnd(fit: String? = nil) throws(RuleError) {
    if let word = peek { throw failure("\"\(word.text)\" is too much here", at: word, fit: fit) }
  }

  /// Any notation of C: 10, 0xa, 012.
  mutating func number(_ what: String, to most: UInt64) throws(RuleError) -> UInt64 {
    let word = try take(what)
    return try number(word, what, to: most)
  }
  func number(_ word: Word, _ what: String, to most: UInt64) throws(RuleError) -> UInt64 {
    guard let value = Number.parse(word.text), value <= most else {
      throw failure("\(what) is a number from 0 to \(most), not \"\(word.text)\"", at: word)
    }
    return value
  }
  mutating func id(_ what: String) throws(RuleError) -> Int {
    let word = try take(what)
    guard let value = Number.parse(word.text), value <= UInt64(Rule.ids.upperBound), Rule.ids.contains(Int(value)) else {
      throw failure(
        "\(what) is from \(Rule.ids.lowerBound) to \(Rule.ids.upperBound), not \"\(word.text)\"", at: word,
        fit: word.text == "0" ? "rules are numbered from 1 here" : nil)
    }
    return Int(value)
  }
  mutating func queue(radix: Int? = nil) throws(RuleError) -> Int {
    let word = try take("a queue")
    guard let value = Number.parse(word.text, radix: radix), value <= UInt64(Number.lastQueue) else {
      throw failure("a queue is a number from 0 to \(Number.lastQueue), not \"\(word.text)\"", at: word)
    }
    return Int(value)
  }
}

extension Words {
  /// Adds what a word has said.
  func insert(_ pair: Match.Pair, into match: inout Match, at word: Word) throws(RuleError) {
    do throws(Match.Conflict) { try match.insert(pair) } catch {
      throw failure(
        error.isTwice ? "\(pair.field.name) is given twice" : "no frame can match both \(pair.field.name)=\(pair.text) and what is said of \(error.field.name)",
        at: word)
    }
  }
}


/// Numbers and addresses as C programs read them.
enum Number {
  /// The last queue that a rule can name.
  static let lastQueue = 127

  /// - Parameter radix: nil: as the number starts, with 0x or 0. With 16, a 0x may stand before it.
  static func parse(_ text: Substring, radix: Int? = nil) -> UInt64? {
    var (digits, radix) = (text, radix ?? 0)
    if radix == 0 || radix == 16, text.hasPrefix("0x") || text.hasPrefix("0X") {
      (digits, radix) = (text.dropFirst(2), 16)
    } else if radix == 0 {
      radix = text.hasPrefix("0") ? 8 : 10
    }
    guard !digits.isEmpty, digits.utf8.allSatisfy(isDigit) else { return nil }
    return UInt64(digits, radix: radix)
  }
  /// No sign.
  private static func isDigit(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"), UInt8(ascii: "A")...UInt8(ascii: "F"): true
    default: false
    }
  }

  /// Six octets of one or two digits.
  static func ethernet(_ text: Substring) -> UInt128? {
    let octets = text.split(separator: ":", omittingEmptySubsequences: false)
    guard octets.count == 6 else { return nil }
    var value: UInt128 = 0
    for octet in octets {
      guard octet.utf8.count <= 2, let number = parse(octet, radix: 16) else { return nil }
      value = value << 8 | UInt128(number)
    }
    return value
  }
  static func ip(_ text: Substring, _ version: IPVersion) -> UInt128? {
    version == .v6 ? IPAddressText.parse6(text) : IPAddressText.parse4(text).map { UInt128($0) }
  }
  /// A field's value: an address or a number.
  static func value(_ text: Substring, of field: Field) -> UInt128? {
    if field.isEthernetAddress { return ethernet(text) }
    if let version = field.ipVersion { return ip(text, version) }
    return parse(text).map { UInt128($0) }.flatMap { $0 <= field.fullMask ? $0 : nil }
  }

  static func hexadecimal(_ value: UInt128) -> String { "0x" + String(value, radix: 16) }
  /// A field's value as all three dialects write it.
  static func text(_ value: UInt128, of field: Field) -> String {
    if field.isEthernetAddress { return MACAddress(UInt64(value)).description }
    if let version = field.ipVersion { return version == .v6 ? IPAddressText.text6(value) : IPAddressText.text4(UInt32(value)) }
    switch field {
    case .etherType, .ipTOS, .tcpFlags, .flexible: return hexadecimal(value)
    default: return String(value)
    }
  }
  static func maskText(_ mask: UInt128, of field: Field) -> String {
    field.isEthernetAddress || field.ipVersion != nil ? text(mask, of: field) : hexadecimal(mask)
  }
}

extension Field {
  var isEthernetAddress: Bool { self == .ethernetDestination || self == .ethernetSource }
}

extension IPVersion {
  var source: Field { self == .v4 ? .ip4Source : .ip6Source }
  var destination: Field { self == .v4 ? .ip4Destination : .ip6Destination }
}
