import FlowSteering
import Glibc
import Linux
import Support
import Testing
import VhostUser

/// The stream of messages itself: what is a message, what comes with it, and what a sender that keeps to none of it gets.
@Suite struct TransportTests {
  // MARK: Headers

  @Test(arguments: [
    (0, MessageError.unsupportedVersion(0, request: 1)), (2, .unsupportedVersion(2, request: 1)),
    (3, .unsupportedVersion(3, request: 1)), (5, .replyFromFrontend(request: 1)), (0xD, .replyFromFrontend(request: 1)),
    (0x11, .reservedFlags(0x11, request: 1)), (0x8000_0001, .reservedFlags(0x8000_0001, request: 1)),
  ] as [(UInt32, MessageError)])
  func `a header with another version, a reply's mark or reserved flags ends its connection, and no other`(
    flags: UInt32, error: MessageError
  ) throws {
    let (frontend, neighbour, guest) = (try Frontend(), try Frontend(), try TestGuest())
    frontend.run(guest)
    neighbour.run(guest)
    frontend.send(ID.getFeatures, flags: flags)
    #expect(frontend.disconnection == .error(error))
    #expect(frontend.receive() == nil)
    #expect(frontend.device.running.isEmpty && frontend.device.map == nil)
    #expect(neighbour.isConnected && neighbour.device.running.count == 2)
    #expect(number(neighbour.ask(ID.getQueueNum)) == 4)
  }

  @Test(arguments: [4097, 0x1_0000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF] as [UInt32])
  func `a payload that no message has is not waited for`(size: UInt32) throws {
    let frontend = try Frontend()
    frontend.raw(Frontend.message(ID.setFeatures, size: size))
    frontend.turn()
    #expect(frontend.disconnection == .error(.oversized(size, request: ID.setFeatures, limit: 4096)))
  }

  /// Sizes by the specification, apart from the code under test.
  static let sizes: [(id: UInt32, size: Int)] = [
    (1, 0), (2, 8), (3, 0), (4, 0), (6, 16), (7, 0), (8, 8), (9, 40), (10, 8), (11, 8), (12, 8), (13, 8), (14, 8), (15, 0),
    (16, 8), (17, 0), (18, 8), (19, 8), (20, 8), (21, 0), (31, 20),
    (32, 20), (34, 0), (36, 0), (37, 40), (38, 40),
  ]

  @Test(arguments: sizes)
  func `a payload of any other size than its request's ends the connection`(id: UInt32, size: Int) throws {
    for wrong in [0, size - 1, size + 1, size + 8, 4096] where wrong >= 0 && wrong != size {
      for flags in [1, 9] as [UInt32] {
        let frontend = try Frontend()
        frontend.negotiate()
        frontend.send(id, [UInt8](repeating: 0, count: wrong), flags: flags)
        guard case .error(.wrongSize(_, UInt32(wrong), expected: size)) = frontend.disconnection else {
          Issue.record("\(id) with \(wrong) bytes: \(String(describing: frontend.disconnection))")
          continue
        }
        #expect(frontend.receive() == nil)
      }
    }
  }

  @Test(arguments: [(1, 39), (1, 41), (1, 8), (2, 71), (2, 40), (8, 263), (0, 9), (0, 0), (0, 7)])
  func `a memory table whose size is not that of its count ends the connection`(count: Int, size: Int) throws {
    let frontend = try Frontend()
    frontend.negotiate()
    frontend.send(ID.setMemTable, Array((Bytes().u32(UInt32(count)).all + [UInt8](repeating: 0, count: 300)).prefix(size)))
    guard case .error(.wrongSize) = frontend.disconnection else {
      Issue.record("\(String(describing: frontend.disconnection))")
      return
    }
  }

