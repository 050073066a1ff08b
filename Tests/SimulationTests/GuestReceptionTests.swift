import GuestMemory
import Linux
import Simulation
import Testing
import Virtio

@Suite struct GuestReceptionTests {
  /// Lengths around what matters to buffers of 64, 256, 1530, 1536 and 4096 bytes with 12 of header.
  static let lengths = [14, 52, 53, 60, 64, 243, 244, 245, 500, 1514, 1518]

  /// Sends frames one by one or in batches, and lets the guest take them; all have to arrive as they were.
  func exchange(_ guest: SimulatedGuest, _ device: TestDevice, frames: [[UInt8]]) {
    var (number, idle) = (0, 0)
    while number < frames.count && idle < 3 {
      var batch = 0
      while number < frames.count && batch < 1 + number % 70 && device.deliver(frames[number]) {
        number += 1
        batch += 1
      }
      device.publish()
      while guest.step(queue: 0) > 0 {}
      idle = batch == 0 ? idle + 1 : 0
    }
    #expect(number == frames.count, "the guest posts no more buffers")
    while guest.step(queue: 0) > 0 {}
  }

  @Test(arguments: BufferShape.allCases, [32, 256])
  func `a frame arrives as it was sent, in buffers of every shape`(shape: BufferShape, ringSize: Int) throws {
    let sink = KeepingSink()
    let (guest, device) = try startGuest(sink: sink) {
      $0.shape = shape
      $0.ringSize = ringSize
      $0.refillThreshold = 0
    }
    let frames = (0..<300).map { testFrame($0, byteCount: Self.lengths[$0 % Self.lengths.count]) }
    exchange(guest, device, frames: frames)
    #expect(sink.frames == frames)
    var stream = SHA256Stream()
    for frame in frames { stream.take(frame: frame) }
    #expect(guest.digest(queue: 0) == stream.digestSoFar())
    #expect(guest.counters().frames == 300)
    #expect(guest.counters().bytes == UInt64(frames.reduce(0) { $0 + $1.count }))
    #expect(guest.counters().brokenFrames == 0)
    guest.verifyUntouched()
    #expect(guest.violations.isEmpty, "\(guest.violations)")
    #expect(device.complaints.isEmpty, "\(device.complaints)")
  }

  @Test(arguments: [2, 256, 32768], [true, false])
  func `indices wrap in rings of every size`(ringSize: Int, checks: Bool) throws {
    let (guest, device) = try startGuest {
      $0.ringSize = ringSize
      $0.checksCanaries = checks
      $0.checksUnusedMemory = checks
      $0.shape = .small
    }
    let frame = testFrame(1, byteCount: 60)
    let count = 66_000
    var sent = 0
    while sent < count {
      while sent < count && device.deliver(frame) { sent += 1 }
      device.publish()
      var taken = guest.step(queue: 0)
      #expect(taken > 0)
      while taken > 0 { taken = guest.step(queue: 0) }
    }
    #expect(device.usedIndex == UInt16(truncatingIfNeeded: count))
    #expect(guest.counters().frames == UInt64(count))
    #expect(guest.verifyUntouched() && guest.violations.isEmpty, "\(guest.violations)")
  }

  @Test(arguments: 0..<32)
  func `every subset of features works`(subset: Int) throws {
    let optional: [Features] = [.mergeableBuffers, .eventIndex, .indirectDescriptors, .guestChecksum, .inOrder]
    var offered: Features = .version1
    for (bit, feature) in optional.enumerated() where subset >> bit & 1 != 0 { offered.insert(feature) }
    let sink = KeepingSink()
    let (guest, device) = try startGuest(sink: sink, offered: offered) {
      $0.features = Features([.version1]).union(Features(optional))
      $0.shape = .indirect
      $0.bufferByteCount = 500
    }
    #expect(guest.features == offered.subtracting(.inOrder))
    let flags: UInt8 = offered.contains(.guestChecksum) ? 2 : 0
    #expect(device.deliver(testFrame(1, byteCount: 400), flags: flags))
    #expect(device.deliver(testFrame(2, byteCount: 1500)) == offered.contains(.mergeableBuffers))
    device.publish()
    #expect(guest.step(queue: 0) == (offered.contains(.mergeableBuffers) ? 2 : 1))
    #expect(sink.frames.map(\.count) == (offered.contains(.mergeableBuffers) ? [400, 1500] : [400]))
    #expect(sink.flags[0].rawValue == flags)
    #expect(guest.violations.isEmpty && device.complaints.isEmpty, "\(guest.violations) \(device.complaints)")
  }

  @Test func `a device without version 1 is refused`() throws {
    let guest = try SimulatedGuest(.init())
    #expect(throws: GuestError.noVersion1) { try guest.negotiate(offered: [.mergeableBuffers]) }
  }

