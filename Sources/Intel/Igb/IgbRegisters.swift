internal import Bus
internal import FlowSteering

// Registers of the 82576, all but what each queue has. Mnemonics are those of its datasheet, chapter 8. The I350 has them
// at the same places, but for what `Igb.Variant` says.

// MARK: Reset, start-up and link. 8.2

extension Igb {
  /// Device Control. 8.2.1.
  struct CTRL: Register32 {
    static func offset(_ n: Int) -> Int { 0x00000 }
    var rawValue: UInt32
    /// GIO Master Disable: no more requests on the bus.
    var isMasterDisabled: Bool { get { self[bit: 2] } set { self[bit: 2] = newValue } }
    /// SLU: what the PHY says of the link counts.
    var setsLinkUp: Bool { get { self[bit: 6] } set { self[bit: 6] = newValue } }
    /// FRCSPD and FRCDPLX.
    var forcesSpeed: Bool { get { self[bit: 11] } set { self[bit: 11] = newValue } }
    var forcesDuplex: Bool { get { self[bit: 12] } set { self[bit: 12] = newValue } }
    /// RST: clears itself when done.
    var isReset: Bool { get { self[bit: 26] } set { self[bit: 26] = newValue } }
    /// RFCE and TFCE: flow control.
    var obeysPause: Bool { get { self[bit: 27] } set { self[bit: 27] = newValue } }
    var sendsPause: Bool { get { self[bit: 28] } set { self[bit: 28] = newValue } }
    /// VME: takes VLAN tags out, without pools.
    var stripsVLAN: Bool { get { self[bit: 30] } set { self[bit: 30] = newValue } }
  }
  /// Device Status. 8.2.2.
  struct STATUS: Register32 {
    static func offset(_ n: Int) -> Int { 0x00008 }
    var rawValue: UInt32
    /// LU
    var isLinkUp: Bool { self[bit: 1] }
    /// LAN ID: the card's port that this is.
    var port: Int { Int(self[bits: 2...3]) }
    /// SPEED: 10, 100 or, from 2 on, 1000 Mbit/s.
    var speed: Int { Int(self[bits: 6...7]) }
    /// Requests may still be under way.
    var isMasterEnabled: Bool { self[bit: 19] }
  }
  /// Extended Device Control. 8.2.3.
  struct CTRL_EXT: Register32 {
    static func offset(_ n: Int) -> Int { 0x00018 }
    var rawValue: UInt32
    /// PFRSTD: virtual functions may go on.
    var isPhysicalFunctionReady: Bool { get { self[bit: 14] } set { self[bit: 14] = newValue } }
    var disablesNoSnoop: Bool { get { self[bit: 16] } set { self[bit: 16] = newValue } }
    /// LINK_MODE: 0 is the PHY inside, with a copper wire.
    var linkMode: Int { Int(self[bits: 22...23]) }
    /// Extended VLAN: every frame has an outer tag. Never set here.
    var expectsOuterTag: Bool { get { self[bit: 26] } set { self[bit: 26] = newValue } }
    /// DRV_LOAD: tells the card's firmware that a driver is there.
    var isDriverLoaded: Bool { get { self[bit: 28] } set { self[bit: 28] = newValue } }
  }
  /// MDI Control: a register of the PHY. 8.2.4.
  struct MDIC: Register32 {
    static func offset(_ n: Int) -> Int { 0x00020 }
    var rawValue: UInt32
    /// PHYADD is always 1: the PHY inside.
    private static let phy: UInt32 = 1 << 21
    static func read(_ register: Int) -> MDIC { MDIC(rawValue: UInt32(register) << 16 | phy | 2 << 26) }
    static func write(_ value: UInt16, _ register: Int) -> MDIC { MDIC(rawValue: UInt32(value) | UInt32(register) << 16 | phy | 1 << 26) }
    var data: UInt16 { UInt16(truncatingIfNeeded: rawValue) }
    var isReady: Bool { self[bit: 28] }
    var hasFailed: Bool { self[bit: 30] }
  }
  /// EEPROM/Flash Control. 8.4.1.
  struct EEC: Register32 {
    static func offset(_ n: Int) -> Int { 0x00010 }
    var rawValue: UInt32
    var isAutoReadDone: Bool { self[bit: 9] }
  }
  /// Software Semaphore, and the semaphores of software and firmware that it guards. 8.4.x, 4.7 "SW/FW synchronization".
  struct SWSM: Register32 {
    static func offset(_ n: Int) -> Int { 0x05B50 }
    var rawValue: UInt32
    /// SMBI: read as 0 by the one who then has it.
    var isTaken: Bool { get { self[bit: 0] } set { self[bit: 0] = newValue } }
    /// SWESMBI: stays set if firmware does not have it.
    var isSoftwares: Bool { get { self[bit: 1] } set { self[bit: 1] = newValue } }
  }
  struct SW_FW_SYNC: Register32 {
    static func offset(_ n: Int) -> Int { 0x05B5C }
    var rawValue: UInt32
    /// SW_PHY_SM: the PHY of a port. Bits 3 and 4 are others'.
    static func phy(of port: Int) -> UInt32 { 1 << UInt32(port < 2 ? 1 + port : 3 + port) }
  }
  /// PHY Power Management, of the I350.
  struct PHPM: Register32 {
    static func offset(_ n: Int) -> Int { 0x00E14 }
    var rawValue: UInt32
    /// Go_Link_Disconnect: the PHY keeps away from the wire.
    var staysDisconnected: Bool { get { self[bit: 5] } set { self[bit: 5] = newValue } }
  }
}

