internal import Bus

// Transmit DMA, one set of registers a queue. 82599 datasheet 8.2.3.9, 8.2.3.10 and 8.2.3.11.

private func block(_ n: Int) -> Int { 0x06000 + 0x40 * n }

/// Transmit Descriptor Base Address Low. 8.2.3.9.5.
struct TDBAL: Register32 {
  static func offset(_ n: Int) -> Int { block(n) }
  var rawValue: UInt32
}
/// Transmit Descriptor Base Address High. 8.2.3.9.6.
struct TDBAH: Register32 {
  static func offset(_ n: Int) -> Int { block(n) + 0x04 }
  var rawValue: UInt32
}
/// Transmit Descriptor Length, in bytes, a multiple of 128. 8.2.3.9.7.
struct TDLEN: Register32 {
  static func offset(_ n: Int) -> Int { block(n) + 0x08 }
  var rawValue: UInt32
}
/// Transmit Descriptor Head. 8.2.3.9.8.
struct TDH: Register32 {
  static func offset(_ n: Int) -> Int { block(n) + 0x10 }
  var rawValue: UInt32
}
/// Transmit Descriptor Tail. 8.2.3.9.9.
struct TDT: Register32 {
  static func offset(_ n: Int) -> Int { block(n) + 0x18 }
  var rawValue: UInt32
}
/// Transmit Descriptor Control. 8.2.3.9.10.
struct TXDCTL: Register32 {
  static func offset(_ n: Int) -> Int { block(n) + 0x28 }
  var rawValue: UInt32
  /// PTHRESH: fetches ahead when fewer descriptors than this are in the card.
  var prefetchThreshold: UInt32 { get { self[bits: 0...6] } set { self[bits: 0...6] = newValue } }
  /// HTHRESH: and at least so many wait in memory.
  var hostThreshold: UInt32 { get { self[bits: 8...14] } set { self[bits: 8...14] = newValue } }
  /// WTHRESH: 0 reports each descriptor at once.
  var reportThreshold: UInt32 { get { self[bits: 16...22] } set { self[bits: 16...22] = newValue } }
  var isEnabled: Bool { get { self[bit: 25] } set { self[bit: 25] = newValue } }
}
/// Tx Descriptor Completion Write Back Address Low: 0, heads are not written to memory. 8.2.3.9.11.
struct TDWBAL: Register32 {
  static func offset(_ n: Int) -> Int { block(n) + 0x38 }
  var rawValue: UInt32
}

/// DMA Tx TCP Max Allow Size Requests. 8.2.3.9.1.
struct DTXMXSZRQ: Register32 {
  static func offset(_ n: Int) -> Int { 0x08100 }
  var rawValue: UInt32
  /// Max_bytes_num_req, in units of 256 bytes.
  var units: UInt32 { get { self[bits: 0...11] } set { self[bits: 0...11] = newValue } }
}
/// DMA Tx Control. 8.2.3.9.2.
struct DMATXCTL: Register32 {
  static func offset(_ n: Int) -> Int { 0x04A80 }
  var rawValue: UInt32
  /// TE
  var isEnabled: Bool { get { self[bit: 0] } set { self[bit: 0] = newValue } }
}
/// Transmit Packet Buffer Size, n 0 to 7. 8.2.3.9.13.
struct TXPBSIZE: Register32 {
  static func offset(_ n: Int) -> Int { 0x0CC00 + 4 * n }
  var rawValue: UInt32
  /// SIZE, in KiB.
  var kibibytes: UInt32 { get { self[bits: 10...19] } set { self[bits: 10...19] = newValue } }
}
/// Multiple Transmit Queues Command. 8.2.3.9.15. Written only while RTTDCS.ARBDIS holds the arbiter.
struct MTQC: Register32 {
  static func offset(_ n: Int) -> Int { 0x08120 }
  var rawValue: UInt32
  /// VT_Ena
  var isVirtualized: Bool { get { self[bit: 1] } set { self[bit: 1] = newValue } }
  /// NUM_TC_OR_Q: 0 is 64 queues; virtualized, 1 is 64 pools of 2 queues, 2 is 32 pools of 4.
  var layout: UInt32 { get { self[bits: 2...3] } set { self[bits: 2...3] = newValue } }
}
/// Tx Packet Buffer Threshold, n 0 to 7. 8.2.3.9.16.
struct TXPBTHRESH: Register32 {
  static func offset(_ n: Int) -> Int { 0x04950 + 4 * n }
  var rawValue: UInt32
  /// THRESH, in KiB: the buffer's size less the largest frame.
  var kibibytes: UInt32 { get { self[bits: 0...9] } set { self[bits: 0...9] = newValue } }
}
/// DCB Transmit Descriptor Plane Control and Status. 8.2.3.10.2.
struct RTTDCS: Register32 {
  static func offset(_ n: Int) -> Int { 0x04900 }
  var rawValue: UInt32
  /// ARBDIS
  var isArbiterHeld: Bool { get { self[bit: 6] } set { self[bit: 6] = newValue } }
}
