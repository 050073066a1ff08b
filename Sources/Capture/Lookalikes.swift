// What a file is that is no capture: for the message only, so a wrong guess costs nothing but a hint.

import CPcap

extension MutableRawSpan {
  /// What the bytes at `position`, the first of a file, look like.
  func lookalike(_ position: Int) -> CaptureDefect.Lookalike? {
    for (magic, lookalike) in Self.magics where begins(magic, position) { return lookalike }
    if isEthernetERF(position) { return .erf }
    return (position..<min(position + 16, byteCount)).allSatisfy { isText(byte($0)) } ? .text : nil
  }

  private static var magics: [([UInt8], CaptureDefect.Lookalike)] {
    [
      ([0x1f, 0x8b], .gzip), ([0x28, 0xb5, 0x2f, 0xfd], .zstandard),
      ([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0], .xz), (Array("BZh".utf8), .bzip2),
      ([0x04, 0x22, 0x4d, 0x18], .lz4), (Array("snoop\0\0\0".utf8), .snoop),
      (Array("GMBU".utf8), .networkMonitor), (Array("TRSNIFF".utf8), .sniffer),
    ]
  }

  private func begins(_ magic: [UInt8], _ position: Int) -> Bool {
    byteCount - position >= magic.count && magic.indices.allSatisfy { byte(position + $0) == magic[$0] }
  }

  /// An ERF record of type "Ethernet": its length is that of its header, 18, and of what was captured.
  private func isEthernetERF(_ position: Int) -> Bool {
    guard byteCount - position >= 16, byte(position + 8) & 0x7f == 2 else { return false }
    let recordByteCount = load(position + 10, as: UInt16.self).bigEndian
    let wireByteCount = load(position + 14, as: UInt16.self).bigEndian
    return recordByteCount >= 18 + 14 && wireByteCount >= 14 && wireByteCount <= 9216
  }

  private func byte(_ position: Int) -> UInt8 { load(position, as: UInt8.self) }
  private func isText(_ byte: UInt8) -> Bool { 0x20...0x7e ~= byte || 0x09...0x0d ~= byte }
}

/// libpcap's name for a link type. The types below 104 that libpcap has other numbers for have no name here, but for
/// raw IP.
func linkTypeName(_ linkType: UInt32) -> String? {
  let number = linkType == 101 ? DLT_RAW : CInt(clamping: linkType)
  guard linkType < 100 || linkType == 101 || linkType >= 104,
    let name = unsafe pcap_datalink_val_to_name(number)
  else { return nil }
  return unsafe String(cString: name)
}
