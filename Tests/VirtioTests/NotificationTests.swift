import GuestMemory
import Support
import Testing
import Virtio

/// Who wakes whom. virtio 1.3, 2.7.7, 2.7.9, 2.7.10.
@Suite struct NotificationTests {
  @Test(arguments: [0, 1, 0x7FFF, 0x8000, 65_000, 65_535] as [UInt16])
  func `an event is crossed exactly when its entry is among those just written`(old: UInt16) {
    // Written another way: in wide numbers, with every place named.
    for batch in [0, 1, 2, 63, 64, 256, 32767, 32768] {
      var isWritten = [Bool](repeating: false, count: 65536)
      for n in 0..<batch { isWritten[(Int(old) + n) % 65536] = true }
      var wrong = 0
      let new = UInt16((Int(old) + batch) % 65536)
      for event in 0...UInt16.max
      where SplitVirtqueue.crosses(event: event, from: old, to: new) != isWritten[Int(event)] { wrong += 1 }
      #expect(wrong == 0, "\(wrong) events, from \(old), \(batch) entries")
    }
  }

  @Test func `whether an event is crossed depends on distances alone`() throws {
    try withSeeds(20) { random in
      for _ in 0..<1000 {
        let (event, old, new, by) = (
          UInt16.random(in: 0...(.max), using: &random), UInt16.random(in: 0...(.max), using: &random),
          UInt16.random(in: 0...(.max), using: &random), UInt16.random(in: 0...(.max), using: &random)
        )
        try check(
          SplitVirtqueue.crosses(event: event &+ by, from: old &+ by, to: new &+ by),
          is: SplitVirtqueue.crosses(event: event, from: old, to: new), "\(event) \(old) \(new) \(by)")
      }
    }
  }

  private func give(_ count: Int, _ bench: Bench, _ device: inout Device) -> Bool {
    for n in 0..<count { bench.driver.enter(UInt16(n)) }
    bench.driver.publish()
    _ = device.pending()
    for n in 0..<count {
      if let head = device.take() { device.queue.put(head, byteCount: 12, at: UInt16(n)) }
    }
    return device.queue.publish(UInt16(count))
  }

  @Test func `without EVENT_IDX the driver's flag decides, whatever its event says`() throws {
    let bench = try Bench(size: 8)
    var device = try bench.queue([.version1])
    for event in [UInt16(0), 1, 2, 0x8000, 0xFFFF] {
      bench.driver.usedEvent = event
      bench.memory.store16(0, bench.driver.available)
      let loud = give(2, bench, &device)
      bench.memory.store16(1, bench.driver.available)
      let quiet = give(2, bench, &device)
      #expect(loud && !quiet)
    }
  }

  @Test func `with EVENT_IDX the driver's event decides, whatever its flag says`() throws {
    for flag in [UInt16(0), 1] {
      let bench = try Bench(size: 8, base: 65534)
      var device = try bench.queue([.version1, .eventIndex], base: 65534)
      bench.memory.store16(flag, bench.driver.available)
      // Three entries a round: 65534 to 0, 1 to 3, 4 to 6 and so on.
      for (event, wanted) in [(65533, false), (1, true), (3, false), (9, true), (13, false), (13, true)] as [(UInt16, Bool)] {
        bench.driver.usedEvent = event
        let told = give(3, bench, &device)
        #expect(told == wanted, "event \(event)")
      }
    }
  }

  @Test func `nothing used is nothing to tell`() throws {
    let bench = try Bench(size: 8)
    var device = try bench.queue([.version1, .eventIndex])
    bench.driver.usedEvent = 0xFFFF
    let told = device.queue.publish(0)
    #expect(!told)
  }

  @Test func `kicks are turned off and on by flag, or by event, never by both`() throws {
    let plain = try Bench(size: 8)
    var first = try plain.queue([.version1])
    let event = plain.driver.availableEvent
    first.queue.disableNotifications()
    #expect(plain.driver.usedFlags == 1)
    let waiting = first.queue.enableNotifications()
    #expect(plain.driver.usedFlags == 0 && !waiting)
    #expect(plain.driver.availableEvent == event)

    let indexed = try Bench(size: 8, base: 65535)
    indexed.memory.store16(1, indexed.driver.used)
    var second = try indexed.queue([.version1, .eventIndex], base: 65535)
    second.queue.disableNotifications()
    // A driver that adds entries from here on must not find its event among them.
    #expect(!SplitVirtqueue.crosses(event: indexed.driver.availableEvent, from: 65535, to: 65535 &+ 8))
    #expect(indexed.driver.usedFlags == 0, "must be 0 where EVENT_IDX was agreed on: 2.7.10.2")
    _ = second.queue.enableNotifications()
    #expect(indexed.driver.availableEvent == 65535)
    #expect(indexed.driver.usedFlags == 0)
  }

