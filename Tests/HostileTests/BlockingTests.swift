import CLinux
import Foundation
import Linux
import Testing

@testable import Control

extension Hostile {
  /// Descriptors whose calls sleep for as long as their owner likes: others are answered meanwhile. What is looked at is an
  /// order of events, no time: that the owner has not let go when they have been.
  @Suite(.serialized) struct Blocking {
    /// Where a descriptor comes along, and who closes it then.
    enum Way: CaseIterable {
      /// A message that has none, in two parts.
      case extra
      /// A message that takes another kind.
      case kick, call, memory, log, inflight, requests
      /// In the middle of a message.
      case stray
      /// Behind a message that ends the connection: it is never received, and closed with the connection.
      case unread
      /// In a connection that is turned away.
      case turnedAway
      /// In the queue of a socket that is taken for requests.
      case carried
      /// With 252 others.
      case many

      /// Sends it and closes the test's own, which must not be the last: nothing is received before that.
      ///
      /// - Returns: the front-end, or what has to live on.
      func send(_ number: Int32, on stage: Stage, letGo: () -> Void) throws -> [AnyObject] {
        let header = { FrontEnd.header($0, Flag.version, $1) }
        switch self {
        case .turnedAway:
          let first = try FrontEnd(path: stage.socketPath(1))
          _ = try first.ask(Ask.getFeatures)
          var second: FrontEnd?
          try stage.whileControlThreadIsBusy {
            second = try FrontEnd(path: stage.socketPath(1))
            second?.send([1], controls: [[number]])
            letGo()
          }
          return [first, second!]
        case .unread:
          let front = try FrontEnd(path: stage.socketPath(1))
          _ = try front.ask(Ask.getFeatures)
          stage.whileControlThreadIsBusy {
            front.send(header(Ask.getFeatures, 0x7FFF_FFFF))
            front.send([1], controls: [[number]])
            letGo()
          }
          return [front]
        default: break
        }
        let guest = try stage.guest(.prepared)
        let front = guest.front
        let (request, payload): (UInt32, [UInt8]) =
          switch self {
          case .kick: (Ask.setVringKick, littleEndian(UInt64(0)))
          case .call: (Ask.setVringCall, littleEndian(UInt64(0)))
          case .memory: (Ask.addMemReg, littleEndian(UInt64(0), UInt64(0x4000_0000), UInt64(65536), UInt64(0x1_0000_0000), UInt64(0)))
          case .log: (Ask.setLogBase, littleEndian(UInt64(4096), UInt64(0)))
          case .inflight: (Ask.setInflightFd, littleEndian(UInt64(4096), UInt64(0), UInt32(0x0001_0001)))
          case .requests, .carried: (Ask.setBackendReqFd, [])
          default: (Ask.getFeatures, [])
          }
        let message = header(request, UInt32(payload.count)) + payload
        switch self {
        case .stray:
          stage.whileControlThreadIsBusy {
            front.send(Array(message[..<4]))
            front.send(Array(message[4..<5]), controls: [[number]])
            letGo()
          }
        case .carried:
          let (one, other) = Handle.pair()
          #expect(FrontEnd.send([0], [number], on: other.number))
          letGo()
          front.send(message, controls: [[one.number]])
          _ = consume one
        default:
          let numbers = self == .many ? [Int32](repeating: number, count: 253) : [number]
          stage.whileControlThreadIsBusy {
            front.send(Array(message[..<4]), controls: [numbers])
            letGo()
            front.send(Array(message[4...]))
          }
        }
        return [guest]
      }
    }

    /// Others go on before the owner lets go.
    private func othersGoOn(_ stage: Stage, _ label: String, isReleased: () -> Bool) async throws {
      try await stage.victimGoesOn(label)
      let other = try FrontEnd(path: stage.socketPath(2))
      let features = try other.ask(Ask.getFeatures)
      #expect(number(features) & FeatureBit.version1 != 0)
      _ = await stage.status()
      #expect(!isReleased(), "\(label): others waited until the owner let go")
    }

