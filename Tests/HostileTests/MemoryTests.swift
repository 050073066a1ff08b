import CLinux
import Foundation
import Testing

extension Hostile {
  /// The guest's memory as a front-end describes it, changes it, and takes it away. vhost-user, "Memory access".
  @Suite(.serialized) struct Memory {
    struct Region {
      var guest: UInt64 = 0x4000_0000
      var byteCount: UInt64 = 65536
      var frontend: UInt64 = 0x1_0000_0000
      var offset: UInt64 = 0
      var bytes: [UInt8] { littleEndian(guest, byteCount, frontend, offset) }
    }
    static let fileBytes = 65536
    static let impossible = "empty, past the end of an address space, or on a page's wrong part"

    /// One region that is wrong by itself, and what is said of it.
    static let bad: [(String, Region, String)] = [
      ("empty", Region(byteCount: 0), impossible),
      ("past the guest's end", Region(guest: 0 &- 4096, byteCount: 8192), impossible),
      ("to the guest's very end", Region(guest: 0 &- 65536), impossible),
      ("past the front-end's end", Region(frontend: 0 &- 4096), impossible),
      ("an offset that wraps", Region(byteCount: 8192, offset: 0 &- 4096), impossible),
      ("an offset past a signed number", Region(byteCount: 4096, offset: 1 << 63), impossible),
      ("a size past a signed number", Region(guest: 0, byteCount: 1 << 63, frontend: 0), impossible),
      ("a size of all", Region(guest: 0, byteCount: .max, frontend: 0), impossible),
      ("a byte past the file", Region(byteCount: 4096, offset: 65536), "are not in a file of 65536"),
      ("a page past the file", Region(byteCount: 65536 + 4096), "are not in a file of 65536"),
      ("its last page past the file", Region(byteCount: 65536, offset: 4096), "are not in a file of 65536"),
      ("not on a page of the guest", Region(guest: 0x4000_0800, byteCount: 4096), impossible),
      ("not on a page of the file", Region(byteCount: 4096, offset: 512), impossible),
      ("not whole pages", Region(byteCount: 4095), "cannot be put on the bus"),
      ("one byte", Region(byteCount: 1), "cannot be put on the bus"),
      ("past the bus", Region(guest: 1 << 40, byteCount: 4096), "cannot be put on the bus"),
      ("across the bus's end", Region(guest: 1 << 40 - 4096, byteCount: 8192), "cannot be put on the bus"),
      ("far past the bus", Region(guest: 1 << 62, byteCount: 4096), "cannot be put on the bus"),
      ("more than there may be", Region(guest: 0, byteCount: 1 << 40 + 4096, frontend: 0), "bytes of guest memory; at most"),
      ("inside the guest's own", Region(guest: GuestRAM.firstAddress + 4096, byteCount: 4096), "overlap"),
      ("over the guest's end", Region(guest: GuestRAM.firstAddress - 4096, byteCount: 8192), "overlap"),
      ("all over", Region(guest: 0, byteCount: 1 << 32), "overlap"),
      ("where the front-end has another", Region(byteCount: 4096, frontend: 0x7A00_0000_3000), "that the front-end has at"),
    ]

    @Test func `a region that cannot be is refused`() async throws {
      try await withStage(Stage()) { stage in
        for (name, region, words) in Self.bad {
          let file = Handle.file("hostile-region", byteCount: Self.fileBytes)
          try await stage.isRefused("\(name), added", words, in: .running) { _ in
            Missive(request: Ask.addMemReg, payload: littleEndian(UInt64(0)) + region.bytes, fds: [file])
          }
          try await stage.isRefused("\(name), in a table", words, in: .running) { guest in
            Missive(
              request: Ask.setMemTable,
              payload: littleEndian(UInt32(3), UInt32(0)) + guest.ram.regions.flatMap(\.description) + region.bytes,
              fds: guest.ram.regions.map(\.file) + [file])
          }
        }
      }
    }

