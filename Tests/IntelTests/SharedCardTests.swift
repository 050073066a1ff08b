import Bus
import FlowSteering
import Linux
import NIC
import Simulation
import Support
import Testing

@testable import Intel

/// A driver on a card that several threads use.
private struct SharedMachine: @unchecked Sendable {
  let card: SharedCard
  let allocator = IOVAAllocator()
  let device: Ixgbe

  init(_ configure: (inout Ixgbe.Configuration) -> Void = { _ in }) throws {
    card = try SharedCard()
    var configuration = Ixgbe.Configuration()
    configure(&configuration)
    device = try Ixgbe(registers: card, space: card, allocator: allocator, clock: card, configuration: configuration)
    for pool in 0..<configuration.poolCount {
      try device.setAddress(Self.address(pool), slot: pool, pool: pool)
      try device.setAccepted([.broadcast, .untagged], pool: pool)
    }
  }

  static func address(_ pool: Int) -> MACAddress { MACAddress(0x0200_0000_0001 + UInt64(pool)) }

  func run() throws {
    try device.enableReceive()
    try device.waitForLink()
  }
  func makeBuffers(_ count: Int) throws -> DMABuffer {
    try DMABuffer(byteCount: count * 2048, access: [.read, .write], in: card, allocator: allocator)
  }
}

