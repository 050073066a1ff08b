import Bus
import FlowSteering
import Intel
import Linux
import NIC

/// What a card and its driver promise of what they receive: one suite for all cards. Each case has a fresh subject.
public enum ReceiveConformance {
  public struct Case: Sendable {
    public let name: String
    public let run: @Sendable (any ConformanceSubject) throws -> Void
  }

  private static let a = Receiver(name: "a", address: MACAddress(0x0200_0000_0001))
  private static let b = Receiver(name: "b", address: MACAddress(0x0200_0000_0002))
  static let first = MACAddress(0x0200_0000_0001)
  private static let second = MACAddress(0x0200_0000_0002)
  private static let nobody = MACAddress(0x0200_0000_0003)

  public static let cases: [Case] = [
    Case(name: "a frame of any length lands whole, and nothing behind it is touched", run: lengths),
    Case(name: "frames come into the buffers in the order in which they were posted, around the ring", run: order),
    Case(name: "a frame that is too long does not come", run: tooLong),
    Case(name: "a frame for another address does not come", run: otherAddress),
    Case(name: "each pool gets the frames of its address, and both get a broadcast", run: pools),
    Case(name: "each pool gets the frames of its VLAN, with their tags", run: vlans),
    Case(name: "groups go to those who asked for all of them", run: groups),
    Case(name: "an address that moves is its new owner's from then on", run: moves),
    Case(name: "without a buffer nothing is written, and frames come again with the next buffers", run: starvation),
    Case(name: "after a queue has stopped nothing is written, and it starts again empty", run: stopping),
    Case(name: "checksums that the card finds right are said to be, and no others", run: checksums),
    Case(name: "an armed vector is raised by a frame, and a masked one is not", run: interrupts),
    Case(name: "every frame is counted", run: counters),
    Case(name: "a buffer outside what is mapped is not written, and the IOMMU tells of it", run: faults),
    Case(name: "strict: a buffer whose page cannot be mapped is refused, and frames come into the others", run: StrictConformance.refusedPost),
    Case(name: "strict: a frame whose page cannot be unmapped is kept back", run: StrictConformance.failingUnmap),
  ]

  /// One pool or two with their addresses, everything let in that is theirs.
  public static func begin(_ subject: any ConformanceSubject) throws { try begin(subject, []) }
  private static func begin(_ subject: any ConformanceSubject, _ rules: [String] = [], vms: [Receiver] = [a, b]) throws {
    try subject.apply(rules, to: vms)
    try subject.card.enableReceive()
    _ = try subject.eventually("the link comes") { subject.card.link.isUp ? true : nil }
  }

  private static func lengths(_ subject: any ConformanceSubject) throws {
    try begin(subject)
    let queue = try TestQueue(subject)
    for count in [60, 61, 62, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1023, 1024, 1025, 1513, 1514] {
      queue.post()
      let frame = TestFrame.make(to: first, mark: count, count: count)
      subject.send(frame)
      try queue.expectNext(frame, "a frame of \(count) bytes")
    }
    try queue.stop()
  }

  private static func order(_ subject: any ConformanceSubject) throws {
    try begin(subject)
    let queue = try TestQueue(subject)
    queue.post()
    var (sent, come) = (0, 0)
    while come < 1000 {
      // Never more on their way than there are buffers.
      while sent < 1000, sent - come < 40 {
        subject.send(TestFrame.make(to: first, mark: sent, count: 60 + sent % 200))
        sent += 1
      }
      try queue.expectNext(TestFrame.make(to: first, mark: come, count: 60 + come % 200), "frame \(come)")
      come += 1
      queue.post()
    }
    try queue.stop()
  }

  private static func tooLong(_ subject: any ConformanceSubject) throws {
    try begin(subject)
    let queue = try TestQueue(subject)
    queue.post()
    for count in [1523, 2000, 4000] { subject.send(TestFrame.make(to: first, mark: 1, count: count)) }
    let good = TestFrame.make(to: first, mark: 2)
    subject.send(good)
    try queue.expectNext(good, "the frame behind those that are too long")
    try queue.expectUntouched("too long")
    try queue.stop()
  }

  private static func otherAddress(_ subject: any ConformanceSubject) throws {
    try begin(subject)
    let queue = try TestQueue(subject)
    queue.post()
    subject.send(TestFrame.make(to: nobody, mark: 1))
    subject.send(TestFrame.make(to: second, mark: 1))
    let good = TestFrame.make(to: first, mark: 2)
    subject.send(good)
    try queue.expectNext(good, "the frame behind those of others")
    try queue.expectUntouched("others'")
    try queue.stop()
  }