    /// What a refused message has put in place would stay for a guest to use.
    @Test func `a region that was refused is not there`() async throws {
      try await withStage(Stage()) { stage in
        for (name, region, _) in Self.bad {
          let guest = try stage.guest(.running)
          let file = Handle.file("hostile-refused", byteCount: Self.fileBytes)
          let maps = await stage.status().nic.iommu_maps
          #expect(try guest.front.order(Ask.addMemReg, littleEndian(UInt64(0)) + region.bytes, fds: [file.number]) != 0)
          #expect(eventually { Holders.mappings("hostile-refused") == 0 }, "\(name): still mapped")
          let status = await stage.status()
          #expect(status.nic.iommu_maps == maps, "\(name): \(status.nic.iommu_maps) mappings on the bus, not \(maps)")
          #expect(status.vms["attacker1"]!.memory_regions == 2 && status.vms["attacker1"]!.rings.allSatisfy { $0.state == "running" }, "\(name)")
          // A ring that starts now knows nothing of it either.
          let mark = stage.mark
          _ = try guest.front.ask(Ask.getVringBase, littleEndian(UInt32(0), UInt32(0)))
          try guest.start(guest.receive)
          guest.receive.knock()
          let frames = stage.frames(4, to: 1)
          try await stage.inject(frames)
          #expect(guest.harvest() == frames, "\(name)")
          #expect(guest.receive.offer([Piece(region.guest &+ 64, 2048)]) < 32)
          guest.receive.showAndKnock()
          let isInside = region.guest >= GuestRAM.firstAddress - 64 && region.guest < guest.ram.end - 4096
          if isInside { guest.ram.open(region.guest + 64, 2048) } else {
            let isRefused = await eventually { await stage.ring(1, 0).reason?.contains("is not guest memory") == true }
            #expect(isRefused, "\(name): \(stage.text(since: mark, vm: 1))")
          }
          #expect(await stage.status().nic.iommu_faults == 0, "\(name)")
          try await stage.isGone(guest, name, things: [file])
        }
      }
    }

    @Test func `regions share no address`() async throws {
      try await withStage(Stage()) { stage in
        let file = Handle.file("hostile-overlap", byteCount: Self.fileBytes)
        let (a, b) = (Region(), Region(guest: 0x4000_F000, frontend: 0x2_0000_0000))
        for (name, second, words) in [
          ("the same", a, "overlap"), ("by a page of the guest's", b, "overlap"),
          ("by a page of the front-end's", Region(guest: 0x5000_0000, frontend: 0x1_0000_F000), "that the front-end has at"),
          ("one inside", Region(guest: 0x4000_4000, byteCount: 4096, frontend: 0x2_0000_0000), "overlap"),
        ] {
          for order in [[a, second], [second, a]] {
            try await stage.isRefused(name, words, in: .prepared) { _ in
              Missive(
                request: Ask.setMemTable, payload: littleEndian(UInt32(2), UInt32(0)) + order.flatMap(\.bytes), fds: [file, file])
            }
          }
        }
      }
    }

    @Test func `there are as many regions as was said, and no more`() async throws {
      try await withStage(Stage()) { stage in
        let guest = try stage.guest(.prepared)
        let slots = Int(number(try guest.front.ask(Ask.getMaxMemSlots)))
        let file = Handle.file("hostile-slots", byteCount: 4096)
        func region(_ n: Int) -> [UInt8] {
          littleEndian(UInt64(0)) + Region(guest: 0x4000_0000 + UInt64(n) * 8192, byteCount: 4096, frontend: 0x9000_0000 + UInt64(n) * 4096).bytes
        }
        for n in 2..<slots { try guest.front.must(Ask.addMemReg, region(n), fds: [file.number]) }
        #expect(try guest.front.order(Ask.addMemReg, region(slots), fds: [file.number]) != 0)
        #expect(await stage.status(1).last_violation?.contains("\(slots + 1) memory regions; at most \(slots)") == true)
        #expect(eventually { Holders.shared([file]).isEmpty })
        #expect(await stage.status(1).memory_regions == slots)
        try await stage.victimGoesOn("\(slots) regions")
        try guest.front.must(Ask.remMemReg, region(slots - 1))
        try guest.front.must(Ask.addMemReg, region(slots), fds: [file.number])
        try await stage.isGone(guest, "\(slots) regions", things: [file])
        #expect(Holders.mappings("hostile-slots") == 0)
      }
    }

