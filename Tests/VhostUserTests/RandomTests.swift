import FlowSteering
import Glibc
import GuestMemory
import Support
import Testing
import VhostUser
import Virtio

/// Messages at random: mostly such as a front-end sends, some of them bent. Whatever comes, no crash, nothing that the device may
/// not be asked, rings only in memory that is there, and nothing held when the front-end is gone.
@Suite struct RandomTests {
  /// Values that lie next to something.
  private static let edges: [UInt64] = [
    0, 1, 2, 3, 4, 5, 63, 64, 255, 256, 257, 4095, 4096, 32767, 32768, 32769, 65535, 65536, 1 << 20, 1 << 26, 1 << 30, 1 << 31, 1 << 32,
    1 << 34, 1 << 40, 1 << 62, 1 << 63, .max, .max - 1, .max - 4095,
  ]

  private func value(_ random: inout SeededGenerator, _ usual: [UInt64]) -> UInt64 {
    switch random.int(0...9) {
    case 0: random.pick(Self.edges)
    case 1: random.next()
    default: random.pick(usual)
    }
  }

  private func region(_ guest: TestGuest, _ random: inout SeededGenerator) -> Region {
    var region = random.once(in: 3) ? Region(guest: 0x2_0000_0000, size: 1 << 19, user: 0x7F20_0000_0000) : random.pick(guest.regions)
    switch random.int(0...11) {
    case 0: region.guest = value(&random, guest.regions.map(\.guest))
    case 1: region.size = value(&random, [4096, 1 << 19])
    case 2: region.user = value(&random, guest.regions.map(\.user))
    case 3: region.offset = value(&random, [0, 4096, 8192])
    default: break
    }
    return region
  }

  private func message(_ guest: TestGuest, _ random: inout SeededGenerator) -> (id: UInt32, payload: [UInt8], files: [CInt]) {
    let ring = UInt32(truncatingIfNeeded: value(&random, [0, 0, 1, 1, 2, 3]))
    let events = guest.kicks + guest.calls + guest.errors
    let file = random.pick(guest.files + [guest.high, random.pick(events)])
    switch random.int(0...28) {
    case 0, 1:
      let usual = version1Bit | protocolBit
      return (ID.setFeatures, u64(value(&random, [usual, usual, usual | packedBit, usual | logBit, version1Bit, offered.rawValue])), [])
    case 2: return (ID.setProtocol, u64(value(&random, [allProtocolBits, allProtocolBits, 0x9, 0x8000])), [])
    case 3:
      let regions = (0..<random.int(0...3)).map { _ in region(guest, &random) }
      return (ID.setMemTable, Region.table(regions), regions.map { _ in random.pick(guest.files) })
    case 4, 5: return (ID.setMemTable, Region.table(guest.regions), guest.files)
    case 6: return (ID.addRegion, region(guest, &random).single, [file])
    case 7: return (ID.removeRegion, region(guest, &random).single, random.once(in: 5) ? [file] : [])
    case 8, 9: return (ID.setNum, state(ring, UInt32(truncatingIfNeeded: value(&random, [256, 256, 128]))), [])
    case 10, 11:
      var payload = guest.address(ring % 4, flags: random.once(in: 4) ? 1 : 0, log: value(&random, [0x1_0000_0000, 0x1_0000_2000]))
      if random.once(in: 4) { payload[random.int(0...39)] = UInt8(random.int(0...255)) }
      return (ID.setAddr, payload, [])
    case 12, 13: return (ID.setBase, state(ring, UInt32(truncatingIfNeeded: value(&random, [0, 0x8000, 0x8000_8000, 77]))), [])
    case 14: return (ID.getBase, state(ring, 0), [])
    case 15, 16, 17:
      let hasFile = !random.once(in: 8)
      let index = UInt64(ring & 0xFF) | (hasFile ? 0 : 0x100)
      return (random.pick([ID.setKick, ID.setKick, ID.setCall, ID.setErr]), u64(index), hasFile ? [random.once(in: 10) ? file : random.pick(events)] : [])
    case 18, 19: return (ID.enable, state(ring, random.once(in: 9) ? 2 : UInt32(random.int(0...1))), [])
    case 20: return (ID.setLogBase, Bytes().u64(value(&random, [131_104, 200_000])).u64(value(&random, [0, 0, 4096, 1])).all, [guest.low])
    case 21: return (ID.setMTU, u64(value(&random, [1500])), [])
    case 22: return (random.pick([ID.setOwner, ID.resetOwner, ID.resetDevice]), [], [])
    case 23: return (random.pick([1, 15, 17, 36]), [], [])
    case 24:
      let size = UInt32(random.int(0...20))
      return (random.pick([24, 25]), Bytes().u32(UInt32(truncatingIfNeeded: value(&random, [0, 6]))).u32(size).u32(0).with(random.bytes(Int(size))).all, [])
    case 25: return (ID.sendRarp, u64(random.next()), [])
    case 26:
      let place = InflightPlace(
        size: value(&random, [16384]), offset: value(&random, [0, 0, 4096]), rings: UInt32(value(&random, [4]) & 0xFFFF),
        entries: UInt32(value(&random, [256]) & 0xFFFF))
      let payload = random.once(in: 2) ? place.bytes : place.padded
      return random.once(in: 2) ? (ID.getInflight, payload, []) : (ID.setInflight, payload, [file])
    default:
      if !random.once(in: 10) { return (ID.getFeatures, [], []) }
      return (UInt32(random.int(0...46)), random.bytes(random.pick([0, 0, 8, 8, 16, 40, 264])), random.once(in: 3) ? [file] : [])
    }
  }

