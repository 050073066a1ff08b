public import Bus
internal import CLinux
internal import Glibc
public import Linux

/// A PCI function that this process drives, and the addresses that it can reach. Documentation/driver-api/vfio.rst.
///
/// When it goes away it can reach nothing any more: bus mastering is off, and the kernel resets it.
public final class VFIODevice {
  /// How the kernel is asked: the older way, by group and container, or the newer, by the device's own file and iommufd.
  public enum Interface: String, CaseIterable, Sendable {
    case group, iommufd
  }

  public let address: PCIAddress
  public let interface: Interface
  public let space: VFIOAddressSpace
  public let canReset: Bool
  private let file: FunctionFile
  private let group: OwnedDescriptor?

  /// Opens a device that vfio-pci has.
  ///
  /// - Parameter interface: nil: iommufd where the kernel has it.
  public init(_ address: PCIAddress, interface: Interface? = nil, sysfs: String = "/sys", devices: String = "/dev") throws(VFIOError) {
    guard let function = PCIFunction(address, sysfs: sysfs) else { throw .noSuchDevice(address) }
    let found = try Self.check(function)
    let hasIOMMUFD = Folder.exists(devices + "/iommu") && function.vfioDevice != nil
    let opened: Opened
    switch interface ?? (hasIOMMUFD ? .iommufd : .group) {
    case .group: opened = try Self.openByGroup(address, group: found.number, devices)
    case .iommufd: opened = try Self.openByFile(function, devices)
    }
    self.address = address
    self.interface = opened.group == nil ? .iommufd : .group
    space = opened.space
    var (canReset, regions, interrupts) = (CInt(0), UInt32(0), UInt32(0))
    let code = unsafe sl_vfio_device_info(opened.device.number, &canReset, &regions, &interrupts)
    guard code == 0 else { throw .system("VFIO_DEVICE_GET_INFO", code: code) }
    self.canReset = canReset != 0
    let offset = try Self.region(SL_VFIO_CONFIG, of: opened.device, address).offset
    let file = FunctionFile(opened.device, configurationOffset: offset, address)
    self.file = file
    group = opened.group
    // Registers are only there while the function decodes their addresses; on the bus it is nobody yet.
    try file.setCommand { $0 & ~4 | 2 }
    // By whichever thread has met it; the device may be gone by then.
    space.unmapFailures.onFirst { [weak file] in file?.stopBusMastering() }
  }

  /// What must be so before the kernel is asked: it would say no more than "Invalid argument".
  static func check(_ function: PCIFunction) throws(VFIOError) -> PCIFunction.Group {
    let address = function.address
    guard function.driver == "vfio-pci" else { throw .notBound(address, driver: function.driver) }
    guard let group = function.group else { throw .noGroup(address) }
    if group.isWithoutIOMMU { throw .withoutIOMMU(address) }
    let strangers = function.strangersInGroup
    if !strangers.isEmpty {
      throw .sharedGroup(address, group: group.number, others: strangers.map { "\($0.address) (\($0.driver ?? "no driver"))" })
    }
    return group
  }

  private struct Opened: ~Copyable {
    var device: OwnedDescriptor
    var group: OwnedDescriptor?
    var space: VFIOAddressSpace
  }

  private static func open(_ path: String, orElse mend: String) throws(VFIOError) -> OwnedDescriptor {
    let number = unsafe Glibc.open(path, O_RDWR | O_CLOEXEC)
    if number >= 0 { return OwnedDescriptor(adopting: number) }
    switch errno {
    case ENOENT, ENODEV, ENXIO: throw .noFile(path, mend: mend)
    case EACCES, EPERM: throw .notPermitted(path)
    case EBUSY: throw .inUse(path)
    default: throw .system("open \(path)", code: errno)
    }
  }

