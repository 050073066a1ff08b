// Walks over the headers of a capture in front of libpcap, which reads the same bytes right after.
//
// It says exactly where and how a file is broken (libpcap has one line of text for it, and lets some things pass),
// stops the stream there, and adjusts the few fields that libpcap is stricter about than the formats are
// (Readings.md). It looks at headers only, each in one piece; frames pass by unread. The blocks of pcapng are in
// CaptureWalker+Blocks.

/// Where in a capture's structure the next byte is, and what was odd so far.
struct CaptureWalker {
  /// What the next bytes are.
  enum Place { case start, record, block, options, trailer }

  var place = Place.start
  /// The offset in the file of the next byte to walk over.
  private(set) var offset: Int64 = 0
  /// The first defect; nothing passes after it.
  private(set) var defect: (offset: Int64, CaptureDefect)?
  var format: CaptureFormat?
  var warnings = CaptureWarnings()
  var isSwapped = false

  /// Bytes that pass unread before `place`, out of how many.
  private var unread = (left: 0, of: 0, part: CaptureDefect.Part.frame)
  /// How many bytes `place` asked for, in one piece, when it last had too few.
  private var wanted = (byteCount: 0, part: CaptureDefect.Part.fileHeader)

  // pcap
  private var recordHeaderByteCount = 16
  private var snapshotLength: UInt32 = .max
  private var fractionLimit: UInt32 = 1_000_000

  // pcapng
  var block = Block()
  var section = Section()
  /// Packets walked over, of all sections.
  var packetCount: UInt64 = 0
  /// Packets whose original length libpcap cannot be told, oldest first.
  var hiddenOriginals = HiddenOriginals()

  /// A queue that is empty again before the next bytes are read, so it is no longer than what is read at a time has
  /// packets.
  struct HiddenOriginals {
    private var entries: [(packet: UInt64, byteCount: UInt32)] = []
    private var taken = 0

    mutating func append(_ byteCount: UInt32, packet: UInt64) { entries.append((packet, byteCount)) }

    /// Takes out the length of this packet, if it has one here.
    mutating func take(packet: UInt64) -> UInt32? {
      guard taken < entries.count, entries[taken].packet == packet else { return nil }
      defer { taken += 1 }
      let byteCount = entries[taken].byteCount
      if taken == entries.count - 1 {
        entries.removeAll(keepingCapacity: true)
        taken = -1
      }
      return byteCount
    }
  }

  /// Walks over `bytes`, adjusting them, and returns how many of them may pass on to libpcap.
  ///
  /// The rest is the beginning of a header, or lies behind a defect or a section's end:
  /// it is to be presented again, with more behind it.
  mutating func walk(_ bytes: inout MutableRawSpan) -> Int {
    var position = 0
    while defect == nil, !section.hasEnded {
      let count = unread.left > 0 ? pass(bytes.byteCount - position) : step(&bytes, position)
      if count == 0 { break }
      position += count
      offset += Int64(count)
    }
    return position
  }

  /// Says that the file ends after `count` bytes that `walk` did not let pass.
  mutating func end(after count: Int) {
    guard defect == nil else { return }
    if unread.left > 0 {
      let found = unread.of - unread.left
      defect = (offset - Int64(found), .cutShort(unread.part, needed: unread.of, found: found))
    } else if place == .start, count == 0 {
      fail(.emptyFile)
    } else if place == .start, format == nil, count >= 4 {
      fail(.notACapture(lookingLike: nil))
    } else if count > 0 || place == .options || place == .trailer {
      fail(.cutShort(wanted.part, needed: wanted.byteCount, found: count))
    }
  }

  /// Whether the walk stands inside a record or a block, a part of which has passed; or at the very beginning.
  /// A stream that ends there makes libpcap fail; one that ends elsewhere just ends.
  var isInside: Bool { place != .record && place != .block || unread.left > 0 }

  /// Notes a defect, `distance` bytes on from the header that is being walked over.
  mutating func fail(_ defect: CaptureDefect, after distance: Int = 0) {
    self.defect = (offset + Int64(distance), defect)
  }

  /// Lets the next `count` bytes pass unread.
  mutating func skip(_ count: Int, _ part: CaptureDefect.Part) { unread = (count, count, part) }

  /// Whether there are `count` bytes at `position`; if not, the walk waits for them.
  mutating func has(
    _ count: Int, _ part: CaptureDefect.Part, _ bytes: borrowing MutableRawSpan, _ position: Int
  ) -> Bool {
    if bytes.byteCount - position >= count { return true }
    wanted = (count, part)
    return false
  }

  private mutating func pass(_ available: Int) -> Int {
    let count = min(unread.left, available)
    unread.left -= count
    return count
  }

  /// Walks over one header and returns its length; 0 is "not all here yet", or a defect.
  private mutating func step(_ bytes: inout MutableRawSpan, _ position: Int) -> Int {
    switch place {
    case .record: record(bytes, position)
    case .block: blockHeader(&bytes, position)
    case .options: option(&bytes, position)
    case .trailer: trailer(bytes, position)
    case .start: start(&bytes, position)
    }
  }
}