  private static func pools(_ subject: any ConformanceSubject) throws {
    try begin(subject)
    let (mine, theirs) = (try TestQueue(subject, pool: 0), try TestQueue(subject, pool: 1))
    mine.post()
    theirs.post()
    for mark in 0..<20 {
      subject.send(TestFrame.make(to: first, mark: mark))
      subject.send(TestFrame.make(to: second, mark: mark + 100))
    }
    let broadcast = TestFrame.make(to: .broadcast, mark: 50)
    subject.send(broadcast)
    for mark in 0..<20 {
      try mine.expectNext(TestFrame.make(to: first, mark: mark), "a's frame \(mark)")
      try theirs.expectNext(TestFrame.make(to: second, mark: mark + 100), "b's frame \(mark)")
    }
    try mine.expectNext(broadcast, "a's broadcast")
    try theirs.expectNext(broadcast, "b's broadcast")
    for queue in [mine, theirs] {
      try queue.expectNothing("all have come")
      try queue.stop()
    }
  }

  private static func vlans(_ subject: any ConformanceSubject) throws {
    let vms = [Receiver(name: "a", address: first, vlan: 7), Receiver(name: "b", address: second, vlan: 8)]
    try begin(subject, vms: vms)
    let (mine, theirs) = (try TestQueue(subject, pool: 0), try TestQueue(subject, pool: 1))
    mine.post()
    theirs.post()
    // Of the wrong VLAN, of none, of nobody's.
    for tag: UInt16? in [8, nil, 9] { subject.send(TestFrame.make(to: first, mark: 1, tag: tag)) }
    let (one, two) = (TestFrame.make(to: first, mark: 2, count: 1518, tag: 0x6007), TestFrame.make(to: second, mark: 3, tag: 8))
    subject.send(one)
    subject.send(two)
    try mine.expectNext(one, "a's tagged frame")
    try theirs.expectNext(two, "b's tagged frame")
    for queue in [mine, theirs] {
      try queue.expectNothing("all have come")
      try queue.expectUntouched("other VLANs'")
      try queue.stop()
    }
  }

  private static func groups(_ subject: any ConformanceSubject) throws {
    try begin(subject, ["match eth.dst=multicast then vm b", "match eth.dst=broadcast then vm b"])
    let (mine, theirs) = (try TestQueue(subject, pool: 0), try TestQueue(subject, pool: 1))
    mine.post()
    theirs.post()
    let (group, broadcast) = (TestFrame.make(to: MACAddress(0x0100_5E00_0001), mark: 1), TestFrame.make(to: .broadcast, mark: 2))
    subject.send(group)
    subject.send(broadcast)
    let good = TestFrame.make(to: first, mark: 3)
    subject.send(good)
    try theirs.expectNext(group, "b's group")
    try theirs.expectNext(broadcast, "b's broadcast")
    try mine.expectNext(good, "a's own frame")
    for queue in [mine, theirs] { try queue.stop() }
  }

  private static func moves(_ subject: any ConformanceSubject) throws {
    try begin(subject, ["match eth.dst=02:00:00:00:00:03 then vm a"])
    let (mine, theirs) = (try TestQueue(subject, pool: 0), try TestQueue(subject, pool: 1))
    mine.post()
    theirs.post()
    for mark in 0..<10 {
      let owner = mark % 2 == 0 ? (mine, "a") : (theirs, "b")
      try subject.apply(["match eth.dst=02:00:00:00:00:03 then vm \(owner.1)"], to: [a, b])
      let frame = TestFrame.make(to: nobody, mark: mark)
      subject.send(frame)
      try owner.0.expectNext(frame, "\(owner.1)'s frame after change \(mark)")
    }
    for queue in [mine, theirs] {
      try queue.expectNothing("all have come")
      try queue.stop()
    }
  }

  private static func starvation(_ subject: any ConformanceSubject) throws {
    try begin(subject)
    let (mine, theirs) = (try TestQueue(subject, pool: 0), try TestQueue(subject, pool: 1))
    mine.post(4)
    theirs.post()
    for mark in 0..<10 { subject.send(TestFrame.make(to: first, mark: mark)) }
    // Behind them, for one that has buffers: then the card has dealt with all ten.
    let fence = TestFrame.make(to: second, mark: 99)
    subject.send(fence)
    try theirs.expectNext(fence, "the frame for the other pool")
    for mark in 0..<4 { try mine.expectNext(TestFrame.make(to: first, mark: mark), "frame \(mark)") }
    try mine.expectNothing("there were four buffers")
    mine.post()
    let again = TestFrame.make(to: first, mark: 20)
    subject.send(again)
    try mine.expectNext(again, "the first with new buffers")
    for queue in [mine, theirs] { try queue.stop() }
  }