/// A frame with a number in it, and bytes that follow from the number.
private func frame(to address: MACAddress, from source: MACAddress = MACAddress(0x0200_0000_00EE), _ number: Int, count: Int = 80) -> [UInt8] {
  var bytes = (0..<6).map(address.octet) + (0..<6).map(source.octet) + [0x88, 0xB5]
  bytes += (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
  while bytes.count < count { bytes.append(UInt8(truncatingIfNeeded: number &* 31 &+ bytes.count)) }
  return bytes
}

/// So many numbered frames for each of some addresses in turn, at once.
@safe private final class NumberedFrames: WireSource {
  let addresses: [MACAddress]
  let count: Int
  private(set) var next = 0
  private var bytes: UnsafeMutableRawBufferPointer
  private var isMade = false
  init(to addresses: [MACAddress], count: Int) {
    self.addresses = addresses
    self.count = count
    unsafe bytes = .allocate(byteCount: 2048, alignment: 8)
  }
  deinit { unsafe bytes.deallocate() }
  func peek(_ limit: Int, into burst: WireBurst) -> Int {
    guard next < count else { return 0 }
    let made = frame(to: addresses[next % addresses.count], next / addresses.count)
    unsafe bytes.copyBytes(from: made)
    unsafe burst[0] = WireFrame(bytes: bytes.baseAddress!, count: made.count)
    return 1
  }
  func consume(_ count: Int) { next += count }
}

/// Keeps what it gets.
private final class KeepingUplink: Uplink {
  var frames: [[UInt8]] = []
  var takes = true
  func take(_ frame: UnsafeRawBufferPointer) -> Bool {
    if takes { frames.append(unsafe Array(frame)) }
    return takes
  }
}

/// A guest's queue pair, as a worker has it: buffers that go out and come back, numbered frames checked as they come.
private struct Pair: ~Copyable {
  var receiver: IntelReceiveQueue
  var sender: IntelTransmitQueue
  let buffers: DMABuffer
  let outgoing: DMABuffer
  private var posted = 0
  private var reaped = 0
  var received = 0
  var damaged = 0

  init(_ machine: SharedMachine, pool: Int, ringSize: Int = 64) throws {
    let number = machine.device.queueIndex(pool: pool)
    let incoming = try machine.makeBuffers(ringSize)
    let outgoing = try machine.makeBuffers(ringSize)
    let receiver = try machine.device.makeReceiveQueue(number, ringSize: ringSize, bufferByteCount: 2048)
    let sender = try machine.device.makeTransmitQueue(number, ringSize: ringSize)
    self.receiver = receiver
    self.sender = sender
    buffers = incoming
    self.outgoing = outgoing
  }

  mutating func start(_ device: Ixgbe) throws {
    try device.start(&receiver)
    try device.start(&sender)
    (posted, reaped) = (0, 0)
  }

  /// Takes what came, and lends all there is. Answers how much came.
  mutating func turn(_ check: (_ bytes: [UInt8]) -> Bool) -> Int {
    var count = 0
    while let completion = receiver.reap() {
      let slot = reaped % (receiver.capacity + 1)
      if unsafe !check(Array(buffers.bytes(slot * 2048, Int(completion.byteCount)))) { damaged += 1 }
      reaped += 1
      count += 1
    }
    received += count
    let before = posted
    while receiver.room > 0 {
      receiver.post(buffers.address + UInt64(posted % (receiver.capacity + 1) * 2048))
      posted += 1
    }
    if posted != before { receiver.ring() }
    return count
  }

  mutating func mustSend(_ frames: [[UInt8]]) {
    for frame in frames {
      let isSent = send(frame)
      #expect(isSent)
    }
  }
  private var sent = 0
  /// Sends one frame in two pieces; false if there is no room.
  mutating func send(_ bytes: [UInt8]) -> Bool {
    _ = sender.reap()
    guard sender.room >= 2 else { return false }
    let slot = sent % (sender.capacity + 1)
    sent += 1
    unsafe outgoing.bytes(slot * 2048, bytes.count).copyBytes(from: bytes)
    let address = outgoing.address + UInt64(slot * 2048)
    sender.post(address, byteCount: 14, of: UInt32(bytes.count), isLast: false)
    sender.post(address + 14, byteCount: UInt32(bytes.count - 14), of: UInt32(bytes.count), isLast: true)
    sender.ring()
    return true
  }
}

@Suite struct SharedCardTests {
  @Test func `the driver comes up without waiting in earnest, and without the pump`() throws {
    let before = MonotonicClock.now()
    let machine = try SharedMachine { $0.poolCount = 4 }
    try machine.run()
    #expect(machine.device.link == CardLink(isUp: true, megabits: 10_000))
    // Resets and the link take more than 10 ms of the card's time.
    #expect(machine.card.now > 10_000_000)
    #expect(MonotonicClock.now() - before < 10_000_000_000)
    let (first, second) = (machine.card.now, machine.card.now)
    #expect(second >= first)
    machine.card.pause(nanoseconds: 1_000_000_000)
    #expect(machine.card.now - first >= 1_000_000_000)
    machine.card.withModels { card, iommu, _ in
      #expect(card.misuses.isEmpty && iommu.faultCount == 0)
    }
  }

  @Test func `frames from the wire wait for descriptors, and none is lost or out of order`() throws {
    let machine = try SharedMachine { $0.poolCount = 2 }
    var pair = try Pair(machine, pool: 1, ringSize: 16)
    try pair.start(machine.device)
    try machine.run()
    let source = NumberedFrames(to: [SharedMachine.address(1)], count: 1000)
    machine.card.attach(source, waits: true)
    #expect(machine.card.pump() == 0 && machine.card.heldQueues == [2])
    var expected = 0
    while expected < 1000 {
      _ = pair.turn { bytes in
        expected += 1
        return bytes == frame(to: SharedMachine.address(1), expected - 1)
      }
      let moved = machine.card.pump(7)
      #expect(moved > 0 || expected == 1000)
    }
    let damaged = pair.damaged
    #expect(damaged == 0)
    let counters = machine.card.counters
    #expect(counters.receivedFrames == 1000 && counters.receivedBytes == 80_000)
    #expect(counters.deliveredFrames(queue: 2, from: .wire) == 1000 && counters.droppedFrames(queue: 2, from: .wire) == 0)
    #expect(counters.laws.allSatisfy { $0.left == $0.right })
    machine.card.detach(source)
    #expect(machine.card.pump() == 0 && machine.card.heldQueues.isEmpty)
  }

  @Test func `the wire waits for a queue as long as it is told to`() throws {
    let machine = try SharedMachine { $0.poolCount = 2 }
    var slow = try Pair(machine, pool: 0, ringSize: 16)
    var quick = try Pair(machine, pool: 1, ringSize: 16)
    try slow.start(machine.device)
    try quick.start(machine.device)
    try machine.run()
    _ = quick.turn { _ in true }
    // One for the queue without descriptors, one for the other, and so on.
    let source = NumberedFrames(to: [SharedMachine.address(0), SharedMachine.address(1)], count: 20)
    let own = TrafficCounters()
    machine.card.attach(source, waits: true, counting: own)
    for _ in 0..<100 { #expect(machine.card.pump() == 0) }
    #expect(machine.card.heldQueues == [0] && machine.card.counters.receivedFrames == 0)
    machine.card.stopWaiting(forQueue: 0)
    #expect(machine.card.pump() == 20)
    let counters = machine.card.counters
    #expect(counters.droppedFrames(.noDescriptors, queue: 0, from: .wire) == 10)
    #expect(counters.deliveredFrames(queue: 2, from: .wire) == 10)
    // It takes a frame again: from then on it is waited for again.
    machine.card.detach(source)
    slow.receiver.post(slow.buffers.address)
    slow.receiver.ring()
    machine.card.attach(NumberedFrames(to: [SharedMachine.address(0)], count: 3), waits: true)
    #expect(machine.card.pump() == 1 && machine.card.pump() == 0)
    // A source's own counters have its own frames only.
    #expect(own.receivedFrames == 20 && counters.receivedFrames == 21 && own.deliveredFrames(queue: 2, from: .wire) == 10)
    #expect(own.droppedFrames(.noDescriptors, queue: 0, from: .wire) == 10 && own.laws.allSatisfy { $0.left == $0.right })
    #expect(machine.card.heldQueues == [0])
    #expect(counters.laws.allSatisfy { $0.left == $0.right })
  }

  @Test func `patience of none is none, and a wire that does not wait drops`() throws {
    for (waits, patience) in [(true, UInt64(0)), (false, nil)] as [(Bool, UInt64?)] {
      let machine = try SharedMachine()
      var pair = try Pair(machine, pool: 0)
      try pair.start(machine.device)
      try machine.run()
      machine.card.attach(NumberedFrames(to: [SharedMachine.address(0)], count: 5), waits: waits, patience: patience)
      #expect(machine.card.pump() == 5)
      #expect(machine.card.counters.droppedFrames(.noDescriptors, queue: 0, from: .wire) == 5)
      #expect(machine.card.sleepLimit == nil)
    }
  }

  @Test func `what is sent goes to the uplink, and what it does not take is counted`() throws {
    let machine = try SharedMachine { $0.poolCount = 2 }
    var pair = try Pair(machine, pool: 0)
    try pair.start(machine.device)
    try machine.run()
    let uplink = KeepingUplink()
    machine.card.setUplink(uplink)
    let outside = MACAddress(0x0200_0000_0099)
    pair.mustSend([frame(to: outside, 1), frame(to: .broadcast, 2), frame(to: SharedMachine.address(0), 3)])
    #expect(machine.card.pump() == 3)
    #expect(uplink.frames == [frame(to: outside, 1), frame(to: .broadcast, 2)])
    uplink.takes = false
    pair.mustSend([frame(to: outside, 4)])
    #expect(machine.card.pump() == 1)
    machine.card.setUplink(nil)
    pair.mustSend([frame(to: outside, 5)])
    // A pause is time, in which the card sends.
    machine.card.pause(nanoseconds: 10)
    _ = pair.sender.reap()
    let (room, capacity) = (pair.sender.room, pair.sender.capacity)
    #expect(room == capacity)
    let counters = machine.card.counters
    #expect(counters.sentFrames(queue: 0) == 5 && counters.wireFrames(queue: 0) == 4 && counters.lostFrames == 1)
    #expect(counters.nowhereFrames(queue: 0) == 1 && counters.wireBytes(queue: 0) == 320 && counters.lostBytes == 80)
    // The broadcast's copy for the other pool, which has no queue that runs.
    #expect(counters.switchedCopies(queue: 0) == 1)
  }

  @Test func `copies have their queues and reasons, from the wire and from other pools`() throws {
    let machine = try SharedMachine { $0.poolCount = 3 }
    var first = try Pair(machine, pool: 0)
    var second = try Pair(machine, pool: 1)
    try first.start(machine.device)
    try second.start(machine.device)
    try machine.run()
    _ = first.turn { _ in true }
    // Pool 1 has no descriptor, pool 2 no queue that runs.
    let broadcast = frame(to: .broadcast, 1)
    let arrival = unsafe broadcast.withUnsafeBytes { unsafe machine.card.receive($0) }
    #expect(arrival == .replicated(delivered: 0b001, dropped: 0b110, queueInPool: 0))
    let held = unsafe broadcast.withUnsafeBytes { unsafe machine.card.receive($0, waits: true) }
    #expect(held == .held(queue: 2))
    first.mustSend([broadcast])
    #expect(machine.card.pump() == 1)
    let counters = machine.card.counters
    #expect(counters.receivedFrames == 1 && counters.replicatedFrames == 2)
    #expect(counters.deliveredFrames(queue: 0, from: .wire) == 1)
    for origin in TrafficCounters.Origin.allCases {
      #expect(counters.droppedFrames(.noDescriptors, queue: 2, from: origin) == 1)
      #expect(counters.droppedFrames(.queueDisabled, queue: 4, from: origin) == 1)
    }
    #expect(counters.switchedCopies(queue: 0) == 2 && counters.wireFrames(queue: 0) == 1)
    #expect(counters.laws.allSatisfy { $0.left == $0.right })
    // A frame for nobody has no queue.
    let stray = frame(to: MACAddress(0x0200_0000_0077), 1)
    _ = unsafe stray.withUnsafeBytes { unsafe machine.card.receive($0) }
    #expect(counters.droppedFrames(.noPool, queue: nil, from: .wire) == 1)
    #expect(counters.laws.allSatisfy { $0.left == $0.right })
  }

  @Test func `a bus fault shows in the counters`() throws {
    let machine = try SharedMachine()
    var pair = try Pair(machine, pool: 0)
    try pair.start(machine.device)
    try machine.run()
    pair.receiver.post(IOVA(0xDEAD_0000))
    pair.receiver.ring()
    machine.card.attach(NumberedFrames(to: [SharedMachine.address(0)], count: 1))
    #expect(machine.card.pump() == 1)
    #expect(machine.card.counters.busFaults == 1 && machine.card.busFaults.map(\.address) == [IOVA(0xDEAD_0000)])
    #expect(machine.card.receiveQueueFault(0) == .bufferWrite(address: 0xDEAD_0000, count: 80))
    #expect(machine.card.counters.droppedFrames(.dmaFault, queue: 0, from: .wire) == 1)
    #expect(machine.card.transmitQueueFault(0) == nil)
  }
}

/// What of a test has to be told from thread to thread.
private final class Shared: @unchecked Sendable {
  let stop = SharedWord()
  let isReady = [SharedWord(), SharedWord()]
  let hasHeard = [SharedWord(), SharedWord()]
  let isFinished = [SharedWord(), SharedWord()]
  let stopEvent: EventDescriptor
  init() throws { stopEvent = try EventDescriptor() }
}
/// Long after anything that works: what waits so long has missed its call.
private let never: UInt64 = 20_000_000_000

@Suite struct SharedCardThreadTests {
  /// The pump sleeps whenever it may, with no time limit but the card's own.
  private func startPump(_ card: SharedCard, _ shared: Shared) throws -> Thread {
    try Thread(name: "pump") {
      while shared.stop.value == 0 {
        if card.pump() == 0 { card.sleep(orUntil: [shared.stopEvent.descriptor.number], atMost: never) }
      }
    }
  }
  private func stop(_ shared: Shared, _ pump: consuming Thread) {
    shared.stop.set(1)
    shared.stopEvent.signal()
    pump.join()
  }

  /// The wire sends two workers numbered frames, and then they send each other some, while the pump is another thread.
  /// Workers and pump sleep when they have nothing to do: a call that is missed stops everything.
  @Test func `workers and the pump, asleep whenever they can be, lose nothing`() throws {
    let machine = try SharedMachine { $0.poolCount = 2 }
    let (fromWire, fromPeer) = (6000, 3000)
    let shared = try Shared()
    try machine.run()
    let source = NumberedFrames(to: [SharedMachine.address(0), SharedMachine.address(1)], count: 2 * fromWire)
    let missed = SharedWord()
    let problems = [SharedWord(), SharedWord()]
    func work(_ pool: Int) -> @Sendable () -> Void {
      {
        guard let event = try? EventDescriptor(), var pair = try? Pair(machine, pool: pool) else { return problems[pool].set(1) }
        guard (try? machine.card.connect(vector: pool, to: event)) != nil, (try? pair.start(machine.device)) != nil,
          let interrupt = try? machine.device.interrupt(pool)
        else { return problems[pool].set(2) }
        _ = pair.turn { _ in false }
        shared.isReady[pool].set(1)
        while shared.isReady[1 - pool].value == 0 { MonotonicClock.sleep(nanoseconds: 1_000_000) }
        let peer = SharedMachine.address(1 - pool)
        var (wire, switched, sent) = (0, 0, 0)
        func check(_ bytes: [UInt8]) -> Bool {
          if bytes == frame(to: SharedMachine.address(pool), wire) {
            wire += 1
          } else if bytes == frame(to: SharedMachine.address(pool), from: peer, switched) {
            switched += 1
          } else {
            return false
          }
          return true
        }
        func turn(_ mayEnd: () -> Bool, sends: Bool) -> Bool {
          var moved = pair.turn(check) > 0
          // No more than the other side has room for: the switch does not wait, as the wire does.
          while sends && sent < fromPeer && sent < switched + 8
            && pair.send(frame(to: peer, from: SharedMachine.address(pool), sent))
          {
            sent += 1
            moved = true
          }
          if pair.sender.reap() > 0 { moved = true }
          if moved { machine.card.waker.wake() }
          return moved || mayEnd()
        }
        /// Turns until it is over, asleep when there is nothing to do.
        func work(until mayEnd: () -> Bool, sends: Bool) {
          while !mayEnd() {
            if turn(mayEnd, sends: sends) { continue }
            interrupt.arm()
            if turn(mayEnd, sends: sends) { continue }
            Readiness.wait(for: [event.descriptor.number], atMost: never)
            if !event.clear() {
              missed.set(missed.value + 1)
              return
            }
          }
        }
        work(until: { wire == fromWire }, sends: false)
        shared.hasHeard[pool].set(1)
        while shared.hasHeard[1 - pool].value == 0 { MonotonicClock.sleep(nanoseconds: 1_000_000) }
        work(until: { switched == fromPeer && sent == fromPeer && pair.sender.room == pair.sender.capacity }, sends: true)
        interrupt.disarm()
        machine.card.disconnect(vector: pool)
        problems[pool].set(UInt64(pair.damaged))
        shared.isFinished[pool].set(1)
        // Until both are done: the other still sends.
        while shared.isFinished[1 - pool].value == 0 && missed.value == 0 { MonotonicClock.sleep(nanoseconds: 1_000_000) }
        if (try? pair.receiver.quiesce()) == nil || (try? pair.sender.quiesce()) == nil { problems[pool].set(3) }
      }
    }
    for pool in 0..<2 {
      let number = machine.device.queueIndex(pool: pool)
      try machine.device.assign(vector: pool, receiveQueue: number)
      try machine.device.assign(vector: pool, transmitQueue: number)
    }
    let pump = try startPump(machine.card, shared)
    let first = try Thread(name: "first", work(0))
    let second = try Thread(name: "second", work(1))
    // A queue that does not run yet is not waited for.
    while shared.isReady.contains(where: { $0.value == 0 }) { MonotonicClock.sleep(nanoseconds: 1_000_000) }
    machine.card.attach(source, waits: true)
    first.join()
    second.join()
    stop(shared, pump)
    #expect(missed.value == 0, "a sleeper was not called")
    #expect(problems.map(\.value) == [0, 0])
    let counters = machine.card.counters
    for queue in [0, 2] {
      #expect(counters.deliveredFrames(queue: queue, from: .wire) == UInt64(fromWire))
      #expect(counters.deliveredFrames(queue: queue, from: .pools) == UInt64(fromPeer))
    }
    #expect(counters.laws.allSatisfy { $0.left == $0.right } && counters.busFaults == 0)
    machine.card.withModels { card, iommu, _ in #expect(card.misuses.isEmpty && iommu.mappingCount == 0) }
  }

  /// A guest that comes and goes while frames for it and its neighbour arrive and its neighbour sends: its queues stop,
  /// its buffers and rings leave the bus and come back, and the card never reaches for what is gone.
  @Test func `queues and memory come and go under traffic, and every frame is accounted for`() throws {
    let machine = try SharedMachine { $0.poolCount = 2 }
    let shared = try Shared()
    try machine.run()
    let problems = [SharedWord(), SharedWord()]
    // Long-lived: takes what comes, and sends to the one that comes and goes.
    let neighbour = try Thread(name: "neighbour") {
      guard var pair = try? Pair(machine, pool: 0), (try? pair.start(machine.device)) != nil else { return problems[0].set(1) }
      let (greeting, toAll) = (frame(to: SharedMachine.address(1), 7), frame(to: .broadcast, 8))
      var turns = 0
      shared.isReady[0].set(1)
      while shared.isFinished[1].value == 0 {
        _ = pair.turn { $0.count == 80 }
        _ = pair.send(turns % 3 == 0 ? toAll : greeting)
        machine.card.waker.wake()
        turns += 1
        if turns % 64 == 0 { MonotonicClock.sleep(nanoseconds: 100_000) }
      }
      if (try? pair.receiver.quiesce()) == nil || (try? pair.sender.quiesce()) == nil { problems[0].set(2) }
      if pair.damaged > 0 || pair.received == 0 { problems[0].set(3) }
    }
    let pump = try startPump(machine.card, shared)
    while shared.isReady[0].value == 0 { MonotonicClock.sleep(nanoseconds: 1_000_000) }
    let source = NumberedFrames(to: [SharedMachine.address(1), SharedMachine.address(0), .broadcast], count: .max)
    machine.card.attach(source, waits: true, patience: 0)
    var (received, damaged) = (0, 0)
    for _ in 0..<150 {
      // Its rings and buffers are new ones each time, at addresses that were used before.
      var pair = try Pair(machine, pool: 1)
      try pair.start(machine.device)
      for _ in 0..<20 {
        _ = pair.turn { $0.count == 80 }
        _ = pair.send(frame(to: SharedMachine.address(0), 1))
        machine.card.waker.wake()
      }
      try pair.receiver.quiesce()
      try pair.sender.quiesce()
      _ = pair.turn { $0.count == 80 }
      (received, damaged) = (received + pair.received, damaged + pair.damaged)
    }
    machine.card.detach(source)
    shared.isFinished[1].set(1)
    neighbour.join()
    stop(shared, pump)
    #expect(problems.map(\.value) == [0, 0] && damaged == 0 && received > 0)
    let counters = machine.card.counters
    #expect(counters.laws.allSatisfy { $0.left == $0.right } && counters.busFaults == 0)
    let delivered = TrafficCounters.Origin.allCases.reduce(0) { $0 + counters.deliveredFrames(queue: 2, from: $1) }
    #expect(delivered == UInt64(received))
    machine.card.withModels { card, iommu, _ in #expect(card.misuses.isEmpty && iommu.mappingCount == 0) }
    #expect(machine.allocator.usedByteCount == 0)
  }

  /// What the card holds back by EITR comes when its time is over, also while the pump is asleep.
  @Test func `a message that is held back wakes its sleeper in the end`() throws {
    let machine = try SharedMachine()
    let shared = try Shared()
    var pair = try Pair(machine, pool: 0)
    try pair.start(machine.device)
    try machine.run()
    let event = try EventDescriptor()
    try machine.card.connect(vector: 3, to: event)
    try machine.device.assign(vector: 3, receiveQueue: 0)
    try machine.device.setModeration(microseconds: 1000, vector: 3)
    let interrupt = try machine.device.interrupt(3)
    _ = pair.turn { _ in true }
    let pump = try startPump(machine.card, shared)
    var calls = 0
    for number in 0..<50 {
      interrupt.arm()
      let sent = frame(to: SharedMachine.address(0), number)
      let arrival = unsafe sent.withUnsafeBytes { unsafe machine.card.receive($0) }
      #expect(arrival == .delivered(queue: 0))
      Readiness.wait(for: [event.descriptor.number], atMost: never)
      let isCalled = event.clear()
      if isCalled { calls += 1 }
      _ = pair.turn { $0 == sent }
    }
    stop(shared, pump)
    let (received, damaged) = (pair.received, pair.damaged)
    #expect(calls == 50 && received == 50 && damaged == 0)
    try pair.receiver.quiesce()
    try pair.sender.quiesce()
  }

  // MARK: a TAP device at the wire's end

  private static let needsTap: Comment = "TAP devices need root and /dev/net/tun"

  private static func next(_ socket: borrowing PacketSocket) -> [UInt8]? {
    while let frame = socket.receive() {
      if frame.count >= 14 && frame[12] == 0x88 && frame[13] == 0xB5 { return frame }
    }
    return nil
  }

  @Test(.enabled(if: FreshNetwork.hasTap, needsTap))
  func `a guest and the machine reach each other over a TAP device, and what is lost is counted`() throws {
    try FreshNetwork.run {
      let machine = try SharedMachine()
      var pair = try Pair(machine, pool: 0, ringSize: 16)
      try pair.start(machine.device)
      try machine.run()
      let tap = try TapDevice(name: "wire0")
      try tap.setMTU(4000)
      try tap.bringUp()
      let wire = TapWire(tap)
      machine.card.attach(wire)
      machine.card.setUplink(wire)
      let link = try PacketSocket(link: "wire0")
      let guest = SharedMachine.address(0)
      _ = pair.turn { _ in true }
      // Short frames come padded, as a sender on a wire does.
      let short = Array(frame(to: guest, 1, count: 30))
      var got: [[UInt8]] = []
      for sent in [short, frame(to: guest, 2), frame(to: guest, 3, count: 1514), frame(to: guest, 4, count: 1600)] {
        try check(link.send(sent), is: 0, "errno")
      }
      while machine.card.pump() > 0 {}
      _ = pair.turn { bytes in
        // The machine has frames of its own, such as IPv6's.
        if bytes[12] == 0x88 && bytes[13] == 0xB5 { got.append(bytes) }
        return true
      }
      try check(got == [short + [UInt8](repeating: 0, count: 30), frame(to: guest, 2), frame(to: guest, 3, count: 1514)], "\(got)")
      let counters = machine.card.counters
      try check(counters.droppedFrames(.oversize, queue: nil, from: .wire), is: 1, "past the card's MTU")
      // Out: as they are.
      for count in [60, 1514] {
        let sent = frame(to: .broadcast, from: guest, count, count: count)
        try check(pair.send(sent), "no room to send")
        _ = machine.card.pump()
        let seen = Self.next(link)
        try check(seen == sent, "\(count) bytes: \(seen ?? [])")
      }
      try check(counters.wireFrames(queue: 0), is: 2, "on the wire")
      // No buffer: dropped and counted, and the wire goes on.
      try pair.receiver.quiesce()
      try check(link.send(frame(to: guest, 5)), is: 0, "errno")
      while machine.card.pump() > 0 {}
      try check(counters.droppedFrames(.queueDisabled, queue: 0, from: .wire), is: 1, "without a queue")
      try check(counters.laws.allSatisfy { $0.left == $0.right }, "\(counters.laws)")
      try pair.sender.quiesce()
    }
  }

  @Test(.enabled(if: FreshNetwork.hasTap, needsTap))
  func `a pump that sleeps hears the TAP device`() throws {
    try FreshNetwork.run {
      let machine = try SharedMachine()
      let shared = try Shared()
      var pair = try Pair(machine, pool: 0)
      try pair.start(machine.device)
      try machine.run()
      let wire = TapWire(try { let tap = try TapDevice(name: "wire1"); try tap.bringUp(); return tap }())
      machine.card.attach(wire)
      let event = try EventDescriptor()
      try machine.card.connect(vector: 0, to: event)
      try machine.device.assign(vector: 0, receiveQueue: 0)
      let link = try PacketSocket(link: "wire1")
      let interrupt = try machine.device.interrupt(0)
      let pump = try Thread(name: "pump") {
        while shared.stop.value == 0 {
          if machine.card.pump() == 0 { machine.card.sleep(orUntil: [shared.stopEvent.descriptor.number], atMost: never) }
        }
      }
      var problem: String?
      for number in 0..<200 {
        let sent = frame(to: SharedMachine.address(0), number)
        interrupt.arm()
        _ = pair.turn { _ in true }
        var isThere = false
        let code = link.send(sent)
        while !isThere && problem == nil {
          _ = pair.turn { bytes in
            if bytes == sent { isThere = true }
            return true
          }
          if isThere { break }
          Readiness.wait(for: [event.descriptor.number], atMost: never)
          if !event.clear() || code != 0 { problem = "frame \(number): errno \(code), or nobody called" }
          interrupt.arm()
        }
        if problem != nil { break }
      }
      shared.stop.set(1)
      shared.stopEvent.signal()
      pump.join()
      try pair.receiver.quiesce()
      try pair.sender.quiesce()
      try check(problem == nil, problem ?? "")
    }
  }
}
