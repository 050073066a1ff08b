import CLinux
import Foundation
import Testing

extension Stage {
  /// Something that a guest's driver may have chosen, and that cannot be: the ring it is for does not start, or stays as it
  /// was; the connection goes on, whether an answer was asked for or not.
  func isNotFor(
    ring: Int, _ label: String, _ words: String, in phase: Phase = .prepared, shape: Shape = Shape(),
    _ make: (Guest) throws -> Missive
  ) async throws {
    for asks in [true, false] {
      let label = "\(label), \(phase), \(asks ? "asked" : "not asked")"
      let guest = try guest(phase, shape)
      for ring in [guest.receive, guest.send] where phase != .running {
        try guest.front.must(Ask.setVringErr, littleEndian(UInt64(ring.number)), fds: [ring.fault.number])
        try guest.front.must(Ask.setVringNum, littleEndian(UInt32(ring.number), UInt32(ring.size)))
      }
      let mark = self.mark
      let missive = try make(guest)
      if asks {
        let answer = try guest.front.order(missive.request, missive.payload)
        #expect(answer != 0, "\(label): was done")
      } else {
        guest.front.message(missive.request, missive.payload)
      }
      _ = try guest.front.ask(Ask.getFeatures)
      #expect(eventually { hasSaid(words, since: mark, vm: 1) }, "\(label): no word of it; said was:\n\(text(since: mark, vm: 1))")
      let (bad, good) = ring == 0 ? (guest.receive, guest.send) : (guest.send, guest.receive)
      #expect(bad.fault.take() != nil && good.fault.take() == nil, "\(label): the error descriptors")
      if phase == .running {
        let wanted = frames(4, to: 1)
        try await inject(wanted)
        let found = guest.harvest()
        #expect(found == wanted, "\(label): \(found.count) frames came")
      } else {
        guest.front.message(Ask.setVringKick, littleEndian(UInt64(ring)), fds: [bad.kick.number])
        _ = try guest.front.ask(Ask.getFeatures)
        #expect(await self.ring(1, ring).state != "running", "\(label): it runs")
        // Said again as it should be, it does.
        try guest.start(bad)
        #expect(await self.ring(1, ring).state == "running", "\(label): it does not run when all is right")
      }
      try await isGone(guest, label)
    }
  }
}

extension Hostile {
  /// What a front-end says of a ring. vhost-user, "Vring state description", "Vring address description".
  @Suite(.serialized) struct RingMessages {
    @Test func `a ring has a size that can be`() async throws {
      try await withStage(Stage()) { stage in
        for size: UInt32 in [0, 3, 63, 65, 32769, 65536, 65536 + 64, 1 << 31, .max] {
          for ring: UInt32 in [0, 1] {
            try await stage.isNotFor(ring: Int(ring), "\(size) entries", "\(size) entries; must be 1 to 32768") { _ in
              Missive(request: Ask.setVringNum, payload: littleEndian(ring, size))
            }
          }
        }
        for size: UInt32 in [0, 32769, 65536, .max] {
          try await stage.isNotFor(ring: 0, "\(size) entries, packed", "\(size) entries; must be 1 to 32768", shape: Shape(isPacked: true)) { _ in
            Missive(request: Ask.setVringNum, payload: littleEndian(UInt32(0), size))
          }
        }
      }
    }

    @Test func `there is no ring past the last`() async throws {
      try await withStage(Stage()) { stage in
        for ring: UInt32 in [2, 3, 0x80, 0xFF, 0x100, 0x101, 0xFFFF, 0x1_0000, 0x1_0001, 1 << 31, .max] {
          for request in [Ask.setVringNum, Ask.setVringBase, Ask.setVringEnable] {
            try await stage.isRefused("ring \(ring), request \(request)", "ring \(ring) of 2", in: .running) { _ in
              Missive(request: request, payload: littleEndian(ring, UInt32(1)))
            }
          }
          try await stage.isRefused("ring \(ring), its address", "ring \(ring) of 2", in: .running) { guest in
            Missive(request: Ask.setVringAddr, payload: littleEndian(ring) + guest.addressMessage(guest.receive).dropFirst(4))
          }
          // Its answer has a body: it cannot say no.
          try await stage.isHungUp("ring \(ring), its base", "ring \(ring) of 2", in: .running) {
            $0.front.message(Ask.getVringBase, littleEndian(ring, UInt32(0)))
          }
        }
        for request in [Ask.setVringKick, Ask.setVringCall, Ask.setVringErr] {
          for ring: UInt64 in [2, 0x7F, 0xFF] {
            try await stage.isRefused("ring \(ring), request \(request)", "ring \(ring) of 2", in: .running) { _ in
              Missive(request: request, payload: littleEndian(ring), fds: [.event()])
            }
            try await stage.isRefused("ring \(ring), request \(request), none", "ring \(ring) of 2", in: .running) { _ in
              Missive(request: request, payload: littleEndian(ring | 0x100))
            }
          }
          for bit: UInt64 in [9, 15, 16, 31, 32, 63] {
            try await stage.isRefused("bit \(bit), request \(request)", "reserved bits", in: .running) { _ in
              Missive(request: request, payload: littleEndian(1 << bit), fds: [.event()])
            }
          }
          let event = Handle.event()
          try await stage.isHungUp("none and one, request \(request)", "1 descriptors, not 0", in: .running, things: [event]) {
            $0.front.message(request, littleEndian(UInt64(0x100)), fds: [event.number])
          }
        }
      }
    }

