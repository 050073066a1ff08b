import GuestMemory
import Linux
import Support
import Testing
import VhostUser
import Virtio

/// A guest of two regions, as a PC has them: below and above the hole under 4 GiB.
final class TestGuest {
  let things = Things()
  let low: CInt
  let high: CInt
  static let size: UInt64 = 1 << 20
  let regions: [Region]
  let kicks: [CInt]
  let calls: [CInt]
  let errors: [CInt]

  init(rings: Int = 4) throws {
    low = try things.memory(Int(Self.size))
    high = try things.memory(Int(Self.size) + 8192)
    regions = [
      Region(guest: 0, size: Self.size, user: 0x7F00_0000_0000),
      Region(guest: 0x1_0000_0000, size: Self.size, user: 0x7F10_0000_0000, offset: 8192),
    ]
    let things = things
    kicks = try (0..<rings).map { _ in try things.event() }
    calls = try (0..<rings).map { _ in try things.event() }
    errors = try (0..<rings).map { _ in try things.event() }
  }
  var files: [CInt] { [low, high] }
  var descriptors: [CInt] { files + kicks + calls + errors }

  /// A ring's address message: split or packed, 256 entries, in the high region.
  func address(_ index: UInt32, flags: UInt32 = 0, log: UInt64 = 0) -> [UInt8] {
    let start = regions[1].user + UInt64(index) * 0x8000
    return Bytes().u32(index).u32(flags).u64(start).u64(start + 0x2000).u64(start + 0x1000).u64(log).all
  }
  /// Where the guest sees it.
  func layout(_ index: Int) -> RingLayout {
    let start = regions[1].guest + UInt64(index) * 0x8000
    return RingLayout(
      size: 256, descriptorArea: GuestAddress(start), driverArea: GuestAddress(start + 0x1000),
      deviceArea: GuestAddress(start + 0x2000))
  }
}

extension Frontend {
  /// Features and protocol features, as a modern front-end acknowledges them.
  func negotiate(_ features: UInt64 = version1Bit, _ protocolFeatures: UInt64? = nil) {
    let all = number(ask(ID.getProtocol)) ?? 0
    send(ID.setProtocol, u64(protocolFeatures ?? all))
    send(ID.setFeatures, u64(features | protocolBit))
  }
  func giveMemory(_ guest: TestGuest) { send(ID.setMemTable, Region.table(guest.regions), guest.files) }

  /// NUM, BASE, ADDR, KICK, CALL, and the error descriptor before.
  func setUp(_ index: UInt32, _ guest: TestGuest, base: UInt32 = 0, size: UInt32 = 256) {
    send(ID.setErr, u64(UInt64(index)), [guest.errors[Int(index)]])
    send(ID.setNum, state(index, size))
    send(ID.setBase, state(index, base))
    send(ID.setAddr, guest.address(index))
    send(ID.setKick, u64(UInt64(index)), [guest.kicks[Int(index)]])
    send(ID.setCall, u64(UInt64(index)), [guest.calls[Int(index)]])
  }

  /// Everything: rings that run.
  func run(_ guest: TestGuest, rings: Int = 2, features: UInt64 = version1Bit, enabled: Bool = true) {
    negotiate(features)
    giveMemory(guest)
    for n in 0..<UInt32(rings) {
      if enabled { send(ID.enable, state(n, 1)) }
      setUp(n, guest, base: features & packedBit != 0 ? 0x8000_8000 : 0)
    }
  }
}

/// The orders of messages that front-ends were seen, or read, to use. All of them have to lead to rings that run.
@Suite struct FrontendOrderTests {
  private func expectRunning(_ frontend: Frontend, _ guest: TestGuest, rings: Int = 2, isEnabled: Bool = true) {
    #expect(frontend.isConnected)
    #expect(frontend.device.running.keys.sorted() == Array(0..<rings))
    for (n, ring) in frontend.device.running {
      #expect(ring.layout == guest.layout(n))
      #expect(ring.isEnabled == isEnabled)
      #expect(ring.features.contains(.version1))
      #expect(ring.features.isDisjoint(with: [.logAll, .protocolFeatures]))
      #expect(ring.kick != nil)
    }
    #expect(frontend.device.violations.isEmpty)
    #expect(frontend.refusals.isEmpty)
    #expect(frontend.ringRefusals.isEmpty)
  }

