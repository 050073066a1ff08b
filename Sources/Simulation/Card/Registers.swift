/// Byte offsets of the 82599's registers, by the datasheet's mnemonics. 82599 datasheet 8.2.
///
/// The model's own table: the driver has another, written from the datasheet as well, so that a wrong offset in
/// one of them shows.
enum Offset {
  // 8.2.3.1 General control
  static let CTRL = 0x00000
  static let STATUS = 0x00008
  static let CTRL_EXT = 0x00018
  // 8.2.3.2, 8.2.3.4: EEPROM and semaphores
  static let EEC = 0x10010
  static let SWSM = 0x10140
  static let FWSM = 0x10148
  // 8.2.3.5 Interrupts
  static let EICR = 0x00800
  static let EICS = 0x00808
  static let EIAC = 0x00810
  static let EITR = 0x00820
  static let EITRHigh = 0x12300
  static let EIMS = 0x00880
  static let EIMC = 0x00888
  static let EIAM = 0x00890
  static let GPIE = 0x00898
  static let IVAR = 0x00900
  static let IVAR_MISC = 0x00A00
  static let EICS_EX = 0x00A90
  static let EIMS_EX = 0x00AA0
  static let EIMC_EX = 0x00AB0
  static let EIAM_EX = 0x00AD0
  // 8.2.3.8 Receive DMA; queue n < 64 at 0x01000 + 0x40 n, the others at 0x0D000 + 0x40 (n - 64)
  static let receiveLow = 0x01000
  static let receiveHigh = 0x0D000
  static let RDBAL = 0x00
  static let RDBAH = 0x04
  static let RDLEN = 0x08
  static let DCA_RXCTRL = 0x0C
  static let RDH = 0x10
  static let SRRCTL = 0x14
  static let RDT = 0x18
  static let RXDCTL = 0x28
  static let RDRXCTL = 0x02F00
  static let PFQDE = 0x02F04
  static let RXCTRL = 0x03000
  static let RTRUP2TC = 0x03020
  static let RXPBSIZE = 0x03C00
  // 8.2.3.7 Receive filters
  static let RXCSUM = 0x05000
  static let RFCTL = 0x05008
  static let FCTRL = 0x05080
  static let VLNCTRL = 0x05088
  static let MCSTCTRL = 0x05090
  static let ETQF = 0x05128
  static let MTA = 0x05200
  static let RALLow = 0x05400
  static let PSRTYPELow = 0x05480
  static let MRQC = 0x05818
  static let MRQCAlias = 0x0EC80
  static let RETA = 0x05C00
  static let RETAAlias = 0x0EB00
  static let RSSRK = 0x05C80
  static let RSSRKAlias = 0x0EB80
  static let VFTA = 0x0A000
  static let RAL = 0x0A200
  static let MPSAR = 0x0A600
  static let SAQF = 0x0E000
  static let DAQF = 0x0E200
  static let SDPQF = 0x0E400
  static let FTQF = 0x0E600
  static let L34TIMIR = 0x0E800
  static let PSRTYPE = 0x0EA00
  static let ETQS = 0x0EC00
  static let SYNQF = 0x0EC30
  // 8.2.3.27 Virtualisation
  static let PFVMTXSW = 0x05180
  static let PFVTCTL = 0x051B0
  static let PFVFRE = 0x051E0
  static let PFVFTE = 0x08110
  static let PFVFSPOOF = 0x08200
  static let PFVMVIR = 0x08000
  static let PFDTXGSWC = 0x08220
  static let PFVML2FLT = 0x0F000
  static let PFVLVF = 0x0F100
  static let PFVLVFB = 0x0F200
  static let PFUTA = 0x0F400
  // 8.2.3.7 Flow director
  static let FDIRCTRL = 0x0EE00
  static let FDIRSIPv6 = 0x0EE0C
  static let FDIRIP6M = 0x0EE74
  static let FDIRIPSA = 0x0EE18
  static let FDIRIPDA = 0x0EE1C
  static let FDIRPORT = 0x0EE20
  static let FDIRVLAN = 0x0EE24
  static let FDIRHASH = 0x0EE28
  static let FDIRCMD = 0x0EE2C
  static let FDIRFREE = 0x0EE38
  static let FDIRDIP4M = 0x0EE3C
  static let FDIRSIP4M = 0x0EE40
  static let FDIRTCPM = 0x0EE44
  static let FDIRUDPM = 0x0EE48
  static let FDIRLEN = 0x0EE4C
  static let FDIRUSTAT = 0x0EE50
  static let FDIRFSTAT = 0x0EE54
  static let FDIRMATCH = 0x0EE58
  static let FDIRMISS = 0x0EE5C
  static let FDIRHKEY = 0x0EE68
  static let FDIRSKEY = 0x0EE6C
  static let FDIRM = 0x0EE70
  // 8.2.3.9 Transmit
  static let transmit = 0x06000
  static let TDBAL = 0x00
  static let TDBAH = 0x04
  static let TDLEN = 0x08
  static let TDH = 0x10
  static let TDT = 0x18
  static let TXDCTL = 0x28
  static let TDWBAL = 0x38
  static let TDWBAH = 0x3C
  static let DMATXCTL = 0x04A80
  static let MTQC = 0x08120
  static let TXPBTHRESH = 0x04950
  static let TXPBSIZE = 0x0CC00
  // 8.2.3.12 Security
  static let SECTXCTRL = 0x08800
  static let SECTXSTAT = 0x08804
  static let SECRXCTRL = 0x08D00
  static let SECRXSTAT = 0x08D04
  // 8.2.3.22 MAC
  static let HLREG0 = 0x04240
  static let MAXFRS = 0x04268
  static let AUTOC = 0x042A0
  static let LINKS = 0x042A4
  static let AUTOC2 = 0x042A8
  // 8.2.3.23 Statistics
  static let RQSMR = 0x02300
  static let TQSM = 0x08600
  static let RXDGPC = 0x02F50
  static let RXDGBCL = 0x02F54
  static let RXDGBCH = 0x02F58
  static let RXLPBKPC = 0x02F68
  static let RXLPBKBCL = 0x02F6C
  static let RXLPBKBCH = 0x02F70
  static let RXDLPBKPC = 0x02F74
  static let RXDLPBKBCL = 0x02F78
  static let RXDLPBKBCH = 0x02F7C
  static let SSVPC = 0x08780
  static let RXMPC = 0x03FA0
  static let CRCERRS = 0x04000
  static let ILLERRC = 0x04004
  static let RLEC = 0x04040
  static let PRC64 = 0x0405C
  static let GPRC = 0x04074
  static let BPRC = 0x04078
  static let MPRC = 0x0407C
  static let GPTC = 0x04080
  static let GORCL = 0x04088
  static let GORCH = 0x0408C
  static let GOTCL = 0x04090
  static let GOTCH = 0x04094
  static let RUC = 0x040A4
  static let RFC = 0x040A8
  static let ROC = 0x040AC
  static let RJC = 0x040B0
  static let TORL = 0x040C0
  static let TORH = 0x040C4
  static let TPR = 0x040D0
  static let TPT = 0x040D4
  static let PTC64 = 0x040D8
  static let MPTC = 0x040F0
  static let BPTC = 0x040F4
  static let RXNFGPC = 0x041B0
  static let RXNFGBCL = 0x041B4
  static let RXNFGBCH = 0x041B8
  static let QPRC = 0x01030
  static let QBRCL = 0x01034
  static let QBRCH = 0x01038
  static let QPRDC = 0x01430
  static let QPTC = 0x08680
  static let QBTCL = 0x08700
  static let QBTCH = 0x08704

