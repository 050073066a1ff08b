import Bus
import FlowSteering
import FlowTables
import NIC
import Simulation
import Testing

@testable import Intel

/// The driver on the register-level model: what neither was written to please.
private struct Machine {
  let clock = SimulatedClock()
  let iommu: SimulatedIOMMU
  let card: SimulatedCard
  let allocator = IOVAAllocator()
  let device: Ixgbe

  init(faults: CardFaults = .none, _ configure: (inout Ixgbe.Configuration) -> Void = { _ in }) throws {
    iommu = SimulatedIOMMU(clock: clock)
    card = SimulatedCard(dma: iommu, clock: clock, faults: faults)
    var configuration = Ixgbe.Configuration()
    configure(&configuration)
    device = try Ixgbe(registers: card, space: iommu, allocator: allocator, clock: clock, configuration: configuration)
  }

  func makeBuffers(_ count: Int, bytes: Int = 2048) throws -> DMABuffer {
    try DMABuffer(byteCount: count * bytes, access: [.read, .write], in: iommu, allocator: allocator)
  }

  /// Puts a frame on the wire.
  func receive(_ frame: [UInt8]) -> Arrival {
    unsafe frame.withUnsafeBytes { unsafe card.receive(WireFrame(bytes: $0.baseAddress!, count: $0.count)) }
  }
}

/// A frame for an address, each byte of its payload from a number.
private func frame(to address: MACAddress, mark: Int, count: Int = 100, tag: UInt16? = nil) -> [UInt8] {
  var bytes = (0..<6).map(address.octet) + (0..<6).map(MACAddress(0x0200_0000_00EE).octet)
  if let tag { bytes += [0x81, 0x00, UInt8(tag >> 8), UInt8(tag & 255)] }
  bytes += [0x88, 0xB5]
  while bytes.count < count { bytes.append(UInt8(truncatingIfNeeded: mark &+ bytes.count)) }
  return bytes
}

private func contents(_ buffers: borrowing DMABuffer, _ slot: Int, _ count: Int) -> [UInt8] {
  unsafe Array(buffers.bytes(slot * 2048, count))
}

@Suite struct ModelTests {
  private let first = MACAddress(0x0200_0000_0001)
  private let second = MACAddress(0x0200_0000_0002)

  @Test func `the driver starts the model without a mistake, and the link comes`() throws {
    for configure: (inout Ixgbe.Configuration) -> Void in [
      { _ in }, { $0.poolCount = 64 }, { $0.poolCount = 32; $0.queuesPerPool = 4 }, { $0.flowDirector = .filters2046 },
      { $0.mtu = 9000; $0.queuesPerPool = 8 },
    ] {
      let machine = try Machine(configure)
      try machine.device.waitForLink()
      #expect(machine.device.link == CardLink(isUp: true, megabits: 10_000))
      var queue = try machine.device.makeReceiveQueue(0, ringSize: 64, bufferByteCount: 16_384)
      try machine.device.start(&queue)
      try machine.device.enableReceive()
      try queue.quiesce()
      try machine.device.shutDown()
      #expect(machine.card.misuses.isEmpty)
      #expect(machine.iommu.faultCount == 0)
    }
  }

  @Test func `frames come into the buffers that were posted, in order, around the ring`() throws {
    let machine = try Machine()
    try machine.device.setAddress(first, slot: 0, pool: 0)
    var queue = try machine.device.makeReceiveQueue(0, ringSize: 16, bufferByteCount: 2048)
    let buffers = try machine.makeBuffers(15)
    try machine.device.start(&queue)
    try machine.device.enableReceive()
    try machine.device.waitForLink()
    for slot in 0..<15 { queue.post(buffers.address + UInt64(2048 * slot)) }
    queue.ring()
    for n in 0..<200 {
      let sent = frame(to: first, mark: n, count: 60 + n)
      #expect(machine.receive(sent) == .delivered(queue: 0))
      let completion = queue.reap()
      #expect(completion == Completion(byteCount: UInt32(60 + n), flags: .isEnd))
      #expect(contents(buffers, n % 15, 60 + n) == sent)
      queue.post(buffers.address + UInt64(2048 * (n % 15)))
      queue.ring()
    }
    #expect(queue.reap() == nil)
    #expect(machine.card.misuses.isEmpty && machine.iommu.faultCount == 0)
    let statistics = machine.device.readStatistics()
    #expect(statistics.receivedFrames == 200 && statistics.queues[0].receivedFrames == 200)
    try queue.quiesce()
  }

