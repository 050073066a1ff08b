internal import Bus

// 82599 datasheet 8.2.3.5. The path polls: interrupts are masked, and causes cleared.

/// Extended Interrupt Cause. 8.2.3.5.1. Writing ones clears.
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
