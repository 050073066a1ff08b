import Foundation
import Testing

extension Hostile {
  /// Every message in every state of a ring. What is to come of it is written down here, by the specification: vhost-user,
  /// "Ring states" and each message's own paragraph.
  @Suite(.serialized) struct States {
    struct State: CustomStringConvertible {
      var hasMemory: Bool
      var isStarted: Bool
      var isEnabled: Bool
      var description: String {
        "\(isStarted ? "started" : "stopped"), \(isEnabled ? "enabled" : "disabled"), \(hasMemory ? "with" : "without") memory"
      }
      static let all = [
        State(hasMemory: false, isStarted: false, isEnabled: false), State(hasMemory: false, isStarted: false, isEnabled: true),
        State(hasMemory: true, isStarted: false, isEnabled: false), State(hasMemory: true, isStarted: false, isEnabled: true),
        State(hasMemory: true, isStarted: true, isEnabled: false), State(hasMemory: true, isStarted: true, isEnabled: true),
      ]
      /// As the back-end reports it.
      var name: String { isStarted ? isEnabled ? "running" : "disabled" : "stopped" }
    }
    enum Outcome {
      /// Acknowledged with 0, or refused with another number.
      case done, refused
      /// Answered with a body of so many bytes.
      case body(Int)
      case hungUp
    }
    struct Line {
      var name: String
      var make: (Guest) -> Missive
      var outcome: (State) -> Outcome = { _ in .done }
      /// What the ring is afterwards.
      var after: (State) -> String = { $0.name }
    }

    static let ring = UInt32(0)
    static func plain(_ name: String, _ request: UInt32, _ payload: [UInt8] = [], fds: @escaping () -> [Handle] = { [] }) -> Line {
      Line(name: name, make: { _ in Missive(request: request, payload: payload, fds: fds()) })
    }
    static func asks(_ name: String, _ request: UInt32, _ count: Int) -> Line {
      var line = plain(name, request)
      line.outcome = { _ in .body(count) }
      return line
    }
    static func refuses(_ name: String, _ request: UInt32, _ payload: [UInt8] = [], fds: @escaping () -> [Handle] = { [] }) -> Line {
      var line = plain(name, request, payload, fds: fds)
      line.outcome = { _ in .refused }
      return line
    }
    /// Only of a ring that is stopped.
    static func whileStopped(_ name: String, _ make: @escaping (Guest) -> Missive) -> Line {
      Line(name: name, make: make, outcome: { $0.isStarted ? .refused : .done })
    }
    static func table(_ guest: Guest) -> Missive {
      Missive(
        request: Ask.setMemTable, payload: littleEndian(UInt32(2), UInt32(0)) + guest.ram.regions.flatMap(\.description),
        fds: guest.ram.regions.map(\.file))
    }
    static let elsewhere = littleEndian(UInt64(0), UInt64(0x4000_0000), UInt64(4096), UInt64(0x9000_0000), UInt64(0))
    static func started(_ state: State) -> String { state.hasMemory ? state.isEnabled ? "running" : "disabled" : "stopped" }

