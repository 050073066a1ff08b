internal import Linux

/// What the kernel tells of a PCI function. Documentation/ABI/testing/sysfs-bus-pci, sysfs-bus-pci-devices-aer.
///
/// Looked up anew at each question: drivers and groups change while we run.
public struct PCIFunction: Hashable, Sendable {
  public let address: PCIAddress
  /// Where sysfs is mounted.
  private let root: String

  /// Nil: there is none.
  public init?(_ address: PCIAddress, sysfs root: String = "/sys") {
    (self.address, self.root) = (address, root)
    guard Folder.exists(path) else { return nil }
  }
  private init(known address: PCIAddress, _ root: String) { (self.address, self.root) = (address, root) }

  /// Its folder.
  public var path: String { "\(root)/bus/pci/devices/\(address)" }

  private func number(_ name: String) -> UInt32? {
    guard let text = WholeFile.text("\(path)/\(name)") else { return nil }
    return text.hasPrefix("0x") ? UInt32(text.dropFirst(2), radix: 16) : UInt32(text)
  }
  public var vendorID: UInt16 { UInt16(truncatingIfNeeded: number("vendor") ?? 0) }
  public var deviceID: UInt16 { UInt16(truncatingIfNeeded: number("device") ?? 0) }
  /// Class, subclass, programming interface.
  public var classCode: UInt32 { number("class") ?? 0 }
  public var isNetwork: Bool { classCode >> 16 == 2 }
  /// A PCI bridge: no group minds it.
  public var isBridge: Bool { classCode >> 16 == 6 }

  /// The driver that has it; nil: none.
  public var driver: String? { Folder.target(ofLink: "\(path)/driver") }
  /// Of the machine's memory; nil: the kernel does not say.
  public var node: Int? { WholeFile.text("\(path)/numa_node").flatMap { Int($0) }.flatMap { $0 < 0 ? nil : $0 } }
  /// How it can be reset, the kernel's first choice first: `flr`, `af_flr`, `pm`, `bus`, …
  public var resetMethods: [String] { WholeFile.text("\(path)/reset_method")?.split(separator: " ").map(String.init) ?? [] }
  /// `vfio0`, of /dev/vfio/devices; nil: the kernel has no such devices, or another driver has this one.
  public var vfioDevice: String? { Folder.names("\(path)/vfio-dev")?.first { $0.hasPrefix("vfio") } }
  /// The names of its network links, while the kernel drives it.
  public var links: [String] { Folder.names("\(path)/net") ?? [] }
  /// The bridges above it, the nearest first.
  public var bridges: [PCIFunction] {
    guard let place = Folder.resolved(path) else { return [] }
    return place.split(separator: "/").dropLast().reversed().compactMap { PCIAddress($0) }.map { PCIFunction(known: $0, root) }
  }

  // MARK: The group

  /// Functions that the IOMMU cannot tell apart.
  public struct Group: Hashable, Sendable {
    public let number: String
    public let members: [PCIAddress]
    /// `DMA`, `DMA-FQ`, `identity`; nil: the kernel does not say.
    public let type: String?
    /// VFIO's no-IOMMU mode: whoever has the device can write everywhere.
    public let isWithoutIOMMU: Bool
  }

  /// Nil: no IOMMU translates for it.
  public var group: Group? {
    guard let number = Folder.target(ofLink: "\(path)/iommu_group") else { return nil }
    let place = "\(root)/kernel/iommu_groups/\(number)"
    return Group(
      number: number, members: (Folder.names("\(place)/devices") ?? []).compactMap { PCIAddress($0) }.sorted(),
      type: WholeFile.text("\(place)/type"), isWithoutIOMMU: WholeFile.text("\(place)/name") == "vfio-noiommu")
  }

  /// What else is in its group, is no bridge, and is driven by something that is not VFIO.
  public var strangersInGroup: [PCIFunction] {
    (group?.members ?? []).filter { $0 != address }.map { PCIFunction(known: $0, root) }.filter { other in
      guard !other.isBridge, let driver = other.driver else { return false }
      return driver != "vfio-pci"
    }
  }

  // MARK: Errors on the bus

  public enum Severity: String, CaseIterable, Sendable {
    case correctable, nonfatal, fatal
  }

  /// What Advanced Error Reporting has counted since boot, by name, without their sum; nil: the function reports none.
  public func errors(_ severity: Severity) -> [String: UInt64]? {
    guard let text = WholeFile.text("\(path)/aer_dev_\(severity.rawValue)") else { return nil }
    var result: [String: UInt64] = [:]
    for line in text.split(separator: "\n") {
      // Names may have spaces; the count is the last word.
      guard let space = line.lastIndex(of: " "), let count = UInt64(line[line.index(after: space)...]) else { continue }
      let name = line[..<space]
      if !name.hasPrefix("TOTAL_ERR") { result[String(name)] = count }
    }
    return result
  }

  /// The same of the function and of all bridges above it, summed by name: what a packet of the card's met on its way is
  /// counted by whoever received it, which for frames that come in is a port. Nil: none of them reports any.
  public func errorsOnTheWay(_ severity: Severity) -> [String: UInt64]? {
    let counts = ([self] + bridges).compactMap { $0.errors(severity) }
    return counts.isEmpty ? nil : counts.reduce(into: [:]) { $0.merge($1, uniquingKeysWith: &+) }
  }

  /// Its configuration space: 64 bytes for everyone, 256 or 4096 for the superuser.
  public var configuration: [UInt8] { ((try? WholeFile.read("\(path)/config")) ?? nil) ?? [] }
}

extension PCIFunction {
  /// Every function, in order.
  public static func all(sysfs root: String = "/sys") -> [PCIFunction] {
    (Folder.names("\(root)/bus/pci/devices") ?? []).compactMap { PCIAddress($0) }.sorted().map { PCIFunction(known: $0, root) }
  }
}