    /// How the three addresses are bent; what is said of it.
    static func bent(_ guest: Guest, isPacked: Bool) -> [(String, (inout [UInt64]) -> Void, String)] {
      let ram = guest.ram
      let (first, second) = (ram.regions[0], ram.regions[1])
      let outside = "is not in one region of guest memory"
      var cases: [(String, (inout [UInt64]) -> Void, String)] = []
      for n in 0..<3 {
        cases += [
          ("part \(n) at 0", { $0[n] = 0 }, outside),
          ("part \(n) at the end of all", { $0[n] = 0 &- 16 }, outside),
          ("part \(n) before memory", { $0[n] = first.frontend - 16 }, outside),
          ("part \(n) where the guest has memory", { $0[n] = first.guest }, outside),
          ("part \(n) one step past its region", { $0[n] = first.frontend + UInt64(first.byteCount) - (isPacked && n > 0 ? 0 : 16) }, outside),
          ("part \(n) one step past the last region", { $0[n] = second.frontend + UInt64(second.byteCount) - (isPacked && n > 0 ? 0 : 16) }, outside),
          ("part \(n) on an odd byte", { $0[n] += 1 }, "is not aligned"),
        ]
      }
      cases += [
        ("descriptors by 8", { $0[0] += 8 }, "is not aligned"), ("the device's by 2", { $0[1] += 2 }, "is not aligned"),
        ("the driver's in the descriptors", { $0[2] = $0[0] + 64 }, "share bytes"),
        ("the device's in the descriptors", { $0[1] = $0[0] + 240 }, "share bytes"),
        ("all the same", { $0[1] = $0[0]; $0[2] = $0[0] }, "share bytes"),
        ("the device's is the driver's", { $0[1] = $0[2] & ~3 }, "share bytes"),
      ]
      if isPacked { cases.append(("the driver's by 2", { $0[2] += 2 }, "is not aligned")) }
      return cases
    }

    @Test(arguments: [false, true]) func `a ring lies in memory, aligned, and apart`(isPacked: Bool) async throws {
      try await withStage(Stage()) { stage in
        let shape = Shape(isPacked: isPacked)
        let model = try stage.guest(.fresh, shape)
        let count = Self.bent(model, isPacked: isPacked).count
        try await stage.isGone(model, "a model")
        for n in 0..<count {
          let (name, _, words) = Self.bent(model, isPacked: isPacked)[n]
          try await stage.isNotFor(ring: n % 2, name, words, shape: shape) { guest in
            let ring = n % 2 == 0 ? guest.receive : guest.send
            var places = [ring.descriptors, ring.device, ring.driver].map(guest.ram.frontend)
            Self.bent(guest, isPacked: isPacked)[n].1(&places)
            return Missive(
              request: Ask.setVringAddr,
              payload: littleEndian(UInt32(n % 2), UInt32(0), places[0], places[1], places[2], UInt64(0)))
          }
        }
        for flags: UInt32 in [2, 0x8000_0000, .max] {
          try await stage.isNotFor(ring: 0, "flags \(flags)", "unknown flags", shape: shape) {
            Missive(request: Ask.setVringAddr, payload: $0.addressMessage($0.receive, flags: flags))
          }
        }
      }
    }

