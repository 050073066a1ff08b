internal import Bus

// Receive DMA, one set of registers a queue. 82599 datasheet 8.2.3.8, 8.2.3.11 and 8.2.3.12.

/// Where the registers of receive queue n, 0 to 127, begin: two blocks of 64.
private func block(_ n: Int) -> Int { n < 64 ? 0x01000 + 0x40 * n : 0x0D000 + 0x40 * (n - 64) }

/// Receive Descriptor Base Address Low. 8.2.3.8.1.
struct RDBAL: Register32 {
  static func offset(_ n: Int) -> Int { block(n) }
  var rawValue: UInt32
}
/// Receive Descriptor Base Address High. 8.2.3.8.2.
struct RDBAH: Register32 {
  static func offset(_ n: Int) -> Int { block(n) + 0x04 }
  var rawValue: UInt32
}
/// Receive Descriptor Length, in bytes, a multiple of 128. 8.2.3.8.3.
struct RDLEN: Register32 {
  static func offset(_ n: Int) -> Int { block(n) + 0x08 }
  var rawValue: UInt32
}
/// Receive Descriptor Head. 8.2.3.8.4.
struct RDH: Register32 {
  static func offset(_ n: Int) -> Int { block(n) + 0x10 }
  var rawValue: UInt32
}
/// Receive Descriptor Tail. 8.2.3.8.5.
struct RDT: Register32 {
  static func offset(_ n: Int) -> Int { block(n) + 0x18 }
  var rawValue: UInt32
}
/// Receive Descriptor Control. 8.2.3.8.6.
struct RXDCTL: Register32 {
  static func offset(_ n: Int) -> Int { block(n) + 0x28 }
  var rawValue: UInt32
  var isEnabled: Bool { get { self[bit: 25] } set { self[bit: 25] = newValue } }
  /// VME: takes the VLAN tag out of the frame. Guests want theirs where it was.
  var stripsVLAN: Bool { get { self[bit: 30] } set { self[bit: 30] = newValue } }
}
/// Split Receive Control. 8.2.3.8.7.
struct SRRCTL: Register32 {
  static func offset(_ n: Int) -> Int { block(n) + 0x14 }
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
/// RSC Control: coalescing of received segments. Off here: a frame is what was on the wire.
struct RSCCTL: Register32 {
  static func offset(_ n: Int) -> Int { block(n) + 0x2C }
  var rawValue: UInt32
}
/// Rx DCA Control. 8.2.3.11.1.
struct DCA_RXCTRL: Register32 {
  static func offset(_ n: Int) -> Int { block(n) + 0x0C }
  var rawValue: UInt32
  /// Bit 12 is reserved, set after a reset, and has to be cleared: 4.6.7.
  var reserved12: Bool { get { self[bit: 12] } set { self[bit: 12] = newValue } }
}

/// Receive DMA Control. 8.2.3.8.8.
struct RDRXCTL: Register32 {
  static func offset(_ n: Int) -> Int { 0x02F00 }
  var rawValue: UInt32
  /// CRCStrip: must equal HLREG0.RXCRCSTRP.
  var stripsCRC: Bool { get { self[bit: 1] } set { self[bit: 1] = newValue } }
  /// DMAIDONE: the receive DMA is initialised.
  var isInitialized: Bool { self[bit: 3] }
  /// RSCFRSTSIZE: must be 0, and is not after a reset.
  var firstCoalescedSize: UInt32 { get { self[bits: 17...21] } set { self[bits: 17...21] = newValue } }
  /// RSCACKC and FCOE_WRFIX: must be 1.
  var coalescesAcknowledgements: Bool { get { self[bit: 25] } set { self[bit: 25] = newValue } }
  var fixesFCoEWrites: Bool { get { self[bit: 26] } set { self[bit: 26] = newValue } }
}
/// Receive Packet Buffer Size, n 0 to 7. 8.2.3.8.9.
struct RXPBSIZE: Register32 {
  static func offset(_ n: Int) -> Int { 0x03C00 + 4 * n }
  var rawValue: UInt32
  /// SIZE, in KiB.
  var kibibytes: UInt32 { get { self[bits: 10...19] } set { self[bits: 10...19] = newValue } }
}
/// Receive Control. 8.2.3.8.10.
struct RXCTRL: Register32 {
  static func offset(_ n: Int) -> Int { 0x03000 }
  var rawValue: UInt32
  /// RXEN
  var isEnabled: Bool { get { self[bit: 0] } set { self[bit: 0] = newValue } }
}
/// Security Rx Control. 8.2.3.12.5.
struct SECRXCTRL: Register32 {
  static func offset(_ n: Int) -> Int { 0x08D00 }
  var rawValue: UInt32
  /// RX_DIS: holds the receive data path.
  var isHalted: Bool { get { self[bit: 1] } set { self[bit: 1] = newValue } }
}
/// Security Rx Status. 8.2.3.12.6.
struct SECRXSTAT: Register32 {
  static func offset(_ n: Int) -> Int { 0x08D04 }
  var rawValue: UInt32
  /// SECRX_RDY: the receive data path is held and empty.
  var isReady: Bool { self[bit: 0] }
}
