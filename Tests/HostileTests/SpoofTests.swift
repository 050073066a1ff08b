import Control
import FlowSteering
import Foundation
import Testing

extension Hostile {
  /// What leaves a VM is its own: guests that send under others' addresses, and into others' VLANs. VM 0 is in VLAN 200;
  /// VM 1, which sends, and VM 2, its neighbour, are in VLAN 100.
  @Suite(.serialized) struct Spoofing {
    /// How frames look to VMs, and what compares them: the card, or the processor because rules give VM 1 more addresses.
    struct Way: CustomTestStringConvertible, Sendable {
      var port: VLANPort
      var byProcessor = false
      var isStrict = false
      var testDescription: String { "\(port.rawValue)\(byProcessor ? ", by the processor" : "")\(isStrict ? ", strict" : "")" }
      static let all = [
        Way(port: .access), Way(port: .tagged), Way(port: .access, byProcessor: true), Way(port: .tagged, byProcessor: true),
        Way(port: .access, byProcessor: true, isStrict: true), Way(port: .tagged, byProcessor: true, isStrict: true),
      ]
    }

    private func stage(_ way: Way, spoof: Configuration.VM.Spoofing = .deny) throws -> Stage {
      try Stage(attackers: 2, victimShape: nil) { configuration in
        for n in 0..<3 {
          configuration.vms[n].vlan = n == 0 ? 200 : 100
          configuration.vms[n].vlanPort = way.port
        }
        if spoof == .allow { (configuration.vms[1].spoof, configuration.vms[1].vlanPort) = (.allow, .tagged) }
        if way.byProcessor { configuration.rules = [try! Rule(parsing: "match eth.dst=02:00:00:00:0a:09 vlan.id=100 then vm attacker1")] }
        if way.isStrict { configuration.nic.protection = .strict }
      }
    }
    private func guests(_ stage: Stage) throws -> [Guest] {
      try (0..<3).map { n in
        let guest = try Guest(stage, vm: n, Shape(receiveSize: 64, sendSize: 64))
        try guest.start()
        guest.replenish()
        return guest
      }
    }
    private func tag(_ vlan: UInt16) -> [UInt8] { [0x81, 0, UInt8(vlan >> 8), UInt8(vlan & 255)] }
    private func tagged(_ frame: [UInt8], _ vlan: UInt16) -> [UInt8] { Array(frame[..<12]) + tag(vlan) + Array(frame[12...]) }
    private func frame(_ stage: Stage, to: [UInt8], from: [UInt8], vlan: UInt16? = nil, _ number: Int, byteCount: Int = 300) -> [UInt8] {
      let plain = Frames.make(to: to, from: from, tag: 0xC3E1_F0F0, number: number, byteCount: byteCount)
      return vlan.map { tagged(plain, $0) } ?? plain
    }
    /// Sends, and waits until so many more were refused and all came back.
    private func send(_ frames: [[UInt8]], by guest: Guest, _ stage: Stage, refused: Int) async {
      let before = await stage.status(guest.vm).transmit.dropped_by["spoofed"] ?? 0
      var returned = 0
      for frame in frames { guest.transmit(frame) }
      guest.send.showAndKnock()
      #expect(eventually { returned += guest.send.collect().count; return returned == frames.count }, "\(returned) of \(frames.count) came back")
      let wanted = before + UInt64(refused)
      #expect(await eventually { await stage.status(guest.vm).transmit.dropped_by["spoofed"] ?? 0 == wanted })
    }
    /// All that a VM has got, up to a frame that comes from the wire now.
    private func harvest(_ guest: Guest, _ stage: Stage, port: VLANPort, vlan: UInt16) async throws -> [[UInt8]] {
      let last = frame(stage, to: stage.mac(guest.vm), from: [2, 0, 0, 0, 0xEE, 1], 9999)
      try await stage.inject([tagged(last, vlan)])
      var found: [[UInt8]] = []
      let seen = port == .access ? last : tagged(last, vlan)
      #expect(eventually { found += guest.harvest(); return found.last == seen }, "the frame from the wire did not come")
      return Array(found.dropLast())
    }

