import CLinux
import Glibc
import Linux
import Support
import Testing

/// Descriptors of other processes, and who closes them.
@Suite struct ReaperTests {
  /// A TCP socket whose last close waits for an hour: bytes that its peer does not take. socket(7), SO_LINGER.
  final class Lingering {
    let number: CInt
    private var peer: CInt

    init() throws {
      func small(_ number: CInt, _ option: CInt) {
        var bytes: CInt = 4096
        unsafe setsockopt(number, SOL_SOCKET, option, &bytes, 4)
      }
      let listener = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
      small(listener, SO_RCVBUF)
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
      var length = socklen_t(MemoryLayout<sockaddr_in>.size)
      number = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
      small(number, SO_SNDBUF)
      let client = number
      let isConnected = unsafe withUnsafeMutablePointer(to: &address) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
          unsafe bind(listener, address, length) == 0 && listen(listener, 1) == 0 && getsockname(listener, address, &length) == 0
            && connect(client, address, length) == 0
        }
      }
      peer = accept(listener, nil, nil)
      close(listener)
      try check(isConnected && peer >= 0, "no TCP connection: \(errno)")
      let bytes = [UInt8](repeating: 120, count: 65536)
      while unsafe send(number, bytes, bytes.count, CInt(MSG_DONTWAIT)) > 0 {}
      var wait = linger(l_onoff: 1, l_linger: 3600)
      unsafe setsockopt(number, SOL_SOCKET, SO_LINGER, &wait, socklen_t(MemoryLayout<linger>.size))
    }
    /// Lets whoever closes the socket go on.
    func release() {
      if peer >= 0 { close(peer) }
      peer = -1
    }
    deinit { release() }
  }

  /// Socket pairs that pass a descriptor, so that it is another process's to this one.
  private func hand(_ number: CInt, through stream: borrowing UnixStream, to other: borrowing UnixStream) throws -> OwnedDescriptor {
    try check(try stream.send([1], descriptors: [number]) == 1, "not sent")
    guard case .bytes(_, var descriptors) = try other.receive(atMost: 1), let descriptor = descriptors.takeFirst() else {
      throw Mismatch("not received")
    }
    return descriptor
  }

  private func isOpen(_ number: CInt) -> Bool { fcntl(number, F_GETFD) >= 0 }
  private func eventually(_ condition: () -> Bool) -> Bool {
    let end = MonotonicClock.now() + 20_000_000_000
    while !condition() {
      if MonotonicClock.now() > end { return false }
      MonotonicClock.sleep(nanoseconds: 200_000)
    }
    return true
  }

  @Test func `a close that sleeps holds up its own reaper only`() throws {
    let (stuck, other) = (Reaper(limit: 1000), Reaper(limit: 1000))
    let lingering = try Lingering()
    let pair = try UnixStreamPair()
    var receiver = try UnixStream(adopting: try pair.second.descriptor.duplicate())
    receiver.entrust(to: stuck)
    do {
      let descriptor = try hand(lingering.number, through: pair.first, to: receiver)
      // Ours is not the last close.
      close(lingering.number)
      #expect(stuck.openCount == 2 && stuck.waitingCount == 0)
      _ = descriptor.number
    }
    // Dropped, and this thread goes on; another's are closed meanwhile.
    let event = try EventDescriptor()
    let others = try UnixStreamPair()
    var otherReceiver = try UnixStream(adopting: try others.second.descriptor.duplicate())
    otherReceiver.entrust(to: other)
    for _ in 0..<100 { _ = try hand(event.descriptor.number, through: others.first, to: otherReceiver) }
    #expect(eventually { other.waitingCount == 0 && other.openCount == 1 })
    #expect(stuck.waitingCount == 1 && stuck.openCount == 2, "it waits still")
    lingering.release()
    #expect(eventually { stuck.waitingCount == 0 && stuck.openCount == 1 })
  }

  /// The last mapping of a file frees all of its pages: seconds, of a large guest.
  @Test func `memory that a front-end handed over is unmapped by its reaper, and by no thread that others need`() throws {
    let reaper = Reaper(limit: 1000)
    let lingering = try Lingering()
    let pair = try UnixStreamPair()
    var receiver = try UnixStream(adopting: try pair.second.descriptor.duplicate())
    receiver.entrust(to: reaper)
    func isMapped(_ address: UInt) -> Bool { unsafe msync(UnsafeMutableRawPointer(bitPattern: address), 4096, MS_ASYNC) == 0 }
    var address: UInt = 0
    do {
      let file = try MemoryFile(name: "guest", byteCount: 40 << 20)
      let received = try hand(file.descriptor.number, through: pair.first, to: receiver)
      let mapping = try Mapping(ofForeign: received, byteCount: 40 << 20, offset: 0, alignment: 4096, page: 4096)
      unsafe memset(mapping.base, 1, mapping.byteCount)
      unsafe address = UInt(bitPattern: mapping.base)
      // Its thread sleeps from here on.
      _ = try hand(lingering.number, through: pair.first, to: receiver)
      close(lingering.number)
      #expect(eventually { reaper.waitingCount == 1 })
    }
    // The mapping and the file wait behind it, and this thread does not.
    #expect(isMapped(address) && reaper.waitingCount == 3 && reaper.openCount == 4)
    lingering.release()
    #expect(eventually { reaper.waitingCount == 0 && reaper.openCount == 1 })
    #expect(!isMapped(address))
  }

  @Test func `all that is let go is closed once, also what its reaper outlives`() throws {
    let event = try EventDescriptor()
    var numbers: [CInt] = []
    do {
      let reaper = Reaper(limit: 1000)
      let pair = try UnixStreamPair()
      var receiver = try UnixStream(adopting: try pair.second.descriptor.duplicate())
      receiver.entrust(to: reaper)
      let first = try hand(event.descriptor.number, through: pair.first, to: receiver)
      let second = try first.duplicate()
      numbers = [first.number, second.number, receiver.descriptor.number]
      #expect(reaper.openCount == 3 && numbers.allSatisfy(isOpen))
    }
    #expect(eventually { !numbers.contains(where: isOpen) })
  }

  /// A notification walks all that wait for it, so the sender of the eventfd decides how long it takes.
  @Test func `an eventfd is raised by its reaper, before it is closed, and while another's reaper is stuck`() throws {
    let (stuck, reaper) = (Reaper(limit: 1000), Reaper(limit: 1000))
    let lingering = try Lingering()
    let event = try EventDescriptor()
    let late = try EventDescriptor()
    let pair = try UnixStreamPair()
    var receiver = try UnixStream(adopting: try pair.second.descriptor.duplicate())
    receiver.entrust(to: reaper)
    var stuckReceiver = try UnixStream(adopting: try pair.second.descriptor.duplicate())
    stuckReceiver.entrust(to: stuck)
    let kept = try hand(late.descriptor.number, through: pair.first, to: stuckReceiver)
    do {
      let descriptor = try hand(lingering.number, through: pair.first, to: stuckReceiver)
      close(lingering.number)
      _ = descriptor.number
    }
    #expect(eventually { stuck.waitingCount == 1 })
    kept.raiseElsewhere()
    let number: CInt
    do {
      let descriptor = try hand(event.descriptor.number, through: pair.first, to: receiver)
      number = descriptor.number
      descriptor.raiseElsewhere()
    }
    #expect(eventually { !isOpen(number) })
    var wasRaised = event.clear()
    #expect(wasRaised)
    // It may have been raised before the socket's turn came, and is in any case when that is closed.
    lingering.release()
    wasRaised = eventually { late.clear() }
    #expect(wasRaised)
    // One that nobody else has is raised by whoever asks.
    event.descriptor.raiseElsewhere()
    wasRaised = event.clear()
    #expect(wasRaised)
  }

  @Test func `there is room for a message more while the limit allows for its descriptors`() throws {
    let reaper = Reaper(limit: UnixStream.mostDescriptors + 2)
    let pair = try UnixStreamPair()
    var receiver = try UnixStream(adopting: try pair.second.descriptor.duplicate())
    receiver.entrust(to: reaper)
    let event = try EventDescriptor()
    let first = try hand(event.descriptor.number, through: pair.first, to: receiver)
    #expect(reaper.hasRoom)
    do {
      let second = try first.duplicate()
      #expect(!reaper.hasRoom && second.number >= 0)
    }
    #expect(eventually { reaper.hasRoom })
    _ = first.number
  }

  @Test func `descriptors that are too many are all taken, and closed`() throws {
    let reaper = Reaper(limit: 1000)
    let pair = try UnixStreamPair()
    var receiver = try UnixStream(adopting: try pair.second.descriptor.duplicate())
    receiver.entrust(to: reaper)
    let event = try EventDescriptor()
    #expect(try pair.first.send([1], descriptors: [CInt](repeating: event.descriptor.number, count: 253)) == 1)
    do {
      guard case .bytes(let bytes, let descriptors) = try receiver.receive(atMost: 1) else { throw Mismatch("not received") }
      #expect(bytes == [1] && descriptors.count == 253 && reaper.openCount == 254)
    }
    #expect(eventually { reaper.openCount == 1 })
  }
}
