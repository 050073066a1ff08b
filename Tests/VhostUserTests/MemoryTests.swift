import Glibc
import GuestMemory
import Linux
import Support
import Testing
import VhostUser
import Virtio

/// The guest's memory: what is taken, what is refused, and how it goes.
@Suite struct MemoryTests {
  private let megabyte: UInt64 = 1 << 20

  private func negotiated(_ limits: Limits = Limits(), slots: Int = 509) throws -> Frontend {
    let frontend = try Frontend(Offer(features: offered, queuePairs: 2, memorySlots: slots), limits: limits)
    frontend.negotiate()
    return frontend
  }

  /// One region that is wrong by itself; the file has 1 MiB.
  static let wrong: [(Region, String)] = [
    (Region(guest: 0, size: 0, user: 0x10000), "empty"),
    (Region(guest: 0, size: 1 << 20, user: 0x10000, offset: 4096), "past the file by a page"),
    (Region(guest: 0, size: (1 << 20) + 1, user: 0x10000), "past the file by a byte"),
    (Region(guest: 0, size: 4096, user: 0x10000, offset: 1 << 20), "behind the file"),
    (Region(guest: 0, size: 4096, user: 0x10000, offset: 0xFFFF_FFFF_FFFF_F000), "an offset that wraps"),
    (Region(guest: 0, size: 4096, user: 0x10000, offset: 0x7FFF_FFFF_FFFF_F000), "an offset that is too large"),
    (Region(guest: 0, size: 0x7FFF_FFFF_FFFF_F000, user: 0), "larger than any memory"),
    (Region(guest: 0, size: 0xFFFF_FFFF_FFFF_F000, user: 0), "larger than any number"),
    (Region(guest: 0xFFFF_FFFF_FFFF_F000, size: 8192, user: 0x10000), "a guest address that wraps"),
    (Region(guest: 0xFFFF_FFFF_FFFF_F000, size: 4096, user: 0x10000), "a guest address that ends at the very end"),
    (Region(guest: 0, size: 8192, user: 0xFFFF_FFFF_FFFF_F000), "a front-end's address that wraps"),
    (Region(guest: 0x1800, size: 4096, user: 0x10000), "half a page aside"),
    (Region(guest: 0, size: 4096, user: 0x10000, offset: 1), "a byte aside"),
  ]

  @Test(arguments: wrong)
  func `a region that cannot be is refused, and nothing of it is kept`(region: Region, why: String) throws {
    let things = Things()
    let file = try things.memory(1 << 20)
    for byTable in [true, false] {
      let frontend = try negotiated()
      let answer =
        byTable
        ? frontend.acknowledged(ID.setMemTable, Region.table([region]), [file])
        : frontend.acknowledged(ID.addRegion, region.single, [file])
      #expect(answer == 1, "\(why)")
      #expect(frontend.refusals.count == 1 && frontend.isConnected)
      #expect(frontend.device.calls.isEmpty)
      #expect(holders(of: file) == 1 && mappedBytes(of: file) == 0)
    }
  }

  @Test func `the largest memory that may be is taken, and a byte more refused`() throws {
    let things = Things()
    let file = try things.memory(3 << 20)
    var limits = Limits()
    limits.mostGuestBytes = 2 << 20
    let frontend = try negotiated(limits)
    let two = [Region(guest: 0, size: megabyte, user: 0x10_0000), Region(guest: 4 * megabyte, size: megabyte, user: 0x50_0000)]
    #expect(frontend.acknowledged(ID.setMemTable, Region.table(two), [file, file]) == 0)
    #expect(frontend.acknowledged(ID.addRegion, Region(guest: 8 * megabyte, size: 1, user: 0x90_0000).single, [file]) == 1)
    #expect(frontend.refusals == [.tooMuchMemory((2 << 20) + 1, limit: 2 << 20)])
    #expect(frontend.acknowledged(ID.removeRegion, two[0].single) == 0)
    #expect(frontend.acknowledged(ID.addRegion, Region(guest: 8 * megabyte, size: 1, user: 0x90_0000).single, [file]) == 0)
    // Sums of sizes that wrap are too much, not little.
    let huge = (0..<4).map { Region(guest: $0 << 62, size: 1 << 62, user: $0 << 62) }
    #expect(frontend.acknowledged(ID.setMemTable, Region.table(huge), [file, file, file, file]) == 1)
  }

