public import Bus
internal import CLinux
internal import Glibc

/// A bus whose every mapping can be looked at, and whose n-th call fails.
@safe public final class FakeAddressSpace: IOAddressSpace {
  public struct Entry: Hashable {
    public var start: UInt64
    public var byteCount: Int
    public var access: UInt8
    var base: UInt
  }
  public private(set) var entries: [Entry] = []
  /// How many calls were made, and which of them fails, counted from 1.
  public private(set) var mapCalls = 0
  public var failingMap = 0
  /// The same of unmappings: what was mapped stays so.
  public private(set) var unmapCalls = 0
  public var failingUnmap = 0
  public let unmapFailures = UnmapFailures()
  /// Whether the pages were still there when they were taken off the bus.
  public private(set) var pagesAtUnmap: [Bool] = []
  public private(set) var wrongUnmaps = 0
  /// Accesses of the device that nothing was mapped for.
  public private(set) var faults: [IOVA] = []

  public init() {}

  public func map(_ memory: HostMemory, at address: IOVA, access: DMAAccess) throws(IOAddressSpaceError) {
    mapCalls += 1
    let byteCount = unsafe memory.byteCount
    let base = UInt(bitPattern: unsafe memory.base)
    if mapCalls == failingMap { throw .limitReached }
    guard address.rawValue % 4096 == 0, byteCount > 0, byteCount % 4096 == 0, base % 4096 == 0 else {
      throw .misaligned(address, byteCount: byteCount)
    }
    for entry in entries
    where entry.start < address.rawValue + UInt64(byteCount) && address.rawValue < entry.start + UInt64(entry.byteCount) {
      throw .overlap(address)
    }
    entries.append(Entry(start: address.rawValue, byteCount: byteCount, access: access.rawValue, base: base))
  }

  public func unmap(_ address: IOVA, byteCount: Int) throws(IOAddressSpaceError) {
    unmapCalls += 1
    if unmapCalls == failingUnmap { throw .refused(address, byteCount: byteCount, "a call that a test makes fail") }
    guard let n = entries.firstIndex(where: { $0.start == address.rawValue && $0.byteCount == byteCount }) else {
      wrongUnmaps += 1
      throw .notMapped(address)
    }
    pagesAtUnmap.append(isMapped(entries[n].base, byteCount))
    entries.remove(at: n)
  }

  /// Reads as the device does. Nil, and a fault, if any of it is not the device's to read.
  public func read(_ address: IOVA, _ count: Int) -> [UInt8]? {
    for entry in entries
    where entry.access & DMAAccess.read.rawValue != 0 && entry.start <= address.rawValue
      && address.rawValue - entry.start <= UInt64(entry.byteCount)
      && UInt64(count) <= UInt64(entry.byteCount) - (address.rawValue - entry.start) {
      let from = unsafe UnsafeRawPointer(bitPattern: entry.base + UInt(address.rawValue - entry.start))!
      return unsafe Array(UnsafeRawBufferPointer(start: from, count: count))
    }
    faults.append(address)
    return nil
  }

  /// Writes as the device does. False, and a fault, if any of it is not the device's to write.
  public func write(_ bytes: [UInt8], at address: IOVA) -> Bool {
    if bytes.isEmpty { return true }
    for entry in entries
    where entry.access & DMAAccess.write.rawValue != 0 && entry.start <= address.rawValue
      && address.rawValue - entry.start <= UInt64(entry.byteCount)
      && UInt64(bytes.count) <= UInt64(entry.byteCount) - (address.rawValue - entry.start) {
      let to = unsafe UnsafeMutableRawPointer(bitPattern: entry.base + UInt(address.rawValue - entry.start))!
      unsafe bytes.withUnsafeBytes { unsafe sl_copy(to, $0.baseAddress!, $0.count) }
      return true
    }
    // Adjacent mappings are one piece of the bus.
    if bytes.count > 1, let entry = entries.first(where: { $0.start <= address.rawValue && address.rawValue - $0.start < UInt64($0.byteCount) }) {
      let here = entry.byteCount - Int(address.rawValue - entry.start)
      if here < bytes.count {
        return write(Array(bytes[..<here]), at: address) && write(Array(bytes[here...]), at: address + UInt64(here))
      }
    }
    faults.append(address)
    return false
  }
}

/// Whether pages of this process are there. mincore(2).
public func isMapped(_ base: UInt, _ byteCount: Int) -> Bool {
  var states = [UInt8](repeating: 0, count: (byteCount + 4095) / 4096)
  let page = unsafe UnsafeMutableRawPointer(bitPattern: base)
  return unsafe states.withUnsafeMutableBufferPointer { unsafe mincore(page!, byteCount, $0.baseAddress!) } == 0
}

/// Bytes of address space that this process uses: /proc/self/statm.
public func addressSpaceBytes() -> Int {
  let number = unsafe open("/proc/self/statm", O_RDONLY)
  guard number >= 0 else { return 0 }
  defer { close(number) }
  var text = [UInt8](repeating: 0, count: 128)
  let count = unsafe text.withUnsafeMutableBytes { unsafe Glibc.read(number, $0.baseAddress!, $0.count) }
  var pages = 0
  for byte in text.prefix(max(count, 0)) {
    guard byte >= 48 && byte <= 57 else { break }
    pages = pages * 10 + Int(byte - 48)
  }
  return pages * 4096
}