    @Test(arguments: [false, true]) func `a ring that runs stays as it is`(isPacked: Bool) async throws {
      try await withStage(Stage()) { stage in
        let shape = Shape(isPacked: isPacked)
        let runs = "runs; stop it first"
        for size: UInt32 in [1, 16, 64, 32768] {
          try await stage.isRefusedWhileRunning("\(size) entries", runs, shape) { _ in Missive(request: Ask.setVringNum, payload: littleEndian(UInt32(0), size)) }
        }
        for base: UInt32 in [0, 1, 0x8000_8000] {
          try await stage.isRefusedWhileRunning("base \(base)", runs, shape) { _ in Missive(request: Ask.setVringBase, payload: littleEndian(UInt32(0), base)) }
        }
        for shift in [0, 1, 2] {
          try await stage.isRefusedWhileRunning("another place", runs, shape) { guest in
            var places = [guest.receive.descriptors, guest.receive.device, guest.receive.driver].map(guest.ram.frontend)
            places[shift] += 64
            return Missive(request: Ask.setVringAddr, payload: littleEndian(UInt32(0), UInt32(0), places[0], places[1], places[2], UInt64(0)))
          }
        }
        try await stage.isRefused("other features", "may not change while a ring runs", in: .running, shape: shape) {
          Missive(request: Ask.setFeatures, payload: littleEndian($0.features ^ FeatureBit.indirect))
        }
        try await stage.isRefused("other protocol features", "may not change while a ring runs", in: .running, shape: shape) {
          Missive(request: Ask.setProtocolFeatures, payload: littleEndian($0.shape.protocolFeatures ^ ProtocolBit.rarp))
        }
      }
    }

    @Test func `a ring goes on where it can`() async throws {
      try await withStage(Stage()) { stage in
        for base: UInt32 in [0x1_0000, 0x8000_0000, .max] {
          try await stage.isNotFor(ring: 0, "base \(base), split", "is none of a ring of 32 entries") { _ in
            Missive(request: Ask.setVringBase, payload: littleEndian(UInt32(0), base))
          }
        }
        for base: UInt32 in [32, 0x8020, 0x8000_8020, 0x8020_8000, 0x7FFF, .max] {
          try await stage.isNotFor(ring: 0, "base \(base), packed", "is none of a ring of 32 entries", shape: Shape(isPacked: true)) { _ in
            Missive(request: Ask.setVringBase, payload: littleEndian(UInt32(0), base))
          }
        }
        // A split ring's own used index says where it is: no base may be further off than the ring is long.
        for (base, used): (UInt32, UInt16) in [(65, 0), (0x8000, 0), (0xFFFF, 0), (1, 2), (10, 0xFF00), (5, 0x8000)] {
          let guest = try stage.guest(.prepared)
          guest.ram.put16(used, guest.receive.device + 2)
          guest.ram.put16(used, guest.receive.driver + 2)
          try guest.start(guest.receive, base: base)
          let ring = await stage.ring(1, 0)
          #expect(ring.state == "failed" && ring.reason?.contains("cannot go on at \(base): its used index is \(used)") == true, "\(base), \(used): \(ring)")
          #expect(guest.receive.fault.take() != nil)
          #expect(await stage.status(1).connection == "connected")
          try await stage.isGone(guest, "base \(base), used \(used)")
        }
      }
    }

    @Test func `a used index that a guest moves while its ring is disabled is noticed`() async throws {
      try await withStage(Stage()) { stage in
        let guest = try stage.guest(.running)
        let frames = stage.frames(4, to: 1)
        try await stage.inject(frames)
        #expect(guest.harvest() == frames)
        try guest.front.must(Ask.setVringEnable, littleEndian(UInt32(0), UInt32(0)))
        #expect(await stage.ring(1, 0).state == "disabled")
        guest.ram.put16(1000, guest.receive.device + 2)
        try guest.front.must(Ask.setVringEnable, littleEndian(UInt32(0), UInt32(1)))
        let hasFailed = await eventually { await stage.ring(1, 0).state == "failed" }
        let status = await stage.status(1)
        #expect(hasFailed && status.last_violation?.contains("its used index is 1000") == true, "\(status)")
        #expect(guest.receive.fault.take() != nil)
        #expect(status.rings[1].state == "running")
        try await stage.isGone(guest, "a used index that moved")
      }
    }