  /// The second region's start against a first one of 1 MiB at 16 MiB, in the guest or in the front-end.
  @Test(arguments: [(-1 << 20, true), (-(1 << 20) + 4096, false), (0, false), ((1 << 20) - 4096, false), (1 << 20, true)])
  func `regions share no address, the guest's or the front-end's`(distance: Int, fits: Bool) throws {
    let things = Things()
    let file = try things.memory(1 << 20)
    let place: UInt64 = 16 << 20
    let moved = UInt64(Int(place) + distance)
    for inGuest in [true, false] {
      let first = Region(guest: place, size: megabyte, user: place)
      let second = Region(guest: inGuest ? moved : 1 << 30, size: megabyte, user: inGuest ? 1 << 30 : moved)
      let frontend = try negotiated()
      #expect(frontend.acknowledged(ID.setMemTable, Region.table([first, second]), [file, file]) == (fits ? 0 : 1))
      #expect(frontend.device.map?.regions.count == (fits ? 2 : nil))
      let other = try negotiated()
      #expect(other.acknowledged(ID.addRegion, first.single, [file]) == 0)
      #expect(other.acknowledged(ID.addRegion, second.single, [file]) == (fits ? 0 : 1))
      #expect(other.device.map?.regions.count == (fits ? 2 : 1))
      for refusal in frontend.refusals + other.refusals {
        switch refusal {
        case .regionsOverlap: #expect(inGuest)
        case .frontendRegionsOverlap: #expect(!inGuest)
        default: Issue.record("\(refusal)")
        }
      }
    }
  }

  @Test func `files of regions are kept as long as there is room for them, and go with the regions`() throws {
    let things = Things()
    let file = try things.memory(4096)
    var limits = Limits()
    limits.mostKeptFiles = 2
    let regions = (0..<3).map { Region(guest: UInt64($0) << 20, size: 4096, user: UInt64($0 + 1) << 30) }
    let frontend = try negotiated(limits)
    func kept() -> [Bool]? { frontend.device.map?.regions.map { $0.place() != nil } }
    #expect(frontend.acknowledged(ID.setMemTable, Region.table(regions), [file, file, file]) == 0)
    #expect(kept() == [true, true, false] && holders(of: file) == 3)
    #expect(frontend.acknowledged(ID.removeRegion, regions[0].single) == 0)
    #expect(kept() == [true, false] && holders(of: file) == 2)
    #expect(frontend.acknowledged(ID.addRegion, regions[0].single, [file]) == 0)
    #expect(kept() == [true, true, false] && holders(of: file) == 3)
    frontend.disconnect()
    #expect(holders(of: file) == 1)
  }

