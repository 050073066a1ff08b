import Glibc
import GuestMemory
import Linux
import Support
import Testing
import VhostUser
import Virtio

/// One ring at a time: what may be said of it, and when.
@Suite struct RingTests {
  private func ready(_ features: UInt64 = version1Bit) throws -> (Frontend, TestGuest) {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.negotiate(features)
    frontend.giveMemory(guest)
    return (frontend, guest)
  }

  // MARK: Which ring

  @Test(arguments: [4, 5, 0xFF, 0x100, 0x1_0000, 0x8000_0000, 0xFFFF_FFFF] as [UInt32])
  func `a ring's number is checked whole, in every message that has one`(index: UInt32) throws {
    for id in [ID.setNum, ID.setBase, ID.getBase, ID.enable, ID.setAddr] {
      let (frontend, guest) = try ready()
      let payload = id == ID.setAddr ? Bytes().u32(index).all + guest.address(0).dropFirst(4) : state(index, 1)
      let answer = frontend.ask(id, payload, flags: 9)
      guard case .noSuchRing(_, index, count: 4) = frontend.refusals.first else {
        Issue.record("\(id): \(frontend.refusals)")
        continue
      }
      if id == ID.getBase { #expect(!frontend.isConnected) } else { #expect(number(answer) == 1) }
    }
    for id in [ID.setKick, ID.setCall, ID.setErr] {
      let (frontend, guest) = try ready()
      #expect(frontend.acknowledged(id, u64(UInt64(index)), index & 0x100 == 0 ? [guest.kicks[0]] : [guest.kicks[0]]) == (index == 0x100 ? nil : 1))
      // 0x100 says that no descriptor comes, and one came.
      #expect(frontend.isConnected == (index != 0x100))
      #expect(holders(of: guest.kicks[0]) == 1)
    }
  }

  @Test func `reserved bits beside a ring's number are refused`() throws {
    for bit in 9..<64 as Range<UInt64> {
      let (frontend, guest) = try ready()
      for id in [ID.setKick, ID.setCall, ID.setErr] {
        // Such a message is not understood: what comes along is closed.
        #expect(frontend.acknowledged(id, u64(1 << bit), [guest.kicks[0]]) == 1)
        #expect(frontend.refusals.last.map { if case .reservedBits(_, 1 << bit) = $0 { true } else { false } } == true)
      }
      #expect(frontend.isConnected && holders(of: guest.kicks[0]) == 1)
    }
  }

  @Test(arguments: [2, 3, 0x100, UInt32.max])
  func `a ring is enabled by 1 and disabled by 0, and by nothing else`(value: UInt32) throws {
    let (frontend, _) = try ready()
    #expect(frontend.acknowledged(ID.enable, state(0, value)) == 1)
    #expect(frontend.refusals == [.badEnable(value, ring: 0)])
  }

  @Test func `a value that was refused does not leave the one before`() throws {
    for (id, bad) in [(ID.setNum, state(0, 0)), (ID.setAddr, Bytes().u32(0).u32(0).u64(0).u64(0).u64(0).u64(0).all), (ID.setBase, state(0, 0x1_0000))] {
      let (frontend, guest) = try ready()
      frontend.send(ID.setNum, state(0, 256))
      frontend.send(ID.setAddr, guest.address(0))
      frontend.send(ID.setBase, state(0, 3))
      frontend.send(id, bad)
      frontend.send(ID.setKick, u64(0), [guest.kicks[0]])
      #expect(frontend.isConnected && frontend.device.running.isEmpty, "\(id)")
    }
  }

  @Test func `a ring whose base was asked for before it could start does not start by itself`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.negotiate()
    frontend.setUp(0, guest, base: 6)
    #expect(frontend.ask(ID.getBase, state(0, 0)) == state(0, 6))
    frontend.giveMemory(guest)
    #expect(frontend.device.running.isEmpty)
    frontend.send(ID.setKick, u64(0), [guest.kicks[0]])
    #expect(frontend.device.running[0]?.base == RingBase(split: 6))
  }

  // MARK: Sizes

