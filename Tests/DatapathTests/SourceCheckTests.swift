import Datapath
import Support
import Testing
import Virtio

/// What the processor holds a guest's frames to where the card does not.
@Suite struct SourceCheckTests {
  private static let own: [UInt8] = [2, 0, 0, 0, 0, 1]
  private static let mac = SourceCheck(address: 0x0200_0000_0001)
  private static let tagged = SourceCheck(vlan: 100)
  private static let both = SourceCheck(address: 0x0200_0000_0001, vlan: 100)
  private static let access = SourceCheck(vlan: 100, isAccessPort: true)
  private static let accessAndMAC = SourceCheck(address: 0x0200_0000_0001, vlan: 100, isAccessPort: true)
  private static let checks = [mac, tagged, both, access, accessAndMAC]
  private static let formats: [Features] = [[], [.ringPacked]]

  private func rig(_ check: SourceCheck, _ format: Features = [], copies: Bool = false, pieceLimit: Int = 40, seed: UInt64 = 7) throws -> TransmitRig {
    try TransmitRig(
      size: 32, capacity: 64, features: format.union([.version1, .indirectDescriptors]), copies: copies, pieceLimit: pieceLimit, check: check,
      random: SeededGenerator(seed: seed))
  }
  private func drain(_ rig: TransmitRig) throws {
    for _ in 0..<100 where rig.returned < rig.expected.count {
      try rig.turn()
      rig.card.send()
      try rig.turn()
    }
    try rig.checkMemory()
    #expect(rig.returned == rig.expected.count)
  }
  private func frame(_ rig: TransmitRig, _ count: Int, source: [UInt8] = own, tag: UInt16? = nil, type: [UInt8] = [0x88, 0xB5]) -> [UInt8] {
    var bytes = rig.frame(count)
    let head = [2, 0, 0, 0, 0, 9] + source + (tag.map { [0x81, 0, UInt8($0 >> 8), UInt8($0 & 255)] } ?? []) + type
    bytes.replaceSubrange(0..<min(head.count, count), with: head[..<min(head.count, count)])
    return bytes
  }

  @Test(arguments: formats, [false, true])
  func `a frame under another address is not sent, and is counted`(format: Features, copies: Bool) throws {
    let rig = try rig(Self.mac, format, copies: copies)
    let strangers: [[UInt8]] = [[2, 0, 0, 0, 0, 2], [3, 0, 0, 0, 0, 1], [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], [2, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]]
    for source in strangers {
      for count in [60, 256, 257, 1514] { rig.send(frame(rig, count, source: source)) }
      try drain(rig)
    }
    #expect(rig.path.counters.dropped(.spoofed) == 20 && rig.card.sent.isEmpty)
    for count in [17, 60, 256, 257, 1518] { rig.send(frame(rig, count)) }
    try drain(rig)
    #expect(rig.path.counters.dropped(.spoofed) == 20 && rig.card.sent.count == 5)
    #expect(rig.path.counters.copied(copies ? .copyMode : .sourceCheck) == (copies ? 5 : 3) && rig.path.counters.lentFrames == (copies ? 0 : 2))
  }

  @Test(arguments: formats) func `a frame without its VLAN's tag, or with another, is not sent`(format: Features) throws {
    let rig = try rig(Self.tagged, format)
    // Another VLAN, priority only, VLAN 100 in another place of the tag, a service tag.
    for tag: UInt16? in [nil, 0, 200, 0x6400, 101, 0xFFF] { rig.send(frame(rig, 300, tag: tag)) }
    rig.send(frame(rig, 300, tag: nil, type: [0x88, 0xA8, 0, 100]))
    // Cut off behind the type.
    rig.send(frame(rig, 17, type: [0x81, 0, 0]))
    try drain(rig)
    #expect(rig.path.counters.dropped(.spoofed) == 8 && rig.card.sent.isEmpty)
    for tag: UInt16 in [100, 0xE064, 0x1064] { rig.send(frame(rig, 300, tag: tag)) }
    try drain(rig)
    #expect(rig.card.sent.count == 3 && rig.path.counters.droppedFrames == 8)
  }

