import Capture
import Testing

/// The files of the shared folder's `derived/` and the crash samples, each with the result that its manifest expects.
@Suite(.enabled(if: sharedTraces != nil, "the shared traces are not on this machine"))
struct DerivedCaptureTests {
  @Test(arguments: [
    "same-be-us.pcap", "same-le-us.pcap", "same-le-ns.pcap", "same-le.pcapng", "same-be.pcapng",
    "same-two-sections-le-be.pcapng", "same-unknown-blocks.pcapng",
  ])
  func `the same frames in another encoding are the same frames`(name: String) {
    let original = Reading(shared("zeek/http-vlan-0.pcap"))
    let reading = Reading(shared("derived/" + name))
    #expect(reading.error == nil)
    #expect(original.frames.count == 14)
    #expect(reading.frames == original.frames)
    #expect(reading.warnings.isEmpty)
  }

  /// A name, how many frames come first, the byte at which it breaks, and how.
  struct Broken: Sendable, CustomTestStringConvertible {
    var name: String
    var frames = 0
    var offset: Int64
    var defect: CaptureDefect
    init(_ name: String, frames: Int = 0, at offset: Int64, _ defect: CaptureDefect) {
      (self.name, self.frames, self.offset, self.defect) = (name, frames, offset, defect)
    }
    var testDescription: String { name }
  }

  @Test(arguments: [
    Broken("derived/bad-empty.pcap", at: 0, .emptyFile),
    Broken("derived/bad-magic-only.pcap", at: 0, .cutShort(.fileHeader, needed: 24, found: 4)),
    Broken("derived/bad-magic.pcap", at: 0, .notACapture(lookingLike: nil)),
    Broken("derived/bad-version.pcap", at: 4, .unsupportedVersion(.pcap, major: 99, minor: 0)),
    Broken(
      "derived/bad-cut-in-record-header.pcap", frames: 1, at: 122, .cutShort(.recordHeader, needed: 16, found: 7)),
    Broken("derived/bad-cut-in-data.pcap", frames: 1, at: 138, .cutShort(.frame, needed: 78, found: 10)),
    Broken("derived/bad-caplen-4g.pcap", at: 24, .frameTooLong(captured: 0xffff_ffff)),
    Broken("derived/bad-caplen-2g.pcap", at: 24, .frameTooLong(captured: 0x7fff_ffff)),
    Broken("derived/bad-garbage-after.pcap", frames: 14, at: 6391, .frameTooLong(captured: 0xefbe_adde)),
    Broken("derived/bad-linktype.pcap", at: 20, .notEthernet(linkType: 105, name: "IEEE802_11")),
    Broken("derived/bad-block-length-0.pcapng", at: 28, .badBlockLength(0, type: 1)),
    Broken("derived/bad-block-length-7.pcapng", at: 28, .badBlockLength(7, type: 1)),
    Broken("derived/bad-block-length-huge.pcapng", at: 28, .badBlockLength(0xffff_fffc, type: 6)),
    Broken("derived/bad-block-trailer-mismatch.pcapng", at: 44, .blockLengthsDisagree(first: 20, last: 99)),
    Broken("derived/bad-epb-no-interface.pcapng", at: 36, .undeclaredInterface(0, declared: 0)),
    Broken("derived/bad-epb-interface-9.pcapng", at: 56, .undeclaredInterface(9, declared: 1)),
    Broken(
      "derived/bad-epb-caplen-gt-block.pcapng", at: 68, .capturedLengthPastBlock(captured: 1082, available: 84)),
    Broken("derived/bad-option-overrun.pcapng", at: 44, .optionPastBlock(code: 9, length: 400, available: 4)),
    Broken("derived/bad-shb-magic.pcapng", at: 8, .badByteOrderMagic(0x4433_2211)),
    Broken("pcapplusplus/crash-null-deref-pcapng-shb", at: 0, .notACapture(lookingLike: nil)),
    Broken(
      "pcapplusplus/file_heuristics__pcapng-example.pcapng.zst", at: 0, .notACapture(lookingLike: .zstandard)),
    Broken("pcapplusplus/solaris.snoop", at: 0, .notACapture(lookingLike: .snoop)),
  ])
  func `a broken file gives its good frames, then where and how it is broken`(broken: Broken) {
    let reading = Reading(shared(broken.name))
    #expect(reading.frames.count == broken.frames)
    #expect(
      reading.error == .unreadable(file: shared(broken.name), offset: broken.offset, broken.defect),
      "\(reading.error.map(String.init(describing:)) ?? "no error")")
  }

  @Test func `a captured length past its block in a crash sample is an error`() {
    let reading = Reading(shared("pcapplusplus/crash-pcapng-epb-unbounded-length"))
    guard case .capturedLengthPastBlock = reading.defect else {
      Issue.record("\(String(describing: reading.error))")
      return
    }
    #expect(reading.frames.isEmpty)
  }

  /// A name, its frames, their bytes, and the oddities that are counted.
  struct Odd: Sendable, CustomTestStringConvertible {
    var name: String
    var frames: Int
    var warnings: [CaptureWarning: UInt64]
    init(_ name: String, frames: Int, _ warnings: [CaptureWarning: UInt64] = [:]) {
      (self.name, self.frames, self.warnings) = (name, frames, warnings)
    }
    var testDescription: String { name }
  }

  @Test(arguments: [
    Odd("bad-header-only.pcap", frames: 0),
    Odd("bad-origlen-lt-caplen.pcap", frames: 14, [.originalShorterThanCaptured: 1]),
    Odd("bad-caplen-gt-snaplen.pcap", frames: 14, [.capturedLongerThanSnapshot: 14]),
    Odd("bad-zero-length-packets.pcap", frames: 4),
    Odd("bad-runts.pcap", frames: 13),
    Odd("bad-usec-over-1e6.pcap", frames: 1, [.timestampFractionOutOfRange: 1]),
    Odd("bad-time-goes-back.pcap", frames: 14, [.timeGoesBackwards: 13]),
    Odd("bad-snaplen-truncated-frames.pcap", frames: 14),
    Odd("bad-max-frame-65535.pcap", frames: 1),
    Odd("bad-tsresol-255.pcapng", frames: 14, [.timestampUnitTooFine: 14]),
    Odd("bad-tsresol-10-127.pcapng", frames: 14, [.timestampUnitTooFine: 14]),
  ])
  func `an odd file gives all its frames, and its oddities are counted`(odd: Odd) throws {
    let reading = Reading(shared("derived/" + odd.name))
    let plain = try PlainParser(path: shared("derived/" + odd.name))
    #expect(reading.error == nil)
    #expect(reading.frames.count == odd.frames)
    if odd.name.hasPrefix("bad-tsresol") {
      #expect(reading.frames.map(\.bytes) == plain.frames.map(\.bytes))
      #expect(reading.frames.allSatisfy { $0.timestamp == 0 })
    } else {
      #expect(reading.frames == plain.frames)
    }
    for kind in CaptureWarning.allCases {
      #expect(reading.warnings[kind] == odd.warnings[kind] ?? 0, "\(kind)")
    }
  }

  @Test func `a fraction of five seconds is carried into the seconds`() {
    #expect(Reading(shared("derived/bad-usec-over-1e6.pcap")).frames.first?.timestamp == 6_000_000_000)
  }

  @Test func `a frame of which less was captured than there was says so`() {
    let frames = Reading(shared("derived/bad-snaplen-truncated-frames.pcap")).frames
    #expect(frames.allSatisfy { $0.bytes.count <= 96 })
    #expect(frames.contains { $0.bytes.count < $0.original })
  }
}
