internal import Linux

/// Why a device cannot be driven from here: what, why, and what mends it.
public enum VFIOError: Error, Hashable, Sendable, CustomStringConvertible {
  case noSuchDevice(PCIAddress)
  /// The driver that has it; nil: none.
  case notBound(PCIAddress, driver: String?)
  case noGroup(PCIAddress)
  /// The group is of VFIO's no-IOMMU mode.
  case withoutIOMMU(PCIAddress)
  /// Others of its group, and their drivers.
  case sharedGroup(PCIAddress, group: String, others: [String])
  /// The kernel calls the group not viable, and we do not know why.
  case notViable(PCIAddress, group: String)
  /// A file of VFIO's is not there.
  case noFile(String, mend: String)
  case notPermitted(String)
  case inUse(String)
  /// The kernel's VFIO has another version, or not the IOMMU that we need.
  case unsupported(String)
  /// What a region of the device cannot do.
  case region(PCIAddress, index: Int, String)
  case interrupts(PCIAddress, asked: Int, available: Int)
  /// Reset, it did not answer for so many nanoseconds.
  case notBack(PCIAddress, waited: UInt64)
  case cannotReset(PCIAddress)
  /// Reads answer all ones: it is gone.
  case removed(PCIAddress)
  case system(String, code: CInt)

  /// What is typed to give a function to vfio-pci.
  static func binding(_ address: PCIAddress, from driver: String?) -> String {
    let folder = "/sys/bus/pci/devices/\(address)"
    let unbinding = driver == nil ? [] : ["echo \(address) > \(folder)/driver/unbind"]
    return (["modprobe vfio-pci", "echo vfio-pci > \(folder)/driver_override"] + unbinding + ["echo \(address) > /sys/bus/pci/drivers_probe"]).joined(separator: "; ")
  }

  public var description: String {
    switch self {
    case .noSuchDevice(let address): "\(address): there is no such PCI device; lspci -D lists those that there are"
    case .notBound(let address, let driver):
      "\(address) is \(driver.map { "driven by \($0)" } ?? "driven by nothing"), not by vfio-pci; bind it: \(Self.binding(address, from: driver))"
    case .noGroup(let address):
      "\(address) is in no IOMMU group: no IOMMU translates for it; turn VT-d or AMD-Vi on in the firmware, and boot Intel machines with intel_iommu=on"
    case .withoutIOMMU(let address):
      "\(address) is in VFIO's no-IOMMU mode: it could write everywhere in this machine, and guests with it; turn the IOMMU on, and load vfio without enable_unsafe_noiommu_mode"
    case .sharedGroup(let address, let group, let others):
      "\(address) shares IOMMU group \(group) with \(others.joined(separator: ", ")): the IOMMU cannot tell them apart; bind them to vfio-pci too, or put the card into a slot of its own (with ACS)"
    case .notViable(let address, let group): "\(address): the kernel says that IOMMU group \(group) is not viable: something else in it has a driver"
    case .noFile(let path, let mend): "\(path) is not there; \(mend)"
    case .notPermitted(let path): "\(path): not permitted; run as its owner, or give it to this user: chown USER \(path)"
    case .inUse(let path): "\(path): another process has it"
    case .unsupported(let text): text
    case .region(let address, let index, let text): "\(address), region \(index): \(text)"
    case .interrupts(let address, let asked, let available): "\(address) has \(available) MSI-X vectors, and \(asked) are asked for"
    case .notBack(let address, let waited): "\(address) does not answer \(waited / 1_000_000_000) s after its reset; it is left alone: cut its power"
    case .cannotReset(let address): "\(address) cannot be reset by itself (no FLR, no other method), and so not be given back clean"
    case .removed(let address): "\(address) answers nothing any more: it was taken out, or its link is down"
    case .system(let call, let code): "\(call): \(SystemError.text(code))"
    }
  }
}
