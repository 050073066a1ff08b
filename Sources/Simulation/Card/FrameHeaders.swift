/// What the 82599's parser finds in a frame: everything that filters and checksum status need.
///
/// A pure function of the bytes, so that a trace which is played many times pays for it once. Neither a register nor
/// the time of arrival enters it. 48 bytes, no references.
///
/// The tag type is 0x8100 and at most one tag is looked behind (Reading "one tag"). Addresses and ports are in the
/// frame's byte order, loaded little-endian: the order in which RAL, SAQF and FDIRIPSA hold them.
@frozen public struct FrameHeaders: Hashable, Sendable {
  /// The first byte in the lowest bits, as RAL and RAH hold it.
  public var destination: UInt64 = 0
  public var source: UInt64 = 0
  /// Of an IPv4 packet; the first byte in the lowest bits.
  public var sourceAddress: UInt32 = 0
  public var destinationAddress: UInt32 = 0
  /// Of an unfragmented TCP, UDP or SCTP packet, as numbers.
  public var sourcePort: UInt16 = 0
  public var destinationPort: UInt16 = 0
  /// The type behind the tag, as a number.
  public var etherType: UInt16 = 0
  /// Tag control information of the outer tag, as a number; 0 without one.
  public var tag: UInt16 = 0
  /// From the frame's first byte; 0 where there is none.
  public var networkOffset: UInt16 = 0
  public var transportOffset: UInt16 = 0
  public var flags: Flags = []

  @frozen public struct Flags: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
    @inlinable static func bit(_ n: UInt32) -> Flags { Flags(rawValue: 1 << n) }

    // The first seven lie as in the packet type of an advanced descriptor. 82599 datasheet 7.1.6.2.
    public static var ipv4: Flags { @inlinable get { bit(0) } }
    /// The header has options.
    public static var ipv4Options: Flags { @inlinable get { bit(1) } }
    public static var ipv6: Flags { @inlinable get { bit(2) } }
    /// There are extension headers.
    public static var ipv6Extensions: Flags { @inlinable get { bit(3) } }
    public static var tcp: Flags { @inlinable get { bit(4) } }
    public static var udp: Flags { @inlinable get { bit(5) } }
    public static var sctp: Flags { @inlinable get { bit(6) } }

