/// Where a PCI function sits: domain, bus, device and function, as in `0000:03:00.0`.
public struct PCIAddress: Hashable, Sendable, Comparable, CustomStringConvertible {
  public let domain: UInt32
  public let bus: UInt8
  /// 0 to 31.
  public let device: UInt8
  /// 0 to 7.
  public let function: UInt8

  public init(domain: UInt32 = 0, bus: UInt8, device: UInt8, function: UInt8) {
    precondition(device < 32 && function < 8)
    (self.domain, self.bus, self.device, self.function) = (domain, bus, device, function)
  }

  /// As lspci writes it, with or without the domain; nil for anything else.
  public init?(_ text: some StringProtocol) {
    func number(_ text: Substring, _ digits: ClosedRange<Int>, below limit: UInt32) -> UInt32? {
      guard digits.contains(text.utf8.count), text.allSatisfy(\.isHexDigit), let value = UInt32(text, radix: 16), value < limit else { return nil }
      return value
    }
    var parts = Substring(text).split(separator: ":", omittingEmptySubsequences: false)
    if parts.count == 2 { parts.insert("0", at: 0) }
    guard parts.count == 3 else { return nil }
    let place = parts[2].split(separator: ".", omittingEmptySubsequences: false)
    guard place.count == 2, let domain = number(parts[0], 1...8, below: .max), let bus = number(parts[1], 2...2, below: 256),
      let device = number(place[0], 2...2, below: 32), let function = number(place[1], 1...1, below: 8)
    else { return nil }
    self.init(domain: domain, bus: UInt8(bus), device: UInt8(device), function: UInt8(function))
  }

  public var description: String {
    func hex(_ value: UInt32, _ digits: Int) -> String {
      let text = String(value, radix: 16)
      return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
    return "\(hex(domain, 4)):\(hex(UInt32(bus), 2)):\(hex(UInt32(device), 2)).\(function)"
  }

  public static func < (a: PCIAddress, b: PCIAddress) -> Bool {
    (a.domain, a.bus, a.device, a.function) < (b.domain, b.bus, b.device, b.function)
  }
}
