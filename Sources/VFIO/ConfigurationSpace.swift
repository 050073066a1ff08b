/// A function's configuration space: bytes, little endian. PCI Local Bus 3.0, 6.1; PCI Express Base 4.0, 7.5.
public protocol ConfigurationSpace {
  /// Four bytes from a multiple of 4 on; nil past what can be read.
  func read(_ offset: Int) -> UInt32?
}

/// A copy of it.
public struct ConfigurationBytes: ConfigurationSpace, Sendable {
  public let bytes: [UInt8]
  public init(_ bytes: [UInt8]) { self.bytes = bytes }
  public func read(_ offset: Int) -> UInt32? {
    guard offset >= 0, offset & 3 == 0, offset + 4 <= bytes.count else { return nil }
    return (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
  }
}

/// Capabilities by their numbers.
public enum PCICapability {
  public static let msi: UInt8 = 0x05
  public static let express: UInt8 = 0x10
  public static let msix: UInt8 = 0x11
  /// Extended.
  public static let advancedErrorReporting: UInt16 = 0x0001
  public static let singleRootIOVirtualization: UInt16 = 0x0010
}

extension ConfigurationSpace {
  public func read16(_ offset: Int) -> UInt16? {
    read(offset & ~3).map { UInt16(truncatingIfNeeded: $0 >> UInt32(8 * (offset & 2))) }
  }
  public var vendorID: UInt16? { read16(0) }
  /// Whether there is a list of capabilities.
  private var hasCapabilities: Bool { (read16(6) ?? 0) & 0x10 != 0 }

  /// Where a capability begins; nil without one. A list that runs in circles, or out of its place, ends.
  public func capability(_ number: UInt8) -> Int? {
    guard hasCapabilities, var place = read(0x34).map({ Int($0 & 0xFC) }) else { return nil }
    // 192 bytes hold no more.
    for _ in 0..<48 where place >= 0x40 {
      guard let header = read16(place) else { return nil }
      if UInt8(truncatingIfNeeded: header) == number { return place }
      place = Int(header >> 8 & 0xFC)
    }
    return nil
  }

  /// The same among the extended ones, behind the first 256 bytes.
  public func extendedCapability(_ number: UInt16) -> Int? {
    var place = 0x100
    for _ in 0..<960 where place >= 0x100 {
      guard let header = read(place), header != 0, header != .max else { return nil }
      if UInt16(truncatingIfNeeded: header) == number { return place }
      place = Int(header >> 20 & 0xFFC)
    }
    return nil
  }

  /// The sizes of packets on PCI Express, in bytes.
  public var payload: PCIePayload? {
    guard let place = capability(PCICapability.express), let can = read(place + 4), let control = read16(place + 8) else { return nil }
    func bytes(_ code: UInt32) -> Int { code <= 5 ? 128 << Int(code) : 0 }
    var link: PCIePayload.Link?
    if let status = read16(place + 0x12), status & 15 != 0, status >> 4 & 63 != 0 {
      link = PCIePayload.Link(generation: Int(status & 15), lanes: Int(status >> 4 & 63))
    }
    return PCIePayload(
      possible: bytes(can & 7), used: bytes(UInt32(control) >> 5 & 7), readRequest: bytes(UInt32(control) >> 12 & 7), link: link)
  }
}

/// What a function may put into one packet, and ask for with one.
public struct PCIePayload: Hashable, Sendable {
  /// Max_Payload_Size Supported, Max_Payload_Size, Max_Read_Request_Size: bytes.
  public let possible, used, readRequest: Int
  /// As negotiated; nil: not told.
  public let link: Link?
  public struct Link: Hashable, Sendable {
    public let generation: Int
    public let lanes: Int
    /// Bits a second that are left of the line rate after its coding: 8b/10b, from generation 3 on 128b/130b.
    public var bitsPerSecond: Double? {
      let rates = [1: 2.5e9 * 0.8, 2: 5e9 * 0.8, 3: 8e9 * 128 / 130, 4: 16e9 * 128 / 130, 5: 32e9 * 128 / 130]
      return rates[generation].map { $0 * Double(lanes) }
    }
  }

  /// What of the link's rate frames of a size can have, received by a card that writes four descriptors back at once and
  /// fetches eight: bits a second. Each packet on the bus costs 24 bytes.
  public static func ceiling(frameByteCount: Int, payload: Int, linkRate: Double) -> Double {
    let length = Double(frameByteCount)
    let packets = Double((frameByteCount + payload - 1) / payload)
    let bytes = length + 24 * packets + (4 * 16 + 24) / 4 + 24 / 8
    return linkRate * length / bytes
  }
}