/// Registers of the PHY. IEEE 802.3, clause 22.
enum PHYRegister {
  static let control = 0
  /// Auto-negotiation: enabled, and begun anew.
  static let enablesNegotiation: UInt16 = 1 << 12
  static let restartsNegotiation: UInt16 = 1 << 9
  static let isPoweredDown: UInt16 = 1 << 11
}

// MARK: Receive. 8.10

extension Igb {
  /// Receive Control. 8.10.1.
  struct RCTL: Register32 {
    static func offset(_ n: Int) -> Int { 0x00100 }
    var rawValue: UInt32
    var isEnabled: Bool { get { self[bit: 1] } set { self[bit: 1] = newValue } }
    /// UPE, MPE, BAM: what the first filter lets in besides addresses.
    var acceptsAllUnicast: Bool { get { self[bit: 3] } set { self[bit: 3] = newValue } }
    var acceptsAllMulticast: Bool { get { self[bit: 4] } set { self[bit: 4] = newValue } }
    /// LPE: the limit is RLPML's.
    var obeysFrameLimit: Bool { get { self[bit: 5] } set { self[bit: 5] = newValue } }
    var acceptsBroadcast: Bool { get { self[bit: 15] } set { self[bit: 15] = newValue } }
    /// VFE
    var filtersVLANs: Bool { get { self[bit: 18] } set { self[bit: 18] = newValue } }
    /// SECRC
    var stripsCRC: Bool { get { self[bit: 26] } set { self[bit: 26] = newValue } }
  }
  /// Receive Long Packet Maximum Length, with the FCS. 8.10.5.
  struct RLPML: Register32 {
    static func offset(_ n: Int) -> Int { 0x05004 }
    var rawValue: UInt32
  }
  /// Receive Checksum Control. 8.10.15.
  struct RXCSUM: Register32 {
    static func offset(_ n: Int) -> Int { 0x05000 }
    var rawValue: UInt32
    /// IPOFLD, TUOFLD
    var checksIP: Bool { get { self[bit: 8] } set { self[bit: 8] = newValue } }
    var checksTransport: Bool { get { self[bit: 9] } set { self[bit: 9] = newValue } }
    /// PCSD: the descriptor has the hash.
    var reportsHash: Bool { get { self[bit: 13] } set { self[bit: 13] = newValue } }
  }
  /// Receive Filter Control.
  struct RFCTL: Register32 {
    static func offset(_ n: Int) -> Int { 0x05008 }
    var rawValue: UInt32
  }
  /// Queue Drop Enable, a bit a queue: as SRRCTL.Drop_En, and none may say otherwise.
  struct QDE: Register32 {
    static func offset(_ n: Int) -> Int { 0x02408 }
    var rawValue: UInt32
  }
  /// Receive Address Low, High: 16, and the others elsewhere. 8.10.18, 8.10.19.
  struct RAL: Register32 {
    static func offset(_ n: Int) -> Int { n < 16 ? 0x05400 + 8 * n : 0x054E0 + 8 * (n - 16) }
    var rawValue: UInt32
    init(rawValue: UInt32) { self.rawValue = rawValue }
    init(_ address: MACAddress) { rawValue = (0..<4).reduce(0) { $0 | UInt32(address.octet($1)) << UInt32(8 * $1) } }
  }
  struct RAH: Register32 {
    static func offset(_ n: Int) -> Int { RAL.offset(n) + 4 }
    var rawValue: UInt32
    /// POOLSEL: a bit a pool.
    var pools: UInt32 { get { self[bits: 18...25] } set { self[bits: 18...25] = newValue } }
    /// AV
    var isValid: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
    init(rawValue: UInt32) { self.rawValue = rawValue }
    init(_ address: MACAddress, pools: UInt64) {
      rawValue = UInt32(address.octet(4)) | UInt32(address.octet(5)) << 8
      self.pools = UInt32(pools)
      isValid = true
    }
  }
  /// Multicast Table Array, and the Unicast Table Array. 8.10.17, 8.14.24.
  struct MTA: Register32 {
    static func offset(_ n: Int) -> Int { 0x05200 + 4 * n }
    var rawValue: UInt32
  }
  struct UTA: Register32 {
    static func offset(_ n: Int) -> Int { 0x0A000 + 4 * n }
    var rawValue: UInt32
  }
  /// VLAN Filter Table Array: a bit an identifier. 8.10.20.
  struct VFTA: Register32 {
    static func offset(_ n: Int) -> Int { 0x05600 + 4 * n }
    var rawValue: UInt32
  }
  /// Multiple Receive Queues Command. 8.10.21.
  struct MRQC: Register32 {
    static func offset(_ n: Int) -> Int { 0x05818 }
    var rawValue: UInt32
    /// 3: pools by address and VLAN; 5: and RSS between the two queues of each.
    var mode: UInt32 { get { self[bits: 0...2] } set { self[bits: 0...2] = newValue } }
    /// What is hashed: TCP, UDP and other packets of IPv4 and IPv6.
    static let hashedFields: UInt32 = 1 << 16 | 1 << 17 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23
  }
  /// RSS Random Key, ten words, and the Redirection Table, four queues a register. 8.10.22, 8.10.23.
  struct RSSRK: Register32 {
    static func offset(_ n: Int) -> Int { 0x05C80 + 4 * n }
    var rawValue: UInt32
  }
  struct RETA: Register32 {
    static func offset(_ n: Int) -> Int { 0x05C00 + 4 * n }
    var rawValue: UInt32
  }
  /// EType Queue Filter, 8 of them. 8.11.
  struct ETQF: Register32 {
    static func offset(_ n: Int) -> Int { 0x05CB0 + 4 * n }
    var rawValue: UInt32
    var etherType: UInt32 { get { self[bits: 0...15] } set { self[bits: 0...15] = newValue } }
    /// Rx Queue: the first of a pool, for there are three bits.
    var queue: UInt32 { get { self[bits: 16...18] } set { self[bits: 16...18] = newValue } }
    var isEnabled: Bool { get { self[bit: 26] } set { self[bit: 26] = newValue } }
    /// Queue Enable: it names a queue, and does not only tell the type.
    var choosesQueue: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
  }
  /// Five-tuple Queue Filter (of the I350: two), SYN Packet Queue Filter: off.
  struct FTQF: Register32 {
    static func offset(_ n: Int) -> Int { 0x059E0 + 4 * n }
    var rawValue: UInt32
    var choosesQueue: Bool { self[bit: 8] }
    var queue: UInt32 { self[bits: 16...19] }
  }
  struct SYNQF: Register32 {
    static func offset(_ n: Int) -> Int { 0x055FC }
    var rawValue: UInt32
    var isEnabled: Bool { self[bit: 0] }
    var queue: UInt32 { self[bits: 1...3] }
  }
}