    @Test func `only what is there can be removed`() async throws {
      try await withStage(Stage()) { stage in
        for (name, change) in [
          ("another start", { $0.guest += 4096 }), ("another size", { $0.byteCount -= 4096 }),
          ("another front-end address", { $0.frontend += 4096 }), ("nothing like it", { $0 = Region() }),
        ] as [(String, (inout Region) -> Void)] {
          try await stage.isRefused(name, "no memory region at", in: .running) { guest in
            let there = guest.ram.regions[1]
            var region = Region(guest: there.guest, byteCount: UInt64(there.byteCount), frontend: there.frontend)
            change(&region)
            // A descriptor is to be tolerated, and closed.
            return Missive(request: Ask.remMemReg, payload: littleEndian(UInt64(0)) + region.bytes, fds: [.file("hostile-rem", byteCount: 4096)])
          }
        }
      }
    }

    // MARK: Under traffic

    /// Keeps frames for the attacker on the wire while something is done.
    private func underTraffic(_ stage: Stage, _ guest: Guest, _ body: () async throws -> Void) async throws {
      let frames = stage.frames(16, to: 1)
      let traffic = Task { try await stage.inject(frames, speed: "pps=20000", loops: 150) }
      let hasBegun = await eventually { await stage.status(1).receive.lent.frames + stage.status(1).receive.bounced.frames > 20 }
      #expect(hasBegun)
      try await body()
      _ = try await traffic.value
    }