  private static func openByGroup(_ address: PCIAddress, group number: String, _ devices: String) throws(VFIOError) -> Opened {
    let container = try open(devices + "/vfio/vfio", orElse: "load it: modprobe vfio_iommu_type1")
    var (version, hasType1) = (CInt(0), CInt(0))
    var code = unsafe sl_vfio_container_check(container.number, &version, &hasType1)
    guard code == 0 else { throw .system("VFIO_GET_API_VERSION", code: code) }
    guard version == 0, hasType1 != 0 else {
      throw .unsupported("the kernel's VFIO (version \(version)) has no IOMMU of type 1, version 2; load it: modprobe vfio_iommu_type1")
    }
    let path = "\(devices)/vfio/\(number)"
    let group = try open(path, orElse: "the group is there once vfio-pci has the device")
    var isViable: CInt = 0
    code = unsafe sl_vfio_group_is_viable(group.number, &isViable)
    guard code == 0 else { throw .system("VFIO_GROUP_GET_STATUS", code: code) }
    guard isViable != 0 else { throw .notViable(address, group: number) }
    code = sl_vfio_group_join(group.number, container.number)
    guard code == 0 else { throw code == EBUSY ? .inUse(path) : .system("VFIO_GROUP_SET_CONTAINER", code: code) }
    code = sl_vfio_container_begin(container.number)
    guard code == 0 else { throw .system("VFIO_SET_IOMMU", code: code) }
    let device = unsafe sl_vfio_group_device(group.number, address.description)
    guard device >= 0 else { throw .system("VFIO_GROUP_GET_DEVICE_FD \(address)", code: -device) }
    let descriptor = OwnedDescriptor(adopting: device)
    return Opened(device: descriptor, group: group, space: try VFIOAddressSpace(container))
  }

  private static func openByFile(_ function: PCIFunction, _ devices: String) throws(VFIOError) -> Opened {
    guard let name = function.vfioDevice else {
      throw .noFile("\(function.path)/vfio-dev", mend: "the kernel has no device files of VFIO's own (CONFIG_VFIO_DEVICE_CDEV, Linux 6.6); use the group")
    }
    let file = try open(devices + "/iommu", orElse: "the kernel has no iommufd (CONFIG_IOMMUFD), or it is not loaded: modprobe iommufd")
    let path = "\(devices)/vfio/devices/\(name)"
    let device = try open(path, orElse: "udev makes it; or use the group")
    var code = sl_iommufd_bind(device.number, file.number)
    guard code == 0 else { throw code == EBUSY ? .inUse(path) : .system("VFIO_DEVICE_BIND_IOMMUFD", code: code) }
    var ioas: UInt32 = 0
    code = unsafe sl_iommufd_ioas_alloc(file.number, &ioas)
    guard code == 0 else { throw .system("IOMMU_IOAS_ALLOC", code: code) }
    code = sl_iommufd_attach(device.number, ioas)
    guard code == 0 else { throw .system("VFIO_DEVICE_ATTACH_IOMMUFD_PT", code: code) }
    // Only now do the ranges that the device cannot use count.
    return Opened(device: device, group: nil, space: try VFIOAddressSpace(file, ioas: ioas))
  }

  deinit {
    try? file.setCommand { $0 & ~4 }
    _ = sl_vfio_interrupts_disable(file.descriptor.number, UInt32(SL_VFIO_MSIX))
  }
}

// MARK: Registers

extension VFIODevice {
  static func region(_ index: Int, of device: borrowing OwnedDescriptor, _ address: PCIAddress) throws(VFIOError) -> RegionInfo {
    var bytes = [UInt8](repeating: 0, count: 4096)
    var needed: UInt32 = 0
    let code = unsafe sl_vfio_region_info(device.number, UInt32(index), &bytes, UInt32(bytes.count), &needed)
    guard code == 0 else { throw .system("VFIO_DEVICE_GET_REGION_INFO \(index)", code: code) }
    guard needed <= bytes.count, let info = RegionInfo(Array(bytes.prefix(Int(needed)))) else {
      throw .region(address, index: index, "the kernel describes it in \(needed) bytes that make no sense")
    }
    return info
  }

  public func region(_ index: Int) throws(VFIOError) -> RegionInfo { try Self.region(index, of: file.descriptor, address) }

