import Datapath
import Simulation
import Testing

@testable import Replay
@testable import sluice

struct TextReportTests {
  private func text(_ report: ReplayReport, colours: Bool = false) -> String {
    TextReport(report, status: sluice.ExitStatus(report), colours: colours).description
  }

  @Test func `a good run`() {
    #expect(
      text(goodReport()) == """
        Replayed Traces/imix.pcap, 1,000 times, at top speed.

        Frames
          read from the trace             768,000
          received by the card            768,000   273 MB
          delivered to guests             768,000   273 MB
            lent: never copied            768,000   100 %
            bounced: copied once                0
          dropped                               0

        Guests              delivered           lent        bounced        dropped
          web                 384,000        384,000              0              0
            gets mac 02:00:00:00:00:01, broadcast and multicast
            linux buffers; 1 queue; 137 MB
            sha256 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
          db                  384,000        384,000              0              0
            gets mac 02:00:00:00:00:02, broadcast and multicast
            linux buffers; 1 queue; 137 MB
            sha256 fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210

        Sums
          ✓ read = received + skipped                                  768,000 = 768,000
          ✓ received + replicated = delivered + dropped                768,000 = 768,000

        Checks
          ✓ each guest found in its memory exactly the trace's frames (SHA-256)
          ✓ IOMMU: 14 maps, no fault

        Speed
          rate        12.3 Mframes/s, 35.1 Gbit/s, for 62.2 ms
          datapath       38.3 ns a frame   take, resolve, post, reap, header, publish
          NIC model      24.1 ns a frame   what hardware would do
          trace           5.0 ns a frame   reading it, comparing
          latency     p50 4.10 µs   p99 9.70 µs   p99.9 22.0 µs   max 310 µs

        All is well: all 768,000 frames were delivered, none was copied by the
        processor, and what was delivered is what the trace holds.

        """)
  }

  @Test func `a bad run`() {
    #expect(
      text(badReport()) == """
        Replayed a.pcap, standard input, at pps=10000.

        Frames
          read from the trace               1,000
          left out                             10   end not captured; --allow-truncated
          received by the card                990   99.0 kB
          copied by the card                    5   multicast, for several VMs
          delivered to guests                 900   90.0 kB
            lent: never copied                700   77.78 %
            bounced: copied once              200   22.22 %   20.0 kB copied
          dropped                              94

        Guests              delivered           lent        bounced        dropped
          vm0                     900            700            200             94
            gets everything; small buffers; 2 queues; 90.0 kB
            stopped: the IOMMU refused the card access to its memory at 0x10000000000
            its driver objects: queue 0: used index ran ahead

        Bounced, because
                    150  too_small
                         A frame of the largest size would not fit the guest's buffer
                         behind its header: post larger buffers, or lower --mtu.
                     50  behind_smaller
                         The buffer could be lent but waits with smaller ones before it,
                         which together hold one frame: post buffers of one size.

        Dropped, because
                     90  no_buffers
                         The guest had posted no buffer when the frame came: it is too
                         slow, or has stalled; try a larger --ring-size or a lower
                         --speed.
                      4  of_another_version

        Odd about the trace
                      3  time goes backwards
          ✗ a.pcap: at byte 99024: frame cut short (10 of 64 bytes)

        Sums
          ✗ received + replicated = delivered + dropped                        995 ≠ 994

        Checks
          ✗ VM vm0 found 899 frames in its memory, and the trace has 900 for it
          ✗ IOMMU: 3 maps, 7 faults
              write of 2048 bytes at 0x10000000000: no such page
              ...

        Speed
          rate        9.00 kframes/s, 7.20 Mbit/s, for 100 ms
          asked       10,000 frames/s (pps=10000)
          achieved    9,900 frames/s (-1.000 %)
          lateness    p99 1.20 µs   max 80.0 µs

        Not well: received + replicated = delivered + dropped does not hold: 995 against
        994.

        """)
  }

  @Test(arguments: [goodReport(), badReport()])
  func `it fits 80 columns`(report: ReplayReport) {
    for line in text(report).split(separator: "\n") { #expect(line.count <= 80, "\(line)") }
  }

  @Test(arguments: [goodReport(), badReport()])
  func `colours change nothing but the colour`(report: ReplayReport) {
    let coloured = text(report, colours: true)
    #expect(coloured.contains("\u{1B}["))
    #expect(coloured.replacing(#/\u{1B}\[[0-9;]*m/#, with: "") == text(report))
    #expect(!text(report).contains("\u{1B}"))
  }

  @Test func `the last line says what kind of well it is`() {
    var report = goodReport()
    #expect(TextReport.verdict(report, .accounted) == "All is well: all 768,000 frames were delivered, none was copied by the processor, and what was delivered is what the trace holds.")
    report.verified = nil
    report.frames.bounced = 8
    #expect(TextReport.verdict(report, .accounted) == "All is well: all 768,000 frames were delivered, 8 were copied once, and nothing was compared.")
    report.frames.lent = 0
    report.frames.dropped = 1
    report.dropped_by = ["over_mtu": 1]
    #expect(TextReport.verdict(report, .accounted) == "Every frame is accounted for, but 1 was dropped (over_mtu), each was copied once, and nothing was compared.")
    #expect(TextReport.verdict(report, .terminated).hasPrefix("Interrupted by SIGTERM; until then every frame is accounted for, but 1 was dropped"))
    #expect(TextReport.verdict(ReplayReport(), .interrupted) == "Interrupted by SIGINT; until then no frame was sent.")
  }

  @Test func `what is not well is said first`() {
    let report = badReport()
    #expect(TextReport.verdict(report, .unaccounted) == "Not well: received + replicated = delivered + dropped does not hold: 995 against 994.")
    #expect(TextReport.verdict(report, .stopped) == "Not well: VM vm0 stopped: the IOMMU refused the card access to its memory at 0x10000000000.")
    #expect(TextReport.verdict(report, .unreadable) == "Not well: a trace could not be read to its end; the 990 frames before that are accounted for.")
  }

  @Test func `a share is never rounded to all or nothing`() {
    var report = goodReport()
    (report.frames.lent, report.frames.bounced) = (767_999, 1)
    #expect(text(report).contains("> 99.99 %"))
    #expect(text(report).contains("< 0.01 %"))
  }

  @Test func `a name cannot steer the terminal`() {
    var report = badReport()
    report.files = ["a\u{1B}[2J"]
    report.trace_error = "a\u{1B}[2J: bad"
    #expect(!text(report).contains("\u{1B}"))
  }

  @Test(arguments: BounceReason.allCases)
  func `every reason to copy is explained`(reason: BounceReason) {
    #expect(ReasonText.bounced(reason.name) != nil)
  }

  @Test(arguments: PathDrop.allCases)
  func `every reason of a path to drop is explained`(reason: PathDrop) {
    #expect(ReasonText.dropped(reason.name) != nil)
  }

  @Test(arguments: CardDrop.allCases)
  func `every reason of the card to drop is explained`(reason: CardDrop) {
    #expect(ReasonText.dropped(reason.name) != nil)
  }
}
