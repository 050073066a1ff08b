import ArgumentParser
import Control
import ControlSupport
import Testing

@testable import sluice

struct StatusTextTests {
  @Test func `a status is told whole`() {
    #expect(
      StatusText(statusFixture(), colours: false).description == """
        Sluice 0.1.0, pid 4711, up 1:02:05

        Network card
          kind        sim, link up, 10.0 Gbit/s, MTU 1,500
          wire        tap tap0
          received    1,000,000 frames, 355 MB
          sent        2,000 frames, 132 kB
          switched    12 frames from one VM to another
          replicated  4 frames, for several VMs
          dropped     no_route 3
          IOMMU       6 maps, no fault

        Workers
          0           processor 1, node 0, 123,456 turns, 78 sleeps, 1.50 s at rings,
                      250 ms in the card's model
          1           5 turns, 4 sleeps

        VM web
          front-end   connected (pid 812, uid 64055), for the 3rd time
          socket      /run/sluice/web.sock
          gets        frames for 02:00:00:00:00:01, VLAN 100; MTU 1,500; worker 0
          features    VERSION_1 MRG_RXBUF EVENT_IDX RING_PACKED MQ
          protocol    MQ REPLY_ACK CONFIGURE_MEM_SLOTS
          memory      2 regions, 512 MiB, node 0; writes are logged
          logged      1,234 pages as written to, for migrations
          quiesced    6 times, 750 µs at the longest
          work        1.25 s of its worker, 60.0 µs at the longest, 1,200 deferrals, 34
                      polls cut short, 5 slow signals, 1 message pause
          rings       0  receive   running   packed 256    255 posted, 9,000 signals
                      1  transmit  running   packed 256    0 posted, 12 signals
                      2  receive   failed    split 1,024   0 posted, 0 signals
                         the available index ran ahead
                      3  transmit  stopped
          received    999,950 frames, 355 MB; 99.90 % lent
            bounced   too_small 900, scattered 50
            dropped   no_buffers 47
          sent        2,000 frames, 132 kB; 99.50 % lent
            bounced   scattered 10
          violation   ring 2: the available index ran ahead

        VM db
          front-end   listening
          socket      /run/sluice/db.sock
          gets        frames for 02:00:00:00:00:02; MTU 1,500; worker 1
          contained   ring 1: the NIC does not stop its queue

        Sums
          ✓ received + replicated = delivered + dropped: 1,000,004 = 1,000,000 + 4 under
            way

        """)
  }

  @Test func `no line is longer than a terminal is wide, however odd the status`() {
    var status = statusFixture()
    status.vms["web"]?.features = (0..<60).map { "FEATURE_\($0)" }
    status.vms["web"]?.rings[0].signals = .max
    status.vms["web"]?.rings[0].outstanding = 32768
    status.nic.dropped_by = Dictionary(uniqueKeysWithValues: (0..<30).map { ("reason_\($0)", UInt64($0)) })
    for line in StatusText(status, colours: false).description.split(separator: "\n") { #expect(line.count <= 80, "\(line)") }
  }

  @Test func `what others wrote does not steer the terminal`() {
    var status = statusFixture()
    status.vms["web"]?.last_violation = "\u{1B}[2Jgone"
    status.vms["web"]?.socket = "/tmp/\u{1B}[31m"
    #expect(!StatusText(status, colours: false).description.contains("\u{1B}"))
  }

  @Test func `a law that does not hold is marked`() {
    var status = statusFixture()
    status.laws[0].holds = false
    #expect(StatusText(status, colours: false).description.contains("  ✗ received + replicated"))
  }
}

struct InjectTextTests {
  @Test func `a report says what was sent, and what came of it`() {
    #expect(
      InjectText(injectFixture(), colours: false).description == """
        Injected /tmp/t.pcap, 2 times, for 500 ms, 3.07 kframes/s.
          sent                              1,536   546 kB
          copied by the card                    4   multicast, for several VMs
          delivered                         1,530
            db                                530
            web                             1,000
          dropped                              10
            no_buffers                          7
            no_route                            3
        Every frame is accounted for.

        """)
  }

  @Test func `a frame that is nowhere, or a drop without a reason, is not accounted for`() {
    #expect(InjectText.status(of: injectFixture()) == .accounted)
    for change in [
      { $0.frames.sent += 1 }, { $0.frames.delivered += 1 }, { $0.frames.dropped += 1 }, { $0.dropped_by["no_buffers"] = 6 },
      { $0.delivered["web"] = 999 }, { $0.frames.sent = .max }, { $0.dropped_by["x"] = .max },
    ] as [(inout InjectReport) -> Void] {
      var report = injectFixture()
      change(&report)
      #expect(InjectText.status(of: report) == .unaccounted)
      #expect(InjectText(report, colours: false).description.contains("Not well"))
    }
  }

  @Test func `one that ended before its time says why`() {
    let report = injectFixture(interrupted: "the trace is damaged")
    #expect(InjectText.status(of: report) == .stopped)
    #expect(InjectText(report, colours: false).description.contains("It ended before its time: the trace is damaged."))
  }
}

struct InjectCommandTests {
  private func request(_ arguments: String...) throws -> InjectRequest {
    try #require(try Sluice.parseAsRoot(["inject"] + arguments) as? InjectCommand).request()
  }

  @Test func `what was typed is what the back-end is asked for`() throws {
    let request = try request("/t.pcap", "--loop", "1k", "--speed", "pps=1.5M", "--filter", "udp")
    #expect(request.file == "/t.pcap" && request.loops == 1000 && request.speed == "pps=1500000" && request.filter == "udp")
  }

  @Test func `a file is named so that another process finds it`() throws {
    #expect(try request("t.pcap").file.hasPrefix("/") && request("t.pcap").file.hasSuffix("/t.pcap"))
  }

  @Test(arguments: [
    (["t", "--loop", "0"], "--loop 0: must be a whole number, 1 or more"),
    (["-"], "inject -: the back-end reads the trace itself; name a file"),
    (["t", "--speed", "x2"], "--speed x2: a running back-end knows top and pps=N"),
    (["t", "--speed", "fast"], "--speed fast: no such speed; give original, xN (x2: twice as fast), pps=N, mbps=N, gbps=N or top"),
  ] as [([String], String)])
  func `a refusal names the option`(arguments: [String], message: String) {
    expectRefusal(message) {
      try #require(try Sluice.parseAsRoot(["inject"] + arguments) as? InjectCommand).request()
    }
  }
}