    @Test(.timeLimit(.minutes(3)), arguments: Way.allCases)
    func `a socket that lingers when it is closed holds up its own VM only`(way: Way) async throws {
      try await withStage(Stage(attackers: 2)) { stage in
        let lingering = try Lingering()
        // What waits for ever would let this test wait for ever.
        let patience = Task {
          try await Task.sleep(nanoseconds: 15_000_000_000)
          lingering.release()
        }
        defer { patience.cancel() }
        var mine = try way.send(lingering.number, on: stage) { lingering.letGo() }
        try await othersGoOn(stage, "\(way)", isReleased: { lingering.isReleased })
        // The connection of this one lasts, and holds it.
        if way != .carried { #expect(eventually { isSomethingBeingClosed() }, "\(way): it is not being closed") }
        // And when the front-end has gone.
        mine = []
        try await othersGoOn(stage, "\(way), front-end gone", isReleased: { lingering.isReleased })
        #expect(eventually { isSomethingBeingClosed() } && mine.isEmpty)
        lingering.release()
        #expect(eventually(within: 20) { !isSomethingBeingClosed() }, "\(way): never closed")
        // The VM is served again.
        let again = try FrontEnd(path: stage.socketPath(1))
        _ = try again.ask(Ask.getFeatures)
      }
    }

    @Test(.timeLimit(.minutes(1))) func `a back-end ends while descriptors cannot be closed`() async throws {
      let stage = try Stage(attackers: 2)
      let (held, waiting) = (try Lingering(), try Lingering())
      let patience = Task {
        try await Task.sleep(nanoseconds: 15_000_000_000)
        held.release()
        waiting.release()
      }
      defer { patience.cancel() }
      let front = try Way.requests.send(held.number, on: stage) { held.letGo() }
      try await othersGoOn(stage, "before", isReleased: { held.isReleased })
      // One more waits in the listener.
      var late: FrontEnd?
      try stage.whileControlThreadIsBusy {
        late = try FrontEnd(path: stage.socketPath(2))
        late?.send([1], controls: [[waiting.number]])
        waiting.letGo()
        stage.service.stop()
      }
      stage.end()
      #expect(!held.isReleased && !waiting.isReleased, "the end waited until the owner let go")
      #expect(late != nil && front.count == 1)
    }

    /// Three messages whose descriptors' file systems are asked, unless they are recognised without.
    @Test(.timeLimit(.minutes(1)), arguments: [Way.kick, .memory, .requests, .log, .inflight, .extra])
    func `the server of a file is asked nothing, and may take its time to see it closed`(way: Way) async throws {
      guard let server = FuseServer() else {
        print("HostileTests: not run: no FUSE here: errno \(errno)")
        return
      }
      defer { server.end() }
      try await withStage(Stage(attackers: 2)) { stage in
        let isReleased = Mutex(false)
        let patience = Task {
          try await Task.sleep(nanoseconds: 15_000_000_000)
          isReleased.withLock { $0 = true }
          server.release()
        }
        defer { patience.cancel() }
        var file: Handle? = server.file()
        let mine = try way.send(file!.number, on: stage) {
          file = nil
          server.hold()
        }
        try await othersGoOn(stage, "\(way)", isReleased: { isReleased.withLock { $0 } })
        #expect(eventually { server.asked.contains(FuseServer.flush) }, "\(way): it was not closed")
        try await othersGoOn(stage, "\(way), while it is closed", isReleased: { isReleased.withLock { $0 } })
        // RELEASE, 18, follows a close that was answered.
        #expect(server.asked.allSatisfy { $0 == FuseServer.flush || $0 == 18 }, "\(way): the server was asked \(server.asked)")
        server.release()
        #expect(!mine.isEmpty)
      }
    }

    /// The kernel can bring a counter to where even a write of nothing waits, and O_NONBLOCK is everybody's who has it.
    @Test(.timeLimit(.minutes(1))) func `an eventfd is recognised without a write, and its flags stay`() async throws {
      try await withStage(Stage(attackers: 2)) { stage in
        let guest = try stage.guest(.running)
        let event = Handle.event()
        var most = UInt64.max - 1
        #expect(write(event.number, &most, 8) == 8)
        // One more than write(2) can add to.
        #expect(sl_raise(event.number) == 0)
        let flags = fcntl(event.number, F_GETFL) & ~O_NONBLOCK
        #expect(fcntl(event.number, F_SETFL, flags) == 0)
        for request in [Ask.setVringCall, Ask.setVringErr, Ask.setVringKick] {
          try guest.front.must(request, littleEndian(UInt64(0)), fds: [event.number])
          #expect(fcntl(event.number, F_GETFL) == flags, "request \(request)")
        }
        try await othersGoOn(stage, "full", isReleased: { false })
        #expect(fcntl(event.number, F_SETFL, flags | O_NONBLOCK) == 0)
        #expect(event.take() == .max)
        try await stage.isGone(guest, "full", things: [event])
      }
    }

    @Test(.timeLimit(.minutes(1))) func `descriptors in bulk from four VMs leave a fifth its own`() async throws {
      // As a shell gives it to a program.
      var limit = rlimit()
      getrlimit(__rlimit_resource_t(7), &limit)
      var small = rlimit(rlim_cur: min(1024, limit.rlim_max), rlim_max: limit.rlim_max)
      #expect(setrlimit(__rlimit_resource_t(7), &small) == 0)
      try await withStage(Stage(attackers: 5)) { stage in
        getrlimit(__rlimit_resource_t(7), &limit)
        #expect(limit.rlim_cur == limit.rlim_max)
        let event = Handle.event()
        let attackers = try (1...4).map { vm in
          let front = try FrontEnd(path: stage.socketPath(vm))
          front.send([1], controls: [[Int32](repeating: event.number, count: 253)])
          return front
        }
        for _ in 0..<30 {
          let guest = try stage.guest(.running, vm: 5)
          try await stage.isGone(guest, "beside them", asksVictim: false)
        }
        try await stage.victimGoesOn("beside them")
        // Each is told that a header has no such number, or that it took too long; and all is closed.
        #expect(attackers.allSatisfy { $0.isHungUp() })
        #expect(eventually { Holders.shared([event]).isEmpty })
      }
    }

    /// A VM whose descriptors cannot be closed is served no more, until they are.
    @Test(.timeLimit(.minutes(2))) func `a VM whose descriptors cannot be closed gets no others`() async throws {
      try await withStage(Stage(attackers: 2)) { stage in
        let lingering = try Lingering()
        let patience = Task {
          try await Task.sleep(nanoseconds: 60_000_000_000)
          lingering.release()
        }
        defer { patience.cancel() }
        let event = Handle.event()
        let before = Holders.descriptorCount
        let mark = stage.mark
        var sent = 0
        func bulk(_ number: Int32) -> FrontEnd? {
          guard let front = try? FrontEnd(path: stage.socketPath(1)) else { return nil }
          front.send([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], controls: [[Int32](repeating: number, count: 253)])
          sent += 1
          return front
        }
        // The first stick, and what follows waits behind them, up to the bound.
        var fronts: [FrontEnd?] = []
        stage.whileControlThreadIsBusy {
          fronts.append(bulk(lingering.number))
          lingering.letGo()
        }
        #expect(fronts[0]!.isHungUp())
        while !stage.hasSaid("no connection: descriptors that an earlier front-end sent", since: mark, vm: 1), sent < 100 {
          fronts.append(bulk(event.number))
          _ = await stage.status()
          usleep(1000)
        }
        #expect(sent < 30, "there is no bound")
        try await othersGoOn(stage, "stuck", isReleased: { lingering.isReleased })
        #expect(Holders.descriptorCount - before < 700 + sent)
        lingering.release()
        for front in fronts { front?.close() }
        #expect(eventually(within: 20) { Holders.shared([event]).isEmpty })
        #expect(
          eventually(within: 20) {
            guard let again = try? FrontEnd(path: stage.socketPath(1)) else { return false }
            return (try? again.ask(Ask.getFeatures)) != nil
          })
      }
    }
  }
}