  private func step(_ frontend: Frontend, _ guest: TestGuest, _ random: inout SeededGenerator) {
    var (id, payload, files) = message(guest, &random)
    switch random.int(0...999) {
    case 0: payload.append(0)
    case 1: files.append(random.pick(guest.files))
    case 2: payload = Array(payload.dropLast())
    case 3: id = UInt32(truncatingIfNeeded: random.next())
    default: break
    }
    var bytes = Frontend.message(id, flags: random.once(in: 1000) ? UInt32(random.int(0...31)) : random.once(in: 60) ? 1 : 9, payload)
    if random.once(in: 10) {
      // Several at a time, and a piece of another.
      for _ in 0..<random.int(1...3) { bytes += Frontend.message(random.pick([ID.getFeatures, ID.setOwner, ID.getProtocol])) }
    }
    if random.once(in: 40) {
      let place = random.int(1...bytes.count - 1)
      frontend.raw(Array(bytes[..<place]), files)
      frontend.turn()
      frontend.raw(Array(bytes[place...]))
    } else {
      frontend.raw(bytes, files)
    }
    frontend.turn()
    while frontend.receive() != nil {}
  }

  /// What must be so at any moment.
  private func examine(_ frontend: Frontend) throws {
    let device = frontend.device
    try check(device.violations.isEmpty, "the device was asked: \(device.violations)")
    guard frontend.isConnected else {
      try check(device.running.isEmpty && device.map == nil && device.log == nil, "all is given back at the end")
      return
    }
    for (n, ring) in device.running {
      let features = try #require(frontend.backend.features)
      try check(ring.features.rawValue == features.rawValue & ~(logBit | protocolBit), "ring \(n)'s features")
      try check(ring.features.contains(.version1), "ring \(n) is no legacy driver's")
      let isPacked = ring.features.rawValue & packedBit != 0
      let size = UInt64(ring.layout.size)
      try check((1...32768).contains(size) && (isPacked || size & (size - 1) == 0), "ring \(n)'s size \(size)")
      let parts: [(GuestAddress, UInt64, UInt64)] = [
        (ring.layout.descriptorArea, 16 * size, 16), (ring.layout.driverArea, isPacked ? 4 : 6 + 2 * size, isPacked ? 4 : 2),
        (ring.layout.deviceArea, isPacked ? 4 : 6 + 8 * size, 4),
      ]
      for (start, count, alignment) in parts {
        let inside = device.map?.regions.contains {
          start >= $0.guestStart && start.rawValue - $0.guestStart.rawValue <= UInt64($0.byteCount)
            && count <= UInt64($0.byteCount) - (start.rawValue - $0.guestStart.rawValue)
        }
        try check(inside == true, "ring \(n)'s \(start) + \(count) is memory")
        try check(start.rawValue % alignment == 0, "ring \(n)'s \(start) is aligned")
      }
      if isPacked { try check(UInt64(ring.base.available) < size && UInt64(ring.base.used) < size, "ring \(n)'s base") }
    }
    try check(device.log == nil || frontend.backend.features?.rawValue ?? 0 & logBit != 0, "a log only with its feature")
  }

  /// SEEDS=100 makes it 10^5 sequences.
  @Test func `sequences of messages at random break nothing and leave nothing`() throws {
    let guest = try TestGuest()
    var (sequences, messages, starts, ends) = (0, 0, 0, 0)
    try withSeeds(1000) { random in
      let frontend = try Frontend(Matrix.offer)
      if !random.once(in: 4) { frontend.run(guest, rings: random.int(1...4), features: random.once(in: 2) ? version1Bit : version1Bit | packedBit) }
      while frontend.receive() != nil {}
      for _ in 0..<random.int(1...100) {
        step(frontend, guest, &random)
        try examine(frontend)
        messages += 1
        if !frontend.isConnected { break }
        if random.once(in: 50) { frontend.backend.fault(ring: random.int(0...5), RingRefusal("at random")) }
        if random.once(in: 50) { frontend.device.refusesStart.toggle() }
        if random.once(in: 50) { frontend.device.refusesMemory.toggle() }
      }
      starts += frontend.device.calls.count { if case .start = $0 { true } else { false } }
      sequences += 1
      ends += frontend.isConnected ? 0 : 1
      if random.once(in: 2) { frontend.close() } else { frontend.disconnect() }
      frontend.turn()
      try check(!frontend.isConnected, "the end")
      try examine(frontend)
    }
    // All of it would pass if nothing ever ran, or nothing ever went on.
    print("\(sequences) sequences, \(messages) messages, \(starts) starts of rings, \(ends) ended by the back-end")
    #expect(starts > messages / 50 && ends < sequences)
    for descriptor in guest.descriptors { #expect(holders(of: descriptor) == 1) }
    #expect(mappedBytes(of: guest.low) == 0 && mappedBytes(of: guest.high) == 0)
  }

  @Test func `bytes at random with descriptors at random are refused and closed`() throws {
    let guest = try TestGuest()
    try withSeeds(1000) { random in
      let frontend = try Frontend(Matrix.offer)
      for _ in 0..<10 where frontend.isConnected {
        var bytes = random.bytes(random.int(1...200))
        if random.once(in: 2) { bytes = Bytes().u32(UInt32(random.int(0...46))).u32(random.once(in: 2) ? 1 : 9).all + bytes }
        frontend.raw(bytes, (0..<random.int(0...20)).map { _ in random.pick(guest.descriptors) })
        frontend.turn()
        try examine(frontend)
        frontend.now += UInt64(random.int(0...800_000_000))
        frontend.expire(now: frontend.now)
      }
    }
    for descriptor in guest.descriptors { #expect(holders(of: descriptor) == 1) }
  }
}