  @Test(arguments: [[], [.eventIndex]] as [Features])
  func `what came before kicks were turned on is seen by the second look`(features: Features) throws {
    let bench = try Bench(size: 8)
    var device = try bench.queue(features)
    bench.driver.describe(0, Bench.first, 64)
    device.queue.disableNotifications()
    bench.driver.offer(0)
    let waiting = device.queue.enableNotifications()
    #expect(waiting)
  }

  /// One driver that sleeps when it has nothing, with every access of it a step of its own, and one device that
  /// sleeps when it has nothing. Neither may sleep for ever while the other has something for it.
  @Test(arguments: [1, 2, 4], [false, true])
  func `no order of steps loses a wake-up`(size: Int, usesEvents: Bool) throws {
    let steps = 11
    let bench = try Bench(size: size, base: Pair.base)
    for schedule in 0..<(1 << steps) {
      let pair = try Pair(bench, usesEvents: usesEvents)
      for n in 0..<steps {
        if schedule >> n & 1 == 0 { try pair.driverStep() } else { try pair.deviceStep() }
      }
      // Then both go on fairly. Whoever sleeps is moved only by the other.
      for _ in 0..<400 where !pair.isDone {
        try pair.driverStep()
        try pair.deviceStep()
      }
      try check(pair.isDone, "schedule \(String(schedule, radix: 2)): both sleep after \(pair.seen) of \(pair.goal)")
    }
  }
}

/// A driver and a device, each with a place in its program.
private final class Pair {
  static let base: UInt16 = 65533
  let goal = 6
  var seen = 0
  private let bench: Bench
  private let driver: PlainDriver
  private var device: Device
  private let usesEvents: Bool
  private var driverPlace = 0
  private var entered = 0
  private var oldIndex: UInt16 = 0
  private var seenIndex: UInt16
  private var isDriverAsleep = false
  private var isDeviceAsleep = false
  private var out: [UInt16] = []

  var isDone: Bool { seen == goal }

  init(_ bench: Bench, usesEvents: Bool) throws {
    self.usesEvents = usesEvents
    self.bench = bench
    driver = PlainDriver(bench.layout, in: bench.memory, base: Self.base)
    device = try bench.queue(usesEvents ? [.eventIndex] : [], base: Self.base)
    seenIndex = Self.base
    for n in 0..<bench.driver.size { driver.describe(n, Bench.first, 64) }
    device.queue.disableNotifications()
  }

  /// Post one if there is room, decide whether to kick, look for used ones; with nothing to do: ask to be told,
  /// look again, sleep.
  func driverStep() throws {
    if isDriverAsleep { return }
    switch driverPlace {
    case 0:
      guard entered < goal, entered - seen < driver.size else {
        driverPlace = 3
        return
      }
      oldIndex = driver.availableIndex
      driver.enter(UInt16(entered % driver.size))
      entered += 1
      driverPlace = 1
    case 1:
      driver.publish()
      driverPlace = 2
    case 2:
      let kick = usesEvents ? driver.availableEvent == oldIndex : driver.usedFlags & 1 == 0
      if kick { isDeviceAsleep = false }
      driverPlace = 3
    case 3:
      driverPlace = driver.usedIndex == seenIndex ? 4 : 0
      harvest()
      if driverPlace == 4 && entered < goal && entered - seen < driver.size { driverPlace = 0 }
    case 4:
      if usesEvents { driver.usedEvent = seenIndex } else { driver.memory.store16(0, driver.available) }
      driverPlace = 5
    default:
      isDriverAsleep = driver.usedIndex == seenIndex && !(entered < goal && entered - seen < driver.size)
      driverPlace = 0
      if !usesEvents && !isDriverAsleep { driver.memory.store16(1, driver.available) }
    }
  }
  private func harvest() {
    let count = driver.usedIndex &- seenIndex
    seen += Int(count)
    seenIndex &+= count
  }

  /// Take one, or give what was taken back, or go to sleep with the second look that this needs.
  func deviceStep() throws {
    if isDeviceAsleep { return }
    if device.pending() > 0 {
      guard let head = device.take() else { throw Mismatch("fault \(device.fault!)") }
      out.append(head)
    } else if !out.isEmpty {
      for (n, head) in out.enumerated() { device.queue.put(head, byteCount: 12, at: UInt16(n)) }
      if device.queue.publish(UInt16(out.count)) && isDriverAsleep { isDriverAsleep = false }
      out = []
    } else if !device.queue.enableNotifications() {
      isDeviceAsleep = true
    }
  }
}
