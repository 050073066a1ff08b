/// To which of several receivers a frame belongs, by address and VLAN: the reference that a card's filters are held
/// against. Written from the rules alone, frame by frame, without the card's tables.
public struct Classifier: Sendable {
  /// What a receiver asks for.
  public struct Receiver: Hashable, Sendable {
    /// Its own address; with it, it also gets broadcast and multicast frames. Nil: any address.
    public var address: MACAddress?
    /// Its VLAN. Nil: frames without a tag, and those with any tag if nobody names a VLAN.
    public var vlan: UInt16?
    public init(address: MACAddress? = nil, vlan: UInt16? = nil) {
      self.address = address
      self.vlan = vlan
    }
  }

  private let receivers: [Receiver]
  private let someNameVLAN: Bool

  /// - Parameter receivers: at most 64.
  public init(_ receivers: [Receiver]) {
    precondition(receivers.count <= 64)
    self.receivers = receivers
    someNameVLAN = receivers.contains { $0.vlan != nil }
  }

  /// The receivers of a frame: bit n is the n-th. None for a frame without a whole Ethernet header.
  ///
  /// Only a tag of type 0x8100 is a VLAN's; a priority tag (VLAN 0) counts as none.
  public func receivers(of frame: UnsafeRawBufferPointer) -> UInt64 {
    guard frame.count >= 14 else { return 0 }
    var destination: UInt64 = 0
    for index in 0..<6 { destination = destination << 8 | UInt64(unsafe frame[index]) }
    let isGroup = unsafe frame[0] & 1 == 1
    var vlan: UInt16?
    if frame.count >= 18, unsafe frame[12] == 0x81, unsafe frame[13] == 0x00 {
      vlan = unsafe (UInt16(frame[14]) << 8 | UInt16(frame[15])) & 0xFFF
      if vlan == 0 { vlan = nil }
    }
    var result: UInt64 = 0
    for (index, receiver) in receivers.enumerated() {
      if let own = receiver.address, !isGroup, own.rawValue != destination { continue }
      if someNameVLAN, receiver.vlan != vlan { continue }
      result |= 1 << UInt64(index)
    }
    return result
  }
}
