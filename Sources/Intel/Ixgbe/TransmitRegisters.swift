internal import Bus

// Transmit DMA, all but what each queue has. 82599 datasheet 8.2.3.9 and 8.2.3.10.

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
