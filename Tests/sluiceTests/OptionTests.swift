import FlowSteering
import Replay
import Simulation
import Testing

@testable import sluice

/// Expects that `body` refuses with exactly this message, as bad usage.
func expectRefusal(
  _ message: String, at location: SourceLocation = #_sourceLocation, _ body: () throws -> some Any
) {
  do {
    let value = try body()
    Issue.record("accepted: \(value)", sourceLocation: location)
  } catch {
    #expect(error as? Failure == .usage(message), sourceLocation: location)
  }
}

struct QuantityTests {
  @Test(arguments: [
    ("0", 0), ("7", 7), ("64k", 64_000), ("64K", 64_000), ("1.5k", 1_500), ("1.5M", 1_500_000), ("2G", 2_000_000_000),
    ("1T", 1_000_000_000_000), ("4Ki", 4096), ("0.5Mi", 524_288), ("0x2A", 42), ("18446744073709551615", UInt64.max),
    ("0xFFFFFFFFFFFFFFFF", UInt64.max),
  ] as [(String, UInt64)])
  func `a count takes a suffix, and a fraction that the suffix makes whole`(text: String, count: UInt64) {
    #expect(Quantity.count(text) == count)
  }

  @Test(arguments: [
    "", "k", "-1", "+1", "1.5", "1.0005k", "1,000", "1 000", "1e3", "0x", "0xG", "0x-1", "1kk", ".5k", "1.", "1.2.3k",
    "18446744073709551616", "18446744073709551615k", "1.00000000000000000000000001k", "٣", "NaN", "inf",
  ])
  func `what is no whole number is refused`(text: String) {
    #expect(Quantity.count(text) == nil)
  }

  @Test(arguments: [("10s", 10), ("500ms", 0.5), ("2m", 120), ("1h", 3600), ("1.5s", 1.5), ("250us", 0.00025), ("90", 90)])
  func `a time has a unit, or is in seconds`(text: String, seconds: Double) throws {
    let value = try #require(Quantity.seconds(text))
    #expect(abs(value - seconds) < 1e-12)
  }

  @Test(arguments: ["", "s", "10 s", "10x", "-1s", "1m30s", "10kms", "10k", "inf", "nan"])
  func `what is no time is refused`(text: String) {
    #expect(Quantity.seconds(text) == nil)
  }
}

struct SpeedOptionTests {
  @Test(arguments: [
    ("top", .top), ("original", .original(multiplier: 1)), ("x2", .original(multiplier: 2)),
    ("x0.5", .original(multiplier: 0.5)), ("pps=1.5M", .framesPerSecond(1_500_000)),
    ("gbps=10", .gigabitsPerSecond(10)), ("gbps=0.25", .gigabitsPerSecond(0.25)), ("mbps=250", .gigabitsPerSecond(0.25)),
  ] as [(String, ReplayOptions.Pace)])
  func `a speed is a word, a factor, frames a second or bits a second`(text: String, pace: ReplayOptions.Pace) throws {
    #expect(try SpeedOption.parse(text) == pace)
  }

  @Test(arguments: [
    ("fast", "no such speed; give original, xN (x2: twice as fast), pps=N, mbps=N, gbps=N or top"),
    ("", "no such speed; give original, xN (x2: twice as fast), pps=N, mbps=N, gbps=N or top"),
    ("10", "a number of what? write pps=10 (frames a second), gbps=10 or x10"),
    ("x0", "not a number more than 0; write it like x2"), ("x-1", "not a number more than 0; write it like x2"),
    ("pps=", "not a number more than 0; write it like pps=1.5M"),
    ("gbps=nan", "not a number more than 0; write it like gbps=10"),
    ("kbps=3", "no such unit \"kbps\"; units are pps, mbps, gbps"),
  ])
  func `a refused speed says what would be one`(text: String, reason: String) {
    expectRefusal("--speed \(text.isEmpty ? "''" : text): \(reason)") { try SpeedOption.parse(text) }
  }
}

struct VMOptionTests {
  @Test func `a name alone is a VM with Linux's buffers`() throws {
    #expect(try VMOption.parse("web") == ReplayOptions.VM(name: "web"))
  }