    public static var tagged: Flags { @inlinable get { bit(8) } }
    /// A second tag of the same type follows the first.
    public static var doubleTagged: Flags { @inlinable get { bit(9) } }
    public static var multicast: Flags { @inlinable get { bit(10) } }
    public static var broadcast: Flags { @inlinable get { bit(11) } }
    public static var fragment: Flags { @inlinable get { bit(12) } }
    /// The IP header says more bytes than the frame has.
    public static var truncated: Flags { @inlinable get { bit(13) } }
    public static var tcpSYN: Flags { @inlinable get { bit(14) } }
    /// Fewer bytes than an Ethernet header has.
    public static var runt: Flags { @inlinable get { bit(15) } }
    // These lie as in the status and the error bits of a descriptor, both moved down to bit 16.
    /// A UDP checksum was there and was looked at.
    public static var udpChecked: Flags { @inlinable get { bit(16) } }
    public static var transportChecked: Flags { @inlinable get { bit(17) } }
    public static var ipChecked: Flags { @inlinable get { bit(18) } }
    public static var transportBad: Flags { @inlinable get { bit(30) } }
    public static var ipBad: Flags { @inlinable get { bit(31) } }
  }

  public init() {}

  /// - Parameters:
  ///   - bytes: the frame, from the destination address on.
  ///   - count: bytes, without the check sequence.
  public init(parsing bytes: UnsafeRawPointer, count: Int) {
    unsafe self.init(addressing: bytes, count: count)
    let offset = flags.contains(.tagged) ? 18 : 14
    if etherType == 0x0800 {
      unsafe parseIPv4(bytes, offset, count)
    } else if etherType == 0x86DD {
      unsafe parseIPv6(bytes, offset, count)
    }
  }

  /// The Ethernet header only.
  init(addressing bytes: UnsafeRawPointer, count: Int) {
    guard count >= 14 else {
      flags = .runt
      return
    }
    destination = unsafe load48(bytes)
    source = unsafe load48(bytes + 6)
    if destination & 1 != 0 { flags.insert(destination == 0xFFFF_FFFF_FFFF ? [.multicast, .broadcast] : .multicast) }
    etherType = unsafe load16(bytes + 12)
    if etherType == 0x8100 && count >= 18 {
      flags.insert(.tagged)
      tag = unsafe load16(bytes + 14)
      etherType = unsafe load16(bytes + 16)
      if etherType == 0x8100 { flags.insert(.doubleTagged) }
    }
  }

  private mutating func parseIPv4(_ bytes: UnsafeRawPointer, _ offset: Int, _ count: Int) {
    guard count - offset >= 20 else { return }
    let header = unsafe bytes + offset
    let first = unsafe header.load(as: UInt8.self)
    let headerBytes = Int(first & 15) * 4
    guard first >> 4 == 4, headerBytes >= 20, headerBytes <= count - offset else { return }
    flags.insert(headerBytes > 20 ? [.ipv4, .ipv4Options] : .ipv4)
    networkOffset = UInt16(truncatingIfNeeded: offset)
    flags.insert(.ipChecked)
    if unsafe OnesComplement.fold(OnesComplement.sum(header, headerBytes)) != 0xFFFF { flags.insert(.ipBad) }
    unsafe sourceAddress = header.loadUnaligned(fromByteOffset: 12, as: UInt32.self)
    unsafe destinationAddress = header.loadUnaligned(fromByteOffset: 16, as: UInt32.self)
    let total = unsafe Int(load16(header + 2))
    if total > count - offset || total < headerBytes { flags.insert(.truncated) }
    if unsafe load16(header + 6) & 0x3FFF != 0 {
      flags.insert(.fragment)
      return
    }
    let pseudo = UInt64(sourceAddress) + UInt64(destinationAddress)
    unsafe parseTransport(
      header + headerBytes, header.load(fromByteOffset: 9, as: UInt8.self), pseudo,
      available: count - offset - headerBytes, stated: total - headerBytes, at: offset + headerBytes)
  }

  private mutating func parseIPv6(_ bytes: UnsafeRawPointer, _ offset: Int, _ count: Int) {
    guard count - offset >= 40 else { return }
    let header = unsafe bytes + offset
    guard unsafe header.load(as: UInt8.self) >> 4 == 6 else { return }
    flags.insert(.ipv6)
    networkOffset = UInt16(truncatingIfNeeded: offset)
    let payload = unsafe Int(load16(header + 4))
    if payload > count - offset - 40 { flags.insert(.truncated) }
    var next = unsafe header.load(fromByteOffset: 6, as: UInt8.self)
    var position = 40
    // Hop-by-hop, routing, destination options: length in units of 8 bytes, the first not counted.
    while next == 0 || next == 43 || next == 60 || next == 44 {
      guard count - offset - position >= 8 else { return }
      flags.insert(.ipv6Extensions)
      let extensionHeader = unsafe header + position
      if next == 44 {
        flags.insert(.fragment)
        return
      }
      next = unsafe extensionHeader.load(as: UInt8.self)
      position += 8 + 8 * (unsafe Int(extensionHeader.load(fromByteOffset: 1, as: UInt8.self)))
      guard position <= count - offset else { return }
    }
    let pseudo = unsafe OnesComplement.sum(header + 8, 32)
    unsafe parseTransport(
      header + position, next, pseudo, available: count - offset - position, stated: payload - (position - 40),
      at: offset + position)
  }

  /// - Parameters:
  ///   - available: bytes of the frame from here on.
  ///   - stated: how many of them belong to the packet, by the IP header.
  private mutating func parseTransport(
    _ header: UnsafeRawPointer, _ number: UInt8, _ pseudo: UInt64, available: Int, stated: Int, at offset: Int
  ) {
    let least: Int
    switch number {
    case 6: (least, _) = (20, flags.insert(.tcp))
    case 17: (least, _) = (8, flags.insert(.udp))
    case 132: (least, _) = (12, flags.insert(.sctp))
    default: return
    }
    guard available >= least, stated >= least else {
      flags.subtract([.tcp, .udp, .sctp])
      return
    }
    transportOffset = UInt16(truncatingIfNeeded: offset)
    sourcePort = unsafe load16(header)
    destinationPort = unsafe load16(header + 2)
    if number == 6, unsafe header.load(fromByteOffset: 13, as: UInt8.self) & 2 != 0 { flags.insert(.tcpSYN) }
    // Reading "SCTP checksum"; a truncated packet cannot be judged either.
    guard number != 132, !flags.contains(.truncated), stated <= available else { return }
    var length = stated
    if number == 17 {
      // Reading "UDP without checksum".
      if unsafe header.loadUnaligned(fromByteOffset: 6, as: UInt16.self) == 0 { return }
      length = unsafe Int(load16(header + 4))
      flags.insert([.udpChecked, .transportChecked])
      guard length >= 8, length <= stated else {
        flags.insert(.transportBad)
        return
      }
    } else {
      flags.insert(.transportChecked)
    }
    let whole = unsafe OnesComplement.sum(header, length) &+ pseudo &+ UInt64(number) << 8
      &+ UInt64(UInt16(truncatingIfNeeded: length).byteSwapped)
    if OnesComplement.fold(whole) != 0xFFFF { flags.insert(.transportBad) }
  }
}

/// A big-endian number of two bytes.
@inline(__always) func load16(_ bytes: UnsafeRawPointer) -> UInt16 {
  UInt16(bigEndian: unsafe bytes.loadUnaligned(as: UInt16.self))
}
/// Six bytes, the first in the lowest bits.
@inline(__always) func load48(_ bytes: UnsafeRawPointer) -> UInt64 {
  unsafe UInt64(bytes.loadUnaligned(as: UInt32.self))
    | UInt64(bytes.loadUnaligned(fromByteOffset: 4, as: UInt16.self)) << 32
}

/// The Internet checksum's sum, over words as they lie in memory: its value does not depend on the byte order
/// (RFC 1071, 2 (B)).
enum OnesComplement {
  /// At most 64 KiB, so that the 64-bit sum cannot run over.
  static func sum(_ bytes: UnsafeRawPointer, _ count: Int) -> UInt64 {
    var total: UInt64 = 0
    var offset = 0
    while offset &+ 8 <= count {
      let word = unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      total &+= (word & 0xFFFF_FFFF) &+ (word >> 32)
      offset &+= 8
    }
    if offset &+ 4 <= count {
      total &+= UInt64(unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
      offset &+= 4
    }
    if offset &+ 2 <= count {
      total &+= UInt64(unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
      offset &+= 2
    }
    if offset < count { total &+= UInt64(unsafe bytes.load(fromByteOffset: offset, as: UInt8.self)) }
    return total
  }
  static func fold(_ sum: UInt64) -> UInt16 {
    var value = (sum & 0xFFFF_FFFF) &+ (sum >> 32)
    value = (value & 0xFFFF) &+ (value >> 16)
    value = (value & 0xFFFF) &+ (value >> 16)
    value = (value & 0xFFFF) &+ (value >> 16)
    return UInt16(truncatingIfNeeded: value)
  }
}