  /// Observed of QEMU 7.2: enable before everything, call and error descriptors at once, the features once a pair.
  @discardableResult private func qemu(_ frontend: Frontend, _ guest: TestGuest, slots: Bool, base: [UInt32] = [0, 0, 0, 0]) throws -> UInt64 {
    let all = try #require(number(frontend.ask(ID.getFeatures)))
    let protocols = try #require(number(frontend.ask(ID.getProtocol)))
    let chosen = slots ? protocols : protocols & ~(1 << 15)
    frontend.send(ID.setProtocol, u64(chosen))
    #expect(number(frontend.ask(ID.getQueueNum)) == 4)
    if slots { #expect(number(frontend.ask(ID.getSlots)) == 509) }
    let (ours, theirs) = try guest.things.sockets()
    #expect(frontend.acknowledged(ID.setRequests, [], [theirs]) == 0)
    _ = ours
    frontend.send(ID.setOwner)
    #expect(number(frontend.ask(ID.getFeatures)) == all)
    for pair in 0..<2 {
      if pair == 1 {
        #expect(number(frontend.ask(ID.getFeatures)) == all)
        #expect(number(frontend.ask(ID.getProtocol)) == protocols)
        frontend.send(ID.setProtocol, u64(chosen))
      }
      for n in UInt64(2 * pair)..<UInt64(2 * pair + 2) {
        frontend.send(ID.setCall, u64(n), [guest.calls[Int(n)]])
        frontend.send(ID.setErr, u64(n), [guest.errors[Int(n)]])
      }
    }
    for _ in 0..<2 { for n in 0..<UInt32(4) { #expect(frontend.acknowledged(ID.enable, state(n, 1)) == 0) } }
    try start(frontend, guest, slots: slots, memory: true, base: base)
    return all
  }

  private func start(_ frontend: Frontend, _ guest: TestGuest, slots: Bool, memory: Bool, base: [UInt32]) throws {
    for pair in 0..<2 {
      frontend.send(ID.setFeatures, u64(offered.rawValue & ~packedBit | protocolBit))
      if pair == 0 && memory {
        if slots {
          for (region, file) in zip(guest.regions, guest.files) {
            #expect(frontend.acknowledged(ID.addRegion, region.single, [file]) == 0)
          }
        } else {
          #expect(frontend.acknowledged(ID.setMemTable, Region.table(guest.regions), guest.files) == 0)
        }
      }
      for n in UInt32(2 * pair)..<UInt32(2 * pair + 2) {
        frontend.send(ID.setNum, state(n, 256))
        frontend.send(ID.setBase, state(n, base[Int(n)]))
        frontend.send(ID.setAddr, guest.address(n))
        frontend.send(ID.setKick, u64(UInt64(n)), [guest.kicks[Int(n)]])
        frontend.send(ID.setCall, u64(UInt64(n)), [guest.calls[Int(n)]])
      }
    }
  }

  @Test(arguments: [true, false])
  func `QEMU starts two pairs, stops and continues, with and without memory slots`(slots: Bool) throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    try qemu(frontend, guest, slots: slots)
    expectRunning(frontend, guest, rings: 4)
    // stop, cont: the memory is not said again.
    for n in 0..<4 { frontend.device.bases[n] = RingBase(split: UInt16(1000 + n)) }
    for n in 0..<UInt32(4) { #expect(frontend.ask(ID.getBase, state(n, 0)) == state(n, 1000 + n)) }
    #expect(frontend.device.running.isEmpty)
    frontend.device.forget()
    try start(frontend, guest, slots: slots, memory: false, base: [1000, 1001, 1002, 1003])
    expectRunning(frontend, guest, rings: 4)
    #expect(frontend.device.running[3]?.base == RingBase(split: 1003))
    #expect(!frontend.device.calls.contains(.noMemory))
  }

  @Test func `QEMU migrates under traffic: log, feature, addresses, and back`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    try qemu(frontend, guest, slots: true)
    frontend.device.forget()
    let bytes = 0x1_0010_0000 / 4096 / 8
    let file = try guest.things.memory(bytes + 4096)
    let place = Bytes().u64(UInt64(bytes)).u64(0).all
    // Answered although nothing was asked for.
    #expect(frontend.ask(ID.setLogBase, place, [file]) != nil)
    #expect(frontend.device.calls.isEmpty)
    let features = offered.rawValue & ~packedBit | protocolBit
    #expect(frontend.acknowledged(ID.setFeatures, u64(features | logBit)) == 0)
    for n in 0..<UInt32(4) {
      let log = guest.layout(Int(n)).deviceArea.rawValue
      #expect(frontend.acknowledged(ID.setAddr, guest.address(n, flags: 1, log: log)) == 0)
    }
    let used = (0..<4).map { guest.layout($0).deviceArea }
    #expect(frontend.device.calls == [.log(bytes)] + (0..<4).map { .logAddress($0, used[$0]) })
    expectRunning(frontend, guest, rings: 4)
    // Given up.
    frontend.device.forget()
    for n in 0..<UInt32(4) { frontend.send(ID.setAddr, guest.address(n)) }
    frontend.send(ID.setFeatures, u64(features))
    #expect(frontend.device.calls == (0..<4).map { .logAddress($0, nil) } + [.log(nil)])
    expectRunning(frontend, guest, rings: 4)
  }

  @Test func `QEMU comes back after our death, with fresh descriptors and the guest's used index`() throws {
    let guest = try TestGuest()
    for life in 0..<3 {
      let frontend = try Frontend()
      try qemu(frontend, guest, slots: true, base: [UInt32(7 * life), 10, 0, 0])
      expectRunning(frontend, guest, rings: 4)
      #expect(frontend.device.running[0]?.base == RingBase(split: UInt16(7 * life)))
      #expect(number(frontend.ask(ID.getFeatures)) == offered.rawValue | logBit | protocolBit)
    }
  }

  /// Read in its source: sizes first, base after the address, and an answer asked for each time.
  @Test func `Cloud Hypervisor starts, swaps its log, pauses and resets`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    let features = version1Bit | protocolBit | offered.intersection([.mergeableBuffers, .eventIndex, .inOrder]).rawValue
    func cloud(_ id: UInt32, _ payload: [UInt8] = [], _ files: [CInt] = []) { #expect(frontend.acknowledged(id, payload, files) == 0) }
    frontend.send(ID.setOwner)
    _ = frontend.ask(ID.getFeatures)
    let protocols = try #require(number(frontend.ask(ID.getProtocol)))
    frontend.send(ID.setProtocol, u64(protocols & 0x900B))
    #expect(number(frontend.ask(ID.getQueueNum)) == 4)
    func activate() {
      cloud(ID.setFeatures, u64(features))
      cloud(ID.setMemTable, Region.table(guest.regions), guest.files)
      for n in 0..<UInt32(2) { cloud(ID.setNum, state(n, 256)) }
      for n in 0..<UInt32(2) {
        cloud(ID.setAddr, guest.address(n))
        cloud(ID.setBase, state(n, 5))
        cloud(ID.setCall, u64(UInt64(n)), [guest.calls[Int(n)]])
        cloud(ID.setKick, u64(UInt64(n)), [guest.kicks[Int(n)]])
      }
      for n in 0..<UInt32(2) { cloud(ID.enable, state(n, 1)) }
    }
    activate()
    #expect(frontend.device.running.keys.sorted() == [0, 1])
    #expect(frontend.device.calls.suffix(2) == [.enabled(0, true), .enabled(1, true)])
    #expect(frontend.device.running[0]?.base == RingBase(split: 5))
    // Its log is exactly as long as it must be, and another one each round.
    let bytes = 0x1_000F_FFFF / 4096 / 8 + 1
    for _ in 0..<3 {
      let file = try guest.things.memory(bytes, seals: 7)
      let place = Bytes().u64(UInt64(bytes)).u64(0).all
      #expect(frontend.ask(ID.setLogBase, place, [file], flags: 9) == place)
      cloud(ID.setFeatures, u64(features | logBit))
      #expect(frontend.device.log?.byteCount == bytes)
    }
    for n in 0..<UInt32(2) { cloud(ID.enable, state(n, 0)) }
    for n in 0..<UInt32(2) { cloud(ID.enable, state(n, 1)) }
    // Reset, and another driver.
    for n in 0..<UInt32(2) {
      cloud(ID.enable, state(n, 0))
      #expect(frontend.ask(ID.getBase, state(n, 0), flags: 9) == state(n, 5))
    }
    activate()
    #expect(frontend.device.running.keys.sorted() == [0, 1])
    #expect(frontend.device.violations.isEmpty && frontend.refusals.isEmpty)
  }

  /// Read in their sources: the answer is compared with rings. With fewer Cloud Hypervisor does not start, and rust-vmm's
  /// library refuses ring 1 itself; crosvm makes as many.
  @Test func `front-ends that count rings find all of one queue pair`() throws {
    let (frontend, guest) = (try Frontend(Offer(features: offered)), try TestGuest())
    frontend.send(ID.setOwner)
    let protocols = try #require(number(frontend.ask(ID.getProtocol)))
    frontend.send(ID.setProtocol, u64(protocols & 0x900B))
    let rings = try #require(number(frontend.ask(ID.getQueueNum)))
    #expect(rings == 2)
    frontend.send(ID.setFeatures, u64(version1Bit | protocolBit))
    frontend.giveMemory(guest)
    for n in 0..<UInt32(rings) {
      frontend.send(ID.enable, state(n, 1))
      frontend.setUp(n, guest)
    }
    expectRunning(frontend, guest)
  }

  /// QEMU and DPDK's virtio-user compare the answer with queue pairs, or not at all: the ring is where they learn of it.
  @Test(arguments: [ID.setNum, ID.setBase, ID.setAddr, ID.setCall, ID.setKick, ID.setErr, ID.enable, ID.getBase])
  func `a front-end with more queue pairs is refused at the first ring too many, with the reason`(message: UInt32) throws {
    let (frontend, guest) = (try Frontend(Offer(features: offered)), try TestGuest())
    frontend.run(guest)
    let hasFile = [ID.setCall, ID.setKick, ID.setErr].contains(message)
    let payload = hasFile ? u64(2) : message == ID.setAddr ? guest.address(2) : state(2, message == ID.setNum ? 256 : 0)
    let answer = frontend.acknowledged(message, payload, hasFile ? [guest.calls[2]] : [])
    let refusal = try #require(frontend.refusals.first)
    #expect("\(refusal)".hasSuffix(": ring 2 of 2: the front-end has more than 1 queue pair"))
    // What has a body of its own cannot say no.
    #expect(answer == (message == ID.getBase ? nil : 1))
    #expect(frontend.isConnected == (message != ID.getBase))
    #expect(frontend.device.violations.isEmpty)
    if frontend.isConnected { #expect(frontend.device.running.keys.sorted() == [0, 1]) }
  }

  /// Read in its source: no answer asked for, enable last, and off before the base is asked.
  @Test func `crosvm starts and stops`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.send(ID.setOwner)
    _ = frontend.ask(ID.getFeatures)
    let protocols = try #require(number(frontend.ask(ID.getProtocol)))
    frontend.send(ID.setProtocol, u64(protocols & 0x029))
    let (ours, theirs) = try guest.things.sockets()
    _ = ours
    frontend.send(ID.setRequests, [], [theirs])
    #expect(number(frontend.ask(ID.getQueueNum)) == 4)
    frontend.send(ID.setFeatures, u64(version1Bit | protocolBit))
    frontend.giveMemory(guest)
    for n in 0..<UInt32(2) {
      frontend.send(ID.setNum, state(n, 256))
      frontend.send(ID.setAddr, guest.address(n))
      frontend.send(ID.setBase, state(n, 0))
      frontend.send(ID.setCall, u64(UInt64(n)), [guest.calls[Int(n)]])
      frontend.send(ID.setKick, u64(UInt64(n)), [guest.kicks[Int(n)]])
      frontend.send(ID.enable, state(n, 1))
    }
    #expect(frontend.device.calls == [.memory(2), .start(0), .enabled(0, true), .start(1), .enabled(1, true)])
    for n in 0..<UInt32(2) {
      frontend.send(ID.enable, state(n, 0))
      #expect(frontend.ask(ID.getBase, state(n, 0)) == state(n, 0))
    }
    #expect(frontend.device.violations.isEmpty && frontend.refusals.isEmpty)
  }

  /// Read in its source: call descriptors first, memory where the guest's and its own addresses are the same, a packed
  /// base without its upper half, rubbish in a reserved number.
  @Test(arguments: [false, true])
  func `virtio-user starts and stops, split and packed`(isPacked: Bool) throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    let file = try guest.things.memory(1 << 20)
    let region = Region(guest: 0x1_4000_0000, size: 1 << 20, user: 0x1_4000_0000)
    frontend.send(ID.setOwner)
    _ = frontend.ask(ID.getFeatures)
    let protocols = try #require(number(frontend.ask(ID.getProtocol)))
    frontend.send(ID.setProtocol, u64(protocols & 0x9))
    for n in UInt64(0)..<2 { frontend.send(ID.setCall, u64(n), [guest.calls[Int(n)]]) }
    frontend.send(ID.setFeatures, u64(version1Bit | protocolBit | (isPacked ? packedBit : 0)))
    #expect(frontend.acknowledged(ID.setMemTable, Region.table([region]), [file]) == 0)
    for n in 0..<UInt32(2) {
      let start = region.user + UInt64(n) * 0x8000
      frontend.send(ID.setNum, state(n, 256))
      frontend.send(ID.setBase, state(n, isPacked ? 0x8000 : 0))
      frontend.send(ID.setAddr, Bytes().u32(n).u32(0).u64(start).u64(start + 0x2000).u64(start + 0x1000).u64(0).all)
      frontend.send(ID.setKick, u64(UInt64(n)), [guest.kicks[Int(n)]])
    }
    for n in 0..<UInt32(2) { frontend.send(ID.enable, state(n, 1)) }
    #expect(frontend.device.running.keys.sorted() == [0, 1])
    #expect(frontend.device.running[0]?.base == (isPacked ? .packedStart : RingBase(split: 0)))
    #expect(frontend.device.running[1]?.features.rawValue == version1Bit | (isPacked ? packedBit : 0))
    #expect(frontend.ask(ID.getBase, state(0, 0xDEAD_BEEF)) == state(0, isPacked ? 0x8000_8000 : 0))
    #expect(frontend.device.violations.isEmpty && frontend.refusals.isEmpty)
  }

  @Test func `a front-end without protocol features has all rings enabled`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.send(ID.setOwner)
    frontend.send(ID.setFeatures, u64(version1Bit))
    frontend.giveMemory(guest)
    for n in 0..<UInt32(2) { frontend.setUp(n, guest) }
    expectRunning(frontend, guest)
  }

