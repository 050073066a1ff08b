import CLinux
import Foundation
import Testing

extension Hostile {
  /// What is behind a descriptor is whatever a front-end likes.
  @Suite(.serialized) struct Descriptors {
    static func folder() -> String { NSTemporaryDirectory() + "hostile-file-\(UInt32.random(in: 0 ... .max))" }

    @Test func `an event descriptor is an eventfd`() async throws {
      try await withStage(Stage()) { stage in
        let path = Self.folder()
        defer { unlink(path) }
        let (one, other) = Handle.pair()
        let things: [(String, Handle)] = [
          ("memory", .file("hostile-kind", byteCount: 4096)), ("a file", .open(path, O_RDWR | O_CREAT)),
          ("a directory", .open("/tmp", O_RDONLY | O_DIRECTORY)), ("/dev/zero", .open("/dev/zero", O_RDWR)),
          ("/dev/null", .open("/dev/null", O_RDWR)), ("a pipe to read", Handle.pipe().read), ("a pipe to write", Handle.pipe().write),
          ("a socket", one), ("a path", .open("/dev/zero", Handle.pathOnly)), ("an epoll", Handle(sl_poller())),
        ]
        for (name, thing) in things {
          for request in [Ask.setVringKick, Ask.setVringCall, Ask.setVringErr] {
            try await stage.isRefused("\(name) for request \(request)", "came, not an eventfd", in: request == Ask.setVringKick ? .prepared : .running) { _ in
              Missive(request: request, payload: littleEndian(UInt64(request % 2)), fds: [thing])
            }
          }
        }
        _ = other
      }
    }