  @Test(arguments: formats, [access, accessAndMAC])
  func `an access port sends what has no tag, takes its own off, and refuses others`(format: Features, check: SourceCheck) throws {
    let rig = try rig(check, format)
    rig.send(frame(rig, 600))
    try drain(rig)
    for tag: UInt16 in [100, 0, 0xE064, 0x2000] {
      for count in [18, 20, 64, 1518] { rig.send(frame(rig, count, tag: tag)) }
      try drain(rig)
    }
    #expect(rig.card.sent.count == 17 && rig.path.counters.copied(.tagRemoved) == 16 && rig.path.counters.lentFrames == 1)
    #expect(rig.card.sent[4] == Array(rig.card.sent[4][..<12]) + [0x88, 0xB5] + Array(rig.card.sent[4][14...]))
    for tag: UInt16 in [200, 101, 0xFFF] { rig.send(frame(rig, 100, tag: tag)) }
    rig.send(frame(rig, 17, type: [0x81, 0, 0]))
    try drain(rig)
    #expect(rig.path.counters.dropped(.spoofed) == 4 && rig.card.sent.count == 17)
  }

  @Test(arguments: [access, accessAndMAC]) func `the tag that the card puts in has room: a frame that would be too long with it is not sent`(_ check: SourceCheck) throws {
    let rig = try rig(check)
    for count in [1514, 1515, 1518] { rig.send(frame(rig, count)) }
    for split in [[12], [12, 14], [40, 900]] { for count in [1514, 1515] { rig.send(frame(rig, count), split: split) } }
    try drain(rig)
    #expect(rig.card.sent.count == 4 && rig.path.counters.dropped(.tooLong) == 5)
  }

  @Test(arguments: checks, formats) func `the check does not depend on how a frame is split`(_ check: SourceCheck, _ format: Features) throws {
    var random = SeededGenerator(seed: 21)
    for pieceLimit in [2, 4, 40] {
      let rig = try rig(check, format, pieceLimit: pieceLimit, seed: UInt64(pieceLimit))
      for _ in 0..<300 {
        let source: [UInt8] = Int.random(in: 0..<3, using: &random) == 0 ? [2, 0, 0, 0, 0, 2] : Self.own
        let tag: UInt16? = [nil, nil, 0, 100, 100, 200].randomElement(using: &random)!
        let count = [14, 16, 17, 18, 21, 60, 64, 76, 255, 256, 257, 300, 700, 1514, 1515, 1518, 1519].randomElement(using: &random)!
        let split = (0..<Int.random(in: 0...6, using: &random)).map { _ in [1, 6, 12, 13, 20, 24, 26, 76, 77, 200].randomElement(using: &random)! }
        _ = rig.send(frame(rig, count, source: source, tag: tag), split: split, gap: Int.random(in: 0...3, using: &random), indirect: Bool.random(using: &random))
        if Int.random(in: 0..<4, using: &random) == 0 { try drain(rig) }
      }
      try drain(rig)
      #expect(rig.path.counters.dropped(.spoofed) > 0 && rig.card.sent.count > 10)
    }
  }

  @Test(arguments: [mac, tagged, both, accessAndMAC]) func `what a guest writes after the check is not what is sent`(_ check: SourceCheck) throws {
    for count in [100, 1000] {
      let rig = try rig(check)
      let honest = frame(rig, count, tag: 100)
      rig.send(honest)
      // The frame lies in the descriptor's cell, behind the header; the guest writes once the card has been told.
      let cell = (0..<32).map { rig.cell($0) }.first { rig.memory.read($0 + 12, count) == honest }!
      var isChanged = false
      rig.card.onRing = {
        rig.memory.write(cell + 12 + 6, [2, 0, 0, 0, 0, 2])
        rig.memory.write(cell + 12 + 14, [0, 200])
        isChanged = true
      }
      _ = rig.withPath { $0.turn() }
      rig.card.send()
      #expect(isChanged && rig.card.sent.count == 1)
      let sent = rig.card.sent[0]
      #expect(Array(sent[6..<12]) == Self.own, "\(count) bytes")
      if check.isAccessPort { #expect(sent == Array(honest[..<12] + honest[16...])) } else { #expect(sent == honest) }
    }
  }

  @Test func `a ring that is disabled checks nothing, and checks again when it is enabled`() throws {
    let rig = try rig(Self.mac)
    rig.discards = true
    rig.send(frame(rig, 100, source: [2, 0, 0, 0, 0, 2]))
    try drain(rig)
    rig.discards = false
    rig.send(frame(rig, 100, source: [2, 0, 0, 0, 0, 2]))
    try drain(rig)
    #expect(rig.path.counters.dropped(.ringDisabled) == 1 && rig.path.counters.dropped(.spoofed) == 1 && rig.card.sent.isEmpty)
  }
}
