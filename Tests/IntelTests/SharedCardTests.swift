import Bus
import FlowSteering
import Linux
import NIC
import Simulation
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
  func peek() -> WireFrame? {
    guard next < count else { return nil }
    let made = frame(to: addresses[next % addresses.count], next / addresses.count)
    unsafe bytes.copyBytes(from: made)
    return unsafe WireFrame(bytes: bytes.baseAddress!, count: made.count)
  }
  func consume() { next += 1 }
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
  var receiver: IxgbeReceiveQueue
  var sender: IxgbeTransmitQueue
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
    #expect(machine.device.link == IxgbeLink(isUp: true, megabits: 10_000))
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
    machine.card.attach(source, waits: true)
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
}