    @Test func `the socket for requests is a Unix stream socket`() async throws {
      try await withStage(Stage()) { stage in
        let things: [Handle] = [
          .file("hostile-kind", byteCount: 4096), .open("/dev/null", O_RDWR), .event(), Handle.pipe().write,
          Handle(socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)), Handle(socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)),
        ]
        for thing in things {
          try await stage.isRefused("\(thing.number)", "came, not a Unix stream socket", in: .running) { _ in
            Missive(request: Ask.setBackendReqFd, fds: [thing])
          }
        }
        // A right one is kept, though nothing will be said on it: a front-end takes its end for a fault.
        let guest = try stage.guest(.running)
        let (one, other) = Handle.pair()
        try guest.front.must(Ask.setBackendReqFd, fds: [one.number])
        #expect(Holders.shared([one]).count == 1)
        // Its other end is closed: nobody needs it.
        shutdown(other.number, Int32(SHUT_RDWR))
        #expect(eventually { Holders.shared([one]).isEmpty })
        try await stage.isGone(guest, "a socket", things: [one])
      }
    }

    @Test func `with a configuration to tell of, one socket for requests is kept`() async throws {
      try await withStage(Stage(adjust: { $0.vms[1].offersConfig = true })) { stage in
        let guest = try Guest(stage, vm: 1, Shape(protocolFeatures: Shape.protocolBits | ProtocolBit.config))
        try guest.start()
        let pairs = (0..<3).map { _ in Handle.pair() }
        for (one, _) in pairs { try guest.front.must(Ask.setBackendReqFd, fds: [one.number]) }
        #expect(eventually { Holders.shared(pairs.map(\.0)).count == 1 })
        try await stage.isGone(guest, "three sockets", things: pairs.map(\.0))
      }
    }

    @Test func `memory is a file of shared memory that can be read and written`() async throws {
      try await withStage(Stage()) { stage in
        let path = Self.folder()
        defer { unlink(path) }
        let file = Handle.open(path, O_RDWR | O_CREAT)
        #expect(ftruncate(file.number, 65536) == 0)
        func reopened(_ flags: Int32) -> Handle {
          let file = Handle.file("hostile-memory", byteCount: 65536)
          return withExtendedLifetime(file) { .open("/proc/self/fd/\(file.number)", flags) }
        }
        let sealed = Handle.file("hostile-sealed", byteCount: 65536, seals: true)
        // F_ADD_SEALS; F_SEAL_FUTURE_WRITE, F_SEAL_WRITE.
        #expect(fcntl(sealed.number, 1033, 0x10) == 0)
        let frozen = Handle.file("hostile-frozen", byteCount: 65536, seals: true)
        #expect(fcntl(frozen.number, 1033, 0x08) == 0)
        let kind = "came, not a file of shared memory"
        let things: [(String, Handle, String)] = [
          ("a file on disk", file, kind), ("read only", reopened(O_RDONLY), kind), ("write only", reopened(O_WRONLY), kind),
          ("a path", reopened(Handle.pathOnly), kind), ("a directory", .open("/dev/shm", O_RDONLY), kind),
          ("/dev/zero", .open("/dev/zero", O_RDWR), kind), ("/dev/null", .open("/dev/null", O_RDWR), kind),
          ("an eventfd", .event(), kind), ("a pipe", Handle.pipe().read, kind), ("a socket", Handle.pair().0, kind),
          ("sealed against writing later", sealed, "mmap"), ("sealed against writing", frozen, "mmap"),
          ("/proc/self/mem", .open("/proc/self/mem", O_RDWR), kind),
        ]
        for (name, thing, words) in things {
          for (request, count) in [(Ask.addMemReg, UInt64(0)), (Ask.setMemTable, UInt64(1))] {
            try await stage.isRefused("\(name) for request \(request)", words, in: .running) { _ in
              Missive(
                request: request,
                payload: littleEndian(count, UInt64(0x4000_0000), UInt64(65536), UInt64(0x1_0000_0000), UInt64(0)), fds: [thing])
            }
          }
        }
      }
    }

    @Test func `a call that is full holds nobody up`() async throws {
      try await withStage(Stage()) { stage in
        let guest = try stage.guest(.running)
        // Full for somebody who may not wait: raising it does nothing.
        var most = UInt64.max - 1
        #expect(write(guest.receive.call.number, &most, 8) == 8)
        try await stage.victimGoesOn("full", between: stage.frames(8, to: 1))
        #expect(guest.harvest().count == 8)
        try await stage.isGone(guest, "full")
      }
    }

    /// An eventfd's O_NONBLOCK belongs to the open file, which the front-end has too.
    @Test(.timeLimit(.minutes(1))) func `a call that is full and waits holds nobody up`() async throws {
      try await withStage(Stage()) { stage in
        let guest = try stage.guest(.running)
        let event = guest.receive.call
        try fill(event)
        let patience = Task {
          // What waits for ever would let this test wait for ever.
          try await Task.sleep(nanoseconds: 3_000_000_000)
          Self.drain(event)
        }
        try await stage.inject(stage.frames(8, to: 1))
        try await stage.victimGoesOn("beside it")
        #expect(isFull(event), "whoever raised it waited until it was read")
        patience.cancel()
        Self.drain(event)
        try await stage.isGone(guest, "full, and waits")
      }
    }

    @Test(.timeLimit(.minutes(1))) func `an error descriptor that is full and waits holds nobody up`() async throws {
      try await withStage(Stage()) { stage in
        let guest = try stage.guest(.running)
        let event = guest.receive.fault
        try fill(event)
        let patience = Task {
          try await Task.sleep(nanoseconds: 3_000_000_000)
          Self.drain(event)
        }
        (guest.receive as! SplitRing).writeHead(0xFFFF)
        guest.receive.showAndKnock()
        let hasFailed = await eventually { await stage.ring(1, 0).state == "failed" }
        #expect(hasFailed)
        try await stage.victimGoesOn("beside it")
        #expect(isFull(event), "whoever raised it waited until it was read")
        patience.cancel()
        Self.drain(event)
        try await stage.isGone(guest, "full, and waits")
      }
    }

    private func fill(_ event: Handle) throws {
      var most = UInt64.max - 1
      #expect(write(event.number, &most, 8) == 8)
      // In one way the flag comes back: through the front-end's own descriptor of the same open file.
      #expect(fcntl(event.number, F_SETFL, fcntl(event.number, F_GETFL) & ~O_NONBLOCK) == 0)
    }
    private func isFull(_ event: Handle) -> Bool {
      var request = pollfd(fd: event.number, events: Int16(POLLOUT), revents: 0)
      _ = poll(&request, 1, 0)
      return Int32(request.revents) & POLLOUT == 0
    }
    private static func drain(_ event: Handle) {
      _ = fcntl(event.number, F_SETFL, fcntl(event.number, F_GETFL) | O_NONBLOCK)
      _ = event.take()
    }

    /// Then the back-end would hold its own connection open, also when all else of the front-end is gone.
    @Test(arguments: [false, true])
    func `a front-end cannot hand over its own socket, or another VM's, for requests`(offersConfig: Bool) async throws {
      let bits = Shape.protocolBits | (offersConfig ? ProtocolBit.config : 0)
      try await withStage(Stage(attackers: 2, adjust: { for n in 1...2 { $0.vms[n].offersConfig = offersConfig } })) { stage in
        let guests = try [1, 2].map { try Guest(stage, vm: $0, Shape(protocolFeatures: bits)) }
        for guest in guests { try guest.start() }
        for (guest, other) in [(guests[0], guests[0]), (guests[0], guests[1]), (guests[1], guests[0])] {
          let mark = stage.mark
          #expect(try guest.front.order(Ask.setBackendReqFd, fds: [other.front.socket]) == 1)
          #expect(eventually { stage.hasSaid("came, not a Unix stream socket", since: mark, vm: guest.vm) })
        }
        for guest in guests { try await stage.isGone(guest, "its own socket") }
      }
    }

    /// A socket for requests that has the front-end's own socket in its queue holds that with it.
    @Test func `a socket for requests in which something waits is let go`() async throws {
      try await withStage(Stage(adjust: { $0.vms[1].offersConfig = true })) { stage in
        for isEarly in [true, false] {
          let guest = try Guest(stage, vm: 1, Shape(protocolFeatures: Shape.protocolBits | ProtocolBit.config))
          try guest.start()
          let (one, other) = Handle.pair()
          func carry() { #expect(FrontEnd.send([0], [guest.front.socket], on: other.number)) }
          if isEarly { carry() }
          try guest.front.must(Ask.setBackendReqFd, fds: [one.number])
          if !isEarly { carry() }
          // The socket itself stays open in this process, which has it too: what it carries does so until that is gone.
          #expect(eventually { Holders.shared([one]).isEmpty }, "\(isEarly)")
          _ = consume one
          try await stage.isGone(guest, "its own socket, in a queue, \(isEarly ? "before" : "after")")
        }
      }
    }
  }

  /// A front-end that takes its time. The only tests that wait: as long as the longest of the back-end's times.
  @Suite(.serialized) struct Patience {
    @Test func `who does not speak or listen is left`() async throws {
      try await withStage(Stage(attackers: 5)) { stage in
        let start = Date()
        let mark = stage.mark
        let event = Handle.event()
        let silent = try FrontEnd(path: stage.socketPath(1))
        let inHeader = try FrontEnd(path: stage.socketPath(2))
        inHeader.send(Array(FrontEnd.header(Ask.getFeatures, 1, 0)[..<7]), controls: [[event.number]])
        let inPayload = try FrontEnd(path: stage.socketPath(3))
        inPayload.send(FrontEnd.header(Ask.setVringKick, 1, 8) + [0], controls: [[event.number]])
        // Speaks, and never listens.
        let deaf = try FrontEnd(path: stage.socketPath(4))
        _ = fcntl(deaf.socket, F_SETFL, fcntl(deaf.socket, F_GETFL) | O_NONBLOCK)
        var said = 0
        for _ in 0..<100_000 where deaf.message(Ask.getFeatures) { said += 1 }
        let slow = try FrontEnd(path: stage.socketPath(5))
        slow.message(Ask.getFeatures)
        // Halves do not get long, and nobody else waits for them.
        try await stage.victimGoesOn("beside them")
        #expect(inHeader.isHungUp() && inPayload.isHungUp())
        for vm in [2, 3] {
          #expect(eventually { stage.hasSaid("did not speak, or did not listen, in time", since: mark, vm: vm) })
        }
        #expect(eventually { Holders.shared([event]).isEmpty })
        #expect(-start.timeIntervalSinceNow > 0.9 && -start.timeIntervalSinceNow < 8)
        let others = await stage.status()
        #expect(others.vms["attacker1"]!.connection == "connected" && others.vms["attacker4"]!.connection == "connected")
        #expect(silent.isHungUp(within: 20))
        #expect(await eventually { await stage.status(4).connection == "listening" })
        for vm in [1, 4] {
          #expect(eventually { stage.hasSaid("did not speak, or did not listen, in time", since: mark, vm: vm) })
        }
        // Who has said something may be silent as long as it likes.
        #expect(await stage.status(5).connection == "connected")
        guard case .reply = slow.receive() else { throw Broken("it was not answered") }
        _ = try slow.ask(Ask.getFeatures)
        try await stage.victimGoesOn("after \(said) messages")
      }
    }
  }

  /// Where a back-end listens.
  @Suite(.serialized) struct Listening {
    @Test func `a socket that is in use, or none, is not taken over`() async throws {
      try await withStage(Stage()) { stage in
        let folder = NSTemporaryDirectory() + "hostile-listen-\(UInt32.random(in: 0 ... .max))"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        // Somebody answers there.
        #expect { try Stage(socketFolder: folder, adjust: { $0.vms[1].endpoint = .server(.init(path: stage.socketPath(1))) }) } throws: {
          "\($0)".contains("another process listens there")
        }
        // Something else is there, and stays.
        let path = folder + "/1"
        for make in [{ try Data([1, 2, 3]).write(to: URL(fileURLWithPath: path)) }, { #expect(mkdir(path, 0o700) == 0) }, { #expect(symlink("/tmp", path) == 0) }] as [() throws -> Void] {
          try make()
          #expect { try Stage(socketFolder: folder) } throws: { "\($0)".contains("exists and is not a socket") }
          var status = stat()
          #expect(lstat(path, &status) == 0)
          try FileManager.default.removeItem(atPath: path)
        }
        try await stage.victimGoesOn("beside all that")
      }
    }

    @Test func `a dead back-end's socket is taken over`() async throws {
      let folder = NSTemporaryDirectory() + "hostile-stale-\(UInt32.random(in: 0 ... .max))"
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
      let number = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
      var address = sockaddr_un()
      address.sun_family = sa_family_t(AF_UNIX)
      withUnsafeMutableBytes(of: &address.sun_path) { room in for (n, byte) in (folder + "/1").utf8.enumerated() { room[n] = byte } }
      let bound = withUnsafePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(number, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
      }
      #expect(bound == 0)
      close(number)
      for _ in 0..<3 {
        try await withStage(Stage(socketFolder: folder)) { stage in
          let guest = try stage.guest(.running)
          try await stage.isGone(guest, "where a dead one was")
        }
      }
    }
  }
}
