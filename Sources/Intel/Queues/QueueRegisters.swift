internal import Bus

// What each queue has: 64 bytes of registers, in the same order in the 82599, the 82576, the I350 and their virtual functions, but
// for what `QueueKind` says. Offsets are from the first of them. 82599 datasheet 8.2.3.8, 8.2.3.9, 8.2.3.11; 82576
// datasheet 8.10, 8.12.

// MARK: Receive

/// Receive Descriptor Base Address Low.
struct RDBAL: Register32 {
  static func offset(_ n: Int) -> Int { 0x00 }
  var rawValue: UInt32
}
/// Receive Descriptor Base Address High.
struct RDBAH: Register32 {
  static func offset(_ n: Int) -> Int { 0x04 }
  var rawValue: UInt32
}
/// Receive Descriptor Length, in bytes, a multiple of 128.
struct RDLEN: Register32 {
  static func offset(_ n: Int) -> Int { 0x08 }
  var rawValue: UInt32
}
/// Receive Descriptor Head.
struct RDH: Register32 {
  static func offset(_ n: Int) -> Int { 0x10 }
  var rawValue: UInt32
}
/// Receive Descriptor Tail.
struct RDT: Register32 {
  static func offset(_ n: Int) -> Int { 0x18 }
  var rawValue: UInt32
}
/// Receive Descriptor Control. 82599 datasheet 8.2.3.8.6.
struct RXDCTL: Register32 {
  static func offset(_ n: Int) -> Int { 0x28 }
  var rawValue: UInt32
  var isEnabled: Bool { get { self[bit: 25] } set { self[bit: 25] = newValue } }
  /// VME, of the 82599: takes the VLAN tag out of the frame.
  var stripsVLAN: Bool { get { self[bit: 30] } set { self[bit: 30] = newValue } }
  /// WTHRESH, of the 82576 and the I350: descriptors that are written back together.
  var reportThreshold: UInt32 { get { self[bits: 16...20] } set { self[bits: 16...20] = newValue } }
}
/// Split Receive Control of the 82599. 8.2.3.8.7.
struct SRRCTL: Register32 {
  static func offset(_ n: Int) -> Int { 0x14 }
  var rawValue: UInt32
  /// BSIZEPACKET: the most that is written to one buffer, in KiB, 1 to 16.
  var bufferKibibytes: UInt32 { get { self[bits: 0...4] } set { self[bits: 0...4] = newValue } }
  /// BSIZEHEADER: in units of 64 bytes. Not used, but must not be zero.
  var headerUnits: UInt32 { get { self[bits: 8...13] } set { self[bits: 8...13] = newValue } }
  /// DESCTYPE: 1 is the advanced descriptor with one buffer.
  var descriptorType: UInt32 { get { self[bits: 25...27] } set { self[bits: 25...27] = newValue } }
  /// Drop_En: with no buffer posted, drop the frame here instead of stalling every queue.
  var dropsWhenEmpty: Bool { get { self[bit: 28] } set { self[bit: 28] = newValue } }
}
/// Split and Replication Receive Control of the 82576 and the I350. 8.10.2.
struct IgbSRRCTL: Register32 {
  static func offset(_ n: Int) -> Int { 0x0C }
  var rawValue: UInt32
  /// BSIZEPACKET, in KiB.
  var bufferKibibytes: UInt32 { get { self[bits: 0...6] } set { self[bits: 0...6] = newValue } }
  /// BSIZEHEADER, as above.
  var headerUnits: UInt32 { get { self[bits: 8...11] } set { self[bits: 8...11] = newValue } }
  var descriptorType: UInt32 { get { self[bits: 25...27] } set { self[bits: 25...27] = newValue } }
  var dropsWhenEmpty: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
}
/// RSC Control of the 82599: coalescing of received segments. Off here: a frame is what was on the wire.
struct RSCCTL: Register32 {
  static func offset(_ n: Int) -> Int { 0x2C }
  var rawValue: UInt32
}
/// Rx DCA Control of the 82599. 8.2.3.11.1.
struct DCA_RXCTRL: Register32 {
  static func offset(_ n: Int) -> Int { 0x0C }
  var rawValue: UInt32
  /// Bit 12 is reserved, set after a reset, and has to be cleared: 4.6.7.
  var reserved12: Bool { get { self[bit: 12] } set { self[bit: 12] = newValue } }
}

// MARK: Transmit

/// Transmit Descriptor Base Address Low.
struct TDBAL: Register32 {
  static func offset(_ n: Int) -> Int { 0x00 }
  var rawValue: UInt32
}
/// Transmit Descriptor Base Address High.
struct TDBAH: Register32 {
  static func offset(_ n: Int) -> Int { 0x04 }
  var rawValue: UInt32
}
/// Transmit Descriptor Length, in bytes, a multiple of 128.
struct TDLEN: Register32 {
  static func offset(_ n: Int) -> Int { 0x08 }
  var rawValue: UInt32
}
/// Transmit Descriptor Head.
struct TDH: Register32 {
  static func offset(_ n: Int) -> Int { 0x10 }
  var rawValue: UInt32
}
/// Transmit Descriptor Tail.
struct TDT: Register32 {
  static func offset(_ n: Int) -> Int { 0x18 }
  var rawValue: UInt32
}
/// Transmit Descriptor Control. 82599 datasheet 8.2.3.9.10: seven bits each; the 82576 has five.
struct TXDCTL: Register32 {
  static func offset(_ n: Int) -> Int { 0x28 }
  var rawValue: UInt32
  /// PTHRESH: fetches ahead when fewer descriptors than this are in the card.
  var prefetchThreshold: UInt32 { get { self[bits: 0...6] } set { self[bits: 0...6] = newValue } }
  /// HTHRESH: and at least so many wait in memory.
  var hostThreshold: UInt32 { get { self[bits: 8...14] } set { self[bits: 8...14] = newValue } }
  /// WTHRESH: 0 reports each descriptor at once.
  var reportThreshold: UInt32 { get { self[bits: 16...22] } set { self[bits: 16...22] = newValue } }
  var isEnabled: Bool { get { self[bit: 25] } set { self[bit: 25] = newValue } }
}
/// Tx Descriptor Completion Write Back Address Low: 0, heads are not written to memory.
struct TDWBAL: Register32 {
  static func offset(_ n: Int) -> Int { 0x38 }
  var rawValue: UInt32
}
