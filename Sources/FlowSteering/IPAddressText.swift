/// IP addresses as people write them. RFC 4291 2.2, RFC 5952.
public enum IPAddressText {
  public static func parse4(_ text: Substring) -> UInt32? {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 4 else { return nil }
    var address: UInt32 = 0
    for part in parts {
      // A leading zero once meant octal: refused, as inet_pton does.
      guard part.utf8.count <= 3, part == "0" || !part.hasPrefix("0"), let number = decimal(part), number <= 255 else { return nil }
      address = address << 8 | UInt32(number)
    }
    return address
  }

  public static func parse6(_ text: Substring) -> UInt128? {
    let halves = halves(of: text)
    guard let halves, let head = groups(halves.head, isLast: !halves.isOpen), let tail = groups(halves.tail, isLast: true) else { return nil }
    let count = head.count + tail.count
    guard halves.isOpen ? count <= 7 : count == 8 else { return nil }
    let all = head + Array(repeating: 0, count: 8 - count) + tail
    return all.reduce(UInt128(0)) { $0 << 16 | UInt128($1) }
  }

  /// Before and behind the "::", of which there is at most one.
  private static func halves(of text: Substring) -> (head: Substring, tail: Substring, isOpen: Bool)? {
    var gaps: [Substring.Index] = []
    var index = text.startIndex
    while index < text.endIndex {
      let next = text.index(after: index)
      if text[index] == ":" && next < text.endIndex && text[next] == ":" {
        gaps.append(index)
        index = text.index(after: next)
      } else {
        index = next
      }
    }
    guard gaps.count <= 1 else { return nil }
    guard let gap = gaps.first else { return (text, "", false) }
    return (text[..<gap], text[text.index(gap, offsetBy: 2)...], true)
  }

  /// The last four bytes may be written as an IPv4 address.
  private static func groups(_ text: Substring, isLast: Bool) -> [UInt16]? {
    if text.isEmpty { return [] }
    var groups: [UInt16] = []
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    for (index, part) in parts.enumerated() {
      if isLast, part.contains("."), index == parts.count - 1, let address = parse4(part) {
        groups += [UInt16(address >> 16), UInt16(truncatingIfNeeded: address)]
        continue
      }
      guard (1...4).contains(part.utf8.count), part.utf8.allSatisfy(isHexadecimal), let group = UInt16(part, radix: 16) else { return nil }
      groups.append(group)
    }
    return groups
  }

  public static func text4(_ address: UInt32) -> String {
    (0..<4).map { String(address >> UInt32(24 - 8 * $0) & 255) }.joined(separator: ".")
  }

  /// The longest run of zero groups is left out, the first of equals; one group alone is not.
  public static func text6(_ address: UInt128) -> String {
    let groups = (0..<8).map { UInt16(truncatingIfNeeded: address >> UInt128(112 - 16 * $0)) }
    var (best, length) = (0, 1)
    var start = 0
    while start < 8 {
      var end = start
      while end < 8 && groups[end] == 0 { end += 1 }
      if end - start > length { (best, length) = (start, end - start) }
      start = max(end, start + 1)
    }
    func words(_ range: Range<Int>) -> String { groups[range].map { String($0, radix: 16) }.joined(separator: ":") }
    return length == 1 ? words(0..<8) : words(0..<best) + "::" + words(best + length..<8)
  }

  static func decimal(_ text: Substring) -> Int? {
    guard !text.isEmpty, text.utf8.count <= 9, text.utf8.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }) else { return nil }
    return Int(text)
  }
  static func isHexadecimal(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"), UInt8(ascii: "A")...UInt8(ascii: "F"): true
    default: false
    }
  }
}
