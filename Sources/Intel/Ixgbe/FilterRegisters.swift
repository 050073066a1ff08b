internal import Bus
internal import FlowSteering

// Which frames come in, and to which pool and queue. 82599 datasheet 8.2.3.7 and 8.2.3.27.

/// Filter Control. 8.2.3.7.1.
struct FCTRL: Register32 {
  static func offset(_ n: Int) -> Int { 0x05080 }
  var rawValue: UInt32
  /// SBP: damaged frames are stored. MPE, UPE: all multicast, all unicast. BAM: broadcast.
  var storesBadFrames: Bool { get { self[bit: 1] } set { self[bit: 1] = newValue } }
  var acceptsAllMulticast: Bool { get { self[bit: 8] } set { self[bit: 8] = newValue } }
  var acceptsAllUnicast: Bool { get { self[bit: 9] } set { self[bit: 9] = newValue } }
  var acceptsBroadcast: Bool { get { self[bit: 10] } set { self[bit: 10] = newValue } }
}
/// VLAN Control. 8.2.3.7.2.
struct VLNCTRL: Register32 {
  static func offset(_ n: Int) -> Int { 0x05088 }
  var rawValue: UInt32
  /// VET
  var etherType: UInt32 { get { self[bits: 0...15] } set { self[bits: 0...15] = newValue } }
  /// CFIEN: would drop frames by the tag's CFI bit.
  var filtersByCFI: Bool { get { self[bit: 29] } set { self[bit: 29] = newValue } }
  /// VFE: tagged frames must be in VFTA.
  var filters: Bool { get { self[bit: 30] } set { self[bit: 30] = newValue } }
}
/// Multicast Control. 8.2.3.7.3.
struct MCSTCTRL: Register32 {
  static func offset(_ n: Int) -> Int { 0x05090 }
  var rawValue: UInt32
  /// MO: which twelve bits of an address index MTA; 0 is the last octet and the upper half of the one before.
  var bitOffset: UInt32 { get { self[bits: 0...1] } set { self[bits: 0...1] = newValue } }
  /// MFE
  var filters: Bool { get { self[bit: 2] } set { self[bit: 2] = newValue } }
}
/// Packet Split Receive Type, one a pool. 8.2.3.7.4. Headers are not split.
struct PSRTYPE: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EA00 + 4 * n }
  var rawValue: UInt32
  /// RQPL: how many bits of the redirection table choose the queue in the pool.
  var queueBits: UInt32 { get { self[bits: 29...31] } set { self[bits: 29...31] = newValue } }
}
/// Receive Checksum Control. 8.2.3.7.5.
struct RXCSUM: Register32 {
  static func offset(_ n: Int) -> Int { 0x05000 }
  var rawValue: UInt32
  /// PCSD: the descriptor carries the RSS hash instead of a fragment's checksum.
  var reportsHash: Bool { get { self[bit: 13] } set { self[bit: 13] = newValue } }
}
/// Receive Filter Control. 8.2.3.7.6.
struct RFCTL: Register32 {
  static func offset(_ n: Int) -> Int { 0x05008 }
  var rawValue: UInt32
  /// RSC_DIS
  var disablesCoalescing: Bool { get { self[bit: 5] } set { self[bit: 5] = newValue } }
}
/// Multicast Table Array, n 0 to 127. 8.2.3.7.7.
struct MTA: Register32 {
  static func offset(_ n: Int) -> Int { 0x05200 + 4 * n }
  var rawValue: UInt32
}
/// Receive Address Low, n 0 to 127: the first four octets, the first in the lowest byte. 8.2.3.7.8.
struct RAL: Register32 {
  static func offset(_ n: Int) -> Int { 0x0A200 + 8 * n }
  var rawValue: UInt32
  init(rawValue: UInt32) { self.rawValue = rawValue }
  init(_ address: MACAddress) { rawValue = UInt32(truncatingIfNeeded: address.rawValue >> 16).byteSwapped }
}
/// Receive Address High, n 0 to 127: the last two octets. 8.2.3.7.9.
struct RAH: Register32 {
  static func offset(_ n: Int) -> Int { 0x0A204 + 8 * n }
  var rawValue: UInt32
  init(rawValue: UInt32) { self.rawValue = rawValue }
  init(_ address: MACAddress) {
    rawValue = UInt32(UInt16(truncatingIfNeeded: address.rawValue).byteSwapped)
    isValid = true
  }
  /// AV
  var isValid: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
}
/// MAC Pool Select Array, two for each receive address: pools 0 to 31, then 32 to 63. 8.2.3.7.10.
struct MPSAR: Register32 {
  static func offset(_ n: Int) -> Int { 0x0A600 + 4 * n }
  var rawValue: UInt32
}
/// VLAN Filter Table Array, n 0 to 127: one bit an identifier. 8.2.3.7.11.
struct VFTA: Register32 {
  static func offset(_ n: Int) -> Int { 0x0A000 + 4 * n }
  var rawValue: UInt32
}
/// Multiple Receive Queues Command. 8.2.3.7.12.
struct MRQC: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EC80 }
  var rawValue: UInt32
  /// MRQE
  enum Mode: UInt32 {
    case single = 0
    case scaling = 1
    /// 64 pools of 2 queues, of which the first is used.
    case pools64 = 8
    /// 32 pools of 4 queues, and 64 of 2, with RSS inside.
    case pools32Scaling = 10
    case pools64Scaling = 11
  }
  var mode: UInt32 { get { self[bits: 0...3] } set { self[bits: 0...3] = newValue } }
  /// Which headers are hashed: TCP over IPv4, IPv4, IPv6, TCP over IPv6, UDP over IPv4, UDP over IPv6.
  static let hashedFields: UInt32 = 1 << 16 | 1 << 17 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23
}
/// RSS Random Key, ten registers of four bytes. 8.2.3.7.14.
struct RSSRK: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EB80 + 4 * n }
  var rawValue: UInt32
}
/// Redirection Table, 32 registers of four entries. 8.2.3.7.15.
struct RETA: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EB00 + 4 * n }
  var rawValue: UInt32
}