    static var lines: [Line] { basic + foreign }
    /// What is built.
    static var basic: [Line] { [
      asks("GET_FEATURES", Ask.getFeatures, 8), asks("GET_PROTOCOL_FEATURES", Ask.getProtocolFeatures, 8),
      asks("GET_QUEUE_NUM", Ask.getQueueNum, 8), asks("GET_MAX_MEM_SLOTS", Ask.getMaxMemSlots, 8),
      Line(name: "SET_FEATURES, the same", make: { Missive(request: Ask.setFeatures, payload: littleEndian($0.features)) }),
      Line(name: "SET_FEATURES, to log", make: { Missive(request: Ask.setFeatures, payload: littleEndian($0.features | FeatureBit.logAll)) }),
      whileStopped("SET_FEATURES, others") { Missive(request: Ask.setFeatures, payload: littleEndian($0.features | FeatureBit.inOrder)) },
      refuses("SET_FEATURES, not offered", Ask.setFeatures, littleEndian(UInt64(1) << 63)),
      Line(name: "SET_PROTOCOL_FEATURES, the same", make: { Missive(request: Ask.setProtocolFeatures, payload: littleEndian($0.shape.protocolFeatures)) }),
      whileStopped("SET_PROTOCOL_FEATURES, others") { Missive(request: Ask.setProtocolFeatures, payload: littleEndian($0.shape.protocolFeatures & ~ProtocolBit.rarp)) },
      refuses("SET_PROTOCOL_FEATURES, not offered", Ask.setProtocolFeatures, littleEndian(UInt64(1) << 14)),
      plain("SET_OWNER", Ask.setOwner),
      Line(name: "RESET_OWNER", make: { _ in Missive(request: Ask.resetOwner) }, after: { $0.isStarted ? "disabled" : "stopped" }),
      Line(name: "SET_MEM_TABLE", make: table),
      Line(
        name: "SET_MEM_TABLE, nothing", make: { _ in Missive(request: Ask.setMemTable, payload: littleEndian(UInt64(0))) },
        after: { $0.isStarted ? "failed" : "stopped" }),
      plain("ADD_MEM_REG", Ask.addMemReg, elsewhere) { [.file("hostile-state", byteCount: 4096)] },
      Line(
        name: "REM_MEM_REG", make: { Missive(request: Ask.remMemReg, payload: littleEndian(UInt64(0)) + $0.ram.regions[1].description) },
        outcome: { $0.hasMemory ? .done : .refused }),
      refuses("REM_MEM_REG of another", Ask.remMemReg, elsewhere),
      Line(
        name: "SET_LOG_BASE", make: { _ in Missive(request: Ask.setLogBase, payload: littleEndian(UInt64(4096), UInt64(0)), fds: [.file("hostile-log", byteCount: 4096)]) },
        outcome: { _ in .body(16) }),
      plain("SET_LOG_FD", Ask.setLogFd) { [.event()] },
      Line(name: "SET_VRING_NUM, the same", make: { Missive(request: Ask.setVringNum, payload: littleEndian(ring, UInt32($0.receive.size))) }),
      whileStopped("SET_VRING_NUM, another") { _ in Missive(request: Ask.setVringNum, payload: littleEndian(ring, UInt32(16))) },
      Line(name: "SET_VRING_ADDR, the same", make: { Missive(request: Ask.setVringAddr, payload: $0.addressMessage($0.receive)) }),
      whileStopped("SET_VRING_ADDR, another") { guest in
        let place = guest.ram.regions[1].frontend
        return Missive(request: Ask.setVringAddr, payload: littleEndian(ring, UInt32(0), place, place + 0x4000, place + 0x2000, UInt64(0)))
      },
      whileStopped("SET_VRING_BASE") { _ in Missive(request: Ask.setVringBase, payload: littleEndian(ring, UInt32(0))) },
      Line(
        name: "GET_VRING_BASE", make: { _ in Missive(request: Ask.getVringBase, payload: littleEndian(ring, UInt32(0))) },
        outcome: { _ in .body(8) }, after: { _ in "stopped" }),
      Line(name: "SET_VRING_KICK", make: { Missive(request: Ask.setVringKick, payload: littleEndian(UInt64(ring)), fds: [$0.receive.kick]) }, after: started),
      Line(name: "SET_VRING_KICK, none", make: { _ in Missive(request: Ask.setVringKick, payload: littleEndian(UInt64(ring) | 0x100)) }, after: started),
      plain("SET_VRING_CALL", Ask.setVringCall, littleEndian(UInt64(ring))) { [.event()] },
      plain("SET_VRING_CALL, none", Ask.setVringCall, littleEndian(UInt64(ring) | 0x100)),
      plain("SET_VRING_ERR", Ask.setVringErr, littleEndian(UInt64(ring))) { [.event()] },
      plain("SET_VRING_ERR, none", Ask.setVringErr, littleEndian(UInt64(ring) | 0x100)),
      Line(name: "SET_VRING_ENABLE 0", make: { _ in Missive(request: Ask.setVringEnable, payload: littleEndian(ring, UInt32(0))) }, after: { $0.isStarted ? "disabled" : "stopped" }),
      Line(name: "SET_VRING_ENABLE 1", make: { _ in Missive(request: Ask.setVringEnable, payload: littleEndian(ring, UInt32(1))) }, after: { $0.isStarted ? "running" : "stopped" }),
      refuses("SET_VRING_ENABLE 2", Ask.setVringEnable, littleEndian(ring, UInt32(2))),
      plain("SEND_RARP", Ask.sendRarp, littleEndian(UInt64(0x0102_0304_0506))),
      plain("NET_SET_MTU", Ask.netSetMtu, littleEndian(UInt64(1400))),
      plain("SET_BACKEND_REQ_FD", Ask.setBackendReqFd) { [Handle.pair().0] },
      Line(name: "RESET_DEVICE", make: { _ in Missive(request: Ask.resetDevice) }, after: { _ in "stopped" }),
      // Not negotiated, or not built.
      Line(name: "GET_CONFIG", make: { _ in Missive(request: Ask.getConfig, payload: littleEndian(UInt32(0), UInt32(6), UInt32(0)) + [0, 0, 0, 0, 0, 0]) }, outcome: { _ in .hungUp }, after: { _ in "stopped" }),
      refuses("SET_CONFIG", Ask.setConfig, littleEndian(UInt32(0), UInt32(1), UInt32(0)) + [0]),
    ] }
    static var foreign: [Line] {
      [22, 23, 26, 27, 28, 29, 30, 33, 35, 39, 40, 41, 42, 43, 44].map {
        refuses("request \($0), not offered", UInt32($0), littleEndian(UInt64(0)))
      } + [0, 45, 1 << 20].map { refuses("request \($0), unknown", UInt32($0)) }
    }

