import Foundation
import Testing

@testable import VFIO

/// A machine's /sys, /dev and /proc, made up in a folder.
private final class Machine {
  let root: String
  var files: KernelFiles { KernelFiles(under: root) }
  init() throws {
    root = FileManager.default.temporaryDirectory.path + "/kernel-" + UUID().uuidString.prefix(8)
    try FileManager.default.createDirectory(atPath: root + "/sys/bus/pci/devices", withIntermediateDirectories: true)
  }
  deinit { try? FileManager.default.removeItem(atPath: root) }

  func write(_ path: String, _ text: String) throws {
    let place = root + path
    try FileManager.default.createDirectory(atPath: (place as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
    try text.write(toFile: place, atomically: false, encoding: .utf8)
  }
  func link(_ path: String, to target: String) throws {
    let place = root + path
    try FileManager.default.createDirectory(atPath: (place as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
    try FileManager.default.createSymbolicLink(atPath: place, withDestinationPath: target)
  }

  /// A network card.
  @discardableResult func card(_ address: String, driver: String? = "vfio-pci", group: String? = "7", classCode: String = "0x020000") throws -> PCIFunction {
    let folder = "/sys/bus/pci/devices/\(address)"
    try write(folder + "/vendor", "0x8086\n")
    try write(folder + "/device", "0x10fb\n")
    try write(folder + "/class", classCode + "\n")
    try write(folder + "/reset_method", "flr bus\n")
    if let driver { try link(folder + "/driver", to: "../../../bus/pci/drivers/\(driver)") }
    if let group {
      try link(folder + "/iommu_group", to: "../../../kernel/iommu_groups/\(group)")
      try write("/sys/kernel/iommu_groups/\(group)/devices/\(address)", "")
      try write("/sys/kernel/iommu_groups/\(group)/type", "DMA\n")
    }
    let place = try #require(PCIAddress(address))
    return try #require(PCIFunction(place, sysfs: root + "/sys"))
  }

  func host(lockable: UInt64? = nil) -> [Finding] {
    var examination = HostExamination(files, lockable: lockable)
    return examination.run()
  }
  func device(_ function: PCIFunction) -> [Finding] {
    var examination = DeviceExamination(function, files)
    return examination.run()
  }
}

private func level(_ topic: String, in findings: [Finding]) -> Finding.Level? { findings.filter { $0.topic == topic }.map(\.level).max() }

@Suite struct ExaminationTests {
  @Test func `a host with everything has nothing to mend`() throws {
    let machine = try Machine()
    try machine.card("0000:03:00.0")
    try machine.write("/dev/vfio/vfio", "")
    try machine.write("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit", "65535\n")
    try machine.write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512\n")
    try machine.write("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "500\n")
    let findings = machine.host()
    #expect(findings.allSatisfy { $0.level == .good && $0.mend.isEmpty }, "\(findings)")
    #expect(findings.map(\.topic) == ["iommu", "iommu-strict", "vfio", "vfio-mappings", "memlock", "hugepages"])
  }

  @Test func `what is missing on a host is named, with its mend`() throws {
    let machine = try Machine()
    try machine.write("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n")
    try machine.write("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n")
    try machine.write("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit", "10\n")
    for node in 0..<2 { try machine.write("/sys/devices/system/node/node\(node)/cpulist", "0") }
    let findings = machine.host(lockable: 8 << 20)
    for (topic, wanted) in [
      ("iommu", .error), ("vfio", .error), ("vfio-noiommu", .error), ("vfio-interrupts", .warning), ("vfio-mappings", .warning), ("memlock", .error), ("hugepages", .note),
      ("numa", .note),
    ] as [(String, Finding.Level)] { #expect(level(topic, in: findings) == wanted, "\(topic)") }
    #expect(findings.allSatisfy { $0.level == .good || !$0.why.isEmpty && !$0.mend.isEmpty })
    #expect(level("memlock", in: machine.host(lockable: 1 << 30)) == .note && level("memlock", in: machine.host()) == .good)
  }

  @Test func `how strict the IOMMU is follows from the groups`() throws {
    for (type, wanted) in [("DMA", .good), ("DMA-FQ", .note), ("identity", .warning)] as [(String, Finding.Level)] {
      let machine = try Machine()
      try machine.card("0000:03:00.0")
      try machine.write("/sys/kernel/iommu_groups/9/type", type + "\n")
      #expect(level("iommu-strict", in: machine.host()) == wanted)
    }
  }

  @Test func `a machine with a balloon behind a vhost-user device is named`() throws {
    let machine = try Machine()
    func process(_ number: Int, _ words: [String]) throws { try machine.write("/proc/\(number)/cmdline", words.joined(separator: "\0") + "\0") }
    try process(10, ["/usr/bin/qemu-system-x86_64", "-netdev", "vhost-user,id=n0,chardev=c", "-device", "virtio-balloon-pci"])
    try process(11, ["/usr/bin/qemu-system-x86_64", "-netdev", "vhost-user,id=n0,chardev=c"])
    try process(12, ["/usr/bin/qemu-system-x86_64", "-device", "virtio-balloon-pci"])
    try process(13, ["/bin/sh", "vhost-user", "virtio-balloon-pci"])
    // What a process may make of its own words.
    try machine.write("/proc/14/cmdline", "\0\0\0")
    try machine.write("/proc/15/cmdline", "/\0vhost-user\0virtio-balloon-pci\0")
    try machine.write("/proc/version", "x")
    let findings = machine.host().filter { $0.topic == "balloon" }
    #expect(findings.map(\.level) == [.error, .good] && findings[0].what.contains("process 10"))
  }

  @Test func `a card that is ready is good, and says how it is reset`() throws {
    let machine = try Machine()
    let card = try machine.card("0000:03:00.0")
    let folder = "/sys/bus/pci/devices/0000:03:00.0"
    for severity in ["correctable", "nonfatal", "fatal"] { try machine.write(folder + "/aer_dev_\(severity)", "Receiver Error 0\nBad TLP 0\nTOTAL_ERR_X 0\n") }
    let findings = machine.device(card)
    #expect(level("driver", in: findings) == .good && level("group", in: findings) == .good && level("bus-errors", in: findings) == .good)
    #expect(findings.contains { $0.topic == "reset" && $0.what == "by flr, bus" })
    try machine.write(folder + "/aer_dev_correctable", "Receiver Error 3\nBad TLP 0\nTOTAL_ERR_COR 3\n")
    #expect(machine.device(card).contains { $0.topic == "bus-errors" && $0.level == .warning && $0.what.contains("Receiver Error 3") && !$0.what.contains("TOTAL") })
    try machine.write(folder + "/aer_dev_fatal", "Data Link Protocol 1\n")
    #expect(level("bus-errors", in: machine.device(card)) == .error)
  }

  @Test func `errors that the ports above a card have found are the card's too`() throws {
    let machine = try Machine()
    let (place, port) = ("/sys/devices/pci0000:00/0000:00:02.0/0000:03:00.0", "/sys/bus/pci/devices/0000:00:02.0")
    try machine.write(place + "/aer_dev_correctable", "BadTLP 1\nRxErr 0\nTOTAL_ERR_COR 1\n")
    try machine.link("/sys/bus/pci/devices/0000:03:00.0", to: machine.root + place)
    try machine.write(port + "/aer_dev_correctable", "BadTLP 2\nTimeout 5\nTOTAL_ERR_COR 7\n")
    let address = try #require(PCIAddress("0000:03:00.0"))
    let card = try #require(PCIFunction(address, sysfs: machine.root + "/sys"))
    #expect(card.errorsOnTheWay(.correctable) == ["BadTLP": 3, "RxErr": 0, "Timeout": 5])
    #expect(card.errorsOnTheWay(.fatal) == nil)
    let found = machine.device(card).filter { $0.topic == "bus-errors" }.map(\.what)
    #expect(found == ["correctable since boot: BadTLP 1", "at the port above it, 0000:00:02.0, correctable since boot: Timeout 5, BadTLP 2"])
  }

  @Test func `what stands in a card's way is named, in the words with which it would be refused`() throws {
    let machine = try Machine()
    let bound = try machine.card("0000:03:00.0", driver: "ixgbe")
    let binding = try #require(machine.device(bound).first { $0.topic == "driver" })
    #expect(binding.what == "driven by ixgbe" && binding.mend.contains("driver_override") && binding.mend.contains("driver/unbind"))
    #expect { try VFIODevice.check(bound) } throws: { "\($0)".contains("driven by ixgbe") && "\($0)".contains(binding.mend) }
    let lone = try machine.card("0000:04:00.0", group: nil)
    #expect(level("group", in: machine.device(lone)) == .error)
    #expect { try VFIODevice.check(lone) } throws: { ($0 as? VFIOError) == .noGroup(lone.address) }
    // A neighbour that has a driver, a bridge, and one without.
    let shared = try machine.card("0000:05:00.0", group: "8")
    try machine.card("0000:05:00.1", driver: "ixgbe", group: "8")
    try machine.card("0000:05:00.2", driver: nil, group: "8")
    try machine.card("0000:00:01.0", driver: "pcieport", group: "8", classCode: "0x060400")
    #expect { try VFIODevice.check(shared) } throws: { ($0 as? VFIOError) == .sharedGroup(shared.address, group: "8", others: ["0000:05:00.1 (ixgbe)"]) }
    #expect(level("group", in: machine.device(shared)) == .error)
    try machine.write("/sys/kernel/iommu_groups/7/name", "vfio-noiommu\n")
    let unsafe = try machine.card("0000:06:00.0")
    #expect { try VFIODevice.check(unsafe) } throws: { ($0 as? VFIOError) == .withoutIOMMU(unsafe.address) }
    try machine.write("/sys/bus/pci/devices/0000:06:00.0/reset_method", "\n")
    #expect(level("reset", in: machine.device(unsafe)) == .warning)
  }

  @Test func `a device that is not there, or not to be had, is refused by name`() throws {
    let machine = try Machine()
    #expect { _ = try VFIODevice(PCIAddress(bus: 9, device: 0, function: 0), sysfs: machine.root + "/sys", devices: machine.root + "/dev") } throws: { "\($0)".contains("0000:09:00.0: there is no such PCI device") }
    let card = try machine.card("0000:03:00.0")
    for interface in VFIODevice.Interface.allCases {
      #expect { _ = try VFIODevice(card.address, interface: interface, sysfs: machine.root + "/sys", devices: machine.root + "/dev") } throws: { "\($0)".contains("is not there") }
    }
  }
}
