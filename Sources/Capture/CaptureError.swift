// What can be wrong with a capture, said with the file, the byte and the numbers,
// so that a user can look at the very byte with a hex viewer.

import Glibc

/// Why a capture cannot be opened, read on, or written.
public enum CaptureError: Error, Hashable, Sendable {
  case cannotOpen(file: String, errno: CInt)
  case isDirectory(file: String)
  /// The file's bytes end or stop making sense at `offset`. Frames before it were delivered.
  case unreadable(file: String, offset: Int64, CaptureDefect)
  /// libpcap does not take the filter expression, and says why.
  case badFilter(expression: String, reason: String)
  /// The caller's buffer is too small for the next frame, which is skipped.
  case frameLongerThanBuffer(file: String, offset: Int64, frameBytes: Int, bufferBytes: Int)
  case cannotWrite(file: String, errno: CInt)
  /// A frame that a pcap file cannot hold: longer than `CaptureReader.largestFrame`, or of a time past the year 2106.
  case unwritableFrame(file: String, byteCount: Int, timestamp: UInt64)
}

/// What is wrong with a file's bytes.
public enum CaptureDefect: Hashable, Sendable {
  case emptyFile
  case notACapture(lookingLike: Lookalike?)
  case badByteOrderMagic(UInt32)
  case unsupportedVersion(CaptureFormat.Container, major: UInt16, minor: UInt16)
  /// The name is libpcap's, nil where it has none.
  case notEthernet(linkType: UInt32, name: String?)
  /// The file ends inside this part.
  case cutShort(Part, needed: Int, found: Int)
  /// The frame is longer than any that libpcap reads (`CaptureReader.largestFrame`).
  case frameTooLong(captured: UInt32)
  /// Less than a block of this type needs, more than libpcap reads, or not a multiple of 4.
  case badBlockLength(UInt32, type: UInt32)
  case blockLengthsDisagree(first: UInt32, last: UInt32)
  case undeclaredInterface(UInt32, declared: Int)
  case capturedLengthPastBlock(captured: UInt32, available: Int)
  case optionPastBlock(code: UInt16, length: Int, available: Int)
  case failedRead(errno: CInt)
  /// libpcap refuses something that we did not look for; its own words. The offset is where it had read to.
  case refusedByLibpcap(String)

  /// A format that is not ours, known by its first bytes.
  public enum Lookalike: String, Hashable, Sendable {
    case gzip = "gzip-compressed data"
    case zstandard = "Zstandard-compressed data"
    case xz = "xz-compressed data"
    case bzip2 = "bzip2-compressed data"
    case lz4 = "LZ4-compressed data"
    case snoop = "a snoop capture"
    case networkMonitor = "a Network Monitor capture"
    case sniffer = "a Sniffer capture"
    case erf = "an ERF capture"
    case text = "text"
  }

  /// A part of a file that can be cut short.
  public enum Part: String, Hashable, Sendable {
    case fileHeader = "file header"
    case recordHeader = "record header"
    case frame = "frame"
    case blockHeader = "block header"
    case block = "block"
  }
}

extension CaptureError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .cannotOpen(let file, let errno): "\(file): cannot open: \(reason(errno))"
    case .isDirectory(let file): "\(file): a directory, not a capture"
    case .unreadable(let file, let offset, let defect): "\(file): at byte \(offset): \(defect)"
    case .badFilter(let expression, let reason): "filter \"\(expression)\": \(reason)"
    case .frameLongerThanBuffer(let file, let offset, let frame, let buffer):
      "\(file): at byte \(offset): a frame of \(frame) bytes does not fit a buffer of \(buffer)"
    case .cannotWrite(let file, let errno): "\(file): cannot write: \(reason(errno))"
    case .unwritableFrame(let file, let byteCount, let timestamp):
      "\(file): pcap cannot hold a frame of \(byteCount) bytes at \(timestamp) ns"
    }
  }
}

extension CaptureDefect: CustomStringConvertible {
  public var description: String {
    switch self {
    case .emptyFile: "the file is empty"
    case .notACapture(nil): "neither pcap nor pcapng"
    case .notACapture(let lookalike?): "neither pcap nor pcapng; it looks like \(lookalike.rawValue)"
    case .badByteOrderMagic(let magic): "bad byte-order magic 0x\(hexadecimal(magic)) in a section header"
    case .unsupportedVersion(let container, let major, let minor):
      "unsupported \(container.rawValue) version \(major).\(minor)"
    case .notEthernet(let type, let name?): "link type \(type) (\(name)) is not Ethernet"
    case .notEthernet(let type, nil): "link type \(type) is not Ethernet"
    case .cutShort(let part, let needed, let found):
      "\(part.rawValue) cut short (\(found) of \(needed) bytes)"
    case .frameTooLong(let captured):
      "captured length \(captured) is more than any frame's (\(CaptureReader.largestFrame))"
    case .badBlockLength(let length, let type): "bad length \(length) of a block of type 0x\(hexadecimal(type))"
    case .blockLengthsDisagree(let first, let last):
      "block length is \(first) in front and \(last) behind"
    case .undeclaredInterface(let interface, let declared):
      "packet for undeclared interface \(interface) (\(declared) declared)"
    case .capturedLengthPastBlock(let captured, let available):
      "captured length \(captured) runs past the block (\(available) bytes left)"
    case .optionPastBlock(let code, let length, let available):
      "option \(code) of \(length) bytes runs past the block (\(available) bytes left)"
    case .failedRead(let errno): "cannot read: \(reason(errno))"
    case .refusedByLibpcap(let reason): "libpcap: \(reason)"
    }
  }
}

private func reason(_ errno: CInt) -> String { unsafe String(cString: strerror(errno)) }
private func hexadecimal(_ value: UInt32) -> String { String(value, radix: 16) }