  /// As QEMU 7.2 tells of it.
  @Test func `a region that is told of once a queue pair is one region, and goes at the first word`() throws {
    let things = Things()
    let (file, other) = (try things.memory(1 << 20), try things.memory(1 << 20))
    let (one, two) = (Region(guest: 0, size: megabyte, user: 0x10_0000), Region(guest: 4 * megabyte, size: megabyte, user: 0x50_0000))
    let frontend = try negotiated()
    for region in [one, two] {
      for _ in 0..<2 { #expect(frontend.acknowledged(ID.addRegion, region.single, [file]) == 0) }
    }
    #expect(frontend.device.calls.count == 2 && frontend.device.map?.regions.count == 2)
    // Two queue pairs tell of it twice, and of the same file.
    #expect(frontend.acknowledged(ID.addRegion, one.single, [file]) == 1)
    #expect(frontend.acknowledged(ID.removeRegion, two.single) == 0 && frontend.device.map?.regions.count == 1)
    #expect(frontend.acknowledged(ID.removeRegion, two.single) == 0)
    #expect(frontend.acknowledged(ID.removeRegion, two.single) == 1)
    #expect(frontend.acknowledged(ID.addRegion, two.single, [file]) == 0)
    #expect(frontend.acknowledged(ID.addRegion, two.single, [other]) == 1)
    #expect(frontend.refusals == [
      .regionsOverlap(GuestAddress(one.guest), GuestAddress(one.guest)),
      .noSuchRegion(GuestAddress(two.guest), FrontendAddress(two.user), byteCount: megabyte),
      .regionsOverlap(GuestAddress(two.guest), GuestAddress(two.guest)),
    ])
    #expect(frontend.device.map?.regions.count == 2)
    // A table says all anew: what was told of before it is not told of still.
    #expect(frontend.acknowledged(ID.setMemTable, Region.table([one, two]), [file, file]) == 0)
    #expect(frontend.acknowledged(ID.removeRegion, one.single) == 0 && frontend.acknowledged(ID.removeRegion, one.single) == 1)
    #expect(holders(of: file) == 1 && holders(of: other) == 1)
  }

  @Test func `more regions than there are slots, or than a table has, are refused`() throws {
    let things = Things()
    let file = try things.memory(4096)
    let frontend = try negotiated(slots: 9)
    let regions = (0..<10).map { Region(guest: UInt64($0) << 20, size: 4096, user: UInt64($0 + 1) << 30) }
    #expect(number(frontend.ask(ID.getSlots)) == 9)
    for region in regions.prefix(9) { #expect(frontend.acknowledged(ID.addRegion, region.single, [file]) == 0) }
    #expect(frontend.acknowledged(ID.addRegion, regions[9].single, [file]) == 1)
    #expect(frontend.refusals == [.tooManyRegions(10, limit: 9)])
    #expect(holders(of: file) == 1)
    #expect(frontend.device.map?.regions.count == 9)
    #expect(frontend.acknowledged(ID.setMemTable, Region.table(Array(regions.prefix(8))), [CInt](repeating: file, count: 8)) == 0)
    #expect(frontend.device.map?.regions.count == 8)
    frontend.send(ID.setMemTable, Region.table(Array(regions.prefix(9))), [CInt](repeating: file, count: 9), flags: 9)
    #expect(!frontend.isConnected || number(frontend.receive()?.payload) == 1)
    #expect(frontend.refusals.last == .tooManyRegions(9, limit: 8))
  }

  @Test func `memory is shared memory or huge pages, to be read and written, and nothing else`() throws {
    let things = Things()
    let memory = try things.memory(1 << 20)
    let wrong = try things.noMemory(but: memory)
    let region = Region(guest: 0, size: 4096, user: 0x10000)
    for file in wrong {
      let frontend = try negotiated()
      #expect(frontend.acknowledged(ID.addRegion, region.single, [file]) == 1)
      #expect(frontend.acknowledged(ID.setMemTable, Region.table([region]), [file]) == 1)
      #expect(frontend.device.calls.isEmpty && frontend.isConnected)
    }
    #expect(holders(of: memory) == 3)
    for seals in [0, 1, 2, 4, 7] as [CInt] {
      let frontend = try negotiated()
      #expect(frontend.acknowledged(ID.addRegion, region.single, [try things.memory(4096, seals: seals)]) == 0)
      guard case .memory(1, 4096, shrinkable: seals & 2 == 0 ? 1 : 0)? = frontend.events.last else {
        Issue.record("seals \(seals): \(frontend.events)")
        continue
      }
    }
  }

  @Test func `a region's bytes are the file's, from wherever it begins in it`() throws {
    let things = Things()
    let file = try things.memory(1 << 16)
    for offset in [0, 4096, 0x3000, 0x800, 0x1010] as [UInt64] {
      let frontend = try negotiated()
      let region = Region(guest: 0x10_0000 + offset, size: 0x2000, user: 0x7000_0000, offset: offset)
      #expect(frontend.acknowledged(ID.addRegion, region.single, [file]) == 0)
      var view = MemoryView(try #require(frontend.device.map))
      view.slice(GuestRange(GuestAddress(region.guest + 8), count: 8))?.store64(0x1122_3344_0000_0000 + offset, 0)
      var found: UInt64 = 0
      #expect(pread(file, &found, 8, off_t(offset + 8)) == 8)
      #expect(found == 0x1122_3344_0000_0000 + offset)
      let last = view.slice(GuestRange(GuestAddress(region.guest + 0x2000 - 1), count: 1)) != nil
      let past = view.slice(GuestRange(GuestAddress(region.guest + 0x2000), count: 1)) != nil
      #expect(last && !past)
    }
  }

  @Test func `the same table again changes nothing, and a region that stays is the same object`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    var before = frontend.device.map
    let objects = (before?.regions ?? []).map { ObjectIdentifier($0) }
    frontend.device.forget()
    for _ in 0..<3 { #expect(frontend.acknowledged(ID.setMemTable, Region.table(guest.regions), guest.files) == 0) }
    #expect(frontend.acknowledged(ID.setMemTable, Region.table(guest.regions.reversed()), guest.files.reversed()) == 0)
    #expect(frontend.device.calls.isEmpty)
    #expect(frontend.device.map === before)
    // One more: rings go on running, with a map that has the same objects.
    let more = Region(guest: 0x2_0000_0000, size: megabyte, user: 0x7F20_0000_0000)
    let file = try guest.things.memory(1 << 20)
    #expect(frontend.acknowledged(ID.addRegion, more.single, [file]) == 0)
    #expect(frontend.device.calls == [.memory(3)])
    #expect(objects.count == 2)
    #expect(Set(objects).isSubset(of: (frontend.device.map?.regions ?? []).map { ObjectIdentifier($0) }))
    before = nil
    // The rings lie in the second; the first and the third go, one by one, and the rings run on.
    frontend.device.forget()
    #expect(frontend.acknowledged(ID.removeRegion, guest.regions[0].single) == 0)
    #expect(frontend.device.calls == [.stop(0), .stop(1), .memory(2), .start(0), .start(1)])
    #expect(frontend.device.running[0]?.isEnabled == true)
    #expect(mappedBytes(of: guest.low) == 0 && mappedBytes(of: guest.high) > 0)
  }

  @Test func `another file at the same addresses is another region`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    frontend.device.forget()
    let other = try guest.things.memory(1 << 20)
    #expect(frontend.acknowledged(ID.setMemTable, Region.table(guest.regions), [other, guest.high]) == 0)
    #expect(frontend.device.calls == [.stop(0), .stop(1), .memory(2), .start(0), .start(1)])
    #expect(mappedBytes(of: guest.low) == 0 && mappedBytes(of: other) == 1 << 20)
  }

  @Test func `rings whose memory goes stay stopped and are named, and the others go on where they were`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.negotiate()
    frontend.giveMemory(guest)
    // Ring 0 in the low region, ring 1 in the high one.
    frontend.setUp(1, guest)
    frontend.send(ID.setErr, u64(0), [guest.errors[0]])
    frontend.send(ID.setNum, state(0, 256))
    let user = guest.regions[0].user
    frontend.send(ID.setAddr, Bytes().u32(0).u32(0).u64(user).u64(user + 0x2000).u64(user + 0x1000).u64(0).all)
    frontend.send(ID.setKick, u64(0), [guest.kicks[0]])
    #expect(frontend.device.running.count == 2)
    frontend.device.bases = [0: RingBase(split: 11), 1: RingBase(split: 22)]
    frontend.device.forget()
    #expect(frontend.acknowledged(ID.removeRegion, guest.regions[0].single) == 0)
    #expect(frontend.device.calls == [.stop(0), .stop(1), .memory(1), .start(1)])
    #expect(frontend.device.running[1]?.base == RingBase(split: 22))
    #expect(frontend.ringRefusals.count == 1)
    guard case .outsideMemory(.descriptors, FrontendAddress(user), byteCount: 4096)? = frontend.ringRefusals.first else {
      Issue.record("\(frontend.ringRefusals)")
      return
    }
    #expect(Things.wasRaised(guest.errors[0]) && !Things.wasRaised(guest.errors[1]))
    // It comes back: the ring goes on, for it was never stopped by the front-end.
    #expect(frontend.acknowledged(ID.addRegion, guest.regions[0].single, [guest.low]) == 0)
    #expect(frontend.device.running[0]?.base == RingBase(split: 11))
    #expect(frontend.device.violations.isEmpty)
  }

  @Test func `a table of no regions takes everything away`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    frontend.device.forget()
    #expect(frontend.acknowledged(ID.setMemTable, Region.table([])) == 0)
    #expect(frontend.device.calls == [.stop(0), .stop(1), .noMemory])
    #expect(frontend.ringRefusals.count == 2)
    #expect(mappedBytes(of: guest.low) == 0 && mappedBytes(of: guest.high) == 0)
  }

  @Test func `a region is taken away by all that names it, and a descriptor with it is closed unused`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.negotiate()
    frontend.giveMemory(guest)
    let region = guest.regions[1]
    for wrong in [
      Region(guest: region.guest + 4096, size: region.size, user: region.user),
      Region(guest: region.guest, size: region.size - 1, user: region.user),
      Region(guest: region.guest, size: region.size, user: region.user + 1), Region(guest: 0, size: 0, user: 0),
    ] {
      #expect(frontend.acknowledged(ID.removeRegion, wrong.single) == 1)
    }
    #expect(frontend.device.map?.regions.count == 2)
    // The offset does not matter.
    let other = Region(guest: region.guest, size: region.size, user: region.user, offset: 99)
    let file = try guest.things.memory(4096)
    #expect(frontend.acknowledged(ID.removeRegion, other.single, [file]) == 0)
    #expect(frontend.device.map?.regions.count == 1)
    #expect(holders(of: file) == 1)
    #expect(frontend.acknowledged(ID.removeRegion, other.single) == 1)
  }

  @Test func `memory that the device refuses leaves what was there, unless that was to go`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    frontend.device.refusesMemory = true
    let file = try guest.things.memory(1 << 20)
    let more = Region(guest: 0x2_0000_0000, size: megabyte, user: 0x7F20_0000_0000)
    frontend.device.forget()
    #expect(frontend.acknowledged(ID.addRegion, more.single, [file]) == 1)
    #expect(frontend.device.calls.isEmpty && frontend.device.running.count == 2)
    #expect(frontend.device.map?.regions.count == 2)
    #expect(mappedBytes(of: file) == 0 && holders(of: file) == 1)
    // The front-end takes the low region back: it must go whatever the device says of the rest.
    #expect(frontend.acknowledged(ID.removeRegion, guest.regions[0].single) == 1)
    #expect(frontend.device.calls == [.stop(0), .stop(1), .noMemory])
    #expect(mappedBytes(of: guest.low) == 0 && mappedBytes(of: guest.high) == 0)
    #expect(Things.wasRaised(guest.errors[0]) && Things.wasRaised(guest.errors[1]))
    frontend.device.refusesMemory = false
    #expect(frontend.acknowledged(ID.setMemTable, Region.table(guest.regions), guest.files) == 0)
    #expect(frontend.device.running.count == 2)
    #expect(frontend.device.violations.isEmpty)
  }

  @Test func `regions that come and go leave nothing behind`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    let file = try guest.things.memory(1 << 20)
    let more = Region(guest: 0x2_0000_0000, size: megabyte, user: 0x7F20_0000_0000)
    for _ in 0..<500 {
      #expect(frontend.acknowledged(ID.addRegion, more.single, [file]) == 0)
      #expect(frontend.acknowledged(ID.removeRegion, more.single) == 0)
    }
    #expect(frontend.device.running.count == 2)
    #expect(mappedBytes(of: file) == 0 && holders(of: file) == 1)
    #expect(frontend.device.violations.isEmpty)
  }

  // MARK: The log

  /// Bytes, offset, whether it is one: the file has 256 KiB, and the guest needs 131104 bytes.
  @Test(arguments: [
    (131_104, 0, true), (131_103, 0, false), (0, 0, false), (262_144, 0, true), (262_145, 0, false), (131_104, 131_040, true),
    (131_104, 131_041, false), (131_104, 4096, true), (131_104, 1, true), (8192, 0xFFFF_FFFF_FFFF_F000, false),
    (0xFFFF_FFFF_FFFF_FFFF, 2, false), (131_104, 0x7FFF_FFFF_FFFF_FFFF, false), (0x8000_0000_0000_0000, 0, false),
  ] as [(UInt64, UInt64, Bool)])
  func `a log lies in its file and covers the guest's memory`(byteCount: UInt64, offset: UInt64, fits: Bool) throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.negotiate(version1Bit | logBit)
    frontend.giveMemory(guest)
    let file = try guest.things.memory(1 << 18)
    let place = Bytes().u64(byteCount).u64(offset).all
    #expect(frontend.ask(ID.setLogBase, place, [file]) == (fits ? place : nil))
    // A front-end that waits for a body cannot be told no.
    #expect(frontend.isConnected == fits)
    #expect(frontend.device.log?.byteCount == (fits ? Int(byteCount) : nil))
    if fits {
      frontend.device.log?.mark(GuestAddress(9 * 4096), byteCount: 1)
      var byte: UInt8 = 0
      #expect(pread(file, &byte, 1, off_t(offset) + 1) == 1 && byte == 2)
    } else {
      #expect(mappedBytes(of: file) == 0 && frontend.device.running.isEmpty && frontend.device.map == nil)
    }
    frontend.disconnect()
    #expect(holders(of: file) == 1 && mappedBytes(of: file) == 0 && frontend.device.log == nil)
  }

  @Test func `a file so long that its pages cannot be counted is no log and no memory`() throws {
    let things = Things()
    let file = try things.memory(4096)
    try #require(ftruncate(file, off_t(Int64.max)) == 0)
    let frontend = try negotiated()
    #expect(frontend.acknowledged(ID.addRegion, Region(guest: 0, size: UInt64(Int64.max) - 4096, user: 0).single, [file]) == 1)
    _ = frontend.ask(ID.setLogBase, Bytes().u64(UInt64(Int64.max)).u64(0).all, [file])
    #expect(!frontend.isConnected)
    var limits = Limits()
    limits.mostGuestBytes = .max
    let open = try negotiated(limits)
    #expect(open.acknowledged(ID.addRegion, Region(guest: 0, size: UInt64(Int64.max), user: 0).single, [file]) == 1)
    for less in [1, 4095, 4096, 8191, 8192] as [UInt64] {
      #expect(open.acknowledged(ID.addRegion, Region(guest: 0, size: UInt64(Int64.max) - less, user: 0).single, [file]) == 1)
    }
  }

  @Test func `the device has a log while both it and the feature are there`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    frontend.device.forget()
    let (first, second) = (try guest.things.memory(1 << 18), try guest.things.memory(1 << 18))
    let place = Bytes().u64(131_104).u64(0).all
    frontend.send(ID.setFeatures, u64(version1Bit | protocolBit | logBit))
    #expect(frontend.device.calls.isEmpty)
    #expect(frontend.ask(ID.setLogBase, place, [first]) != nil)
    #expect(frontend.ask(ID.setLogBase, place, [second]) != nil)
    #expect(mappedBytes(of: first) == 0 && mappedBytes(of: second) > 0)
    frontend.send(ID.setFeatures, u64(version1Bit | protocolBit))
    frontend.send(ID.setFeatures, u64(version1Bit | protocolBit | logBit))
    frontend.send(ID.resetDevice)
    #expect(frontend.device.calls == [.log(131_104), .log(131_104), .log(nil), .log(131_104), .stop(0), .stop(1), .log(nil)])
    frontend.send(ID.setFeatures, u64(version1Bit | protocolBit | logBit))
    #expect(frontend.device.log?.byteCount == 131_104)
  }

  @Test func `a used ring that the log has no room for is refused, running or not`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.negotiate(version1Bit | logBit)
    frontend.giveMemory(guest)
    let file = try guest.things.memory(1 << 18)
    #expect(frontend.ask(ID.setLogBase, Bytes().u64(131_104).u64(0).all, [file]) != nil)
    // The log's last bit is the page before this.
    let end: UInt64 = 131_104 * 8 * 4096
    // A used ring of 256 entries has 2054 bytes.
    for (log, fits) in [(0x1_0000_1000, true), (end - 2054, true), (end - 2053, false), (end, false), (UInt64.max - 100, false), (UInt64.max, false)] {
      #expect(frontend.acknowledged(ID.setNum, state(0, 256)) == 0)
      frontend.send(ID.setAddr, guest.address(0, flags: 1, log: log))
      frontend.send(ID.setKick, u64(0), [guest.kicks[0]])
      #expect(frontend.device.running[0]?.logAddress == (fits ? GuestAddress(log) : nil))
      #expect((frontend.device.running[0] != nil) == fits)
      _ = frontend.ask(ID.getBase, state(0, 0))
    }
    frontend.setUp(0, guest)
    frontend.device.forget()
    #expect(frontend.acknowledged(ID.setAddr, guest.address(0, flags: 1, log: end)) == 1)
    #expect(frontend.device.calls.isEmpty)
    #expect(frontend.acknowledged(ID.setAddr, guest.address(0, flags: 1, log: 0x5000)) == 0)
    #expect(frontend.device.calls == [.logAddress(0, GuestAddress(0x5000))])
  }

  @Test func `a packed ring's descriptors are logged where the guest has them`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.negotiate(version1Bit | packedBit)
    frontend.giveMemory(guest)
    frontend.setUp(0, guest, base: 0x8000_8000)
    #expect(frontend.acknowledged(ID.setAddr, guest.address(0, flags: 1, log: 0x1_0000_2000)) == 0)
    #expect(frontend.device.calls.last == .logAddress(0, guest.layout(0).descriptorArea))
  }
}

