import FlowSteering
import Support
import Testing
import VhostUser
import Virtio

/// Every message in every state, against a table that was filled in by hand from the specification.
enum Matrix {
  static let offer = Offer(
    features: offered, queuePairs: 2,
    config: NetConfig(address: MACAddress(0x5254_0012_3456), maxQueuePairs: 2, mtu: 1500))
  /// Bytes of log for the test guest: one bit for each 4096 bytes below 0x1_0010_0000.
  static let logBytes = 0x1_0010_0000 / 4096 / 8

  /// Requests that are built.
  static let known: Set<UInt32> = Set(1...21).union([24, 25, 31, 32, 34, 36, 37, 38])

  /// A well-formed message of each request, that makes sense while rings 0 and 1 run; and a few that do not.
  static func messages(_ guest: TestGuest) -> [(id: UInt32, payload: [UInt8], files: [CInt])] {
    let event = guest.calls[3]
    let log = (try? guest.things.memory(logBytes)) ?? -1
    let more = (try? guest.things.memory(1 << 20)) ?? -1
    let inflight = (try? guest.things.memory(1 << 20)) ?? -1
    let socket = (try? guest.things.sockets().1) ?? -1
    let third = Region(guest: 0x2_0000_0000, size: 1 << 20, user: 0x7F20_0000_0000)
    var all: [(UInt32, [UInt8], [CInt])] = [
      (1, [], []), (2, u64(version1Bit | protocolBit), []), (3, [], []), (4, [], []),
      (5, Region.table(guest.regions), guest.files), (6, Bytes().u64(UInt64(logBytes)).u64(0).all, [log]), (7, [], [event]),
      (8, state(0, 128), []), (9, guest.address(0), []), (10, state(0, 5), []), (11, state(0, 0), []),
      (12, u64(1), [event]), (13, u64(1), [event]), (14, u64(1), [event]), (15, [], []), (16, u64(allProtocolBits), []), (17, [], []),
      (18, state(0, 0), []), (19, u64(0x5634_1200_5452), []), (20, u64(1400), []), (21, [], [socket]),
      (24, Bytes().u32(0).u32(6).u32(0).with([0, 0, 0, 0, 0, 0]).all, []),
      (25, Bytes().u32(0).u32(6).u32(1).with([0x52, 0x54, 0, 0x12, 0x34, 0x56]).all, []),
      (31, InflightPlace().padded, []), (32, InflightPlace(size: 1 << 20).padded, [inflight]), (34, [], []), (36, [], []), (37, third.single, [more]), (38, guest.regions[0].single, []),
    ]
    for id in [0, 22, 23, 26, 27, 28, 29, 30, 33, 35, 39, 40, 41, 42, 43, 44, 45, 100, UInt32.max] {
      all.append((id, u64(0), []))
    }
    return all
  }

  enum State: CaseIterable {
    case fresh, negotiated, withMemory, running, stopped, reset
    /// SET_FEATURES without VHOST_USER_F_PROTOCOL_FEATURES.
    case legacy
  }

  enum Outcome: Equatable {
    case done, body
    /// Answered with 1 if an answer was asked for, and the end if not.
    case refused
    /// Answered with 1 if an answer was asked for; the connection goes on.
    case ringRefused
    case ended
  }

  static func outcome(_ id: UInt32, _ state: State) -> Outcome {
    switch id {
    case 1, 11, 15: return .body
    case 3, 4, 5, 12, 13, 14: return .done
    case 2, 16: return .done
    case 8, 10: return state == .running ? .ringRefused : .done
    case 9: return .done
    // Bodies that need a protocol feature.
    case 6, 17, 24, 31, 36: return state == .fresh ? .ended : .body
    // Deeds that need one.
    case 7, 19, 20, 21, 25, 32, 34, 37: return state == .fresh ? .refused : .done
    case 18: return state == .legacy ? .refused : .done
    // There must be such a region.
    case 38: return [.fresh, .negotiated, .legacy].contains(state) ? .refused : .done
    default: return .refused
    }
  }

  static func bring(_ frontend: Frontend, to state: State, _ guest: TestGuest) {
    switch state {
    case .fresh: break
    case .negotiated: frontend.negotiate()
    case .withMemory:
      frontend.negotiate()
      frontend.giveMemory(guest)
    case .running: frontend.run(guest)
    case .stopped:
      frontend.run(guest)
      for n in 0..<UInt32(2) { _ = frontend.ask(ID.getBase, VhostUserTests.state(n, 0)) }
    case .reset:
      frontend.run(guest)
      frontend.send(ID.resetDevice)
    case .legacy:
      frontend.send(ID.setProtocol, u64(allProtocolBits))
      frontend.send(ID.setFeatures, u64(version1Bit))
    }
  }
}

