// Frames out of a capture, one at a time, in memory that does not grow with the file.
//
// Three parts take turns: `CaptureStream` reads the file and checks its structure, libpcap (`CaptureSection`) makes
// packets of it, and the reader copies each to the caller and says what was wrong when there are no more.

import CPcap
import Glibc

/// An open capture of Ethernet frames: pcap or pcapng, of either byte order and any unit of time.
///
/// It may be handed from thread to thread, and is read by one at a time.
public struct CaptureReader: ~Copyable {
  /// No frame is longer than this, in bytes: libpcap's limit. A buffer of this size fits every frame.
  public static let largestFrame = 262_144

  /// What the file is and how it is encoded, told by its first bytes.
  public let format: CaptureFormat
  /// The file's size, nil for a pipe.
  public var fileByteCount: Int64? { stream.byteCount }

  private let path: String
  private let stream: CaptureStream
  private let filter: CaptureFilter
  /// Closed when there are no more frames.
  private var section: CaptureSection
  private var failure: CaptureError?
  /// Packets that libpcap has read, of all sections, whether or not the filter took them.
  private var packetCount: UInt64 = 0
  private var latest: UInt64 = 0
  private var ownWarnings = CaptureWarnings()

  /// Opens a capture and reads its header. `-` is the standard input.
  ///
  /// `filter` is an expression as tcpdump takes it (pcap-filter(7)); frames that it does not match are passed over.
  public init(path: String, filter: String? = nil) throws(CaptureError) {
    let name = path == "-" ? "standard input" : path
    let stream = try CaptureStream(path: path)
    var section = CaptureSection(stream)
    try Self.open(&section, stream, name)
    self.filter = try CaptureFilter(filter)
    self.path = name
    self.stream = stream
    self.section = section
    // It opens only if its beginning could be told.
    format = stream.walker.format!
  }

  /// How far the file is read, in bytes; 0 to `fileByteCount`.
  public var byteOffset: Int64 { section.isOpen ? section.offset : stream.walker.defect?.offset ?? stream.walker.offset }

  /// The oddities met so far; complete once `next` has returned nil or thrown.
  public var warnings: CaptureWarnings { stream.walker.warnings + ownWarnings }

  /// Copies the next frame's bytes into `buffer` and returns its times and lengths, nil at the end of the file.
  ///
  /// What is wrong with a file is thrown when all frames before it were returned, and again by each call after that.
  /// Only `frameLongerThanBuffer` skips one frame, after which reading may go on.
  public mutating func next(
    into buffer: UnsafeMutableRawBufferPointer
  ) throws(CaptureError) -> CapturedFrame? {
    var packet: BorrowedPacket?
    while section.isOpen {
      switch unsafe section.next(&packet) {
      case .packet:
        packetCount += 1
        if unsafe filter.accepts(packet!) { return unsafe try copy(packet!, into: buffer) }
        dropHiddenOriginal()
      case .end: advance()
      case .failure: fail(.refusedByLibpcap(section.failure))
      }
    }
    if let failure { throw failure }
    return nil
  }
}

extension CaptureReader: @unchecked Sendable {}

extension CaptureReader {
  private mutating func copy(
    _ packet: BorrowedPacket, into buffer: UnsafeMutableRawBufferPointer
  ) throws(CaptureError) -> CapturedFrame {
    let captured = unsafe Int(packet.header.pointee.caplen)
    var original = unsafe Int(packet.header.pointee.len)
    // Only pcapng hides any, as equal lengths; to look costs an exclusivity check, 5 ns.
    if format.container == .pcapng, captured == original { takeHiddenOriginal(&original) }
    guard captured <= buffer.count else {
      throw .frameLongerThanBuffer(
        file: path, offset: byteOffset, frameBytes: captured, bufferBytes: buffer.count)
    }
    if captured > 0 { unsafe buffer.baseAddress!.copyMemory(from: packet.bytes, byteCount: captured) }
    let timestamp = unsafe nanoseconds(packet.header.pointee.ts)
    if timestamp < latest { ownWarnings[.timeGoesBackwards] += 1 }
    latest = timestamp
    return CapturedFrame(timestamp: timestamp, capturedByteCount: captured, originalByteCount: original)
  }

  /// libpcap's time (`tv_usec` is nanoseconds, as asked for) as one number.
  private mutating func nanoseconds(_ time: timeval) -> UInt64 {
    if time.tv_sec >= 0, time.tv_sec < 1 << 32, time.tv_usec >= 0 {
      return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_usec)
    }
    return rareNanoseconds(time)
  }

  /// libpcap takes the unsigned fields of pcap for signed ones; and 64 bits of pcapng seconds are too many for
  /// nanoseconds.
  private mutating func rareNanoseconds(_ time: timeval) -> UInt64 {
    if format.container == .pcap {
      let unit = format.resolution == .microseconds ? 1000 : 1
      let fraction = UInt32(truncatingIfNeeded: time.tv_usec / unit)
      return UInt64(UInt32(truncatingIfNeeded: time.tv_sec)) * 1_000_000_000 + UInt64(fraction) * UInt64(unit)
    }
    let seconds = UInt64(bitPattern: Int64(time.tv_sec)).multipliedReportingOverflow(by: 1_000_000_000)
    let sum = seconds.partialValue.addingReportingOverflow(UInt64(max(0, time.tv_usec)))
    if !seconds.overflow, !sum.overflow { return sum.partialValue }
    ownWarnings[.timestampOutOfRange] += 1
    return .max
  }

  /// Replaces the original length that libpcap was told by the one in the file. Readings.md, "Snapshot length".
  private func takeHiddenOriginal(_ original: inout Int) {
    // The walker counts packets from 0 as it passes them, and we from 1 as they come out.
    if let byteCount = stream.walker.hiddenOriginals.take(packet: packetCount - 1) { original = Int(byteCount) }
  }

  private func dropHiddenOriginal() {
    var ignored = 0
    if format.container == .pcapng { takeHiddenOriginal(&ignored) }
  }

  /// Goes on to the next section, if one follows.
  private mutating func advance() {
    section.close()
    do { try Self.open(&section, stream, path) } catch { failure = error }
  }

  private mutating func fail(_ defect: CaptureDefect) {
    // Where the walker stopped the stream, libpcap fails for want of bytes, and what the walker found is the reason.
    let isForWant = byteOffset == stream.walker.offset && stream.walker.isInside
    let found = isForWant ? stream.walker.defect ?? (byteOffset, defect) : (byteOffset, defect)
    failure = .unreadable(file: path, offset: found.0, found.1)
    section.close()
  }

  /// Opens the next section that libpcap can read, if there is one.
  ///
  /// A section without an interface is allowed and has no packets, but libpcap refuses it. Readings.md, "Sections".
  private static func open(
    _ section: inout CaptureSection, _ stream: CaptureStream, _ path: String
  ) throws(CaptureError) {
    while true {
      if let (offset, defect) = stream.walker.defect {
        throw .unreadable(file: path, offset: offset, defect)
      }
      if stream.walker.format != nil {
        guard stream.walker.section.hasEnded else { return }
        stream.walker.section.begin()
      }
      do { return try section.open() } catch {
        let hasReadAll = error.offset == stream.walker.offset
        if hasReadAll, stream.walker.isInside || stream.walker.section.interfaces.isEmpty { continue }
        throw .unreadable(file: path, offset: error.offset, .refusedByLibpcap(error.reason))
      }
    }
  }
}
