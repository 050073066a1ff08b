import Datapath
import Foundation
import Testing

extension Hostile {
  /// Guests that break one rule. What follows: that ring fails by the rule's name, and nothing else happens to anybody.
  @Suite(.serialized) struct GuestBreaches {
    /// How buffers are dealt with: `lent` to the card, `bounced` because they are small, `copied` because the VM is
    /// to be served so.
    enum Way: CaseIterable { case lent, bounced, copied }

    func stage(_ way: Way) throws -> Stage {
      try Stage(adjust: { if way == .copied { $0.vms[1].mode = .copy } })
    }
    func shape(_ breach: Breach, _ way: Way, isPacked: Bool) -> Shape {
      var shape = Shape(isPacked: isPacked, receiveSize: 32, sendSize: 32, bufferBytes: way == .bounced ? 512 : 2048)
      if let features = breach.features { shape.features = features }
      return shape
    }

    @Test(arguments: Way.allCases, [false, true]) func `a receive queue`(way: Way, isPacked: Bool) async throws {
      try await withStage(stage(way)) { stage in
        for breach in Breach.both(isReceive: true) where isPacked ? breach.isPacked : breach.isSplit {
          let label = "\(breach.name), \(way), \(isPacked ? "packed" : "split")"
          let guest = try Guest(stage, vm: 1, shape(breach, way, isPacked: isPacked))
          try guest.start()
          guest.replenish(12)
          // It works, and as it is meant to.
          let before = await stage.status(1).receive
          let first = stage.frames(3, to: 1)
          try await stage.inject(first)
          let found = guest.harvest()
          #expect(found == first, "\(label): \(found.count) frames")
          let after = await stage.status(1).receive
          #expect((way == .lent ? after.lent.frames - before.lent.frames : after.bounced.frames - before.bounced.frames) == 3, "\(label)")

          breach.act(guest, guest.receive)
          try await fails(guest, guest.receive, breach, label)
          // Nothing comes any more, what was out is not written to, and nothing is given back.
          let used = guest.receive.isPacked ? 0 : guest.ram.load16(guest.receive.device + 2)
          guest.ram.freeze(but: guest.send)
          try await stage.inject(stage.frames(3, to: 1), speed: "pps=100000")
          if !isPacked { #expect(guest.ram.load16(guest.receive.device + 2) == used, "\(label)") }
          #expect(guest.audit(strangers: [stage.tag(0)]) == [], "\(label)")
          try await sends(guest, label)
          try await startsAnew(guest, label)
          try await stage.isGone(guest, label)
        }
      }
    }

    @Test(arguments: [Way.lent, .copied], [false, true]) func `a transmit queue`(way: Way, isPacked: Bool) async throws {
      try await withStage(stage(way)) { stage in
        for breach in Breach.both(isReceive: false) where isPacked ? breach.isPacked : breach.isSplit {
          let label = "\(breach.name), \(way), \(isPacked ? "packed" : "split")"
          let guest = try Guest(stage, vm: 1, shape(breach, way, isPacked: isPacked))
          try guest.start()
          guest.replenish(12)
          try await sends(guest, label)
          breach.act(guest, guest.send)
          try await fails(guest, guest.send, breach, label)
          #expect(guest.audit(strangers: [stage.tag(0)]) == [], "\(label)")
          // What came behind it is not sent.
          #expect(stage.victim.harvest().isEmpty, "\(label): a frame was sent")
          let frames = stage.frames(3, to: 1)
          try await stage.inject(frames)
          let found = guest.harvest()
          #expect(found == frames, "\(label): the other ring does not receive")
          try await stage.isGone(guest, label)
        }
      }
    }

    /// The ring fails by the rule's name; the other one and the connection go on.
    private func fails(_ guest: Guest, _ ring: Ring, _ breach: Breach, _ label: String) async throws {
      let other = ring.isReceive ? guest.send : guest.receive
      // Something good behind it, which must not be taken.
      if ring.room > 0, ring.isReceive { _ = ring.offer([Piece(guest.ram.take(2048), 2048)]) }
      if ring.room > 0, !ring.isReceive { guest.transmit(guest.frame(to: 0)) }
      ring.showAndKnock()
      let stage = guest.stage
      #expect(await eventually { await stage.ring(1, ring.number).state == "failed" }, "\(label): it goes on")
      let status = await stage.status(1)
      let reason = status.rings[ring.number].reason ?? ""
      #expect(reason.contains("the guest broke its ring") && reason.contains(breach.words), "\(label): \(reason)")
      #expect(status.last_violation == "ring \(ring.number): \(reason)", "\(label): \(status.last_violation ?? "none")")
      #expect(status.rings[other.number].state == "running" && status.connection == "connected", "\(label)")
      #expect(ring.fault.take() != nil, "\(label): its error descriptor was not raised")
      #expect(other.fault.take() == nil, "\(label): the other's error descriptor was raised")
    }

    /// The transmit queue works: the victim gets what it sends.
    private func sends(_ guest: Guest, _ label: String) async throws {
      let frames = [60, 1514].map { guest.frame(to: 0, byteCount: $0) }
      for frame in frames { guest.transmit(frame) }
      guest.send.showAndKnock()
      var found: [[UInt8]] = []
      #expect(eventually { found += guest.stage.victim.harvest(); return found.count >= 2 }, "\(label): \(found.count) frames were sent")
      #expect(found == frames, "\(label): other frames were sent")
      #expect(eventually { _ = guest.send.collect(); return guest.send.outstanding == 0 }, "\(label): not given back")
      guest.stage.victim.replenish()
    }

    /// A ring that failed can be set up anew, by the same front-end.
    private func startsAnew(_ guest: Guest, _ label: String) async throws {
      let answer = try guest.front.ask(Ask.getVringBase, littleEndian(UInt32(0), UInt32(0)))
      #expect(number(answer[0..<4]) == 0, "\(label)")
      let ring = Ring.make(guest.ram, number: 0, size: 16, isPacked: guest.shape.isPacked)
      let buffers = (0..<4).map { _ in Piece(guest.ram.take(2048), 2048) }
      for buffer in buffers {
        guest.ram.open(buffer.start, 2048)
        _ = ring.offer([buffer])
      }
      ring.show()
      try guest.start(ring)
      let frames = guest.stage.frames(4, to: 1)
      try await guest.stage.inject(frames)
      let used = ring.collect()
      #expect(used.map(\.count) == frames.map { UInt32($0.count + 12) }, "\(label): \(used)")
      for (buffer, frame) in zip(buffers, frames) { #expect(guest.ram.read(buffer.start + 12, frame.count) == frame, "\(label)") }
    }
  }
}

extension Guest {
  /// A frame of its own for another VM.
  func frame(to vm: Int, byteCount: Int = 200) -> [UInt8] {
    frameCount += 1
    // A mark that may be found with both.
    return Frames.make(to: stage.mac(vm), from: mac, tag: 0xC3E1_F0F0, number: frameCount, byteCount: byteCount)
  }
}
