// The blocks of pcapng: draft-ietf-opsawg-pcapng, sections 3 "General File Structure" and 4 "Block Definition".
//
// A block is its type, its length, a part of fixed size, a part that passes unread (a frame, or all there is),
// options, and its length again. A section is a Section Header Block and what follows it up to the next:
// it has a byte order and interfaces of its own, and libpcap reads each as if it were a file of its own
// (Readings.md, "Sections").

extension CaptureWalker {
  /// The block that is being walked over.
  struct Block {
    static let sectionHeader: UInt32 = 0x0a0d_0d0a
    static let interfaceDescription: UInt32 = 1
    static let obsoletePacket: UInt32 = 2
    static let simplePacket: UInt32 = 3
    static let enhancedPacket: UInt32 = 6
    /// The longest that libpcap reads, 16 MiB.
    static let longest: UInt32 = 16 << 20

    var type: UInt32 = 0
    var byteCount: UInt32 = 0
    /// How many bytes of options are not yet walked over.
    var optionsLeft = 0
  }

  /// The section that is being walked over.
  struct Section {
    /// Set when the next block begins another section; `begin` lets the walk go on.
    var hasEnded = false
    var hasBegun = false
    var interfaces: [Interface] = []

    /// Lets the walk go on into the next section.
    mutating func begin() { self = Section() }
  }

  struct Interface {
    /// `.max` is "none".
    var snapshotLength: UInt32
    /// Whether its unit of time is so fine that libpcap refuses it. Readings.md, "Unit of time".
    var countsTooFinely = false
  }

  mutating func blockHeader(_ bytes: inout MutableRawSpan, _ position: Int) -> Int {
    guard has(8, .blockHeader, bytes, position) else { return 0 }
    let type = load32(bytes, position)
    if type == Block.sectionHeader { return sectionHeader(bytes, position) }
    guard let fixed = beginBlock(type, bytes, position) else { return 0 }
    block.optionsLeft = Int(block.byteCount) - 12 - fixed
    switch type {
    case Block.interfaceDescription: interface(&bytes, position)
    case Block.enhancedPacket: packet(&bytes, position, interface: load32(bytes, position + 8))
    case Block.obsoletePacket: packet(&bytes, position, interface: UInt32(load16(bytes, position + 8)))
    case Block.simplePacket: simplePacket(&bytes, position)
    default:
      place = .trailer
      skip(block.optionsLeft, .block)
    }
    return defect == nil ? 8 + fixed : 0
  }

  /// Takes a block's type and length, and returns how long its fixed part is; nil until that is here, or if the
  /// length is bad.
  private mutating func beginBlock(
    _ type: UInt32, _ bytes: borrowing MutableRawSpan, _ position: Int
  ) -> Int? {
    let fixed =
      switch type {
      case Block.sectionHeader: 16
      case Block.interfaceDescription: 8
      case Block.enhancedPacket, Block.obsoletePacket: 20
      case Block.simplePacket: 4
      default: 0
      }
    block = Block(type: type, byteCount: load32(bytes, position + 4))
    guard block.byteCount >= 12 + fixed, block.byteCount % 4 == 0, block.byteCount <= Block.longest else {
      fail(.badBlockLength(block.byteCount, type: type))
      return nil
    }
    return has(8 + fixed, .block, bytes, position) ? fixed : nil
  }

  /// Section Header Block, 4.1. Its length can be read only when its byte order is known.
  private mutating func sectionHeader(_ bytes: borrowing MutableRawSpan, _ position: Int) -> Int {
    if section.hasBegun {
      section.hasEnded = true
      return 0
    }
    guard has(12, .blockHeader, bytes, position) else { return 0 }
    let magic = bytes.load(position + 8, as: UInt32.self)
    guard magic == 0x1a2b_3c4d || magic.byteSwapped == 0x1a2b_3c4d else {
      fail(.badByteOrderMagic(magic), after: 8)
      return 0
    }
    isSwapped = magic != 0x1a2b_3c4d
    guard let fixed = beginBlock(Block.sectionHeader, bytes, position) else { return 0 }
    let major = load16(bytes, position + 12)
    let minor = load16(bytes, position + 14)
    guard major == 1, minor == 0 || minor == 2 else {
      fail(.unsupportedVersion(.pcapng, major: major, minor: minor), after: 12)
      return 0
    }
    if format == nil { format = CaptureFormat(container: .pcapng, byteOrder: byteOrder, resolution: nil) }
    section.hasBegun = true
    block.optionsLeft = Int(block.byteCount) - 12 - fixed
    place = .options
    return 8 + fixed
  }

