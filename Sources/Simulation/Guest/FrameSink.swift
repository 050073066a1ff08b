/// Where a simulated guest hands the frames that it received, one by one: a file, a test.
public protocol FrameSink: AnyObject {
  /// Called on the guest's thread.
  ///
  /// - Parameters:
  ///   - bytes: one Ethernet frame without its header of virtio. They lie in guest memory or in a buffer of the
  ///     guest's, and are good only until this returns.
  ///   - flags: what the device said of the frame.
  func receive(queue: Int, bytes: UnsafeRawBufferPointer, flags: FrameFlags)
}

/// What a device said of a frame, in the header before it. virtio 1.3, 5.1.6 "Device Operation".
public struct FrameFlags: OptionSet, Hashable, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// VIRTIO_NET_HDR_F_DATA_VALID: the device has checked the frame's checksum.
  public static let isChecksumValid = FrameFlags(rawValue: 2)
}