  @Test(arguments: [0, 1, 2, 3, 255, 256, 257, 32767, 32768, 32769, 65536, 0x1_0000_0 &+ 256, UInt32.max])
  func `a split ring has a power of two of entries, a packed one any number, and none more than 32768`(size: UInt32) throws {
    let isPower = [1, 2, 256, 32768].contains(size)
    let isSize = (1...32768).contains(size)
    for (features, fits) in [(version1Bit, isPower), (version1Bit | packedBit, isSize)] {
      let (frontend, guest) = try ready(features)
      frontend.send(ID.setErr, u64(0), [guest.errors[0]])
      #expect(frontend.acknowledged(ID.setNum, state(0, size)) == (fits ? 0 : 1))
      #expect(Things.wasRaised(guest.errors[0]) == !fits)
      // The largest do not fit where the address is; the others run.
      let large = size > 256
      if fits && !large {
        frontend.setUp(0, guest, base: features & packedBit != 0 ? 0x8000_8000 : 0, size: size)
        #expect(frontend.device.running[0]?.layout.size == Int(size))
      } else {
        frontend.send(ID.setAddr, guest.address(0))
        frontend.send(ID.setKick, u64(0), [guest.kicks[0]])
        #expect(frontend.device.running[0] == nil)
      }
      #expect(frontend.isConnected)
    }
  }

  @Test func `a size that came before features is judged when they come`() throws {
    for (features, runs) in [(version1Bit, false), (version1Bit | packedBit, true)] {
      let (frontend, guest) = (try Frontend(), try TestGuest())
      frontend.giveMemory(guest)
      frontend.setUp(0, guest, base: 0x8000, size: 100)
      #expect(frontend.refusals.isEmpty && frontend.device.running.isEmpty)
      frontend.negotiate(features)
      #expect((frontend.device.running[0] != nil) == runs)
      #expect(frontend.ringRefusals == (runs ? [] : [.badSize(100)]))
      #expect(Things.wasRaised(guest.errors[0]) == !runs)
    }
  }

  // MARK: Addresses

