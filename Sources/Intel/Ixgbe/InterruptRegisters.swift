internal import Bus

// 82599 datasheet 8.2.3.5. Causes of queues go by their vector, as IVAR maps them; the others are masked.

/// Extended Interrupt Cause. 8.2.3.5.1. Writing ones clears; it shows the first 16 vectors.
struct EICR: Register32 {
  static func offset(_ n: Int) -> Int { 0x00800 }
  var rawValue: UInt32
}

/// Extended Interrupt Mask Clear: 0 for the causes of EICR, 1 and 2 for queues by vector. 8.2.3.5.9.
struct EIMC: Register32 {
  static func offset(_ n: Int) -> Int { n == 0 ? 0x00888 : 0x00AB0 + 4 * (n - 1) }
  var rawValue: UInt32
  /// Bit 31 of the first one is reserved.
  static func all(_ n: Int) -> EIMC { EIMC(rawValue: n == 0 ? 0x7FFF_FFFF : 0xFFFF_FFFF) }
}
/// Extended Interrupt Mask Set, by vector: 0 to 31, then 32 to 63. 8.2.3.5.8.
struct EIMS_EX: Register32 {
  static func offset(_ n: Int) -> Int { 0x00AA0 + 4 * n }
  var rawValue: UInt32
}
/// Extended Interrupt Auto Mask, by vector: with GPIE.EIAME a message masks its vector. 8.2.3.5.10.
struct EIAM_EX: Register32 {
  static func offset(_ n: Int) -> Int { 0x00AD0 + 4 * n }
  var rawValue: UInt32
}
/// Extended Interrupt Auto Clear: the cause of a vector below 16 goes with its message. 8.2.3.5.6.
struct EIAC: Register32 {
  static func offset(_ n: Int) -> Int { 0x00810 }
  var rawValue: UInt32
}
/// Extended Interrupt Throttle, one a vector. 8.2.3.5.12.
struct EITR: Register32 {
  static func offset(_ n: Int) -> Int { n < 24 ? 0x00820 + 4 * n : 0x12300 + 4 * (n - 24) }
  var rawValue: UInt32
  /// ITR Interval: how long a vector is quiet after a message, in units of 2 µs at 10 Gbit/s.
  var interval: UInt32 { get { self[bits: 3...11] } set { self[bits: 3...11] = newValue } }
  /// CNT_WDIS: the write leaves the running counter alone.
  var keepsCounter: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
}
/// General Purpose Interrupt Enable. 8.2.3.5.18.
struct GPIE: Register32 {
  static func offset(_ n: Int) -> Int { 0x00898 }
  var rawValue: UInt32
  /// Multiple_MSIX: a message for each vector.
  var usesVectors: Bool { get { self[bit: 4] } set { self[bit: 4] = newValue } }
  /// EIAME: auto mask also where the cause is cleared by itself.
  var masksAutomatically: Bool { get { self[bit: 30] } set { self[bit: 30] = newValue } }
  /// PBA_support: pending bits of MSI-X, with more than one vector.
  var keepsPendingBits: Bool { get { self[bit: 31] } set { self[bit: 31] = newValue } }
}
/// Interrupt Vector Allocation, n 0 to 63, of queues 2 n and 2 n + 1. 8.2.3.5.16.
struct IVAR: Register32 {
  static func offset(_ n: Int) -> Int { 0x00900 + 4 * n }
  var rawValue: UInt32
  /// An entry is a byte: receive and transmit of the even queue, then of the odd one. The vector, and bit 7: valid.
  mutating func set(_ entry: Int, vector: Int?) {
    let shift = UInt32(8 * entry)
    rawValue = rawValue & ~(0xFF << shift) | (vector.map { UInt32($0) | 0x80 } ?? 0) << shift
  }
}
