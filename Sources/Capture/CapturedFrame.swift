// What is known of a frame besides its bytes.

/// One frame of a capture: when it was seen and how long it is. Its bytes are in the caller's buffer.
@frozen public struct CapturedFrame: Hashable, Sendable {
  /// Nanoseconds since 1970-01-01 00:00 UTC; 0 where the file has no time for it.
  public let timestamp: UInt64
  /// How many bytes the file has of it.
  public let capturedByteCount: Int
  /// How many bytes it had on the wire, as far as the capture says. May be less than captured (a warning).
  public let originalByteCount: Int

  @inlinable public init(timestamp: UInt64, capturedByteCount: Int, originalByteCount: Int) {
    self.timestamp = timestamp
    self.capturedByteCount = capturedByteCount
    self.originalByteCount = originalByteCount
  }

  /// Whether the file has only the beginning of the frame.
  @inlinable public var isTruncated: Bool { capturedByteCount < originalByteCount }
}