// MARK: Pools. 8.14

extension Igb {
  /// VMDq Control.
  struct VT_CTL: Register32 {
    static func offset(_ n: Int) -> Int { 0x0581C }
    var rawValue: UInt32
    var defaultPool: UInt32 { get { self[bits: 7...9] } set { self[bits: 7...9] = newValue } }
    /// Dis_Def_Pool: what no pool claims is dropped.
    var dropsUnclaimed: Bool { get { self[bit: 29] } set { self[bit: 29] = newValue } }
    /// Rpl_En: a frame for several pools is copied.
    var replicates: Bool { get { self[bit: 30] } set { self[bit: 30] = newValue } }
  }
  /// VM Offload Register, one a pool: what the pool takes.
  struct VMOLR: Register32 {
    static func offset(_ n: Int) -> Int { 0x05AD0 + 4 * n }
    var rawValue: UInt32
    /// RLPML: the largest frame, with the FCS.
    var largestFrame: UInt32 { get { self[bits: 0...13] } set { self[bits: 0...13] = newValue } }
    /// LPE
    var obeysFrameLimit: Bool { get { self[bit: 16] } set { self[bit: 16] = newValue } }
    /// RSSE: spreads its frames over its two queues.
    var spreads: Bool { get { self[bit: 17] } set { self[bit: 17] = newValue } }
    /// AUPE
    var acceptsUntagged: Bool { get { self[bit: 24] } set { self[bit: 24] = newValue } }
    /// ROMPE, ROPE: frames whose address is in the tables of multicasts and unicasts.
    var acceptsListedMulticast: Bool { get { self[bit: 25] } set { self[bit: 25] = newValue } }
    var acceptsListedUnicast: Bool { get { self[bit: 26] } set { self[bit: 26] = newValue } }
    /// BAM
    var acceptsBroadcast: Bool { get { self[bit: 27] } set { self[bit: 27] = newValue } }
    /// MPME
    var acceptsAllMulticast: Bool { get { self[bit: 28] } set { self[bit: 28] = newValue } }
    /// STRVLAN and STRCRC, of the 82576.
    var stripsVLAN: Bool { get { self[bit: 30] } set { self[bit: 30] = newValue } }
    var stripsCRC: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
  }
  /// DMA VM Offload Register, of the I350, one a pool and beside its queue: what is taken off frames, copies too.
  struct DVMOLR: Register32 {
    static func offset(_ n: Int) -> Int { 0x0C038 + 0x40 * n }
    var rawValue: UInt32
    /// HIDVLAN, STRVLAN, STRCRC
    var hidesVLAN: Bool { get { self[bit: 29] } set { self[bit: 29] = newValue } }
    var stripsVLAN: Bool { get { self[bit: 30] } set { self[bit: 30] = newValue } }
    var stripsCRC: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
  }
  /// Replication Offload Register, of the 82576: as VMOLR, for copies.
  struct RPLOLR: Register32 {
    static func offset(_ n: Int) -> Int { 0x05AF0 }
    var rawValue: UInt32
    var stripsVLAN: Bool { get { self[bit: 30] } set { self[bit: 30] = newValue } }
    var stripsCRC: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
  }
  /// VM VLAN Filter, 32 of them.
  struct VLVF: Register32 {
    static func offset(_ n: Int) -> Int { 0x05D00 + 4 * n }
    var rawValue: UInt32
    var identifier: UInt32 { get { self[bits: 0...11] } set { self[bits: 0...11] = newValue } }
    var pools: UInt32 { get { self[bits: 12...19] } set { self[bits: 12...19] = newValue } }
    /// VI_En
    var isEnabled: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
  }
  /// VMs that receive, and that send; a bit a pool.
  struct VFRE: Register32 {
    static func offset(_ n: Int) -> Int { 0x00C8C }
    var rawValue: UInt32
  }
  struct VFTE: Register32 {
    static func offset(_ n: Int) -> Int { 0x00C90 }
    var rawValue: UInt32
  }
  /// VM Mirror Rule Control, 4 of them.
  struct VMRCTL: Register32 {
    static func offset(_ n: Int) -> Int { 0x05D80 + 4 * n }
    var rawValue: UInt32
    /// VPME, UPME, DPME, VLME
    var isEnabled: Bool { rawValue & 0xF != 0 }
  }
  /// DMA Tx Switch Control, the first; the second is the I350's Tx Switch Control, TXSWC, with the same fields.
  struct DTXSWC: Register32 {
    static func offset(_ n: Int) -> Int { n == 0 ? 0x03500 : 0x05ACC }
    var rawValue: UInt32
    /// Loopback_en: what one pool sends to another's address goes there inside the card.
    var switchesLocally: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
    /// MACAS, VLANAS: a pool's frames are dropped unless their source, their VLAN, is one of the pool's; one bit each.
    var checksSource: UInt32 { get { self[bits: 0...7] } set { self[bits: 0...7] = newValue } }
    var checksVLAN: UInt32 { get { self[bits: 8...15] } set { self[bits: 8...15] = newValue } }
  }
  /// VM VLAN Insert, one a pool. 8.13 of the 82576.
  struct VMVIR: Register32 {
    static func offset(_ n: Int) -> Int { 0x03700 + 4 * n }
    var rawValue: UInt32
    /// Port VLAN ID, with priority.
    var tag: UInt32 { get { self[bits: 0...15] } set { self[bits: 0...15] = newValue } }
    /// VLANA: 0, the descriptor says whether a tag is put in; 1, the port's always is; 2, none is.
    var action: UInt32 { get { self[bits: 30...31] } set { self[bits: 30...31] = newValue } }
  }
}