  /// The registers of a receive queue, and of a transmit queue.
  static func receive(_ register: Int, _ n: Int) -> Int {
    (n < 64 ? receiveLow + 0x40 * n : receiveHigh + 0x40 * (n - 64)) + register
  }
  static func transmit(_ register: Int, _ n: Int) -> Int { transmit + 0x40 * n + register }

  /// Whether a register only says which causes are latched or masked, and how often they are told.
  static func isInterrupt(_ offset: Int) -> Bool {
    (EICR..<IVAR).contains(offset) || (EICS_EX..<EIAM_EX + 8).contains(offset)
  }

  /// Where a register really lies that has a second address, kept from the 82598 (Reading "aliases").
  static func canonical(_ offset: Int) -> Int {
    switch offset {
    case RALLow..<RALLow + 0x80: RAL + offset - RALLow
    case PSRTYPELow..<PSRTYPELow + 0x40: PSRTYPE + offset - PSRTYPELow
    case MRQCAlias: MRQC
    case RETAAlias..<RETAAlias + 0x80: RETA + offset - RETAAlias
    case RSSRKAlias..<RSSRKAlias + 0x28: RSSRK + offset - RSSRKAlias
    case 0x02100..<0x02140: receive(SRRCTL, (offset - 0x02100) / 4)
    case 0x02200..<0x02240: receive(DCA_RXCTRL, (offset - 0x02200) / 4)
    default: offset
    }
  }
}

/// The registers' memory: the BAR, as an array of 32-bit cells.
///
/// `@safe`: an offset is brought into the BAR before it is used; the cells live as long as the card does.
@safe struct RegisterCells {
  static let byteCount = 0x20000
  let cells: UnsafeMutablePointer<UInt32>

  init() {
    unsafe cells = .allocate(capacity: Self.byteCount / 4)
    unsafe cells.initialize(repeating: 0, count: Self.byteCount / 4)
  }
  func deallocate() { unsafe cells.deallocate() }
  func clear() { unsafe cells.update(repeating: 0, count: Self.byteCount / 4) }

  @inline(__always) subscript(_ offset: Int) -> UInt32 {
    get { unsafe cells[(offset & (Self.byteCount - 1)) >> 2] }
    nonmutating set { unsafe cells[(offset & (Self.byteCount - 1)) >> 2] = newValue }
  }
  /// The cell itself, for a doorbell.
  func cell(_ offset: Int) -> UnsafeMutablePointer<UInt32> { unsafe cells + (offset & (Self.byteCount - 1)) >> 2 }
}
