internal import Bus

// Exact-match filters in the card's packet buffer. 82599 datasheet 7.1.2.7 and 8.2.3.21.

/// Flow Director Filters Control.
struct FDIRCTRL: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE00 }
  var rawValue: UInt32
  /// PBALLOC: 1, 2, 3 take 64, 128, 256 KiB of packet buffer.
  var allocation: UInt32 { get { self[bits: 0...1] } set { self[bits: 0...1] = newValue } }
  /// INIT-Done
  var isInitialized: Bool { self[bit: 3] }
  /// Perfect-Match
  var matchesExactly: Bool { get { self[bit: 4] } set { self[bit: 4] = newValue } }
  /// Report-Status: the descriptor names the filter.
  var reportsFilter: Bool { get { self[bit: 5] } set { self[bit: 5] = newValue } }
  var dropQueue: UInt32 { get { self[bits: 8...14] } set { self[bits: 8...14] = newValue } }
  /// Flex-Offset, in words.
  var flexOffset: UInt32 { get { self[bits: 16...20] } set { self[bits: 16...20] = newValue } }
  /// Max-Length of a bucket's list, and Full-Thresh, in units of 16 filters.
  var longestList: UInt32 { get { self[bits: 24...27] } set { self[bits: 24...27] = newValue } }
  var fullThreshold: UInt32 { get { self[bits: 28...31] } set { self[bits: 28...31] = newValue } }
}
/// Flow Director Filters Hash Key: any value; ours are drawn at random once.
struct FDIRHKEY: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE68 }
  var rawValue: UInt32
  static let bucket = FDIRHKEY(rawValue: 0x6E3C_92B5)
}
struct FDIRSKEY: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE6C }
  var rawValue: UInt32
  static let signature = FDIRSKEY(rawValue: 0x51F7_0D2B)
}
/// Which bits of addresses and ports are left out: all bits compared is 0.
struct FDIRDIP4M: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE3C }
  var rawValue: UInt32
}
struct FDIRSIP4M: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE40 }
  var rawValue: UInt32
}
struct FDIRTCPM: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE44 }
  var rawValue: UInt32
}
struct FDIRUDPM: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE48 }
  var rawValue: UInt32
}
struct FDIRIP6M: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE74 }
  var rawValue: UInt32
}
/// Flow Director Filters Other Mask: what is left out.
struct FDIRM: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE70 }
  var rawValue: UInt32
  /// VLANID, VLANP
  var ignoresVLAN: Bool { get { self[bit: 0] } set { self[bit: 0] = newValue } }
  var ignoresPriority: Bool { get { self[bit: 1] } set { self[bit: 1] = newValue } }
  var ignoresPool: Bool { get { self[bit: 2] } set { self[bit: 2] = newValue } }
  /// L4P
  var ignoresTransport: Bool { get { self[bit: 3] } set { self[bit: 3] = newValue } }
  var ignoresFlex: Bool { get { self[bit: 4] } set { self[bit: 4] = newValue } }
  var ignoresIPv6Destination: Bool { get { self[bit: 5] } set { self[bit: 5] = newValue } }
}
/// The first twelve bytes of an IPv6 source address, n 0 to 2; the lowest byte is first on the wire.
struct FDIRSIPv6: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE0C + 4 * n }
  var rawValue: UInt32
}
/// Source and destination address of the filter at hand; the lowest byte is first on the wire.
struct FDIRIPSA: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE18 }
  var rawValue: UInt32
}
struct FDIRIPDA: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE1C }
  var rawValue: UInt32
}
/// Ports: numbers, not bytes on the wire.
struct FDIRPORT: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE20 }
  var rawValue: UInt32
  var source: UInt32 { get { self[bits: 0...15] } set { self[bits: 0...15] = newValue } }
  var destination: UInt32 { get { self[bits: 16...31] } set { self[bits: 16...31] = newValue } }
}
struct FDIRVLAN: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE24 }
  var rawValue: UInt32
  /// The tag as a number; the flexible bytes as they lie on the wire, the first one lowest.
  var tag: UInt32 { get { self[bits: 0...15] } set { self[bits: 0...15] = newValue } }
  var flexible: UInt32 { get { self[bits: 16...31] } set { self[bits: 16...31] = newValue } }
}
struct FDIRHASH: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE28 }
  var rawValue: UInt32
  var bucket: UInt32 { get { self[bits: 0...14] } set { self[bits: 0...14] = newValue } }
  /// The filter's number as software knows it.
  var index: UInt32 { get { self[bits: 16...30] } set { self[bits: 16...30] = newValue } }
}
/// Flow Director Command.
struct FDIRCMD: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE2C }
  var rawValue: UInt32
  /// CMD: 1 adds, 2 removes, 3 asks; 0 when the card is done.
  var command: UInt32 { get { self[bits: 0...1] } set { self[bits: 0...1] = newValue } }
  /// Filter-Valid: the answer to 3.
  var isPresent: Bool { self[bit: 2] }
  /// Filter-Update: replaces a filter that is there.
  var updates: Bool { get { self[bit: 3] } set { self[bit: 3] = newValue } }
  /// L4TYPE: 0 none of these, 1 UDP, 2 TCP, 3 SCTP.
  var transport: UInt32 { get { self[bits: 5...6] } set { self[bits: 5...6] = newValue } }
  var isIPv6: Bool { get { self[bit: 7] } set { self[bit: 7] = newValue } }
  /// Clear-HT: forgets all filters.
  var clears: Bool { get { self[bit: 8] } set { self[bit: 8] = newValue } }
  var drops: Bool { get { self[bit: 9] } set { self[bit: 9] = newValue } }
  var isLast: Bool { get { self[bit: 11] } set { self[bit: 11] = newValue } }
  /// Queue-EN: the filter names a queue.
  var choosesQueue: Bool { get { self[bit: 15] } set { self[bit: 15] = newValue } }
  var queue: UInt32 { get { self[bits: 16...22] } set { self[bits: 16...22] = newValue } }
  var pool: UInt32 { get { self[bits: 24...29] } set { self[bits: 24...29] = newValue } }
}
/// Flow Director Filters Free.
struct FDIRFREE: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EE38 }
  var rawValue: UInt32
  var free: UInt32 { self[bits: 0...15] }
}
