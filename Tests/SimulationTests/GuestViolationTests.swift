import GuestMemory
import Simulation
import Testing
import Virtio

/// A device that breaks one rule; the guest has to find that, and nothing else.
@Suite struct GuestViolationTests {
  func expect(_ violation: Violation, times: Int = 1, _ guest: SimulatedGuest, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(guest.violations.count(of: violation) == times, "\(guest.violations)", sourceLocation: sourceLocation)
    #expect(guest.violations.total == times, "\(guest.violations)", sourceLocation: sourceLocation)
    #expect(guest.violations.first.count == min(times, 16), sourceLocation: sourceLocation)
    #expect(guest.counters().violations == UInt64(times), sourceLocation: sourceLocation)
  }

  /// One frame in one buffer, with any header.
  func send(_ device: TestDevice, header: [UInt8], byteCount: Int = 60, used: Int? = nil) throws {
    let buffer = try #require(device.take())
    device.write((header + testFrame(1, byteCount: byteCount))[...], to: buffer)
    device.use(UInt32(buffer.head), byteCount: used ?? 12 + byteCount)
    device.publish()
  }

  /// With canaries and without them, since those are two ways through the driver.
  static let ways = [true, false]

  @Test(arguments: ways) func `a used index that ran ahead stops the queue`(checks: Bool) throws {
    let (guest, device) = try startGuest { $0.checksCanaries = checks }
    device.setUsedIndex(257)
    #expect(guest.step(queue: 0) == 0)
    #expect(guest.step(queue: 0) == 0)
    expect(.usedIndexRanAhead, guest)
    device.setUsedIndex(0)
    #expect(device.deliver(testFrame(1, byteCount: 60)))
    device.publish()
    #expect(guest.step(queue: 0) == 0)
  }

  @Test func `a used index may reach the available one, and no further`() throws {
    let (guest, device) = try startGuest { $0.ringSize = 32768 ; $0.shape = .small }
    while device.deliver(testFrame(1, byteCount: 60)) {}
    device.publish()
    #expect(device.usedIndex == 32768)
    #expect(guest.step(queue: 0) == 64)
    #expect(guest.violations.isEmpty)
  }

  @Test(arguments: ways, [UInt32(256), 65535, 0x10000, .max]) func `an identifier that the ring does not have is found`(
    checks: Bool, id: UInt32
  ) throws {
    let (guest, device) = try startGuest { $0.checksCanaries = checks }
    device.use(id, byteCount: 72)
    device.publish()
    #expect(guest.step(queue: 0) == 1)
    expect(.identifierOutOfRange, guest)
    #expect(guest.counters().brokenFrames == 1 && guest.counters().frames == 0)
  }

  @Test(arguments: ways) func `a buffer returned twice is found`(checks: Bool) throws {
    let (guest, device) = try startGuest {
      $0.checksCanaries = checks
      $0.spareBuffers = 0
    }
    let buffer = try #require(device.take())
    device.write((TestDevice.header() + testFrame(1, byteCount: 60))[...], to: buffer)
    device.use(UInt32(buffer.head), byteCount: 72)
    device.use(UInt32(buffer.head), byteCount: 72)
    device.publish()
    #expect(guest.step(queue: 0) == 2)
    expect(.identifierNotOutstanding, guest)
    #expect(guest.counters().frames == 1 && guest.counters().buffersTaken == 1)
  }

