// The bytes of a file on their way to libpcap: read here, walked over, handed on.
//
// libpcap reads a C stream, and this is what is behind that stream (`fopencookie`). So a file, a pipe and the standard
// input are one thing, the walker sees each byte once and in order, and what libpcap gets is whole headers only,
// up to the first defect or the section's end. A class, because the C stream and the reader share it.

import CPcap
import Glibc

/// An open file and how far it was read.
///
/// Safe: the three allocations are its own, live as long as it does, and are reached only by the C stream's calls,
/// which hold the buffer's size, and by `fill`, which keeps to it. `CaptureSection` closes the C stream first.
@safe final class CaptureStream {
  /// How much is read at a time, in bytes.
  static let bufferByteCount = 128 << 10

  let byteCount: Int64?
  var walker = CaptureWalker()
  private let descriptor: CInt
  private let buffer = UnsafeMutableRawPointer.allocate(byteCount: bufferByteCount, alignment: 64)
  /// What was read and did not pass yet.
  private let held = UnsafeMutableRawPointer.allocate(byteCount: bufferByteCount, alignment: 64)
  private var heldByteCount = 0
  private var isAtEnd = false

  /// Opens `path`; `-` is the standard input, which stays open.
  init(path: String) throws(CaptureError) {
    descriptor = path == "-" ? 0 : unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .cannotOpen(file: path, errno: errno) }
    var status = stat()
    let isKnown = unsafe fstat(descriptor, &status) == 0
    byteCount = isKnown && status.st_mode & S_IFMT == S_IFREG ? Int64(status.st_size) : nil
    if isKnown, status.st_mode & S_IFMT == S_IFDIR { throw .isDirectory(file: path) }
  }

  deinit {
    if descriptor > 0 { _ = close(descriptor) }
    unsafe buffer.deallocate()
    unsafe held.deallocate()
  }

  /// A C stream of what is left of the section, nil if there is no memory for it. It must be closed before another is
  /// asked for.
  func cStream() -> UnsafeMutablePointer<FILE>? {
    let functions = unsafe cookie_io_functions_t(
      read: { cookie, buffer, byteCount in
        unsafe Unmanaged<CaptureStream>.fromOpaque(cookie!).takeUnretainedValue().fill(buffer!, byteCount)
      },
      write: nil,
      seek: { cookie, offset, origin in
        unsafe Unmanaged<CaptureStream>.fromOpaque(cookie!).takeUnretainedValue().tell(&offset!.pointee, origin)
      },
      close: nil)
    // Headers of glibc 2.41 and later declare that the calls below take no null pointer.
    guard let file = unsafe fopencookie(Unmanaged.passUnretained(self).toOpaque(), "r", functions) else { return nil }
    // One thread reads it; and libpcap reads each header and each frame with a call of its own.
    _ = unsafe __fsetlocking(file, CInt(FSETLOCKING_BYCALLER))
    unsafe setvbuf(file, buffer.assumingMemoryBound(to: CChar.self), _IOFBF, Self.bufferByteCount)
    return unsafe file
  }

  /// Reads on into `target` and returns how many bytes may pass; 0 at the end of the section, or of all that is good.
  private func fill(_ target: UnsafeMutablePointer<CChar>, _ capacity: Int) -> Int {
    precondition(capacity >= Self.bufferByteCount, "a C stream that reads less than its buffer")
    let room = unsafe UnsafeMutableRawBufferPointer(start: target, count: Self.bufferByteCount)
    var count = heldByteCount
    unsafe room.copyMemory(from: UnsafeRawBufferPointer(start: held, count: count))
    while walker.defect == nil, !walker.section.hasEnded {
      if count > 0 {
        var bytes = unsafe MutableRawSpan(_unsafeBytes: room[..<count])
        let passing = walker.walk(&bytes)
        if passing > 0 || walker.defect != nil || walker.section.hasEnded {
          unsafe hold(room[passing..<count])
          return passing
        }
      }
      guard unsafe read(room, &count) else {
        walker.end(after: count)
        break
      }
    }
    return 0
  }

  /// Where the stream is: all that can be asked of it, as a pipe cannot be moved in.
  private func tell(_ offset: inout __off64_t, _ origin: CInt) -> CInt {
    guard offset == 0, origin == SEEK_CUR else { return -1 }
    offset = Int(walker.offset)
    return 0
  }

  /// Reads behind the first `count` bytes; false at the end of the file.
  private func read(_ room: UnsafeMutableRawBufferPointer, _ count: inout Int) -> Bool {
    while !isAtEnd {
      let more = unsafe Glibc.read(descriptor, room.baseAddress! + count, room.count - count)
      if more > 0 {
        count += more
        return true
      }
      if more < 0, errno == EINTR { continue }
      if more < 0 { walker.fail(.failedRead(errno: errno), after: count) }
      isAtEnd = true
    }
    return false
  }

  private func hold(_ bytes: Slice<UnsafeMutableRawBufferPointer>) {
    unsafe held.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes).baseAddress!, byteCount: bytes.count)
    heldByteCount = unsafe bytes.count
  }
}
