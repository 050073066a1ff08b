internal import CLinux
internal import Glibc
internal import Linux

/// What a host must be like for cards to write into guests' memory, and whether it is.
public struct HostExamination {
  private let files: KernelFiles
  /// Bytes that may be locked; nil: as many as there are.
  private let lockable: UInt64?
  private var findings: [Finding] = []

  /// - Parameter lockable: as RLIMIT_MEMLOCK has it.
  public init(_ files: KernelFiles = KernelFiles(), lockable: UInt64? = HostExamination.lockableByteCount) {
    (self.files, self.lockable) = (files, lockable)
  }

  /// Of this process; nil without a limit.
  public static var lockableByteCount: UInt64? {
    let limit = sl_memlock_limit()
    // The superuser is not asked.
    return limit == .max || geteuid() == 0 ? nil : limit
  }

  public mutating func run() -> [Finding] {
    findings = []
    lookAtIOMMU()
    lookAtVFIO()
    lookAtMemory()
    lookAtGuests()
    return findings
  }

  private mutating func add(_ topic: String, _ level: Finding.Level, _ what: String, why: String = "", mend: String = "") {
    findings.append(Finding("host", topic, level, what, why: why, mend: mend))
  }
  private func text(_ path: String) -> String? { WholeFile.text(files.sysfs + path) }
  private func isSet(_ path: String) -> Bool { ["Y", "1"].contains(text(path) ?? "") }

  // MARK: IOMMU and VFIO

  private mutating func lookAtIOMMU() {
    let groups = Folder.names(files.sysfs + "/kernel/iommu_groups") ?? []
    guard !groups.isEmpty else {
      add(
        "iommu", .error, "off: there is no IOMMU group", why: "without one a card could write everywhere, and no card is lent guests' memory",
        mend: "turn VT-d or AMD-Vi on in the firmware; boot Intel machines with intel_iommu=on")
      return
    }
    let types = Set(groups.compactMap { text("/kernel/iommu_groups/\($0)/type") })
    add("iommu", .good, "on: \(groups.count) group\(groups.count == 1 ? "" : "s")")
    if types.contains("identity") {
      add(
        "iommu-strict", .warning, "the kernel's own drivers go around it (identity)", why: "a device that a driver of the kernel has can reach all memory, guests' too",
        mend: "boot without iommu=pt (iommu.passthrough=0)")
    } else if types.contains("DMA-FQ") {
      add(
        "iommu-strict", .note, "the kernel's own drivers flush lazily (DMA-FQ)",
        why: "a page that a driver of the kernel has given back stays within its device's reach for some milliseconds; what VFIO unmaps is out of reach at once",
        mend: "boot with iommu.strict=1, if that matters")
    } else {
      add("iommu-strict", .good, "strict: what is unmapped is out of reach at once")
    }
  }

  private mutating func lookAtVFIO() {
    let (hasContainer, hasIOMMUFD) = (Folder.exists(files.devices + "/vfio/vfio"), Folder.exists(files.devices + "/iommu"))
    if hasContainer || hasIOMMUFD {
      add("vfio", .good, "there: " + [hasContainer ? "groups and containers" : nil, hasIOMMUFD ? "iommufd" : nil].compactMap { $0 }.joined(separator: ", "))
    } else {
      add("vfio", .error, "not loaded, or not in this kernel", why: "it is how a program drives a card", mend: "modprobe vfio-pci (a kernel with CONFIG_VFIO_PCI)")
    }
    if isSet("/module/vfio/parameters/enable_unsafe_noiommu_mode") {
      add(
        "vfio-noiommu", .error, "no-IOMMU mode is allowed", why: "a device that is opened so can write everywhere in this machine, and guests with it",
        mend: "echo N > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode")
    }
    if isSet("/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts") {
      add(
        "vfio-interrupts", .warning, "interrupts are not remapped (allow_unsafe_interrupts)", why: "a device could raise any interrupt of the machine",
        mend: "turn interrupt remapping on in the firmware, and load vfio_iommu_type1 without allow_unsafe_interrupts")
    }
    if let limit = text("/module/vfio_iommu_type1/parameters/dma_entry_limit").flatMap({ Int($0) }) {
      let isEnough = limit >= 1024
      add(
        "vfio-mappings", isEnough ? .good : .warning, "\(limit) mappings for each container", why: isEnough ? "" : "a guest takes one for each region of its memory, and each queue some",
        mend: isEnough ? "" : "echo 65535 > /sys/module/vfio_iommu_type1/parameters/dma_entry_limit")
    }
  }

