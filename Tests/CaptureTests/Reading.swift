// What tests see of a capture: everything the reader says, in one value.

import Capture

struct SeenFrame: Hashable {
  var timestamp: UInt64
  var original: Int
  var bytes: [UInt8]
}

/// All that a reader gives until it ends or throws.
struct Reading {
  var frames: [SeenFrame] = []
  var error: CaptureError?
  var warnings = CaptureWarnings()
  var format: CaptureFormat?
  var byteOffset: Int64 = 0

  var byteCount: Int { frames.reduce(0) { $0 + $1.bytes.count } }

  /// The defect and where it is, if that is why the reading ended.
  var defect: CaptureDefect? { if case .unreadable(_, _, let defect) = error { defect } else { nil } }
  var errorOffset: Int64? { if case .unreadable(_, let offset, _) = error { offset } else { nil } }

  init(_ path: String, filter: String? = nil) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: CaptureReader.largestFrame, alignment: 64)
    defer { unsafe buffer.deallocate() }
    do throws(CaptureError) {
      var reader = try CaptureReader(path: path, filter: filter)
      format = reader.format
      do throws(CaptureError) {
        while let frame = try unsafe reader.next(into: buffer) {
          let bytes = unsafe Array(buffer[..<frame.capturedByteCount])
          frames.append(SeenFrame(timestamp: frame.timestamp, original: frame.originalByteCount, bytes: bytes))
        }
      } catch { self.error = error }
      warnings = reader.warnings
      byteOffset = reader.byteOffset
    } catch { self.error = error }
  }
}
