internal import Bus

// Reset, start-up, link and MAC. 82599 datasheet 8.2.3.1 to 8.2.3.4 and 8.2.3.22. Mnemonics are the datasheet's.

/// Device Control. 8.2.3.1.1.
struct CTRL: Register32 {
  static func offset(_ n: Int) -> Int { 0x00000 }
  var rawValue: UInt32
  /// PCIe Master Disable: no more requests on the bus. 5.2.5.3.2.
  var isMasterDisabled: Bool { get { self[bit: 2] } set { self[bit: 2] = newValue } }
  /// LRST: with `isReset`, a global reset.
  var isLinkReset: Bool { get { self[bit: 3] } set { self[bit: 3] = newValue } }
  /// RST: clears itself when done.
  var isReset: Bool { get { self[bit: 26] } set { self[bit: 26] = newValue } }
}

/// Device Status. 8.2.3.1.2.
struct STATUS: Register32 {
  static func offset(_ n: Int) -> Int { 0x00008 }
  var rawValue: UInt32
  /// PCIe Master Enable Status: requests may still be under way.
  var isMasterEnabled: Bool { self[bit: 19] }
}

/// Extended Device Control. 8.2.3.1.3.
struct CTRL_EXT: Register32 {
  static func offset(_ n: Int) -> Int { 0x00018 }
  var rawValue: UInt32
  /// NS_DIS: no snoop disable; set at the end of receive initialisation.
  var disablesNoSnoop: Bool { get { self[bit: 16] } set { self[bit: 16] = newValue } }
  /// Extended VLAN: every frame has an outer tag, and the frame limit grows by eight. Never set here.
  var expectsOuterTag: Bool { get { self[bit: 26] } set { self[bit: 26] = newValue } }
  /// DRV_LOAD: tells the card's firmware that a driver is there.
  var isDriverLoaded: Bool { get { self[bit: 28] } set { self[bit: 28] = newValue } }
}

/// EEPROM/Flash Control. 8.2.3.2.1.
struct EEC: Register32 {
  static func offset(_ n: Int) -> Int { 0x10010 }
  var rawValue: UInt32
  /// Auto_RD: the card has read its EEPROM, or has found none.
  var isAutoReadDone: Bool { self[bit: 9] }
}

/// Flow Control Transmit Timer Value, n 0 to 3. 8.2.3.3.
struct FCTTV: Register32 {
  static func offset(_ n: Int) -> Int { 0x03200 + 4 * n }
  var rawValue: UInt32
}
/// Flow Control Receive Threshold Low, n 0 to 7. 8.2.3.3.
struct FCRTL: Register32 {
  static func offset(_ n: Int) -> Int { 0x03220 + 4 * n }
  var rawValue: UInt32
}
/// Flow Control Receive Threshold High, n 0 to 7. 8.2.3.3.4.
struct FCRTH: Register32 {
  static func offset(_ n: Int) -> Int { 0x03260 + 4 * n }
  var rawValue: UInt32
  /// RTH: in units of 32 bytes of packet buffer.
  var threshold: UInt32 { get { self[bits: 5...18] } set { self[bits: 5...18] = newValue } }
}
/// Flow Control Refresh Threshold. 8.2.3.3.
struct FCRTV: Register32 {
  static func offset(_ n: Int) -> Int { 0x032A0 }
  var rawValue: UInt32
}
/// Flow Control Configuration. 8.2.3.3.7.
struct FCCFG: Register32 {
  static func offset(_ n: Int) -> Int { 0x03D00 }
  var rawValue: UInt32
  /// TFCE: 0 sends no pause frames.
  var transmitFlowControl: UInt32 { get { self[bits: 3...4] } set { self[bits: 3...4] = newValue } }
}

/// PCIe Control Extended. 8.2.3.4.12.
struct GCR_EXT: Register32 {
  static func offset(_ n: Int) -> Int { 0x11050 }
  var rawValue: UInt32
  /// Buffers_Clear_Func: drops what waits on the way to the bus. 5.2.5.3.2.
  var clearsBuffers: Bool { get { self[bit: 30] } set { self[bit: 30] = newValue } }
}

/// MAC Core Control 0. 8.2.3.22.8.
struct HLREG0: Register32 {
  static func offset(_ n: Int) -> Int { 0x04240 }
  var rawValue: UInt32
  /// TXCRCEN: the card appends the FCS.
  var appendsCRC: Bool { get { self[bit: 0] } set { self[bit: 0] = newValue } }
  /// RXCRCSTRP: the FCS is not stored. Must equal RDRXCTL.CRCStrip.
  var stripsCRC: Bool { get { self[bit: 1] } set { self[bit: 1] = newValue } }
  /// JUMBOEN: the frame limit is MAXFRS's; else it is 1518 bytes.
  var obeysFrameLimit: Bool { get { self[bit: 2] } set { self[bit: 2] = newValue } }
  /// TXPADEN: short frames are padded to 64 bytes.
  var padsShortFrames: Bool { get { self[bit: 10] } set { self[bit: 10] = newValue } }
  /// LPBK: MAC loopback.
  var isLoopback: Bool { get { self[bit: 15] } set { self[bit: 15] = newValue } }
}

/// Max Frame Size. 8.2.3.22.13.
struct MAXFRS: Register32 {
  static func offset(_ n: Int) -> Int { 0x04268 }
  var rawValue: UInt32
  /// MFS: bytes of the largest frame without a tag, its FCS counted. A frame with a tag may have four more.
  var largestFrame: UInt32 { get { self[bits: 16...31] } set { self[bits: 16...31] = newValue } }
}

/// MAC Flow Control. 8.2.3.22.34.
struct MFLCN: Register32 {
  static func offset(_ n: Int) -> Int { 0x04294 }
  var rawValue: UInt32
  /// RPFCE and RFCE: obey pause frames by priority, and plain ones.
  var obeysPriorityPause: Bool { get { self[bit: 2] } set { self[bit: 2] = newValue } }
  var obeysPause: Bool { get { self[bit: 3] } set { self[bit: 3] = newValue } }
}

/// Auto-Negotiation Control. 8.2.3.22.19.
struct AUTOC: Register32 {
  static func offset(_ n: Int) -> Int { 0x042A0 }
  var rawValue: UInt32
  /// Restart_AN: clears itself.
  var restartsLink: Bool { get { self[bit: 12] } set { self[bit: 12] = newValue } }
}

/// Link Status. 8.2.3.22.20.
struct LINKS: Register32 {
  static func offset(_ n: Int) -> Int { 0x042A4 }
  var rawValue: UInt32
  var isUp: Bool { self[bit: 30] }
  /// LINK_SPEED: 1 is 100 Mbit/s, 2 is 1 Gbit/s, 3 is 10 Gbit/s.
  var speed: UInt32 { self[bits: 28...29] }
}
