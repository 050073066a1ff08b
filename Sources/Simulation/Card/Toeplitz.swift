/// The receive-side scaling hash, by tables: one of 256 entries for each byte of the input.
/// 82599 datasheet 7.1.2.8.1 "RSS Hash Function".
///
/// `@safe`: only whole inputs of 8, 12, 32 or 36 bytes are hashed, and the tables reach that far.
@safe struct ToeplitzHash {
  /// IPv6 addresses and ports.
  static let longestInput = 36
  private let tables: UnsafeMutablePointer<UInt32>

  init() {
    unsafe tables = .allocate(capacity: Self.longestInput * 256)
    unsafe tables.initialize(repeating: 0, count: Self.longestInput * 256)
  }
  func deallocate() { unsafe tables.deallocate() }

  /// - Parameter key: 40 bytes in the order of the specification, which is the order of RSSRK in memory.
  func setKey(_ key: [UInt8]) {
    precondition(key.count == 40, "an RSS key has 40 bytes")
    for position in 0..<Self.longestInput {
      for byte in 0..<256 {
        var value: UInt32 = 0
        for bit in 0..<8 where byte & (0x80 >> bit) != 0 { value ^= Self.window(key, position * 8 + bit) }
        unsafe tables[position * 256 + byte] = value
      }
    }
  }

  /// 32 bits of the key, from a bit on.
  private static func window(_ key: [UInt8], _ bit: Int) -> UInt32 {
    var value: UInt64 = 0
    for index in bit / 8..<bit / 8 + 5 { value = value << 8 | UInt64(index < key.count ? key[index] : 0) }
    return UInt32(truncatingIfNeeded: value >> UInt64(8 - bit % 8))
  }

  /// - Parameter start: bytes of the whole input that lie in front of these.
  @inline(__always) func hash(_ bytes: UnsafeRawPointer, _ count: Int, after start: Int = 0) -> UInt32 {
    precondition(start >= 0 && start &+ count <= Self.longestInput)
    var value: UInt32 = 0
    var index = 0
    while index < count {
      let byte = unsafe Int(bytes.load(fromByteOffset: index, as: UInt8.self))
      value ^= unsafe tables[(start &+ index) &* 256 &+ byte]
      index &+= 1
    }
    return value
  }
}