// MARK: Transmit. 8.12

extension Igb {
  struct TCTL: Register32 {
    static func offset(_ n: Int) -> Int { 0x00400 }
    var rawValue: UInt32
    var isEnabled: Bool { get { self[bit: 1] } set { self[bit: 1] = newValue } }
    /// PSP: pads short frames to 64 bytes.
    var padsShortFrames: Bool { get { self[bit: 3] } set { self[bit: 3] = newValue } }
  }
}

// MARK: Interrupts. 8.8

extension Igb {
  /// Interrupt Cause Read and Interrupt Mask Clear: causes that are no queue's.
  struct ICR: Register32 {
    static func offset(_ n: Int) -> Int { 0x000C0 }
    var rawValue: UInt32
    /// RXO: a received frame was lost for want of room.
    var isOverrun: Bool { self[bit: 6] }
  }
  struct IMC: Register32 {
    static func offset(_ n: Int) -> Int { 0x000D8 }
    var rawValue: UInt32
  }
  /// Extended Interrupt Cause, by vector: writing ones clears.
  struct EICR: Register32 {
    static func offset(_ n: Int) -> Int { 0x01580 }
    var rawValue: UInt32
  }
  struct EIMS: Register32 {
    static func offset(_ n: Int) -> Int { 0x01524 }
    var rawValue: UInt32
  }
  struct EIMC: Register32 {
    static func offset(_ n: Int) -> Int { 0x01528 }
    var rawValue: UInt32
  }
  /// A vector's cause goes with its message.
  struct EIAC: Register32 {
    static func offset(_ n: Int) -> Int { 0x0152C }
    var rawValue: UInt32
  }
  /// A vector is masked by its message.
  struct EIAM: Register32 {
    static func offset(_ n: Int) -> Int { 0x01530 }
    var rawValue: UInt32
  }
  struct GPIE: Register32 {
    static func offset(_ n: Int) -> Int { 0x01514 }
    var rawValue: UInt32
    /// NSICR, Multiple_MSIX, EIAME, PBA_support.
    static let vectors = GPIE(rawValue: 1 << 0 | 1 << 4 | 1 << 30 | 1 << 31)
  }
  /// Extended Interrupt Throttle, one a vector.
  struct EITR: Register32 {
    static func offset(_ n: Int) -> Int { 0x01680 + 4 * n }
    var rawValue: UInt32
    /// Interval: how long a vector is quiet after a message, in µs.
    var interval: UInt32 { get { self[bits: 2...14] } set { self[bits: 2...14] = newValue } }
    /// CNT_INGR: the write leaves the running counter alone.
    var keepsCounter: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
    init(rawValue: UInt32) { self.rawValue = rawValue }
    init(microseconds: Int) {
      rawValue = 0
      (interval, keepsCounter) = (UInt32(microseconds), true)
    }
  }
  /// Interrupt Vector Allocation, of two queues each.
  struct IVAR: Register32 {
    static func offset(_ n: Int) -> Int { 0x01700 + 4 * n }
    var rawValue: UInt32
    /// An entry is a byte: receive and transmit of the one queue, then of the other. The vector, and bit 7: valid.
    mutating func set(_ entry: Int, vector: Int?) {
      let shift = UInt32(8 * entry)
      rawValue = rawValue & ~(0xFF << shift) | (vector.map { UInt32($0) | 0x80 } ?? 0) << shift
    }
  }
}