  /// descriptor, used, available, as offsets into a region of 1 MiB.
  @Test(arguments: [
    (0, 0x2000, 0x1000, true), (8, 0x2000, 0x1000, false), (1, 0x2000, 0x1000, false), (0x10, 0x2010, 0x1010, true),
    (0, 0x2002, 0x1000, false), (0, 0x2004, 0x1000, true), (0, 0x2000, 0x1001, false), (0, 0x2000, 0x1002, true),
    // Parts that share a byte: 256 entries are 4096, 518 and 2054 bytes.
    (0, 0x2000, 0xFFE, false), (0, 0x1206, 0x1000, false), (0, 0x1208, 0x1000, true), (0, 0x1000, 0x1000, false),
    (0x3000, 0x2FFC, 0x1000, false), (0, 0x2000, 0x2000, false), (0, 0x2000, 0x1DFC, false), (0, 0x2000, 0x1DFA, true),
    // At the region's end.
    (0xF_F000, 0x2000, 0x1000, true), (0xF_F010, 0x2000, 0x1000, false), (0, 0xF_F7FC, 0x1000, false), (0, 0xF_F7F8, 0x1000, true),
    (0, 0x2000, 0xF_FDFA, true), (0, 0x2000, 0xF_FDFC, false), (0x10_0000, 0x2000, 0x1000, false), (0, 0x10_0000, 0x1000, false),
  ] as [(UInt64, UInt64, UInt64, Bool)])
  func `a split ring's parts are aligned, apart, and each in one region`(
    descriptor: UInt64, used: UInt64, available: UInt64, fits: Bool
  ) throws {
    let (frontend, guest) = try ready()
    let user = guest.regions[1].user
    let address = Bytes().u32(0).u32(0).u64(user + descriptor).u64(user + used).u64(user + available).u64(0).all
    frontend.send(ID.setErr, u64(0), [guest.errors[0]])
    frontend.send(ID.setNum, state(0, 256))
    frontend.send(ID.setKick, u64(0), [guest.kicks[0]])
    #expect(frontend.acknowledged(ID.setAddr, address) == (fits ? 0 : 1))
    #expect((frontend.device.running[0] != nil) == fits)
    #expect(Things.wasRaised(guest.errors[0]) == !fits)
    if fits { #expect(frontend.device.running[0]?.layout.deviceArea == GuestAddress(guest.regions[1].guest + used)) }
    // Not asking for an answer does not end the connection: the driver behind it may have chosen them.
    frontend.send(ID.setAddr, address)
    #expect(frontend.isConnected)
  }

  @Test(arguments: [
    (0, 0x2000, 0x1000, true), (0, 0x1004, 0x1000, true), (0, 0x1002, 0x1000, false), (0, 0x1003, 0x1000, false),
    (0, 0x1000, 0x1000, false), (0, 0x2000, 0xFFC, false), (8, 0x2000, 0x3000, false), (0xF_F000, 0x2000, 0x1000, true),
    (0, 0xF_FFFC, 0x1000, true), (0, 0xF_FFFE, 0x1000, false),
  ] as [(UInt64, UInt64, UInt64, Bool)])
  func `a packed ring's parts are aligned, apart, and each in one region`(
    descriptor: UInt64, used: UInt64, available: UInt64, fits: Bool
  ) throws {
    let (frontend, guest) = try ready(version1Bit | packedBit)
    let user = guest.regions[1].user
    frontend.send(ID.setNum, state(0, 256))
    frontend.send(ID.setKick, u64(0), [guest.kicks[0]])
    let address = Bytes().u32(0).u32(0).u64(user + descriptor).u64(user + used).u64(user + available).u64(0).all
    #expect(frontend.acknowledged(ID.setAddr, address) == (fits ? 0 : 1))
    #expect((frontend.device.running[0] != nil) == fits)
  }

  @Test(arguments: [0, 0x6FFF_FFFF_F000, 0x7F00_0010_0000, 0x7F10_0010_0000, UInt64.max & ~0xFFF, 0xFFFF_FFFF_FFFF_FFF0])
  func `an address that is no memory's, or wraps, is refused`(start: UInt64) throws {
    let (frontend, guest) = try ready()
    frontend.send(ID.setNum, state(0, 256))
    frontend.send(ID.setKick, u64(0), [guest.kicks[0]])
    let address = Bytes().u32(0).u32(0).u64(start).u64(start &+ 0x2000).u64(start &+ 0x1000).u64(0).all
    #expect(frontend.acknowledged(ID.setAddr, address) == 1)
    guard case .badRing(0, .outsideMemory) = frontend.refusals.first else {
      Issue.record("\(frontend.refusals)")
      return
    }
    #expect(frontend.device.running.isEmpty && frontend.isConnected)
    // An address that was refused is not kept, and neither is the one before.
    #expect(frontend.acknowledged(ID.setAddr, guest.address(0)) == 0)
    #expect(frontend.device.running[0]?.layout == guest.layout(0))
  }

  @Test func `unknown flags with an address are refused`() throws {
    for flag in 1..<32 as Range<UInt32> {
      let (frontend, guest) = try ready()
      #expect(frontend.acknowledged(ID.setAddr, guest.address(0, flags: 1 << flag)) == 1)
      #expect(frontend.refusals == [.badRing(0, .unknownFlags(1 << flag))])
    }
  }

  // MARK: While it runs

  @Test func `a ring that runs keeps its size, base and place`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    for flags in [1, 9] as [UInt32] {
      for (id, payload) in [
        (ID.setNum, state(0, 128)), (ID.setNum, state(0, 0)), (ID.setBase, state(0, 0)), (ID.setBase, state(0, 9)),
        (ID.setAddr, Bytes().u32(0).all + guest.address(3).dropFirst(4)), (ID.setAddr, guest.address(0, flags: 2)),
      ] {
        frontend.send(id, payload, flags: flags)
        #expect(number(frontend.receive()?.payload) == (flags == 9 ? 1 : nil))
        #expect(frontend.isConnected)
      }
    }
    #expect(frontend.refusals.allSatisfy { if case .ringRuns(_, ring: 0) = $0 { true } else { false } })
    #expect(frontend.refusals.count == 12)
    #expect(frontend.device.running[0]?.layout == guest.layout(0))
    #expect(!frontend.device.calls.contains(.stop(0)))
    // The same again is no change.
    #expect(frontend.acknowledged(ID.setNum, state(0, 256)) == 0)
    #expect(frontend.acknowledged(ID.setAddr, guest.address(0)) == 0)
    // And it can be set up anew when it has stopped.
    _ = frontend.ask(ID.getBase, state(0, 0))
    #expect(frontend.acknowledged(ID.setNum, state(0, 128)) == 0)
    frontend.send(ID.setKick, u64(0x100))
    #expect(frontend.device.running[0]?.layout.size == 128)
    #expect(frontend.device.running[0]?.kick == nil)
  }

