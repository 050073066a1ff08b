/// What the processor holds the frames of one VM to before they are sent: the part that the NIC does not check by itself.
///
/// The guest can change a frame's bytes until the NIC has read them. So the bytes that are compared are copied first, and
/// the copy is what the NIC sends.
public struct SourceCheck: Hashable, Sendable {
  /// The only source address that is sent: 48 bits, the first octet highest. nil if the processor compares none.
  public var address: UInt64?
  /// The only VLAN that frames belong to. nil if the processor compares no VLAN.
  public var vlan: UInt16?
  /// True if the NIC puts the tag of `vlan` in front of every frame (an access port). Then a frame has no tag, a priority
  /// tag, or that of `vlan`, which is taken off; else a frame must have the tag of `vlan`.
  public var isAccessPort: Bool

  /// - Precondition: an access port has a VLAN.
  public init(address: UInt64? = nil, vlan: UInt16? = nil, isAccessPort: Bool = false) {
    precondition(!isAccessPort || vlan != nil, "an access port without a VLAN")
    (self.address, self.vlan, self.isAccessPort) = (address, vlan, isAccessPort)
  }

  /// Nothing is compared.
  public static let none = SourceCheck()

  /// True if every frame is compared, and so copied in part.
  var comparesAll: Bool { address != nil || (vlan != nil && !isAccessPort) }

  /// Bytes of a frame that are copied, the rest being lent: a cache line, and more than what is compared.
  static let headByteCount: UInt32 = 64
  /// Frames of at most this many bytes are copied whole, which costs less than a second descriptor.
  static let largestCopied: UInt32 = 256
  /// Bytes of a VLAN tag.
  static let tagByteCount: UInt32 = 4
  /// The EtherType of a VLAN tag as `load16` reads it from a frame: little-endian.
  static let tagType: UInt16 = 0x0081
}

extension SourceCheck {
  /// What is to be done with a frame.
  enum Verdict { case send, removeTag, refuse }

  /// Compares the first bytes of a frame.
  ///
  /// - Parameters:
  ///   - head: bytes that the guest cannot change any more, from the destination address on; at least 14.
  ///   - byteCount: of the whole frame.
  func verdict(_ head: UnsafeRawBufferPointer, byteCount: UInt32) -> Verdict {
    if let address {
      var source: UInt64 = 0
      for n in 6..<12 { source = source << 8 | UInt64(unsafe head[n]) }
      if source != address { return .refuse }
    }
    guard let vlan else { return .send }
    let isTagged = unsafe head[12] == 0x81 && head[13] == 0
    guard isTagged else { return isAccessPort ? .send : .refuse }
    guard byteCount >= 14 + Self.tagByteCount, head.count >= 16 else { return .refuse }
    let identifier = unsafe UInt16(head[14] & 0x0F) << 8 | UInt16(head[15])
    if isAccessPort { return identifier == vlan || identifier == 0 ? .removeTag : .refuse }
    return identifier == vlan ? .send : .refuse
  }
}