    @Test func `features are those that were offered`() async throws {
      try await withStage(Stage()) { stage in
        let probe = try stage.guest(.fresh)
        let offered = number(try probe.front.ask(Ask.getFeatures))
        let protocolOffered = number(try probe.front.ask(Ask.getProtocolFeatures))
        try await stage.isGone(probe, "a probe")
        for bit in UInt64(0)..<64 {
          if offered >> bit & 1 == 0 {
            try await stage.isRefused("feature \(bit)", "was not offered", in: .fresh) {
              Missive(request: Ask.setFeatures, payload: littleEndian($0.features | 1 << bit))
            }
          }
          if protocolOffered >> bit & 1 == 0 {
            try await stage.isRefused("protocol feature \(bit)", "was not offered", in: .fresh) { _ in
              Missive(request: Ask.setProtocolFeatures, payload: littleEndian(UInt64(1) << bit))
            }
          }
        }
        // Acknowledged without what a ring needs, no ring runs.
        for features in [0, FeatureBit.protocolFeatures, FeatureBit.mergeable | FeatureBit.indirect] as [UInt64] {
          let guest = try Guest(stage, vm: 1)
          try guest.front.must(Ask.setFeatures, littleEndian(features))
          try guest.shareMemory()
          for (request, payload) in [(Ask.setVringNum, littleEndian(UInt32(0), UInt32(32))), (Ask.setVringAddr, guest.addressMessage(guest.receive))] {
            try guest.front.must(request, payload)
          }
          _ = try guest.front.order(Ask.setVringKick, littleEndian(UInt64(0)), fds: [guest.receive.kick.number])
          let ring = await stage.ring(1, 0)
          #expect(ring.state == "failed" && ring.reason?.contains("did not acknowledge") == true, "\(ring)")
          try await stage.isGone(guest, "features \(features)")
        }
      }
    }

    @Test func `a log is where it can be written`() async throws {
      try await withStage(Stage()) { stage in
        // The last page of the guest's memory decides how many bits there must be.
        let needed = 0x10_0000 / 4096 / 8 + (448 << 10) / 4096 / 8
        for (count, offset, file, words): (UInt64, UInt64, Int, String) in [
          (0, 0, 8192, "are not in a file"), (8192, 0 &- 4096, 8192, "are not in a file"), (0 &- 4096, 8192, 8192, "are not in a file"),
          (8193, 0, 8192, "are not in a file"), (4096, 4097, 8192, "are not in a file"), (.max, .max, 8192, "are not in a file"),
          (1 << 63, 1 << 63, 8192, "are not in a file"), (1, 8192, 8192, "are not in a file"),
          (UInt64(needed) - 1, 0, 8192, "the guest's memory needs \(needed)"), (1, 0, 8192, "the guest's memory needs"),
        ] {
          let log = Handle.file("hostile-log", byteCount: file)
          try await stage.isHungUp("log of \(count) from \(offset)", words, in: .running, things: [log]) {
            $0.front.message(Ask.setLogBase, littleEndian(count, offset), fds: [log.number])
          }
        }
        for thing in [Handle.event(), .open("/dev/zero", O_RDWR), .open("/tmp", O_RDONLY), Handle.pipe().write] {
          try await stage.isHungUp("a log in \(thing.number)", "came, not a file of shared memory", in: .running, things: [thing]) {
            $0.front.message(Ask.setLogBase, littleEndian(UInt64(4096), UInt64(0)), fds: [thing.number])
          }
        }
      }
    }

