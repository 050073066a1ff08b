internal import CLinux
public import Linux

/// Which pages of a guest were written, for a front-end that migrates it: one bit a page of 4096 bytes, in memory that
/// it shares. vhost-user, "Migration".
///
/// Paths mark what they and the card have written before they tell the driver of it. A page past the log's end is
/// not marked: the front-end has said how much it wants to know.
///
/// `@safe`: every bit's byte is checked against the length. The front-end clears bits at any moment, so each is set by
/// one atomic OR.
@safe public final class DirtyLog: Sendable {
  public static let pageByteCount: UInt64 = 4096
  private let mapping: Mapping
  /// Of the log's first byte in the mapping.
  private let offset: Int
  /// Of the log, in bytes: the pages that it knows are eight times as many.
  public let byteCount: Int

  /// - Parameters:
  ///   - mapping: of the log's file.
  ///   - offset: where in it the log begins, in bytes.
  public init(mapping: consuming Mapping, offset: Int = 0, byteCount: Int) {
    precondition(offset >= 0 && offset <= mapping.byteCount && byteCount > 0 && byteCount <= mapping.byteCount - offset)
    self.mapping = mapping
    self.offset = offset
    self.byteCount = byteCount
  }

  /// Its file was made shorter, and marks were lost.
  public var isTruncated: Bool { mapping.isTruncated }

  /// Marks the pages of a range. Answers how many were marked that were not before.
  @discardableResult public func mark(_ start: GuestAddress, byteCount count: UInt64) -> Int {
    writer.mark(start, byteCount: count)
  }

  /// The way to the bits that a path keeps: no reference to count. Valid while the log lives: who has one holds it.
  @safe public struct Writer {
    fileprivate let base: UnsafeMutableRawPointer?
    fileprivate let byteCount: Int

    /// One that marks nothing.
    public static var none: Writer { unsafe Writer(base: nil, byteCount: 0) }

    /// As the log's own.
    #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
    @_noLocks
    #endif
    @discardableResult public func mark(_ start: GuestAddress, byteCount count: UInt64) -> Int {
      guard let base = unsafe base, count > 0 else { return 0 }
      let last = start.rawValue.addingReportingOverflow(count - 1)
      var page = start.rawValue / DirtyLog.pageByteCount
      let end = min((last.overflow ? .max : last.partialValue) / DirtyLog.pageByteCount, UInt64(byteCount) * 8 - 1)
      var fresh = 0
      while page <= end {
        let bit = UInt8(1) << UInt8(page & 7)
        if unsafe sl_or8(base + Int(page / 8), bit) & bit == 0 { fresh += 1 }
        page += 1
      }
      return fresh
    }
  }
  public var writer: Writer { unsafe Writer(base: mapping.base + offset, byteCount: byteCount) }
}
