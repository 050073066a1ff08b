import GuestMemory
import Support
import Testing
import Virtio

/// Who wakes whom over a packed virtqueue. virtio 1.3, 2.8.10, 2.8.14.
@Suite struct PackedNotificationTests {
  typealias Piece = PlainPackedDriver.Piece

  /// Written another way: every position named that was written.
  private func crosses(_ event: RingPosition, from old: Int, _ count: Int, size: Int) -> Bool {
    (old..<old + count).contains { $0 % size == Int(event.place) && ($0 / size % 2 == 0) == event.wrap }
  }

  @Test(arguments: 1...8)
  func `an event is crossed exactly when its place is among those written, in its lap`(size: Int) {
    for old in 0..<2 * size {
      for count in 0...size {
        for place in 0...UInt16(size + 1) {
          for wrap in [false, true] {
            let event = RingPosition(place: place, wrap: wrap)
            let found = PackedVirtqueue.crosses(
              event: event, from: RingPosition(place: UInt16(old % size), wrap: old < size), by: UInt32(count),
              size: UInt32(size))
            let wanted = crosses(event, from: old, count, size: size)
            if found != wanted { Issue.record("size \(size), from \(old), \(count) places, event \(event)") }
          }
        }
      }
    }
  }

  @Test(arguments: [255, 256, 257, 32768])
  func `so it is in rings that are too large to try everything`(size: Int) throws {
    try withSeeds(20) { random in
      for _ in 0..<200 {
        let old = random.int(0...2 * size - 1)
        let count = random.pick([0, 1, 2, 64, size - 1, size, random.int(0...size)])
        let near = (old + random.pick([-1, 0, 1, count - 1, count, count + 1, size, random.int(0...size)]) + 2 * size) % (2 * size)
        let event = RingPosition(place: UInt16(near % size), wrap: random.once(in: 4) ? near >= size : near < size)
        try check(
          PackedVirtqueue.crosses(
            event: event, from: RingPosition(place: UInt16(old % size), wrap: old < size), by: UInt32(count),
            size: UInt32(size)),
          is: crosses(event, from: old, count, size: size), "from \(old), \(count), event \(event)")
      }
    }
  }

  private func give(_ count: Int, _ bench: PackedBench, _ device: inout PackedDevice) -> Bool {
    for n in 0..<count { bench.driver.offer([Piece(Bench.first, 64)], id: UInt16(n)) }
    for _ in 0..<count {
      _ = device.next()
      device.put(12)
    }
    defer { while bench.driver.takeUsed() != nil {} }
    return device.queue.publish(UInt16(count))
  }

  @Test(arguments: [false, true], [UInt16(0), 0xFFFC])
  func `the driver's flags decide, and the reserved value means yes`(usesEvents: Bool, reservedBits: UInt16) throws {
    let bench = try PackedBench(size: 8)
    var device = try bench.queue(usesEvents ? [.eventIndex] : [])
    // A position that is not crossed, and one that is.
    for offset in [1, 5] {
      for (flags, wanted) in [(0, true), (1, false), (2, usesEvents ? offset == 1 : true), (3, true)] as [(UInt16, Bool)] {
        bench.driver.want(bench.driver.position(bench.driver.offered + offset), flags: flags | reservedBits)
        let told = give(3, bench, &device)
        #expect(told == wanted, "flags \(flags), \(offset) on")
      }
    }
  }

  @Test func `chains that are skipped count as written`() throws {
    let bench = try PackedBench(size: 8, first: 6)
    var device = try bench.queue([.eventIndex])
    for offset in 0..<5 {
      let first = bench.driver.offered
      bench.driver.want(bench.driver.position(first + offset), flags: 2)
      bench.driver.offer([Piece(Bench.first, 64), Piece(Bench.first, 64)], id: 0)
      bench.driver.offer([Piece(Bench.first, 64), Piece(Bench.first, 64)], id: 1)
      _ = (device.next(), device.next())
      device.put(12)
      device.put(12)
      let told = device.queue.publish(2)
      #expect(told == (offset < 4))
      while bench.driver.takeUsed() != nil {}
    }
  }

  @Test func `nothing used is nothing to tell`() throws {
    let bench = try PackedBench(size: 8)
    var device = try bench.queue([])
    bench.driver.want(flags: 0)
    let told = device.queue.publish(0)
    #expect(!told)
  }