  /// Interface Description Block, 4.2.
  private mutating func interface(_ bytes: inout MutableRawSpan, _ position: Int) {
    let linkType = UInt32(load16(bytes, position + 8))
    guard linkType == 1 else {
      return fail(.notEthernet(linkType: linkType, name: linkTypeName(linkType)), after: 8)
    }
    // A Simple Packet Block's captured length follows from interface 0's snapshot length: see there.
    section.interfaces.append(Interface(snapshotLength: liftSnapshotLength(&bytes, position + 12)))
    place = .options
  }

  /// Enhanced Packet Block, 4.3, and Packet Block, A.1: the same but for the interface.
  private mutating func packet(_ bytes: inout MutableRawSpan, _ position: Int, interface number: UInt32) {
    let captured = load32(bytes, position + 20)
    guard number < section.interfaces.count else {
      return fail(.undeclaredInterface(number, declared: section.interfaces.count), after: 8)
    }
    guard begin(captured: captured) else { return }
    let interface = section.interfaces[Int(number)]
    note(
      captured: captured, original: load32(bytes, position + 24), snapshotLength: interface.snapshotLength)
    if interface.countsTooFinely {
      warnings[.timestampUnitTooFine] += 1
      bytes.store(UInt64(0), position + 12)
    }
    let padded = (Int(captured) + 3) & ~3
    block.optionsLeft -= padded
    place = .options
    skip(padded, .frame)
  }

  /// Simple Packet Block, 4.4. It has an original length only; we know what was captured,
  /// and libpcap, which no longer does, is told that as the original length. Readings.md, "Snapshot length".
  private mutating func simplePacket(_ bytes: inout MutableRawSpan, _ position: Int) {
    guard let interface = section.interfaces.first else {
      return fail(.undeclaredInterface(0, declared: 0))
    }
    let original = load32(bytes, position + 8)
    let captured = min(original, interface.snapshotLength)
    guard begin(captured: captured) else { return }
    if captured < original {
      hiddenOriginals.append(original, packet: packetCount)
      bytes.store(isSwapped ? captured.byteSwapped : captured, position + 8)
    }
    note(captured: captured, original: original, snapshotLength: interface.snapshotLength)
    place = .trailer
    skip(block.optionsLeft, .frame)
  }

  /// Checks that a packet's bytes are inside its block.
  private mutating func begin(captured: UInt32) -> Bool {
    let distance = block.type == Block.simplePacket ? 8 : 20
    if captured > block.optionsLeft {
      fail(.capturedLengthPastBlock(captured: captured, available: block.optionsLeft), after: distance)
    } else if captured > CaptureReader.largestFrame {
      fail(.frameTooLong(captured: captured), after: distance)
    }
    return defect == nil
  }

  /// One option, 3.5. What is behind the end of options passes unread.
  mutating func option(_ bytes: inout MutableRawSpan, _ position: Int) -> Int {
    if block.optionsLeft == 0 {
      place = .trailer
      return trailer(bytes, position)
    }
    guard has(4, .block, bytes, position) else { return 0 }
    let code = load16(bytes, position)
    let length = Int(load16(bytes, position + 2))
    let padded = (length + 3) & ~3
    if code == 0 {
      skip(block.optionsLeft - 4, .block)
      block.optionsLeft = 0
      return 4
    }
    guard padded <= block.optionsLeft - 4 else {
      fail(.optionPastBlock(code: code, length: length, available: block.optionsLeft - 4))
      return 0
    }
    if block.type == Block.interfaceDescription, code == 9, length == 1 {
      guard has(5, .block, bytes, position) else { return 0 }
      unitOfTime(&bytes, position + 4)
    }
    block.optionsLeft -= 4 + padded
    skip(padded, .block)
    return 4
  }

  /// if_tsresol, 4.2: a negative power of 10, or of 2. 2⁶⁴ units of 10⁻²⁰ s are a fifth of a second, so such times
  /// are 0.
  private mutating func unitOfTime(_ bytes: inout MutableRawSpan, _ position: Int) {
    let value = bytes.load(position, as: UInt8.self)
    guard value & 0x7f > (value & 0x80 == 0 ? 19 : 63) else { return }
    section.interfaces[section.interfaces.count - 1].countsTooFinely = true
    bytes.store(UInt8(9), position)
  }

  mutating func trailer(_ bytes: borrowing MutableRawSpan, _ position: Int) -> Int {
    guard has(4, .block, bytes, position) else { return 0 }
    let last = load32(bytes, position)
    guard last == block.byteCount else {
      fail(.blockLengthsDisagree(first: block.byteCount, last: last))
      return 0
    }
    place = .block
    return 4
  }
}