    @Test(arguments: [false, true]) func `a log says what was written, and nothing is written beside it`(isPacked: Bool) async throws {
      try await withStage(Stage()) { stage in
        let guest = try stage.guest(.running, Shape(isPacked: isPacked))
        // In the middle of a page, between bytes that are nobody's.
        let (file, offset, count) = (Handle.file("hostile-marks", byteCount: 16384), 4096 + 104, 96)
        let map = mmap(nil, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0)!
        defer { munmap(map, 16384) }
        memset(map, 0x55, 16384)
        memset(map + offset, 0, count)
        #expect(try guest.front.ask(Ask.setLogBase, littleEndian(UInt64(count), UInt64(offset)), fds: [file.number]).count == 16)
        try guest.front.must(Ask.setFeatures, littleEndian(guest.features | FeatureBit.logAll))
        for ring in [guest.receive, guest.send] {
          // Its writes are to be marked, past the end of the log, at the very end, and where it lies.
          for place in [UInt64.max, UInt64(count * 8 * 4096), 0] + (isPacked ? [] : [guest.ram.end]) {
            let payload = guest.addressMessage(ring, flags: 1).dropLast(8) + littleEndian(place)
            _ = try guest.front.order(Ask.setVringAddr, Array(payload))
          }
          let payload = guest.addressMessage(ring, flags: 1).dropLast(8) + littleEndian(ring.device)
          try guest.front.must(Ask.setVringAddr, Array(payload))
        }
        let before = guest.ram.regions.map { [UInt8](UnsafeRawBufferPointer(start: $0.memory, count: $0.byteCount)) }
        let frames = stage.frames(24, to: 1)
        try await stage.inject(frames)
        _ = try guest.front.ask(Ask.getVringBase, littleEndian(UInt32(0), UInt32(0)))
        for (region, old) in zip(guest.ram.regions, before) {
          for page in 0..<region.byteCount / 4096 where memcmp(region.memory + page * 4096, Array(old[page * 4096..<(page + 1) * 4096]), 4096) != 0 {
            let number = Int(region.guest) / 4096 + page
            let byte = map.load(fromByteOffset: offset + number / 8, as: UInt8.self)
            #expect(byte >> UInt8(number % 8) & 1 == 1, "page \(number) was written and not marked")
          }
        }
        for n in 0..<16384 where n < offset || n >= offset + count {
          #expect(map.load(fromByteOffset: n, as: UInt8.self) == 0x55, "byte \(n) is beside the log")
        }
        _ = guest.collect()
        try await stage.isGone(guest, "a log", things: [file])
        #expect(Holders.mappings("hostile-marks") == 1)
      }
    }

    @Test func `an MTU is one that the card can have`() async throws {
      try await withStage(Stage()) { stage in
        for value: UInt64 in [0, 1, 67, 65536, 1 << 32 + 1500, 1 << 63, .max] {
          try await stage.isRefused("MTU \(value)", "NET_SET_MTU: \(value); must be 68 to 65535", in: .running) { _ in
            Missive(request: Ask.netSetMtu, payload: littleEndian(value))
          }
        }
        for value: UInt64 in [1501, 9000, 65535] {
          try await stage.isRefused("MTU \(value)", "cannot have an MTU of \(value)", in: .running) { _ in
            Missive(request: Ask.netSetMtu, payload: littleEndian(value))
          }
        }
        let guest = try stage.guest(.running)
        for value: UInt64 in [68, 1280, 1500] {
          try guest.front.must(Ask.netSetMtu, littleEndian(value))
          #expect(await stage.status(1).mtu == Int(value))
        }
        // Announcing itself a thousand times a second costs it only its own time.
        for n in 0..<1000 { guest.front.message(Ask.sendRarp, littleEndian(UInt64(n) << 40)) }
        _ = try guest.front.ask(Ask.getFeatures)
        try await stage.isGone(guest, "MTU")
      }
    }

    @Test func `a configuration is read inside its bounds, and not written`() async throws {
      try await withStage(Stage(adjust: { $0.vms[1].offersConfig = true })) { stage in
        let shape = Shape(protocolFeatures: Shape.protocolBits | ProtocolBit.config)
        func payload(_ offset: UInt32, _ size: UInt32, _ data: [UInt8]) -> [UInt8] { littleEndian(offset, size, UInt32(0)) + data }
        let guest = try stage.guest(.running, shape)
        let whole = try guest.front.ask(Ask.getConfig, payload(0, 256, [UInt8](repeating: 0, count: 256)))
        #expect(whole.count == 12 + 256 && Array(whole[12..<18]) == guest.mac && whole[12 + 10] == 0xDC && whole[12 + 11] == 5)
        for (offset, size): (UInt32, UInt32) in [(0, 0), (256, 1), (255, 2), (1, 256), (.max, 1), (0 &- 4, 8), (1 << 31, 4)] {
          // It says no by a configuration of no bytes.
          let answer = try guest.front.ask(Ask.getConfig, payload(offset, size, [UInt8](repeating: 0, count: Int(size))))
          #expect(answer.count == 12 && number(answer[4..<8]) == 0, "\(offset), \(size)")
        }
        try guest.front.must(Ask.setConfig, payload(0, 6, guest.mac))
        try await stage.isGone(guest, "a configuration")
        for (offset, size, words): (UInt32, UInt32, String) in [
          (0, 6, "nothing in it can be written"), (0, 256, "nothing in it can be written"), (255, 1, "nothing in it can be written"),
          (256, 1, "there are 256"), (0 &- 4, 8, "there are 256"), (0, 0, "there are 256"),
        ] {
          try await stage.isRefused("SET_CONFIG \(offset), \(size)", words, in: .running, shape: shape) { _ in
            Missive(request: Ask.setConfig, payload: payload(offset, size, [UInt8](repeating: 0xEE, count: Int(size))))
          }
        }
        for (size, sent) in [(8, 7), (8, 9), (0, 1), (UInt32.max, 8)] as [(UInt32, Int)] {
          let guest = try stage.guest(.running, shape)
          let mark = stage.mark
          guest.front.message(Ask.getConfig, payload(0, size, [UInt8](repeating: 0, count: sent)))
          #expect(guest.front.isHungUp() && eventually { stage.hasSaid("a payload of", since: mark, vm: 1) }, "\(size), \(sent)")
          try await stage.isGone(guest, "\(size), \(sent)")
        }
      }
    }