    /// A front-end whose first ring is in a state, set up in all but what the state leaves out.
    static func guest(_ stage: Stage, _ state: State, _ shape: Shape) throws -> Guest {
      let guest = try Guest(stage, vm: 1, shape)
      try guest.negotiate()
      if state.hasMemory { try guest.shareMemory() }
      let receive = guest.receive
      try guest.front.must(Ask.setVringNum, littleEndian(ring, UInt32(receive.size)))
      try guest.front.must(Ask.setVringBase, littleEndian(ring, receive.startWord))
      try guest.front.must(Ask.setVringAddr, guest.addressMessage(receive))
      try guest.front.must(Ask.setVringErr, littleEndian(UInt64(ring)), fds: [receive.fault.number])
      try guest.front.must(Ask.setVringEnable, littleEndian(ring, UInt32(state.isEnabled ? 1 : 0)))
      if state.isStarted { try guest.front.must(Ask.setVringKick, littleEndian(UInt64(ring)), fds: [receive.kick.number]) }
      guest.replenish(16)
      return guest
    }

    @Test(arguments: [false, true]) func `every message in every state`(isPacked: Bool) async throws {
      try await withStage(Stage()) { stage in
        for state in State.all {
          for (n, line) in Self.lines.enumerated() {
            let label = "\(line.name), \(state)"
            let guest = try Self.guest(stage, state, Shape(isPacked: isPacked))
            let missive = line.make(guest)
            guest.front.message(missive.request, missive.payload, fds: missive.fds.map(\.number), flags: Flag.version | Flag.needReply)
            let answer = guest.front.receive()
            switch (line.outcome(state), answer) {
            case (.done, .reply(let reply)): #expect(reply.value == 0 && reply.payload.count == 8, "\(label): \(reply)")
            case (.refused, .reply(let reply)): #expect(reply.value != 0 && reply.payload.count == 8, "\(label): \(reply)")
            case (.body(let count), .reply(let reply)): #expect(reply.payload.count == count, "\(label): \(reply)")
            case (.hungUp, .closed): break
            default: Issue.record("\(label): \(answer)")
            }
            if case .reply(let reply) = answer {
              #expect(reply.request == missive.request && reply.flags == Flag.version | Flag.reply, "\(label): \(reply)")
              // One answer, and no more.
              let features = try guest.front.ask(Ask.getFeatures)
              #expect(number(features) & FeatureBit.version1 != 0, "\(label)")
              #expect(await stage.ring(1, 0).state == line.after(state), "\(label)")
            } else {
              #expect(await eventually { await stage.status(1).connection == "listening" }, "\(label)")
            }
            // Frames come exactly where the ring runs.
            let frames = stage.frames(2, to: 1)
            try await stage.inject(frames + stage.frames(1, to: 0), speed: "pps=100000")
            #expect(stage.victim.harvest().count == 1, "\(label): the victim got nothing")
            stage.victim.replenish()
            if line.after(state) == "running" {
              let found = guest.harvest()
              #expect(found == frames, "\(label): \(found.count) frames")
            } else {
              let found = guest.collect().filter { !$0.isEmpty }
              #expect(found.isEmpty, "\(label): something came")
            }
            try await stage.isGone(guest, label, things: missive.fds, asksVictim: n % 8 == 0)
          }
        }
      }
    }
  }
}