// MARK: Statistics. 8.18, 8.19

extension Igb {
  /// Counters that a read clears, by offset; of two words the high one goes with the low one's read.
  enum Counter {
    static let CRCERRS = 0x04000
    static let MPC = 0x04010
    static let RLEC = 0x04040
    static let GPRC = 0x04074
    static let BPRC = 0x04078
    static let MPRC = 0x0407C
    static let GPTC = 0x04080
    static let GORC = (low: 0x04088, high: 0x0408C)
    static let GOTC = (low: 0x04090, high: 0x04094)
    static let RNBC = 0x040A0
    static let RUC = 0x040A4
    static let ROC = 0x040AC
    static let SSVPC = 0x041A0
    /// Frames for a queue without a buffer.
    static func RQDPC(_ queue: Int) -> Int { 0x0C030 + 0x40 * queue }
    // A pool's go round after 2³², and no read clears them.
    static func VFGPRC(_ pool: Int) -> Int { 0x10010 + 0x100 * pool }
    static func VFGPTC(_ pool: Int) -> Int { 0x10014 + 0x100 * pool }
    static func VFGORC(_ pool: Int) -> Int { 0x10018 + 0x100 * pool }
    static func VFGOTC(_ pool: Int) -> Int { 0x10034 + 0x100 * pool }
  }
}
