import Bus
import Simulation
import Synchronization
import Testing

@testable import Control

extension Hostile {
  /// What a card may reach: memory that comes and goes under strict protection, pages that cannot be mapped, and mappings that cannot be
  /// removed.
  @Suite(.serialized) struct Protection {
    private static let added = Memory.Region()

    private func model(of stage: Stage) async throws -> SharedCard {
      let card = await withCheckedContinuation { continuation in
        stage.service.onControlThread { continuation.resume(returning: $0.host.model) }
      }
      return try #require(card)
    }
    private func isBack(_ stage: Stage, since mark: Int) async {
      #expect(eventually(within: 20) { stage.events(since: mark).contains { $0.message.contains("the card is back") } })
    }
    private func stage(_ protection: Configuration.NIC.Protection) throws -> Stage { try Stage { $0.nic.protection = protection } }

    // MARK: Memory that comes and goes

    @Test func `strict: regions come and go under traffic, and nobody notices`() async throws {
      try await withStage(stage(.strict)) { stage in
        let guest = try stage.guest(.running)
        let file = Handle.file("hostile-strict", byteCount: Memory.fileBytes)
        let frames = stage.frames(16, to: 1)
        let traffic = Task { try await stage.inject(frames, speed: "pps=20000", loops: 100) }
        #expect(await eventually { await stage.status(1).receive.lent.frames > 20 })
        for _ in 0..<40 {
          try guest.front.must(Ask.addMemReg, littleEndian(UInt64(0)) + Self.added.bytes, fds: [file.number])
          guest.harvestAndReplenish()
          try guest.front.must(Ask.remMemReg, littleEndian(UInt64(0)) + Self.added.bytes)
          guest.harvestAndReplenish()
        }
        _ = try await traffic.value
        let status = await stage.status()
        #expect(status.nic.iommu_faults == 0 && status.nic.unmap_failures == 0 && status.vms["attacker1"]!.rings[0].state == "running")
        for law in status.laws { #expect(law.holds, "\(law)") }
        try await stage.isGone(guest, "strict", things: [file])
        #expect(Holders.mappings("hostile-strict") == 0)
      }
    }

    // MARK: Pages that cannot be mapped

    @Test func `strict: what cannot be mapped is copied, counted, and as whole as ever`() async throws {
      try await withStage(stage(.strict)) { stage in
        let guest = try stage.guest(.running)
        try await stage.victimGoesOn("before")
        let model = try await model(of: stage)
        // Every second page that is asked for.
        let calls = Mutex(0)
        model.withModels { _, iommu, _ in iommu.failsMapping = { _, _ in calls.withLock { $0 += 1; return $0 % 2 == 0 } } }
        for round in 0..<4 {
          let wanted = stage.frames(24, to: 1)
          try await stage.inject(wanted)
          #expect(guest.harvest() == wanted, "round \(round)")
          guest.replenish()
          try await stage.victimGoesOn("round \(round)")
        }
        // With its own address as the source.
        let sent = (0..<8).map { Frames.make(to: stage.mac(0), from: stage.mac(1), tag: 0x5E4D_0001, number: $0, byteCount: 60 + 181 * $0) }
        for frame in sent { guest.transmit(frame) }
        guest.send.showAndKnock()
        var arrived: [[UInt8]] = []
        #expect(eventually { arrived += stage.victim.harvest(); return arrived.count >= sent.count })
        #expect(arrived == sent)
        stage.victim.replenish()
        model.withModels { _, iommu, _ in iommu.failsMapping = { _, _ in false } }
        let status = await stage.status()
        let vm = status.vms["attacker1"]!
        #expect(vm.receive.bounced_by["not_mapped"] ?? 0 > 0 && vm.receive.lent.frames > 0, "\(vm.receive)")
        #expect(vm.transmit.bounced_by["not_mapped"] ?? 0 > 0, "\(vm.transmit)")
        #expect(vm.receive.bounced.frames == vm.receive.bounced_by.values.reduce(0, +))
        #expect(status.nic.iommu_faults == 0 && status.nic.unmap_failures == 0)
        for law in status.laws { #expect(law.holds, "\(law)") }
        #expect(guest.audit(strangers: [stage.tag(0)]).isEmpty)
        try await stage.victimGoesOn("after")
        try await stage.isGone(guest, "not mapped")
      }
    }

    // MARK: Mappings that cannot be removed

    /// Refuses to unmap the first thing from an address on, once; answers how often it did.
    private func refuseOnce(_ model: SharedCard, from start: UInt64, below end: UInt64) {
      model.withModels { _, iommu, _ in
        var isDone = false
        iommu.failsUnmapping = { address, _ in
          guard !isDone, address.rawValue >= start, address.rawValue < end else { return false }
          isDone = true
          return true
        }
      }
    }
    private static let window = DMAWindow.span
    /// Of VM 1, number 2.
    private static var attackers: Range<UInt64> { 2 * window..<3 * window }

    private func isReported(_ stage: Stage, since mark: Int, _ vm: String, _ label: String) async {
      let isSaid = eventually {
        stage.events(since: mark).contains {
          $0.level == .error && $0.message.contains("could not be unmapped") && $0["vm"] == vm && $0["device"]?.hasPrefix("sim") == true
        }
      }
      #expect(isSaid, "\(label): \(stage.events(since: mark).map(\.message))")
      #expect(await stage.status().nic.unmap_failures == 1, "\(label)")
    }

    @Test(arguments: ["removed", "table", "table, not asked", "no memory"])
    func `static: a front-end is not told that memory is gone which is not`(way: String) async throws {
      try await withStage(stage(.static)) { stage in
        let guest = try stage.guest(.running)
        let mark = stage.mark
        let model = try await model(of: stage)
        refuseOnce(model, from: Self.attackers.lowerBound, below: Self.attackers.upperBound)
        let region = guest.ram.regions[1]
        switch way {
        case "removed":
          #expect(try guest.front.order(Ask.remMemReg, littleEndian(UInt64(0)) + region.description) != 0)
        case "table":
          let first = guest.ram.regions[0]
          #expect(try guest.front.order(Ask.setMemTable, littleEndian(UInt32(1), UInt32(0)) + first.description, fds: [first.file.number]) != 0)
        case "no memory": #expect(try guest.front.order(Ask.setMemTable, littleEndian(UInt32(0), UInt32(0))) != 0)
        default:
          let first = guest.ram.regions[0]
          guest.front.message(Ask.setMemTable, littleEndian(UInt32(1), UInt32(0)) + first.description, fds: [first.file.number])
          #expect(guest.front.isHungUp())
        }
        // Before the answer was there.
        #expect(model.withModels { card, _, _ in !card.isBusMaster })
        #expect(model.withModels { _, iommu, _ in iommu.mappingCount } > 0)
        await isReported(stage, since: mark, "attacker1", way)
        await isBack(stage, since: mark)
        // Kept here for good, whoever has gone.
        guest.front.close()
        #expect(eventually { stage.disconnections(1) == guest.turn })
        #expect(Holders.mappings(guest.ram.name + "-") == guest.ram.regions.count + 1, "\(way)")
        _ = stage.victim.harvest()
        stage.victim.replenish()
        try await stage.victimGoesOn("after the card is back")
        let other = try stage.guest(.running)
        let frames = stage.frames(4, to: 1)
        try await stage.inject(frames)
        #expect(other.harvest() == frames, "\(way)")
        try await stage.isGone(other, way)
      }
    }

    @Test func `static: a front-end that goes leaves what cannot be unmapped behind`() async throws {
      try await withStage(stage(.static)) { stage in
        let guest = try stage.guest(.running)
        let mark = stage.mark
        let model = try await model(of: stage)
        refuseOnce(model, from: Self.attackers.lowerBound, below: Self.attackers.upperBound)
        guest.front.close()
        #expect(eventually { stage.disconnections(1) == guest.turn })
        #expect(model.withModels { card, _, _ in !card.isBusMaster })
        await isReported(stage, since: mark, "attacker1", "gone")
        await isBack(stage, since: mark)
        #expect(Holders.mappings(guest.ram.name + "-") == guest.ram.regions.count + 1)
        _ = stage.victim.harvest()
        stage.victim.replenish()
        try await stage.victimGoesOn("after the card is back")
      }
    }

    @Test func `a ring's own pages that cannot be unmapped stop the card too`() async throws {
      try await withStage(stage(.static)) { stage in
        let guest = try stage.guest(.running)
        let mark = stage.mark
        let model = try await model(of: stage)
        refuseOnce(model, from: 0, below: Self.window)
        // What a ring was made of stays for its next start, as long as its front-end does.
        guest.front.close()
        #expect(eventually { stage.disconnections(1) == guest.turn })
        #expect(model.withModels { card, _, _ in !card.isBusMaster })
        await isReported(stage, since: mark, "none", "ring")
        await isBack(stage, since: mark)
        _ = stage.victim.harvest()
        stage.victim.replenish()
        try await stage.victimGoesOn("after the card is back")
        try await stage.isGone(guest, "ring")
      }
    }

    @Test func `strict: a frame whose page cannot be unmapped does not come, and no other behind it`() async throws {
      try await withStage(stage(.strict)) { stage in
        let guest = try stage.guest(.running)
        let mark = stage.mark
        let model = try await model(of: stage)
        refuseOnce(model, from: Self.attackers.lowerBound, below: Self.attackers.upperBound)
        let wanted = stage.frames(8, to: 1)
        try await stage.inject(wanted, speed: "pps=20000")
        await isReported(stage, since: mark, "attacker1", "strict")
        #expect(model.withModels { card, _, _ in !card.isBusMaster })
        let found = guest.harvest()
        #expect(found.count < wanted.count && found == Array(wanted.prefix(found.count)), "\(found.count) frames")
        await isBack(stage, since: mark)
        let status = await stage.status()
        for law in status.laws { #expect(law.holds, "\(law)") }
        #expect(status.vms["attacker1"]!.receive.dropped_by["stopped"] ?? 0 > 0, "\(status.vms["attacker1"]!.receive)")
        _ = stage.victim.harvest()
        stage.victim.replenish()
        try await stage.victimGoesOn("after the card is back")
        // It goes on where it was, and what could not be unmapped is kept when it has gone.
        #expect(status.vms["attacker1"]!.rings.allSatisfy { $0.state == "running" })
        #expect(guest.clearPosted(of: Array(wanted.dropFirst(found.count))))
        guest.replenish()
        let more = stage.frames(8, to: 1)
        try await stage.inject(more)
        #expect(guest.harvest() == more)
        #expect(guest.audit(strangers: [stage.tag(0)]).isEmpty)
        guest.front.close()
        #expect(eventually { stage.disconnections(1) == guest.turn })
        #expect(Holders.mappings(guest.ram.name + "-") == guest.ram.regions.count + 1)
      }
    }
  }
}