  @Test func `nothing is taken of what was not wanted`() throws {
    var configuration = SimulatedGuest.Configuration()
    configuration.features = [.version1, .inOrder]
    let guest = try SimulatedGuest(configuration)
    #expect(try guest.negotiate(offered: [.version1, .inOrder, .mergeableBuffers]) == [.version1])
  }

  @Test func `a step takes 64 frames at most`() throws {
    let (guest, device) = try startGuest()
    for number in 0..<100 { #expect(device.deliver(testFrame(number, byteCount: 60))) }
    device.publish()
    #expect(guest.step(queue: 0) == 64)
    #expect(guest.step(queue: 0) == 36)
    #expect(guest.step(queue: 0) == 0)
  }

  @Test func `a slow guest takes as many as it was told`() throws {
    let (guest, device) = try startGuest { $0.pace = .slow(framesPerStep: 3) }
    for number in 0..<7 { #expect(device.deliver(testFrame(number, byteCount: 60))) }
    device.publish()
    #expect((0..<4).map { _ in guest.step(queue: 0) } == [3, 3, 1, 0])
  }

  @Test func `a guest that stalls takes no more for ever, and posts no more`() throws {
    let (guest, device) = try startGuest {
      $0.pace = .stall(afterFrames: 70)
      $0.ringSize = 128
    }
    for number in 0..<100 { #expect(device.deliver(testFrame(number, byteCount: 60))) }
    device.publish()
    #expect((0..<4).map { _ in guest.step(queue: 0) } == [64, 6, 0, 0])
    #expect(guest.counters().buffersPosted == 128 + 64)
    #expect(guest.prepareToSleep(queue: 0))
  }

  @Test func `a ring is refilled when half a step's buffers are free, as by Linux`() throws {
    let (guest, device) = try startGuest()
    for number in 0..<33 {
      #expect(device.deliver(testFrame(number, byteCount: 60)))
      device.publish()
      #expect(guest.step(queue: 0) == 1)
      #expect(guest.counters().buffersPosted == (number < 32 ? 256 : 256 + 33))
    }
  }

  @Test func `spare buffers rest, so that guest addresses change`() throws {
    let (guest, device) = try startGuest {
      $0.ringSize = 4
      $0.spareBuffers = 5
      $0.refillThreshold = 0
    }
    var starts: Set<GuestAddress> = []
    for number in 0..<9 {
      let address = device.lastAvailable
      #expect(device.deliver(testFrame(number, byteCount: 60)))
      device.lastAvailable = address
      starts.insert(device.take()!.parts[0].start)
      device.publish()
      _ = guest.step(queue: 0)
    }
    #expect(starts.count == 9)
    #expect(guest.violations.isEmpty, "\(guest.violations)")
  }

  @Test func `an order of buffers comes from the seed`() throws {
    func order(_ seed: UInt64) throws -> [GuestAddress] {
      let (_, device) = try startGuest {
        $0.placement.isShuffled = true
        $0.seed = seed
      }
      return (0..<256).map { _ in device.take()!.parts[0].start }
    }
    let first = try order(1)
    #expect(try order(1) == first)
    #expect(try order(2) != first)
    #expect(first.sorted() != first)
  }

  @Test func `queues do not touch one another`() throws {
    var configuration = SimulatedGuest.Configuration()
    configuration.queueCount = 3
    configuration.checksCanaries = true
    configuration.checksUnusedMemory = true
    let guest = try SimulatedGuest(configuration)
    try guest.negotiate(offered: SimulatedGuest.understoodFeatures)
    guest.start()
    for queue in 0..<3 {
      let device = try TestDevice(guest, queue: queue)
      for number in 0...queue { #expect(device.deliver(testFrame(number, byteCount: 1000))) }
      device.publish()
    }
    #expect((0..<3).map { guest.step(queue: $0) } == [1, 2, 3])
    #expect((0..<3).map { guest.counters(queue: $0).frames } == [1, 2, 3])
    #expect(guest.counters().frames == 6)
    #expect(guest.verifyUntouched() && guest.violations.isEmpty, "\(guest.violations)")
  }

  @Test func `a device on another thread loses nothing`() throws {
    let (guest, device) = try startGuest { $0.checksCanaries = false }
    let count = 20_000
    let thread = try Thread(name: "device") {
      var sent = 0
      while sent < count {
        while sent < count && device.deliver(testFrame(sent % 97, byteCount: 60 + sent % 97)) { sent += 1 }
        device.publish()
      }
    }
    let deadline = MonotonicClock.now() + 60_000_000_000
    while guest.counters().frames < count && MonotonicClock.now() < deadline { _ = guest.step(queue: 0) }
    #expect(guest.counters().frames == count)
    thread.join()
    var stream = SHA256Stream()
    let frames = (0..<97).map { testFrame($0, byteCount: 60 + $0) }
    for number in 0..<count { stream.take(frame: frames[number % 97]) }
    #expect(guest.digest(queue: 0) == stream.digestSoFar())
    #expect(guest.violations.isEmpty, "\(guest.violations)")
  }
}