  @Test(arguments: ways) func `two buffers returned in exchanged order are found, and the rest is in order`(checks: Bool) throws {
    let (guest, device) = try startGuest { $0.checksCanaries = checks }
    let buffers = [try #require(device.take()), try #require(device.take()), try #require(device.take())]
    for index in [1, 0, 2] {
      device.write((TestDevice.header() + testFrame(index, byteCount: 60))[...], to: buffers[index])
      device.use(UInt32(buffers[index].head), byteCount: 72)
    }
    device.publish()
    #expect(guest.step(queue: 0) == 3)
    expect(.outOfOrder, guest)
    #expect(guest.counters().frames == 3)
  }

  @Test(arguments: ways) func `a buffer kept back is found with every later one, until its place in the ring is needed`(checks: Bool) throws {
    let (guest, device) = try startGuest {
      $0.checksCanaries = checks
      $0.ringSize = 8
    }
    func sendOne(_ number: Int) throws {
      try #require(device.deliver(testFrame(number, byteCount: 60)))
      device.publish()
      #expect(guest.step(queue: 0) == 1)
    }
    let kept = try #require(device.take())
    for number in 0..<5 { try sendOne(number) }
    expect(.outOfOrder, times: 5, guest)
    // Five buffers are free, and posted again: the first of them in the place of the one kept back.
    for number in 0..<5 { try sendOne(number) }
    expect(.outOfOrder, times: 5, guest)
    device.write((TestDevice.header() + testFrame(9, byteCount: 60))[...], to: kept)
    device.use(UInt32(kept.head), byteCount: 72)
    device.publish()
    #expect(guest.step(queue: 0) == 1)
    expect(.outOfOrder, times: 6, guest)
    #expect(guest.counters().frames == 11)
    #expect(guest.verifyUntouched())
  }

  @Test(arguments: ways) func `a length past the buffer is found`(checks: Bool) throws {
    let (guest, device) = try startGuest {
      $0.checksCanaries = checks
      $0.shape = .small
    }
    try send(device, header: TestDevice.header(), used: 257)
    #expect(guest.step(queue: 0) == 1)
    expect(.lengthPastBuffer, guest)
    #expect(guest.counters().brokenFrames == 1)
  }

  @Test(arguments: ways) func `a full buffer is no violation`(checks: Bool) throws {
    let (guest, device) = try startGuest {
      $0.checksCanaries = checks
      $0.shape = .small
    }
    try send(device, header: TestDevice.header(), byteCount: 244)
    #expect(guest.step(queue: 0) == 1)
    #expect(guest.violations.isEmpty && guest.counters().bytes == 244, "\(guest.violations)")
  }

  @Test(arguments: [0, 1, 11]) func `a length below the header's is found`(length: Int) throws {
    let (guest, device) = try startGuest { $0.checksCanaries = false }
    try send(device, header: TestDevice.header(), used: length)
    #expect(guest.step(queue: 0) == 1)
    expect(.lengthBelowHeader, guest)
  }

  @Test(arguments: ways) func `a frame of no buffers is found`(checks: Bool) throws {
    let (guest, device) = try startGuest { $0.checksCanaries = checks }
    try send(device, header: TestDevice.header(buffers: 0))
    #expect(guest.step(queue: 0) == 1)
    expect(.noBuffers, guest)
  }

  @Test(arguments: [2, 65535]) func `merging without the feature is found`(count: Int) throws {
    let (guest, device) = try startGuest(offered: [.version1, .eventIndex])
    try send(device, header: TestDevice.header(buffers: count))
    #expect(guest.step(queue: 0) == 1)
    expect(.mergedWithoutFeature, guest)
  }

  @Test func `a frame whose buffers do not become visible together is found`() throws {
    let (guest, device) = try startGuest { $0.shape = .small }
    let buffer = try #require(device.take())
    device.write((TestDevice.header(buffers: 2) + testFrame(1, byteCount: 244))[...], to: buffer)
    device.use(UInt32(buffer.head), byteCount: 256)
    device.publish()
    #expect(guest.step(queue: 0) == 1)
    expect(.buffersMissing, guest)
    #expect(guest.counters().brokenFrames == 1)
  }

  @Test func `a buffer that is not full before the last is found`() throws {
    let (guest, device) = try startGuest { $0.shape = .small }
    let (first, second) = (try #require(device.take()), try #require(device.take()))
    device.write((TestDevice.header(buffers: 2) + testFrame(1, byteCount: 243))[...], to: first)
    device.write(testFrame(2, byteCount: 10)[...], to: second)
    device.use(UInt32(first.head), byteCount: 255)
    device.use(UInt32(second.head), byteCount: 10)
    device.publish()
    #expect(guest.step(queue: 0) == 1)
    expect(.bufferNotFull, guest)
    #expect(guest.counters().brokenFrames == 1 && guest.counters().buffersTaken == 2)
  }

  @Test func `a frame longer than any network carries is found`() throws {
    let (guest, device) = try startGuest { $0.shape = .page }
    #expect(device.deliver(testFrame(1, byteCount: 128 << 10)))
    #expect(device.deliver(testFrame(1, byteCount: (128 << 10) + 1)))
    device.publish()
    #expect(guest.step(queue: 0) == 2)
    expect(.frameTooLong, guest)
    #expect(guest.counters().frames == 1)
  }

  @Test(arguments: ways, 1..<8) func `flags are found that no feature allows`(checks: Bool, bit: Int) throws {
    let (guest, device) = try startGuest { $0.checksCanaries = checks ; $0.features.insert(.guestChecksum) }
    try send(device, header: TestDevice.header(flags: 1 << UInt8(bit)))
    #expect(guest.step(queue: 0) == 1)
    if bit == 1 { #expect(guest.violations.isEmpty) } else { expect(.badFlags, guest) }
  }

  @Test(arguments: ways) func `a vouched checksum that the driver did not ask for is found`(checks: Bool) throws {
    let (guest, device) = try startGuest { $0.checksCanaries = checks }
    try send(device, header: TestDevice.header(flags: 2))
    #expect(guest.step(queue: 0) == 1)
    expect(.badFlags, guest)
    #expect(guest.counters().frames == 1)
  }

  /// Every bit of the header but those of flags and num_buffers.
  @Test(arguments: ways, 1..<10) func `a stray bit in a field that has to be zero is found`(checks: Bool, byte: Int) throws {
    let (guest, device) = try startGuest { $0.checksCanaries = checks }
    for bit in 0..<8 {
      var header = TestDevice.header()
      header[byte] = 1 << UInt8(bit)
      try send(device, header: header)
    }
    #expect(guest.step(queue: 0) == 8)
    expect(byte < 6 ? .badSegmentation : .badChecksumFields, times: 8, guest)
  }

  @Test(arguments: [BufferShape.linux, .awkward, .headerApart])
  func `header bytes that were not written are found`(shape: BufferShape) throws {
    let (guest, device) = try startGuest { $0.shape = shape }
    let buffer = try #require(device.take())
    // flags and num_buffers are written, what lies between is not.
    device.write([0], to: buffer)
    device.write([1, 0], to: buffer, at: 10)
    device.write(testFrame(1, byteCount: 60)[...], to: buffer, at: 12)
    device.use(UInt32(buffer.head), byteCount: 72)
    device.publish()
    #expect(guest.step(queue: 0) == 1)
    #expect(guest.violations.count(of: .badSegmentation) == 1)
    #expect(guest.violations.count(of: .badChecksumFields) == 1)
    #expect(guest.violations.total == 2)
  }

  @Test(arguments: [BufferShape.linux, .awkward, .headerApart, .indirect], [0, 1, 7, 300])
  func `a byte written past the length is found`(shape: BufferShape, distance: Int) throws {
    let (guest, device) = try startGuest { $0.shape = shape }
    let buffer = try #require(device.take())
    device.write((TestDevice.header() + testFrame(1, byteCount: 60))[...], to: buffer)
    let address = device.address(of: 72 + distance, in: buffer)
    device.store8(device.load8(address) ^ 1, address)
    device.use(UInt32(buffer.head), byteCount: 72)
    device.publish()
    #expect(guest.step(queue: 0) == 1)
    expect(.writtenPastLength, guest)
  }

  @Test(arguments: BufferShape.allCases)
  func `a written byte is found at the end of a buffer and of each of its pieces`(shape: BufferShape) throws {
    let (guest, device) = try startGuest { $0.shape = shape }
    let pieces = try #require(device.take()).parts.count
    device.lastAvailable = 0
    for piece in 0..<pieces {
      let buffer = try #require(device.take())
      // One byte of frame, or as many as it takes to reach the piece's start.
      let end = buffer.parts[...piece].reduce(0) { $0 + Int($1.count) }
      let length = max(13, end - Int(buffer.parts[piece].count))
      guard end > length else {
        device.lastAvailable &-= 1
        continue
      }
      device.write((TestDevice.header() + testFrame(1, byteCount: length - 12))[...], to: buffer)
      let address = device.address(of: end - 1, in: buffer)
      device.store8(device.load8(address) ^ 0x80, address)
      device.use(UInt32(buffer.head), byteCount: length)
      device.publish()
      let before = guest.violations.count(of: .writtenPastLength)
      #expect(guest.step(queue: 0) == 1)
      #expect(guest.violations.count(of: .writtenPastLength) == before + 1, "piece \(piece)")
    }
    #expect(guest.violations.total == guest.violations.count(of: .writtenPastLength), "\(guest.violations)")
  }

  @Test func `a buffer written after it was returned is found`() throws {
    let (guest, device) = try startGuest {
      $0.ringSize = 4
      $0.spareBuffers = 4
      $0.refillThreshold = 0
    }
    let buffer = try #require(device.take())
    device.write((TestDevice.header() + testFrame(1, byteCount: 60))[...], to: buffer)
    device.use(UInt32(buffer.head), byteCount: 72)
    device.publish()
    #expect(guest.step(queue: 0) == 1)
    device.store8(0, device.address(of: 500, in: buffer))
    for number in 0..<8 {
      #expect(device.deliver(testFrame(number, byteCount: 60)))
      device.publish()
      #expect(guest.step(queue: 0) == 1)
    }
    expect(.writtenAfterReturn, guest)
  }

  @Test(arguments: BufferShape.allCases)
  func `a byte changed next to a buffer, a ring or a region's ends is found`(shape: BufferShape) throws {
    let (guest, device) = try startGuest { $0.shape = shape }
    #expect(guest.verifyUntouched())
    var parts: [GuestRange] = []
    while let buffer = device.take() { parts += buffer.parts }
    let ring = device.layout
    let usedEnd = ring.usedRing.rawValue + UInt64(SplitRingLayout.usedRingBytes(ring.size))
    let held = { (address: UInt64) in
      parts.contains { address >= $0.start.rawValue && address < $0.start.rawValue + UInt64($0.count) }
    }
    // The first buffer of each region has nothing before it; a buffer with a gap behind it, if the shape has such.
    let starts = parts.map(\.start.rawValue)
    let low = try #require(starts.filter { $0 < 4 << 30 }.min())
    let high = try #require(starts.filter { $0 >= 4 << 30 }.min())
    var places = [0, 4095, usedEnd, low - 1, high - 1, UInt64(4) << 30]
    if shape == .indirect { places[2] = low - 2 }
    if let gap = parts.map({ $0.start.rawValue + UInt64($0.count) }).first(where: { end in
      !held(end) && device.map.regions.contains { end < $0.guestStart.rawValue + UInt64($0.byteCount) && end >= $0.guestStart.rawValue }
    }) { places.append(gap) }
    for place in places {
      let address = GuestAddress(place)
      device.store8(device.load8(address) ^ 0x10, address)
      #expect(!guest.verifyUntouched(), "\(address)")
      device.store8(device.load8(address) ^ 0x10, address)
      #expect(guest.verifyUntouched(), "\(address)")
    }
    expect(.foreignWrite, times: places.count, guest)
  }

  @Test(arguments: [BufferShape.linux, .awkward, .indirect])
  func `a device that writes into the driver's half of the ring is found`(shape: BufferShape) throws {
    let (guest, device) = try startGuest { $0.shape = shape }
    var places = [device.layout.descriptorTable.rawValue + 12, device.layout.availableRing.rawValue + 2, device.layout.availableRing.rawValue + 4]
    if shape == .indirect { places.append(device.load64(device.layout.descriptorTable)) }
    for place in places.map({ GuestAddress($0) }) {
      device.store8(device.load8(place) ^ 1, place)
      #expect(!guest.verifyUntouched())
      device.store8(device.load8(place) ^ 1, place)
    }
    expect(.ringOverwritten, times: places.count, guest)
  }

  @Test func `only the first few violations are put in words, all are counted`() throws {
    let (guest, device) = try startGuest()
    for _ in 0..<40 { try send(device, header: TestDevice.header(flags: 1)) }
    #expect(guest.step(queue: 0) == 40)
    expect(.badFlags, times: 40, guest)
    #expect(guest.violations.first[0] == "queue 0: badFlags: flags 1")
  }
}
