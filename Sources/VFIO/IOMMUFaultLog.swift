public import Bus
internal import Glibc
internal import Linux

/// What the kernel's log tells of accesses that the IOMMU refused a device: nobody else tells a process of them.
///
/// Intel's (drivers/iommu/intel/dmar.c) and AMD's (drivers/iommu/amd/iommu.c) lines are known. The kernel writes only so many a
/// second: where many come, the count is too low, and never zero.
public final class IOMMUFaultLog {
  public struct Fault: Hashable, Sendable {
    public let address: IOVA
    public let text: String
  }

  private let file: OwnedDescriptor
  private let device: PCIAddress
  /// The last that were told, oldest first.
  public private(set) var faults: [Fault] = []
  public private(set) var count: UInt64 = 0
  private static let kept = 64

  /// From now on. Nil: the log may not be read (CAP_SYSLOG), or there is none.
  public init?(of device: PCIAddress, path: String = "/dev/kmsg") {
    let number = unsafe open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
    guard number >= 0 else { return nil }
    file = OwnedDescriptor(adopting: number)
    self.device = device
    guard lseek(number, 0, SEEK_END) >= 0 else { return nil }
  }

  /// Reads what has come since the last call.
  public func read() {
    var record = [UInt8](repeating: 0, count: 8192)
    while true {
      let length = unsafe record.withUnsafeMutableBytes { unsafe Glibc.read(file.number, $0.baseAddress, $0.count) }
      // EPIPE: records were overwritten before we came; the next read goes on behind them.
      if length < 0 && errno == EPIPE { continue }
      guard length > 0 else { return }
      guard let fault = Self.parse(String(decoding: record[..<length], as: UTF8.self), of: device) else { continue }
      count += 1
      if faults.count == Self.kept { faults.removeFirst() }
      faults.append(fault)
    }
  }

  /// A record: `LEVEL,NUMBER,TIME,FLAGS;TEXT`, and lines of keys. Nil: it is of something else.
  static func parse(_ record: String, of device: PCIAddress) -> Fault? {
    guard let start = record.firstIndex(of: ";") else { return nil }
    let text = record[record.index(after: start)...].prefix { $0 != "\n" }
    // Older kernels leave the domain out.
    let places = device.domain == 0 ? [device.description, String(device.description.dropFirst(5))] : [device.description]
    let isIntels = text.hasPrefix("DMAR: ") && places.contains { text.contains("Request device [\($0)]") }
    let isAMDs = text.contains("AMD-Vi: Event logged [IO_PAGE_FAULT") && text.contains("device=\(device)")
    guard isIntels || isAMDs, let key = text.firstRange(of: isIntels ? "fault addr 0x" : "address=0x") else { return nil }
    let digits = text[key.upperBound...].prefix(while: \.isHexDigit)
    guard let address = UInt64(digits, radix: 16) else { return nil }
    return Fault(address: IOVA(address), text: String(text))
  }
}