    @Test(arguments: Way.all) func `a frame under another address, or into another VLAN, reaches nobody and is counted`(way: Way) async throws {
      try await withStage(stage(way)) { stage in
        let guests = try guests(stage)
        let (a, b, c) = (stage.mac(1), stage.mac(0), stage.mac(2))
        let own: UInt16? = way.port == .access ? nil : 100
        let group = [UInt8](repeating: 0xFF, count: 6)
        let sources: [[UInt8]] = [b, c, [2, 0, 0, 0, 0, 9], group, [3] + a[1...]]
        let targets: [[UInt8]] = [b, c, [2, 0, 0, 0, 0, 8], group]
        let sent = await stage.status().nic.sent.frames
        // Under its own address into B's VLAN; as B, and as somebody else, into B's VLAN and its own; as nobody, as a group.
        for byteCount in [60, 300, 1400] {
          var frames = [frame(stage, to: b, from: a, vlan: 200, 1, byteCount: byteCount), frame(stage, to: b, from: b, vlan: 200, 2, byteCount: byteCount)]
          for source: [UInt8] in sources {
            for to: [UInt8] in targets { frames.append(frame(stage, to: to, from: source, vlan: own, 3, byteCount: byteCount)) }
          }
          // Into B's VLAN behind a tag of its own kind, and without a tag where frames must have one.
          if way.port == .tagged { frames += [frame(stage, to: b, from: a, 4, byteCount: byteCount), frame(stage, to: b, from: a, vlan: 0, 5, byteCount: byteCount)] }
          await send(frames, by: guests[1], stage, refused: frames.count)
        }
        #expect(await stage.status().nic.sent.frames == sent)
        #expect(try await harvest(guests[0], stage, port: way.port, vlan: 200).isEmpty)
        #expect(try await harvest(guests[2], stage, port: way.port, vlan: 100).isEmpty)
        let status = await stage.status(1)
        #expect(status.source_check == (way.byProcessor ? "processor" : "card"))
        #expect(status.vlan_port == way.port.rawValue)
        for law in await stage.status().laws { #expect(law.holds, "\(law)") }
      }
    }

    @Test(arguments: Way.all) func `a guest's own frames go to its neighbours and to the wire, in its VLAN`(way: Way) async throws {
      try await withStage(stage(way)) { stage in
        let guests = try guests(stage)
        let (a, b, c) = (stage.mac(1), stage.mac(0), stage.mac(2))
        let group: [UInt8] = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]
        var wanted: [[UInt8]] = []
        let wire = await stage.status().nic.sent.frames
        var number = 0
        func next(to: [UInt8], vlan: UInt16?, _ byteCount: Int) -> [UInt8] {
          number += 1
          return frame(stage, to: to, from: a, vlan: vlan, number, byteCount: byteCount)
        }
        for byteCount in [60, 100, 300, 1000, 1510] {
          // An access port takes its own tag, too, and a priority tag.
          for vlan: UInt16? in way.port == .access ? [nil, 100, 0] : [100] {
            let (one, all) = (next(to: c, vlan: vlan, byteCount), next(to: group, vlan: vlan, byteCount))
            await send([one, all, next(to: [2, 0, 0, 0, 0, 8], vlan: vlan, byteCount), next(to: b, vlan: vlan, byteCount)], by: guests[1], stage, refused: 0)
            wanted += [one, all].map { way.port == .access && vlan != nil ? Array($0[..<12] + $0[16...]) : $0 }
          }
        }
        #expect(try await harvest(guests[2], stage, port: way.port, vlan: 100) == wanted)
        #expect(try await harvest(guests[0], stage, port: way.port, vlan: 200).isEmpty)
        // The broadcasts, and those to an address that no VM has; what is for B's address is kept from the wire by it.
        let onWire = UInt64(wanted.count)
        #expect(await eventually { await stage.status().nic.sent.frames == wire + onWire })
        #expect(await stage.status(1).transmit.dropped_by.isEmpty)
      }
    }

    @Test func `a frame with two tags is of the outer one's VLAN`() async throws {
      for way in Way.all {
        try await withStage(stage(way)) { stage in
          let guests = try guests(stage)
          let plain = frame(stage, to: stage.mac(2), from: stage.mac(1), 1)
          await send([tagged(tagged(plain, 100), 200), tagged(tagged(plain, 300), 200)], by: guests[1], stage, refused: 2)
          await send([tagged(tagged(plain, 200), 100)], by: guests[1], stage, refused: 0)
          #expect(try await harvest(guests[2], stage, port: way.port, vlan: 100) == [way.port == .access ? tagged(plain, 200) : tagged(tagged(plain, 200), 100)])
          #expect(try await harvest(guests[0], stage, port: way.port, vlan: 200).isEmpty)
        }
      }
    }

    @Test func `with spoof: allow a guest sends as it likes`() async throws {
      try await withStage(stage(Way(port: .tagged), spoof: .allow)) { stage in
        let guests = try guests(stage)
        let sources: [[UInt8]] = [stage.mac(1), stage.mac(0), [2, 0, 0, 0, 0, 9]]
        let frames = sources.enumerated().map { frame(stage, to: stage.mac(0), from: $0.element, vlan: 200, $0.offset) }
        await send(frames, by: guests[1], stage, refused: 0)
        #expect(try await harvest(guests[0], stage, port: .tagged, vlan: 200) == frames)
        let status = await stage.status(1)
        #expect(status.source_check == "off" && status.vlan_check == "off")
      }
    }

    @Test(arguments: [VLANPort.access, .tagged]) func `rules that change what the card compares leave no moment without a check`(port: VLANPort) async throws {
      try await withStage(stage(Way(port: port))) { stage in
        let guests = try guests(stage)
        let (a, b) = (stage.mac(1), stage.mac(0))
        let own: UInt16? = port == .access ? nil : 100
        var number = 0
        for round in 0..<6 {
          let isMore = round % 2 == 0
          _ = try await stage.service.change(
            isMore ? RuleChange(add: ["match eth.dst=02:00:00:00:0a:07 vlan.id=100 then vm attacker1"])
              : RuleChange(flush: true))
          #expect(await stage.status(1).source_check == (isMore ? "processor" : "card"))
          #expect(await stage.ring(1, 1).state == "running")
          number += 1
          await send([frame(stage, to: stage.mac(2), from: [2, 0, 0, 0, 0x0A, 7], vlan: own, number), frame(stage, to: b, from: b, vlan: 200, number)], by: guests[1], stage, refused: 2)
          let honest = frame(stage, to: stage.mac(2), from: a, vlan: own, number)
          await send([honest], by: guests[1], stage, refused: 0)
          #expect(try await harvest(guests[2], stage, port: port, vlan: 100) == [honest])
          guests[2].replenish()
        }
        #expect(try await harvest(guests[0], stage, port: port, vlan: 200).isEmpty)
      }
    }
  }
}