  @Test func `call, kick and error descriptors are exchanged while it runs, and the old ones closed`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    let (call, kick, error) = (try guest.things.event(), try guest.things.event(), try guest.things.event())
    #expect(holders(of: guest.calls[0]) == 2 && holders(of: guest.kicks[0]) == 2 && holders(of: guest.errors[0]) == 2)
    frontend.device.forget()
    frontend.device.bases[0] = RingBase(split: 40)
    frontend.send(ID.setCall, u64(0), [call])
    frontend.send(ID.setKick, u64(0), [kick])
    frontend.send(ID.setErr, u64(0), [error])
    // Another kick is another start, where the ring has come to.
    #expect(frontend.device.calls == [.call(0, true), .stop(0), .start(0)])
    #expect(frontend.device.running[0]?.base == RingBase(split: 40))
    #expect(holders(of: guest.calls[0]) == 1 && holders(of: guest.kicks[0]) == 1 && holders(of: guest.errors[0]) == 1)
    #expect(holders(of: call) == 2 && holders(of: kick) == 2 && holders(of: error) == 2)
    frontend.send(ID.setCall, u64(0x100))
    #expect(frontend.device.calls.last == .call(0, false))
    #expect(holders(of: call) == 1)
  }

  // MARK: Bases

  @Test func `a base is asked for as often as one likes`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    #expect(frontend.ask(ID.getBase, state(3, 0)) == state(3, 0))
    frontend.send(ID.setBase, state(3, 500))
    #expect(frontend.ask(ID.getBase, state(3, 0)) == state(3, 500))
    frontend.run(guest)
    frontend.device.bases[0] = RingBase(split: 65535)
    for _ in 0..<3 { #expect(frontend.ask(ID.getBase, state(0, 0)) == state(0, 65535)) }
    #expect(frontend.device.calls.count { $0 == .stop(0) } == 1)
    // Stopped is stopped: memory and enabling do not start it, only a kick.
    frontend.send(ID.enable, state(0, 0))
    frontend.send(ID.enable, state(0, 1))
    frontend.giveMemory(guest)
    frontend.send(ID.setNum, state(0, 256))
    frontend.send(ID.setAddr, guest.address(0))
    #expect(frontend.device.running[0] == nil)
    frontend.send(ID.setKick, u64(0), [guest.kicks[0]])
    #expect(frontend.device.running[0]?.base == RingBase(split: 65535))
  }

  /// Word, size, and what it means; nil: nothing.
  @Test(arguments: [
    (0x8000_8000, 256, RingBase.packedStart), (0x8000, 256, .packedStart), (0, 256, RingBase(available: 0, availableWrap: false, used: 0, usedWrap: false)),
    (0x0005_8007, 256, RingBase(available: 7, availableWrap: true, used: 5, usedWrap: false)),
    (0x80FF_00FF, 256, RingBase(available: 255, availableWrap: false, used: 255, usedWrap: true)),
    (0x8000_8100, 256, nil), (0x8100_8000, 256, nil), (0x7FFF_7FFF, 32768, RingBase(available: 32767, availableWrap: false, used: 32767, usedWrap: false)),
    (0x8001_8000, 1, nil), (0x8000_0000, 1, RingBase(available: 0, availableWrap: false, used: 0, usedWrap: true)),
  ] as [(UInt32, UInt32, RingBase?)])
  func `a packed ring's base is two places with their wrap counters`(word: UInt32, size: UInt32, base: RingBase?) throws {
    let (frontend, guest) = try ready(version1Bit | packedBit)
    frontend.send(ID.setNum, state(0, size))
    #expect(frontend.acknowledged(ID.setBase, state(0, word)) == (base == nil ? 1 : 0))
    let user = guest.regions[1].user
    frontend.send(ID.setAddr, Bytes().u32(0).u32(0).u64(user).u64(user + 0xF_0000).u64(user + 0xF_1000).u64(0).all)
    frontend.send(ID.setKick, u64(0), [guest.kicks[0]])
    // 32768 entries are half of the region.
    #expect(frontend.device.running[0]?.base == base)
    if base != nil {
      let back = frontend.ask(ID.getBase, state(0, 0))
      #expect(back == state(0, word == 0x8000 ? 0x8000_8000 : word))
    }
  }

  @Test func `a packed ring that nobody gave a base begins at the start`() throws {
    let (frontend, guest) = try ready(version1Bit | packedBit)
    frontend.send(ID.setNum, state(0, 256))
    frontend.send(ID.setAddr, guest.address(0))
    frontend.send(ID.setKick, u64(0), [guest.kicks[0]])
    #expect(frontend.device.running[0]?.base == .packedStart)
    #expect(frontend.ask(ID.getBase, state(1, 0)) == state(1, 0x8000_8000))
  }

  @Test(arguments: [0x1_0000, 0x8000_0000, 0xFFFF_FFFF] as [UInt32])
  func `a split ring's base has no upper half`(word: UInt32) throws {
    let (frontend, guest) = try ready()
    frontend.send(ID.setNum, state(0, 256))
    #expect(frontend.acknowledged(ID.setBase, state(0, word)) == 1)
    frontend.send(ID.setAddr, guest.address(0))
    frontend.send(ID.setKick, u64(0), [guest.kicks[0]])
    #expect(frontend.device.running.isEmpty)
    #expect(frontend.ringRefusals == [.badBase(word, size: 256)])
    #expect(frontend.acknowledged(ID.setBase, state(0, 0xFFFF)) == 0)
    #expect(frontend.device.running[0]?.base == RingBase(split: 0xFFFF))
  }

  // MARK: What cannot run

  @Test func `a legacy driver's ring is refused by name, and the connection goes on`() throws {
    let (frontend, guest) = try ready(0)
    frontend.setUp(0, guest)
    #expect(frontend.ringRefusals == [.featuresMissing(version1Bit)])
    #expect(Things.wasRaised(guest.errors[0]))
    #expect(frontend.isConnected && frontend.device.running.isEmpty)
    // The driver that the guest loads next is served.
    frontend.send(ID.setFeatures, u64(version1Bit | protocolBit))
    #expect(frontend.device.running[0] != nil)
  }

  @Test func `a ring that the device refuses is tried again when something has changed, and not before`() throws {
    let (frontend, guest) = try ready()
    frontend.device.refusesStart = true
    frontend.setUp(0, guest)
    frontend.send(ID.setErr, u64(0), [guest.errors[0]])
    #expect(frontend.ringRefusals.count == 1)
    frontend.device.refusesStart = false
    for n in 1..<UInt32(3) { frontend.setUp(n, guest) }
    frontend.send(ID.enable, state(0, 1))
    frontend.send(ID.setCall, u64(0), [guest.calls[0]])
    #expect(frontend.device.running.keys.sorted() == [1, 2])
    frontend.send(ID.setBase, state(0, 3))
    #expect(frontend.device.running[0]?.base == RingBase(split: 3))
    #expect(frontend.device.running[0]?.isEnabled == true)
  }

  @Test func `a ring that the device found broken stays stopped until it is set up anew`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    frontend.device.bases[0] = RingBase(split: 9)
    frontend.backend.fault(ring: 0, RingRefusal("head 300 is no descriptor of this queue"))
    #expect(Things.wasRaised(guest.errors[0]) && !Things.wasRaised(guest.errors[1]))
    #expect(frontend.device.running.keys.sorted() == [1])
    frontend.send(ID.enable, state(0, 0))
    frontend.send(ID.setCall, u64(0), [guest.calls[0]])
    #expect(frontend.device.running.keys.sorted() == [1])
    #expect(frontend.ask(ID.getBase, state(0, 0)) == state(0, 9))
    frontend.setUp(0, guest)
    #expect(frontend.device.running.keys.sorted() == [0, 1])
    frontend.backend.fault(ring: 77, RingRefusal("no such ring"))
    frontend.backend.fault(ring: 3, RingRefusal("does not run"))
    #expect(frontend.device.violations.isEmpty)
  }

  // MARK: Owner and reset

  @Test func `RESET_OWNER disables all rings, and they go on running`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    frontend.device.forget()
    #expect(frontend.acknowledged(ID.resetOwner) == 0)
    #expect(frontend.device.calls == [.enabled(0, false), .enabled(1, false)])
    #expect(frontend.device.running.count == 2)
  }

  @Test func `RESET_DEVICE leaves memory and the descriptors that are said only once`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    frontend.device.forget()
    #expect(frontend.acknowledged(ID.resetDevice) == 0)
    #expect(frontend.device.calls == [.stop(0), .stop(1)])
    #expect(frontend.device.map?.regions.count == 2)
    #expect(holders(of: guest.kicks[0]) == 1)
    #expect(holders(of: guest.calls[0]) == 2 && holders(of: guest.errors[0]) == 2)
    // As after connecting: no features, nothing of the rings.
    frontend.send(ID.setKick, u64(0), [guest.kicks[0]])
    #expect(frontend.device.running.isEmpty)
    frontend.send(ID.setFeatures, u64(version1Bit | protocolBit))
    #expect(frontend.device.running.isEmpty)
    frontend.send(ID.setNum, state(0, 256))
    frontend.send(ID.setAddr, guest.address(0))
    #expect(frontend.device.running[0]?.isEnabled == false)
    #expect(frontend.device.running[0]?.call != nil)
    #expect(frontend.device.running[0]?.base == RingBase(split: 0))
  }
}