/// Source and Destination Address Queue Filters, n 0 to 127; the lowest byte is first on the wire. 8.2.3.7.16, .17.
struct SAQF: Register32 {
  static func offset(_ n: Int) -> Int { 0x0E000 + 4 * n }
  var rawValue: UInt32
}
struct DAQF: Register32 {
  static func offset(_ n: Int) -> Int { 0x0E200 + 4 * n }
  var rawValue: UInt32
}
/// Source Destination Port Queue Filter; the lower byte of each port is first on the wire. 8.2.3.7.18.
struct SDPQF: Register32 {
  static func offset(_ n: Int) -> Int { 0x0E400 + 4 * n }
  var rawValue: UInt32
}
/// Five-tuple Queue Filter, n 0 to 127. 8.2.3.7.19.
struct FTQF: Register32 {
  static func offset(_ n: Int) -> Int { 0x0E600 + 4 * n }
  var rawValue: UInt32
  /// 0 TCP, 1 UDP, 2 SCTP, 3 anything else.
  var transport: UInt32 { get { self[bits: 0...1] } set { self[bits: 0...1] = newValue } }
  /// 1 lowest, 7 highest.
  var priority: UInt32 { get { self[bits: 2...4] } set { self[bits: 2...4] = newValue } }
  var pool: UInt32 { get { self[bits: 8...13] } set { self[bits: 8...13] = newValue } }
  /// What is not compared: source and destination address, source and destination port, protocol.
  var ignores: UInt32 { get { self[bits: 25...29] } set { self[bits: 25...29] = newValue } }
  var ignoresPool: Bool { get { self[bit: 30] } set { self[bit: 30] = newValue } }
  var isEnabled: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
}
/// L3 L4 Tuples Immediate Interrupt Rx, n 0 to 127: where a five-tuple filter sends.
struct L34TIMIR: Register32 {
  static func offset(_ n: Int) -> Int { 0x0E800 + 4 * n }
  var rawValue: UInt32
  /// Size_BP: does not look at the frame's size.
  var ignoresSize: Bool { get { self[bit: 12] } set { self[bit: 12] = newValue } }
  /// Reserved, to be written 1000000b.
  var reserved: UInt32 { get { self[bits: 13...19] } set { self[bits: 13...19] = newValue } }
  var queue: UInt32 { get { self[bits: 21...27] } set { self[bits: 21...27] = newValue } }
}
/// EType Queue Filter, n 0 to 7. 8.2.3.7.21.
struct ETQF: Register32 {
  static func offset(_ n: Int) -> Int { 0x05128 + 4 * n }
  var rawValue: UInt32
  var etherType: UInt32 { get { self[bits: 0...15] } set { self[bits: 0...15] = newValue } }
  var pool: UInt32 { get { self[bits: 20...25] } set { self[bits: 20...25] = newValue } }
  var choosesPool: Bool { get { self[bit: 26] } set { self[bit: 26] = newValue } }
  var isEnabled: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
}
/// EType Queue Select, n 0 to 7. 8.2.3.7.22.
struct ETQS: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EC00 + 4 * n }
  var rawValue: UInt32
  var queue: UInt32 { get { self[bits: 16...22] } set { self[bits: 16...22] = newValue } }
  var isEnabled: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
}