  @Test func `kicks are turned off and on by flags, or by the place of the next buffer`() throws {
    for first in [0, 7, 8, 15] {
      let bench = try PackedBench(size: 8, first: first)
      var plain = try bench.queue([])
      plain.queue.disableNotifications()
      #expect(bench.driver.deviceFlags == 1)
      let waiting = plain.queue.enableNotifications()
      #expect(!waiting && bench.driver.deviceFlags == 0)

      var indexed = try bench.queue([.eventIndex])
      indexed.queue.disableNotifications()
      #expect(bench.driver.deviceFlags == 1)
      _ = indexed.queue.enableNotifications()
      #expect(bench.driver.deviceFlags == 2)
      #expect(bench.driver.deviceEvent == bench.driver.position(first))
    }
  }

  @Test(arguments: [[], [.eventIndex]] as [Features])
  func `what came before kicks were turned on is seen by the second look`(features: Features) throws {
    let bench = try PackedBench(size: 8)
    var device = try bench.queue(features)
    device.queue.disableNotifications()
    bench.driver.offer([Piece(Bench.first, 64)], id: 0)
    let waiting = device.queue.enableNotifications()
    #expect(waiting)
  }

  /// As `NotificationTests` has it for a split virtqueue.
  @Test(arguments: [1, 2, 3], [false, true])
  func `no order of steps loses a wake-up`(size: Int, usesEvents: Bool) throws {
    let steps = 11
    let bench = try PackedBench(size: size, first: PackedPair.first)
    for schedule in 0..<(1 << steps) {
      let pair = try PackedPair(bench, usesEvents: usesEvents)
      for n in 0..<steps {
        if schedule >> n & 1 == 0 { pair.driverStep() } else { try pair.deviceStep() }
      }
      // Then both go on fairly. Whoever sleeps is moved only by the other.
      for _ in 0..<400 where !pair.isDone {
        pair.driverStep()
        try pair.deviceStep()
      }
      try check(pair.isDone, "schedule \(String(schedule, radix: 2)): both sleep after \(pair.seen) of \(pair.goal)")
    }
  }
}

/// A driver and a device, each with a place in its program. The driver's accesses are steps of their own.
private final class PackedPair {
  /// The last place of a lap whose wrap counter is 0, of every size that is tried.
  static let first = 11
  let goal = 6
  var seen = 0
  private let bench: PackedBench
  private let driver: PlainPackedDriver
  private var device: PackedDevice
  private let usesEvents: Bool
  private var driverPlace = 0
  private var entered = 0
  private var offer = 0
  private var isDriverAsleep = false
  private var isDeviceAsleep = false
  private var out = 0

  var isDone: Bool { seen == goal }

  init(_ bench: PackedBench, usesEvents: Bool) throws {
    self.usesEvents = usesEvents
    self.bench = bench
    driver = PlainPackedDriver(bench.layout, in: bench.memory, first: Self.first)
    device = try PackedDevice(bench, usesEvents ? [.eventIndex] : [], base: RingBase(packed: driver.position(Self.first)))
    device.queue.disableNotifications()
  }

  /// Post one if there is room, decide whether to kick, look for used ones; with nothing to do: ask to be told,
  /// look again, sleep.
  func driverStep() {
    if isDriverAsleep { return }
    switch driverPlace {
    case 0:
      guard entered < goal, driver.room > 0 else {
        driverPlace = 2
        return
      }
      offer = driver.offered
      driver.offer([.init(Bench.first, 64)], id: UInt16(entered))
      entered += 1
      driverPlace = 1
    case 1:
      // One was offered: kick if it is the place that the device named.
      let flags = driver.deviceFlags
      let kick = flags == 0 || (flags == 2 && driver.deviceEvent == driver.position(offer))
      if kick { isDeviceAsleep = false }
      driverPlace = 2
    case 2:
      let had = seen
      while driver.takeUsed() != nil { seen += 1 }
      driverPlace = seen == had && !(entered < goal && driver.room > 0) ? 3 : 0
    case 3:
      if usesEvents { driver.want(driver.position(driver.seen), flags: 2) } else { driver.want(flags: 0) }
      driverPlace = 4
    default:
      isDriverAsleep = !(driver.seen < driver.offered && driver.isUsed(driver.seen)) && !(entered < goal && driver.room > 0)
      driverPlace = 0
      if !isDriverAsleep { driver.want(flags: 1) }
    }
  }

  /// Take one, or give what was taken back, or go to sleep with the second look that this needs.
  func deviceStep() throws {
    if isDeviceAsleep { return }
    if device.next() != nil {
      out += 1
    } else if out > 0 {
      for _ in 0..<out { device.put(12) }
      if device.queue.publish(UInt16(out)) { isDriverAsleep = false }
      out = 0
    } else if !device.queue.enableNotifications() {
      isDeviceAsleep = true
    }
    if let fault = device.fault { throw Mismatch("\(fault)") }
  }
}