@Suite struct MatrixTests {
  @Test(arguments: Matrix.State.allCases, [1, 9] as [UInt32])
  func `every message has its outcome in every state`(state: Matrix.State, flags: UInt32) throws {
    let guest = try TestGuest()
    for (id, payload, files) in Matrix.messages(guest) {
      let frontend = try Frontend(Matrix.offer)
      Matrix.bring(frontend, to: state, guest)
      try #require(frontend.isConnected && frontend.refusals.isEmpty && frontend.receive() == nil)
      frontend.send(id, payload, files, flags: flags)
      let reply = frontend.receive()
      let wanted = Matrix.outcome(id, state)
      let name: Comment = "\(id) in \(state)"
      switch wanted {
      case .done: #expect(frontend.isConnected && reply.flatMap { number($0.payload) } == (flags == 9 ? 0 : nil), name)
      case .body: #expect(frontend.isConnected && reply.map { $0.payload.count >= 8 } == true, name)
      case .refused:
        #expect(frontend.isConnected == (flags == 9), name)
        #expect(reply.flatMap { number($0.payload) } == (flags == 9 ? 1 : nil), name)
      case .ringRefused:
        #expect(frontend.isConnected && reply.flatMap { number($0.payload) } == (flags == 9 ? 1 : nil), name)
      case .ended: #expect(!frontend.isConnected && reply == nil, name)
      }
      #expect(frontend.refusals.isEmpty == (wanted == .done || wanted == .body), name)
      #expect(frontend.device.violations.isEmpty, name)
      // What was refused has changed nothing of what runs.
      if state == .running && frontend.isConnected && ![.done, .body].contains(wanted) {
        #expect(frontend.device.running.keys.sorted() == [0, 1], name)
      }
      frontend.disconnect()
      #expect(frontend.device.running.isEmpty && frontend.device.map == nil && frontend.device.log == nil, name)
      for file in files { #expect(holders(of: file) == 1, name) }
    }
    for descriptor in guest.descriptors { #expect(holders(of: descriptor) == 1) }
  }

  @Test(arguments: Matrix.State.allCases)
  func `a message that is done twice is as good as once`(state: Matrix.State) throws {
    let guest = try TestGuest()
    // A region is not added or taken away twice, and a base not asked for twice without being the same.
    for (id, payload, files) in Matrix.messages(guest) where [.done, .body].contains(Matrix.outcome(id, state)) && ![37, 38].contains(id) {
      let frontend = try Frontend(Matrix.offer)
      Matrix.bring(frontend, to: state, guest)
      let first = frontend.ask(id, payload, files, flags: 9)
      let running = frontend.device.running.mapValues(\.layout)
      // After a reset there is nothing acknowledged; RESET_DEVICE needs only its protocol feature.
      let second = frontend.ask(id, payload, files, flags: 9)
      #expect(first != nil && first == second, "\(id) in \(state)")
      #expect(frontend.device.running.mapValues(\.layout) == running, "\(id) in \(state)")
      #expect(frontend.device.violations.isEmpty, "\(id) in \(state)")
    }
  }

  @Test func `bits that were not offered are refused, and what was agreed on stays`() throws {
    for bit in 0..<64 as Range<UInt64> {
      let frontend = try Frontend(Matrix.offer)
      frontend.negotiate()
      let features = offered.rawValue | logBit | protocolBit
      #expect(number(frontend.ask(ID.getFeatures)) == features)
      #expect(frontend.acknowledged(ID.setFeatures, u64(1 << bit)) == (features >> bit & 1 == 1 ? 0 : 1))
      let bits = allProtocolBits
      #expect(number(frontend.ask(ID.getProtocol)) == bits)
      #expect(frontend.acknowledged(ID.setProtocol, u64(1 << bit)) == (bits >> bit & 1 == 1 ? 0 : 1))
    }
  }

  @Test func `while a ring runs, features stay, but for logging`() throws {
    let guest = try TestGuest()
    for bit in 0..<64 as Range<UInt64> where offered.rawValue >> bit & 1 == 1 || bit == 30 {
      let frontend = try Frontend()
      frontend.run(guest)
      #expect(frontend.acknowledged(ID.setFeatures, u64((version1Bit | protocolBit) ^ (1 << bit))) == 1)
      #expect(frontend.refusals == [.changedWhileRunning(.setFeatures)])
      #expect(frontend.acknowledged(ID.setProtocol, u64(1)) == 1)
      #expect(frontend.device.running.count == 2)
      #expect(frontend.acknowledged(ID.setFeatures, u64(version1Bit | protocolBit | logBit)) == 0)
    }
  }

  /// Started and stopped, enabled and disabled: the four states, and every way between them.
  @Test func `a ring's two states are independent of each other`() throws {
    let guest = try TestGuest()
    for wasStarted in [false, true] {
      for wasEnabled in [false, true] {
        for deed in ["start", "stop", "enable", "disable"] {
          let frontend = try Frontend()
          frontend.negotiate()
          frontend.giveMemory(guest)
          frontend.send(ID.enable, state(0, wasEnabled ? 1 : 0))
          if wasStarted { frontend.setUp(0, guest) }
          frontend.device.forget()
          switch deed {
          case "start": if !wasStarted { frontend.setUp(0, guest) }
          case "stop": _ = frontend.ask(ID.getBase, state(0, 0))
          default: frontend.send(ID.enable, state(0, deed == "enable" ? 1 : 0))
          }
          let isStarted = deed == "start" || wasStarted && deed != "stop"
          let isEnabled = deed == "enable" || wasEnabled && deed != "disable"
          #expect((frontend.device.running[0] != nil) == isStarted)
          if isStarted && !wasStarted { #expect(frontend.device.running[0]?.isEnabled == isEnabled) }
          let told = frontend.device.calls.contains(.enabled(0, isEnabled))
          #expect(told == (wasStarted && isEnabled != wasEnabled))
          // What is tracked while it is stopped comes into effect when it starts.
          if !isStarted {
            frontend.setUp(0, guest)
            #expect(frontend.device.running[0]?.isEnabled == isEnabled)
          }
          #expect(frontend.device.violations.isEmpty && frontend.refusals.isEmpty)
        }
      }
    }
  }
}
