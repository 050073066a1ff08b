import FlowSteering
import Glibc
import GuestMemory
import Linux
import Support
import Testing
import VhostUser
import Virtio

/// What concerns the network device, and asking the front-end.
@Suite struct NetworkTests {
  private func negotiated() throws -> Frontend {
    let frontend = try Frontend(Matrix.offer)
    frontend.negotiate()
    return frontend
  }

  @Test(arguments: [0, 67, 68, 1500, 9000, 65535, 65536, 1 << 32 | 1500, UInt64.max] as [UInt64])
  func `an MTU is 68 to 65535, and what the device can`(mtu: UInt64) throws {
    let frontend = try negotiated()
    let fits = (68...65535).contains(mtu)
    #expect(frontend.acknowledged(ID.setMTU, u64(mtu)) == (fits ? 0 : 1))
    #expect(frontend.device.calls == (fits ? [.mtu(Int(mtu))] : []))
    frontend.device.refusesMTU = true
    #expect(frontend.acknowledged(ID.setMTU, u64(mtu)) == 1)
    #expect(frontend.isConnected)
  }

  @Test func `an announcement is the first six bytes, and only so many in a second`() throws {
    let frontend = try negotiated()
    #expect(frontend.acknowledged(ID.sendRarp, [0x52, 0x54, 0, 0x12, 0x34, 0x56, 0xFF, 0xFF]) == 0)
    #expect(frontend.device.calls == [.announce([0x52, 0x54, 0, 0x12, 0x34, 0x56])])
    for _ in 0..<100 { #expect(frontend.acknowledged(ID.sendRarp, u64(1)) == 0) }
    #expect(frontend.device.calls.count == Limits().announcementsPerSecond)
    frontend.now += 1_000_000_000
    frontend.send(ID.sendRarp, u64(1))
    #expect(frontend.device.calls.count == Limits().announcementsPerSecond + 1)
  }

  // MARK: Configuration

  private func config(_ offset: UInt32, _ size: UInt32, flags: UInt32 = 0, _ bytes: [UInt8]? = nil) -> [UInt8] {
    Bytes().u32(offset).u32(size).u32(flags).with(bytes ?? [UInt8](repeating: 0, count: Int(min(size, 300)))).all
  }

  @Test func `the configuration is virtio's: address, status, pairs, MTU, and zeros`() throws {
    let frontend = try negotiated()
    let wanted: [UInt8] = [0x52, 0x54, 0, 0x12, 0x34, 0x56, 1, 0, 2, 0, 0xDC, 0x05] + [UInt8](repeating: 0, count: 244)
    for flags in [0, 1, 2] as [UInt32] {
      #expect(frontend.ask(ID.getConfig, config(0, 256, flags: flags)) == config(0, 256, flags: flags, wanted))
    }
    for offset in 0..<256 as Range<UInt32> {
      let count = min(256 - offset, 7)
      let bytes = Array(wanted[Int(offset)..<Int(offset + count)])
      #expect(frontend.ask(ID.getConfig, config(offset, count)) == config(offset, count, bytes))
    }
  }

  @Test(arguments: [(0, 0), (256, 1), (255, 2), (0, 257), (1, 256), (0xFFFF_FFFF, 1), (0xFFFF_FFFF, 2), (0x8000_0000, 256)] as [(UInt32, UInt32)])
  func `configuration out of range is answered by none, and the connection goes on`(offset: UInt32, size: UInt32) throws {
    let frontend = try negotiated()
    for flags in [1, 9] as [UInt32] {
      #expect(frontend.ask(ID.getConfig, config(offset, size), flags: flags) == config(offset, 0))
    }
    #expect(frontend.isConnected)
    #expect(frontend.acknowledged(ID.setConfig, config(offset, size)) == 1)
  }

  @Test(arguments: [(4, 3), (4, 5), (0, 1), (300, 4), (0xFFFF_FFFF, 4)] as [(UInt32, Int)])
  func `a configuration whose size is not that of its bytes ends the connection`(size: UInt32, count: Int) throws {
    for id in [ID.getConfig, ID.setConfig] {
      let frontend = try negotiated()
      frontend.send(id, Bytes().u32(0).u32(size).u32(0).with([UInt8](repeating: 0, count: count)).all)
      #expect(!frontend.isConnected)
    }
    for count in 0..<12 {
      let frontend = try negotiated()
      frontend.send(ID.getConfig, [UInt8](repeating: 0, count: count))
      #expect(!frontend.isConnected)
    }
  }

  @Test func `configuration is not written, but what is so may be said`() throws {
    let frontend = try negotiated()
    for flags in [0, 1, 2] as [UInt32] {
      #expect(frontend.acknowledged(ID.setConfig, config(0, 6, flags: flags, [0x52, 0x54, 0, 0x12, 0x34, 0x56])) == 0)
      #expect(frontend.acknowledged(ID.setConfig, config(0, 6, flags: flags, [0x52, 0x54, 0, 0x12, 0x34, 0x57])) == 1)
    }
    #expect(frontend.refusals == [.configIsReadOnly, .configIsReadOnly, .configIsReadOnly])
  }

  @Test func `a socket without configuration does not offer it`() throws {
    let frontend = try Frontend()
    #expect(number(frontend.ask(ID.getProtocol))! & 1 << 9 == 0)
    #expect(frontend.acknowledged(ID.setProtocol, u64(1 << 9)) == 1)
    #expect(frontend.acknowledged(ID.setConfig, config(0, 1)) == 1)
    frontend.send(ID.getConfig, config(0, 1))
    #expect(!frontend.isConnected)
  }

  // MARK: Asking the front-end

  private func received(_ number: CInt) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 100)
    let count = recv(number, &bytes, 100, CInt(MSG_DONTWAIT))
    return Array(bytes.prefix(max(count, 0)))
  }
  /// CONFIG_CHANGE_MSG: request 2, version 1, no payload.
  private let change = Bytes().u32(2).u32(1).u32(0).all

  @Test func `a change of configuration is told once a ring runs, and not before`() throws {
    let (frontend, guest) = (try negotiated(), try TestGuest())
    let (ours, theirs) = try guest.things.sockets()
    #expect(frontend.acknowledged(ID.setRequests, [], [theirs]) == 0)
    var config = NetConfig(address: MACAddress(0x5254_0012_3456), maxQueuePairs: 2, mtu: 1500)
    config.isLinkUp = false
    frontend.backend.setConfig(config)
    #expect(received(ours) == [])
    frontend.giveMemory(guest)
    frontend.setUp(0, guest)
    #expect(received(ours) == change)
    frontend.setUp(1, guest)
    frontend.backend.setConfig(config)
    #expect(received(ours) == [], "nothing has changed")
    config.mtu = 9000
    frontend.backend.setConfig(config)
    #expect(received(ours) == change)
    #expect(frontend.ask(ID.getConfig, self.config(6, 6)) == self.config(6, 6, [0, 0, 2, 0, 0x28, 0x23]))
    for n in 0..<UInt32(2) { _ = frontend.ask(ID.getBase, state(n, 0)) }
    config.mtu = 1500
    frontend.backend.setConfig(config)
    #expect(received(ours) == [], "suspended")
  }

  @Test func `a front-end that does not listen to requests, or hung up, disturbs nothing`() throws {
    let (frontend, guest) = (try negotiated(), try TestGuest())
    let (ours, theirs) = try guest.things.sockets()
    frontend.send(ID.setRequests, [], [theirs])
    frontend.giveMemory(guest)
    frontend.setUp(0, guest)
    var config = NetConfig(address: MACAddress(0x5254_0012_3456), maxQueuePairs: 2, mtu: 1500)
    for n in 0..<5000 {
      config.mtu = 1000 + n % 2
      frontend.backend.setConfig(config)
    }
    #expect(frontend.isConnected && frontend.device.running.count == 1)
    var told = 0
    while received(ours).count == 96 || told == 0 { told += 1 }
    shutdown(ours, CInt(SHUT_RDWR))
    for n in 0..<3 {
      config.mtu = 2000 + n
      frontend.backend.setConfig(config)
    }
    #expect(frontend.isConnected && frontend.device.running.count == 1)
    frontend.settle()
    #expect(holders(of: theirs) == 1)
  }
}
