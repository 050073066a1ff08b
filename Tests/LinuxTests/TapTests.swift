import Glibc
import Linux
import Support
import Testing

private let reason: Comment = "TAP devices need root and /dev/net/tun"

/// In networks of their own, on threads of their own: an expectation there would not know its test, so what is wrong is
/// thrown.
@Suite struct TapTests {
  /// A frame of an experimental EtherType, which no protocol of the machine sends or takes.
  private static func frame(_ mark: UInt8, count: Int = 60) -> [UInt8] {
    [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xB5] + [UInt8](repeating: mark, count: count - 14)
  }
  private static func next(_ tap: borrowing TapDevice) -> [UInt8]? {
    var buffer = [UInt8](repeating: 0xEE, count: 70_000)
    // The machine may have frames of its own to send.
    while let count = unsafe buffer.withUnsafeMutableBytes({ unsafe tap.read(into: $0) }) {
      if count >= 14 && buffer[12] == 0x88 && buffer[13] == 0xB5 { return Array(buffer[..<count]) }
    }
    return nil
  }
  private static func next(_ socket: borrowing PacketSocket) -> [UInt8]? {
    while let frame = socket.receive() {
      if frame.count >= 14 && frame[12] == 0x88 && frame[13] == 0xB5 { return frame }
    }
    return nil
  }

  @Test(.enabled(if: FreshNetwork.hasTap, reason))
  func `frames go both ways, whole and as they are, and no call blocks`() throws {
    try FreshNetwork.run {
      let tap = try TapDevice(name: "test0")
      try check(tap.name, is: "test0", "name")
      // Down: the machine takes nothing.
      let early = unsafe Self.frame(1).withUnsafeBytes { unsafe tap.write($0) }
      try check(!early, "a link that is down took a frame")
      try tap.setMTU(1400)
      try tap.bringUp()
      let link = try PacketSocket(link: "test0")
      let none = Self.next(tap)
      try check(none == nil, "a frame that nobody has sent")
      for count in [20, 60, 100, 1414] {
        let (sent, frame) = (Self.frame(UInt8(count & 255), count: count), Self.frame(UInt8(count & 255) ^ 1, count: count))
        let code = link.send(sent)
        let got = Self.next(tap)
        try check(code == 0 && got == sent, "\(count) bytes out of the machine: errno \(code), \(got ?? [])")
        let written = unsafe frame.withUnsafeBytes { unsafe tap.write($0) }
        let seen = Self.next(link)
        try check(written && seen == frame, "\(count) bytes into the machine: \(written), \(seen ?? [])")
      }
      // The MTU that was set.
      let code = link.send(Self.frame(9, count: 1415))
      try check(code, is: EMSGSIZE, "errno of a frame past the MTU")
    }
  }

  @Test(.enabled(if: FreshNetwork.hasTap, reason))
  func `a device goes away with its owner, and one at a time has it`() throws {
    try FreshNetwork.run {
      do {
        let tap = try TapDevice(name: "test1")
        try check(unsafe if_nametoindex("test1") > 0, "no link")
        var found: TapError?
        do { _ = try TapDevice(name: "test1") } catch { found = error as? TapError }
        try check(found, is: .inUse("test1"), "the second")
        _ = consume tap
      }
      try check(unsafe if_nametoindex("test1") == 0, "it is still there")
      let again = try TapDevice(name: "test1")
      try check(again.name, is: "test1", "name")
    }
  }

  @Test(.enabled(if: FreshNetwork.hasTap, reason))
  func `another kind of link under the name is refused by name`() throws {
    try FreshNetwork.run {
      var found: TapError?
      do { _ = try TapDevice(name: "lo") } catch { found = error as? TapError }
      try check(found, is: .notTap("lo"), "lo")
    }
    #expect("\(TapError.notTap("lo"))".hasPrefix("TAP device lo: "))
  }

  @Test(arguments: ["", "a b", "a/b", "tap%d", "a:1", "..", ".", "tåp", "a\u{0}b"])
  func `a name that is none is refused before anything is asked of the machine`(name: String) {
    #expect(throws: TapError.badName(name)) { _ = try TapDevice(name: name) }
  }

  @Test func `a name that is too long is refused, not cut`() {
    #expect(throws: TapError.nameTooLong("a234567890123456", limit: 15)) { _ = try TapDevice(name: "a234567890123456") }
  }

  @Test(.enabled(if: FreshNetwork.hasTap, reason))
  func `the longest name is taken whole`() throws {
    try FreshNetwork.run {
      let tap = try TapDevice(name: "a23456789012345")
      try check(tap.name, is: "a23456789012345", "name")
    }
  }

  @Test(.enabled(if: FreshNetwork.hasTap, reason))
  func `without the right to it, the refusal says how to come by one`() throws {
    try FreshNetwork.run {
      try FreshNetwork.giveUpRights()
      var found: TapError?
      do { _ = try TapDevice(name: "test2") } catch { found = error as? TapError }
      try check(found, is: .notPermitted("test2"), "without rights")
    }
    #expect("\(TapError.notPermitted("test2"))".contains("ip tuntap add test2 mode tap"))
  }
}
