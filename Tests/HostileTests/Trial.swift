import Foundation
import Testing

/// How far a front-end has come when it does something wrong.
enum Phase: CaseIterable {
  /// Nothing was said.
  case fresh
  /// Features and memory are there.
  case prepared
  /// Both rings run, and buffers are posted.
  case running
}

/// A message as bytes and descriptors.
struct Missive {
  var request: UInt32
  var payload: [UInt8] = []
  var fds: [Handle] = []
}

extension GuestRAM {
  /// From now on nothing is the device's to write any more, but what a ring that runs is.
  func freeze(but ring: Ring? = nil) {
    for region in regions { accept(region.guest, region.byteCount) }
    shutAll()
    if let ring { open(ring.device, ring.isPacked ? 4 : 6 + 8 * ring.size) }
  }
}

extension Stage {
  func guest(_ phase: Phase, _ shape: Shape = Shape(), vm: Int = 1) throws -> Guest {
    let guest = try Guest(self, vm: vm, shape)
    switch phase {
    case .fresh: break
    case .prepared:
      try guest.negotiate()
      try guest.shareMemory()
    case .running:
      try guest.start()
      guest.replenish()
    }
    return guest
  }

  /// After a front-end has gone, or was sent away: nothing of its is held or mapped, and nothing of its memory is written any
  /// more, while the victim goes on.
  func isGone(_ guest: Guest, _ label: String, things: [Handle] = [], asksVictim: Bool = true) async throws {
    guest.front.close()
    #expect(eventually { disconnections(guest.vm) == guest.turn }, "\(label): still connected")
    guest.ram.freeze()
    let owned = things + guest.ram.regions.map(\.file) + [guest.receive, guest.send].flatMap { [$0.kick, $0.call, $0.fault] }
    #expect(eventually { Holders.shared(owned).isEmpty }, "\(label): \(Holders.shared(owned)) still held")
    // Who reads the list while others map and unmap may miss a line.
    #expect(
      eventually { Holders.mappings(guest.ram.name + "-") == guest.ram.regions.count },
      "\(label): \(Holders.mappings(guest.ram.name + "-")) mappings of guest memory")
    if asksVictim { try await victimGoesOn(label, between: frames(4, to: guest.vm)) }
    #expect(guest.audit(strangers: [tag(0)]) == [], "\(label)")
  }

  /// A message that is refused: with 1 if an answer is asked for, and the connection goes on; else by hanging up.
  func isRefused(
    _ label: String, _ words: String, in phase: Phase = .prepared, shape: Shape = Shape(),
    _ make: (Guest) throws -> Missive
  ) async throws {
    for asks in [true, false] {
      let label = "\(label), \(phase), \(asks ? "asked" : "not asked")"
      let guest = try guest(phase, shape)
      let missive = try make(guest)
      let mark = self.mark
      if asks {
        let answer = try guest.front.order(missive.request, missive.payload, fds: missive.fds.map(\.number))
        #expect(answer != 0, "\(label): was done")
        // It is served as before, and there was one answer and no more.
        let features = try guest.front.ask(Ask.getFeatures)
        #expect(number(features) & FeatureBit.version1 != 0, "\(label)")
        #expect(eventually { Holders.shared(missive.fds).isEmpty }, "\(label): a descriptor was kept")
      } else {
        guest.front.message(missive.request, missive.payload, fds: missive.fds.map(\.number))
        #expect(guest.front.isHungUp(), "\(label): not hung up")
      }
      #expect(eventually { hasSaid(words, since: mark, vm: 1) }, "\(label): no word of it; said was:\n\(text(since: mark, vm: 1))")
      let violation = await status(1).last_violation
      #expect(violation?.contains(words) == true, "\(label): the last violation is \(violation ?? "none")")
      try await isGone(guest, label, things: missive.fds)
    }
  }

  /// Something after which a front-end is not listened to any more.
  func isHungUp(
    _ label: String, _ words: String, in phase: Phase = .prepared, things: [Handle] = [],
    _ act: (Guest) throws -> Void
  ) async throws {
    let label = "\(label), \(phase)"
    let guest = try guest(phase)
    let mark = self.mark
    try act(guest)
    #expect(guest.front.isHungUp(), "\(label): not hung up")
    #expect(eventually { hasSaid(words, since: mark, vm: 1) }, "\(label): no word of it; said was:\n\(text(since: mark, vm: 1))")
    try await isGone(guest, label, things: things)
  }
}
