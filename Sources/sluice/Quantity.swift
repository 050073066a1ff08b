/// Numbers as people type them: `1.5M`, `64k`, `0x2A`, `500ms`. Each function answers nil for what is no such number.
enum Quantity {
  private static let suffixes: [(text: String, factor: UInt64)] = [
    ("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("Ti", 1 << 40),
    ("k", 1_000), ("K", 1_000), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000),
  ]

  /// A whole number. A fraction is taken where the suffix makes it whole: `1.5k`.
  static func count(_ text: some StringProtocol) -> UInt64? {
    if text.hasPrefix("0x") || text.hasPrefix("0X") {
      let digits = text.dropFirst(2)
      return digits.allSatisfy(\.isHexDigit) ? UInt64(digits, radix: 16) : nil
    }
    guard let (digits, places, factor) = split(text) else { return nil }
    var divisor: UInt64 = 1
    for _ in 0..<places {
      let (product, overflows) = divisor.multipliedReportingOverflow(by: 10)
      guard !overflows else { return nil }
      divisor = product
    }
    guard let number = UInt64(digits) else { return nil }
    let (product, overflows) = number.multipliedReportingOverflow(by: factor)
    return overflows || product % divisor != 0 ? nil : product / divisor
  }

  /// What an option was given, as a whole number from a range.
  ///
  /// - Parameter mend: what else would be right, behind the refusal.
  static func count(_ option: String, _ text: String, in range: ClosedRange<Int>, mend: String = "") throws(Failure) -> Int {
    guard let count = count(text), let value = Int(exactly: count), range.contains(value) else {
      let bounds = range.upperBound == .max ? "\(range.lowerBound) or more" : "from \(range.lowerBound) to \(range.upperBound)"
      throw .usage(option, text, "must be a whole number, \(bounds)\(mend)")
    }
    return value
  }

  /// Whole numbers between commas. Nil: one is none.
  static func counts(_ text: String) -> [Int]? {
    var numbers: [Int] = []
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      guard let count = count(part), let number = Int(exactly: count) else { return nil }
      numbers.append(number)
    }
    return numbers
  }

  /// A number that need not be whole.
  static func real(_ text: some StringProtocol) -> Double? {
    guard let (digits, places, factor) = split(text), let number = Double(digits) else { return nil }
    var divisor = 1.0
    for _ in 0..<places { divisor *= 10 }
    let value = number * Double(factor) / divisor
    return value.isFinite ? value : nil
  }

  /// Seconds: `10s`, `500ms`, `2m`, `1h`, `90` (seconds).
  static func seconds(_ text: some StringProtocol) -> Double? {
    let units: [(text: String, seconds: Double)] = [("ms", 1e-3), ("us", 1e-6), ("s", 1), ("m", 60), ("h", 3600)]
    for unit in units where text.hasSuffix(unit.text) {
      return plain(text.dropLast(unit.text.count)).map { $0 * unit.seconds }
    }
    return plain(text)
  }
  private static func plain(_ text: some StringProtocol) -> Double? {
    text.last.map(isDigit) == true ? real(text) : nil
  }

  private static func isDigit(_ character: Character) -> Bool { character.isASCII && character.isNumber }

  /// The digits without their point, how many of them are behind it, and what the suffix stands for.
  private static func split(_ text: some StringProtocol) -> (digits: String, places: Int, factor: UInt64)? {
    let suffix = suffixes.first { text.hasSuffix($0.text) }
    let parts = text.dropLast(suffix?.text.count ?? 0).split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count <= 2, parts.allSatisfy({ !$0.isEmpty && $0.allSatisfy(isDigit) }) else { return nil }
    return (parts.joined(), parts.count == 2 ? parts[1].count : 0, suffix?.factor ?? 1)
  }
}

/// Words that options and files share.
enum Words {
  static func flag(_ text: some StringProtocol) -> Bool? {
    switch text {
    case "on", "true": true
    case "off", "false": false
    default: nil
    }
  }
}