    /// A report of a path that has stopped may be on its way when the front-end starts its ring anew.
    @Test func `what was said of a ring's last life is not held against its next`() async throws {
      try await withStage(Stage()) { stage in
        for n in 0..<60 {
          let guest = try stage.guest(.running)
          let second = SplitRing(guest.ram, number: 0, size: 32)
          let buffers = (0..<4).map { _ in Piece(guest.ram.take(2048), 2048) }
          for buffer in buffers {
            guest.ram.open(buffer.start, 2048)
            _ = second.offer([buffer])
          }
          second.show()
          var batch: [UInt8] = []
          for _ in 0..<n % 30 { batch += FrontEnd.header(Ask.setVringEnable, 1, 8) + littleEndian(UInt32(1), UInt32(n % 2)) }
          batch += FrontEnd.header(Ask.getVringBase, 1, 8) + littleEndian(UInt64(0))
          let address = littleEndian(
            UInt32(0), UInt32(0), guest.ram.frontend(second.descriptors), guest.ram.frontend(second.device), guest.ram.frontend(second.driver), UInt64(0))
          batch += FrontEnd.header(Ask.setVringAddr, 1, 40) + address
          batch += FrontEnd.header(Ask.setVringBase, 1, 8) + littleEndian(UInt64(0))
          batch += FrontEnd.header(Ask.setVringKick, 9, 8) + littleEndian(UInt64(0x100))
          (guest.receive as! SplitRing).writeHead(0xFFFF)
          guest.receive.showAndKnock()
          guest.front.send(batch)
          while case .reply(let reply) = guest.front.receive(), reply.request != Ask.setVringKick {}
          let ring = await stage.ring(1, 0)
          #expect(ring.state == "running", "\(n): \(ring)")
          try await stage.isGone(guest, "attempt \(n)", asksVictim: n % 10 == 0)
        }
      }
    }

    /// The victim's frames come behind the attacker's on the wire.
    @Test func `nobody waits for a ring that is broken`() async throws {
      try await withStage(Stage()) { stage in
        let guest = try stage.guest(.running)
        try await stage.inject(stage.frames(2, to: 1))
        (guest.receive as! SplitRing).writeHead(0xFFFF)
        guest.receive.showAndKnock()
        #expect(await eventually { await stage.ring(1, 0).state == "failed" })
        let (theirs, ours) = (stage.frames(4, to: 1), stage.frames(4, to: 0))
        let report = try await stage.inject(theirs + ours)
        // The wire's patience with those who take nothing is five seconds.
        #expect(report.elapsed_s < 4.5)
        #expect(stage.victim.harvest() == ours)
        stage.victim.replenish()
        try await stage.isGone(guest, "a broken ring")
      }
    }
  }
}

extension Stage {
  /// A ring that runs is not changed by what it refuses.
  func isRefusedWhileRunning(_ label: String, _ words: String, _ shape: Shape, _ make: (Guest) throws -> Missive) async throws {
    for asks in [true, false] {
      let guest = try guest(.running, shape)
      let mark = self.mark
      let missive = try make(guest)
      if asks {
        let answer = try guest.front.order(missive.request, missive.payload)
        #expect(answer != 0, "\(label): was done")
      } else {
        guest.front.message(missive.request, missive.payload)
      }
      _ = try guest.front.ask(Ask.getFeatures)
      #expect(eventually { hasSaid(words, since: mark, vm: 1) }, "\(label): \(text(since: mark, vm: 1))")
      let wanted = frames(4, to: 1)
      try await inject(wanted)
      let found = guest.harvest()
      #expect(found == wanted, "\(label): \(found.count) frames came")
      try await isGone(guest, label)
    }
  }
}
