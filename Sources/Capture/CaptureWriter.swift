// Frames into a pcap file: nanoseconds, Ethernet, in the machine's byte order.

import CPcap
import Glibc

/// A pcap file that is being written.
///
/// Safe: it owns libpcap's writer and closes it once. Frames are given with their bounds.
@safe public struct CaptureWriter: ~Copyable {
  private let path: String
  private let pcap: OpaquePointer
  /// libpcap's `pcap_dumper_t`.
  private let dumper: OpaquePointer

  /// Makes the file, or empties it, and writes its header.
  public init(path: String) throws(CaptureError) {
    guard let file = unsafe fopen(path, "we") else { throw .cannotWrite(file: path, errno: errno) }
    guard
      let pcap = unsafe pcap_open_dead_with_tstamp_precision(
        DLT_EN10MB, CInt(CaptureReader.largestFrame), UInt32(PCAP_TSTAMP_PRECISION_NANO)),
      let dumper = unsafe pcap_dump_fopen(pcap, file)
    else {
      unsafe fclose(file)
      throw .cannotWrite(file: path, errno: errno)
    }
    self.path = path
    unsafe self.pcap = pcap
    unsafe self.dumper = dumper
  }

  deinit {
    unsafe pcap_dump_close(dumper)
    unsafe pcap_close(pcap)
  }

  /// Writes a frame, seen at `timestamp` (nanoseconds since 1970), of which `bytes` were captured.
  ///
  /// - Parameter originalByteCount: its length on the wire, if more than was captured.
  public mutating func append(
    bytes: UnsafeRawBufferPointer, timestamp: UInt64, originalByteCount: Int? = nil
  ) throws(CaptureError) {
    let seconds = timestamp / 1_000_000_000
    guard bytes.count <= CaptureReader.largestFrame, seconds <= UInt64(UInt32.max),
      let original = UInt32(exactly: originalByteCount ?? bytes.count)
    else { throw .unwritableFrame(file: path, byteCount: bytes.count, timestamp: timestamp) }
    var header = pcap_pkthdr()
    header.ts = timeval(tv_sec: Int(seconds), tv_usec: Int(timestamp % 1_000_000_000))
    header.caplen = UInt32(bytes.count)
    header.len = original
    let first = unsafe bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
    unsafe pcap_dump(UnsafeMutableRawPointer(dumper).assumingMemoryBound(to: UInt8.self), &header, first)
    guard unsafe ferror(pcap_dump_file(dumper)) == 0 else { throw .cannotWrite(file: path, errno: errno) }
  }

  /// Writes out what is buffered and closes the file; the way to know that all of it was written.
  public consuming func close() throws(CaptureError) {
    guard unsafe pcap_dump_flush(dumper) == 0 else { throw .cannotWrite(file: path, errno: errno) }
  }
}
