internal import CLinux
public import Linux

/// A TAP device at the end of the card's wire: what guests send comes out of it, what the machine sends into it goes to
/// guests.
///
/// The machine does not pad; a sender on a wire does: shorter frames get zeroes up to 60 bytes.
/// `@safe`: the buffer lives as long as the object, and nothing is read past its end.
@safe public final class TapWire: WireSource, Uplink {
  /// More than any frame of the device has.
  private static let bufferBytes = 65_536 + 64
  private static let shortest = 60

  private let device: TapDevice
  private let buffer: UnsafeMutableRawPointer
  /// Of the frame whose turn it is; 0 if none was read.
  private var count = 0

  public init(_ device: consuming TapDevice) {
    self.device = device
    unsafe buffer = .allocate(byteCount: Self.bufferBytes, alignment: 64)
  }
  deinit { unsafe buffer.deallocate() }

  public var name: String { device.name }
  public var descriptor: CInt? { device.descriptor.number }

  public func peek(_ limit: Int, into burst: WireBurst) -> Int {
    if count == 0 {
      guard let found = unsafe device.read(into: UnsafeMutableRawBufferPointer(start: buffer, count: Self.bufferBytes))
      else { return 0 }
      if found < Self.shortest { unsafe sl_fill(buffer + found, 0, Self.shortest - found) }
      count = max(found, Self.shortest)
    }
    unsafe burst[0] = WireFrame(bytes: buffer, count: count)
    return 1
  }

  public func consume(_ count: Int) { if count > 0 { self.count = 0 } }

  public func take(_ frame: UnsafeRawBufferPointer) -> Bool { unsafe device.write(frame) }
}
