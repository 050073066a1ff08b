internal import FlowSteering

/// Receive-side scaling: which of a VM's queues a frame goes to that no filter has chosen one for. By Toeplitz hash of
/// addresses, and of TCP's or UDP's ports. 82599 datasheet 7.1.2.8; the other cards hash alike.
public enum ScalingHash {
  /// The key of Microsoft's verification suite for RSS, which the driver gives the card.
  public static let verificationKey: [UInt8] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
    0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
    0xbe, 0xac, 0x01, 0xfa,
  ]

  /// For each bit of the input that is set, the 32 bits of the key that stand over it, exclusive-or.
  public static func toeplitz(_ input: [UInt8], key: [UInt8] = verificationKey) -> UInt32 {
    var result: UInt32 = 0
    var window = key[..<4].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    for (place, byte) in input.enumerated() {
      window = window << 8 | UInt64(key[place + 4])
      for bit in 0..<8 where byte >> UInt8(7 - bit) & 1 == 1 { result ^= UInt32(truncatingIfNeeded: window >> UInt64(8 - bit)) }
    }
    return result
  }

  /// The queue, of so many that a VM uses: 1, 2 or 4. What is not IP goes to the first.
  static func queue(of frame: Span<UInt8>, _ fields: FrameFields, among queues: Int) -> Int {
    guard queues > 1, let version = fields.ipVersion else { return 0 }
    func bytes(_ value: UInt128, _ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt128(8 * (count - 1 - $0))) } }
    let length = version == .v4 ? 4 : 16
    var input = bytes(fields.sourceAddress, length) + bytes(fields.destinationAddress, length)
    if let transport = fields.transport, transport != .sctp, version == .v4 || !fields.hasExtensions(in: frame) {
      input += bytes(UInt128(fields.sourcePort), 2) + bytes(UInt128(fields.destinationPort), 2)
    }
    // Its lowest 7 bits choose an entry of the table, which holds each queue in turn.
    return Int(toeplitz(input) & 127) & (queues - 1)
  }
}

extension FrameFields {
  /// Whether something stands between an IPv6 header and the transport's.
  fileprivate func hasExtensions(in frame: Span<UInt8>) -> Bool { frame[(tag == nil ? 14 : 18) + 6] != ipProtocol }
}