  @Test func `a burst longer than the ring is dropped at its end and counted`() throws {
    let machine = try Machine()
    try machine.device.setAddress(first, slot: 0, pool: 0)
    var queue = try machine.device.makeReceiveQueue(0, ringSize: 8, bufferByteCount: 2048)
    let buffers = try machine.makeBuffers(7)
    try machine.device.start(&queue)
    try machine.device.enableReceive()
    try machine.device.waitForLink()
    for slot in 0..<7 { queue.post(buffers.address + UInt64(2048 * slot)) }
    queue.ring()
    let arrivals = (0..<10).map { machine.receive(frame(to: first, mark: $0)) }
    #expect(arrivals.prefix(7).allSatisfy { $0 == .delivered(queue: 0) })
    #expect(arrivals.suffix(3).allSatisfy { $0 == .dropped(.noDescriptors, queue: 0) })
    var count = 0
    while let completion = queue.reap() {
      #expect(completion.byteCount == 100)
      count += 1
    }
    #expect(count == 7 && machine.device.readStatistics().queues[0].droppedFrames == 3)
    try queue.quiesce()
  }

  @Test func `pools get the frames of their addresses, VLANs and broadcasts, and no others`() throws {
    let machine = try Machine { $0.poolCount = 3 }
    let device = machine.device
    try device.setAddress(first, slot: 0, pool: 0)
    try device.setAddress(second, slot: 1, pool: 2)
    try device.setAccepted([.broadcast, .untagged], pool: 0)
    try device.setAccepted([.untagged], pool: 1)
    try device.setAccepted([.broadcast, .untagged], pool: 2)
    try device.setVLAN(7, pools: 0b001)
    let numbers = (0..<3).map { device.queueIndex(pool: $0) }
    #expect(numbers == [0, 2, 4])
    var a = try device.makeReceiveQueue(numbers[0], ringSize: 32, bufferByteCount: 2048)
    var b = try device.makeReceiveQueue(numbers[2], ringSize: 32, bufferByteCount: 2048)
    let buffers = try machine.makeBuffers(32)
    try device.start(&a)
    try device.start(&b)
    try device.enableReceive()
    try device.waitForLink()
    for slot in 0..<16 {
      a.post(buffers.address + UInt64(2048 * slot))
      b.post(buffers.address + UInt64(2048 * (16 + slot)))
    }
    a.ring()
    b.ring()
    #expect(machine.receive(frame(to: first, mark: 1)) == .delivered(queue: 0))
    #expect(machine.receive(frame(to: second, mark: 2)) == .delivered(queue: 4))
    // Nobody's.
    #expect(machine.receive(frame(to: MACAddress(0x0200_0000_0003), mark: 3)) == .dropped(.noPool, queue: nil))
    // Both that asked, and not the third.
    #expect(machine.receive(frame(to: .broadcast, mark: 4)) == .replicated(delivered: 0b101, dropped: 0, queueInPool: 0))
    // VLAN 7 is the first one's only; VLAN 8 nobody's.
    #expect(machine.receive(frame(to: first, mark: 5, tag: 7)) == .delivered(queue: 0))
    #expect(machine.receive(frame(to: second, mark: 6, tag: 7)) == .dropped(.noPool, queue: nil))
    #expect(machine.receive(frame(to: first, mark: 7, tag: 8)) == .dropped(.noPool, queue: nil))
    // An address that is taken away.
    try device.clearAddress(slot: 1)
    #expect(machine.receive(frame(to: second, mark: 8)) == .dropped(.noPool, queue: nil))
    for (mark, tag) in [(1, nil), (4, nil), (5, 7)] as [(Int, UInt16?)] {
      let slot = mark == 1 ? 0 : mark == 4 ? 1 : 2
      #expect(a.reap()?.byteCount == 100)
      #expect(contents(buffers, slot, 100) == frame(to: mark == 4 ? .broadcast : first, mark: mark, tag: tag))
    }
    #expect(a.reap() == nil)
    #expect(b.reap() != nil && b.reap() != nil && b.reap() == nil)
    #expect(contents(buffers, 16, 100) == frame(to: second, mark: 2))
    let statistics = device.readStatistics()
    #expect(statistics.queues[0].receivedFrames == 3 && statistics.queues[2].receivedFrames == 2)
    #expect(machine.card.misuses.isEmpty && machine.iommu.faultCount == 0)
    try a.quiesce()
    try b.quiesce()
  }

