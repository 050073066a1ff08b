/// Takes numbers off the front of a message, in the machine's byte order. vhost-user, "Message Specification".
struct ByteReader {
  private var rest: ArraySlice<UInt8>
  init(_ bytes: some Collection<UInt8>) { rest = ArraySlice(bytes) }

  var count: Int { rest.count }

  /// Precondition: as many bytes are there. Who parses a message has compared its size first.
  mutating func next<T: FixedWidthInteger>(_: T.Type = T.self) -> T {
    let width = T.bitWidth / 8
    var value: T = 0
    for (n, byte) in rest.prefix(width).enumerated() { value |= T(truncatingIfNeeded: byte) << (8 * n) }
    rest = rest.dropFirst(width)
    return T(littleEndian: value)
  }

  /// All that is left.
  mutating func bytes() -> [UInt8] {
    defer { rest = [] }
    return Array(rest)
  }
}

extension [UInt8] {
  /// Puts a number behind, in the machine's byte order.
  mutating func put(_ value: some FixedWidthInteger) {
    let stored = value.littleEndian
    for n in 0..<stored.bitWidth / 8 { append(UInt8(truncatingIfNeeded: stored >> (8 * n))) }
  }
}