  @Test func `a message may come a byte at a time, and take its descriptor from the first`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.negotiate()
    let message = Frontend.message(ID.addRegion, flags: 9, guest.regions[0].single)
    for (n, byte) in message.enumerated() {
      #expect(frontend.receive() == nil)
      frontend.raw([byte], n == 0 ? [guest.low] : [])
      frontend.turn()
      #expect(frontend.isConnected)
    }
    #expect(number(frontend.receive()?.payload) == 0)
    #expect(frontend.device.map?.regions.count == 1)
    #expect(holders(of: guest.low) == 1)
  }

  @Test func `many messages at once are all done, a turn's worth at a time`() throws {
    var limits = Limits()
    limits.messagesPerTurn = 3
    let frontend = try Frontend(limits: limits)
    let all = (0..<10).flatMap { _ in Frontend.message(ID.getFeatures) }
    frontend.raw(all)
    for left in [3, 3, 3, 1, 0] {
      frontend.turn()
      for _ in 0..<left { #expect(frontend.receive()?.id == ID.getFeatures) }
      #expect(frontend.receive() == nil)
    }
  }

  // MARK: Time

  @Test func `a front-end that says nothing, stalls in a message, or does not read, is given up when its time is over`() throws {
    let silent = try Frontend()
    #expect(silent.backend.deadline == 1_000_000_000 + Limits().firstMessage)
    #expect(silent.expire(now: 1_000_000_000 + Limits().firstMessage - 1))
    #expect(!silent.expire(now: 1_000_000_000 + Limits().firstMessage))
    #expect(silent.disconnection == .timedOut)

    for part in [1, 11, 12, 13, 19] {
      let stalled = try Frontend()
      stalled.send(ID.getFeatures)
      #expect(stalled.backend.deadline == nil)
      stalled.now = 5_000_000_000
      stalled.raw(Array(Frontend.message(ID.setFeatures, u64(0)).prefix(part)))
      stalled.turn()
      // More of it does not give it more time.
      stalled.now += 900_000_000
      stalled.turn()
      #expect(stalled.backend.deadline == 5_000_000_000 + Limits().message)
      #expect(stalled.expire(now: 5_999_999_999))
      #expect(!stalled.expire(now: 6_000_000_000))
    }
  }

  @Test func `replies that are not read are bounded, block nobody, and end the connection in time`() throws {
    let frontend = try Frontend()
    var asked = 0
    // Until the socket is full of replies.
    while frontend.backend.interest == .read && asked < 100_000 {
      frontend.send(ID.getFeatures)
      asked += 1
    }
    #expect(frontend.backend.interest == .write)
    let deadline = try #require(frontend.backend.deadline)
    #expect(deadline == frontend.now + Limits().reply)
    // Nothing more is read: the kernel holds what is sent, and then refuses it to the sender.
    frontend.raw(Frontend.message(ID.setFeatures, u64(version1Bit)))
    frontend.turn()
    #expect(frontend.backend.features == nil)
    // Who reads at last is served again, all of it.
    var answered = 0
    while let reply = frontend.receive() {
      #expect(reply.payload.count == 8)
      answered += 1
      frontend.backend.writable(now: frontend.now)
      if frontend.backend.interest == .read { frontend.turn() }
    }
    #expect(answered == asked)
    #expect(frontend.backend.features?.rawValue == version1Bit)
    #expect(frontend.backend.deadline == nil)

    while frontend.backend.interest == .read { frontend.send(ID.getFeatures) }
    #expect(!frontend.expire(now: frontend.now + Limits().reply))
  }

  @Test func `a front-end that leaves, also in the middle of a message, takes everything with it`() throws {
    for part in [0, 5, 12, 15] {
      let (frontend, guest) = (try Frontend(), try TestGuest())
      frontend.run(guest)
      frontend.raw(Array(Frontend.message(ID.setNum, state(0, 1)).prefix(part)))
      frontend.close()
      frontend.turn()
      #expect(frontend.disconnection == (part == 0 ? .closedByFrontend : .cutShort))
      #expect(frontend.device.running.isEmpty && frontend.device.map == nil)
      for descriptor in guest.descriptors { #expect(holders(of: descriptor) == 1) }
      #expect(mappedBytes(of: guest.low) == 0 && mappedBytes(of: guest.high) == 0)
    }
  }

  @Test func `messages that were sent before leaving are done`() throws {
    let frontend = try Frontend()
    frontend.raw(Frontend.message(ID.setMTU, u64(9000)) + Frontend.message(ID.setProtocol, u64(1 << 4)) + Frontend.message(ID.setMTU, u64(1400)))
    frontend.close()
    frontend.turn()
    // The first is refused, since NET_MTU is not negotiated, and nobody can be told.
    #expect(frontend.device.calls.isEmpty)
    let other = try Frontend(again: frontend)
    other.raw(Frontend.message(ID.setProtocol, u64(1 << 4)) + Frontend.message(ID.setMTU, u64(1400)))
    other.close()
    other.turn()
    #expect(other.device.calls == [.mtu(1400)])
    #expect(other.disconnection == .closedByFrontend)
  }

  @Test func `another front-end finds nothing of the one before`() throws {
    let (first, guest) = (try Frontend(), try TestGuest())
    first.run(guest)
    first.close()
    first.turn()
    let second = try Frontend(again: first)
    #expect(second.isConnected)
    #expect(second.backend.features == nil && second.backend.protocolFeatures == [])
    #expect(second.ask(ID.getBase, state(0, 0)) == state(0, 0))
    second.device.forget()
    second.send(ID.setKick, u64(0), [guest.kicks[0]])
    #expect(second.device.calls.isEmpty)
    second.run(guest)
    #expect(second.device.running.count == 2)
  }

  // MARK: Descriptors

  /// How many go with a well-formed message, by the specification.
  private func counts(_ guest: TestGuest) -> [(id: UInt32, payload: [UInt8], wrong: [Int])] {
    var result: [(UInt32, [UInt8], [Int])] = []
    for (id, size) in Self.sizes where ![6, 7, 12, 13, 14, 21, 32, 37, 38].contains(id) {
      result.append((id, [UInt8](repeating: 0, count: size), [1, 2, 8, 253]))
    }
    result.append((ID.setMemTable, Region.table(guest.regions), [0, 1, 3, 253]))
    result.append((ID.setMemTable, Region.table([]), [1, 253]))
    for id in [ID.setKick, ID.setCall, ID.setErr] {
      result.append((id, u64(0), [0, 2, 253]))
      result.append((id, u64(0x100), [1, 2, 253]))
    }
    result.append((ID.setLogBase, Bytes().u64(4096).u64(0).all, [0, 2, 253]))
    result.append((ID.setLogFd, [], [0, 2, 253]))
    result.append((ID.setRequests, [], [0, 2, 253]))
    result.append((ID.setInflight, InflightPlace(size: 1 << 20).bytes, [0, 2, 253]))
    result.append((ID.addRegion, guest.regions[0].single, [0, 2, 253]))
    result.append((ID.removeRegion, guest.regions[0].single, [2, 253]))
    return result
  }

  @Test func `another number of descriptors than a message takes ends the connection, and all are closed`() throws {
    let guest = try TestGuest()
    for (id, payload, wrong) in counts(guest) {
      for count in wrong {
        for flags in [1, 9] as [UInt32] {
          let frontend = try Frontend()
          frontend.negotiate()
          frontend.send(id, payload, (0..<count).map { _ in guest.low }, flags: flags)
          guard case .error(.wrongDescriptorCount(_, count, expected: _)) = frontend.disconnection else {
            Issue.record("\(id) with \(count) descriptors: \(String(describing: frontend.disconnection))")
            continue
          }
          #expect(frontend.receive() == nil)
          #expect(holders(of: guest.low) == 1, "\(id) with \(count)")
        }
      }
    }
  }

  @Test func `descriptors with an unknown or an unbuilt request are closed`() throws {
    let guest = try TestGuest()
    for id in [0, 22, 23, 26, 30, 33, 35, 42, 45, 100, UInt32.max] {
      for flags in [1, 9] as [UInt32] {
        let frontend = try Frontend()
        frontend.negotiate()
        frontend.send(id, u64(0), [guest.low, guest.kicks[0]], flags: flags)
        #expect(frontend.isConnected == (flags == 9))
        if flags == 9 { #expect(number(frontend.receive()?.payload) == 1) }
        #expect(holders(of: guest.low) == 1 && holders(of: guest.kicks[0]) == 1)
      }
    }
  }

  @Test func `descriptors come with a header's first byte or not at all`() throws {
    let guest = try TestGuest()
    let message = Frontend.message(ID.setCall, u64(0))
    for place in [1, 11, 12, 13, 19] {
      let frontend = try Frontend()
      frontend.raw(Array(message[..<place]))
      frontend.turn()
      frontend.raw(Array(message[place...]), [guest.calls[0]])
      frontend.turn()
      #expect(frontend.disconnection == .error(.strayDescriptors(count: 1)))
      #expect(holders(of: guest.calls[0]) == 1)
      // And with both: those of the first byte are closed too.
      let other = try Frontend()
      other.raw(Array(message[..<place]), [guest.calls[1]])
      other.turn()
      other.raw(Array(message[place...]), [guest.calls[0]])
      other.turn()
      #expect(other.disconnection == .error(.strayDescriptors(count: 1)))
      #expect(holders(of: guest.calls[0]) == 1 && holders(of: guest.calls[1]) == 1)
    }
  }

  @Test func `descriptors in several parts of control data count together`() throws {
    let guest = try TestGuest()
    let frontend = try Frontend()
    let one = { (number: CInt) in withUnsafeBytes(of: number) { Array($0) } }
    let control = Frontend.control(SCM_RIGHTS_VALUE, one(guest.calls[0])) + Frontend.control(SCM_RIGHTS_VALUE, one(guest.calls[1]))
    frontend.raw(Frontend.message(ID.setCall, u64(0)), control: control)
    frontend.turn()
    #expect(!frontend.isConnected)
    #expect(holders(of: guest.calls[0]) == 1 && holders(of: guest.calls[1]) == 1)
  }

  @Test func `credentials come along and change nothing`() throws {
    let frontend = try Frontend()
    let mine = Bytes().u32(UInt32(getpid())).u32(getuid()).u32(getgid()).all
    frontend.raw(Frontend.message(ID.getFeatures), control: Frontend.control(SCM_CREDENTIALS_VALUE, mine))
    frontend.turn()
    #expect(frontend.receive()?.id == ID.getFeatures)
  }

  /// One of each kind that is not an eventfd.
  private func wrongEvents(_ things: Things) throws -> [(CInt, FileStatus.Kind)] {
    let pipe = try things.pipe()
    return [
      (try things.memory(4096), .memory), (try things.open("/dev/zero", O_RDWR), .other),
      (try things.open("/", O_RDONLY), .other), (try things.open("/", 0o10000000), .path), (pipe.read, .pipe), (pipe.write, .pipe),
      (try things.sockets().0, .socket), (try things.epoll(), .anonymous),
    ]
  }

  @Test(arguments: [ID.setKick, ID.setCall, ID.setErr, ID.setLogFd])
  func `only an eventfd is taken for a kick, a call or an error`(id: UInt32) throws {
    let things = Things()
    for (descriptor, kind) in try wrongEvents(things) {
      // Other tests open these too.
      let isShared = kind == .other || kind == .path
      let before = holders(of: descriptor)
      let frontend = try Frontend()
      frontend.negotiate()
      let payload = id == ID.setLogFd ? [] : u64(1)
      #expect(frontend.acknowledged(id, payload, [descriptor]) == 1)
      guard case .wrongDescriptor(_, kind, needed: .event) = frontend.refusals.last else {
        Issue.record("\(kind): \(frontend.refusals)")
        continue
      }
      #expect(frontend.isConnected)
      #expect(isShared || holders(of: descriptor) == before)
      frontend.send(id, payload, [descriptor])
      #expect(!frontend.isConnected, "nobody can be told")
      #expect(isShared || holders(of: descriptor) == before)
    }
    let frontend = try Frontend()
    frontend.negotiate()
    #expect(frontend.acknowledged(id, id == ID.setLogFd ? [] : u64(1), [try things.event()]) == 0)
  }

  @Test func `only a Unix stream socket is taken for requests`() throws {
    let things = Things()
    for (descriptor, kind) in try wrongEvents(things) where kind != .socket {
      let frontend = try Frontend()
      frontend.negotiate()
      #expect(frontend.acknowledged(ID.setRequests, [], [descriptor]) == 1)
      #expect(frontend.refusals == [.wrongDescriptor(.setBackendReqFd, kind, needed: .socket)])
    }
    let frontend = try Frontend()
    frontend.negotiate()
    let datagrams = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue), 0)
    #expect(frontend.acknowledged(ID.setRequests, [], [datagrams]) == 1)
    close(datagrams)
    // Without a configuration there is nothing to say there. It is held all the same: a front-end takes its end for a fault.
    let (_, unused) = try things.sockets()
    #expect(frontend.acknowledged(ID.setRequests, [], [unused]) == 0)
    #expect(holders(of: unused) == 2)
    frontend.disconnect()
    #expect(holders(of: unused) == 1)

    let config = NetConfig(address: MACAddress(0x5254_0012_3456), maxQueuePairs: 1)
    let other = try Frontend(Offer(features: .version1, config: config))
    other.negotiate()
    let (_, theirs) = try things.sockets()
    #expect(other.acknowledged(ID.setRequests, [], [theirs]) == 0)
    #expect(holders(of: theirs) == 2)
    let (_, others) = try things.sockets()
    #expect(other.acknowledged(ID.setRequests, [], [others]) == 0)
    #expect(holders(of: theirs) == 1 && holders(of: others) == 2)
    other.disconnect()
    #expect(holders(of: others) == 1)
  }

  @Test func `raising an error never blocks, full as it may be`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    let full = try guest.things.blockingEvent()
    var most = UInt64.max - 1
    #expect(write(full, &most, 8) == 8)
    frontend.run(guest)
    frontend.send(ID.setErr, u64(0), [full])
    frontend.backend.fault(ring: 0, RingRefusal("a test"))
    #expect(frontend.isConnected && frontend.device.running.keys.sorted() == [1])
  }

  // MARK: Answers

  @Test func `a message that asks for an answer has exactly one, and one that does not has none but its own`() throws {
    let guest = try TestGuest()
    let own: Set<UInt32> = [1, 15, 17, 11, 36, 24, 6, 31]
    for (id, payload, files) in Matrix.messages(guest) where Matrix.known.contains(id) {
      for flags in [1, 9] as [UInt32] {
        let frontend = try Frontend(Matrix.offer)
        frontend.run(guest, features: version1Bit)
        while frontend.receive() != nil {}
        frontend.send(id, payload, files, flags: flags)
        let reply = frontend.receive()
        #expect((reply != nil) == (own.contains(id) || flags == 9), "\(id) with flags \(flags)")
        if let reply { #expect(reply.id == id && reply.flags == 5, "\(id)") }
        #expect(frontend.receive() == nil)
      }
    }
  }
}
