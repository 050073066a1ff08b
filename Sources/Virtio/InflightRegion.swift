internal import CLinux
internal import Glibc
public import Linux

/// Where a front-end's rings stand, in memory that the front-end keeps while back-ends come and go. vhost-user, "Inflight
/// I/O tracking".
///
/// The specification leaves to a back-end what it writes there, and shows a way for those that give back buffers out of
/// order. We never do: a split virtqueue's used index, in the guest's memory, says all, and a packed one needs a
/// `RingRecord`. So the region is a header of 64 bytes and a record for each ring, each from a multiple of 64 bytes on.
///
/// `@safe`: the region was checked, once, to lie in the mapping. The front-end can write to it at any moment.
@safe public final class InflightRegion: @unchecked Sendable {
  private let mapping: Mapping
  /// Of the region in the mapping.
  private let offset: Int
  public let ringCount: Int
  /// The most entries that a ring may have.
  public let ringSize: Int
  /// It was another program's, and nothing in it is believed.
  public let wasForeign: Bool

  private static let magic: UInt64 = 0x3130_464C_474E_4952  // "RINGLF01"
  private static let headerBytes = 64

  /// Bytes for so many rings of up to so many entries.
  public static func byteCount(ringCount: Int, ringSize: Int) -> Int { headerBytes + ringCount * stride(ringSize) }
  private static func stride(_ ringSize: Int) -> Int { (RingRecord.byteCount(ringSize: ringSize) + 63) / 64 * 64 }

  /// - Parameters:
  ///   - mapping: of the region's file. Zeroes are an empty region.
  ///   - offset: where in it the region begins, in bytes.
  ///   - isFresh: the file was just made and is all zeros. Then only the header is written: a page that is touched is
  ///     charged to this process, and stays so while the front-end has the file.
  public init(mapping: consuming Mapping, offset: Int = 0, ringCount: Int, ringSize: Int, isFresh: Bool = false) {
    let byteCount = Self.byteCount(ringCount: ringCount, ringSize: ringSize)
    precondition(ringCount > 0 && ringSize > 0 && ringSize <= RingLayout.largestSize)
    precondition(offset >= 0 && offset % 64 == 0 && offset <= mapping.byteCount && byteCount <= mapping.byteCount - offset)
    let base = unsafe mapping.base + offset
    let magic = unsafe sl_load64(base)
    let isOfShape = unsafe sl_load64(base + 8) == UInt64(ringCount) << 32 | UInt64(ringSize)
    wasForeign = magic != 0 && magic != Self.magic
    if magic != Self.magic || !isOfShape {
      // Of another's region no record is live any more; what else lies there means nothing without.
      if !isFresh {
        for ring in 0..<ringCount { unsafe RingRecord.clear(at: base + Self.headerBytes + ring * Self.stride(ringSize)) }
      }
      unsafe sl_store64(base + 8, UInt64(ringCount) << 32 | UInt64(ringSize))
      sl_fence_release()
      unsafe sl_store64(base, Self.magic)
    }
    self.mapping = mapping
    self.offset = offset
    self.ringCount = ringCount
    self.ringSize = ringSize
  }

  /// Its file was made shorter: nothing is kept any more.
  public var isTruncated: Bool { mapping.isTruncated }

  /// The record of a ring; nil if the region has no room for it.
  public func record(ring: Int, size: Int) -> RingRecord? {
    guard ring >= 0, ring < ringCount, size <= ringSize else { return nil }
    let start = offset + Self.headerBytes + ring * Self.stride(ringSize)
    return unsafe RingRecord(at: mapping.base + start, of: self, ringSize: ringSize)
  }
}