  /// The registers of a BAR, 0 to 5, mapped whole.
  public func registers(bar index: Int) throws(VFIOError) -> DeviceRegisters {
    let info = try region(index)
    guard info.byteCount > 0 else { throw .region(address, index: index, "the device has no such BAR") }
    guard info.isMappable, info.isReadable, info.isWritable else { throw .region(address, index: index, "it cannot be mapped") }
    if let sparse = info.sparse, sparse.reduce(0, { $0 + $1.byteCount }) < info.byteCount {
      throw .region(address, index: index, "only parts of it can be mapped: the MSI-X table lies among its registers; such cards are not known here")
    }
    do throws(SystemError) {
      return DeviceRegisters(try Mapping(ofForeign: file.descriptor, byteCount: Int(info.byteCount), offset: Int(info.offset), alignment: 4096, page: 4096))
    } catch { throw .system("mmap of region \(index)", code: error.code) }
  }
}

/// A BAR in this process. A device that was taken out reads as all ones, as the bus would have it, and takes what is
/// written without an effect: `isGone`.
public final class DeviceRegisters: RegisterFile {
  private let mapping: Mapping
  private let registers: MappedRegisters

  init(_ mapping: consuming Mapping) {
    unsafe registers = MappedRegisters(unsafe: mapping.base, byteCount: mapping.byteCount)
    self.mapping = mapping
  }

  /// Bytes.
  public var byteCount: Int { registers.byteCount }
  /// An access found no device behind it (SIGBUS).
  public var isGone: Bool { mapping.isTruncated }
  public func read(_ offset: Int) -> UInt32 {
    let value = registers.read(offset)
    return isGone ? .max : value
  }
  public func write(_ value: UInt32, _ offset: Int) { registers.write(value, offset) }
  public func doorbell(_ offset: Int) -> Doorbell { registers.doorbell(offset) }
}

// MARK: Configuration space

extension VFIODevice: ConfigurationSpace {
  public func read(_ offset: Int) -> UInt32? { file.read(offset) }

  func write16(_ value: UInt16, _ offset: Int) throws(VFIOError) { try file.write16(value, offset) }

  /// Whether it may read and write memory by itself. The last thing to be set on, and the first off.
  ///
  /// - Throws: also if it is to be set on after memory could not be unmapped (`UnmapFailures`): it stays off then.
  public func setBusMaster(_ isOn: Bool) throws(VFIOError) { try file.setCommand { isOn ? $0 | 4 : $0 & ~4 } }
  public var isBusMaster: Bool { (read16(4) ?? 0) & 4 != 0 }
}

/// The file of a PCI function, and its configuration space: for those threads that have to turn bus mastering off.
///
/// Any thread may call: changes of the command register take a lock.
final class FunctionFile: ConfigurationSpace, Sendable {
  let descriptor: OwnedDescriptor
  private let configurationOffset: UInt64
  private let address: PCIAddress
  /// Whether bus mastering may never be on again.
  private let isStopped = Mutex(false)

  init(_ descriptor: consuming OwnedDescriptor, configurationOffset: UInt64, _ address: PCIAddress) {
    self.descriptor = descriptor
    self.configurationOffset = configurationOffset
    self.address = address
  }

  func read(_ offset: Int) -> UInt32? {
    var value: UInt32 = 0
    let count = unsafe pread(descriptor.number, &value, 4, off_t(configurationOffset) + off_t(offset))
    return count == 4 ? UInt32(littleEndian: value) : nil
  }
  func write16(_ value: UInt16, _ offset: Int) throws(VFIOError) {
    var value = value.littleEndian
    let count = unsafe pwrite(descriptor.number, &value, 2, off_t(configurationOffset) + off_t(offset))
    guard count == 2 else { throw .system("write to the configuration space at \(offset)", code: errno) }
  }

  /// Changes the command register.
  func setCommand(_ change: (UInt16) -> UInt16) throws(VFIOError) {
    try isStopped.withLock { isStopped throws(VFIOError) in
      guard let now = read16(4) else { throw .removed(address) }
      let wanted = change(now)
      if isStopped && wanted & 4 != 0 { throw .unsupported("\(address): bus mastering stays off: memory could not be unmapped") }
      if wanted != now { try write16(wanted, 4) }
    }
  }