/// A front-end that takes its memory back by making the file shorter.
@Suite struct TruncationTests {
  @Test func `memory that was truncated reads as zeros, and ends its own connection only`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    let (neighbour, other) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    neighbour.run(other)
    #expect(frontend.expire(now: frontend.now))
    var view: MemoryView? = MemoryView(try #require(frontend.device.map))
    let low = GuestRange(GuestAddress(0x8_0000), count: 8)
    view!.slice(low)!.store64(0x1234, 0)
    view!.slice(GuestRange(GuestAddress(0), count: 8))!.store64(0x5678, 0)
    #expect(ftruncate(guest.low, 4096) == 0)
    // Nobody has touched it yet.
    #expect(frontend.expire(now: frontend.now))
    let gone = view!.slice(low)!.load64(0)
    #expect(gone == 0)
    view!.slice(low)!.store64(7, 0)
    let first = view!.slice(GuestRange(GuestAddress(0), count: 8))!.load64(0)
    let last = view!.slice(GuestRange(GuestAddress(0xF_FFF8), count: 8))!.load64(0)
    let before = view!.slice(GuestRange(GuestAddress(0x1000), count: 8))!.load64(0)
    let high = view!.slice(GuestRange(GuestAddress(guest.regions[1].guest), count: 8))!.load64(0)
    #expect(first == 0 && last == 0 && before == 0 && high == 0)
    view = nil
    #expect(!frontend.expire(now: frontend.now))
    #expect(frontend.disconnection == .truncated)
    #expect(frontend.device.running.isEmpty)
    #expect(neighbour.expire(now: neighbour.now) && neighbour.device.running.count == 2)
    #expect(mappedBytes(of: guest.low) == 0 && mappedBytes(of: guest.high) == 0)
  }