  // MARK: Memory

  private mutating func lookAtMemory() {
    if let lockable {
      // Rings and buffers of ours; what guests have comes on top.
      let least: UInt64 = 64 << 20
      add(
        "memlock", lockable < least ? .error : .note, "this process may lock \(Self.size(lockable))",
        why: "guests' memory stays in memory while a card may write to it: as much must be lockable as all guests have, and 64 MiB more",
        mend: "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit")
    } else {
      add("memlock", .good, "this process may lock as much as there is")
    }
    let folder = "/kernel/mm/hugepages"
    let sizes = (Folder.names(files.sysfs + folder) ?? []).compactMap { name -> (kibibytes: UInt64, all: Int, free: Int)? in
      guard name.hasPrefix("hugepages-"), name.hasSuffix("kB"), let size = UInt64(name.dropFirst(10).dropLast(2)),
        let all = text("\(folder)/\(name)/nr_hugepages").flatMap({ Int($0) }), let free = text("\(folder)/\(name)/free_hugepages").flatMap({ Int($0) })
      else { return nil }
      return (size, all, free)
    }
    let used = sizes.filter { $0.all > 0 }
    if used.isEmpty {
      add(
        "hugepages", .note, "none are set aside", why: "a guest in huge pages takes fewer entries of the IOMMU's, which a card at full rate otherwise waits for",
        mend: "echo 1024 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages (2 GiB), and hugetlb=on for the guest's memory")
    } else {
      add("hugepages", .good, used.map { "\($0.all) of \(Self.size($0.kibibytes << 10)), \($0.free) free" }.joined(separator: "; "))
    }
    let nodes = (Folder.names(files.sysfs + "/devices/system/node") ?? []).count { $0.hasPrefix("node") && Int($0.dropFirst(4)) != nil }
    if nodes > 1 {
      add(
        "numa", .note, "\(nodes) memory nodes", why: "a card, its guests' memory and the worker between them belong on one: the others are farther",
        mend: "see each device's node below; --cpus of sluice run, and numactl for the guest")
    }
  }

  /// In units of 1024.
  static func size(_ bytes: UInt64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"]
    var (value, unit) = (bytes, 0)
    while value >= 1024, value % 1024 == 0 || value >= 10_240, unit < units.count - 1 { (value, unit) = (value / 1024, unit + 1) }
    return "\(value) \(units[unit])"
  }

  // MARK: Guests

  /// Machines with a vhost-user device whose front-end may take pages back: what a card has pinned stays, and what the
  /// guest then reads is another page.
  private mutating func lookAtGuests() {
    for name in Folder.names(files.processes) ?? [] {
      guard let process = Int(name), let bytes = (try? WholeFile.read("\(files.processes)/\(name)/cmdline")) ?? nil, !bytes.isEmpty else { continue }
      // A process may call itself anything, also nothing.
      let words = bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
      guard let program = words.first?.split(separator: "/").last else { continue }
      let isQEMU = program.hasPrefix("qemu")
      let isOther = program == "cloud-hypervisor" || program == "crosvm"
      guard isQEMU || isOther, words.contains(where: { $0.contains("vhost-user") || $0.contains("vhost_user=") }) else { continue }
      let balloons = words.contains { $0.hasPrefix("virtio-balloon") || $0 == "--balloon" || $0 == "-balloon" || $0.contains("free-page-reporting=on") }
      if balloons {
        add(
          "balloon", .error, "process \(process) (\(program)) has a balloon, and a vhost-user device",
          why: "a page that the balloon takes while a card may write to it is lost to the guest: it then reads another, without an error",
          mend: "start the machine without virtio-balloon (libvirt: <memballoon model='none'/>)")
      } else {
        add("balloon", .good, "process \(process) (\(program)) has none")
      }
    }
  }
}