  @Test(arguments: [68, 1500, 2034, 9710])
  func `the frame limit is the limit stated, to the byte, with and without a tag`(mtu: Int) throws {
    let machine = try Machine { $0.mtu = mtu }
    try machine.device.setAddress(first, slot: 0, pool: 0)
    let limit = machine.device.largestFrame
    var queue = try machine.device.makeReceiveQueue(0, ringSize: 8, bufferByteCount: limit)
    let buffers = try machine.makeBuffers(1, bytes: 16_384)
    try machine.device.start(&queue)
    try machine.device.enableReceive()
    try machine.device.waitForLink()
    // The buffer is just as large as stated; canaries behind it.
    let all = unsafe buffers.bytes(0, 16_384)
    for index in 0..<16_384 { unsafe all[index] = 0xC5 }
    queue.post(buffers.address)
    queue.ring()
    #expect(machine.receive(frame(to: first, mark: 1, count: limit + 1, tag: 1)) == .dropped(.oversize, queue: nil))
    #expect(machine.receive(frame(to: first, mark: 1, count: limit - 3)) == .dropped(.oversize, queue: nil))
    let largest = frame(to: first, mark: 1, count: limit, tag: 1)
    #expect(machine.receive(largest) == .delivered(queue: 0))
    #expect(queue.reap() == Completion(byteCount: UInt32(limit), flags: .isEnd))
    #expect(unsafe Array(all[..<limit]) == largest)
    #expect(unsafe all[limit...].allSatisfy { $0 == 0xC5 })
    #expect(machine.device.readStatistics().oversized == 2)
    try queue.quiesce()
  }

  @Test func `an exact flow finds its queue, and its hash is the card's`() throws {
    let machine = try Machine {
      $0.flowDirector = .filters2046
      $0.queuesPerPool = 4
    }
    try machine.device.setAddress(first, slot: 0, pool: 0)
    try machine.device.enableReceive()
    try machine.device.waitForLink()
    var seed = Seed(0x82599)
    for number in 0..<50 {
      let flow = IxgbeFlow(
        source: .random(in: 1 ... .max, using: &seed), destination: .random(in: 1 ... .max, using: &seed),
        sourcePort: .random(in: 1 ... .max, using: &seed), destinationPort: .random(in: 1 ... .max, using: &seed),
        transport: number % 2 == 0 ? .tcp : .udp)
      try machine.device.addExactFlow(flow, number: number, pool: 0, queue: number % 4)
      // Its queue does not run: that it is looked for there is what the drop says.
      #expect(machine.receive(packet(flow)) == .dropped(.queueDisabled, queue: number % 4), "SEED=\(seed)")
      try machine.device.removeExactFlow(flow, number: number, pool: 0)
    }
    #expect(machine.device.readStatistics().flowMatches == 50)
  }

  @Test func `a five-tuple and an EtherType choose a queue`() throws {
    let machine = try Machine {
      $0.poolCount = 2
      $0.queuesPerPool = 4
    }
    let device = machine.device
    try device.setAddress(first, slot: 0, pool: 1)
    let flow = IxgbeFlow(source: 0xC0A8_0001, destination: 0x0A00_0002, sourcePort: 4660, destinationPort: 80, transport: .tcp)
    try device.setFlow(IxgbeFlow(destinationPort: 80, transport: .tcp), slot: 0, pool: 1, queue: 2, priority: 1)
    try device.setEtherType(0x88B5, slot: 0, pool: 1, queue: 3)
    try device.setAccepted(.untagged, pool: 1)
    try device.enableReceive()
    try device.waitForLink()
    #expect(machine.receive(packet(flow)) == .dropped(.queueDisabled, queue: 6))
    #expect(machine.receive(frame(to: first, mark: 0)) == .dropped(.queueDisabled, queue: 7))
    try device.setFlow(flow, slot: 1, pool: 1, queue: 1, priority: 7)
    #expect(machine.receive(packet(flow)) == .dropped(.queueDisabled, queue: 5))
    var other = flow
    other.source = 1
    #expect(machine.receive(packet(other)) == .dropped(.queueDisabled, queue: 6))
  }

