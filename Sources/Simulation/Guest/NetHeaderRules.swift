/// The header before a received frame, and what a device without offloads may say in it.
/// virtio 1.3, 5.1.6 "Device Operation" and 5.1.6.4 "Processing of Incoming Packets".
enum NetHeaderRules {
  /// Bytes, with VIRTIO_F_VERSION_1 and without a hash report.
  static let byteCount = 12

  /// The header of an ordinary frame in one buffer: all zero but `num_buffers`, which is 1.
  static let plainLow: UInt64 = 0
  static let plainHigh: UInt32 = 1 << 16
  /// `plainLow` with VIRTIO_NET_HDR_F_DATA_VALID.
  static let checkedLow: UInt64 = 2
}

/// The twelve bytes as two words, from the lowest byte on.
struct NetHeader {
  let low: UInt64
  let high: UInt32

  var flags: UInt8 { UInt8(truncatingIfNeeded: low) }
  var gsoType: UInt8 { UInt8(truncatingIfNeeded: low >> 8) }
  var headerLength: UInt16 { UInt16(truncatingIfNeeded: low >> 16) }
  var gsoSize: UInt16 { UInt16(truncatingIfNeeded: low >> 32) }
  var checksumStart: UInt16 { UInt16(truncatingIfNeeded: low >> 48) }
  var checksumOffset: UInt16 { UInt16(truncatingIfNeeded: high) }
  var bufferCount: UInt16 { UInt16(truncatingIfNeeded: high >> 16) }
}