  /// Any order of what a ring needs starts it once, and with all of it.
  @Test func `a ring starts whatever comes last`() throws {
    let guest = try TestGuest()
    try withSeeds(200) { random in
      let frontend = try Frontend()
      let steps: [(Frontend) -> Void] = [
        { $0.send(ID.setFeatures, u64(version1Bit | protocolBit)) }, { $0.giveMemory(guest) },
        { $0.send(ID.setNum, state(1, 256)) }, { $0.send(ID.setAddr, guest.address(1)) },
        { $0.send(ID.setKick, u64(1), [guest.kicks[1]]) },
      ]
      let early: [(Frontend) -> Void] = [
        { $0.send(ID.setCall, u64(1), [guest.calls[1]]) }, { $0.send(ID.setErr, u64(1), [guest.errors[1]]) },
        { $0.send(ID.enable, state(1, 1)) },
      ]
      frontend.send(ID.setBase, state(1, 77))
      for step in early.shuffled(using: &random) { step(frontend) }
      for (n, step) in steps.shuffled(using: &random).enumerated() {
        try check(frontend.device.running.isEmpty, "nothing runs after \(n) steps")
        step(frontend)
      }
      let ring = frontend.device.running[1]
      try check(ring?.layout == guest.layout(1), "the ring's place")
      try check(ring?.base == RingBase(split: 77), "its base")
      try check(ring?.isEnabled == true && ring?.call != nil && ring?.kick != nil, "the rest of it")
      try check(frontend.device.calls.count { $0 == .start(1) } == 1, "it started once")
      try check(frontend.refusals.isEmpty && frontend.ringRefusals.isEmpty && frontend.device.violations.isEmpty, "no refusal")
    }
  }
}