  @Test func `every key is taken`() throws {
    let vm = try VMOption.parse("db-1,mac=02:00:00:00:00:0A,vlan=4094,queues=4,buffers=small:512,stall-after=1k")
    #expect(
      vm == ReplayOptions.VM(
        name: "db-1", address: MACAddress.local(10), vlan: 4094, queues: 4, buffers: .small,
        bufferBytes: 512, stallsAfter: 1000))
  }

  @Test(arguments: BufferShape.allCases)
  func `every shape of buffers has a name`(shape: BufferShape) throws {
    #expect(try VMOption.parse("a,buffers=\(shape.rawValue)").buffers == shape)
  }

  @Test func `queues are those of --queues unless it says otherwise`() throws {
    #expect(try VMOption.parse("a", queues: 4).queues == 4)
    #expect(try VMOption.parse("a,queues=2", queues: 4).queues == 2)
  }

  @Test(arguments: [
    ("web,mca=02:00:00:00:00:01", "no such key \"mca\"; keys are mac, vlan, queues, buffers, stall-after"),
    ("web,", "no such key \"\"; keys are mac, vlan, queues, buffers, stall-after"),
    ("mac=02:00:00:00:00:01", "the name comes first: --vm NAME,mac=02:00:00:00:00:01"),
    ("", "a name is 1 to 32 letters, digits, '.', '_' or '-'"),
    ("a b", "a name is 1 to 32 letters, digits, '.', '_' or '-'"),
    ("a\u{1B}[2J", "a name is 1 to 32 letters, digits, '.', '_' or '-'"),
    ("web,mac", "mac has no value; write mac=02:00:00:00:00:01"),
    ("web,vlan=", "vlan has no value; write vlan=100"),
    ("web,vlan=1,vlan=2", "vlan is given twice"),
    ("web,mac=02:00", "mac=02:00: not an address; write it like 02:00:00:00:00:01"),
    ("web,vlan=0", "vlan=0: must be from 1 to 4094"), ("web,vlan=4095", "vlan=4095: must be from 1 to 4094"),
    ("web,queues=3", "queues=3: must be 1, 2 or 4"), ("web,queues=0", "queues=0: must be 1, 2 or 4"),
    ("web,stall-after=soon", "stall-after=soon: must be a number of frames, 0 or more"),
    ("web,buffers=small:1", "buffers=small:1: small buffers have 16 to 65,536 bytes, the 12 of the header with them"),
    ("web,buffers=small:", "buffers=small:: small buffers have 16 to 65,536 bytes, the 12 of the header with them"),
  ])
  func `a refusal names the key, the value and the mend`(text: String, reason: String) {
    expectRefusal("--vm \(text.isEmpty ? "''" : text): \(reason)") { try VMOption.parse(text) }
  }

  @Test func `an unknown shape is answered with those that there are`() {
    let shapes = BufferShape.allCases.map(\.rawValue).joined(separator: ", ")
    expectRefusal("--vm a,buffers=huge: buffers=huge: no such shape \"huge\"; shapes are \(shapes)") {
      try VMOption.parse("a,buffers=huge")
    }
  }
}

struct WriteOptionTests {
  @Test(arguments: [
    ("out.pcap", "", "out.pcap"), ("web=out.pcap", "web", "out.pcap"), ("web=a=b", "web", "a=b"),
    ("./a=b.pcap", "", "./a=b.pcap"), ("/srv/a=b", "", "/srv/a=b"),
  ])
  func `a file is one VM's, or everybody's`(text: String, vm: String, path: String) throws {
    let capture = try WriteOption.parse(text, vms: ["web", "db"])
    #expect(capture.vm == vm)
    #expect(capture.path == path)
  }

  @Test(arguments: [
    ("wbe=o.pcap", "--write wbe=o.pcap: no VM \"wbe\"; there are web, db. A file of that name is written ./wbe=o.pcap"),
    ("web=", "--write web=: no file named"), ("", "--write '': no file named"),
    ("-", "--write -: standard output is for the report; name a file or a named pipe"),
  ])
  func `a refusal says which VMs there are`(text: String, message: String) {
    expectRefusal(message) { try WriteOption.parse(text, vms: ["web", "db"]) }
  }
}
