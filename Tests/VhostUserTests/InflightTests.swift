import Glibc
import GuestMemory
import Linux
import Support
import Testing
import VhostUser
import Virtio

/// What the front-end keeps of rings for a back-end that follows, and when it is not to be believed any more.
@Suite struct InflightTests {
  private func negotiated(_ guest: TestGuest? = nil, _ limits: Limits = Limits()) throws -> Frontend {
    let frontend = try Frontend(limits: limits)
    if let guest { frontend.run(guest, features: packed) } else { frontend.negotiate() }
    return frontend
  }
  private let packed = version1Bit | packedBit

  /// What an answer of GET_INFLIGHT_FD says, and the file that came with it.
  private func ask(_ frontend: Frontend, _ things: Things, _ place: InflightPlace = InflightPlace()) throws -> (InflightPlace, CInt) {
    frontend.send(ID.getInflight, place.bytes)
    let (first, file) = try frontend.receiveFirstByte(things)
    try check(first == [UInt8(ID.getInflight)], "the answer's first byte")
    let rest = try #require(frontend.read(11 + 20))
    var answer = place
    answer.size = number(Array(rest[11..<19]))!
    answer.offset = number(Array(rest[19..<27]))!
    try check(Array(rest[11...]) == answer.bytes, "the answer's numbers")
    return (answer, try #require(file))
  }

  private func give(_ frontend: Frontend, _ place: InflightPlace, _ file: CInt) {
    #expect(frontend.acknowledged(ID.setInflight, place.bytes, [file]) == 0)
  }

  /// A region in a file that the front-end made, with room for it and a page more.
  private func file(_ things: Things, _ place: InflightPlace = InflightPlace()) throws -> (InflightPlace, CInt) {
    let count = try ask(negotiated(), things, place).0.size + 4096
    var place = place
    place.size = count
    return (place, try things.memory(Int(count)))
  }

  private func inflightEvents(_ frontend: Frontend) -> [Bool] {
    frontend.events.compactMap { if case .inflight(_, let wasForeign) = $0 { wasForeign } else { nil } }
  }

  // MARK: GET_INFLIGHT_FD

  @Test(arguments: [20, 24])
  func `GET_INFLIGHT_FD is answered as long as it is, with a file that comes with the first byte`(byteCount: Int) throws {
    let (frontend, things) = (try negotiated(), Things())
    let place = InflightPlace(rings: 3, entries: 300)
    // What is past the four numbers means nothing, nor do size and offset.
    var payload = place.bytes + [0xDE, 0xAD, 0xBE, 0xEF].prefix(byteCount - 20)
    payload.replaceSubrange(0..<16, with: [UInt8](repeating: 0xFF, count: 16))
    frontend.send(ID.getInflight, payload, flags: 9)
    let (first, file) = try frontend.receiveFirstByte(things)
    let region = try #require(file)
    let (rest, later) = try frontend.receiveBytes(100, things)
    #expect(later.isEmpty)
    let size = number(Array(rest[11..<19])) ?? 0
    var wanted = place
    wanted.size = size
    #expect(first + rest == Bytes().u32(31).u32(5).u32(UInt32(byteCount)).all + (byteCount == 20 ? wanted.bytes : wanted.padded))
    #expect(frontend.receive() == nil)
    var status = stat()
    #expect(fstat(region, &status) == 0 && UInt64(status.st_size) == size)
    // 64 bytes of head, and for each ring 64 and ten for each entry.
    #expect(size >= 64 + 3 * (64 + 3000) && size % 4096 == 0)
    #expect(name(of: region).hasPrefix("/memfd:"))
    #expect(inflightEvents(frontend) == [false])
    // We hold its pages, and no descriptor.
    #expect(holders(of: region) == 1 && mappedBytes(of: region) == Int(size))
    frontend.disconnect()
    #expect(holders(of: region) == 1 && mappedBytes(of: region) == 0)
  }

  private func name(of number: CInt) -> String {
    var text = [UInt8](repeating: 0, count: 256)
    let count = text.withUnsafeMutableBytes { readlink("/proc/self/fd/\(number)", $0.bindMemory(to: CChar.self).baseAddress!, 256) }
    return String(decoding: text.prefix(max(count, 0)), as: UTF8.self)
  }

  @Test(arguments: [ID.getInflight, ID.setInflight])
  func `a description has 20 bytes or 24, and nothing in between`(id: UInt32) throws {
    let things = Things()
    for wrong in [0, 8, 12, 16, 19, 21, 22, 23, 25, 28, 32, 4096] {
      let (frontend, memory) = (try negotiated(), try things.memory(1 << 20))
      let payload = InflightPlace(size: 1 << 20).padded + [UInt8](repeating: 0, count: 4096)
      frontend.send(id, Array(payload.prefix(wrong)), id == ID.setInflight ? [memory] : [], flags: 9)
      guard case .error(.wrongSize(_, UInt32(wrong), expected: 20)) = frontend.disconnection else {
        Issue.record("\(wrong) bytes: \(String(describing: frontend.disconnection))")
        continue
      }
      #expect(frontend.receive() == nil && holders(of: memory) == 1)
    }
  }

  /// The test's back-end has four rings.
  @Test(arguments: [(0, 256), (5, 256), (65535, 256), (4, 0), (4, 32769), (4, 65535), (0, 0), (65535, 65535)] as [(UInt32, UInt32)])
  func `a region is for the rings that there are, of entries that a ring may have`(rings: UInt32, entries: UInt32) throws {
    let things = Things()
    let memory = try things.memory(1 << 20)
    let wanted = MessageError.badInflight(rings: UInt16(rings), size: UInt16(entries), limit: 4)
    let asking = try negotiated()
    asking.send(ID.getInflight, InflightPlace(rings: rings, entries: entries).bytes, flags: 9)
    #expect(asking.disconnection == .error(wanted) && asking.receive() == nil)
    let giving = try negotiated()
    let place = InflightPlace(size: 1 << 20, rings: rings, entries: entries)
    #expect(giving.acknowledged(ID.setInflight, place.bytes, [memory]) == 1)
    #expect(giving.isConnected && giving.refusals == [wanted])
    #expect(holders(of: memory) == 1 && mappedBytes(of: memory) == 0)
    giving.send(ID.setInflight, place.bytes, [memory])
    #expect(!giving.isConnected, "nobody can be told")
    #expect(inflightEvents(asking) == [] && inflightEvents(giving) == [])
  }

  @Test(arguments: [(1, 1), (4, 1), (1, 32768), (4, 32768)] as [(UInt32, UInt32)])
  func `the smallest region and the largest are made, and taken`(rings: UInt32, entries: UInt32) throws {
    let things = Things()
    let (place, file) = try ask(negotiated(), things, InflightPlace(rings: rings, entries: entries))
    give(try negotiated(), place, file)
  }

  @Test func `without the protocol feature both messages are refused`() throws {
    let things = Things()
    let memory = try things.memory(1 << 20)
    for hidden in [false, true] {
      let offer = Offer(features: offered, protocolFeatures: hidden ? .built.subtracting(.inflightShmfd) : .built, queuePairs: 2)
      for id in [ID.getInflight, ID.setInflight] {
        let frontend = try Frontend(offer)
        let bits = number(frontend.ask(ID.getProtocol)) ?? 0
        #expect(bits >> 12 & 1 == (hidden ? 0 : 1))
        frontend.negotiate(packed, bits & ~(1 << 12))
        frontend.send(id, InflightPlace(size: 1 << 20).bytes, id == ID.setInflight ? [memory] : [], flags: 9)
        // Who waits for a body cannot be told that there is none.
        #expect(frontend.isConnected == (id == ID.setInflight))
        #expect(number(frontend.receive()?.payload) == (id == ID.setInflight ? 1 : nil))
        guard case .notNegotiated(_, .inflightShmfd) = frontend.refusals.last else {
          Issue.record("\(frontend.refusals)")
          continue
        }
        #expect(holders(of: memory) == 1 && mappedBytes(of: memory) == 0)
      }
    }
  }

  // MARK: SET_INFLIGHT_FD

  @Test func `a region is shared memory, to be read and written, and nothing else`() throws {
    let things = Things()
    let memory = try things.memory(1 << 20)
    for wrong in try things.noMemory(but: memory) {
      let frontend = try negotiated()
      #expect(frontend.acknowledged(ID.setInflight, InflightPlace(size: 1 << 20).bytes, [wrong]) == 1)
      #expect(frontend.isConnected && inflightEvents(frontend) == [])
    }
    #expect(holders(of: memory) == 3 && mappedBytes(of: memory) == 0)
  }

  /// Size, offset and the file's size, from what is needed and the page after it.
  static let places: [(name: String, fits: Bool, place: @Sendable (_ needed: UInt64) -> (UInt64, UInt64, UInt64))] = [
    ("all of the file", true, { ($0, 0, $0) }),
    ("behind a page", true, { ($0, 4096, $0 + 4096) }),
    ("more than is needed", true, { ($0 + 4096, 0, $0 + 4096) }),
    ("a file of a byte too few", false, { ($0, 0, $0 - 1) }),
    ("behind a page, of a byte too few", false, { ($0, 4096, $0 + 4095) }),
    ("an empty file", false, { ($0, 0, 0) }),
    ("a file's end", false, { ($0, 1 << 20, 1 << 20) }),
    ("past a file", false, { ($0, 2 << 20, 1 << 20) }),
    ("a byte aside", false, { ($0, 1, 1 << 20) }),
    ("half a page aside", false, { ($0, 2048, 1 << 20) }),
    ("no bytes", false, { _ in (0, 0, 1 << 20) }),
    ("a page too few", false, { ($0 - 4096, 0, 1 << 20) }),
    ("an offset that wraps with the size", false, { ($0, 0 &- 4096, 1 << 20) }),
    ("an offset that no file has", false, { ($0, 1 << 63, 1 << 20) }),
    ("the last page of all", false, { ($0, 0x7FFF_FFFF_FFFF_F000, 1 << 20) }),
    ("a size that wraps with the offset", false, { _ in (.max, 4096, 1 << 20) }),
    ("a size that no file has", false, { _ in (1 << 63, 0, 1 << 20) }),
  ]

  @Test(arguments: places.indices)
  func `a region lies on whole pages of its file, and wholly in it`(n: Int) throws {
    let (name, fits, place) = Self.places[n]
    let things = Things()
    let needed = try ask(negotiated(), things).0.size
    let (size, offset, fileBytes) = place(needed)
    let file = try things.memory(Int(fileBytes))
    let frontend = try negotiated()
    let answer = frontend.acknowledged(ID.setInflight, InflightPlace(size: size, offset: offset).bytes, [file])
    #expect(answer == (fits ? 0 : 1) && frontend.isConnected, "\(name)")
    #expect(holders(of: file) == 1 && mappedBytes(of: file) == (fits ? Int(needed) : 0), "\(name)")
    if fits { return }
    guard case .badInflightPlace(size, offset, fileBytes: Int(fileBytes), _) = frontend.refusals.last else {
      Issue.record("\(name): \(frontend.refusals)")
      return
    }
  }

  @Test func `nothing of the file is written outside of the region`() throws {
    let things = Things()
    var (place, file) = try file(things)
    let whole = Int(place.size) + 8192
    #expect(ftruncate(file, off_t(whole)) == 0)
    var marks = [UInt8](repeating: 0xA5, count: 4096)
    for offset in [0, whole - 4096] { #expect(pwrite(file, marks, 4096, off_t(offset)) == 4096) }
    place.offset = 4096
    give(try negotiated(), place, file)
    for offset in [0, whole - 4096] {
      #expect(pread(file, &marks, 4096, off_t(offset)) == 4096)
      #expect(marks.allSatisfy { $0 == 0xA5 })
    }
  }

  // MARK: Who comes next

  /// Lets a ring be written down at its seventh place, in a ring that is in use, as a queue does that dies there.
  private func leaveAtSeven(_ frontend: Frontend, _ guest: TestGuest, ring: Int) throws {
    let setup = try #require(frontend.device.running[ring])
    // The third descriptor is used in the first lap: the ring is not a fresh one.
    var flags: UInt16 = 0x8080
    #expect(pwrite(guest.high, &flags, 2, off_t(8192 + ring * 0x8000 + 16 * 3 + 14)) == 2)
    #expect(try start(setup, frontend, at: 7) == RingPosition(place: 7, wrap: true))
  }
  /// Where a queue goes on whose front-end says `place`.
  private func start(_ setup: RingSetup, _ frontend: Frontend, at place: UInt16) throws -> RingPosition {
    var view = MemoryView(try #require(frontend.device.map))
    let queue = try Virtqueue(
      setup.layout, features: setup.features, base: RingBase(packed: RingPosition(place: place, wrap: true)),
      record: setup.record, in: &view)
    return RingPosition(place: queue.base.used, wrap: queue.base.usedWrap)
  }

  @Test(arguments: [true, false])
  func `what was kept in a region reaches the ring of a back-end that follows`(byUs: Bool) throws {
    let guest = try TestGuest()
    let first = try negotiated()
    let (place, file) = byUs ? try ask(first, guest.things) : try file(guest.things)
    if !byUs { give(first, place, file) }
    first.run(guest, features: packed)
    try leaveAtSeven(first, guest, ring: 1)
    first.disconnect()
    #expect(mappedBytes(of: file) == 0)

    let second = try Frontend()
    second.negotiate()
    give(second, place, file)
    #expect(inflightEvents(second) == [false])
    second.run(guest, features: packed)
    let record = try #require(second.device.running[1]?.record)
    #expect(record.isLive)
    #expect(second.device.running[0]?.record?.isLive == false)
    #expect(try start(second.device.running[1]!, second, at: 3) == RingPosition(place: 7, wrap: true))
    #expect(try start(second.device.running[0]!, second, at: 3) == RingPosition(place: 3, wrap: true))
    #expect(second.device.violations.isEmpty && first.device.violations.isEmpty)
  }

  @Test func `a region of another program is begun anew, and said to be so`() throws {
    let things = Things()
    var random = SeededGenerator(seed: 31)
    for noise in [true, false] {
      let (place, file) = try file(things)
      var bytes = noise ? random.bytes(Int(place.size)) : [UInt8](repeating: 0, count: Int(place.size))
      bytes[0] |= noise ? 2 : 0
      #expect(pwrite(file, bytes, bytes.count, 0) == bytes.count)
      let (frontend, guest) = (try negotiated(), try TestGuest())
      give(frontend, place, file)
      #expect(inflightEvents(frontend) == [noise])
      frontend.run(guest, features: packed)
      for n in 0..<2 { #expect(frontend.device.running[n]?.record?.isLive == false) }
    }
  }

  /// With what a live record of ours looks like in it: only its first word, or its numbers, are another's.
  @Test(arguments: ["magic", "rings", "entries"])
  func `what lies in a region that is not ours, or of another shape, is not believed`(what: String) throws {
    let guest = try TestGuest()
    let first = try negotiated()
    var (place, file) = try ask(first, guest.things)
    first.run(guest, features: packed)
    try leaveAtSeven(first, guest, ring: 0)
    first.disconnect()
    switch what {
    case "magic":
      var other: UInt64 = 0x1234
      #expect(pwrite(file, &other, 8, 0) == 8)
    // Room for these there is.
    case "rings": place.rings = 3
    default: place.entries = 257
    }
    if what == "entries" {
      place.size += 4096
      #expect(ftruncate(file, off_t(place.size)) == 0)
    }
    let second = try negotiated()
    give(second, place, file)
    #expect(inflightEvents(second) == [what == "magic"])
    second.run(guest, features: packed)
    #expect(second.device.running[0]?.record?.isLive == false)
  }

  @Test func `a ring has a record where the region has room for it`() throws {
    let guest = try TestGuest()
    for (rings, entries) in [(1, 256), (2, 255), (2, 256), (2, 257)] as [(UInt32, UInt32)] {
      let frontend = try negotiated()
      _ = try ask(frontend, guest.things, InflightPlace(rings: rings, entries: entries))
      frontend.run(guest, features: packed)
      for n in 0..<2 {
        #expect((frontend.device.running[n]?.record != nil) == (n < rings && entries >= 256), "ring \(n) of \(rings), \(entries)")
      }
    }
    let frontend = try negotiated(guest)
    #expect(frontend.device.running[0]?.record == nil, "nobody asked for a region")
  }

  // MARK: What is held

  @Test func `a region that another one replaces is let go, once no ring runs with it`() throws {
    let guest = try TestGuest()
    let frontend = try negotiated()
    let (place, first) = try ask(frontend, guest.things)
    let (_, second) = try ask(frontend, guest.things)
    #expect(mappedBytes(of: first) == 0 && mappedBytes(of: second) > 0)
    frontend.run(guest, features: packed)
    give(frontend, place, first)
    #expect(mappedBytes(of: first) > 0 && mappedBytes(of: second) > 0)
    for n in 0..<UInt32(2) { _ = frontend.ask(ID.getBase, state(n, 0)) }
    #expect(mappedBytes(of: second) == 0)
    frontend.close()
    frontend.turn()
    #expect(frontend.device.departures == 1)
    for file in [first, second] { #expect(holders(of: file) == 1 && mappedBytes(of: file) == 0) }
    // Nobody's region is the next one's.
    let next = try Frontend(again: frontend)
    next.run(guest, features: packed)
    #expect(next.device.running.count == 2 && next.device.running.values.allSatisfy { $0.record == nil })
  }

  @Test(arguments: [true, false])
  func `a region that was truncated keeps nothing, and ends its own connection only`(byUs: Bool) throws {
    let (guest, other) = (try TestGuest(), try TestGuest())
    let (frontend, neighbour) = (try negotiated(), try negotiated(other))
    let (place, file) = byUs ? try ask(frontend, guest.things) : try file(guest.things)
    if !byUs { give(frontend, place, file) }
    frontend.run(guest, features: packed)
    #expect(ftruncate(file, 0) == 0)
    #expect(frontend.expire(now: frontend.now), "nobody has touched it yet")
    let setup = try #require(frontend.device.running[1])
    #expect(try start(setup, frontend, at: 5) == RingPosition(place: 5, wrap: true))
    setup.record?.clear()
    #expect(!frontend.expire(now: frontend.now))
    #expect(frontend.disconnection == .truncated && frontend.device.running.isEmpty)
    #expect(neighbour.expire(now: neighbour.now) && neighbour.device.running.count == 2)
  }

  @Test func `a reply with a file that waits for room sends it when there is some, and not twice`() throws {
    var limits = Limits()
    (limits.inflightPerConnection, limits.inflightAtOnce) = (.max, .max)
    let (frontend, things) = (try negotiated(nil, limits), Things())
    while frontend.backend.interest == .read { frontend.send(ID.getInflight, InflightPlace(entries: 1).bytes) }
    var files: [CInt] = []
    while frontend.backend.interest == .write {
      let (bytes, more) = try frontend.receiveBytes(32, things)
      try check(bytes.count == 32 && more.count == 1, "an answer and its file")
      files += more
      frontend.backend.writable(now: frontend.now)
    }
    while case let (bytes, more) = try frontend.receiveBytes(32, things), !bytes.isEmpty {
      try check(bytes.count == 32 && more.count == 1, "an answer and its file")
      files += more
    }
    // The last one is in use.
    for file in files { #expect(holders(of: file) == 1 && (mappedBytes(of: file) > 0) == (file == files.last)) }

    while frontend.backend.interest == .read { frontend.send(ID.getInflight, InflightPlace(entries: 1).bytes) }
    frontend.disconnect()
    var last: CInt?
    while case let (bytes, more) = try frontend.receiveBytes(32, things), !bytes.isEmpty { last = more.last }
    #expect(last.map { holders(of: $0) == 1 && mappedBytes(of: $0) == 0 } == true)
  }

  /// The front-end keeps the files, and their pages are charged to the back-end.
  @Test func `regions are sparse, and there are few for a connection and for a VM`() throws {
    let things = Things()
    var limits = Limits()
    (limits.inflightPerConnection, limits.inflightAtOnce) = (3, 8)
    var frontend = try negotiated(nil, limits)
    func blocks(_ file: CInt) throws -> Int {
      var status = stat()
      try check(fstat(file, &status) == 0, "fstat")
      return Int(status.st_blocks) * 512
    }
    var all = [frontend]
    var made = 0
    // However often it connects.
    for _ in 0..<100 {
      guard let (place, file) = try? ask(frontend, things, InflightPlace(rings: 4, entries: 32768)) else {
        let limit = made % 3 == 0 && made > 0 && frontend.refusals.last == .tooManyInflight(limit: 3) ? 3 : 8
        #expect(frontend.refusals.last == .tooManyInflight(limit: limit) && !frontend.isConnected)
        // One that goes disconnects the back-end: all stay.
        frontend = try Frontend(again: frontend)
        all.append(frontend)
        frontend.negotiate()
        continue
      }
      made += 1
      let used = try blocks(file)
      #expect(place.size > 1 << 20 && used <= 4096, "\(used) bytes of \(place.size)")
    }
    #expect(made == 8)
    frontend.now += limits.inflightRefill
    _ = try ask(frontend, things)
    #expect(throws: (any Error).self) { _ = try ask(frontend, things) }
    #expect(all.count > 90)
  }

  // MARK: When a place is forgotten

  @Test func `a place is forgotten when the reply that tells it is in the socket, and not while it waits`() throws {
    let guest = try TestGuest()
    for isLost in [false, true] {
      let frontend = try negotiated(guest)
      #expect(frontend.device.forgotten == [])
      _ = frontend.ask(ID.getBase, state(0, 0))
      #expect(frontend.device.forgotten == [0])
      var sent = 0
      repeat {
        frontend.device.forgotten = []
        frontend.send(ID.getBase, state(1, 0))
        sent += 1
        #expect(frontend.device.forgotten == (frontend.backend.interest == .read ? [1] : []))
      } while frontend.backend.interest == .read && sent < 100_000
      if isLost {
        frontend.disconnect()
        #expect(frontend.device.forgotten == [], "nobody was told")
        continue
      }
      // Nothing was read: there is no room yet.
      frontend.backend.writable(now: frontend.now)
      #expect(frontend.backend.interest == .write && frontend.device.forgotten == [])
      while frontend.backend.interest == .write, frontend.receive() != nil { frontend.backend.writable(now: frontend.now) }
      #expect(frontend.device.forgotten == [1])
      frontend.send(ID.getFeatures)
      #expect(frontend.device.forgotten == [1], "once")
    }
  }

  @Test func `a ring that is not told is not forgotten`() throws {
    let guest = try TestGuest()
    let frontend = try negotiated(guest)
    // Stopped by a new kick, by its memory's going, and at the end; and asked for one that is not.
    frontend.send(ID.setKick, u64(0), [guest.kicks[0]])
    #expect(frontend.acknowledged(ID.setMemTable, Region.table([]), []) == 0)
    #expect(frontend.device.running.isEmpty)
    frontend.send(ID.resetOwner)
    frontend.send(ID.getBase, state(4, 0))
    #expect(!frontend.isConnected)
    #expect(frontend.device.forgotten == [] && frontend.device.departures == 1)
    let other = try negotiated(guest)
    other.close()
    other.turn()
    #expect(other.device.forgotten == [] && other.device.departures == 1)
    #expect(frontend.device.violations.isEmpty && other.device.violations.isEmpty)
  }

  @Test func `a reset forgets every ring, when it has stopped`() throws {
    let frontend = try negotiated(try TestGuest())
    frontend.send(ID.resetDevice)
    #expect(frontend.device.forgotten == [0, 1, 2, 3] && frontend.device.violations.isEmpty)
  }

  @Test func `a base that the front-end says is believed of a ring that has run, and only of that`() throws {
    let guest = try TestGuest()
    let frontend = try negotiated()
    frontend.giveMemory(guest)
    // It may be what it knew when a predecessor died.
    for _ in 0..<3 { #expect(frontend.acknowledged(ID.setBase, state(1, 0x8000_8000)) == 0) }
    frontend.run(guest, features: packed)
    #expect(frontend.device.forgotten == [])
    // Of a ring that runs it is refused.
    #expect(frontend.acknowledged(ID.setBase, state(1, 0x8000_8000)) == 1)
    #expect(frontend.device.forgotten == [])
    #expect(frontend.acknowledged(ID.setMemTable, Region.table([]), []) == 0)
    #expect(frontend.acknowledged(ID.setBase, state(1, 0x8003_8003)) == 0)
    #expect(frontend.device.forgotten == [1])
    #expect(frontend.acknowledged(ID.setBase, state(2, 0x8003_8003)) == 0)
    #expect(frontend.device.forgotten == [1], "ring 2 has not run")
    frontend.send(ID.resetDevice)
    frontend.device.forgotten = []
    #expect(frontend.acknowledged(ID.setBase, state(1, 0x8000_8000)) == 0)
    #expect(frontend.device.forgotten == [], "not since the reset")
    frontend.disconnect()
    let again = try Frontend(again: frontend)
    again.run(guest, features: packed)
    #expect(again.device.forgotten == [] && again.device.violations.isEmpty)
  }
}

extension Frontend {
  /// Up to so many bytes, and what came with the first of them.
  fileprivate func receiveBytes(_ count: Int, _ things: Things) throws -> ([UInt8], [CInt]) {
    let stream = try UnixStream(adopting: OwnedDescriptor(adopting: fcntl(socket, F_DUPFD_CLOEXEC, 0)))
    guard case .bytes(let bytes, var descriptors) = try stream.receive(atMost: count) else { return ([], []) }
    var files: [CInt] = []
    while let file = descriptors.takeFirst() { files.append(try things.copy(of: file.number)) }
    return (bytes, files)
  }
  fileprivate func receiveFirstByte(_ things: Things) throws -> ([UInt8], CInt?) {
    let (bytes, files) = try receiveBytes(1, things)
    try check(bytes.count == 1 && files.count <= 1, "a byte, and a file at most")
    return (bytes, files.first)
  }
}
