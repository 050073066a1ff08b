// A filter expression, as tcpdump takes it, compiled once for all sections of a file.

import CPcap

/// A compiled filter for Ethernet; without an expression, it takes every packet.
///
/// Safe: it owns the program that `pcap_compile` allocates, and frees it once.
@safe struct CaptureFilter: ~Copyable {
  private var program = unsafe bpf_program()

  init(_ expression: String?) throws(CaptureError) {
    guard let expression else { return }
    guard let pcap = unsafe pcap_open_dead(DLT_EN10MB, CInt(CaptureReader.largestFrame)) else {
      throw .badFilter(expression: expression, reason: "out of memory")
    }
    defer { unsafe pcap_close(pcap) }
    guard unsafe pcap_compile(pcap, &program, expression, 1, PCAP_NETMASK_UNKNOWN) == 0 else {
      throw .badFilter(expression: expression, reason: unsafe String(cString: pcap_geterr(pcap)))
    }
  }

  deinit {
    var program = unsafe program
    unsafe pcap_freecode(&program)
  }

  @unsafe func accepts(_ packet: BorrowedPacket) -> Bool {
    if unsafe program.bf_insns == nil { return true }
    return unsafe withUnsafePointer(to: program) { unsafe pcap_offline_filter($0, packet.header, packet.bytes) != 0 }
  }
}
