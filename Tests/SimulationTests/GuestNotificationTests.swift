@testable import Simulation
import Testing
import Virtio

@Suite struct GuestNotificationTests {
  static let waysToAsk: [Features] = [[.version1], [.version1, .eventIndex]]

  @Test(arguments: waysToAsk) func `a guest that has started wants to hear of the first frame`(offered: Features) throws {
    let (_, device) = try startGuest(offered: offered)
    #expect(device.deliver(testFrame(1, byteCount: 60)))
    #expect(device.publish())
  }

  @Test(arguments: waysToAsk) func `a guest that polls wants no notification, one that goes to sleep does`(offered: Features) throws {
    let (guest, device) = try startGuest(offered: offered)
    func send() -> Bool {
      #expect(device.deliver(testFrame(1, byteCount: 60)))
      return device.publish()
    }
    #expect(send())
    #expect(guest.step(queue: 0) == 1)
    #expect(!send())
    #expect(guest.step(queue: 0) == 1)
    #expect(guest.step(queue: 0) == 0)
    #expect(guest.prepareToSleep(queue: 0))
    #expect(send())
    #expect(guest.step(queue: 0) == 1)
    #expect(!send())
  }

  @Test(arguments: waysToAsk) func `a frame that comes while a guest falls asleep keeps it awake`(offered: Features) throws {
    let (guest, device) = try startGuest(offered: offered)
    #expect(guest.step(queue: 0) == 0)
    #expect(device.deliver(testFrame(1, byteCount: 60)))
    #expect(!device.publish() || offered == [.version1, .eventIndex])
    #expect(!guest.prepareToSleep(queue: 0))
    #expect(guest.step(queue: 0) == 1)
    #expect(guest.prepareToSleep(queue: 0))
  }

  /// Sleeps and is woken at every value of the used index, past the wrap.
  @Test(arguments: waysToAsk) func `no wake-up is lost at any index`(offered: Features) throws {
    let (guest, device) = try startGuest(offered: offered) {
      $0.checksCanaries = false
      $0.checksUnusedMemory = false
      $0.hashesFrames = false
    }
    let frame = testFrame(1, byteCount: 60)
    var lost = 0
    for _ in 0..<65_600 {
      if !guest.prepareToSleep(queue: 0) { lost += 1 }
      if !device.deliver(frame) { lost += 1 }
      if !device.publish() { lost += 1 }
      if guest.step(queue: 0) != 1 { lost += 1 }
    }
    #expect(lost == 0)
  }

  @Test func `an event is passed exactly when the index steps over it, for all 16-bit values`() {
    // By symmetry only differences matter: all of them from starts on both sides of the wrap.
    var wrong = 0
    for old in [0, 1, 255, 32767, 32768, 65472, 65534, 65535] as [UInt16] {
      for moved in [0, 1, 2, 63, 64, 255, 256, 32767, 32768, 65535] as [UInt16] {
        let new = old &+ moved
        for event in UInt16.min...UInt16.max {
          // The indices handed over are old, old + 1, …, new - 1.
          let isPassed = UInt32(event &- old) < UInt32(moved)
          if DriverRing.passed(event, from: old, to: new) != isPassed { wrong += 1 }
        }
      }
    }
    #expect(wrong == 0)
  }

  @Test func `a kick is wanted unless the device says no`() throws {
    let (guest, device) = try startGuest(offered: [.version1])
    #expect(guest.needsKick(queue: 0))
    #expect(!guest.needsKick(queue: 0), "nothing was posted since")
    device.setNoNotify(true)
    try post(guest, device)
    #expect(!guest.needsKick(queue: 0))
    device.setNoNotify(false)
    #expect(!guest.needsKick(queue: 0), "that was asked about already")
    try post(guest, device)
    #expect(guest.needsKick(queue: 0))
  }

  @Test func `with event indices a kick is wanted when the device's index is passed`() throws {
    let (guest, device) = try startGuest(offered: [.version1, .eventIndex])
    #expect(guest.needsKick(queue: 0), "posted 0 to 255, and the event is 0")
    var available: UInt16 = 256
    // 33 at a time, past the wrap.
    for round in 0..<2_100 {
      let event = available &+ UInt16(round % 40) &- 3
      device.setAvailableEvent(event)
      try post(guest, device)
      #expect(guest.needsKick(queue: 0) == (3..<36).contains(round % 40), "round \(round)")
      available &+= 33
      #expect(device.availableIndex == available)
    }
  }

  @Test func `after a whole turn of the index without a question a kick is wanted`() throws {
    let (guest, device) = try startGuest(offered: [.version1, .eventIndex])
    device.setAvailableEvent(40_000)
    var posted = 256
    while posted <= 65_536 {
      try post(guest, device)
      posted += 33
    }
    #expect(guest.needsKick(queue: 0))
  }

  /// Lets the guest take 33 frames, which makes it post 33 buffers.
  private func post(_ guest: SimulatedGuest, _ device: TestDevice) throws {
    for number in 0..<33 { try #require(device.deliver([UInt8](repeating: UInt8(number), count: 14))) }
    device.publish()
    #expect(guest.step(queue: 0) == 33)
  }
}