extension CaptureWalker {
  /// The beginning of the file. A file that is no capture is told from its first bytes, however few they are.
  private mutating func start(_ bytes: inout MutableRawSpan, _ position: Int) -> Int {
    guard has(4, .fileHeader, bytes, position) else { return 0 }
    let magic = bytes.load(position, as: UInt32.self)
    if magic == Block.sectionHeader {
      place = .block
      return blockHeader(&bytes, position)
    }
    for (known, isNanoseconds, headerByteCount) in Self.magics {
      for isForeign in [false, true] where magic == (isForeign ? known.byteSwapped : known) {
        isSwapped = isForeign
        recordHeaderByteCount = headerByteCount
        fractionLimit = isNanoseconds ? 1_000_000_000 : 1_000_000
        format = CaptureFormat(
          container: .pcap, byteOrder: byteOrder, resolution: isNanoseconds ? .nanoseconds : .microseconds)
        return fileHeader(&bytes, position)
      }
    }
    // ERF has no magic: its first record's header, 16 bytes, is what it is known by.
    guard has(16, .fileHeader, bytes, position) || bytes.lookalike(position) != nil else { return 0 }
    fail(.notACapture(lookingLike: bytes.lookalike(position)))
    return 0
  }

  /// Microseconds, nanoseconds, and microseconds with records of 24 bytes' header ("Kuznetzov's").
  private static var magics: [(magic: UInt32, isNanoseconds: Bool, recordHeaderByteCount: Int)] {
    [(0xa1b2_c3d4, false, 16), (0xa1b2_3c4d, true, 16), (0xa1b2_cd34, false, 24)]
  }

  var byteOrder: CaptureFormat.ByteOrder {
    (Int(littleEndian: 1) == 1) != isSwapped ? .littleEndian : .bigEndian
  }

  private mutating func fileHeader(_ bytes: inout MutableRawSpan, _ position: Int) -> Int {
    guard has(24, .fileHeader, bytes, position) else { return 0 }
    let major = load16(bytes, position + 4)
    let minor = load16(bytes, position + 6)
    guard major == 2, minor == 4 else {
      fail(.unsupportedVersion(.pcap, major: major, minor: minor), after: 4)
      return 0
    }
    // The upper bits are flags: whether, and how long, a frame check sequence is at the end of frames.
    let linkType = load32(bytes, position + 20) & 0x03ff_ffff
    guard linkType == 1 else {
      fail(.notEthernet(linkType: linkType, name: linkTypeName(linkType)), after: 20)
      return 0
    }
    snapshotLength = liftSnapshotLength(&bytes, position + 16)
    place = .record
    return 24
  }

  private mutating func record(_ bytes: borrowing MutableRawSpan, _ position: Int) -> Int {
    guard has(recordHeaderByteCount, .recordHeader, bytes, position) else { return 0 }
    let captured = load32(bytes, position + 8)
    guard captured <= UInt32(CaptureReader.largestFrame) else {
      fail(.frameTooLong(captured: captured))
      return 0
    }
    if load32(bytes, position + 4) >= fractionLimit { warnings[.timestampFractionOutOfRange] += 1 }
    note(captured: captured, original: load32(bytes, position + 12), snapshotLength: snapshotLength)
    skip(Int(captured), .frame)
    return recordHeaderByteCount
  }

  /// Counts what is odd about a packet's lengths.
  mutating func note(captured: UInt32, original: UInt32, snapshotLength: UInt32) {
    packetCount += 1
    if captured > original { warnings[.originalShorterThanCaptured] += 1 }
    if captured > snapshotLength { warnings[.capturedLongerThanSnapshot] += 1 }
  }

  /// Takes a snapshot length, 0 being "none", and puts the greatest in its place:
  /// libpcap would cut frames of pcap to it, and refuses a pcapng file that has two. Readings.md, "Snapshot length".
  mutating func liftSnapshotLength(_ bytes: inout MutableRawSpan, _ position: Int) -> UInt32 {
    let length = load32(bytes, position)
    let greatest = UInt32(CaptureReader.largestFrame)
    bytes.store(isSwapped ? greatest.byteSwapped : greatest, position)
    return length == 0 ? .max : length
  }

  func load16(_ bytes: borrowing MutableRawSpan, _ position: Int) -> UInt16 {
    let value = bytes.load(position, as: UInt16.self)
    return isSwapped ? value.byteSwapped : value
  }

  func load32(_ bytes: borrowing MutableRawSpan, _ position: Int) -> UInt32 {
    let value = bytes.load(position, as: UInt32.self)
    return isSwapped ? value.byteSwapped : value
  }
}

extension MutableRawSpan {
  /// An integer in the machine's byte order. Every bit pattern is one, and the span checks its bounds.
  func load<Integer: FixedWidthInteger & BitwiseCopyable>(_ position: Int, as type: Integer.Type) -> Integer {
    unsafe unsafeLoadUnaligned(fromByteOffset: position, as: type)
  }

  mutating func store<Integer: FixedWidthInteger & BitwiseCopyable>(_ value: Integer, _ position: Int) {
    storeBytes(of: value, toByteOffset: position, as: Integer.self)
  }
}