  private static func stopping(_ subject: any ConformanceSubject) throws {
    try begin(subject)
    let (mine, theirs) = (try TestQueue(subject, pool: 0), try TestQueue(subject, pool: 1))
    theirs.post()
    for round in 0..<3 {
      mine.post()
      let before = TestFrame.make(to: first, mark: round)
      subject.send(before)
      try mine.expectNext(before, "a frame while it runs")
      try mine.stop()
      subject.send(TestFrame.make(to: first, mark: 50))
      let fence = TestFrame.make(to: second, mark: round)
      subject.send(fence)
      try theirs.expectNext(fence, "the frame for the other pool")
      try mine.expectNothing("it was stopped")
      try mine.expectUntouched("stopped")
      theirs.post()
      try mine.start()
    }
    for queue in [mine, theirs] { try queue.stop() }
  }

  private static func checksums(_ subject: any ConformanceSubject) throws {
    try begin(subject)
    let queue = try TestQueue(subject)
    queue.post()
    for isRight in [true, false, true] {
      let frame = TestFrame.udp(to: first, isRight: isRight)
      subject.send(frame)
      let arrival = try queue.next("a datagram")
      try expect(arrival.bytes == frame, "a datagram came otherwise than it was sent")
      try expect(arrival.flags.contains(.isChecksumValid) == isRight, "a checksum that is \(isRight ? "right" : "wrong"): \(arrival.flags)")
    }
    let other = TestFrame.make(to: first, mark: 1)
    subject.send(other)
    try expect(!(try queue.next("a frame without a checksum").flags.contains(.isChecksumValid)), "a frame that has no checksum is said to have a right one")
    try queue.stop()
  }

  private static func interrupts(_ subject: any ConformanceSubject) throws {
    let event = try EventDescriptor()
    try subject.connect(vector: 0, to: event)
    try begin(subject)
    let queue = try TestQueue(subject)
    try subject.card.assign(vector: 0, receiveQueue: queue.number)
    let vector = try subject.card.interrupt(0)
    queue.post()
    for round in 0..<5 {
      vector.disarm()
      event.clear()
      let quiet = TestFrame.make(to: first, mark: round)
      subject.send(quiet)
      try queue.expectNext(quiet, "a frame while the vector is masked")
      try expect(!event.clear(), "a masked vector was raised")
      vector.arm()
      let loud = TestFrame.make(to: first, mark: round + 10)
      subject.send(loud)
      try queue.expectNext(loud, "a frame while the vector is armed")
      _ = try subject.eventually("an armed vector is raised") { event.clear() ? true : nil }
      queue.post()
    }
    vector.disarm()
    try queue.stop()
  }

  private static func counters(_ subject: any ConformanceSubject) throws {
    try begin(subject)
    let (mine, theirs) = (try TestQueue(subject, pool: 0), try TestQueue(subject, pool: 1))
    mine.post()
    theirs.post()
    let before = subject.card.readCounters()
    for mark in 0..<30 { subject.send(TestFrame.make(to: mark % 3 == 0 ? second : first, mark: mark, count: 100)) }
    for _ in 0..<20 { _ = try mine.next("a's frame") }
    for _ in 0..<10 { _ = try theirs.next("b's frame") }
    let after = subject.card.readCounters()
    func grown(_ counters: (CardCounters) -> CardCounters.Traffic?) -> String {
      guard let old = counters(before), let new = counters(after) else { return "not told" }
      return "\(new.frames - old.frames) frames, \(new.bytes - old.bytes) bytes"
    }
    // What others put on the wire is for nobody here.
    try expect(grown(\.received) == "30 frames, 3000 bytes" || subject.hasStrangers, "the card counts \(grown(\.received))")
    let pools = [grown { $0.pools[0]?.received }, grown { $0.pools[1]?.received }]
    try expect(pools == ["20 frames, 2000 bytes", "10 frames, 1000 bytes"] || pools == ["not told", "not told"] || subject.hasStrangers, "the pools count \(pools)")
    for queue in [mine, theirs] { try queue.stop() }
  }

  private static func faults(_ subject: any ConformanceSubject) throws {
    try begin(subject)
    // What lies there for the processor is not there for the card.
    let outside = try Mapping(anonymousBytes: 1 << 16)
    unsafe outside.base.initializeMemory(as: UInt8.self, repeating: 0x5A, count: outside.byteCount)
    let queue = try TestQueue(subject)
    let before = subject.faultCount
    queue.post(stray: IOVA(UInt64(UInt(bitPattern: unsafe outside.base)) & 0x3F_FFFF_F000))
    queue.post(4)
    subject.send(TestFrame.make(to: first, mark: 1))
    _ = try subject.eventually("the IOMMU tells of a refused access") { subject.faultCount > before ? true : nil }
    try expect(unsafe UnsafeRawBufferPointer(start: outside.base, count: outside.byteCount).allSatisfy { $0 == 0x5A }, "memory that was not mapped was written")
    try? queue.stop()
  }
}
