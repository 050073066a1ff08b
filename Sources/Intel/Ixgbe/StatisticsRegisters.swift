internal import Bus

// All of these are cleared when read. 82599 datasheet 8.2.3.23 and 4.6.5.

/// Receive Queue Statistic Mapping, four queues in each of 32 registers. 8.2.3.23.71.
struct RQSMR: Register32 {
  static func offset(_ n: Int) -> Int { 0x02300 + 4 * n }
  var rawValue: UInt32
}
/// Transmit Queue Statistic Mapping. 8.2.3.23.73.
struct TQSM: Register32 {
  static func offset(_ n: Int) -> Int { 0x08600 + 4 * n }
  var rawValue: UInt32
}

/// Counters of 32 bits, by the datasheet's mnemonics.
enum Counter {
  static let CRCERRS = 0x04000, ILLERRC = 0x04004, ERRBC = 0x04008, RLEC = 0x04040
  static func RXMPC(_ n: Int) -> Int { 0x03FA0 + 4 * n }  // n 0 to 7
  static let GPRC = 0x04074, BPRC = 0x04078, MPRC = 0x0407C, GPTC = 0x04080
  static let RUC = 0x040A4, RFC = 0x040A8, ROC = 0x040AC, RJC = 0x040B0
  static let TPR = 0x040D0, TPT = 0x040D4, MPTC = 0x040F0, BPTC = 0x040F4
  static let RXLPBKPC = 0x02F68, RXDLPBKPC = 0x02F74, SSVPC = 0x08780
  static let FDIRMATCH = 0x0EE58, FDIRMISS = 0x0EE5C
  // n 0 to 15, by the mapping above.
  static func QPRC(_ n: Int) -> Int { 0x01030 + 0x40 * n }
  static func QPRDC(_ n: Int) -> Int { 0x01430 + 0x40 * n }
  static func QPTC(_ n: Int) -> Int { 0x08680 + 4 * n }
  // 36 bits: the low word first, then the high one.
  static let GORC = (low: 0x04088, high: 0x0408C), GOTC = (low: 0x04090, high: 0x04094)
  static func QBRC(_ n: Int) -> (low: Int, high: Int) { (0x01034 + 0x40 * n, 0x01038 + 0x40 * n) }
  static func QBTC(_ n: Int) -> (low: Int, high: Int) { (0x08700 + 8 * n, 0x08704 + 8 * n) }
}
