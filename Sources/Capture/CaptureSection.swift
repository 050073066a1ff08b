// libpcap's reader of one file, or of one section of a pcapng file.

import CPcap
import Glibc

/// A packet as libpcap hands it out: borrowed, until the next one.
@unsafe struct BorrowedPacket {
  var header: UnsafePointer<pcap_pkthdr>
  var bytes: UnsafePointer<UInt8>
}

/// A libpcap reader, open or closed.
///
/// Safe: it owns the `pcap_t`, which owns the C stream, which reads from `stream`, which it holds on to; it closes in
/// that order.
@safe struct CaptureSection: ~Copyable {
  enum Step { case packet, end, failure }

  private var pcap: OpaquePointer?
  private let stream: CaptureStream

  /// What libpcap says when it does not open the stream, and how far it had read.
  struct Refusal: Error {
    let reason: String
    let offset: Int64
  }

  init(_ stream: CaptureStream) { self.stream = stream }

  deinit { if let pcap = unsafe pcap { unsafe pcap_close(pcap) } }

  var isOpen: Bool { unsafe pcap != nil }

  mutating func open() throws(Refusal) {
    guard let file = unsafe stream.cStream() else { throw Refusal(reason: "out of memory", offset: 0) }
    var message = [CChar](repeating: 0, count: Int(PCAP_ERRBUF_SIZE))
    guard
      let pcap = unsafe pcap_fopen_offline_with_tstamp_precision(
        file, UInt32(PCAP_TSTAMP_PRECISION_NANO), &message)
    else {
      let offset = unsafe Int64(ftello(file))
      unsafe fclose(file)
      let words = message.prefix { $0 != 0 }.map(UInt8.init(bitPattern:))
      throw Refusal(reason: String(decoding: words, as: UTF8.self), offset: offset)
    }
    unsafe self.pcap = pcap
  }

  mutating func close() {
    if let pcap = unsafe pcap { unsafe pcap_close(pcap) }
    unsafe pcap = nil
  }

  /// Reads the next packet. `packet` is set, and good until the next call, if there is one.
  @unsafe func next(_ packet: inout BorrowedPacket?) -> Step {
    var header: UnsafeMutablePointer<pcap_pkthdr>?
    var bytes: UnsafePointer<UInt8>?
    switch unsafe pcap_next_ex(pcap, &header, &bytes) {
    case 1:
      unsafe packet = BorrowedPacket(header: header!, bytes: bytes!)
      return .packet
    case PCAP_ERROR_BREAK: return .end
    default: return .failure
    }
  }

  /// How far libpcap has read, in bytes from the beginning of the file.
  var offset: Int64 { unsafe Int64(ftello(pcap_file(pcap))) }
  /// What was wrong, after `.failure`.
  var failure: String { unsafe String(cString: pcap_geterr(pcap)) }
}
