import Datapath
import FlowSteering
import Yams

/// The kinds of values that a file has. Each answers nil for what is none of its kind, and has noted it then.
extension ConfigurationReader {
  func text(_ node: Node, _ key: String) -> String? {
    guard case .scalar(let scalar) = node else {
      report(node, key, "must be a text")
      return nil
    }
    if scalar.string.isEmpty || (scalar.style == .plain && ["~", "null", "Null", "NULL"].contains(scalar.string)) {
      report(node, key, "has no value")
      return nil
    }
    return scalar.string
  }

  /// A value without quotes: in YAML "12" is a text.
  func plain(_ node: Node, _ key: String, _ reason: String) -> String? {
    guard case .scalar(let scalar) = node, scalar.style == .plain, !scalar.string.isEmpty else {
      report(node, key, reason)
      return nil
    }
    return scalar.string
  }

  func number(_ node: Node, _ key: String) -> Int? {
    let reason = "must be a whole number, without quotes"
    guard let text = plain(node, key, reason) else { return nil }
    guard let count = Quantity.count(text), let number = Int(exactly: count) else {
      report(node, key, "\(text): " + reason)
      return nil
    }
    return number
  }

  func flag(_ node: Node, _ key: String) -> Bool? {
    let reason = "must be on or off"
    guard let text = plain(node, key, reason) else { return nil }
    guard let flag = Words.flag(text) else {
      report(node, key, "\(text): " + reason)
      return nil
    }
    return flag
  }

  func word<Word: RawRepresentable & CaseIterable>(_ node: Node, _ key: String) -> Word? where Word.RawValue == String {
    guard let text = text(node, key) else { return nil }
    guard let word = Word(rawValue: text) else {
      report(node, key, "\(text): must be one of \(Word.allCases.map(\.rawValue).joined(separator: ", "))")
      return nil
    }
    return word
  }

  func datapath(_ node: Node, _ key: String) -> PathMode? {
    guard let text = text(node, key) else { return nil }
    let mode = PathMode(name: text)
    if mode == nil { report(node, key, "\(text): must be one of \(PathMode.allCases.map(\.name).joined(separator: ", "))") }
    return mode
  }

  func address(_ node: Node, _ key: String) -> MACAddress? {
    guard let text = text(node, key) else { return nil }
    do { return try MACAddress(parsing: text) } catch {
      report(node, key, "\(text): not an address; write it like 02:00:00:00:00:01")
      return nil
    }
  }

  func vlan(_ node: Node, _ key: String) -> UInt16? {
    guard let number = number(node, key) else { return nil }
    guard (1...4094).contains(number) else {
      report(node, key, "\(number); 1 to 4094")
      return nil
    }
    return UInt16(number)
  }

  /// Permission bits, in octal as chmod(1) takes them.
  func mode(_ node: Node, _ key: String) -> UInt16? {
    guard let text = text(node, key) else { return nil }
    guard (3...4).contains(text.utf8.count), let mode = UInt16(text, radix: 8), mode <= 0o777, !text.hasPrefix("+") else {
      report(node, key, "\(text): permission bits, in octal: 0660")
      return nil
    }
    return mode
  }
}