  /// Turns bus mastering off for good: when this returns, what the function had sent to memory has arrived, and it sends nothing more. A
  /// function that does not take it is reset. PCI Express Base 4.0, 2.4.1: the write's completion does not pass what was posted before.
  func stopBusMastering() {
    do throws(VFIOError) {
      try isStopped.withLock { isStopped throws(VFIOError) in
        isStopped = true
        guard let now = read16(4) else { throw .removed(address) }
        try write16(now & ~4, 4)
      }
      if let now = read16(4), now & 4 == 0 { return }
    } catch {}
    _ = sl_vfio_reset(descriptor.number)
  }
}

// MARK: Interrupts

extension VFIODevice {
  /// MSI-X vectors that it has.
  public var vectorCount: Int {
    var count: UInt32 = 0
    return unsafe sl_vfio_interrupt_info(file.descriptor.number, UInt32(SL_VFIO_MSIX), &count) == 0 ? Int(count) : 0
  }

  /// Gives the first vectors an eventfd each, in order, and turns MSI-X on. The kernel keeps what it needs of them.
  public func connect(vectors events: [CInt]) throws(VFIOError) {
    guard events.count <= vectorCount else { throw .interrupts(address, asked: events.count, available: vectorCount) }
    try set(UInt32(SL_VFIO_MSIX), events)
  }

  /// What is signalled when the bus reports an error that the device cannot mend, and when the kernel wants it back.
  public func connect(error: borrowing EventDescriptor, request: borrowing EventDescriptor) throws(VFIOError) {
    for (index, event) in [(SL_VFIO_ERROR, error.descriptor.number), (SL_VFIO_REQUEST, request.descriptor.number)] {
      var count: UInt32 = 0
      // A kernel, or a device, without one has nothing to report by it.
      guard unsafe sl_vfio_interrupt_info(file.descriptor.number, UInt32(index), &count) == 0, count > 0 else { continue }
      try set(UInt32(index), [event])
    }
  }

  private func set(_ index: UInt32, _ events: [CInt]) throws(VFIOError) {
    let code = unsafe sl_vfio_interrupts_set(file.descriptor.number, index, 0, UInt32(events.count), events)
    guard code == 0 else { throw .system("VFIO_DEVICE_SET_IRQS", code: code) }
  }
}

// MARK: Reset

extension VFIODevice {
  /// Resets the function alone, and waits until it answers again. Its registers, interrupts and configuration are then as
  /// after power-on, but for what the kernel puts back; bus mastering is off.
  public func reset(on clock: any Timekeeper = SystemTimekeeper()) throws(VFIOError) {
    guard canReset else { throw .cannotReset(address) }
    try setBusMaster(false)
    let code = sl_vfio_reset(file.descriptor.number)
    guard code == 0 else { throw code == ENODEV ? .removed(address) : .system("VFIO_DEVICE_RESET", code: code) }
    try PCIReadiness.wait(for: address, on: clock) { vendorID }
    try file.setCommand { $0 & ~4 | 2 }
  }
}

/// A function that has been reset may say "later" (Configuration Request Retry Status): its vendor then reads as 0x0001,
/// or as all ones. PCI Express Base 4.0, 2.3.1; Implementation Note there on 1 s, which devices exceed.
enum PCIReadiness {
  /// Nanoseconds.
  static let limit: UInt64 = 60_000_000_000

  /// Looks again after 1 ms, 2 ms, 4 ms, …, a second at most, for 60 s.
  static func wait(for address: PCIAddress, on clock: any Timekeeper, vendor: () -> UInt16?) throws(VFIOError) {
    let start = clock.now
    var pause: UInt64 = 1_000_000
    while true {
      if let vendor = vendor(), vendor != 0xFFFF, vendor != 0x0001, vendor != 0 { return }
      let waited = clock.now - start
      guard waited < limit else { throw .notBack(address, waited: waited) }
      clock.pause(nanoseconds: min(pause, limit - waited))
      pause = min(pause * 2, 1_000_000_000)
    }
  }
}
