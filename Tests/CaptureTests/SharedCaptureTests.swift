import Capture
import Foundation
import Testing

/// Captures of others, against a parser that has nothing in common with the reader.
@Suite(.enabled(if: sharedTraces != nil, "the shared traces are not on this machine"))
struct SharedCaptureTests {
  @Test(arguments: sharedCaptures.filter { !$0.hasPrefix("derived/bad-") })
  func `a capture has the frames that a plain parser finds in it`(name: String) throws {
    let plain = try PlainParser(path: shared(name))
    let reading = Reading(shared(name))
    #expect(reading.frames.count == plain.frames.count)
    #expect(reading.byteCount == plain.byteCount)
    #expect(reading.frames == plain.frames)
    #expect((reading.error == nil) == (plain.stop == nil), "\(String(describing: reading.error))")
  }

  @Test func `captures have as many frames as their manifest says`() throws {
    let text = String(decoding: try bytes(of: shared("MANIFEST.md")), as: UTF8.self)
    var folder = ""
    var compared = 0
    for line in text.split(separator: "\n") {
      if line.hasPrefix("## ") { folder = String(line.dropFirst(3).prefix { $0 != " " }) }
      let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
      // Whole files of Ethernet only: the manifest counts past what ends a reading.
      guard cells.count == 8, cells[4] == "1", let count = Int(cells[1]), !cells[6].contains("ERR"),
        !cells[6].contains("EXPECT: named"), sharedCaptures.contains(folder + cells[0])
      else { continue }
      let reading = Reading(shared(folder + cells[0]))
      if reading.error == nil { compared += 1 }
      #expect(reading.frames.count == count || reading.error != nil, "\(cells[0])")
    }
    #expect(compared > 150)
  }

  @Test(arguments: [
    ("zeek/arp-who-has-radiotap.pcap", 127, "IEEE802_11_RADIO"), ("zeek/wlanmon.pcap", 105, "IEEE802_11"),
    ("pcapplusplus/raw_ip.pcap", 101, "RAW"), ("pcapplusplus/sll.pcap", 113, "LINUX_SLL"),
    ("zeek/nflog-http.pcap", 239, "NFLOG"), ("zeek/llc.pcap", 10, "FDDI"),
    ("pcapplusplus/microsecs_big_endian.pcap", 253, "NETLINK"), ("tcpdump/truncated-aack.pcap", 9, "PPP"),
    ("tcpdump/LINKTYPE_IPV6_invalid.pcap", 229, "IPV6"),
  ] as [(String, UInt32, String)])
  func `a link type that is not Ethernet is refused by name`(name: String, type: UInt32, typeName: String) {
    let reading = Reading(shared(name))
    #expect(reading.defect == .notEthernet(linkType: type, name: typeName))
    #expect(reading.frames.isEmpty)
  }

  @Test(arguments: [
    ("pcapplusplus/pcapng-example.pcapng", 113), ("pcapplusplus/many_interfaces-1.pcapng", 0),
    ("pcapng-test-generator/output_le__advanced__test100.pcapng", 0),
    ("pcapng-test-generator/output_be__advanced__test100.pcapng", 0),
  ] as [(String, UInt32)])
  func `a second link type is refused where it is declared, after the frames before it`(
    name: String, type: UInt32
  ) throws {
    let reading = Reading(shared(name))
    let plain = try PlainParser(path: shared(name))
    guard case .notEthernet(type, _) = reading.defect else {
      Issue.record("\(String(describing: reading.error))")
      return
    }
    #expect(plain.stop == "link type")
    #expect(reading.frames == plain.frames)
  }
}
