internal import Glibc
internal import Linux

/// What a card must be like to be lent guests' memory, and whether it is.
public struct DeviceExamination {
  public let function: PCIFunction
  private let files: KernelFiles
  private var findings: [Finding] = []

  public init(_ function: PCIFunction, _ files: KernelFiles = KernelFiles()) { (self.function, self.files) = (function, files) }

  public mutating func run() -> [Finding] {
    findings = []
    lookAtDriver()
    lookAtGroup()
    lookAtReset()
    lookAtBus()
    lookAtErrors()
    return findings
  }

  private mutating func add(_ topic: String, _ level: Finding.Level, _ what: String, why: String = "", mend: String = "") {
    findings.append(Finding("\(function.address)", topic, level, what, why: why, mend: mend))
  }

  /// `8086:10fb`, as lspci -n has it.
  public var identity: String {
    func hex(_ value: UInt16) -> String { String(repeating: "0", count: 4 - String(value, radix: 16).count) + String(value, radix: 16) }
    return "\(hex(function.vendorID)):\(hex(function.deviceID))"
  }

  private mutating func lookAtDriver() {
    switch function.driver {
    case "vfio-pci": add("driver", .good, "bound to vfio-pci")
    case let driver:
      let links = function.links.isEmpty ? "" : " (\(function.links.joined(separator: ", ")))"
      add(
        "driver", .note, driver.map { "driven by \($0)\(links)" } ?? "driven by nothing", why: "a card is lent guests' memory only while vfio-pci has it; the machine itself then has not",
        mend: VFIOError.binding(function.address, from: driver))
    }
    if let node = function.node { add("node", .note, "on memory node \(node)") }
  }

  private mutating func lookAtGroup() {
    guard let group = function.group else {
      return add("group", .error, "in no IOMMU group", why: "nothing would keep its writes within guests' memory", mend: "turn the IOMMU on: see the host's findings")
    }
    if group.isWithoutIOMMU {
      return add("group", .error, "in VFIO's no-IOMMU mode", why: "it could write everywhere in this machine", mend: "load vfio without enable_unsafe_noiommu_mode")
    }
    let strangers = function.strangersInGroup
    guard strangers.isEmpty else {
      return add(
        "group", .error, "IOMMU group \(group.number) has others: \(strangers.map { "\($0.address) (\($0.driver ?? ""))" }.joined(separator: ", "))",
        why: "the IOMMU cannot tell them apart, and the kernel gives out a group only whole", mend: "bind them to vfio-pci too, or put the card into a slot of its own (with ACS)")
    }
    add("group", .good, group.members.count > 1 ? "IOMMU group \(group.number), shared with none that has a driver" : "alone in IOMMU group \(group.number)")
    guard function.driver == "vfio-pci" else { return }
    for path in ["\(files.devices)/vfio/\(group.number)", function.vfioDevice.map { "\(files.devices)/vfio/devices/\($0)" }].compactMap({ $0 }) where Folder.exists(path) {
      let isOurs = unsafe access(path, R_OK | W_OK) == 0
      add(
        "permission", isOurs ? .good : .error, isOurs ? "\(path) may be opened" : "\(path): not permitted", why: isOurs ? "" : "whoever drives the card opens it",
        mend: isOurs ? "" : "chown USER \(path)")
    }
  }

  private mutating func lookAtReset() {
    let methods = function.resetMethods
    if methods.isEmpty {
      add(
        "reset", .warning, "it cannot be reset by itself", why: "what it was doing when a program died goes on until the machine is restarted",
        mend: "none: another card, or one whose function has FLR")
    } else {
      add("reset", .good, "by \(methods.joined(separator: ", "))")
    }
  }

  // MARK: The bus

  private mutating func lookAtBus() {
    let space = ConfigurationBytes(function.configuration)
    guard space.bytes.count > 64 else {
      return add("payload", .note, "its configuration cannot be read whole", why: "how large packets on the bus are is told to the superuser only", mend: "run sluice doctor as root")
    }
    guard let own = space.payload else { return }
    // What all on the way can do.
    let bridges = function.bridges.compactMap { ConfigurationBytes($0.configuration).payload }
    let possible = bridges.map(\.possible).reduce(own.possible, min)
    let link = own.link
    let width = link.map { "PCIe generation \($0.generation) x\($0.lanes), " } ?? ""
    var what = "\(width)payload \(own.used) of \(possible) bytes, read request \(own.readRequest)"
    if let rate = link?.bitsPerSecond, own.used >= 128 {
      let ceilings = [64, 1514].map { "\(Self.gigabits(PCIePayload.ceiling(frameByteCount: $0, payload: own.used, linkRate: rate))) of \($0)-byte frames" }
      what += ": at most \(ceilings.joined(separator: ", "))"
    }
    if own.used < possible {
      var why = "each packet carries 24 bytes of its own: small ones cost the bus"
      if let rate = link?.bitsPerSecond {
        why += "; \(possible) would make it \(Self.gigabits(PCIePayload.ceiling(frameByteCount: 1514, payload: possible, linkRate: rate))) of 1514-byte frames"
      }
      add("payload", .warning, what, why: why, mend: "boot with pci=pcie_bus_perf")
    } else {
      add("payload", .good, what)
    }
    if own.readRequest < 512 {
      add(
        "read-request", .warning, "it asks for \(own.readRequest) bytes at once", why: "descriptors, and frames that guests send, are then fetched in more pieces than need be",
        mend: "setpci -s \(function.address) CAP_EXP+8.w=2000:7000 (512 bytes)")
    }
    let (speed, width2) = (pair("link_speed"), pair("link_width"))
    for (name, values) in [("speed", speed), ("width", width2)] {
      guard let (now, most) = values, now != most else { continue }
      add(
        "link", .warning, "its link's \(name) is \(now), of \(most)", why: "the slot, or a contact in it, gives less than the card could take",
        mend: "another slot, or seat the card again")
    }
  }

  private func pair(_ name: String) -> (String, String)? {
    guard let now = WholeFile.text("\(function.path)/current_\(name)"), let most = WholeFile.text("\(function.path)/max_\(name)") else { return nil }
    // What a machine that is emulated says of itself.
    if now.hasPrefix("Unknown") || most.hasPrefix("Unknown") || now == "0" || most == "0" || most == "255" { return nil }
    return (now, most)
  }

  static func gigabits(_ rate: Double) -> String {
    let tenths = Int((rate / 1e8).rounded())
    return "\(tenths / 10).\(tenths % 10) Gbit/s"
  }

  private mutating func lookAtErrors() {
    var isCounted = false
    var isClean = true
    for (place, severity) in ([function] + function.bridges).flatMap({ place in PCIFunction.Severity.allCases.map { (place, $0) } }) {
      guard let counts = place.errors(severity) else { continue }
      isCounted = true
      let found = counts.filter { $0.value > 0 }.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
      if found.isEmpty { continue }
      isClean = false
      let port = place == function ? "" : "at the port above it, \(place.address), "
      add(
        "bus-errors", severity == .correctable ? .warning : .error, "\(port)\(severity.rawValue) since boot: \(found.map { "\($0.key) \($0.value)" }.joined(separator: ", "))",
        why: severity == .correctable ? "packets on the bus were sent again: frames come late, and figures are not to be trusted" : "packets on the bus were lost, and may be again",
        mend: "seat the card again, another slot, another riser; then count anew")
    }
    if isCounted && isClean { add("bus-errors", .good, "none since boot") }
  }
}
