// How a capture is encoded; told by its first bytes, never by its name.

/// The encoding of a capture.
public struct CaptureFormat: Hashable, Sendable, CustomStringConvertible {
  public enum Container: String, Hashable, Sendable { case pcap, pcapng }
  public enum ByteOrder: String, Hashable, Sendable {
    case littleEndian = "little-endian"
    case bigEndian = "big-endian"
  }
  public enum Resolution: String, Hashable, Sendable { case microseconds, nanoseconds }

  public let container: Container
  /// The byte order of the file's beginning: each section of a pcapng file has its own.
  public let byteOrder: ByteOrder
  /// The unit of time in the file; nil for pcapng, where each interface has its own.
  public let resolution: Resolution?

  public var description: String {
    let unit = resolution.map { ", " + $0.rawValue } ?? ""
    return container.rawValue + ", " + byteOrder.rawValue + unit
  }
}
