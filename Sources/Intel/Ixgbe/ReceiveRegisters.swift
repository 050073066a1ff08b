internal import Bus

// Receive DMA, all but what each queue has. 82599 datasheet 8.2.3.8 and 8.2.3.12.

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