  @Test func `frames are sent as they are, and their buffers come back`() throws {
    let machine = try Machine()
    var queue = try machine.device.makeTransmitQueue(0, ringSize: 8)
    let buffers = try machine.makeBuffers(7)
    try machine.device.start(&queue)
    try machine.device.waitForLink()
    let wire = TransmitWire(.capture)
    var sent: [[UInt8]] = []
    for round in 0..<20 {
      for slot in 0..<(round % 7 + 1) {
        let bytes = frame(to: second, mark: round, count: 60 + slot)
        let room = unsafe buffers.bytes(slot * 2048, bytes.count)
        unsafe room.copyBytes(from: bytes)
        queue.post(buffers.address + UInt64(slot * 2048), byteCount: UInt32(bytes.count))
        sent.append(bytes)
      }
      queue.ring()
      _ = machine.card.transmit(budget: 64, to: wire)
      #expect(queue.reap() == round % 7 + 1 && queue.room == 7)
    }
    #expect(wire.frames == sent)
    #expect(machine.device.readStatistics().sentFrames == UInt64(sent.count))
    try queue.quiesce()
    #expect(machine.card.misuses.isEmpty && machine.iommu.faultCount == 0)
  }

  @Test func `guests on one card reach each other inside it, and the wire sees only what it must`() throws {
    let machine = try Machine { $0.poolCount = 2 }
    let device = machine.device
    for (pool, address) in [first, second].enumerated() {
      try device.setAddress(address, slot: pool, pool: pool)
      try device.setAccepted([.broadcast, .untagged], pool: pool)
    }
    var sender = try device.makeTransmitQueue(device.queueIndex(pool: 0), ringSize: 16)
    var own = try device.makeReceiveQueue(device.queueIndex(pool: 0), ringSize: 16, bufferByteCount: 2048)
    var other = try device.makeReceiveQueue(device.queueIndex(pool: 1), ringSize: 16, bufferByteCount: 2048)
    let buffers = try machine.makeBuffers(8)
    let frames = try machine.makeBuffers(4)
    try device.start(&sender)
    try device.start(&own)
    try device.start(&other)
    try device.enableReceive()
    try device.waitForLink()
    for slot in 0..<4 {
      own.post(buffers.address + UInt64(2048 * slot))
      other.post(buffers.address + UInt64(2048 * (4 + slot)))
    }
    own.ring()
    other.ring()
    let wire = TransmitWire(.capture)
    func send(_ bytes: [UInt8], _ queue: inout IntelTransmitQueue) {
      unsafe frames.bytes(0, bytes.count).copyBytes(from: bytes)
      queue.post(frames.address, byteCount: UInt32(bytes.count))
      queue.ring()
      #expect(machine.card.transmit(budget: 4, to: wire) == 1)
      #expect(queue.reap() == 1)
    }
    func from(_ source: MACAddress, to address: MACAddress, _ mark: Int) -> [UInt8] {
      var bytes = frame(to: address, mark: mark)
      bytes.replaceSubrange(6..<12, with: (0..<6).map(source.octet))
      return bytes
    }
    send(from(first, to: second, 1), &sender)
    #expect(wire.frames.isEmpty && other.reap()?.byteCount == 100 && own.reap() == nil)
    #expect(contents(buffers, 4, 100) == from(first, to: second, 1))
    send(from(first, to: .broadcast, 2), &sender)
    #expect(wire.frames == [from(first, to: .broadcast, 2)] && other.reap() != nil && own.reap() == nil)
    send(from(first, to: MACAddress(0x0200_0000_0009), 3), &sender)
    #expect(wire.frames.count == 2 && other.reap() == nil && own.reap() == nil)
    // A guest under another's address, once that is looked at.
    send(from(second, to: .broadcast, 4), &sender)
    #expect(other.reap() != nil)
    var sending = CardTables.Sending()
    sending.addressPools = 1
    device.setSending(sending)
    send(from(second, to: .broadcast, 5), &sender)
    #expect(other.reap() == nil && wire.frames.count == 3)
    device.setSending(CardTables.Sending())
    send(from(second, to: .broadcast, 6), &sender)
    #expect(other.reap() != nil && wire.frames.count == 4)
    let statistics = device.readStatistics()
    #expect(statistics.switchedFrames == 4 && statistics.switchedCopies == 0 && statistics.refusedFrames == 1)
    #expect(statistics.sentFrames == 4 && statistics.queues[0].sentFrames == 6)
    #expect(statistics.receivedFrames == 0 && statistics.queues[1].receivedFrames == 4)
    #expect(machine.card.misuses.isEmpty && machine.iommu.faultCount == 0)
    try sender.quiesce()
    try own.quiesce()
    try other.quiesce()
  }