/// SYN Packet Queue Filter. 8.2.3.7.20.
struct SYNQF: Register32 {
  static func offset(_ n: Int) -> Int { 0x0EC30 }
  var rawValue: UInt32
  var isEnabled: Bool { get { self[bit: 0] } set { self[bit: 0] = newValue } }
  var queue: UInt32 { get { self[bits: 1...7] } set { self[bits: 1...7] = newValue } }
  /// SYNQFP: before the five-tuple filters.
  var isFirst: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
}

/// VT Control. 8.2.3.27.1.
struct PFVTCTL: Register32 {
  static func offset(_ n: Int) -> Int { 0x051B0 }
  var rawValue: UInt32
  /// VT_Ena
  var isEnabled: Bool { get { self[bit: 0] } set { self[bit: 0] = newValue } }
  /// DEF_PL: where a frame goes that no pool asked for.
  var defaultPool: UInt32 { get { self[bits: 7...12] } set { self[bits: 7...12] = newValue } }
  /// Dis_Def_Pool: a frame that no pool asked for is dropped.
  var dropsUnclaimed: Bool { get { self[bit: 29] } set { self[bit: 29] = newValue } }
  /// Rpl_En: a frame that several pools asked for is stored once for each.
  var replicates: Bool { get { self[bit: 30] } set { self[bit: 30] = newValue } }
}
/// PF VF Receive Enable, pools 0 to 31, then 32 to 63. 8.2.3.27.7.
struct PFVFRE: Register32 {
  static func offset(_ n: Int) -> Int { 0x051E0 + 4 * n }
  var rawValue: UInt32
}
/// PF VF Transmit Enable. 8.2.3.27.8.
struct PFVFTE: Register32 {
  static func offset(_ n: Int) -> Int { 0x08110 + 4 * n }
  var rawValue: UInt32
}
/// PF VM L2 Control, one a pool. 8.2.3.27.14.
struct PFVML2FLT: Register32 {
  static func offset(_ n: Int) -> Int { 0x0F000 + 4 * n }
  var rawValue: UInt32
  /// AUPE, ROMPE, ROPE, BAM, MPE: frames without a tag, multicast in MTA, unicast in PFUTA, broadcast, all multicast.
  var acceptsUntagged: Bool { get { self[bit: 24] } set { self[bit: 24] = newValue } }
  var acceptsListedMulticast: Bool { get { self[bit: 25] } set { self[bit: 25] = newValue } }
  var acceptsListedUnicast: Bool { get { self[bit: 26] } set { self[bit: 26] = newValue } }
  var acceptsBroadcast: Bool { get { self[bit: 27] } set { self[bit: 27] = newValue } }
  var acceptsAllMulticast: Bool { get { self[bit: 28] } set { self[bit: 28] = newValue } }
}
/// PF VM VLAN Pool Filter, n 0 to 63. 8.2.3.27.15.
struct PFVLVF: Register32 {
  static func offset(_ n: Int) -> Int { 0x0F100 + 4 * n }
  var rawValue: UInt32
  var identifier: UInt32 { get { self[bits: 0...11] } set { self[bits: 0...11] = newValue } }
  /// VI_En
  var isEnabled: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
}
/// PF VM VLAN Pool Filter Bitmap, two for each filter: pools 0 to 31, then 32 to 63. 8.2.3.27.16.
struct PFVLVFB: Register32 {
  static func offset(_ n: Int) -> Int { 0x0F200 + 4 * n }
  var rawValue: UInt32
}
/// PF Unicast Table Array, n 0 to 127. 8.2.3.27.17.
struct PFUTA: Register32 {
  static func offset(_ n: Int) -> Int { 0x0F400 + 4 * n }
  var rawValue: UInt32
}
/// PF VM Tx Switch Loopback Enable, pools 0 to 31, then 32 to 63: a pool that gets its own frames back. 8.2.3.27.10.
struct PFVMTXSW: Register32 {
  static func offset(_ n: Int) -> Int { 0x05180 + 4 * n }
  var rawValue: UInt32
}
/// PF VF Anti Spoof Control, n 0 to 7, eight pools each. 8.2.3.27.11.
struct PFVFSPOOF: Register32 {
  static func offset(_ n: Int) -> Int { 0x08200 + 4 * n }
  var rawValue: UInt32
  /// MACAS: a pool's frames are dropped unless their source is one of the pool's addresses; one bit each.
  var checksSource: UInt32 { get { self[bits: 0...7] } set { self[bits: 0...7] = newValue } }
  /// VLANAS: a pool's frames are dropped unless a VLAN filter of their VLAN names the pool. Only beside MACAS.
  var checksVLAN: UInt32 { get { self[bits: 8...15] } set { self[bits: 8...15] = newValue } }
}
/// PF VM VLAN Insert, one a pool. 8.2.3.27.13.
struct PFVMVIR: Register32 {
  static func offset(_ n: Int) -> Int { 0x08000 + 4 * n }
  var rawValue: UInt32
  /// Port VLAN ID, with priority.
  var tag: UInt32 { get { self[bits: 0...15] } set { self[bits: 0...15] = newValue } }
  /// VLANA: 0, the descriptor says whether a tag is put in; 1, the port's always is; 2, none is.
  var action: UInt32 { get { self[bits: 30...31] } set { self[bits: 30...31] = newValue } }
}
/// PF DMA Tx General Switch Control. 8.2.3.27.12.
struct PFDTXGSWC: Register32 {
  static func offset(_ n: Int) -> Int { 0x08220 }
  var rawValue: UInt32
  /// LBE: frames between pools go from one to the other inside the card.
  var switchesLocally: Bool { get { self[bit: 0] } set { self[bit: 0] = newValue } }
}
/// PF Mirror Rule Control, n 0 to 3. 8.2.3.27.18. No mirror is ever set here.
struct PFMRCTL: Register32 {
  static func offset(_ n: Int) -> Int { 0x0F600 + 4 * n }
  var rawValue: UInt32
  /// VPME, UPME, DPME, VLME: of a pool, of the uplink, of the downlink, of a VLAN.
  var isEnabled: Bool { self[bits: 0...3] != 0 }
}
