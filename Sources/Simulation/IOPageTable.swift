internal import Bus

/// The simulated IOMMU's page table: four levels of 512 entries of eight bytes, as an IOMMU walks them.
///
/// An entry is 0 (nothing there), the address of the next table, or a leaf: the host address of a page of 4 KiB,
/// 2 MiB or 1 GiB with what a device may do there. "Physical" addresses are addresses in this process.
///
/// `@safe`: every index is cut to nine bits, and an entry without the leaf bit is an address of a table that this
/// owns. One thread at a time.
@safe struct IOPageTable: ~Copyable {
  /// Addresses are this wide.
  static let addressBits: UInt64 = 48
  /// log₂ of the bytes behind one entry of the root, and of the sizes of a leaf.
  static let rootShift: UInt64 = 39
  static let leafShifts: [UInt64] = [30, 21, 12]

  /// The bits of an entry below its address.
  static let leafBit: UInt64 = 4
  static let addressMask: UInt64 = ~4095

  private typealias Table = UnsafeMutablePointer<UInt64>
  private let root: Table
  /// Tables there are, the root among them.
  private let tables: UnsafeMutablePointer<Int>

  init() {
    unsafe tables = .allocate(capacity: 1)
    unsafe tables.initialize(to: 0)
    unsafe root = Self.makeTable(counting: tables)
  }

  deinit {
    unsafe free(root, Self.rootShift)
    unsafe tables.deallocate()
  }

  var tableCount: Int { unsafe tables.pointee }

  /// The entry that decides about an address below 2⁴⁸, and log₂ of the bytes that it decides about.
  @inline(__always) func lookup(_ address: UInt64) -> (entry: UInt64, shift: UInt64) {
    var table = unsafe root
    var shift = Self.rootShift
    while true {
      let entry = unsafe table[Int(address >> shift & 511)]
      if entry == 0 || entry & Self.leafBit != 0 { return (entry, shift) }
      unsafe table = Self.table(entry)
      shift &-= 9
    }
  }

  /// Enters leaves, each as large as the alignment of both addresses and the length allow. The range is empty now.
  func enter(_ address: UInt64, byteCount: UInt64, host: UInt64, access: DMAAccess) {
    var done: UInt64 = 0
    while done < byteCount {
      let (from, to) = (address + done, host + done)
      let shift = Self.leafShifts.first { (from | to) & (1 << $0 - 1) == 0 && 1 << $0 <= byteCount - done }!
      unsafe slot(from, shift).pointee = to | Self.leafBit | UInt64(access.rawValue)
      done += 1 << shift
    }
  }

  /// Clears every leaf of a range that cuts none in two, and gives empty tables back.
  func clear(_ address: UInt64, byteCount: UInt64) {
    unsafe clear(root, Self.rootShift, address, address + byteCount)
  }

  /// The entry for an address at a level, with the tables above it made as needed.
  private func slot(_ address: UInt64, _ wanted: UInt64) -> Table {
    var table = unsafe root
    var shift = Self.rootShift
    while shift > wanted {
      let entry = unsafe table + Int(address >> shift & 511)
      if unsafe entry.pointee == 0 {
        unsafe entry.pointee = UInt64(UInt(bitPattern: Self.makeTable(counting: tables)))
      }
      precondition(unsafe entry.pointee & Self.leafBit == 0, "a page table entry is in use already")
      unsafe table = Self.table(entry.pointee)
      shift -= 9
    }
    return unsafe table + Int(address >> shift & 511)
  }

  private func clear(_ table: Table, _ shift: UInt64, _ start: UInt64, _ end: UInt64) {
    var address = start
    while address < end {
      let next = min(end, (address >> shift + 1) << shift)
      let entry = unsafe table + Int(address >> shift & 511)
      if unsafe entry.pointee & Self.leafBit != 0 {
        precondition(next - address == 1 << shift, "a large page would be cut in two")
        unsafe entry.pointee = 0
      } else if unsafe entry.pointee != 0 {
        let below = unsafe Self.table(entry.pointee)
        unsafe clear(below, shift - 9, address, next)
        if unsafe UnsafeBufferPointer(start: below, count: 512).allSatisfy({ $0 == 0 }) {
          unsafe below.deallocate()
          unsafe tables.pointee -= 1
          unsafe entry.pointee = 0
        }
      }
      address = next
    }
  }

  private func free(_ table: Table, _ shift: UInt64) {
    for index in 0..<512 {
      let entry = unsafe table[index]
      if entry != 0 && entry & Self.leafBit == 0 { unsafe free(Self.table(entry), shift - 9) }
    }
    unsafe table.deallocate()
  }

  private static func makeTable(counting tables: UnsafeMutablePointer<Int>) -> Table {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    let table = unsafe memory.bindMemory(to: UInt64.self, capacity: 512)
    unsafe table.initialize(repeating: 0, count: 512)
    unsafe tables.pointee += 1
    return unsafe table
  }

  @inline(__always) private static func table(_ entry: UInt64) -> Table {
    unsafe Table(bitPattern: UInt(entry & addressMask)).unsafelyUnwrapped
  }
}