  @Test func `a log that was truncated takes marks and ends its connection`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    let file = try guest.things.memory(1 << 18)
    frontend.send(ID.setFeatures, u64(version1Bit | protocolBit | logBit))
    #expect(frontend.ask(ID.setLogBase, Bytes().u64(131_104).u64(0).all, [file]) != nil)
    #expect(ftruncate(file, 0) == 0)
    frontend.device.log?.mark(GuestAddress(0), byteCount: 0x1_0000_0000)
    frontend.device.log = nil
    #expect(!frontend.expire(now: frontend.now))
    #expect(frontend.disconnection == .truncated)
  }

  /// The handler's work must not grow with what is touched.
  @Test func `touching every page of what is gone costs no more than one mapping`() throws {
    let guest = try TestGuest()
    let frontend = try Frontend()
    frontend.negotiate()
    let size: UInt64 = 1 << 26
    let file = try guest.things.memory(Int(size))
    #expect(frontend.acknowledged(ID.addRegion, Region(guest: 0, size: size, user: 0).single, [file]) == 0)
    #expect(mappedBytes(of: file) == 1 << 26)
    #expect(ftruncate(file, 1 << 25) == 0)
    var view = MemoryView(try #require(frontend.device.map))
    var sum: UInt64 = 0
    for page in stride(from: size - 4096, through: 0, by: -4096) {
      sum += view.slice(GuestRange(GuestAddress(page), count: 8))!.load64(0)
    }
    #expect(sum == 0)
    #expect(mappedBytes(of: file) == 0)
  }
}