  @Test func `without the switch, and without pools, the wire gets everything`() throws {
    for configure: (inout Ixgbe.Configuration) -> Void in [{ $0.poolCount = 2; $0.switchesLocally = false }, { _ in }] {
      let machine = try Machine(configure)
      try machine.device.setAddress(first, slot: 0, pool: 0)
      try machine.device.setAddress(second, slot: 1, pool: machine.device.configuration.poolCount - 1)
      var sender = try machine.device.makeTransmitQueue(0, ringSize: 16)
      let frames = try machine.makeBuffers(1)
      try machine.device.start(&sender)
      try machine.device.enableReceive()
      try machine.device.waitForLink()
      let wire = TransmitWire(.capture)
      let bytes = frame(to: second, mark: 1)
      unsafe frames.bytes(0, bytes.count).copyBytes(from: bytes)
      sender.post(frames.address, byteCount: UInt32(bytes.count))
      sender.ring()
      #expect(machine.card.transmit(budget: 4, to: wire) == 1 && wire.frames == [bytes])
      try sender.quiesce()
    }
  }

  @Test func `a stopped queue gets nothing, and starts again empty`() throws {
    let machine = try Machine()
    try machine.device.setAddress(first, slot: 0, pool: 0)
    var queue = try machine.device.makeReceiveQueue(0, ringSize: 8, bufferByteCount: 2048)
    let buffers = try machine.makeBuffers(7)
    try machine.device.start(&queue)
    try machine.device.enableReceive()
    try machine.device.waitForLink()
    for slot in 0..<7 { queue.post(buffers.address + UInt64(2048 * slot)) }
    queue.ring()
    #expect(machine.receive(frame(to: first, mark: 1)) == .delivered(queue: 0))
    try queue.quiesce()
    #expect(machine.receive(frame(to: first, mark: 2)) == .dropped(.queueDisabled, queue: 0))
    #expect(queue.reap() != nil && queue.reap() == nil)
    for _ in 0..<3 {
      try machine.device.start(&queue)
      queue.post(buffers.address)
      queue.ring()
      #expect(machine.receive(frame(to: first, mark: 3)) == .delivered(queue: 0))
      #expect(queue.reap()?.byteCount == 100)
      try queue.quiesce()
    }
    #expect(machine.card.misuses.isEmpty)
  }