    @Test(arguments: [2048, 512]) func `nothing is written into memory that was taken away`(bufferBytes: Int) async throws {
      try await withStage(Stage()) { stage in
        for way in ["removed", "replaced by less", "replaced by none", "replaced by other pages"] {
          // Rings lie in the first region, buffers in the second.
          let guest = try Guest(stage, vm: 1, Shape(receiveSize: 128, bufferBytes: bufferBytes, memory: [256 << 10, 512 << 10]))
          try guest.start()
          let away = guest.ram.regions[1]
          for n in 0..<128 { guest.post([Piece(away.guest + UInt64(n * 4096), bufferBytes)]) }
          guest.receive.showAndKnock()
          var place = 128
          let other = Handle.file("hostile-other", byteCount: away.byteCount)
          try await underTraffic(stage, guest) {
            // The driver goes on, as one whose memory is about to be unplugged should not.
            guest.collectAndRepost(&place)
            let first = guest.ram.regions[0]
            switch way {
            case "removed":
              try guest.front.must(Ask.remMemReg, littleEndian(UInt64(0)) + away.description)
            case "replaced by less":
              try guest.front.must(Ask.setMemTable, littleEndian(UInt32(1), UInt32(0)) + first.description, fds: [first.file.number])
            case "replaced by none":
              try guest.front.must(Ask.setMemTable, littleEndian(UInt32(0), UInt32(0)))
            default:
              try guest.front.must(
                Ask.setMemTable, littleEndian(UInt32(2), UInt32(0)) + first.description + away.description,
                fds: [first.file.number, other.number])
            }
            // Answered: from now on it is no longer theirs.
            guest.ram.accept(away.guest, away.byteCount)
            guest.ram.shutAll(in: away.guest, away.byteCount)
            #expect(eventually { Holders.mappings(guest.ram.name + "-1") == 1 }, "\(way): still mapped")
            usleep(20_000)
          }
          if way != "replaced by other pages" {
            // If every buffer was used before the memory went, the ring meets that memory in the next one.
            _ = guest.collect()
            if guest.receive.room > 0 { guest.post([Piece(away.guest, bufferBytes)]) }
            guest.ram.shutAll(in: away.guest, away.byteCount)
            guest.receive.showAndKnock()
            _ = await eventually { await stage.ring(1, 0).state == "failed" }
          }
          let ring = await stage.ring(1, 0)
          switch way {
          case "replaced by none": #expect(ring.state == "failed" && ring.reason?.contains("its memory was taken away") == true, "\(way): \(ring)")
          case "replaced by other pages": #expect(ring.state == "running", "\(way): \(ring)")
          default: #expect(ring.state == "failed" && ring.reason?.contains("is not guest memory") == true, "\(way): \(ring)")
          }
          if ring.state == "failed" { #expect(guest.receive.fault.take() != nil, "\(way): its error descriptor was not raised") }
          #expect(await stage.status().nic.iommu_faults == 0, "\(way)")
          try await stage.isGone(guest, way, things: [other])
          #expect(guest.ram.firstDamage() == nil, "\(way): \(guest.ram.firstDamage() ?? "")")
        }
      }
    }

    @Test func `a ring whose own memory goes fails, and no other`() async throws {
      try await withStage(Stage()) { stage in
        let guest = try Guest(stage, vm: 1, Shape(memory: [512 << 10, 256 << 10]))
        // The sending ring moves to the second region.
        let place = guest.ram.regions[1]
        try guest.negotiate()
        try guest.shareMemory()
        try guest.start(guest.receive)
        guest.replenish()
        for n in 0..<512 { guest.ram.put64(0, place.guest + UInt64(n * 8)) }
        let address = littleEndian(UInt32(1), UInt32(0), place.frontend, place.frontend + 2048, place.frontend + 1024, UInt64(0))
        try guest.front.must(Ask.setVringErr, littleEndian(UInt64(1)), fds: [guest.send.fault.number])
        try guest.front.must(Ask.setVringNum, littleEndian(UInt32(1), UInt32(32)))
        try guest.front.must(Ask.setVringAddr, address)
        try guest.front.must(Ask.setVringKick, littleEndian(UInt64(1)), fds: [guest.send.kick.number])
        #expect(await stage.ring(1, 1).state != "failed")
        guest.ram.open(place.guest + 2048, 6 + 8 * 32)
        try await underTraffic(stage, guest) {
          try guest.front.must(Ask.remMemReg, littleEndian(UInt64(0)) + place.description)
          guest.ram.shutAll(in: place.guest, place.byteCount)
          guest.ram.accept(place.guest, place.byteCount)
        }
        let rings = await stage.status(1).rings
        #expect(rings[1].state == "failed" && rings[1].reason?.contains("is not in one region of guest memory") == true, "\(rings[1])")
        #expect(rings[0].state == "running", "\(rings[0])")
        #expect(guest.send.fault.take() != nil)
        try await stage.isGone(guest, "half its rings")
      }
    }

    @Test func `the same table again changes nothing`() async throws {
      try await withStage(Stage()) { stage in
        let guest = try stage.guest(.running)
        try await underTraffic(stage, guest) {
          let mark = stage.mark
          for n in 0..<50 {
            guest.harvestAndReplenish()
            // In another order, and by descriptors of its own.
            let regions = n % 2 == 0 ? guest.ram.regions : guest.ram.regions.reversed()
            try guest.front.must(Ask.setMemTable, littleEndian(UInt32(2), UInt32(0)) + regions.flatMap(\.description), fds: regions.map(\.file.number))
          }
          #expect(!stage.hasSaid("stopped", since: mark, vm: 1))
          #expect(Holders.mappings(guest.ram.name + "-") == 4)
        }
        #expect(await stage.ring(1, 0).state == "running")
        try await stage.isGone(guest, "the same again")
      }
    }

    @Test func `memory comes and goes under traffic`() async throws {
      try await withStage(Stage()) { stage in
        let guest = try stage.guest(.running)
        let file = Handle.file("hostile-plug", byteCount: Self.fileBytes)
        let region = littleEndian(UInt64(0)) + Region().bytes
        try await underTraffic(stage, guest) {
          for _ in 0..<100 {
            guest.harvestAndReplenish()
            try guest.front.must(Ask.addMemReg, region, fds: [file.number])
            try guest.front.must(Ask.remMemReg, region)
          }
        }
        #expect(await stage.ring(1, 0).state == "running")
        try await stage.isGone(guest, "plugged a hundred times", things: [file])
        #expect(Holders.mappings("hostile-plug") == 0)
      }
    }

    // MARK: Files that become shorter

    @Test(arguments: ["buffers", "rings", "everything", "the log"]) func `memory that is taken back costs the guest its connection only`(what: String) async throws {
      try await withStage(Stage()) { stage in
        let guest = try Guest(stage, vm: 1, Shape(memory: [256 << 10, 512 << 10]))
        try guest.start()
        let buffers = guest.ram.regions[1]
        for n in 0..<32 { guest.post([Piece(buffers.guest + UInt64(n * 4096), 2048)]) }
        guest.receive.showAndKnock()
        let log = Handle.file("hostile-log", byteCount: 4096)
        _ = try guest.front.ask(Ask.setLogBase, littleEndian(UInt64(4096), UInt64(0)), fds: [log.number])
        try guest.front.must(Ask.setFeatures, littleEndian(guest.features | FeatureBit.logAll))
        try await stage.inject(stage.frames(4, to: 1))
        let mark = stage.mark
        // This process has mapped it too: it does not look there from now on.
        let gone = what == "buffers" ? [buffers.file] : what == "rings" ? [guest.ram.regions[0].file] : what == "the log" ? [log] : guest.ram.regions.map(\.file)
        for file in gone { #expect(ftruncate(file.number, 0) == 0) }
        for _ in 0..<3 {
          try await stage.inject(stage.frames(8, to: 1), speed: "pps=50000")
          guest.receive.knock()
        }
        try await stage.victimGoesOn(what)
        let isNamed = eventually { stage.hasSaid("truncated while it was in use", since: mark, vm: 1) }
        #expect(isNamed, "\(what): \(stage.text(since: mark, vm: 1))")
        if isNamed { #expect(guest.front.isHungUp(), "\(what)") }
        guest.front.close()
        #expect(await eventually { await stage.status(1).connection == "listening" })
        try await stage.victimGoesOn("after \(what)")
        #expect(eventually { Holders.shared(guest.ram.regions.map(\.file) + [log]).isEmpty })
      }
    }

    @Test func `a sparse file of great length costs nobody time`() async throws {
      try await withStage(Stage()) { stage in
        let guest = try stage.guest(.running)
        let file = Handle.file("hostile-sparse", byteCount: 64 << 30)
        for (name, region) in [
          ("aligned", Region(guest: 0x1_0000_0000, byteCount: 64 << 30, frontend: 0x20_0000_0000)),
          ("not aligned", Region(guest: 0x1_0000_1000, byteCount: 64 << 30 - 4096, frontend: 0x20_0000_0000)),
        ] {
          let start = Date()
          _ = try guest.front.order(Ask.addMemReg, littleEndian(UInt64(0)) + region.bytes, fds: [file.number])
          // A card's IOMMU has large pages for it only where both addresses are on one.
          #expect(Holders.places("hostile-sparse").map { $0 % (2 << 20) } == [region.guest % (2 << 20)], "\(name)")
          try await stage.victimGoesOn(name)
          _ = try? guest.front.order(Ask.remMemReg, littleEndian(UInt64(0)) + region.bytes)
          print("HostileTests: 64 GiB \(name) took \(-start.timeIntervalSinceNow) s")
        }
        try await stage.isGone(guest, "64 GiB", things: [file])
      }
    }
  }
}

extension GuestRAM {
  func shutAll(in start: UInt64, _ count: Int) { forget(where: { $0 >= start && $0 < start + UInt64(count) }) }
}

extension Guest {
  func harvestAndReplenish() {
    _ = harvest()
    replenish()
  }
  /// Posts as many buffers as have come back, each on a page of its own in the second region.
  func collectAndRepost(_ place: inout Int) {
    let away = ram.regions[1]
    for _ in collect() {
      post([Piece(away.guest + UInt64(place * 4096 % away.byteCount), shape.bufferBytes)])
      place += 1
    }
    receive.showAndKnock()
  }
}
