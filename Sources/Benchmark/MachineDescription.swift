internal import Linux

extension BenchmarkReport.Machine {
  /// This machine, from the kernel's files below `root`.
  ///
  /// - Parameter processor: the one whose caches and clock are told.
  public init(root: String = "", processor: Int = 0) {
    self.init()
    let information = WholeFile.text(root + "/proc/cpuinfo") ?? ""
    let lines = information.split(separator: "\n")
    self.processor = Self.value(of: "model name", in: lines)
    processors = lines.count { $0.hasPrefix("processor") }
    is_virtual = Self.value(of: "flags", in: lines).map { $0.split(separator: " ").contains("hypervisor") }
    kernel = WholeFile.text(root + "/proc/sys/kernel/osrelease")
    let memory = (WholeFile.text(root + "/proc/meminfo") ?? "").split(separator: "\n")
    memory_bytes = Self.number(of: "MemTotal", in: memory).map { $0 << 10 }
    if let total = Self.number(of: "HugePages_Total", in: memory), let size = Self.number(of: "Hugepagesize", in: memory) {
      huge_pages = "\(total) of \(size) KiB"
    }
    let folder = root + "/sys/devices/system/cpu/cpu\(processor)"
    governor = WholeFile.text(folder + "/cpufreq/scaling_governor")
    for name in Folder.names(folder + "/cache") ?? [] where name.hasPrefix("index") {
      guard let level = WholeFile.text("\(folder)/cache/\(name)/level"), let size = WholeFile.text("\(folder)/cache/\(name)/size") else { continue }
      let kind = WholeFile.text("\(folder)/cache/\(name)/type")
      caches.append("L\(level) " + (kind.map { $0 == "Unified" ? "" : $0.lowercased() + " " } ?? "") + size)
    }
    #if compiler(>=6.3)
      swift = "6.3 or later"
    #else
      swift = "6.2"
    #endif
    #if !DEBUG
      optimised = true
    #endif
  }

  /// Behind a name and a colon.
  private static func value(of name: String, in lines: [Substring]) -> String? {
    guard let line = lines.first(where: { $0.hasPrefix(name) }), let colon = line.firstIndex(of: ":") else { return nil }
    let text = line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" }
    return text.isEmpty ? nil : String(text)
  }
  private static func number(of name: String, in lines: [Substring]) -> UInt64? {
    value(of: name, in: lines)?.split(separator: " ").first.flatMap { UInt64($0) }
  }
}