  @Test func `a card that does not enable, disable or reset is reported by its register`() throws {
    func message(_ body: () throws(IntelError) -> Void) -> String? {
      do throws(IntelError) { try body() } catch { return String(error.description.prefix(18)) }
      return nil
    }
    let mute = try Machine()
    var first = try mute.device.makeReceiveQueue(0, ringSize: 8, bufferByteCount: 2048)
    mute.card.faults.neverEnables = true
    #expect(message { () throws(IntelError) in try mute.device.start(&first) } == "register RXDCTL[0]")

    let stubborn = try Machine()
    var second = try stubborn.device.makeReceiveQueue(1, ringSize: 8, bufferByteCount: 2048)
    try stubborn.device.start(&second)
    stubborn.card.faults.neverDisables = true
    #expect(message { () throws(IntelError) in try stubborn.device.stop(&second) } == "register RXDCTL[1]")

    let stuck = try Machine()
    stuck.card.faults.resetNeverCompletes = true
    #expect(message { () throws(IntelError) in try stuck.device.shutDown() } == "register CTRL[0] a")

    let gone = try Machine()
    gone.card.remove()
    #expect(throws: IntelError.deviceGone) {
      try Ixgbe(registers: gone.card, space: gone.iommu, allocator: gone.allocator, clock: gone.clock)
    }
  }

  /// Queue by queue, how many of 64 flows come; then with fewer queues, and more again.
  @Test(arguments: [(pools: 1, queues: 4), (pools: 1, queues: 6), (pools: 2, queues: 4), (pools: 3, queues: 2)])
  func `a pool's frames go to the queues that its guest uses, as it turns them on and off`(pools: Int, queues: Int) throws {
    let machine = try Machine {
      $0.poolCount = pools
      $0.queuesPerPool = queues
    }
    let device = machine.device
    try device.setAddress(first, slot: 0, pool: pools - 1)
    try device.setAccepted(.untagged, pool: pools - 1)
    try device.enableReceive()
    try device.waitForLink()
    let base = device.queueIndex(pool: pools - 1)
    func spread() -> Set<Int> {
      Set((0..<64).map { number in
        let flow = IxgbeFlow(
          source: UInt32(0x0A00_0000 + number), destination: 7, sourcePort: UInt16(number * 31 + 1), destinationPort: 80,
          transport: .tcp)
        // No queue runs: a frame says where it would have gone.
        guard case .dropped(.queueDisabled, let queue) = machine.receive(packet(flow)) else { return -1 }
        return queue! - base
      })
    }
    #expect(spread() == Set(0..<queues))
    for count in (Array(1...queues) + Array(1...queues).reversed()) {
      let used = try device.setUsedQueues(pool: pools - 1, count: count)
      #expect(used == (pools == 1 ? count : count == 3 ? 2 : count))
      #expect(spread() == Set(0..<used))
    }
    #expect(throws: IntelError.queue(0, count: queues)) { try device.setUsedQueues(pool: 0, count: 0) }
    #expect(throws: IntelError.queue(queues + 1, count: queues)) { try device.setUsedQueues(pool: 0, count: queues + 1) }
    #expect(throws: IntelError.self) { try device.setUsedQueues(pool: pools, count: 1) }
  }

  /// Stop and go, as a guest's front-end says: the same queue objects, the card's state and the bus as they were.
  @Test func `queues stop and start again five hundred times, and nothing is left behind`() throws {
    let machine = try Machine { $0.poolCount = 2 }
    let device = machine.device
    try device.setAddress(first, slot: 0, pool: 1)
    try device.setAccepted([.broadcast, .untagged], pool: 1)
    let number = device.queueIndex(pool: 1)
    var receiver = try device.makeReceiveQueue(number, ringSize: 32, bufferByteCount: 2048)
    var sender = try device.makeTransmitQueue(number, ringSize: 32)
    let buffers = try machine.makeBuffers(32)
    try device.enableReceive()
    try device.waitForLink()
    try device.assign(vector: 1, receiveQueue: number)
    let (mappings, tables, used) = (machine.iommu.mappingCount, machine.iommu.tableCount, machine.allocator.usedByteCount)
    let wire = TransmitWire(.drop)
    for round in 0..<500 {
      try device.start(&receiver)
      try device.start(&sender)
      #expect(receiver.room == 31 && sender.room == 31 && receiver.reap() == nil && sender.reap() == 0)
      for slot in 0..<(round % 31) { receiver.post(buffers.address + UInt64(2048 * slot)) }
      receiver.ring()
      let arrival = machine.receive(frame(to: first, mark: round))
      #expect(arrival == (round % 31 == 0 ? .dropped(.noDescriptors, queue: number) : .delivered(queue: number)))
      sender.post(buffers.address, byteCount: 60)
      sender.post(buffers.address, byteCount: 40, of: 60, isLast: false)
      sender.ring()
      if round % 3 > 0 { #expect(machine.card.transmit(budget: 4, to: wire) == 1) }
      try receiver.quiesce()
      try sender.quiesce()
      #expect((receiver.reap() != nil) == (round % 31 > 0) && receiver.reap() == nil)
      #expect(sender.reap() == (round % 3 > 0 ? 1 : 0))
      #expect(machine.receive(frame(to: first, mark: round)) == .dropped(.queueDisabled, queue: number))
      #expect(machine.card.transmit(budget: 4, to: wire) == 0)
    }
    #expect(machine.iommu.mappingCount == mappings && machine.iommu.tableCount == tables)
    #expect(machine.allocator.usedByteCount == used)
    #expect(machine.card.misuses.isEmpty && machine.iommu.faultCount == 0)
  }

  private func packet(_ flow: IxgbeFlow) -> [UInt8] {
    func wide(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(24 - 8 * $0)) } }
    func short(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 255)] }
    var bytes = (0..<6).map(first.octet) + (0..<6).map(second.octet) + [0x08, 0x00]
    // IPv4 of 46 bytes, checksums left zero; then TCP, or UDP without a checksum.
    bytes += [0x45, 0, 0, 46, 0, 0, 0, 0, 64, flow.transport == .udp ? 17 : 6, 0, 0]
    bytes += wide(flow.source!) + wide(flow.destination!)
    bytes += short(flow.sourcePort!) + short(flow.destinationPort!)
    bytes += flow.transport == .udp ? [0, 26, 0, 0] : [0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]
    while bytes.count < 60 { bytes.append(0) }
    return bytes
  }
}
